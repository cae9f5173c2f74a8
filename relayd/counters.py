"""What a worker counts per listener: plain integers, added to in place and reported as values.

A worker's counters begin at zero with the worker and only grow, but for `active`. The control process adds what a dead
worker last reported to the sum, so that totals never go backwards. What stands above each count as `#:` is what
docs/reference.md says of it.
"""

from collections import defaultdict
from dataclasses import dataclass, field, replace

from relayd.outcomes import Drop, Outcome


@dataclass(slots=True)
class ListenerCounters:
    """Counts of one listener in one worker."""

    #: Connections taken from the backlog.
    accepted: int = 0
    #: Connections open now.
    active: int = 0
    #: Bytes from clients, written to targets; added when a connection ends.
    bytes_in: int = 0
    #: Bytes from targets, written to clients; added when a connection ends.
    bytes_out: int = 0
    #: Dials that did not reach their target.
    dial_failures: int = 0
    #: Times that accepting was paused.
    accept_pauses: int = 0
    #: Connections that have ended, by outcome.
    closed: defaultdict[Outcome, int] = field(default_factory=lambda: defaultdict(int))

    def snapshot(self, listener: str) -> "ListenerTotals":
        """These counts as an immutable value."""
        return ListenerTotals(
            listener,
            self.accepted,
            self.active,
            self.bytes_in,
            self.bytes_out,
            self.dial_failures,
            self.accept_pauses,
            tuple((outcome, count) for outcome, count in self.closed.items()),
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
