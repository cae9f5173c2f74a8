"""Commands on a terminal, which is a real pty; the daemon is made up (tests/fake_admin.py)."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from relayd.address import UnixAddress
from tests.fake_admin import FakeAdmin, connection, serving
from tests.terminal import Terminal, on_terminal
from tests.typed import Line, lines_for

RELAYD = [sys.executable, "-m", "relayd"]
ALTERNATE, CURSOR, WRAP = 1049, 25, 7
#: Of a core, with an answer a second.
CPU_MAX = 0.05


@pytest.fixture
def admin() -> FakeAdmin:
    return FakeAdmin()


@pytest.fixture
def address(admin: FakeAdmin) -> Iterator[UnixAddress]:
    with serving(admin) as where:
        yield where


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def top(address: UnixAddress, started: ExitStack) -> Terminal:
    terminal = started.enter_context(
        on_terminal([*RELAYD, "top", "--interval", "0.2", "--admin", str(address)], environment={"MARK": "x"})
    )
    terminal.wait_for_text("q quit")
    return terminal


def is_given_back(terminal: Terminal, settings: list[object]) -> bool:
    modes = terminal.screen.modes
    return modes == {ALTERNATE: False, CURSOR: True, WRAP: True} and terminal.settings() == settings


def ids(lines: list[str]) -> list[str]:
    return [line.split()[0].rpartition("-")[2] for line in lines if line.startswith("8f76d9") and " web " in line]


def test_it_shows_and_sorts(admin: FakeAdmin, top: Terminal) -> None:
    assert top.screen.modes == {ALTERNATE: True, CURSOR: False, WRAP: False}
    assert ids(top.screen.text()) == ["2", "1", "0"]
    top.type("n")
    top.wait_for(lambda lines: ids(lines) == ["0", "1", "2"])
    top.wait_for_text("3 connections, by new")
    admin.connections.append(connection(3, age_s=0.1))
    top.wait_for(lambda lines: ids(lines) == ["3", "0", "1", "2"])


def test_no_more_is_asked_for_than_there_is_room_for(admin: FakeAdmin, top: Terminal) -> None:
    admin.connections = [connection(number) for number in range(5000)]
    top.wait_for_text("5,000 connections")
    room = 20  # of 30 lines
    top.wait_for(lambda lines: len(ids(lines)) == room)
    admin.wait_until_asked(f"sort=rate&limit={room}")
    top.type("\x1b[6~\x1b[6~")
    top.wait_for(lambda lines: str(4999 - 2 * room) in ids(lines) and len(ids(lines)) == room)
    assert max(int(each.rpartition("limit=")[2]) for each in admin.asked if "limit" in each) < 100
    top.resize(60, 12)
    lines = top.wait_for(lambda lines: len(lines) == 12 and lines[-1].startswith("q quit"))
    assert all(len(line) <= 60 for line in lines)
    top.resize(140, 45)
    top.wait_for(lambda lines: len(ids(lines)) > 25)


def test_a_filter_is_seen_as_it_is_typed(admin: FakeAdmin, top: Terminal) -> None:
    top.type("/0-1")
    top.wait_for(lambda lines: ids(lines) == ["1"])
    top.type("\x7f2\r")
    top.wait_for(lambda lines: ids(lines) == ["2"] and lines[-1].startswith("q quit"))
    top.type("\x1b")
    top.wait_for(lambda lines: len(ids(lines)) == 3)
    top.type("/client:10.0.0.1\r")
    admin.wait_until_asked("client=10.0.0.1&")
    top.wait_for(lambda lines: ids(lines) == ["0"])
    top.type("/\x1b/client:nonsense\r")
    top.wait_for_text("client is an address or a network, not 'nonsense'")
    top.type("/\x1b")
    top.wait_for_text("answered")


def test_a_connection_is_ended_after_a_yes(admin: FakeAdmin, top: Terminal) -> None:
    top.type("\x1b[Bk")
    top.wait_for_text("end 8f76d9-0-1, 10.0.0.2:30001 -> 10.1.0.2:8080? y/n")
    top.type("n")
    top.wait_for_text("nothing was ended")
    assert admin.killed == []
    top.type("ky")
    top.wait_for_text("8f76d9-0-1 is ended")
    top.wait_for(lambda lines: ids(lines) == ["2", "0"])
    assert admin.killed == [{"id": "8f76d9-0-1"}]
    top.type("k")
    top.wait_for_text("end 8f76d9-0-0")
    admin.connections = []
    top.type("y")
    top.wait_for_text("there is no such connection")


def test_a_connection_that_was_not_ended(admin: FakeAdmin, top: Terminal) -> None:
    admin.complete = admin.has_time = False
    top.type("ky")
    top.wait_for_text("8f76d9-0-2 may go on: a worker has not answered in time")


def test_a_pause(admin: FakeAdmin, top: Terminal) -> None:
    top.type("p")
    top.wait_for_text("paused, 1 s ago")
    asked = len(admin.asked)
    admin.connections = []
    top.wait_for_text("paused, 2 s ago")
    assert len(admin.asked) == asked
    assert len(ids(top.screen.text())) == 3
    top.type("p")
    top.wait_for_text("0 connections")


def test_a_filter_that_is_refused_finds_nothing_and_says_why(admin: FakeAdmin, started: ExitStack) -> None:
    with serving(admin) as where:
        top = started.enter_context(on_terminal([*RELAYD, "top", "--interval", "0.2", "--admin", str(where)]))
        top.wait_for_text("q quit")
        top.type("/client:nonsense\r")
        lines = top.wait_for_text("refused: client is an address or a network, not 'nonsense'")
        assert ids(lines) == []
        top.type("/\x1b")
        top.wait_for(lambda lines: lines[2].startswith("answered") and len(ids(lines)) == 3)
        top.type("q")
        assert top.wait() == 0


def test_a_restart_of_the_daemon_is_waited_for(admin: FakeAdmin, started: ExitStack) -> None:
    with serving(admin) as where:
        top = started.enter_context(on_terminal([*RELAYD, "top", "--interval", "0.2", "--admin", str(where)]))
        top.wait_for_text("q quit")
    lines = top.wait_for_text("no daemon listens at ")
    assert lines[2].startswith("no answer for ")
    assert len(ids(lines)) == 3
    admin.connections = [connection(7)]
    with serving(admin, where):
        top.wait_for(lambda lines: lines[2].startswith("answered") and ids(lines) == ["7"])
        del admin.status["pid"]
        top.wait_for_text("the answer lacks pid: it is of another version of relayd")
        top.type("q")
        assert top.wait() == 0


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("q", 0),
        ("\x03", 0),
        (signal.SIGINT, 0),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGHUP),
    ],
)
def test_the_terminal_is_given_back(address: UnixAddress, end: Any, status: int) -> None:
    with on_terminal([*RELAYD, "top", "--admin", str(address)]) as top:
        settings = top.settings()
        top.wait_for_text("q quit")
        assert top.settings() != settings
        if isinstance(end, str):
            top.type(end)
        else:
            top.process.send_signal(end)
        assert top.wait() == status
        assert is_given_back(top, settings)
        assert not any(top.screen.text())


def test_the_terminal_is_given_back_after_a_bug(address: UnixAddress) -> None:
    code = "import sys; from relayd.cli import main; from relayd.cli.top import screen\n"
    code += "def bug(*_): raise RuntimeError('a bug')\n"
    code += (
        f"from relayd.cli.top import state; state.pressed = bug; sys.argv = ['relayd', 'top', '--admin', '{address}']\n"
    )
    with on_terminal([sys.executable, "-c", f"{code}main.main()"], columns=200) as top:
        settings = top.settings()
        top.wait_for_text("q quit")
        top.type("x")
        assert top.wait() == 1
        assert is_given_back(top, settings)
        assert "RuntimeError: a bug" in top.screen.text()


def test_ctrl_z_and_back(address: UnixAddress) -> None:
    script = f"{' '.join(RELAYD)} top --admin {address}; read line; fg >/dev/null; echo over"
    with on_terminal(["sh", "-mc", script]) as shell:
        settings = shell.settings()
        shell.wait_for_text("q quit")
        shell.type("\x1a")
        shell.wait_for(lambda lines: is_given_back(shell, settings), "the shell's terminal")
        shell.type("\n")
        shell.wait_for_text("q quit")
        assert shell.screen.modes[ALTERNATE]
        shell.type("q")
        shell.wait_for_text("over")
        assert shell.wait() == 0
        assert is_given_back(shell, settings)


def test_without_colour(admin: FakeAdmin, address: UnixAddress) -> None:
    admin.status["workers"][0]["phase"] = "waiting"
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with on_terminal([*RELAYD, "top", "--admin", str(address)], environment=environment) as top:
            top.wait_for_text("worker 1 is waiting")
            styles = {cell.style for row in top.screen.cells for cell in row}
            assert any("3" in style for style in styles) == coloured
            top.type("q")
            assert top.wait() == 0


def test_a_terminal_that_can_do_nothing(admin: FakeAdmin, address: UnixAddress) -> None:
    with on_terminal([*RELAYD, "top", "--admin", str(address)], environment={"TERM": "dumb"}) as top:
        assert top.wait() == 2
        assert "`relayd connections --watch`" in "".join(top.screen.text())
    with on_terminal(
        [*RELAYD, "connections", "--watch=0.1", "--admin", str(address)], environment={"TERM": "dumb"}
    ) as top:
        admin.wait_until_asked("connections", 3)
        top.process.send_signal(signal.SIGINT)
        assert top.wait() == 0


def test_nobody_is_there() -> None:
    with on_terminal([*RELAYD, "top", "--admin", "unix:@relayd-test-nobody"]) as top:
        assert top.wait() == 3
        assert top.screen.text()[0].startswith("relayd: no daemon listens at")
        assert not top.screen.modes[ALTERNATE]


def test_five_thousand_connections_cost_little(admin: FakeAdmin, address: UnixAddress) -> None:
    admin.connections = [connection(number) for number in range(5000)]
    with on_terminal([*RELAYD, "top", "--interval", "0.2", "--admin", str(address)], columns=200, lines=60) as top:
        top.wait_for_text("5,000 connections")
        polls = 20
        before, asked = cpu_s(top.process.pid), len(admin.asked)
        top.wait_for(lambda lines: len(admin.asked) >= asked + 2 * polls)  # for the status, and for connections
        used = cpu_s(top.process.pid) - before
        assert used / polls < CPU_MAX, f"{used} s for {polls} answers"
        assert niceness(top.process.pid) == min(niceness(0) + 10, 19)


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def cpu_s(pid: int) -> float:
    """What a process has used of processors, by proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_watch_redraws(admin: FakeAdmin, address: UnixAddress) -> None:
    admin.connections = [connection(number, client="unix:@\x1b[2J", client_port=0) for number in range(100)]
    with on_terminal([*RELAYD, "connections", "--watch=0.1", "--admin", str(address)], 70, 12) as terminal:
        lines = terminal.wait_for(lambda lines: len(ids(lines)) == 7 and lines[8] == "93 more: --limit")
        assert all(len(line) <= 70 for line in lines)
        admin.connections = admin.connections[:2]
        terminal.wait_for(lambda lines: ids(lines) == ["1", "0"] and not any(lines[3:]))
        assert niceness(terminal.process.pid) == min(niceness(0) + 10, 19)
        terminal.type("\x03")
        assert terminal.wait() == 0


def test_watch_over_a_restart(admin: FakeAdmin) -> None:
    with serving(admin) as where:
        terminal_of = on_terminal([*RELAYD, "status", "--watch=0.1", "--admin", str(where)])
        terminal = terminal_of.__enter__()
        terminal.wait_for_text("relayd 1.2.3, pid 7")
    try:
        lines = terminal.wait_for_text("no daemon listens at")
        assert any("relayd 1.2.3, pid 7" in line for line in lines)
        with serving(admin, where):
            terminal.wait_for_no("no daemon listens at")
            terminal.type("\x03")
            assert terminal.wait() == 0
    finally:
        terminal_of.__exit__(None, None, None)


def test_kill_asks_on_a_terminal(admin: FakeAdmin, address: UnixAddress) -> None:
    with on_terminal([*RELAYD, "kill", "--listener", "web", "--admin", str(address)]) as terminal:
        terminal.wait_for_text("end 3 connections? [y/N]")
        terminal.type("y\n")
        assert terminal.wait() == 0
        assert "3 connections ended" in terminal.screen.text()
    assert admin.killed == [{"listener": "web"}]


@pytest.mark.parametrize("line", lines_for("tests/integration/test_terminals.py"), ids=lambda line: line.text[:40])
def test_what_documents_have_typed(admin: FakeAdmin, address: UnixAddress, line: Line) -> None:
    """As far as a pipe; the daemon is the one that is there."""
    with on_terminal([*RELAYD, *line.words[1:]], environment={"RELAYD_ADMIN": str(address)}) as terminal:
        if line.words[1] == "top":
            terminal.wait_for_text("q quit")
            terminal.type("q")
        elif line.words[1] == "status":
            terminal.wait_for_text('"version": "1.2.3"')
            terminal.type("\x03")
        else:
            assert line.words[1] == "kill"
        assert terminal.wait() == 0
