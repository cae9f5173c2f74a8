"""Where the log of a daemon goes and is taken no more, and a load that would notice if relaying waited for it."""

import contextlib
import json
import math
import os
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from relayd.address import SocketAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_metrics import Values, scrape
from tests.namespaces import in_new_network

#: F5: how late a loop may be. So many of its timers may be later, as a part of all or so few, for the machine has other
#: work: of those of a second or two, and of those of ten.
LAG_S, FEW = 0.01, 3
LATER_OF_FEW, LATER_OF_MANY = 0.2, 0.05
LONG_S = 10.0
#: Connections between two looks at the metrics.
_SOME = 100
#: What a disk has room for before it is full, and after.
_SMALL, _LARGE = "256k", "64m"
#: Between two looks at the lines that have been read.
_LOOK_S = 0.05


class Sink(ABC):
    """Where the log goes, in a folder of the test's own. Blocked inside `with`, and taking lines again after `unblock`,
    which go to `lines`.
    """

    format: ClassVar[str] = "json"
    #: Whether it can take lines again.
    recovers: ClassVar[bool] = True
    needs_root: ClassVar[bool] = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lines: list[bytes] = []
        self._threads: list[threading.Thread] = []

    @property
    @abstractmethod
    def prefix(self) -> list[str]:
        """What goes before the command."""

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def block(self) -> None:  # noqa: B027  # most are blocked from the start, or by what they are sent
        """Take no more from now on; the daemon has started."""

    def unblock(self) -> None:  # noqa: B027  # those that `recovers` do
        """Take lines again."""

    def close(self) -> None:
        """The daemon is gone. Leaves nothing."""
        for thread in self._threads:
            thread.join()

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The count-th line of this kind since `unblock`, read already or still to come. Looks now and then: to be told
        of each of 8,000 lines would take the core from the daemon that writes them.
        """
        until, waiting = time.monotonic() + DEADLINE_S, threading.Event()
        while time.monotonic() < until:
            if len(found := self.of(event)) >= count:
                return found[count - 1]
            waiting.wait(_LOOK_S)
        raise AssertionError(f"no line {event} in {DEADLINE_S:g} s")

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines of this kind that have been read."""
        mark = f'"event":"{event}"'.encode()
        return [json.loads(line) for line in self.read() if mark in line]

    def read(self) -> list[bytes]:
        """All lines so far."""
        return list(self.lines)

    def _follow(self, fd: int) -> None:
        """Read lines of JSON until nobody has the other end, in a thread. Owns `fd`."""

        def read() -> None:
            with open(fd, "rb") as file:
                for line in file:
                    if line.startswith(b"{"):  # else the end of one whose beginning an earlier reader has
                        self.lines.append(line)

        self._threads.append(threading.Thread(target=read))
        self._threads[-1].start()


class FullDevice(Sink):
    """A disk that was full before the first line, and stays so."""

    recovers = False

    @property
    def prefix(self) -> list[str]:
        return ["sh", "-c", 'exec "$0" "$@" >/dev/full']


class FullDisk(Sink):
    """A file on a disk that runs full, and is made larger."""

    needs_root = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._disk = directory / "disk"
        self._disk.mkdir()
        self._mount(f"size={_SMALL}")

    @property
    def prefix(self) -> list[str]:
        return ["sh", "-c", 'log=$0; exec "$@" >>"$log"', f"{self._disk}/log"]

    def unblock(self) -> None:
        self._mount(f"remount,size={_LARGE}")

    def close(self) -> None:
        super().close()
        subprocess.run(["umount", str(self._disk)], check=True)

    def read(self) -> list[bytes]:
        return (self._disk / "log").read_bytes().rpartition(b"\n")[0].splitlines()

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._disk)], check=True)


class UnreadPipe(Sink):
    """A pipe whose reader stands still, as a stopped `cat` would."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._path = directory / "log"
        os.mkfifo(self._path)
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)

    @property
    def prefix(self) -> list[str]:
        return ["sh", "-c", 'log=$0; exec "$@" >"$log"', str(self._path)]

    def unblock(self) -> None:
        os.set_blocking(self._reader, True)
        self._follow(os.dup(self._reader))

    def close(self) -> None:
        os.close(self._reader)
        super().close()


class BrokenPipe(Sink):
    """A pipe whose reader has gone, and that another one takes up later."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._path = directory / "log"
        os.mkfifo(self._path)
        self._reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)

    @property
    def prefix(self) -> list[str]:
        return ["sh", "-c", 'log=$0; exec "$@" >"$log"', str(self._path)]

    def block(self) -> None:
        os.close(self._reader)
        self._reader = -1

    def close(self) -> None:
        if self._reader != -1:  # not even blocked
            os.close(self._reader)
        super().close()

    def unblock(self) -> None:
        reader = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        self._follow(reader)


class StoppedJournal(Sink):
    """A socket where journald's is that nobody reads, as of a stopped journald."""

    format = "journal"
    needs_root = True

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._place = directory / "journal"
        self._place.mkdir()
        self._sock = in_new_network(_journal_socket)
        # The path of the folder may be longer than an address.
        folder = os.open(self._place, os.O_PATH)
        try:
            self._sock.bind(f"/proc/self/fd/{folder}/socket")
        finally:
            os.close(folder)

    @property
    def prefix(self) -> list[str]:
        inside = (
            "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/journal; "
            'mount --bind "$0" /run/systemd/journal; exec "$@"'
        )
        return ["unshare", "--mount", "sh", "-ec", inside, str(self._place)]

    def unblock(self) -> None:
        self._threads.append(threading.Thread(target=self._read))
        self._threads[-1].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        super().close()
        self._sock.close()

    def _read(self) -> None:
        while entry := self._sock.recv(1 << 16):
            self.lines.append(entry)

    def of(self, event: str) -> list[dict[str, Any]]:
        entries = [entry.decode() for entry in self.read() if f"\nEVENT={event}\n".encode() in entry]
        return [
            {name.lower(): value for name, _, value in (field.partition("=") for field in entry.splitlines())}
            for entry in entries
        ]


def _journal_socket() -> socket.socket:
    """With a queue as systemd makes them; the kernel takes its length from the network that a socket is made in."""
    Path("/proc/sys/net/unix/max_dgram_qlen").write_text("512")
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


SINKS: tuple[type[Sink], ...] = (FullDevice, FullDisk, UnreadPipe, BrokenPipe, StoppedJournal)


def relaying_does_not_wait(sink: Sink, target: SocketAddress, directory: Path, *, for_s: float) -> str:
    """Relay while `sink` is blocked, until lines are lost and at least `for_s`; then have it take lines again. What it
    was like, in figures.
    """
    text = (
        f'[daemon]\nworkers = 1\n[log]\nformat = "{sink.format}"\n'
        f'[listeners.web]\nbind = "unix:@relayd-test-{os.getpid()}"\ntargets = ["{target}"]\nlog = {{ start = true }}\n'
    )
    daemon = Daemon(text, directory, prefix=sink.prefix)
    try:
        daemon.start()  # not in `with`, which waits for its log too
        daemon.wait_for_notification(lambda told: "READY" in told)
        sink.block()
        return _relay(daemon, sink, f"\0relayd-test-{os.getpid()}", for_s)
    finally:
        daemon.close()


def _relay(daemon: Daemon, sink: Sink, address: str, for_s: float) -> str:
    with Client(address) as client:
        before, until = scrape(daemon), time.monotonic() + for_s
        while not (lost := lost_lines(daemon)) or time.monotonic() < until:
            client.exchanges(_SOME)
            assert time.monotonic() < until + DEADLINE_S, "no line is lost, and somebody takes them"
        lags = lags_since(before, scrape(daemon))
        slowest_s = max(client.took_s)
        if sink.recovers:
            sink.unblock()
            resumes(daemon, sink, client)
    assert daemon.stop() == 0
    figures = f"{client.count} connections, {lost} lines lost, lags {lags}, slowest exchange {slowest_s * 1000:.1f} ms"
    assert in_time(lags, LATER_OF_MANY if for_s >= LONG_S else LATER_OF_FEW), figures
    return figures


def resumes(daemon: Daemon, sink: Sink, client: "Client") -> None:
    """Lines go again, and one says how many did not."""
    before = scrape(daemon)
    told = sink.wait_for("lines_lost")
    seen = len(sink.of("connection"))
    client.exchanges(1)
    sink.wait_for("connection", seen + 1)
    # What was lost after that line was made, another one would say.
    assert int(told["count"]) <= lost_lines(daemon)
    assert sum(int(line["count"]) for line in sink.of("lines_lost")) == lost_lines(daemon)
    lags = lags_since(before, scrape(daemon))
    assert in_time(lags, LATER_OF_FEW), f"while lines that had waited were written: {lags}"


class Client:
    """Connects, asks and leaves, again and again, beside one connection that stays and asks as often."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._staying = self._connect()
        self.count = 0
        #: By the connection that stays.
        self.took_s: list[float] = []

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *raised: object) -> None:
        self._staying.close()

    def exchanges(self, count: int) -> None:
        for _ in range(count):
            with self._connect() as client:
                self._ask(client)
            began = time.monotonic()
            self._ask(self._staying)
            self.took_s.append(time.monotonic() - began)
            self.count += 1

    def _connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE_S)
        client.connect(self._address)
        return client

    @staticmethod
    def _ask(client: socket.socket) -> None:
        client.sendall(b"?")
        assert client.recv(1) == b"?"


def lost_lines(daemon: Daemon) -> int:
    """By the metrics, of all processes."""
    return int(sum(value for (name, _), value in scrape(daemon).items() if name == "relayd_log_lines_lost_total"))


def in_time(lags: dict[float, int], later: float) -> bool:
    """Whether the loop was late by no more than LAG_S, but for what the machine may have done."""
    return 0 < lags[math.inf] <= lags[LAG_S] + max(FEW, later * lags[math.inf])


def lags_since(before: Values, now: Values) -> dict[float, int]:
    """How often the loop has been so late at most, by the upper bound in seconds."""
    lags: dict[float, int] = {}
    for (name, labels), value in now.items():
        if name == "relayd_event_loop_lag_seconds_bucket":
            bound = float(dict(labels)["le"])
            lags[bound] = lags.get(bound, 0) + int(value - before.get((name, labels), 0))
    return lags
