"""Starting worker processes: by exec, with their end of the channel as the only inherited descriptor beside stdio.

Imports little, so that workers can be started before anything else is (`Nursery`; `control.main`). What becomes of one
is `worker_process`'s business.
"""

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

import relayd

__all__ = ["WORKER_COMMAND", "Nursery", "Spawned", "environment", "raise_file_limit", "spawn"]

#: The number of the channel's descriptor is appended. -S: no site, as a worker imports the standard library only.
WORKER_COMMAND = (sys.executable, "-S", "-m", "relayd.relay.worker")
#: Variables of systemd that speak to the control process alone: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
#: RLIM_INFINITY as a number: the kernel's default for fs.nr_open, above which no limit on open files goes.
_NOFILE_UNLIMITED = 1024 * 1024
#: As many as nearly every machine has work for. A third one and further ones are started when the file says so.
_EARLY = 2


def raise_file_limit() -> int:
    """Raise the soft limit on open files to the hard one (F2), for this process and for those that it starts from now
    on; returns what is in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return _NOFILE_UNLIMITED if soft == resource.RLIM_INFINITY else soft


class Spawned:
    """A worker process, our end of its channel, and the read end of its standard error, non-blocking. Owned by whoever
    has this.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", channel: socket.socket, stderr: int) -> None:
        self.process = process
        self.channel = channel
        self.stderr = stderr

    def kill(self) -> None:
        """End it, and leave nothing."""
        self.process.kill()
        self.process.wait()
        self.channel.close()
        os.close(self.stderr)


def spawn(command: Sequence[str]) -> Spawned:
    """Start a worker: it waits for its configuration. Raises OSError (no memory, too many processes); nothing is left
    then.
    """
    # Of the kind that `channel.Channel` wants.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            # Both ends non-blocking: a worker that writes while control does not read loses words, not time.
            stderr, stderr_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stderr=stderr_write,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env=environment(os.environ),
                    # Ctrl-C reaches the control process alone, which then tells the workers in order.
                    start_new_session=True,
                )
            except BaseException:
                os.close(stderr)
                raise
            finally:
                os.close(stderr_write)
        except BaseException:
            ours.close()
            raise
    return Spawned(process, ours, stderr)


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Ours, less what speaks to control alone and what changes how Python starts, with the way to the package."""
    kept = {name: ours[name] for name in ours if name not in _NOT_INHERITED and not name.startswith("PYTHON")}
    # -m puts the working directory in front of the path, where a file could shadow a module; 3.11 can leave it out.
    package = os.path.dirname(os.path.realpath(relayd.__file__))  # not pathlib: it takes 8 ms to import
    return {**kept, "PYTHONPATH": os.path.dirname(package), "PYTHONSAFEPATH": "1"}


class Nursery:
    """Workers that were started before anybody knew what they are for. Owns those that nobody has taken."""

    def __init__(self) -> None:
        self._waiting: list[Spawned] = []

    def start(self) -> None:
        """Start a few. What fails is tried again, and told, when they are wanted."""
        for _ in range(min(_EARLY, len(os.sched_getaffinity(0)))):
            try:
                self._waiting.append(spawn(WORKER_COMMAND))
            except OSError:
                return

    def take(self) -> Spawned | None:
        """One of them; None: there is none any more."""
        while self._waiting:
            spawned = self._waiting.pop(0)
            if spawned.process.poll() is None:
                return spawned
            spawned.kill()
        return None

    def close(self) -> None:
        """End those that nobody has wanted."""
        while self._waiting:
            self._waiting.pop().kill()
