"""Workers that die, hang or lose their control process: rule R7."""

import contextlib
import os
import select
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_life import EchoStart, ask, config, refused

#: R7: from the SIGKILL of a worker to its successor accepting.
REPLACED_WITHIN_S = 0.3


class Knocking:
    """Connects again and again in a thread, one request each, until told to stop; counts what happened."""

    def __init__(self, address: SocketAddress) -> None:
        self.answered = self.refused = self.broken = 0
        self._address = address
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Knocking":
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with socket.socket(self._address.family.af) as client:
                client.settimeout(DEADLINE_S)
                try:
                    client.connect(self._address.sockaddr)
                except ConnectionRefusedError:
                    self.refused += 1
                    continue
                try:
                    self.answered += ask(client) == b"hello"
                except ConnectionResetError:
                    self.broken += 1  # it was with the worker that died

    def wait_for(self, answered: int) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while self.answered < answered:
            assert time.monotonic() < deadline, vars(self)
            self._stop.wait(0.005)


def restarted(daemon: Daemon, count: int) -> None:
    daemon.wait_for_event("worker_started", count)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_and_nobody_is_refused(tmp_path: Path, echo: EchoStart, workers: int) -> None:
    with Daemon(config(echo("inet"), workers), tmp_path) as daemon:
        with Knocking(daemon.address("web")) as knocking:
            for kills in range(1, 4):
                knocking.wait_for(350 * kills)
                victim = daemon.workers()[0]
                os.kill(victim, signal.SIGKILL)
                restarted(daemon, workers + kills)
            knocking.wait_for(1100)
        assert knocking.refused == 0
        assert knocking.broken <= 3
        assert [line["status"] for line in daemon.events("worker_exited")] == [-9] * 3
        assert daemon.stop() == 0


def test_a_killed_worker_is_replaced_in_time(tmp_path: Path, echo: EchoStart) -> None:
    """Each of three workers once, and the median of that: other processes of this machine are not what is measured."""
    took = []
    with Daemon(config(echo("inet"), 3), tmp_path) as daemon:
        for kills, victim in enumerate(daemon.workers(), 1):
            before = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            restarted(daemon, 3 + kills)
            took.append(time.monotonic() - before)
        assert daemon.stop() == 0
    assert statistics.median(took) <= REPLACED_WITHIN_S


def test_connections_of_other_workers_do_not_notice(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 2), tmp_path) as daemon, contextlib.ExitStack() as clients:
        open_now = [clients.enter_context(daemon.connect("web")) for _ in range(40)]
        for client in open_now:
            assert ask(client) == b"hello"
        daemon.wait_for_status(lambda status: status == "1 listener, 40 connections")
        victim, _ = daemon.workers()
        os.kill(victim, signal.SIGKILL)
        restarted(daemon, 3)
        alive = sum(survived(client) for client in open_now)
        # Which worker has which connection is the kernel's choice; the survivor's reports tell how many it has.
        connections = "1 connection" if alive == 1 else f"{alive} connections"
        daemon.wait_for_status(lambda status: status == f"1 listener, {connections}")


def survived(client: socket.socket) -> bool:
    try:
        return ask(client) == b"hello"
    except ConnectionError:
        return False


def test_a_crash_loop_backs_off_and_says_so(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 1), tmp_path) as daemon:
        fds = len(os.listdir(f"/proc/{daemon.pid}/fd"))
        for kills in range(1, 6):
            os.kill(daemon.workers()[0], signal.SIGKILL)
            restarted(daemon, 1 + kills)
        delays = [line["delay_s"] for line in daemon.events("worker_backoff")]
        assert delays == [0.1, 0.2, 0.4, 0.8]
        # One to spare: sd_notify opens a socket for each call, and either look may fall into one. A leak would be five.
        assert abs(len(os.listdir(f"/proc/{daemon.pid}/fd")) - fds) <= 1
        daemon.wait_for_status(lambda status: status.endswith("1 of 1 worker restarting"))
        with daemon.connect("web") as client:
            assert ask(client) == b"hello"
        assert daemon.stop() == 0


def test_a_hung_worker_is_killed_and_replaced(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 2), tmp_path) as daemon:
        hung = daemon.workers()[0]
        os.kill(hung, signal.SIGSTOP)
        assert daemon.wait_for_event("worker_hung")["pid"] == hung
        restarted(daemon, 3)
        assert hung not in daemon.workers()
        for _ in range(20):
            with daemon.connect("web") as client:
                assert ask(client) == b"hello"
        assert daemon.stop() == 0


def test_a_hung_worker_does_not_hold_up_a_stop(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 2, drain="500ms"), tmp_path) as daemon:
        os.kill(daemon.workers()[0], signal.SIGSTOP)
        assert daemon.stop() == 0
        assert len(daemon.events("worker_exited")) == 1


@contextlib.contextmanager
def outlived(pids: list[int]) -> Iterator[None]:
    """At the end of the block, wait until these processes have ended."""
    with contextlib.ExitStack() as opened:
        pidfds = [os.pidfd_open(pid) for pid in pids]
        for pidfd in pidfds:
            opened.callback(os.close, pidfd)
        yield
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], DEADLINE_S)[0], "a worker has not ended"


def test_workers_outlive_their_control_process_only_to_drain(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 2), tmp_path) as daemon:
        address = daemon.address("web")
        with outlived(daemon.workers()), daemon.connect("web") as client:
            assert ask(client) == b"hello"
            daemon.kill()
            deadline = time.monotonic() + DEADLINE_S
            while not refused(address):
                assert time.monotonic() < deadline
            assert ask(client, b"still here") == b"still here"
        assert daemon.wait_for_event("connection")["outcome"] == "normal"


def test_a_new_daemon_can_have_the_address_when_the_workers_have_gone(tmp_path: Path, echo: EchoStart) -> None:
    target = echo("inet")
    with Daemon(config(target, 2), tmp_path) as first:
        address = first.address("web")
        with outlived(first.workers()):
            first.kill()
        with Daemon(config(target, 2, bind=str(address)), tmp_path) as second, second.connect("web") as client:
            assert ask(client) == b"hello"
