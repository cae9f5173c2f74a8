"""One check by a command: started, waited for, and ended with its process group: what leaves that (setsid(2)) goes on.

Not by asyncio's subprocesses: before Python 3.12 each of them takes a thread that waits for its end. Here it is a pidfd
in the selector of the other checks, as `worker_process` has it.
"""

import contextlib
import enum
import errno
import os
import select
import signal
import subprocess
from collections.abc import Callable

from relayd.address import InetAddress, UnixAddress
from relayd.control.checks.subject import UP, Cause, Found, Subject
from relayd.control.spawning import environment
from relayd.errors import OUT_OF_RESOURCES, TRANSIENT
from relayd.net.poller import IN, EdgeSelector

__all__ = ["Command"]

#: Its first line of output, as far as it is of use in a log line.
_LINE_BYTES = 120
_READ_BYTES = 16 * 1024
#: fork(2): EAGAIN is a limit on processes. Not ENOENT or EACCES, which are about the command: a check that cannot be
#: made is one that fails, as a target would not be looked after otherwise, and nobody would know.
_LOCAL = OUT_OF_RESOURCES | {errno.EAGAIN}


class _Phase(enum.Enum):
    RUNNING = "running"
    KILLED = "killed"
    GONE = "gone"


class Command:
    """Runs the command of `subject` once, in a session of its own. `done` is called once, with what has been found; not
    after `drop`. Exit code 0 is up. Owns the process, which is always reaped.

        RUNNING ──its end──▶ GONE           `done` with its exit code
           └──late, drop──▶ KILLED ──its end──▶ GONE

    KILLED may last: a process that waits for a dead disk or file server ends when that does (proc_pid_stat(5), D).

    What the command leaves behind, and did not take out of its process group, is killed with its end: a check every 2 s
    would pile it up. Its output is read and thrown away but for the first line.
    """

    def __init__(self, selector: EdgeSelector, subject: Subject, done: Callable[[Found], None]) -> None:
        self.subject = subject
        self._selector = selector
        self._done = done
        self._process: subprocess.Popen[bytes] | None = None
        self._phase = _Phase.RUNNING
        self._pidfd = self._output = -1
        self._line = b""

    @property
    def gone(self) -> bool:
        """Whether nothing is left of it."""
        return self._phase is _Phase.GONE

    def start(self) -> None:
        """Begin. `done` may be called before this returns."""
        try:
            self._spawn()
        except OSError as error:
            self._kill()
            self._reap()
            reason = f"{self.subject.check.command[0]}: {os.strerror(error.errno or 0).lower()}"
            self._done(Found(None, reason) if error.errno in _LOCAL else Found(False, reason, Cause.COMMAND))

    def late(self) -> None:
        """The check's timeout is over: kill. Nothing the second time."""
        if self._phase is not _Phase.RUNNING:
            return
        self._read()
        self._kill()
        self._done(
            Found(False, self._with_line(f"still running after {self.subject.check.timeout_s:g}s"), Cause.COMMAND)
        )

    def drop(self) -> None:
        """Kill; nobody wants to know what it finds. Idempotent."""
        self._kill()

    def finish(self, within_s: float) -> None:
        """Kill, and wait for its end for so long at most. Afterwards nothing of it is watched."""
        self._kill()
        if self._process is not None:
            _kill_group(self._process.pid)  # once more: it may run as another user no longer
        if self._pidfd >= 0:
            ending = select.poll()
            ending.register(self._pidfd, select.POLLIN)
            if not ending.poll(within_s * 1000) and self._process is not None:
                self._process.returncode = -signal.SIGKILL  # it will be init's to reap; Popen is not to complain of it
        self._reap()

    def _kill(self) -> None:
        process = self._process
        if self._phase is _Phase.RUNNING:
            self._phase = _Phase.KILLED
            self._close_output()
            if process is not None:
                _kill_group(process.pid)

    def _reap(self) -> None:
        process, self._process = self._process, None
        self._phase = _Phase.GONE
        self._close_output()
        if self._pidfd >= 0:
            self._selector.abandon(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if process is not None:
            process.wait()  # does not wait: a readable pidfd is a process that has ended (pidfd_open(2))

    def _close_output(self) -> None:
        if self._output >= 0:
            self._selector.abandon(self._output)
            os.close(self._output)
            self._output = -1

    def _spawn(self) -> None:
        """Raises OSError; what there is by then, `_reap` ends."""
        check = self.subject.check
        self._output, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.set_blocking(write, True)
            self._process = subprocess.Popen(  # noqa: S603  # what the file says
                check.command,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                cwd="/",
                env=self._environment(),
                start_new_session=True,
            )
        finally:
            os.close(write)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._selector.register(self._pidfd, IN, self._ended)
        self._selector.register(self._output, IN, self._readable)

    def _environment(self) -> dict[str, str]:
        subject = self.subject
        ours = environment(os.environ)
        about = {"RELAYD_POOL": subject.pool, "RELAYD_TARGET": subject.name}
        if isinstance(subject.address, UnixAddress):
            about["RELAYD_PATH"] = subject.address.path
        elif isinstance(subject.address, InetAddress):
            host, scope = subject.address.host, subject.address.scope
            about |= {"RELAYD_HOST": f"{host}%{scope}" if scope else host, "RELAYD_PORT": str(subject.address.port)}
        return {**{name: ours[name] for name in ours if not name.startswith("PYTHON")}, **about}

    def _readable(self, _: int) -> None:
        self._read()

    def _read(self) -> None:
        """One read: a command that writes without end takes turns with everything else."""
        if self._output < 0:
            return
        try:
            data = os.read(self._output, _READ_BYTES)
        except OSError as error:
            if error.errno in TRANSIENT:
                return
            data = b""
        if not data:
            self._close_output()  # it would be readable for ever
        if b"\n" not in self._line and len(self._line) < _LINE_BYTES:
            self._line = (self._line + data).lstrip()[:_LINE_BYTES]

    def _ended(self, _: int) -> None:
        process, phase = self._process, self._phase
        if process is None:
            return
        self._read()
        _kill_group(process.pid)
        self._reap()
        if phase is _Phase.RUNNING:
            status = process.returncode
            self._done(UP if status == 0 else Found(False, self._with_line(_how(status)), Cause.COMMAND))

    def _with_line(self, reason: str) -> str:
        line = self._line.partition(b"\n")[0].decode(errors="backslashreplace").strip()
        line = "".join(each if each.isprintable() else "?" for each in line)
        return f"{reason}: {line}" if line else reason


def _kill_group(leader: int) -> None:
    """Of a process that is not reaped yet: until then nobody else can have its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: all of it runs as somebody else
        os.killpg(leader, signal.SIGKILL)


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
