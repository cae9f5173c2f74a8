"""What a worker counts per listener: plain integers, added to in place and reported as values.

A worker's counters begin at zero with the worker and only grow, but for `active`. The control process adds what a dead
worker last reported to the sum, so that totals never go backwards.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from relayd.outcomes import Outcome


@dataclass(slots=True)
class ListenerCounters:
    """Counts of one listener in one worker.

    `accepted` connections taken from the backlog; `active` those open now; `bytes_in` client to target and `bytes_out`
    target to client, written to the other side, added when a connection ends; `closed` by outcome.
    """

    accepted: int = 0
    active: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    dial_failures: int = 0
    accept_pauses: int = 0
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
