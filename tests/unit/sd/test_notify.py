"""sd_notify(3), with this test in the part of systemd."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.sd.notify import FDS_AT_ONCE, Notifier

DEADLINE_S = 10.0


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A datagram socket that NOTIFY_SOCKET names."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        else:
            sock.bind("")  # the kernel chooses an abstract name
            monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        yield sock


def _fail(line: str) -> None:
    pytest.fail(f"warned: {line}")


def test_every_call_is_one_datagram(systemd: socket.socket) -> None:
    notifier = Notifier.from_environment(warn=_fail)
    notifier.ready("3 listeners, 0 connections")
    notifier.status("3 listeners, 128 connections")
    notifier.watchdog()
    notifier.stopping("draining 2 connections")
    notifier.extend_timeout(1.5)
    received = [systemd.recv(4096) for _ in range(5)]
    assert received == [
        b"READY=1\nSTATUS=3 listeners, 0 connections",
        b"STATUS=3 listeners, 128 connections",
        b"WATCHDOG=1",
        b"STOPPING=1\nSTATUS=draining 2 connections",
        b"EXTEND_TIMEOUT_USEC=1500000",
    ]
    with pytest.raises(BlockingIOError):
        systemd.recv(4096)


def test_a_text_cannot_add_an_assignment(systemd: socket.socket) -> None:
    Notifier.from_environment(warn=_fail).status("one\nMAINPID=1\0two")
    assert systemd.recv(4096) == b"STATUS=one MAINPID=1 two"


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000000"}, warn=_fail)
    notifier.ready("up")
    notifier.stopping("down")
    assert notifier.watchdog_interval_s is None


def test_a_stale_socket_is_said_once_and_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    warnings: list[str] = []
    notifier = Notifier.from_environment(warn=warnings.append)
    notifier.ready("up")
    notifier.watchdog()
    assert len(warnings) == 1
    assert "No such file" in warnings[0]


def test_without_warn_the_line_goes_to_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    Notifier.from_environment().ready("up")
    assert capsys.readouterr().err.startswith("relayd: systemd cannot be told")


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "42"}, 5.0),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "ten"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval_is_half_of_what_systemd_allows(
    environ: dict[str, str], interval_s: float | None
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": "@x", **environ}, pid=42, warn=_fail)
    assert notifier.watchdog_interval_s == interval_s


# The FD store, and waiting (R4).


def received(systemd: socket.socket) -> tuple[bytes, list[int]]:
    """The next message, and its descriptors."""
    data, fds, _, _ = socket.recv_fds(systemd, 4096, 300)
    return data, fds


def test_what_is_stored_goes_with_its_name(systemd: socket.socket) -> None:
    notifier = Notifier.from_environment(warn=_fail)
    with socket.socket() as one, socket.socket() as other:
        notifier.store("relayd-socket-1", [one.fileno()])
        notifier.store("relayd-parcel", [one.fileno(), other.fileno()], watched=False)
        notifier.unstore("relayd-socket-1")
        inodes = [os.fstat(sock.fileno()).st_ino for sock in (one, other)]
    expected: list[tuple[bytes, list[int]]] = [
        (b"FDSTORE=1\nFDNAME=relayd-socket-1", inodes[:1]),
        (b"FDSTORE=1\nFDNAME=relayd-parcel\nFDPOLL=0", inodes),
        (b"FDSTOREREMOVE=1\nFDNAME=relayd-socket-1", []),
    ]
    for message, sent in expected:
        data, fds = received(systemd)
        assert (data, [os.fstat(fd).st_ino for fd in fds]) == (message, sent)
        for fd in fds:
            os.close(fd)


def test_as_many_go_at_once_as_the_kernel_takes(systemd: socket.socket) -> None:
    notifier = Notifier.from_environment(warn=_fail)
    with socket.socket() as sock:
        notifier.store("many", [sock.fileno()] * FDS_AT_ONCE)
    _, fds = received(systemd)
    assert len(fds) == FDS_AT_ONCE
    for fd in fds:
        os.close(fd)


def test_a_barrier_is_over_when_systemd_has_closed_its_descriptor(systemd: socket.socket) -> None:
    notifier = Notifier.from_environment(warn=_fail)
    systemd.setblocking(True)
    answers: list[bytes] = []

    def answer() -> None:
        data, (fd,) = received(systemd)
        answers.append(data)
        os.close(fd)

    thread = threading.Thread(target=answer)
    thread.start()
    assert notifier.barrier(DEADLINE_S)
    thread.join(DEADLINE_S)
    assert answers == [b"BARRIER=1"]


def test_a_barrier_that_nobody_answers_is_not_waited_for_for_ever(systemd: socket.socket) -> None:
    assert not Notifier.from_environment(warn=_fail).barrier(0.01)
    _, (fd,) = received(systemd)
    os.close(fd)


def test_without_systemd_nothing_is_stored_and_nothing_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier.from_environment(warn=_fail)
    assert not notifier.enabled
    notifier.store("a", [0])
    notifier.unstore("a")
    assert notifier.barrier(DEADLINE_S)


def test_a_systemd_that_is_gone_ends_a_barrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the other end: that is all that can be waited for."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    warnings: list[str] = []
    assert Notifier.from_environment(warn=warnings.append).barrier(DEADLINE_S)
    assert len(warnings) == 1
