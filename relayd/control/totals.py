"""The sum of what all workers have counted, those that are dead included: totals never go backwards. Pure.

A listener that serves streams and datagrams has counts of each, and they are kept apart. What a worker counts of itself
is kept by its number, which the next one has as well.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Generic, TypeVar

from relayd.channel.codec import plain, value_of
from relayd.channel.parcel import BROKEN_RECORD
from relayd.control.recent import Counts as Recently
from relayd.control.recent import Recent
from relayd.counters import ControlTotals, DatagramTotals, ListenerTotals, WorkerTotals

_NOTHING = WorkerTotals()
Counts = TypeVar("Counts", ListenerTotals, DatagramTotals)


class Totals:
    """Counts per listener and type, over the living workers and those that have ended."""

    def __init__(self, now: float = 0.0) -> None:
        #: What has happened lately on each listener.
        self.recent = Recent(now)
        self._streams: _Sums[ListenerTotals] = _Sums()
        self._datagrams: _Sums[DatagramTotals] = _Sums()
        self._workers: dict[int, WorkerTotals] = {}
        #: When each has reported last.
        self._reported_at: dict[int, float] = {}
        self._workers_ended: dict[int, WorkerTotals] = {}
        #: For the control process to add to.
        self.control = ControlTotals()

    def report(
        self,
        worker: int,
        listeners: Iterable[ListenerTotals | DatagramTotals],
        of_itself: WorkerTotals = _NOTHING,
        now: float = 0.0,
    ) -> None:
        """Worker `worker` has counted this since it began. A listener that is not among them keeps its last counts."""
        self._workers[worker] = of_itself
        since = self._reported_at.get(worker, now)
        self._reported_at[worker] = now
        for totals in listeners:
            if isinstance(totals, ListenerTotals):
                more = self._streams.report(worker, totals)
            else:
                more = self._datagrams.report(worker, totals)
            kind = "stream" if isinstance(totals, ListenerTotals) else "dgram"
            self.recent.add((kind, totals.listener), more, since, now)

    def ended(self, worker: int) -> None:
        """Worker `worker` is gone: what it counted stays, what was active is no more. Its number may come again."""
        self._streams.ended(worker)
        self._datagrams.ended(worker)
        self._reported_at.pop(worker, None)
        self._end(worker, self._workers.pop(worker, _NOTHING))

    def _end(self, worker: int, counted: WorkerTotals) -> None:
        self._workers_ended[worker] = self._workers_ended.get(worker, _NOTHING) + counted

    def restore(self, sums: Iterable[ListenerTotals | DatagramTotals]) -> None:
        """What was counted before this process began."""
        for totals in sums:
            if isinstance(totals, ListenerTotals):
                self._streams.add(totals.ended())
            else:
                self._datagrams.add(totals.ended())

    def snapshot(self, lines_lost: int) -> dict[str, Any]:
        """All that `sums` has not, for `go_on` in the next life: a value for JSON. `lines_lost` of the log of the
        control process in this life.
        """
        control = replace(self.control, lines_lost=self.control.lines_lost + lines_lost)
        workers = [[number, plain(counted)] for number, counted in self.workers().items()]
        return {"control": plain(control), "workers": workers}

    def go_on(self, left: object) -> None:
        """From what `snapshot` has returned in the life before. What is not understood counts as nothing."""
        if not isinstance(left, dict):
            return
        with suppress(*BROKEN_RECORD):
            control = value_of(left["control"])
            self.control += control if isinstance(control, ControlTotals) else ControlTotals()
        with suppress(*BROKEN_RECORD):
            for number, counted in _workers(left["workers"]):
                self._end(number, counted)

    def workers(self) -> dict[int, WorkerTotals]:
        """The sums of workers, by number."""
        sums = dict(self._workers_ended)
        for number, counted in self._workers.items():
            sums[number] = sums.get(number, _NOTHING) + counted
        return dict(sorted(sums.items()))

    @property
    def active(self) -> int:
        """Connections open now, by the last reports."""
        return self._streams.active

    def active_of(self, worker: int) -> int:
        """Connections and sessions of one worker, by its last report."""
        return self._streams.active_of(worker) + self._datagrams.active_of(worker)

    @property
    def sessions(self) -> int:
        """Sessions open now, by the last reports."""
        return self._datagrams.active

    def sums(self) -> tuple[ListenerTotals | DatagramTotals, ...]:
        """All of them."""
        return (*self.listeners(), *self.datagrams())

    def listeners(self) -> tuple[ListenerTotals, ...]:
        """The sums of streams, by listener name."""
        return self._streams.sums()

    def datagrams(self) -> tuple[DatagramTotals, ...]:
        """The sums of datagrams, by listener name."""
        return self._datagrams.sums()


class _Sums(Generic[Counts]):
    """The counts of one type."""

    def __init__(self) -> None:
        self._living: dict[int, dict[str, Counts]] = {}
        self._ended: dict[str, Counts] = {}

    @property
    def active(self) -> int:
        return sum(totals.active for worker in self._living.values() for totals in worker.values())

    def active_of(self, worker: int) -> int:
        return sum(totals.active for totals in self._living.get(worker, {}).values())

    def report(self, worker: int, totals: Counts) -> Recently:
        """What there is more of than the last time."""
        living = self._living.setdefault(worker, {})
        before, living[totals.listener] = living.get(totals.listener), totals
        if before is None:
            return totals.accepted, totals.bytes_in, totals.bytes_out
        return (
            totals.accepted - before.accepted,
            totals.bytes_in - before.bytes_in,
            totals.bytes_out - before.bytes_out,
        )

    def add(self, totals: Counts) -> None:
        _add(self._ended, totals)

    def ended(self, worker: int) -> None:
        for totals in self._living.pop(worker, {}).values():
            _add(self._ended, totals.ended())

    def sums(self) -> tuple[Counts, ...]:
        sums = dict(self._ended)
        for worker in self._living.values():
            for totals in worker.values():
                _add(sums, totals)
        return tuple(sums[name] for name in sorted(sums))


def _workers(left: Any) -> Iterator[tuple[int, WorkerTotals]]:
    """Raises a BROKEN_RECORD."""
    for number, counted in left:
        value = value_of(counted)
        if type(number) is int and isinstance(value, WorkerTotals):
            yield number, value


def _add(sums: dict[str, Counts], more: Counts) -> None:
    before = sums.get(more.listener)
    sums[more.listener] = more if before is None else before + more
