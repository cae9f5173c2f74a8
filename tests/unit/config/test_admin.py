"""`[admin]`: where the admin API is, and every error that it can have, each at its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, UnixAddress
from relayd.config import ConfigError, Loaded, Problem, load, load_admin
from relayd.spec import ADMIN_SOCKET, Admin

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
    ("lisen = []", 1, "lisen", "unknown key", "did you mean `listen`?"),
]


@pytest.mark.parametrize(("line", "column", "key", "message", "suggestion"), ONE_LINE)
def test_one_wrong_line(problems: Problems, line: str, column: int, key: str, message: str, suggestion: str) -> None:
    (problem,) = problems(f"[admin]\n{line}\n{WEB}")
    assert (problem.line, problem.column, problem.key) == (2, column, f"admin.{key}")
    assert message in problem.message
    assert suggestion in problem.suggestion
    assert bool(suggestion) == bool(problem.suggestion)


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
