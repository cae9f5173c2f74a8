"""A real daemon with one worker, and strace(1) that makes the worker's system calls fail.

    with Victim(tmp_path) as victim:
        victim.injected("accept4", "EMFILE", calls=3)     # exercises it; asserts that it lives, does not spin or leak

strace is attached to the worker once it runs, so nothing of its start is disturbed, and it is detached by SIGTERM.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from tests.e2e.conftest import Echo
from tests.e2e.daemon import Daemon
from tests.integration.relaying import free_address

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None or os.geteuid() != 0, reason="needs strace and the right to trace another process"
)
#: System calls that the loop of a worker makes while it relays. Not close(2): strace would keep it from happening, and
#: Linux gives the descriptor back whatever it answers.
CALLS = (
    "accept4",
    "socket",
    "connect",
    "setsockopt",
    "getsockopt",
    "getsockname",
    "recvfrom",
    "sendto",
    "splice",
    "pipe2",
    "epoll_ctl",
    "epoll_wait",
    "ioctl",
    "shutdown",
)
ERRORS = ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EINTR", "ECONNABORTED", "EADDRNOTAVAIL")
#: A client that waits longer than this has been forgotten.
PATIENCE_S = 5.0
_BULK_BYTES = 1 << 20
#: One connection at a time: two pipes of two ends; and standard output (twice) and error.
_PIPE_FDS_MAX = 8


class Victim:
    """`relayd run` with one worker and an echo target, over TCP and from a Unix socket."""

    def __init__(self, directory: Path, prefix: tuple[str, ...] = ()) -> None:
        self._echo = Echo(free_address("inet", directory))
        self._directory = directory
        unix = directory / "relay.sock"
        self._daemon = Daemon(
            f'[daemon]\nworkers = 1\n[listeners.web]\nbind = ["0.0.0.0:0", "unix:{unix}"]\n'
            f'targets = ["{self._echo.address}"]\n',
            directory,
            prefix=prefix,
        )

    def __enter__(self) -> "Victim":
        try:
            self._daemon.__enter__()
            (self.worker,) = self._daemon.workers()
            self.base_line = self.fds()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._daemon.__exit__(*raised)
        self._echo.close()

    def fds(self) -> int:
        """Open descriptors of the worker; of its pipes, as many as two directions at once can have left in the pool."""
        links = []
        for entry in os.scandir(f"/proc/{self.worker}/fd"):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                links.append(os.readlink(entry.path))
        pipes = sum(link.startswith("pipe:") for link in links)
        return len(links) - pipes + max(0, pipes - _PIPE_FDS_MAX)

    def cpu_s(self) -> float:
        """CPU seconds that the worker has used."""
        fields = Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self, event: str) -> int:
        """Lines of one kind so far."""
        return len(self._daemon.events(event))

    def injected(self, call: str, error: str, calls: int = 2) -> int:
        """Let the next `calls` of `call` fail with `error` while clients come and go, then see that all is well.

        Returns how many have failed: fewer when the worker made fewer.
        """
        trace = self._directory / "strace"
        inject = f"inject={call}:error={error}:when=1..{calls}"
        stopped = subprocess.Popen(
            ["strace", "-p", str(self.worker), "-e", f"trace={call}", "-e", inject, "-o", str(trace)],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert stopped.stderr is not None
            assert "attached" in stopped.stderr.readline()
            for index in range(2):
                for size in (1, 1, _BULK_BYTES):
                    with contextlib.suppress(ConnectionError):  # that connection got the error; a reset is an answer
                        self.exchange(size, index)
        finally:
            stopped.send_signal(signal.SIGTERM)
            stopped.communicate(timeout=10)
        self.is_well()
        return trace.read_text().count("(INJECTED)")

    def is_well(self) -> None:
        """It is the same worker, it works, it does not spin, and it has no more open than before."""
        for index in range(2):
            self.exchange(1000, index)
        assert self._daemon.workers() == [self.worker], self._daemon.report()
        deadline = time.monotonic() + PATIENCE_S
        while self.fds() > self.base_line:
            assert time.monotonic() < deadline, f"{self.fds()} descriptors, {self.base_line} before"
        before = self.cpu_s()
        time.sleep(0.25)  # nothing shall happen in it
        assert self.cpu_s() - before <= 0.03, "the worker spins"

    def exchange(self, size: int, index: int = 0) -> None:
        """A connection to the index-th bind whose bytes come back whole. Raises ConnectionError and TimeoutError."""
        client = self._daemon.connect("web", index, PATIENCE_S)
        with client:
            data = os.urandom(size)
            sending = threading.Thread(target=_send, args=(client, data), daemon=True)
            sending.start()
            received = bytearray()
            try:
                while part := client.recv(1 << 18):
                    received += part
            finally:
                sending.join(PATIENCE_S)
            assert not sending.is_alive()
            if received != data:
                raise ConnectionAbortedError(f"{len(received)} bytes of {size}")

    @property
    def address(self) -> SocketAddress:
        """Where the TCP clients go."""
        return self._daemon.address("web")


def _send(client: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the receiving half says how it ended
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
