"""One relay as a running process: started, found ready, measured from outside, ended by id.

CPU is that of the whole process tree. The kernel keeps a process's CPU clock in nanoseconds (clock_getcpuclockid(3)).
How much of it was user time most kernels only sample, at every tick: the sum is exact and the split is an estimate.
Children that ended and were reaped (a relay that forks for each connection) are in cutime and cstime of
proc_pid_stat(5), to 10 ms.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bench.wire import PROBE

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CLOCK_PROF, _CLOCK_VIRT, _CLOCK_SCHED = 0, 1, 2  # include/linux/posix-timers_types.h
_READY_WITHIN_S = 10.0
_STOP_WITHIN_S = 5.0
_SETTLE_WITHIN_S = 5.0
_POLL_S = 0.001
_NOTIFY_POLL_S = 0.05
_PROBE_WITHIN_S = 0.1


class RelayError(Exception):
    """A relay did not start, or ended by itself. Says what it printed last."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds: `total` exact; `user` of `sampled` seconds were user time by the kernel's ticks."""

    total: float
    user: float
    sampled: float

    def __sub__(self, earlier: "Cpu") -> "Cpu":
        return Cpu(self.total - earlier.total, self.user - earlier.user, self.sampled - earlier.sampled)

    def split(self) -> tuple[float, float]:
        """User and system seconds, whose sum is `total`."""
        user = self.total * self.user / self.sampled if self.sampled > 0 else 0.0
        return user, self.total - user


@dataclass(frozen=True, slots=True)
class Memory:
    """Private KiB of a relay: Private_Clean + Private_Dirty of all its processes, and of the largest below the first.

    `dirty_kib` is Private_Dirty alone, of all: what the relay has written. A clean page of a library is private only
    while no other process on the machine has that library mapped, so the sum of both may shrink by itself.
    """

    total_kib: int
    largest_child_kib: int
    dirty_kib: int


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that was free on loopback a moment ago; another process may take it, then the relay fails to start."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tree(root: int) -> list[int]:
    """`root` and all processes below it, parents first."""
    found = [root]
    for pid in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found.extend(int(child) for child in children.read_text().split())
    return found


def _clock(pid: int, which: int) -> float:
    return time.clock_gettime((~pid << 3) | which)


def _reaped(pid: int) -> tuple[float, float]:
    """User and system seconds of the children of `pid` that have ended and been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[13]) / _TICKS_PER_S, int(fields[14]) / _TICKS_PER_S


def cpu(pids: list[int]) -> Cpu:
    """CPU that `pids` and their reaped children have used. OSError when one has ended meanwhile."""
    total = user = sampled = 0.0
    for pid in pids:
        reaped_user, reaped_system = _reaped(pid)
        total += _clock(pid, _CLOCK_SCHED) + reaped_user + reaped_system
        user += _clock(pid, _CLOCK_VIRT) + reaped_user
        sampled += _clock(pid, _CLOCK_PROF) + reaped_user + reaped_system
    return Cpu(total, user, sampled)


def _born(pid: int) -> str:
    """When `pid` was started, in ticks since boot: with the id it names one process. OSError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _private_kib(pid: int) -> tuple[int, int]:
    """Private_Clean and Private_Dirty of a process."""
    fields = dict(line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(fields["Private_Clean:"]), int(fields["Private_Dirty:"])


class RunningRelay:
    """A relay process and its children. A context manager: leaving it ends them all.

    `command` is run in `directory`, where stdout and stderr go to files of that name. It is ready when it accepts a
    connection on `port`, a relay of `datagrams` when a probe comes back from its target, or with `ready_by_notify`
    when it sends READY=1 to NOTIFY_SOCKET. RelayError when it is not ready within 10 s.
    """

    def __init__(
        self, command: list[str], directory: Path, port: int, *, ready_by_notify: bool, datagrams: bool = False
    ) -> None:
        self.port = port
        self._directory = directory
        environment = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.ExitStack() as files:
            if ready_by_notify:
                notify.bind(str(directory / "notify"))
                environment["NOTIFY_SOCKET"] = str(directory / "notify")
            stdout = files.enter_context((directory / "stdout").open("wb"))
            stderr = files.enter_context((directory / "stderr").open("wb"))
            started = time.monotonic()
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C is ours alone: we end it, in order
            )
            try:
                reached = self._answers if datagrams else self._accepts
                self._await(self._notified(notify) if ready_by_notify else reached)
            except BaseException:
                self.stop()
                raise
            self.ready_s = time.monotonic() - started

    def _await(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_WITHIN_S
        while not ready():
            if self._process.poll() is not None:
                raise RelayError(f"ended with {self._process.returncode}: {self._last_words()}")
            if time.monotonic() > deadline:
                raise RelayError(f"not ready after {_READY_WITHIN_S:.0f} s: {self._last_words()}")

    def _notified(self, notify: socket.socket) -> Callable[[], bool]:
        notify.settimeout(_NOTIFY_POLL_S)

        def ready() -> bool:
            try:
                return b"READY=1" in notify.recv(4096).split(b"\n")
            except TimeoutError:
                return False

        return ready

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            accepted = probe.connect_ex(("127.0.0.1", self.port)) == 0
        if not accepted:
            time.sleep(_POLL_S)
        return accepted

    def _answers(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(_PROBE_WITHIN_S)
            probe.connect(("127.0.0.1", self.port))
            try:
                probe.send(PROBE)
                return probe.recv(len(PROBE)) == PROBE
            except ConnectionRefusedError:
                time.sleep(_POLL_S)
                return False
            except TimeoutError:
                return False

    def _last_words(self) -> str:
        for name in ("stderr", "stdout"):
            if said := (self._directory / name).read_text(errors="replace").strip():
                return said.splitlines()[-1]
        return "it said nothing"

    def pids(self) -> list[int]:
        """All its processes, the one we started first."""
        return tree(self._process.pid)

    def cpu(self) -> Cpu:
        """CPU of all its processes, once no child is coming or going (at most 5 s). RelayError when it has ended."""
        deadline = time.monotonic() + _SETTLE_WITHIN_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RelayError(f"ended with {self._process.returncode}: {self._last_words()}")
            pids = self.pids()
            with contextlib.suppress(OSError):  # one ended between the list and the reading: look again
                used = cpu(pids)
                if self.pids() == pids:
                    return used
            time.sleep(_POLL_S)
        raise RelayError("its processes kept coming and going")

    def settle(self, processes: int) -> None:
        """Wait, at most 5 s, until it has no more than `processes`: what it forked has ended and is reaped."""
        deadline = time.monotonic() + _SETTLE_WITHIN_S
        while len(self.pids()) > processes and time.monotonic() < deadline:
            time.sleep(_POLL_S)

    def memory(self) -> Memory:
        """Private memory of all its processes now."""
        both = [_private_kib(pid) for pid in self.pids()]
        sums = [clean + dirty for clean, dirty in both]
        return Memory(sum(sums), max(sums[1:], default=0), sum(dirty for _, dirty in both))

    def stop(self) -> None:
        """SIGTERM to the first process, SIGKILL to whatever is left after 5 s, and to children it left behind."""
        family: list[tuple[int, str]] = []
        for pid in self.pids():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended by itself
                family.append((pid, _born(pid)))
        self._process.terminate()
        try:
            self._process.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pid, born in family:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended with its parent
                if _born(pid) == born:  # else the id is another's by now
                    os.kill(pid, signal.SIGKILL)

    def __enter__(self) -> "RunningRelay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def helper(*argv: str) -> Iterator["subprocess.Popen[str]"]:
    """A load generator or target: pipes on stdin and stdout. Ended by closing its stdin, killed if it does not end."""
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield process
    finally:
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it is gone already
                process.stdin.close()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
