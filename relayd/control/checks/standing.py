"""Whether one target is up, by what checks find and clients meet. Pure.

          success, failure: the first one decides
    NEW ───success──▶ UP ◀──────rise successes in a row─────── DOWN
     │                 └───────fall failures in a row───────▶   ▲
     └──────────────────failure, or fall told──────────────────┘

NEW counts as up: a target that nobody has asked yet is not kept from clients, and one that fails its first check is
(HAProxy does the same). Failures that workers tell count towards `fall` while the target is up, and a success of a
check takes them back. While it is down they are no news: what brings it back is a check.
"""

import enum
from typing import NamedTuple

from relayd.control.checks.subject import Cause, Found
from relayd.spec import Check

__all__ = ["Standing", "State"]


class State(enum.Enum):
    """Of a target."""

    NEW = "new"
    UP = "up"
    DOWN = "down"


class _Sign(enum.Enum):
    SUCCESS = "success"
    FAILURE = "failure"
    #: A failure that clients have met.
    TOLD = "told"


#: From a state, by so many signs in a row (an attribute of Check; "" is one), to another. What is not here stays.
_MOVES: dict[tuple[State, _Sign], tuple[str, State]] = {
    (State.NEW, _Sign.SUCCESS): ("", State.UP),
    (State.NEW, _Sign.FAILURE): ("", State.DOWN),
    (State.NEW, _Sign.TOLD): ("fall", State.DOWN),
    (State.UP, _Sign.FAILURE): ("fall", State.DOWN),
    (State.UP, _Sign.TOLD): ("fall", State.DOWN),
    (State.DOWN, _Sign.SUCCESS): ("rise", State.UP),
}


class Standing(NamedTuple):
    """Where a target stands since `since`. `same` of the `failures` in a row, the last ones, have the reason `reason`.
    `successes` in a row are counted where they can change something. `why` is what took it down, and `cause` the kind
    of that. `last_reason` is "" after a success; `last_at`, when the last check began, and `last_duration_s` are None
    before the first one.

    A NamedTuple: there are five hundred new ones a second, and a dataclass takes three times as long.
    """

    since: float
    state: State = State.NEW
    why: str = ""
    failures: int = 0
    successes: int = 0
    same: int = 0
    reason: str = ""
    last_reason: str = ""
    last_at: float | None = None
    last_duration_s: float | None = None
    cause: Cause | None = None

    @property
    def up(self) -> bool:
        """Whether clients may be sent there."""
        return self.state is not State.DOWN

    def found(self, found: Found, check: Check, began: float, now: float) -> "Standing":
        """After a check of `began` to `now` has found what it has. Found nothing, it changes nothing."""
        if found.up is None:
            return self
        asked = self._replace(last_reason=found.reason, last_at=began, last_duration_s=now - began)
        if not found.up:
            return asked._counted(_Sign.FAILURE, 1, found.reason, found.cause, check, now)
        if self.state is State.UP and not self.failures:  # nearly always: it costs half of the long way
            return asked
        return asked._counted(_Sign.SUCCESS, 1, "", None, check, now)

    def told(self, count: int, reason: str, check: Check, now: float) -> "Standing":
        """After clients have met `count` failures."""
        if not self.up or count < 1:
            return self
        return self._counted(_Sign.TOLD, count, reason, Cause.CLIENTS, check, now)

    def afresh(self) -> "Standing":
        """For another check: as up or down as before, and nothing counted yet."""
        return self._replace(failures=0, successes=0, same=0, reason="")

    def _counted(
        self, sign: _Sign, count: int, reason: str, cause: Cause | None, check: Check, now: float
    ) -> "Standing":
        if sign is _Sign.SUCCESS:
            counted = self._replace(successes=self.successes + 1, failures=0, same=0, reason="")
            row = counted.successes
        else:
            same = count + (self.same if self.reason == reason else 0)
            counted = self._replace(failures=self.failures + count, successes=0, same=same, reason=reason)
            row = counted.failures
        needed, state = _MOVES.get((self.state, sign), ("", self.state))
        if state is self.state or row < (getattr(check, needed) if needed else 1):
            return counted
        since = self.since if self.up and state is State.UP else now  # NEW counts as up, and so nothing has changed
        why = counted._words() if state is State.DOWN else ""
        return counted._replace(state=state, since=since, why=why, cause=cause)

    def _words(self) -> str:
        """`connect timeout x3`; `status 503, 3 failures in a row` where the others had other reasons."""
        if self.same < self.failures:
            return f"{self.reason}, {self.failures} failures in a row"
        return f"{self.reason} x{self.same}" if self.same > 1 else self.reason
