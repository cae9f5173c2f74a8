"""A worker process as the soaks look at it."""

import contextlib
import os
import time
from pathlib import Path

from tests.e2e.daemon import Daemon


class Worker:
    """A worker, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    @classmethod
    def of(cls, daemon: Daemon) -> "Worker":
        """The only one of a daemon."""
        (pid,) = daemon.workers()
        return cls(pid)

    def rss_kib(self) -> int:
        """Resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def cpu_s(self) -> float:
        """CPU time so far, in nanoseconds' precision (a tick is too coarse for "none at all")."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def fds(self) -> int:
        """Open descriptors other than pipes, which a pool keeps."""
        count = 0
        for entry in os.scandir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                count += not os.readlink(entry.path).startswith("pipe:")
        return count

    def cpu_share(self, seconds: float) -> float:
        """CPU used in the next `seconds`, as a share of one core."""
        before = self.cpu_s()
        time.sleep(seconds)  # the measurement
        return (self.cpu_s() - before) / seconds
