"""Lines about those that live, again each time that they have lived for `progress` of their listener (`log`).

Nobody has a timer for it, nor anything to remember: a worker looks now and then at all connections and sessions of the
listeners that want such lines, and has one written for each whose age has passed a multiple of `progress` since the
look before. So a line is never early, a long-lived one has no two within one interval, and another process or another
interval changes nothing about those that are there.

A look takes turns with everything else (S5): it goes over so many in a turn of the loop, and writes fewer.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.log.logger import ListenerLogger, Logger
from relayd.relay.loop import Loop

#: Of one turn: ages that are looked at, some 0.2 us each, and lines that are written, some 30 us each.
LOOKS_PER_TURN = 2048
LINES_PER_TURN = 32
#: A look follows the one before after this part of the interval: a line may be late by as much, or by a second.
_LATE = 0.01


class Lived(Protocol):
    """A connection or a session."""

    @property
    def started_at(self) -> float:
        """When it began (monotonic seconds)."""


class Watched(NamedTuple):
    """Those of one listener whose progress is told. `record` makes what a line says; None: it lives no more."""

    log: ListenerLogger
    event: Event
    live: Iterable[Any]
    record: Callable[[Any], AccessRecord | None]


class _Look(NamedTuple):
    """One look at those of a listener: `left` to look at, for ages that they have come to after `since`, by `now`."""

    watched: Watched
    interval_s: float
    since: float
    now: float
    left: Iterator[Lived]


class Progress:
    """The looks of one worker."""

    def __init__(self, loop: Loop, log: Logger) -> None:
        self._loop = loop
        self._log = log
        #: When the last look was, by listener and kind. One that is new begins with that of the others: in a new
        #: process that is its beginning, by which the one before has looked for the last time.
        self._looked_at: dict[ListenerLogger, float] = {}
        self._last = loop.now
        self._looks: deque[_Look] = deque()

    def look(self, everybody: Iterable[Watched]) -> None:
        """Go over `everybody` whose listener wants lines and is due, in the turns to come. Once a second."""
        if self._looks:  # the last one goes on: the next one is about more time
            return
        now, last, before = self._loop.now, self._last, self._looked_at
        self._last, self._looked_at = now, {}
        for watched in everybody:
            interval_s = watched.log.progress_s
            if interval_s is None:
                continue
            since = self._looked_at[watched.log] = before.get(watched.log, last)
            if now - since >= interval_s * _LATE:
                self._looked_at[watched.log] = now
                # A copy, for they come and go meanwhile.
                self._looks.append(_Look(watched, interval_s, since, now, iter(tuple(watched.live))))
        if self._looks:
            self._loop.again(self._step)

    def _step(self) -> None:
        lines = 0
        for _ in range(LOOKS_PER_TURN):
            look = self._looks[0]
            one = next(look.left, None)
            if one is None:
                self._looks.popleft()
                if not self._looks:
                    return
                continue
            started_at, interval_s = one.started_at, look.interval_s
            if (look.now - started_at) // interval_s > max(look.since - started_at, 0.0) // interval_s:
                self._tell(look.watched, one)
                lines += 1
                if lines == LINES_PER_TURN:
                    break
        self._loop.again(self._step)

    def _tell(self, watched: Watched, one: Lived) -> None:
        record = watched.record(one)
        if record is not None and watched.log.progress_s is not None:
            watched.log.living(watched.event, record)

    def expire(self) -> None:
        """It has no timer."""

    def crashed(self, error: Exception) -> None:
        """A bug: this look is over, and the next one is as ever."""
        self._looks.clear()
        self._log.bug("met lines about what lives", error)
