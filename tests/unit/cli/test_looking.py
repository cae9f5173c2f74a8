"""The commands that look at a daemon, in this process, and where a terminal is needed, in one of their own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from relayd.address import UnixAddress
from relayd.cli import verbs
from tests.fake_admin import FakeAdmin, connection, serving


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture(autouse=True)
def address(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnixAddress]:
    with serving(admin) as where:
        monkeypatch.setenv("RELAYD_ADMIN", str(where))
        yield where


def relayd(*arguments: str) -> Result:
    return CliRunner().invoke(verbs.app, list(arguments))


def said(result: Result) -> tuple[int, str, str]:
    return result.exit_code, result.stdout, result.stderr


def test_connections(admin: FakeAdmin) -> None:
    code, out, err = said(relayd("connections"))
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["id", "8f76d9-0-2", "8f76d9-0-1", "8f76d9-0-0"]
    assert "\x1b" not in out
    assert admin.asked == ["GET /v1/connections?sort=age&limit=1000"]


def test_all_that_can_be_asked(admin: FakeAdmin) -> None:
    line = "--listener web --client 10.0.0.1 --target 10.1.0.1:8080 --sort new --limit 5 --tcp-info"
    code, out, err = said(relayd("connections", *line.split()))
    assert (code, err) == (0, "")
    assert "1,234" in out
    assert admin.asked == [
        "GET /v1/connections?listener=web&client=10.0.0.1&target=10.1.0.1%3A8080&sort=new&tcp_info=yes&limit=5"
    ]


def test_as_json() -> None:
    found = json.loads(relayd("connections", "--json", "--limit", "2").stdout)
    assert (found["total"], [one["id"] for one in found["connections"]]) == (3, ["8f76d9-0-2", "8f76d9-0-1"])
    assert relayd("connections", "--limit", "2").stdout.splitlines()[-1] == "1 more: --limit"


def test_what_cannot_be_asked(admin: FakeAdmin) -> None:
    error = "relayd: client is an address or a network, not 'nonsense'\n"
    assert said(relayd("connections", "--client", "nonsense")) == (1, "", error)
    for wrong in (["--limit", "0"], ["--limit", "10001"], ["--sort", "size"], ["--watch=0"], ["--watch=x"]):
        assert relayd("connections", *wrong).exit_code == 2
    assert len(admin.asked) == 1


def test_names_that_would_act_on_the_terminal(admin: FakeAdmin) -> None:
    admin.connections = [connection(1, client="unix:@\x1b]0;owned\x07\x1b[2J\r\n", client_port=0)]
    out = relayd("connections").stdout
    assert "unix:@\\x1b]0;owned\\x07\\x1b[2J\\r\\n" in out
    assert out.count("\n") == 2
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("verb", ["connections", "status"])
def test_a_daemon_of_another_version(admin: FakeAdmin, verb: str) -> None:
    del admin.connections[0]["idle_s"], admin.status["pid"]
    code, out, err = said(relayd(verb))
    assert (code, out) == (3, "")
    assert err.endswith(": it is of another version of relayd\n")


@pytest.mark.parametrize("verb", ["connections", "status", "kill"])
def test_nobody_is_there(verb: str) -> None:
    more = ["x"] if verb == "kill" else ["--watch"]
    code, out, err = said(relayd(verb, *more, "--admin", "unix:@relayd-test-nobody"))
    assert (code, out) == (3, "")
    assert err.startswith("relayd: no daemon listens at ")


@pytest.mark.parametrize("verb", ["connections", "status"])
def test_watch_without_a_terminal(verb: str) -> None:
    """One document a line, until nobody reads it."""
    command = [sys.executable, "-m", "relayd", verb, "--json", "--watch=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        assert lines[0] == lines[1] == lines[2]
        process.stdout.close()
        assert (process.wait(20), process.stderr.read()) == (0, b"")


def test_watch_of_text_without_a_terminal() -> None:
    command = [sys.executable, "-m", "relayd", "connections", "--watch=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split()[:1] for _ in range(6)]
        assert lines == [[b"id"], [b"8f76d9-0-2"], [b"8f76d9-0-1"], [b"8f76d9-0-0"], [], [b"id"]]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_kill_one(admin: FakeAdmin) -> None:
    assert said(relayd("kill", "8f76d9-0-1")) == (0, "1 connection ended\n", "")
    assert admin.killed == [{"id": "8f76d9-0-1"}]
    assert said(relayd("kill", "8f76d9-0-1")) == (1, "", "relayd: there is no such connection\n")


def test_kill_many(admin: FakeAdmin) -> None:
    admin.complete = False
    code, out, err = said(relayd("kill", "--listener", "web", "--target", "10.1.0.1:8080", "--yes"))
    assert (code, out) == (0, "1 connection ended\n")
    assert err == "a worker has not answered in time: what it has may go on\n"
    assert json.loads(relayd("kill", "--listener", "web", "--yes", "--json").stdout) == {"killed": 2, "complete": False}
    assert admin.killed == [{"listener": "web", "target": "10.1.0.1:8080"}, {"listener": "web"}]
    assert not any("GET" in each for each in admin.asked)


def test_kill_where_no_worker_answers_in_time(admin: FakeAdmin) -> None:
    admin.complete = admin.has_time = False
    late = "a worker has not answered in time: what it has may go on\n"
    assert said(relayd("kill", "8f76d9-0-1")) == (1, "0 connections ended\n", late)
    code, out, err = said(relayd("kill", "8f76d9-0-1", "--json"))
    assert (code, json.loads(out), err) == (1, {"killed": 0, "complete": False}, late)


@pytest.mark.parametrize("option", ["--listener", "--client", "--target"])
@pytest.mark.parametrize("verb", [["kill", "--yes"], ["connections"]])
def test_an_option_that_is_empty_does_not_mean_everything(admin: FakeAdmin, verb: list[str], option: str) -> None:
    others = [word for each in ("--listener", "--client", "--target") if each != option for word in (each, "web")]
    error = f"relayd {verb[0]}: {option} is empty: say which {option[2:]}, or leave it out\n"
    assert said(relayd(*verb, *others, option, "")) == (2, "", error)
    assert said(relayd(*verb, option, "")) == (2, "", error)
    assert admin.asked == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([""], "ID is empty: say which connection"),
        ([], "says what to end: ID, --client, --target or --listener"),
        (["x", "--target", "t"], "'x' is one connection: --target is too much"),
        (["--client", "10.0.0.0/8"], "there is no terminal to ask on whether that is meant: add --yes"),
    ],
)
def test_no_kill(admin: FakeAdmin, arguments: list[str], error: str) -> None:
    assert said(relayd("kill", *arguments)) == (2, "", f"relayd kill: {error}\n")
    assert admin.asked == []


@pytest.mark.parametrize(
    ("typed", "code", "killed"), [("y\n", 0, [{"listener": "web"}]), ("n\n", 1, []), ("\n", 1, []), ("", 1, [])]
)
def test_kill_asks(
    admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, killed: list[dict[str, str]]
) -> None:
    monkeypatch.setattr("relayd.cli.verbs_looking._is_terminal", lambda stream: True)
    result = CliRunner().invoke(verbs.app, ["kill", "--listener", "web"], input=typed)
    assert (result.exit_code, admin.killed) == (code, killed)
    assert result.stderr.startswith("end 3 connections? [y/N]")


def test_kill_does_not_ask_about_one_or_none(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relayd.cli.verbs_looking._is_terminal", lambda stream: True)
    assert said(relayd("kill", "--client", "10.0.0.1")) == (0, "1 connection ended\n", "")
    assert said(relayd("kill", "--client", "10.0.0.1")) == (1, "", "relayd: there is no such connection or session\n")


@pytest.mark.parametrize(("connections", "many"), [(0, "0 connections"), (1, "1 connection"), (3, "3 connections")])
def test_kill_asks_where_a_worker_has_not_told_all(
    admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, connections: int, many: str
) -> None:
    monkeypatch.setattr("relayd.cli.verbs_looking._is_terminal", lambda stream: True)
    admin.connections, admin.complete = admin.connections[:connections], False
    result = CliRunner().invoke(verbs.app, ["kill", "--listener", "web"], input="y\n")
    assert result.stderr.startswith(f"end at least {many} (a worker has not answered in time)? [y/N] ")
    assert admin.killed == [{"listener": "web"}]


def test_top_without_a_terminal(admin: FakeAdmin) -> None:
    error = "relayd top: needs a terminal; `relayd connections --watch` prints the same without one\n"
    assert said(relayd("top")) == (2, "", error)
    assert admin.asked == []


def test_what_takes_long_to_import_is_not() -> None:
    code = """
import sys
from relayd.cli.verbs import main
sys.argv = ["relayd", "connections"]
try:
    main()
finally:
    assert not {"rich", "aiohttp"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert "8f76d9-0-1" in done.stdout
