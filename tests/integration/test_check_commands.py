"""Health checks by a command (T2)."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.control.checks import command
from relayd.control.checks.command import Command
from relayd.control.checks.subject import UP, Cause, Found, Subject
from relayd.net.poller import EdgeSelector
from relayd.spec import CheckKind
from tests.integration.asking import DEADLINE_S, ask, subject

HERE = InetAddress(Family.INET6, "fe80::1", 8080, "eth0")


def running(*argv: str, timeout_s: float = DEADLINE_S, address: SocketAddress = HERE) -> Subject:
    return subject(address, CheckKind.EXEC, timeout_s, command=argv)


def shell(script: str, timeout_s: float = DEADLINE_S) -> Subject:
    return running("/bin/sh", "-c", script, timeout_s=timeout_s)


def test_exit_code_0_is_up() -> None:
    assert ask(shell("exit 0")) == UP


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 2", "exited with 2"),
        ("echo no space left; echo more; exit 1", "exited with 1: no space left"),
        ("echo >&2; echo 'on stderr' >&2; exit 1", "exited with 1: on stderr"),
        ("printf 'a\\033[31mb\\000'; exit 1", "exited with 1: a?[31mb?"),
        ("kill -TERM $$", "killed by SIGTERM"),
        ("kill -40 $$", "killed by signal 40"),
    ],
)
def test_anything_else_is_down(script: str, reason: str) -> None:
    assert ask(shell(script)) == Found(False, reason, Cause.COMMAND)


def test_a_long_line_is_cut() -> None:
    found = ask(running(sys.executable, "-c", "print('x' * 100_000); raise SystemExit(3)"))
    assert found == Found(False, f"exited with 3: {'x' * 120}", Cause.COMMAND)


def test_a_command_that_is_not_there() -> None:
    assert ask(running("/nowhere/check")) == Found(False, "/nowhere/check: no such file or directory", Cause.COMMAND)


def test_no_room_for_another_process_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "")

    monkeypatch.setattr(subprocess, "Popen", fail)
    assert ask(shell("exit 0")).up is None


def test_no_descriptor_for_its_end_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> int:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(os, "pidfd_open", fail)
    assert ask(shell("sleep 1000")).up is None


def test_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    monkeypatch.setenv("OTHER", "kept")
    script = (
        'echo "$RELAYD_POOL,$RELAYD_TARGET,$RELAYD_HOST,$RELAYD_PORT,$RELAYD_PATH,$NOTIFY_SOCKET,$OTHER,$(pwd)"; exit 1'
    )
    assert ask(shell(script)) == Found(
        False, "exited with 1: app,[fe80::1%eth0]:8080,fe80::1%eth0,8080,,,kept,/", Cause.COMMAND
    )
    found = ask(running("/bin/sh", "-c", script, address=UnixAddress("@app")))
    assert found == Found(False, "exited with 1: app,unix:@app,,,@app,,kept,/", Cause.COMMAND)


def test_it_has_nothing_to_read_and_no_descriptor_of_ours() -> None:
    with socket.socket() as sock:
        os.set_inheritable(sock.fileno(), True)  # as a library might
        assert ask(shell('read line && exit 1; [ "$(ls /proc/self/fd | wc -l)" -le 4 ]')) == UP


def test_output_without_end_holds_nothing_up() -> None:
    assert ask(shell("exec yes", timeout_s=0.2)) == Found(False, "still running after 0.2s: y", Cause.COMMAND)


def test_it_hangs_with_children(tmp_path: Path) -> None:
    """All of its process group is killed, and nothing is left to reap (tests/conftest.py looks for children)."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = f"sleep 1000 > {fifo} & sh -c 'trap \"\" TERM; sleep 1000' > {fifo} & wait"
        assert ask(shell(script, timeout_s=0.5)) == Found(False, "still running after 0.5s", Cause.COMMAND)
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b"", "nobody has it open for writing any more"
    finally:
        os.close(reader)


def test_what_it_leaves_behind_goes_with_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert ask(shell(f"sleep 1000 > {fifo} 2>&1 & exit 0")) == UP
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_one_that_is_dropped_says_nothing() -> None:
    found: list[Found] = []
    selector = EdgeSelector()
    asked = Command(selector, shell("sleep 1000"), found.append)
    asked.start()
    asked.drop()
    asked.drop()
    asked.late()
    while not asked.gone:
        for fd, mask in selector.ready(DEADLINE_S):
            handler = selector.handlers[fd]
            assert handler is not None
            handler(mask)
    asked.finish(0.0)
    assert not selector.handlers
    selector.close()
    assert found == []


def test_one_that_cannot_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_kill_group", lambda _: None)
    selector = EdgeSelector()
    asked = Command(selector, running("/bin/sleep", "1000"), lambda _: None)
    asked.start()
    process = asked._process
    assert process is not None
    asked.late()
    states = [asked.gone]
    asked.finish(0.01)
    assert [*states, asked.gone] == [False, True]
    selector.close()
    process.returncode = None
    process.kill()
    process.wait()
