"""Timers, pure: who wants to be woken when. No clock, no thread, no work per byte.

A connection has one entry, set to its earliest possible deadline. Activity does not move it; when it fires, the
connection looks at what really happened and, mostly, sets the next one (S7). Entries of about the same time share a
slot, so that setting and cancelling cost a set operation each and the heap holds slots, not connections.
"""

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

#: A deadline is rounded up to a multiple of this many milliseconds: a hundredth of a second for short waits, and a
#: quarter, which S7's "1 s or 1 %" allows, for those of a second and more.
_FINE_MS = 10
_COARSE_MS = 250
_COARSE_FROM_S = 1.0
_NEVER = float("inf")
#: Where there are fewer slots than this, empty ones are not worth looking for.
_FEW_SLOTS = 16


class Timers(Generic[Item]):
    """Deadlines of items, which must be hashable by identity. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Item]] = {}
        self._heap: list[int] = []
        #: With so many slots, those that everyone has left are removed: a slot of an hour ahead would stay that long.
        self._sweep_at = _FEW_SLOTS
        #: Nothing is due before this time.
        self.soonest = _NEVER

    def add(self, item: Item, at: float, now: float) -> set[Item]:
        """Have `item` come out of `expired` at `at` or up to one step later. `result.discard(item)` cancels that."""
        step = _COARSE_MS if at - now >= _COARSE_FROM_S else _FINE_MS
        due = -int(-at * 1000 // step) * step
        slot = self._slots.get(due)
        if slot is None:
            if len(self._heap) >= self._sweep_at:
                self._sweep()
            slot = self._slots[due] = set()
            heapq.heappush(self._heap, due)
            self.soonest = self._heap[0] / 1000
        slot.add(item)
        return slot

    def _sweep(self) -> None:
        self._slots = {due: slot for due, slot in self._slots.items() if slot}
        self._heap[:] = sorted(self._slots)  # in place: `expired` may be at it; what is sorted is a heap
        self._sweep_at = max(_FEW_SLOTS, 2 * len(self._heap))

    def wait(self, now: float) -> float | None:
        """Seconds until the next item is due, 0 when one is, None when there is none."""
        heap = self._heap
        while heap:
            if self._slots[heap[0]]:
                return max(0.0, self.soonest - now)
            del self._slots[heapq.heappop(heap)]  # everyone cancelled: do not wake up for that
            self.soonest = heap[0] / 1000 if heap else _NEVER
        return None

    def expired(self, now: float) -> Iterator[Item]:
        """Items that are due, each once. Items may be added and cancelled while this runs."""
        heap = self._heap
        while self.soonest <= now:
            slot = self._slots.pop(heapq.heappop(heap))
            self.soonest = heap[0] / 1000 if heap else _NEVER
            while slot:
                yield slot.pop()
