"""The sum of what all workers have counted, those that are dead included: totals never go backwards. Pure."""

from collections.abc import Iterable

from relayd.counters import ListenerTotals

_NOTHING: dict[str, ListenerTotals] = {}


class Totals:
    """Counts per listener, over the living workers and those that have ended."""

    def __init__(self) -> None:
        self._living: dict[int, dict[str, ListenerTotals]] = {}
        self._ended: dict[str, ListenerTotals] = {}

    def report(self, worker: int, listeners: Iterable[ListenerTotals]) -> None:
        """Worker `worker` has counted this since it began. A listener that is not among them keeps its last counts."""
        self._living.setdefault(worker, {}).update((totals.listener, totals) for totals in listeners)

    def ended(self, worker: int) -> None:
        """Worker `worker` is gone: what it counted stays, what was active is no more. Its number may come again."""
        for name, totals in self._living.pop(worker, _NOTHING).items():
            self._ended[name] = _add(self._ended.get(name), totals, active=False)

    @property
    def active(self) -> int:
        """Connections open now, by the last reports."""
        return sum(totals.active for worker in self._living.values() for totals in worker.values())

    def listeners(self) -> tuple[ListenerTotals, ...]:
        """The sums, by listener name."""
        sums = dict(self._ended)
        for worker in self._living.values():
            for name, totals in worker.items():
                sums[name] = _add(sums.get(name), totals, active=True)
        return tuple(sums[name] for name in sorted(sums))


def _add(before: ListenerTotals | None, more: ListenerTotals, *, active: bool) -> ListenerTotals:
    if before is None:
        before = ListenerTotals(more.listener, 0, 0, 0, 0, 0, 0, ())
    closed = dict(before.closed)
    for outcome, count in more.closed:
        closed[outcome] = closed.get(outcome, 0) + count
    return ListenerTotals(
        more.listener,
        before.accepted + more.accepted,
        before.active + (more.active if active else 0),
        before.bytes_in + more.bytes_in,
        before.bytes_out + more.bytes_out,
        before.dial_failures + more.dial_failures,
        before.accept_pauses + more.accept_pauses,
        tuple(closed.items()),
    )
