"""What one life of the control process leaves to the next about its targets, as a JSON value. Pure.

Monotonic seconds mean nothing after a reboot, and little to another process: times go as seconds since the epoch. What
is not understood is left out, entry by entry: those targets are new ones.
"""

from collections.abc import Iterable
from typing import Any

from relayd.control.checks.standing import Standing, State
from relayd.control.checks.subject import Cause, Key

__all__ = ["LEFT_MAX", "Left", "pack", "unpack"]

#: In the value; another number is another version's, and is not read.
_VERSION = 1
#: Targets that are taken from one: more than any configuration has.
LEFT_MAX = 1 << 17
#: Of a reason: a manifest is no place for what a target sends.
_REASON_CHARACTERS = 300
#: A count that is larger says nothing more.
_COUNT_MAX = 1 << 31

#: A standing, and when the target is due.
Left = tuple[Standing, float]


def pack(targets: Iterable[tuple[Key, Standing, float]], epoch: float) -> dict[str, Any]:
    """The value. `epoch` is what a monotonic second is on the wall clock, less that second."""
    return {
        "version": _VERSION,
        "targets": [
            {
                "pool": pool,
                "target": target,
                "state": standing.state.value,
                "since": standing.since + epoch,
                "why": standing.why[:_REASON_CHARACTERS],
                "cause": standing.cause.value if standing.cause is not None else None,
                "failures": standing.failures,
                "successes": standing.successes,
                "same": standing.same,
                "reason": standing.reason[:_REASON_CHARACTERS],
                "last_reason": standing.last_reason[:_REASON_CHARACTERS],
                "last_at": None if standing.last_at is None else standing.last_at + epoch,
                "last_duration": standing.last_duration_s,
                "due": due + epoch,
            }
            for (pool, target), standing, due in targets
        ],
    }


def unpack(value: object, now: float, epoch: float) -> dict[Key, Left]:
    """What `pack` has been given, as far as `value` is that; never raises. No time of the past is after `now`: the wall
    clock may have been set meanwhile.
    """
    if not isinstance(value, dict) or value.get("version") != _VERSION or not isinstance(value.get("targets"), list):
        return {}
    found: dict[Key, Left] = {}
    for entry in value["targets"][:LEFT_MAX]:
        try:
            key, left = _entry(entry, now, epoch)
        except (KeyError, TypeError, ValueError):
            continue
        found[key] = left
    return found


def _entry(entry: Any, now: float, epoch: float) -> tuple[Key, Left]:
    """Raises KeyError, TypeError and ValueError where it is none."""
    state = State(entry["state"])
    standing = Standing(
        since=min(now, _number(entry["since"]) - epoch),
        state=state,
        why=_text(entry["why"]),
        cause=Cause(entry.get("cause", Cause.UNKNOWN)) if state is State.DOWN else None,
        failures=_count(entry["failures"]),
        successes=_count(entry["successes"]),
        same=_count(entry["same"]),
        reason=_text(entry["reason"]),
        last_reason=_text(entry["last_reason"]),
        last_at=None if entry["last_at"] is None else min(now, _number(entry["last_at"]) - epoch),
        last_duration_s=None if entry["last_duration"] is None else max(0.0, _number(entry["last_duration"])),
    )
    return (_text(entry["pool"]), _text(entry["target"])), (standing, _number(entry["due"]) - epoch)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # nan, too
        raise TypeError("not a time")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _COUNT_MAX:
        raise TypeError("not a count")
    return value
