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

from relayd.address import SocketAddress, parse
from relayd.spec.budget import budget
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_life import EchoStart, ask, config, refused
from tests.spinning import make_spin, needs_spinning

#: R7: from the SIGKILL of a worker to its successor accepting.
REPLACED_WITHIN_S = 0.3
#: More than a read takes at once: bulk.
HALF_BYTES = 1 << 20


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


@pytest.mark.alone
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


def test_what_a_killed_worker_was_sending_is_cut_with_a_reset(tmp_path: Path) -> None:
    # S3: a FIN would say that the half was all
    with socket.create_server(("127.0.0.1", 0)) as listening:
        target_address = parse(f"127.0.0.1:{listening.getsockname()[1]}")
        with Daemon(config(target_address, 1), tmp_path) as daemon, daemon.connect("web") as client:
            client.sendall(b"GET")
            listening.settimeout(DEADLINE_S)
            target, _ = listening.accept()
            with target:
                target.sendall(bytes(HALF_BYTES))
                received = 0
                while received < HALF_BYTES:
                    received += len(client.recv(1 << 20))
                os.kill(daemon.workers()[0], signal.SIGKILL)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
                target.settimeout(DEADLINE_S)
                assert target.recv(3) == b"GET"
                with pytest.raises(ConnectionResetError):
                    target.recv(1)


def test_a_signal_to_the_whole_service_cuts_nothing(tmp_path: Path, echo: EchoStart) -> None:
    # R6: systemctl kill sends SIGTERM to every process of the unit; the control process drains
    with Daemon(config(echo("inet")), tmp_path) as daemon, daemon.connect("web") as client:
        assert ask(client) == b"hello"
        for worker in daemon.workers():
            os.kill(worker, signal.SIGTERM)
        daemon.signal(signal.SIGTERM)
        daemon.wait_for_event("stopping", 1)
        assert ask(client, b"still there") == b"still there"
        client.close()
        assert daemon.wait() == 0
        assert daemon.events("worker_exited") == []


@pytest.mark.parametrize("nofile", [58, 60])  # 9 and 10 connections a worker
def test_nobody_waits_for_a_full_worker_while_the_other_one_has_room(
    tmp_path: Path, echo: EchoStart, nofile: int
) -> None:
    # F2: of a new connection the kernel tells one worker only (EPOLLEXCLUSIVE), be it full
    limit = budget(nofile, 1).connections
    prefix = ["prlimit", f"--nofile={nofile}:{nofile}"]
    with Daemon(config(echo("inet"), 2), tmp_path, prefix=prefix) as daemon, contextlib.ExitStack() as clients:
        for _ in range(2 * limit):
            client = clients.enter_context(daemon.connect("web", timeout_s=3.0))
            assert ask(client) == b"hello"
        daemon.wait_for_event("accept_paused", 2)


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


@needs_spinning
def test_a_spinning_worker_is_killed_and_replaced_while_the_other_one_serves(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 2), tmp_path) as daemon, contextlib.ExitStack() as clients:
        open_now = [clients.enter_context(daemon.connect("web")) for _ in range(20)]
        for client in open_now:
            assert ask(client) == b"hello"
        spinning, healthy = daemon.workers()
        make_spin(Path(f"/proc/{spinning}"))
        with Knocking(daemon.address("web")) as knocking:
            knocking.wait_for(100)
            assert daemon.events("worker_hung") == []  # so all of those were answered beside a spinning one
            assert daemon.wait_for_event("worker_hung")["pid"] == spinning
            restarted(daemon, 3)
            knocking.wait_for(knocking.answered + 100)
        assert (knocking.refused, knocking.broken) == (0, 0)
        (ended,) = daemon.events("worker_exited")
        assert (ended["pid"], ended["status"]) == (spinning, -signal.SIGKILL)
        assert spinning not in daemon.workers()
        assert healthy in daemon.workers()
        alive = sum(survived(client) for client in open_now)
        daemon.wait_for_status(lambda status: status == f"1 listener, {alive} connection" + "s" * (alive != 1))
        assert daemon.stop() == 0


@needs_spinning
def test_a_spinning_worker_does_not_hold_up_a_stop(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet"), 2, drain="500ms"), tmp_path) as daemon:
        spinning = daemon.workers()[0]
        make_spin(Path(f"/proc/{spinning}"))
        assert daemon.stop() == 0
        assert [line["pid"] for line in daemon.events("worker_exited")] == [spinning]


@needs_spinning
def test_a_spinning_control_process_holds_up_no_connection(tmp_path: Path, echo: EchoStart) -> None:
    """Without systemd, nobody ends it; with systemd, tests/systemd/test_service.py sees that its watchdog does."""
    with Daemon(config(echo("inet"), 2), tmp_path, watchdog_s=1.0) as daemon, daemon.connect("web") as client:
        assert ask(client) == b"hello"
        make_spin(Path(f"/proc/{daemon.pid}"))
        signs_of_life = sum("WATCHDOG" in told for told in daemon.notifications)
        began = time.monotonic()
        with Knocking(daemon.address("web")) as knocking:
            knocking.wait_for(100)
            while time.monotonic() < began + 1.5:  # three signs of life would be due
                assert ask(client) == b"hello"
        assert (knocking.refused, knocking.broken) == (0, 0)
        # One may have been on its way when it was counted.
        assert sum("WATCHDOG" in told for told in daemon.notifications) <= signs_of_life + 1


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
