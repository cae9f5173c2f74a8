"""What a worker counts per listener: plain integers, added to in place and reported as values.

A worker's counters begin at zero with the worker and only grow, but for `active`. The control process adds what a dead
worker last reported to the sum, so that totals never go backwards. What stands above each count as `#:` is what
docs/reference.md says of it.

Durations are counted in buckets, each on its own and not up to its bound: one addition for a duration, and sums of
histograms are sums of their buckets.
"""

from bisect import bisect_left
from collections import defaultdict
from dataclasses import field, replace

from relayd.outcomes import Drop, Outcome
from relayd.values import dataclass

#: Upper bounds of buckets, in seconds, each inclusive; a last bucket has what is above. From a target on this machine
#: (0.1 ms) to the longest `connect_timeout` that anybody would wait for.
CONNECT_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: epoll_wait(2) is late by up to a millisecond, which says nothing; what is late by seconds is about to be replaced.
LAG_BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations by bucket, and their sum. No buckets: none was counted."""

    counts: tuple[int, ...] = ()
    sum_s: float = 0.0

    def __add__(self, more: "Histogram") -> "Histogram":
        """The sum of both; of `more` alone where this has other buckets, for it is of another version then."""
        if not more.counts:
            return self
        if len(self.counts) != len(more.counts):
            return more
        return Histogram(tuple(map(int.__add__, self.counts, more.counts)), self.sum_s + more.sum_s)


class Durations:
    """Counts durations in buckets with these bounds."""

    __slots__ = ("_bounds_s", "_counts", "_sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def snapshot(self) -> Histogram:
        """These counts as an immutable value."""
        return Histogram(tuple(self._counts), self._sum_s) if any(self._counts) else Histogram()


@dataclass(slots=True)
class ListenerCounters:
    """Counts of one listener in one worker. Bytes of a live connection are counted by its pumps: `snapshot` adds them,
    and here they are once it has ended.
    """

    #: Connections taken from the backlog.
    accepted: int = 0
    #: Connections open now.
    active: int = 0
    #: Bytes from clients, written to targets.
    bytes_in: int = 0
    #: Bytes from targets, written to clients.
    bytes_out: int = 0
    #: Dials that did not reach their target.
    dial_failures: int = 0
    #: Times that accepting was paused.
    accept_pauses: int = 0
    #: Connections that have ended, by outcome.
    closed: defaultdict[Outcome, int] = field(default_factory=lambda: defaultdict(int))
    #: How long connections took from the accept until a target had answered, those that failed before included; of
    #: those that reached one.
    connects: Durations = field(default_factory=lambda: Durations(CONNECT_BOUNDS_S))

    def snapshot(self, listener: str, live_in: int = 0, live_out: int = 0) -> "ListenerTotals":
        """These counts, and the bytes of what lives, as an immutable value."""
        return ListenerTotals(
            listener,
            self.accepted,
            self.active,
            self.bytes_in + live_in,
            self.bytes_out + live_out,
            self.dial_failures,
            self.accept_pauses,
            tuple((outcome, count) for outcome, count in self.closed.items()),
            self.connects.snapshot(),
        )


@dataclass(frozen=True, slots=True)
class ListenerTotals:
    """A snapshot of `ListenerCounters`, with the listener's name."""

    listener: str
    accepted: int
    active: int
    bytes_in: int
    bytes_out: int
    dial_failures: int
    accept_pauses: int
    closed: tuple[tuple[Outcome, int], ...]
    connects: Histogram = Histogram()

    def ended(self) -> "ListenerTotals":
        """What stays of these counts when their worker is gone: nothing is active any more."""
        return replace(self, active=0)

    def __add__(self, more: "ListenerTotals") -> "ListenerTotals":
        """The sum of two workers' counts of one listener."""
        closed = dict(self.closed)
        for outcome, count in more.closed:
            closed[outcome] = closed.get(outcome, 0) + count
        return ListenerTotals(
            self.listener,
            self.accepted + more.accepted,
            self.active + more.active,
            self.bytes_in + more.bytes_in,
            self.bytes_out + more.bytes_out,
            self.dial_failures + more.dial_failures,
            self.accept_pauses + more.accept_pauses,
            tuple(closed.items()),
            self.connects + more.connects,
        )


@dataclass(slots=True)
class DatagramCounters:
    """Counts of one listener's datagrams in one worker."""

    #: Sessions begun.
    accepted: int = 0
    #: Sessions that are there now.
    active: int = 0
    #: Datagrams that came from clients, passed on or not.
    datagrams_in: int = 0
    #: Datagrams that came from targets, passed on or not.
    datagrams_out: int = 0
    #: Bytes of the datagrams from clients.
    bytes_in: int = 0
    #: Bytes of the datagrams from targets.
    bytes_out: int = 0
    #: Targets that a session found unreachable, whether or not it could move to another.
    target_errors: int = 0
    #: Sessions that have ended, by outcome.
    closed: defaultdict[Outcome, int] = field(default_factory=lambda: defaultdict(int))
    #: Datagrams that were not passed on, by reason.
    dropped: defaultdict[Drop, int] = field(default_factory=lambda: defaultdict(int))

    def snapshot(self, listener: str) -> "DatagramTotals":
        """These counts as an immutable value."""
        return DatagramTotals(
            listener,
            self.accepted,
            self.active,
            self.datagrams_in,
            self.datagrams_out,
            self.bytes_in,
            self.bytes_out,
            self.target_errors,
            tuple(self.closed.items()),
            tuple(self.dropped.items()),
        )


@dataclass(frozen=True, slots=True)
class DatagramTotals:
    """A snapshot of `DatagramCounters`, with the listener's name."""

    listener: str
    accepted: int
    active: int
    datagrams_in: int
    datagrams_out: int
    bytes_in: int
    bytes_out: int
    target_errors: int
    closed: tuple[tuple[Outcome, int], ...]
    dropped: tuple[tuple[Drop, int], ...]

    def ended(self) -> "DatagramTotals":
        """What stays of these counts when their worker is gone: nothing is active any more."""
        return replace(self, active=0)

    def __add__(self, more: "DatagramTotals") -> "DatagramTotals":
        """The sum of two workers' counts of one listener."""
        closed, dropped = dict(self.closed), dict(self.dropped)
        for outcome, count in more.closed:
            closed[outcome] = closed.get(outcome, 0) + count
        for reason, count in more.dropped:
            dropped[reason] = dropped.get(reason, 0) + count
        return DatagramTotals(
            self.listener,
            self.accepted + more.accepted,
            self.active + more.active,
            self.datagrams_in + more.datagrams_in,
            self.datagrams_out + more.datagrams_out,
            self.bytes_in + more.bytes_in,
            self.bytes_out + more.bytes_out,
            self.target_errors + more.target_errors,
            tuple(closed.items()),
            tuple(dropped.items()),
        )


@dataclass(frozen=True, slots=True)
class WorkerTotals:
    """What a worker counts of itself: how late its loop came to timers that were due, lines of its log that were lost,
    and processor time.
    """

    lag: Histogram = Histogram()
    lines_lost: int = 0
    cpu_s: float = 0.0

    def __add__(self, more: "WorkerTotals") -> "WorkerTotals":
        """The sum of two workers' counts, or of two that had the same number one after the other."""
        return WorkerTotals(self.lag + more.lag, self.lines_lost + more.lines_lost, self.cpu_s + more.cpu_s)


@dataclass(slots=True)
class ControlTotals:
    """What the control process counts itself, over all of its lives."""

    worker_restarts: int = 0
    #: Reloads that were done, those that had nothing to change included; and those that were refused.
    reloads: int = 0
    reloads_refused: int = 0
    #: Of its own log, in the lives before.
    lines_lost: int = 0

    def __add__(self, more: "ControlTotals") -> "ControlTotals":
        """The sum of two lives."""
        return ControlTotals(
            self.worker_restarts + more.worker_restarts,
            self.reloads + more.reloads,
            self.reloads_refused + more.reloads_refused,
            self.lines_lost + more.lines_lost,
        )
