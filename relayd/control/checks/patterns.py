"""Patterns that come from a file, searched for in what a target has sent: never for longer than the loop can spare.

`(a+)+b` takes longer than the universe has been there to find that 48 a's do not match. Python's `re` has no limit, but
looks for signals every 4,096 steps (PyErr_CheckSignals in Modules/_sre), and an exception that a handler raises ends
the search. So SIGALRM comes while one is under way, and at no other time.

The handler, once there, stays: the alarm is the process's, and another thread may take it a moment late, when no search
is under way, or the next. It raises only where a search is late by the clock, and SIGALRM is otherwise nobody's here.
asyncio hears of the signal through its wakeup descriptor, and passes over it, as it has no handler of its own for it.
"""

import functools
import math
import re
import signal
import threading
from types import FrameType

from relayd import clock

__all__ = ["AGAIN_S", "REST_S", "SEARCH_S", "Pattern", "compiled"]

#: A pattern that is none of the bad ones takes some 10 µs for the 4 KiB that are looked at; one that is quadratic,
#: a few milliseconds. The loop of the control process can wait for so long, as it does for a reload of the file.
SEARCH_S = 0.02
#: A pattern that took too long gets no more than this for REST_S: all targets of a pool have the same, and 512 answers
#: may be there at once.
AGAIN_S = 0.001
REST_S = 1.0
#: Once more, should the first have come while Python could not raise.
_REPEAT_S = 0.02


class _TooLong(BaseException):
    """Raised by the handler. No Exception: nothing on the way is to take it for its own."""


class _Alarm:
    """`until` is when the search under way is late; never where there is none."""

    until = math.inf


class Pattern:
    """A pattern of bytes. Raises re.error where it is none."""

    def __init__(self, pattern: bytes) -> None:
        self._pattern = re.compile(pattern)
        self._slow_until = -math.inf

    def search(self, data: bytes) -> bool | None:
        """Whether it is in `data`; None where SEARCH_S did not do to find out.

        Without a bound outside of the main thread, where no signal can end it, and where SIGALRM or its timer is in use
        by somebody else.
        """
        if not _can_be_bound():
            return self._pattern.search(data) is not None
        now = clock.monotonic()
        found = _search(self._pattern, data, now, AGAIN_S if now < self._slow_until else SEARCH_S)
        if found is None:
            self._slow_until = clock.monotonic() + REST_S
        return found


@functools.lru_cache(maxsize=1024)  # one object for all targets that are asked for the same
def compiled(pattern: bytes) -> Pattern:
    """As `Pattern`, the same for the same bytes."""
    return Pattern(pattern)


def _can_be_bound() -> bool:
    """Whether this thread gets SIGALRM, by our handler: put there, where there is none yet."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGALRM)
    if handler in (signal.SIG_DFL, signal.SIG_IGN):
        signal.signal(signal.SIGALRM, _on_alarm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))  # whoever has started us may have blocked it
        signal.siginterrupt(signal.SIGALRM, False)  # other threads' system calls go on
    elif handler is not _on_alarm:
        return False
    return signal.getitimer(signal.ITIMER_REAL)[0] == 0


def _search(pattern: "re.Pattern[bytes]", data: bytes, now: float, within_s: float) -> bool | None:
    try:
        try:
            _Alarm.until = now + within_s
            signal.setitimer(signal.ITIMER_REAL, within_s, _REPEAT_S)
            return pattern.search(data) is not None
        finally:
            _disarm()
    except _TooLong:
        _disarm()  # it may have come in the midst of the other
        return None


def _disarm() -> None:
    _Alarm.until = math.inf
    signal.setitimer(signal.ITIMER_REAL, 0)


def _on_alarm(_: int, __: FrameType | None) -> None:
    now = clock.monotonic()
    if now >= _Alarm.until:
        _Alarm.until = now + _REPEAT_S  # not again while the first is on its way out
        raise _TooLong
