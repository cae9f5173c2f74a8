"""The only place that reads a clock. Everything else is given `now`.

Timeouts use `monotonic` (CLOCK_MONOTONIC: never set, does not run while the machine sleeps), so a step of the
wall clock neither fires nor misses one. `wall` is for what people read: log lines.
"""

from time import gmtime, monotonic, sleep, strftime, time

__all__ = ["monotonic", "pause", "utc", "wall"]


def wall() -> float:
    """Seconds since the epoch (CLOCK_REALTIME), for log lines only."""
    return time()


def pause(seconds: float) -> None:
    """Do nothing for a while. For a loop whose own waiting failed, and for a command that asks again and again."""
    sleep(seconds)


def utc(second: int) -> str:
    """`2026-11-22T17:01:02` for a second since the epoch. Reads no clock; it is here to keep `time` in one module."""
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
