"""The commands that ask a daemon, in this process; the daemon is an admin API in a thread, and a stand-in behind it."""

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress, from_sockaddr
from relayd.cli import client, options, verbs, verbs_operating
from relayd.control.verdict import Change, Verdict
from relayd.spec import Admin, Ordered
from tests.unit.control.operating import CONFIG, EVERYBODY, EXPLANATION, NO, STATUS, TARGETS, YES, FakeOperator, serving

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\ntargets = ["10.0.0.11:80"]\n'
DEADLINE_S = 10.0


def name() -> UnixAddress:
    """A Unix address that nobody has. Abstract: a test's directory may be too long for a path."""
    return UnixAddress(f"@relayd-test-{uuid.uuid4().hex}")


@contextlib.contextmanager
def running(*listen: SocketAddress, who: Admin = EVERYBODY) -> Iterator[tuple[FakeOperator, tuple[SocketAddress, ...]]]:
    """A daemon: what it was asked for, and where it is."""
    found: list[tuple[FakeOperator, tuple[SocketAddress, ...]]] = []
    ready = threading.Event()
    end: list[Callable[[], object]] = []

    async def live() -> None:
        over, loop, operator = asyncio.Event(), asyncio.get_running_loop(), FakeOperator()
        end.append(lambda: loop.call_soon_threadsafe(over.set))
        async with serving(operator, *listen, who=who) as server:
            found.append((operator, server.addresses))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        yield found[0]
    finally:
        end[0]()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.fixture(autouse=True)
def default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnixAddress:
    """The default socket, and the default file, of this test alone."""
    address = name()
    monkeypatch.setattr("relayd.spec.ADMIN_SOCKET", address)
    monkeypatch.setattr("relayd.config.admin.ADMIN_SOCKET", address)
    monkeypatch.setattr(options, "DEFAULT_FILE", tmp_path / "default.toml")
    monkeypatch.delenv("RELAYD_ADMIN", raising=False)
    monkeypatch.delenv("RELAYD_ADMIN_TOKEN_FILE", raising=False)
    return address


@pytest.fixture
def daemon(default: UnixAddress) -> Iterator[FakeOperator]:
    with running(default) as (operator, _):
        yield operator


def relayd(*arguments: str) -> Result:
    return CliRunner().invoke(verbs.app, list(arguments))


def said(result: Result) -> tuple[int, str, str]:
    return result.exit_code, result.stdout, result.stderr


def test_reload(daemon: FakeOperator) -> None:
    daemon.verdict = Verdict(
        ok=True,
        changes=(Change("~", "web", "target 10.0.0.2:80 removed", "42 connections: drain 30s"), Change("+", "dns")),
    )
    lines = "~ listener web: target 10.0.0.2:80 removed (42 connections: drain 30s)\n+ listener dns\n"
    assert said(relayd("reload")) == (0, lines, "")
    assert daemon.asked == [("reload", None)]


def test_a_reload_with_nothing_to_do(daemon: FakeOperator) -> None:
    daemon.verdict = Verdict(ok=True)
    assert said(relayd("reload")) == (0, "nothing to change\n", "")
    assert said(relayd("reload", "--confirm", "5s")) == (0, "nothing to change\n", "")


def test_a_reload_that_is_refused(daemon: FakeOperator) -> None:
    daemon.verdict = NO
    assert said(relayd("reload")) == (1, "", "relay.toml:3:1: bad\n    x\n    ^\nmore\n")


def test_a_reload_to_be_confirmed(daemon: FakeOperator) -> None:
    code, out, err = said(relayd("reload", "--confirm", "1m30s"))
    assert (code, err) == (0, "warning: relay.toml:4:1: careful\n")
    assert out == "+ listener dns\ngoing back in 1m30s unless `relayd confirm` comes\n"
    assert daemon.asked == [("reload", 90)]


@pytest.mark.parametrize("time", ["5", "0s", "soon"])
def test_a_confirmation_without_a_time(daemon: FakeOperator, time: str) -> None:
    code, out, err = said(relayd("reload", "--confirm", time))
    assert (code, out) == (2, "")
    assert "--confirm" in err
    assert daemon.asked == []


def test_a_confirmation_that_takes_too_long(daemon: FakeOperator) -> None:
    code, out, err = said(relayd("reload", "--confirm", "2d"))
    assert (code, out) == (1, "")
    assert err == "relayd: confirm_s is a number of seconds, more than 0 and at most 86400\n"


def test_confirm(daemon: FakeOperator) -> None:
    assert said(relayd("confirm")) == (0, "confirmed\n", "")
    daemon.verdict = Verdict(ok=False, errors=("no reload waits for it",))
    assert said(relayd("confirm")) == (1, "", "no reload waits for it\n")


def test_plan(daemon: FakeOperator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.toml").write_text(WEB)
    assert said(relayd("plan")) == (10, "+ listener dns\n", "warning: relay.toml:4:1: careful\n")
    daemon.verdict = Verdict(ok=True)
    assert said(relayd("plan", "-c", "new.toml")) == (0, "nothing to change\n", "")
    daemon.verdict = NO
    assert relayd("plan", "-c", f"{tmp_path}/new.toml").exit_code == 1
    assert daemon.asked == [("plan", None), ("plan", tmp_path / "new.toml"), ("plan", tmp_path / "new.toml")]


@pytest.mark.parametrize(("verdict", "code"), [(YES, 10), (NO, 1), (Verdict(ok=True), 0)])
def test_plan_as_json(daemon: FakeOperator, verdict: Verdict, code: int) -> None:
    daemon.verdict = verdict
    result = relayd("plan", "--json")
    assert (result.exit_code, result.stderr) == (code, "")
    assert Verdict.from_json(json.loads(result.stdout)) == verdict


def test_status(daemon: FakeOperator) -> None:
    code, out, err = said(relayd("status"))
    assert (code, err) == (0, "")
    assert out.startswith("relayd 1.2.3, pid 7, ")
    assert json.loads(relayd("status", "--json").stdout) == STATUS


def test_targets(daemon: FakeOperator) -> None:
    code, out, err = said(relayd("target", "list"))
    assert (code, err) == (0, "")
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [
        ["web", "10.0.0.11:80", "down"],
        ["web", "10.0.0.12:80", "up"],
    ]
    assert said(relayd("target", "list", "web")) == (0, out, "")
    assert json.loads(relayd("target", "list", "--json").stdout) == {"targets": TARGETS}
    assert said(relayd("target", "list", "app")) == (1, "", "relayd: there is no pool 'app': there is web\n")


def test_an_order_to_a_target(daemon: FakeOperator) -> None:
    daemon.verdict = Verdict(ok=True, changes=(Change("~", None, "target a:80 of web: drained"),))
    for action in ("drain", "disable", "enable"):
        assert said(relayd("target", action, "web", "a:80")) == (0, "~ target a:80 of web: drained\n", "")
    assert relayd("target", "weight", "web", "a:80", "5").exit_code == 0
    assert relayd("target", "weight", "web", "a:80", "file").exit_code == 0
    assert daemon.asked == [
        ("order", "web", "a:80", Ordered.DRAINED, None),
        ("order", "web", "a:80", Ordered.DISABLED, None),
        ("order", "web", "a:80", Ordered.ENABLED, None),
        ("order", "web", "a:80", None, 5),
        ("order", "web", "a:80", None, 0),
    ]
    assert Verdict.from_json(json.loads(relayd("target", "drain", "web", "a:80", "--json").stdout)) == daemon.verdict
    daemon.verdict = NO
    code, out, err = said(relayd("target", "drain", "web", "b:80"))
    assert (code, out) == (1, "")
    assert err.startswith("relayd: relay.toml:3:1: bad")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("drain", "POOL and TARGET are missing: it takes POOL TARGET"),
        ("drain web", "TARGET is missing: it takes POOL TARGET"),
        ("drain web a:80 5", "'5' is too much: it takes POOL TARGET"),
        ("weight web a:80", "WEIGHT is missing: it takes POOL TARGET WEIGHT"),
        ("list web a:80", "'a:80' is too much: it takes POOL"),
        ("weight web a:80 0", "0 is no weight: did you mean `relayd target drain`? The weight of the file is `file`"),
        ("weight web a:80 257", "a weight is 1 to 256, or `file` for that of the file, not '257'"),
        ("weight web a:80 x", "a weight is 1 to 256, or `file` for that of the file, not 'x'"),
    ],
)
def test_an_order_that_is_not_whole(daemon: FakeOperator, arguments: str, error: str) -> None:
    action = arguments.split()[0]
    assert said(relayd("target", *arguments.split())) == (2, "", f"relayd target {action}: {error}\n")
    assert daemon.asked == []


@pytest.mark.parametrize("verb", [["target", "list"], ["status"]], ids=" ".join)
def test_targets_of_a_daemon_of_another_version(
    daemon: FakeOperator, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.delitem(TARGETS[0], "state")
    error = "relayd: the answer lacks state: it is of another version of relayd\n"
    assert said(relayd(*verb)) == (3, "", error)


def test_explain(daemon: FakeOperator) -> None:
    code, out, err = said(relayd("explain", "web", "--client", "192.0.2.7", "--port", "80"))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "listener web, pool app: 192.0.2.7 goes to 10.0.0.12:80",
        "    by the hash of its address: the same in every worker",
        "    if that fails: 10.0.0.13:80, a backup",
        "    not 10.0.0.11:80: down: connect timeout x3",
        "    what only a worker knows is left out: whose turn it is, whom it suspects, and which limits it has reached",
    ]
    assert json.loads(relayd("explain", "web", "--json").stdout) == EXPLANATION
    assert daemon.asked == [("explain", "web", b"192.0.2.7", 80), ("explain", "web", b"", None)]
    assert said(relayd("explain", "wob")) == (1, "", "relayd: there is no listener 'wob'\n")
    code, out, err = said(relayd("explain", "web", "--client", "example.com"))
    assert (code, out) == (1, "")
    assert "client is an IP address" in err


def test_a_status_of_another_version(daemon: FakeOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATUS, "workers", 5)
    code, out, err = said(relayd("status"))
    assert (code, out) == (3, "")
    assert "not one of this version" in err


# Where the daemon is.


def test_where_it_is(default: UnixAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_option, by_environment, by_file = name(), name(), name()
    file = tmp_path / "relay.toml"
    file.write_text(f'[admin]\nlisten = ["{name()}", "{by_file}"]\n{WEB}wrong = 1\n')
    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(running(one))[0] for one in (by_option, by_environment, by_file, default)]
        assert relayd("status", "--json").exit_code == 0
        assert relayd("status", "-c", str(file)).exit_code == 0
        monkeypatch.setenv("RELAYD_ADMIN", str(by_environment))
        assert relayd("status", "-c", str(file)).exit_code == 0
        assert relayd("status", "-c", str(file), "--admin", str(by_option)).exit_code == 0
        assert [one.asked for one in daemons] == [["status"]] * 4


def test_by_tcp() -> None:
    with running(InetAddress(Family.INET, "127.0.0.1", 0)) as (operator, (address,)):
        assert relayd("plan", "--admin", str(address)).exit_code == 10
        assert isinstance(address, InetAddress)
        assert relayd("plan", "--admin", f"localhost:{address.port}").exit_code == 10
        code, _, err = said(relayd("plan", "--admin", str(address), "-c", "/etc/relayd/relay.toml"))
        assert code == 1
        assert err.startswith("relayd: by TCP")
        assert len(operator.asked) == 2


@pytest.mark.parametrize("text", ["", "foo", "/run/relayd/admin.sock", "unix:"])
def test_what_is_no_address(text: str) -> None:
    code, out, err = said(relayd("status", f"--admin={text}"))
    assert (code, out) == (2, "")
    assert "--admin" in err


def test_nobody_is_there(default: UnixAddress, tmp_path: Path) -> None:
    for command in ("reload", "confirm", "status"):
        assert said(relayd(command)) == (3, "", f"relayd: no daemon listens at {default}: Connection refused\n")
    nosuch = f"unix:{tmp_path.root}nosuch-relayd.sock"
    assert said(relayd("plan", "--admin", nosuch)) == (
        3,
        "",
        f"relayd: no daemon listens at {nosuch}: No such file or directory\n",
    )


def test_it_is_turned_off(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f"[admin]\nlisten = []\n{WEB}")
    assert said(relayd("status", "-c", str(file))) == (
        3,
        "",
        f"relayd: {file}: the admin API is off: [admin] listen is []\n",
    )


def test_a_file_that_cannot_tell(tmp_path: Path) -> None:
    code, out, err = said(relayd("reload", "-c", f"{tmp_path}/nope.toml"))
    assert (code, out) == (1, "")
    assert err == f"{tmp_path}/nope.toml: cannot be read: No such file or directory\n"


def test_a_plan_without_a_daemon(default: UnixAddress, tmp_path: Path) -> None:
    nobody = f"relayd: no daemon listens at {default}: Connection refused; the file is compared with nothing\n"
    (tmp_path / "default.toml").write_text(WEB)
    assert said(relayd("plan")) == (10, "+ listener web\n", nobody)
    file = tmp_path / "relay.toml"
    file.write_text(WEB + WEB.replace("web", "api").replace("8080", "8081") + 'interface = "nosuch0"\n')
    code, out, err = said(relayd("plan", "-c", str(file)))
    assert (code, out) == (10, "+ listener web\n+ listener api\n")
    assert err.startswith(f"{nobody}warning: {file}:7:13: ")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            WEB + "listen = 5\n",
            ":4:1: listeners.web.listen: unknown key\n    listen = 5\n    ^\n    did you mean `bind`?\n",
        ),
        ("[admin\n", ":1:7: "),
        (f"[admin]\nlisten = 5\n{WEB}wrong = 1\n", "listeners.web.wrong: unknown key"),
    ],
)
def test_a_plan_of_a_file_with_errors(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    code, out, err = said(relayd("plan", "-c", str(file)))
    assert (code, out) == (1, "")
    assert error in err
    found = Verdict.from_json(json.loads(relayd("plan", "--json", "-c", str(file)).stdout))
    assert (found.ok, found.changes) == (False, ())
    assert "".join(f"{one}\n" for one in found.errors) in err


def test_a_plan_with_too_few_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs_operating, "nofile_max", lambda: 36)
    (tmp_path / "default.toml").write_text(WEB)
    result = relayd("plan")
    assert result.exit_code == 1
    assert "too few file descriptors" in result.stderr


# Something else is there.


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Something that says `answer` to the first client, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(DEADLINE_S)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(DEADLINE_S)
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # what is left unread would make the end a reset
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(from_sockaddr(socket.AF_INET, listening.getsockname()))
        thread.join()


def http_answer(status: int, body: str) -> bytes:
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answer", "code", "error"),
    [
        (b"", 3, "without response"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 3, "not the admin API"),
        (http_answer(200, "<html>"), 3, "not the admin API"),
        (http_answer(200, "[" * 100_000), 3, "not the admin API"),
        (http_answer(200, "[]"), 3, "not the admin API"),
        (b'HTTP/1.1 200 x\r\nContent-Length: 100\r\n\r\n{"ok": ', 3, "not the admin API"),
        (http_answer(200, "{}"), 3, "not one of this version"),
        (http_answer(409, '{"ok": 5}'), 3, "not one of this version"),
        (http_answer(503, '{"error": "relayd is stopping"}'), 3, "relayd is stopping"),
        (http_answer(500, '{"error": "a bug in relayd"}'), 1, "a bug in relayd"),
        (http_answer(404, '{"error": "there is no /v1/reload"}'), 1, "there is no /v1/reload"),
        (http_answer(404, '{"error": "\\u001b[2J"}'), 1, "\\x1b[2J"),
    ],
)
def test_other_answers(answer: bytes, code: int, error: str) -> None:
    with answering(answer) as address:
        found = said(relayd("reload", "--admin", address))
    assert found[:2] == (code, "")
    assert error in found[2]


def test_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_ANSWER_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = from_sockaddr(socket.AF_INET, silent.getsockname())
        code, out, err = said(relayd("status", "--admin", str(address)))
    assert (code, out) == (3, "")
    assert err == f"relayd: {address}: timed out\n"


def test_a_client_error_says_where(monkeypatch: pytest.MonkeyPatch, default: UnixAddress) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(client._Connection, "connect", refuse)
    # Somebody is there: the file is not compared with nothing.
    assert said(relayd("plan")) == (3, "", f"relayd: {default}: Permission denied\n")


def test_the_level_of_the_log(daemon: FakeOperator) -> None:
    assert said(relayd("log-level")) == (0, "info\n", "")
    text = "debug until the next reload or restart; the file says info\n"
    assert said(relayd("log-level", "debug")) == (0, text, "")
    assert json.loads(relayd("log-level", "debug", "--json").stdout) == {"level": "debug", "file": "info"}
    assert [each[:2] for each in daemon.asked[1:]] == [("set_log_level", "debug")] * 2  # type: ignore[index]  # tuples
    code, out, err = said(relayd("log-level", "trace"))
    assert (code, out, err) == (1, "", "relayd: level is one of debug, info, warning, error\n")


def test_the_configuration_of_the_daemon(daemon: FakeOperator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(relayd("show-config", "--running")) == (0, CONFIG["toml"], "")
    monkeypatch.delitem(CONFIG, "toml")
    code, out, err = said(relayd("show-config", "--running"))
    assert (code, out, err) == (3, "", "relayd: the answer lacks toml: it is of another version of relayd\n")


def test_without_a_daemon_there_is_nothing_that_runs() -> None:
    assert relayd("show-config", "--running").exit_code == 3
    assert relayd("log-level").exit_code == 3


TOKEN = "correct-horse-battery"
GUARDED = Admin(token_file="/token", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest())
LOOPBACK = InetAddress(Family.INET, "127.0.0.1", 0)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN + "\n")
    return path


def test_a_token_by_tcp(default: UnixAddress, token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(LOOPBACK, default, who=GUARDED) as (_, (tcp, _unix)):
        there = ("--admin", str(tcp))
        assert relayd("status", *there, "--token-file", str(token)).exit_code == 0
        file = tmp_path / "relay.toml"
        file.write_text(f'[admin]\nlisten = "{tcp}"\ntoken_file = "{token}"\n{WEB}')
        assert relayd("status", "-c", str(file)).exit_code == 0
        assert relayd("status", *there, "-c", str(file)).exit_code == 0
        assert relayd("show-config", "--running", "-c", str(file)).stdout == CONFIG["toml"]
        monkeypatch.setenv("RELAYD_ADMIN_TOKEN_FILE", str(token))
        assert relayd("confirm", *there).exit_code == 0
        assert relayd("plan", *there).exit_code == 10


def test_a_daemon_that_wants_a_token(default: UnixAddress, token: Path) -> None:
    with running(LOOPBACK, default, who=GUARDED) as (operator, (tcp, _unix)):
        code, out, err = said(relayd("status", "--admin", str(tcp)))
        assert (code, out) == (3, "")
        assert err.startswith(f"relayd: {tcp}: a token is needed: --token-file, RELAYD_ADMIN_TOKEN_FILE, or -c ")
        token.write_text("another-token-0123456789")
        code, out, err = said(relayd("reload", "--admin", str(tcp), "--token-file", str(token)))
        assert (code, out) == (3, "")
        assert err.startswith(f"relayd: {tcp}: the token is not that of the daemon: ")
        assert "another-token" not in err
        assert operator.asked == []


@pytest.mark.parametrize(
    ("mode", "text", "error"),
    [(0o604, TOKEN, "is open to every user of this machine"), (0o600, "short", "has a token of 5 characters")],
)
def test_a_token_that_cannot_be_used(token: Path, mode: int, text: str, error: str, default: UnixAddress) -> None:
    token.write_text(text)
    token.chmod(mode)
    with running(LOOPBACK, default, who=GUARDED) as (operator, (tcp, _unix)):
        for verb in ("status", "plan"):
            code, out, err = said(relayd(verb, "--admin", str(tcp), "--token-file", str(token)))
            assert (code, out) == (3, "")
            assert err.startswith(f"relayd: the token: {token} {error}")
            assert "help: " in err
        assert operator.asked == []
        # To a Unix socket none is sent, so that it is not even read.
        assert relayd("status", "--token-file", "/nosuch").exit_code == 0
