"""What systemd is told about this service: sd_notify(3), over systemd-python. The control process only.

Each call is one datagram, so a state and its text arrive together. systemd-python holds the GIL and blocks while
systemd itself does not read (measured: after 513 datagrams), which is why callers send on a timer and not per event.
"""

import os
import select
import sys
from collections.abc import Callable, Mapping, Sequence

from relayd.sd.library import notify

#: systemd kills a service whose WATCHDOG=1 is late; sd_watchdog_enabled(3) advises half of the interval that it allows.
_WATCHDOG_SHARE = 0.5
#: SCM_MAX_FD of the kernel (unix(7)): descriptors in one message.
FDS_AT_ONCE = 253


class Notifier:
    """Tells systemd how the service is. Where nobody asked to be told (no NOTIFY_SOCKET), every call does nothing."""

    def __init__(
        self, *, enabled: bool, watchdog_interval_s: float | None, warn: Callable[[str], None] | None = None
    ) -> None:
        """`watchdog_interval_s`: seconds between two calls of `watchdog`; None when systemd does not watch us.

        `warn` is called at most once, with one line, when systemd cannot be reached; None: on stderr.
        """
        self.watchdog_interval_s = watchdog_interval_s
        self._enabled = enabled
        self._warn = warn or _warn_on_stderr
        self._warned = False

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        pid: int | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> "Notifier":
        """The notifier that NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID describe; `pid` None is this process."""
        enabled = bool(environ.get("NOTIFY_SOCKET"))
        watchdog = _watchdog_interval_s(environ, os.getpid() if pid is None else pid) if enabled else None
        return cls(enabled=enabled, watchdog_interval_s=watchdog, warn=warn)

    def ready(self, status: str) -> None:
        """Start-up is over: `systemctl start` returns."""
        self._send("READY=1", _status(status))

    def reloading(self, monotonic_s: float) -> None:
        """A reload has begun, at this time of CLOCK_MONOTONIC; `ready` ends it. systemd takes the time to tell one
        reload from another, and waits for good without it (sd_notify(3)).
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={round(monotonic_s * 1e6)}")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(_status(text))

    def watchdog(self) -> None:
        """The service lives. To be called from the loop whose life is meant, every `watchdog_interval_s`."""
        self._send("WATCHDOG=1")

    def stopping(self, text: str) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1", _status(text))

    def extend_timeout(self, seconds: float) -> None:
        """Start or stop may last `seconds` more, counted from now, where the unit's own timeout is shorter."""
        self._send(f"EXTEND_TIMEOUT_USEC={max(0, round(seconds * 1e6))}")

    # the FD store -----------------------------------------------------------------------------------------------

    def store(self, name: str, fds: Sequence[int], *, watched: bool = True) -> None:
        """Have systemd keep duplicates of `fds` under `name`, and pass them to the next process of this service
        (FDSTORE=1). `watched` False: even those whose other end is closed, which it lets go of otherwise.

        At most FDS_AT_ONCE. Nobody says whether it has: more than FileDescriptorStoreMax= it does not.
        """
        self._send("FDSTORE=1", f"FDNAME={name}", *(() if watched else ("FDPOLL=0",)), fds=fds)

    def unstore(self, name: str) -> None:
        """Have systemd let go of all that it keeps under `name`."""
        self._send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def barrier(self, timeout_s: float) -> bool:
        """Wait until systemd has done all that it was told so far (BARRIER=1). False: it has not, after `timeout_s`."""
        if not self._enabled:
            return True
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            self._send("BARRIER=1", fds=[theirs])
        finally:
            os.close(theirs)
        with open(ours, "rb", buffering=0) as done:
            poll = select.poll()
            poll.register(done, 0)  # POLLHUP is told without being asked for (poll(2))
            return bool(poll.poll(timeout_s * 1000))

    @property
    def enabled(self) -> bool:
        """True when there is somebody to be told."""
        return self._enabled

    def _send(self, *assignments: str, fds: Sequence[int] = ()) -> None:
        if not self._enabled:
            return
        try:
            notify("\n".join(assignments), fds=list(fds)) if fds else notify("\n".join(assignments))
        except OSError as error:
            if not self._warned:
                self._warned = True
                self._warn(f"systemd cannot be told how the service is: NOTIFY_SOCKET: {error}")


def _status(text: str) -> str:
    """STATUS= with `text` on one line: a line feed would begin another assignment, a NUL end the message."""
    return "STATUS=" + " ".join(text.replace("\0", " ").split("\n"))


def _watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """sd_watchdog_enabled(3). Not a number, or meant for another process: nobody watches us."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit() and int(microseconds)):
        return None
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(microseconds) / 1e6 * _WATCHDOG_SHARE


def _warn_on_stderr(line: str) -> None:
    # stderr may be closed (sys.stderr is None then); there is nobody left to tell.
    if sys.stderr is not None:
        sys.stderr.write(f"relayd: {line}\n")
