"""sd_notify(3), with this test in the part of systemd."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.sd.notify import Notifier


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
