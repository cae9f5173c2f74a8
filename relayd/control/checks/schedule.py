"""When which target is asked. Pure: times are monotonic seconds, chance is given.

    WAITING ──due, and there is room──▶ UNDER WAY ──done──▶ WAITING, due an interval after it began

Never two at once for a target. No storm, whatever comes together (a start, a reload, a loop that stood still, a
thousand targets that do not answer): at most `limit` are under way, and at most `slot_max` begin in a slot of the grid.
What is late is asked late, the longest waiting first; nothing is dropped.
"""

import heapq
import itertools
import math
import random
from collections.abc import Iterable

from relayd.control.checks.subject import Key

__all__ = ["GRID_S", "HURRY_S", "JITTER", "SLOT_MAX", "Schedule", "spread"]

#: What is due within one of these begins together, at its end: a thousand targets every 2 s are then 50 wake-ups a
#: second, of 10 checks each. The first check after a wake-up costs as much as the next three: with a slot of 10 ms all
#: cost a third more. Far below what anybody notices of an interval.
GRID_S = 0.02
#: A check costs some 60 µs: 4 ms of a slot of 20, which the loop of the control process can always spare. That is 3,200
#: checks a second.
SLOT_MAX = 64
#: Each round is so much shorter or longer, by chance, so that what has come together comes apart.
JITTER = 0.1
#: A target that clients find failing is asked at once, and no oftener than this: failures come in storms.
HURRY_S = 0.2
#: What is so near is there: multiples of GRID_S are not exact.
_ROUNDING_S = 1e-6


class _Entry:
    """`due` is in the heap with `turn`, its valid element there: one that was put in before has another. `began` is
    -inf before the first time.
    """

    __slots__ = ("began", "due", "turn", "under_way")

    def __init__(self, due: float) -> None:
        self.due = due
        self.turn = 0
        self.began = -math.inf
        self.under_way = False


class Schedule:
    """Who is due when. Unknown keys are no error: a check may end after its target has gone."""

    def __init__(self, limit: int, rng: random.Random, slot_max: int = SLOT_MAX) -> None:
        self._limit = limit
        self._slot_max = slot_max
        self._rng = rng
        self._entries: dict[Key, _Entry] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._turns = itertools.count(1)
        self._under_way = 0
        self._slot = -math.inf
        self._begun_in_slot = 0

    def add(self, key: Key, due: float) -> None:
        """A new one, asked first at `due`. One that is there stays as it is."""
        if key not in self._entries:
            self._entries[key] = _Entry(due)
            self._wait(key, self._entries[key])

    def remove(self, key: Key) -> None:
        """It is asked no more. Whoever asks it just now has stopped."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.under_way:
            self._under_way -= 1

    def hurry(self, key: Key, now: float) -> None:
        """It is due at once, or HURRY_S after the last time. Not while it is asked."""
        self._advance(key, now, HURRY_S)

    def within(self, key: Key, interval_s: float, now: float) -> None:
        """From now on it is due every `interval_s`: sooner, and at a time by chance, where it would wait longer."""
        entry = self._entries.get(key)
        if entry is not None and entry.due > now + interval_s * (1 + JITTER):
            self._advance(key, now + interval_s * self._rng.random(), 0.0)

    def begin(self, now: float) -> list[Key]:
        """Those to be asked now, the longest waiting first. They count as under way."""
        slot = _slot(now)
        if slot != self._slot:
            self._slot, self._begun_in_slot = slot, 0
        begun: list[Key] = []
        while self._begun_in_slot < self._slot_max and self._under_way < self._limit:
            due = self._next()
            if due is None or due > now + _ROUNDING_S:
                break
            key = heapq.heappop(self._heap)[2]
            entry = self._entries[key]
            entry.under_way, entry.began, entry.turn = True, now, 0
            self._under_way += 1
            self._begun_in_slot += 1
            begun.append(key)
        return begun

    def done(self, key: Key, interval_s: float) -> None:
        """The check that is under way is over; the next is due `interval_s`, with jitter, after it began."""
        entry = self._entries.get(key)
        if entry is None or not entry.under_way:
            return
        entry.under_way = False
        self._under_way -= 1
        entry.due = entry.began + interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._wait(key, entry)

    def again(self, key: Key, now: float) -> None:
        """The check that is under way was broken off, and is due at once."""
        entry = self._entries.get(key)
        if entry is not None and entry.under_way:
            entry.under_way = False
            self._under_way -= 1
            entry.due = now
            self._wait(key, entry)

    def due(self, key: Key) -> float | None:
        """When it is asked next; of one that is under way, when that began. None: it is not known."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        return entry.began if entry.under_way else entry.due

    def wake_at(self, now: float) -> float | None:
        """When `begin` has something to return: the end of a slot. None while only `done` can change that."""
        if self._under_way >= self._limit:
            return None
        due = self._next()
        if due is None:
            return None
        slot = _slot(now)
        if slot == self._slot and self._begun_in_slot >= self._slot_max:
            due = max(due, (slot + 1) * GRID_S)
        return max(now, math.ceil(due / GRID_S) * GRID_S)

    @property
    def under_way(self) -> int:
        """How many are asked just now."""
        return self._under_way

    def _advance(self, key: Key, due: float, least_s: float) -> None:
        entry = self._entries.get(key)
        if entry is None or entry.under_way:
            return
        due = max(due, entry.began + least_s)
        if due < entry.due:
            entry.due = due
            self._wait(key, entry)

    def _wait(self, key: Key, entry: _Entry) -> None:
        entry.turn = next(self._turns)
        heapq.heappush(self._heap, (entry.due, entry.turn, key))

    def _next(self) -> float | None:
        """When the first is due. Elements that are not valid any more go: each was pushed once, and goes once."""
        while self._heap:
            due, turn, key = self._heap[0]
            entry = self._entries.get(key)
            if entry is not None and entry.turn == turn:
                return due
            heapq.heappop(self._heap)
        return None


def _slot(now: float) -> int:
    return math.floor((now + _ROUNDING_S) / GRID_S)


def spread(pools: Iterable[tuple[int, float]], now: float) -> list[list[float]]:
    """First times for pools of so many new targets and of such an interval: those of a pool evenly over its interval,
    and pools beside each other, so that a thousand pools of one target do not begin together.
    """
    pools = list(pools)
    return [
        [now + interval_s * (index + place / len(pools)) / targets for index in range(targets)]
        for place, (targets, interval_s) in enumerate(pools)
    ]
