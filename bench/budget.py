"""The budgets that relayd must hold, and whether one run held them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.cases import TRIP_BYTES, TRIP_CLIENTS
from bench.rounds import Sample

_SUBJECT = "relayd"


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on one figure of relayd, or of another `subject`, at most or at least: `bound` itself, or `bound` times
    the figure of `peer`.

    `peer_case` is the case of the peer's figure where that is another one. With `where_peer`, `bound` itself holds in
    every round in which the peer was within it.
    """

    case: str
    key: str
    bound: float
    peer: str | None = None
    at_least: bool = False
    peer_case: str | None = None
    where_peer: bool = False
    subject: str = _SUBJECT

    @property
    def is_ratio(self) -> bool:
        """Whether `bound` is a multiple of the peer's figure."""
        return self.peer is not None and not self.where_peer

    def allows(self, found: float) -> bool:
        """Whether the figure, or the ratio of the two, is within the bound."""
        return found >= self.bound if self.at_least else found <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        whose = "" if self.subject == _SUBJECT else f"{self.subject} "
        said = f"{whose}{self.case} {self.key} {sign} {self.bound:g}"
        if self.peer is None:
            return said
        whose = f"{self.peer} {self.peer_case}" if self.peer_case else self.peer
        return f"{said} where {whose} is" if self.where_peer else f"{said} x {whose}"


_UDP_TRIPS = tuple(f"udp{clients}-{size}" for size in TRIP_BYTES for clients in TRIP_CLIENTS)
_UDP_BULK = ("udp-bulk", "udp-bulk-gso")


BUDGETS = (
    Budget("request", "cpu_us", 1.0, "haproxy"),
    Budget("connect", "cpu_us", 1.15, "haproxy"),
    Budget("connect", "cpu_us", 0.7, "nginx"),
    Budget("bulk1", "gbit_s", 1.2, "haproxy", at_least=True),
    Budget("bulk4", "gbit_s", 1.2, "haproxy", at_least=True),
    Budget("bulk1", "gbit_s", 1.2, "haproxy-splice", at_least=True),
    Budget("bulk4", "gbit_s", 1.2, "haproxy-splice", at_least=True),
    Budget("memory", "worker_idle_mb", 16.0),
    Budget("memory", "kib_each", 3.0),
    Budget("start", "ready_ms", 1000.0),
    *(Budget(case, "cpu_us", 0.85, "nginx") for case in _UDP_TRIPS),
    *(Budget(case, "lost_percent", 0.0, "nginx", where_peer=True) for case in (*_UDP_TRIPS, *_UDP_BULK)),
    Budget("udp-bulk-gso", "gbit_s", 3.0, _SUBJECT, at_least=True, peer_case="udp-bulk"),
    Budget("request", "cpu_us", 1.03, "relayd-unseen", subject="relayd-seen"),
    Budget("connect", "cpu_us", 1.08, "relayd-unseen", subject="relayd-seen"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget in one mode. `found` is the median over the rounds, or of `where_peer` the worst one.

    None where the run has no figures for it.
    """

    budget: Budget
    mode: str
    found: float | None

    @property
    def held(self) -> bool:
        """Whether it was kept. A budget without figures was not: nothing shows that it was."""
        return self.found is not None and self.budget.allows(self.found)

    def __str__(self) -> str:
        found = "no figures" if self.found is None else f"{self.found:.3g}{' x' if self.budget.is_ratio else ''}"
        return f"{'PASS' if self.held else 'FAIL'}  {self.mode:5}  {self.budget}: {found}"


def _by_round(samples: Sequence[Sample], mode: str, case: str, key: str, relay: str) -> dict[int, float]:
    return {
        sample.round: sample.figures[key]
        for sample in samples
        if (sample.mode, sample.case, sample.relay) == (mode, case, relay) and key in sample.figures
    }


def _judge_one(samples: Sequence[Sample], mode: str, budget: Budget) -> Verdict | None:
    """None where the peer was not within the bound in any round: then there is nothing to hold."""
    found = _by_round(samples, mode, budget.case, budget.key, budget.subject)
    if budget.peer is None:
        return Verdict(budget, mode, median(found.values()) if found else None)
    peers = _by_round(samples, mode, budget.peer_case or budget.case, budget.key, budget.peer)
    if budget.where_peer:
        kept = [number for number in peers if budget.allows(peers[number])]
        if peers and not kept:
            return None
        figures = [found[number] for number in kept if number in found]
        worst = min if budget.at_least else max
        return Verdict(budget, mode, worst(figures) if figures else None)
    ratios = [found[number] / peers[number] for number in found if number in peers]
    return Verdict(budget, mode, median(ratios) if ratios else None)


def judge(
    samples: Sequence[Sample], modes: Sequence[str], cases: Sequence[str], relays: Sequence[str]
) -> list[Verdict]:
    """A verdict in every mode on every budget of `cases` whose peer is one of `relays`, the ones asked for.

    None on a budget that holds only where the peer keeps it too, when the peer never did.

    A ratio is taken within each round, where both were measured within seconds of each other, and its median counts.
    """
    verdicts: list[Verdict] = []
    for mode in modes:
        for budget in BUDGETS:
            if not {budget.case, budget.peer_case or budget.case} <= set(cases):
                continue
            if budget.peer is not None and budget.peer not in relays:
                continue
            if budget.subject != _SUBJECT and budget.subject not in relays:
                continue
            verdict = _judge_one(samples, mode, budget)
            if verdict is not None:
                verdicts.append(verdict)
    return verdicts
