"""`[admin]`: where the admin API is, and every error that it can have, each at its place."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, UnixAddress
from relayd.config import ConfigError, Loaded, Problem, load, load_admin
from relayd.config.show import to_toml
from relayd.spec import ADMIN_SOCKET, Admin
from relayd.spec.passed import Inventory

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]
Write = Callable[..., Path]

WEB = '[listeners.web]\nbind = "0.0.0.0:8080"\ntargets = ["10.0.0.11:80"]\n'


def inet(host: str, port: int) -> InetAddress:
    return InetAddress(Family.INET6 if ":" in host else Family.INET, host, port)


@pytest.mark.parametrize(
    ("lines", "listen"),
    [
        ("", (ADMIN_SOCKET,)),
        ("allow_remote = true", (ADMIN_SOCKET,)),
        ("listen = []", ()),
        ('listen = "unix:/a/b.sock"', (UnixAddress("/a/b.sock"),)),
        (
            'listen = ["unix:@a", "127.9.9.9:1", "[::1]:65535"]',
            (UnixAddress("@a"), inet("127.9.9.9", 1), inet("::1", 65535)),
        ),
        ('listen = "192.0.2.1:9600"\nallow_remote = true', (inet("192.0.2.1", 9600),)),
        ('listen = ":9600"\nallow_remote = true', (inet("::", 9600),)),
        # A port that a listener has for datagrams, or at another address, is free.
        (
            'listen = ["127.0.0.1:9601", "127.0.0.1:9602", "[::1]:8080"]',
            (inet("127.0.0.1", 9601), inet("127.0.0.1", 9602), inet("::1", 8080)),
        ),
    ],
)
def test_what_is_listened_at(loaded: Load, lines: str, listen: tuple[object, ...]) -> None:
    others = '[listeners.dns]\ntype = "udp"\nbind = "127.0.0.1:9601"\ntargets = "10.0.0.1:53"\n'
    others += '[listeners.b]\nbind = "127.0.0.2:9602"\ntargets = "10.0.0.1:53"\n'
    assert loaded(f"[admin]\n{lines}\n{WEB}{others}").spec.admin == Admin(listen)  # type: ignore[arg-type]  # objects, for short


TAKEN = "cannot be bound beside listeners.web at "
ONE_LINE = [
    ("listen = 5", 10, "listen", "must be a string, or an array of them, not an integer", ""),
    ("listen = [5]", 11, "listen[0]", "must be a string, an address such as", ""),
    ('listen = "/run/a.sock"', 10, "listen", "written with unix:", 'did you mean "unix:/run/a.sock"?'),
    ('listen = "unix:a"', 10, "listen", "is absolute", 'did you mean "unix:/run/a"?'),
    ('listen = "127.0.0.1"', 10, "listen", "the port is missing", 'did you mean "127.0.0.1:80"?'),
    ('listen = "localhost:9600"', 10, "listen", "numeric address", 'did you mean "127.0.0.1:9600"?'),
    ('listen = "a.example.com:9600"', 10, "listen", "numeric address", ""),
    ('listen = "127.0.0.1:0"', 10, "listen", "nobody would know the port", ""),
    ('listen = "systemd:admin"', 10, "listen", "unix:/path, unix:@name or host:port", ""),
    ('listen = ["unix:/a", "unix:/b", "unix:/c", "unix:/d", "unix:/e"]', 10, "listen", "the limit is 4", ""),
    ('listen = ["unix:/a", "unix:/a"]', 22, "listen[1]", "stands twice: ", ""),
    ('listen = "192.0.2.1:9600"', 10, "listen", "other machines reach", "allow_remote = true"),
    ('listen = ["unix:/a", ":9600"]', 22, "listen[1]", 'other machines reach "[::]:9600"', "allow_remote = true"),
    ('listen = "127.0.0.1:8080"', 10, "listen", TAKEN, ""),
    ('listen = ["unix:/a", "127.0.0.1:8080"]', 22, "listen[1]", TAKEN, ""),
    ("allow_remote = 1", 16, "allow_remote", "must be true or false", ""),
    ('bind = "unix:/a"', 1, "bind", "unknown key", "did you mean `listen`?"),
    ('path = "/a"', 1, "path", "unknown key", "did you mean `listen`?"),
    ("remote = true", 1, "remote", "unknown key", "did you mean `allow_remote`?"),
    ("workers = 1", 1, "workers", "unknown key", "help: `workers` belongs in [daemon]"),
    ("read_only = 1", 13, "read_only", "must be true or false", ""),
    ("hosts = 5", 9, "hosts", "must be a string, or an array of them", ""),
    ('hosts = ["a", 5]', 15, "hosts[1]", "must be a string, a name such as", ""),
    ('hosts = "http://a"', 9, "hosts", "is no host name", ""),
    ('hosts = "*.example.com"', 9, "hosts", "is no host name", ""),
    ('hosts = "a.example.com:9600"', 9, "hosts", "without its port", 'did you mean "a.example.com"?'),
    ('hosts = "10.0.0.1"', 9, "hosts", "need not stand here", ""),
    ('hosts = "localhost"', 9, "hosts", "need not stand here", ""),
    ("token_file = 5", 14, "token_file", "must be a string, a path such as", ""),
    ('token_file = "token"', 14, "token_file", "neither an absolute path nor ${CREDENTIALS_DIRECTORY}/NAME", ""),
    ('token_file = "/nosuch"', 14, "token_file", "/nosuch cannot be read: No such file", ""),
    ('token = "/a"', 1, "token", "unknown key", "did you mean `token_file`?"),
    ("readonly = true", 1, "readonly", "unknown key", "did you mean `read_only`?"),
    ("lisen = []", 1, "lisen", "unknown key", "did you mean `listen`?"),
]


@pytest.mark.parametrize(("line", "column", "key", "message", "suggestion"), ONE_LINE)
def test_one_wrong_line(problems: Problems, line: str, column: int, key: str, message: str, suggestion: str) -> None:
    (problem,) = problems(f"[admin]\n{line}\n{WEB}")
    assert (problem.line, problem.column, problem.key) == (2, column, f"admin.{key}")
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert bool(suggestion) == bool(problem.suggestion)


TOKEN = "correct-horse-battery"
TOKEN_SHA256 = hashlib.sha256(TOKEN.encode()).hexdigest()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file that nobody else may read."""
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN)
    return path


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_token_is_known_by_its_hash(write: Write, token: Path, end: str) -> None:
    token.write_bytes(f"{TOKEN}{end}".encode())
    path = write(f'[admin]\ntoken_file = "{token}"\n{WEB}')
    found = load(path)
    assert (found.spec.admin.token_file, found.spec.admin.token_sha256) == (str(token), TOKEN_SHA256)
    assert TOKEN not in repr(found)
    assert TOKEN_SHA256 not in repr(found)
    assert load_admin(path).token_file == str(token)
    assert load_admin(path).token_sha256 == ""  # who asks reads it itself


@pytest.mark.parametrize(
    ("data", "mode", "error", "suggestion"),
    [
        (b"", 0o600, "has no token", "openssl rand"),
        (b"\n", 0o600, "has no token", "openssl rand"),
        (b"0123456789abcde\n", 0o600, "has a token of 15 characters: the least is 16", "openssl rand"),
        (b"0123456789 abcdef", 0o600, "is not one line of visible ASCII", "openssl rand"),
        (b"0123456789abcdef\n\n", 0o600, "is not one line of visible ASCII", "openssl rand"),
        (b"0123456789abcdef\nx", 0o600, "is not one line of visible ASCII", "openssl rand"),
        ("0123456789abcdefé".encode(), 0o600, "is not one line of visible ASCII", "openssl rand"),
        (b"0123456789abcdef\0", 0o600, "is not one line of visible ASCII", "openssl rand"),
        (b"a" * 1025, 0o600, "has more than the 1024 characters", "openssl rand"),
        (b"a" * 5000, 0o600, "has more than the 1024 characters", "openssl rand"),
        (TOKEN.encode(), 0o604, "is open to every user of this machine", "chmod o="),
        (TOKEN.encode(), 0o602, "is open to every user of this machine", "chmod o="),
    ],
)
def test_what_is_no_token(problems: Problems, token: Path, data: bytes, mode: int, error: str, suggestion: str) -> None:
    token.write_bytes(data)
    token.chmod(mode)
    (problem,) = problems(f'[admin]\ntoken_file = "{token}"\n{WEB}')
    assert (problem.line, problem.column, problem.key) == (2, 14, "admin.token_file")
    assert f"{token} {error}" in problem.message
    assert suggestion in problem.suggestion
    assert "0123456789" not in str(problem).replace(str(token), "")


def test_a_token_may_be_for_a_group_too(loaded: Load, token: Path) -> None:
    token.chmod(0o440)
    assert loaded(f'[admin]\ntoken_file = "{token}"\n{WEB}').spec.admin.token_sha256 == TOKEN_SHA256


@pytest.mark.parametrize("what", ["directory", "pipe"])
def test_what_is_no_file_holds_nobody_up(problems: Problems, tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(0o700)
    (problem,) = problems(f'[admin]\ntoken_file = "{path}"\n{WEB}')
    assert problem.message == f"{path} is not a file"


CREDENTIAL = '[admin]\ntoken_file = "${CREDENTIALS_DIRECTORY}/token"\n' + WEB


def test_a_credential_of_systemd(write: Write, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(CREDENTIAL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(token.parent))
    both: list[Inventory | None] = [None, {}]
    for passed in both:
        admin = load(path, passed).spec.admin
        assert (admin.token_file, admin.token_sha256) == ("${CREDENTIALS_DIRECTORY}/token", TOKEN_SHA256)
        assert f'token_file = "{admin.token_file}"' in to_toml(load(path, passed).spec)
    token.unlink()
    with pytest.raises(ConfigError, match="token cannot be read: No such file"):
        load(path)


def test_without_credentials_nobody_has_the_token(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    path = write(CREDENTIAL)
    found = load(path)  # `relayd check`, by hand
    assert found.spec.admin.token_sha256 == "-"
    (warning,) = found.warnings
    assert (warning.line, warning.column, warning.key) == (2, 14, "admin.token_file")
    assert "CREDENTIALS_DIRECTORY is not set" in warning.message
    with pytest.raises(ConfigError) as caught:
        load(path, {})  # the daemon
    (problem,) = caught.value.problems
    assert problem.message == "CREDENTIALS_DIRECTORY is not set"
    assert "LoadCredential=token:/path/to/it" in problem.suggestion


REMOTE = 'listen = ["unix:@a", "192.0.2.1:9600"]\nallow_remote = true\n'


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        (REMOTE, True),
        (REMOTE + "read_only = true\n", False),
        (REMOTE + 'token_file = "TOKEN"\n', False),
        ("allow_remote = true\n", False),
        ('listen = "127.0.0.1:9600"\nallow_remote = true\n', False),
    ],
)
def test_a_door_that_is_open_to_other_machines(loaded: Load, token: Path, lines: str, warned: bool) -> None:
    found = loaded("[admin]\n" + lines.replace("TOKEN", str(token)) + WEB).warnings
    assert [(one.line, one.column, one.key) for one in found] == ([(3, 16, "admin.allow_remote")] if warned else [])
    assert all("token_file, or read_only = true" in one.suggestion for one in found)


def test_hosts_are_names_in_lower_case(loaded: Load) -> None:
    text = f'[admin]\nhosts = ["Relay.Example.COM.", "relay.example.com", "a"]\n{WEB}'
    assert loaded(text).spec.admin.hosts == ("relay.example.com", "a")
    assert loaded(f'[admin]\nhosts = "a"\n{WEB}').spec.admin.hosts == ("a",)


def test_whether_others_may_come_is_not_asked_where_that_is_wrong(problems: Problems) -> None:
    (problem,) = problems('[admin]\nlisten = ":9600"\nallow_remote = "yes"\n' + WEB)
    assert problem.key == "admin.allow_remote"


@pytest.mark.parametrize("kind", ["stream", "dgram"])
def test_a_path_that_a_listener_has(problems: Problems, tmp_path: Path, kind: str) -> None:
    (problem,) = problems(
        f'[listeners.web]\ntype = "{kind}"\nbind = "unix:{tmp_path}/./a"\ntargets = "10.0.0.1:1"\n'
        f'[admin]\nlisten = "unix:{tmp_path}/a"'
    )
    assert TAKEN in problem.message
    assert (problem.line, problem.column) == (6, 10)


@pytest.mark.parametrize(("kind", "taken"), [("stream", True), ("dgram", False)])
def test_an_abstract_name_that_a_listener_has(write: Write, kind: str, taken: bool) -> None:
    path = write(
        f'[admin]\nlisten = "unix:@a"\n[listeners.web]\ntype = "{kind}"\nbind = "unix:@a"\ntargets = "10.0.0.1:1"\n'
    )
    if not taken:
        assert load(path).spec.admin.listen == (UnixAddress("@a"),)
        return
    with pytest.raises(ConfigError, match=TAKEN):
        load(path)


def test_it_stands_in_any_file_but_once(write: Write) -> None:
    main = write('include = "b.toml"\n' + WEB)
    other = write('[admin]\nlisten = "unix:@other"\n', "b.toml")
    assert load(main).spec.admin.listen == load_admin(main).listen == (UnixAddress("@other"),)
    write('include = "b.toml"\n[admin]\nlisten = "unix:@main"\n' + WEB)
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert str(caught.value).startswith(f"{other}:1:2: admin: [admin] stands once in all files")


def test_the_words_of_other_tools(problems: Problems) -> None:
    assert problems('[api]\nlisten = "unix:/a"\n' + WEB)[0].suggestion == "did you mean `[admin]`?"
    found = problems('[log]\nlisten = "unix:/a"\n' + WEB)
    assert found[0].suggestion == "help: `listen` belongs in [admin]"
    assert problems("[defaults]\non_reload = 'keep'\n" + WEB)[0].suggestion == "did you mean `on_change`?"


def test_load_admin_looks_at_nothing_else(write: Write) -> None:
    broken = '[admin]\nlisten = "unix:@a"\n[listeners.web]\nbind = "nosuch.invalid:80"\nlisten = 5\n'
    assert load_admin(write(broken)).listen == (UnixAddress("@a"),)
    assert load_admin(write(WEB)).listen == (ADMIN_SOCKET,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[admin\n", ":1:7: "),
        ("admin = 5\n", "admin: must be a table"),
        ("[admin]\nlisten = 5\n[log]\nlevel = 5\n", "admin.listen: must be a string"),
    ],
)
def test_load_admin_says_what_is_in_its_way(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_admin(write(text))
    (problem,) = caught.value.problems
    assert message in str(problem)


def test_load_admin_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_admin(tmp_path / "nope.toml")
