"""When which target is asked. Pure: times are monotonic seconds, chance is given.

    WAITING ──due, and there is room──▶ UNDER WAY ──done──▶ WAITING, due an interval after it began

Never two at once for a target. No storm, whatever comes together (a start, a reload, a loop that stood still, a
thousand targets that do not answer): at most `limit` are under way, and at most `slot_max` begin in a slot of the grid.
What is late is asked late; nothing is dropped.

Where there is no room for all, nobody takes it all. The targets of a pool whose last check has failed are one group,
its others another. Groups that have something due take turns, in each the longest waiting first. A group never takes
the last room while there are others, and some is kept from those that fail: silence lasts for the whole timeout, and
a target that is up and dies is not to be found late because a thousand others are dead already.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Iterable

from relayd.control.checks.subject import Key

__all__ = ["GRID_S", "HURRY_S", "JITTER", "SLOT_MAX", "Schedule", "spread"]

#: What is due within one of these begins together, at its end: a thousand targets every 2 s are then 20 wake-ups a
#: second, of 25 checks each. The first check after a wake-up costs as much as the next three: with a slot of 20 ms all
#: cost a third more, with 100 ms hardly less. Below what anybody notices of an interval.
GRID_S = 0.05
#: A check costs some 80 µs: 13 ms of a slot of 50, which the loop of the control process can always spare, for it moves
#: no bytes. That is 3,200 checks a second.
SLOT_MAX = 160
#: Each round is so much shorter or longer, by chance, so that what has come together comes apart.
JITTER = 0.1
#: A target that clients find failing is asked at once, and no oftener than this: failures come in storms.
HURRY_S = 0.2
#: What is so near is there: multiples of GRID_S are not exact.
_ROUNDING_S = 1e-6
#: A group has at most so many times under way what is free, where there are others. One has 8/9 of all, two 8/17 each,
#: and a ninth, or a seventeenth, is there when a third begins (Choudhury and Hahne, dynamic thresholds, 1998).
_OF_FREE = 8
#: This part of all is kept from those that fail, as far as there are others.
_KEPT = 8


class _Group:
    """`heap` has what is due when; one element for each entry is valid, the others go as they come up. `waiting` is the
    turn of its valid element among those that have nothing due, `ready` whether it is among those that have.
    """

    __slots__ = ("failing", "heap", "members", "ready", "under_way", "waiting")

    def __init__(self, *, failing: bool) -> None:
        self.failing = failing
        self.heap: list[tuple[float, int, Key]] = []
        self.members = 0
        self.under_way = 0
        self.waiting = 0
        self.ready = False


class _Entry:
    """`due` is in the heap of its group with `turn`, its valid element there: one that was put in before has another.
    `began` is -inf before the first time, and `late_s` how late that was.
    """

    __slots__ = ("began", "due", "group", "late_s", "turn", "under_way")

    def __init__(self, due: float, group: _Group) -> None:
        self.due = due
        self.group = group
        self.turn = 0
        self.began = -math.inf
        self.late_s = 0.0
        self.under_way = False


class Schedule:
    """Who is due when. Unknown keys are no error: a check may end after its target has gone."""

    def __init__(self, limit: int, rng: random.Random, slot_max: int = SLOT_MAX) -> None:
        self.limit = limit
        self._slot_max = slot_max
        self._rng = rng
        self._entries: dict[Key, _Entry] = {}
        self._groups: dict[tuple[str, bool], _Group] = {}
        #: Groups that have nothing due, by when they have.
        self._waiting: list[tuple[float, int, _Group]] = []
        #: Those that have, in turn: of those that do not fail, and of those that do. Which comes next.
        self._ready: tuple[deque[_Group], deque[_Group]] = (deque(), deque())
        self._failing_next = False
        self._turns = itertools.count(1)
        self._under_way = 0
        self._sound = 0
        self._slot = -math.inf
        self._begun_in_slot = 0
        #: How late the latest of those was that the last `begin` has returned.
        self.behind_s = 0.0
        #: The last `begin` has left some that are due, for want of room: the next `done` may make some.
        self.held_up = False

    def add(self, key: Key, due: float, *, failing: bool = False) -> None:
        """A new one, asked first at `due`. One that is there stays as it is."""
        if key not in self._entries:
            entry = self._entries[key] = _Entry(due, self._join(key, failing=failing))
            self._wait(key, entry)

    def remove(self, key: Key) -> None:
        """It is asked no more. Whoever asks it just now has stopped."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            if entry.under_way:
                self._end(entry)
            self._leave(key, entry.group)

    def hurry(self, key: Key, now: float) -> None:
        """It is due at once, or HURRY_S after the last time. Not while it is asked."""
        self._advance(key, now, HURRY_S)

    def within(self, key: Key, interval_s: float, now: float) -> None:
        """From now on it is due every `interval_s`: sooner, and at a time by chance, where it would wait longer."""
        entry = self._entries.get(key)
        if entry is not None and entry.due > now + interval_s * (1 + JITTER):
            self._advance(key, now + interval_s * self._rng.random(), 0.0)

    def begin(self, now: float) -> list[Key]:
        """Those to be asked now. They count as under way."""
        slot = _slot(now)
        if slot != self._slot:
            self._slot, self._begun_in_slot = slot, 0
        self._look(now)
        self.behind_s = 0.0
        begun: list[Key] = []
        self.held_up = False
        while self._begun_in_slot < self._slot_max:
            group = self._next(now)
            if group is None:
                self.held_up = any(self._ready)
                break
            self._ready[group.failing].popleft()
            group.ready, self._failing_next = False, not group.failing
            due, _, key = heapq.heappop(group.heap)
            entry = self._entries[key]
            entry.under_way, entry.began, entry.late_s, entry.turn = True, now, now - due, 0
            if entry.late_s > self.behind_s:
                self.behind_s = entry.late_s
            group.under_way += 1
            self._under_way += 1
            self._begun_in_slot += 1
            begun.append(key)
            self._go_on(group, now)
        return begun

    def done(self, key: Key, interval_s: float, *, failing: bool = False) -> float:
        """The check that is under way is over; the next is due `interval_s`, with jitter, after it began, which is
        returned; inf where none is under way. `failing`: it has found the target so.
        """
        entry = self._entries.get(key)
        if entry is None or not entry.under_way:
            return math.inf
        self._end(entry)
        if failing is not entry.group.failing:
            self._leave(key, entry.group)
            entry.group = self._join(key, failing=failing)
        entry.due = entry.began + interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._wait(key, entry)
        return entry.due

    def again(self, key: Key, now: float) -> None:
        """The check that is under way was broken off, and is due at once."""
        entry = self._entries.get(key)
        if entry is not None and entry.under_way:
            self._end(entry)
            entry.due = now
            self._wait(key, entry)

    def due(self, key: Key) -> float | None:
        """When it is asked next; of one that is under way, when that began. None: it is not known."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        return entry.began if entry.under_way else entry.due

    def late_s(self, key: Key) -> float:
        """How long the last check of it has waited for room."""
        entry = self._entries.get(key)
        return 0.0 if entry is None else entry.late_s

    def wake_at(self, now: float) -> float | None:
        """When `begin` has something to return: the end of a slot. None while only `done` can change that."""
        if self._under_way >= self.limit:
            return None
        self._look(now)
        due = now if self._next(now) is not None else self._waiting[0][0] if self._waiting else None
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
        group = entry.group
        heapq.heappush(group.heap, (entry.due, entry.turn, key))
        if not group.ready and group.heap[0][1] == entry.turn:
            group.waiting = entry.turn
            heapq.heappush(self._waiting, (entry.due, entry.turn, group))

    def _end(self, entry: _Entry) -> None:
        entry.under_way = False
        entry.group.under_way -= 1
        self._under_way -= 1

    def _join(self, key: Key, *, failing: bool) -> _Group:
        group = self._groups.get((key[0], failing))
        if group is None:
            group = self._groups[key[0], failing] = _Group(failing=failing)
        group.members += 1
        self._sound += not failing
        return group

    def _leave(self, key: Key, group: _Group) -> None:
        group.members -= 1
        self._sound -= not group.failing
        if not group.members:  # what is left of it in queues has no valid element, and goes as it comes up
            del self._groups[key[0], group.failing]

    def _look(self, now: float) -> None:
        """Groups that have something due by now are ready; the first of the others is what its time says."""
        while self._waiting:
            due, turn, group = self._waiting[0]
            if group.waiting == turn and due > now + _ROUNDING_S and self._first(group) == due:
                return
            heapq.heappop(self._waiting)
            if group.waiting == turn:
                group.waiting = 0
                self._go_on(group, now)

    def _go_on(self, group: _Group, now: float) -> None:
        """One that is in no queue goes to the end of that where it belongs by what it has next."""
        due = self._first(group)
        if due is not None and due <= now + _ROUNDING_S:
            group.ready = True
            self._ready[group.failing].append(group)
        elif due is not None:
            group.waiting = group.heap[0][1]
            heapq.heappush(self._waiting, (due, group.waiting, group))

    def _next(self, now: float) -> _Group | None:
        """The group whose turn it is, which is the first of its queue then; None: none may."""
        free = self.limit - self._under_way
        if free <= 0:
            return None
        for failing in (self._failing_next, not self._failing_next):
            if failing and free <= min(self.limit // _KEPT, self._sound):
                continue
            ready = self._ready[failing]
            for _ in range(len(ready)):
                group = ready[0]
                due = self._first(group)
                if due is None or due > now + _ROUNDING_S:  # what was due was removed
                    ready.popleft()
                    group.ready = False
                    self._go_on(group, now)
                elif group.under_way < _OF_FREE * free or len(self._groups) == 1:
                    return group
                else:
                    ready.rotate(-1)
        return None

    def _first(self, group: _Group) -> float | None:
        """When its first is due. Elements that are not valid any more go: each was pushed once, and goes once."""
        while group.heap:
            due, turn, key = group.heap[0]
            entry = self._entries.get(key)
            if entry is not None and entry.turn == turn:
                return due
            heapq.heappop(group.heap)
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
