"""The budgets that relayd must hold, and whether one run held them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.rounds import Sample

_SUBJECT = "relayd"


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on one figure of relayd, at most or at least: `bound` itself, or `bound` times the figure of `peer`."""

    case: str
    key: str
    bound: float
    peer: str | None = None
    at_least: bool = False

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.case} {self.key} {sign} {self.bound:g}{f' x {self.peer}' if self.peer else ''}"


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
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A budget in one mode. `found` is the median over the rounds; None where the run has no figures for it."""

    budget: Budget
    mode: str
    found: float | None

    @property
    def held(self) -> bool:
        """Whether it was kept. A budget without figures was not: nothing shows that it was."""
        if self.found is None:
            return False
        return self.found >= self.budget.bound if self.budget.at_least else self.found <= self.budget.bound

    def __str__(self) -> str:
        found = "no figures" if self.found is None else f"{self.found:.3g}{' x' if self.budget.peer else ''}"
        return f"{'PASS' if self.held else 'FAIL'}  {self.mode:5}  {self.budget}: {found}"


def _by_round(samples: Sequence[Sample], mode: str, budget: Budget, relay: str) -> dict[int, float]:
    return {
        sample.round: sample.figures[budget.key]
        for sample in samples
        if (sample.mode, sample.case, sample.relay) == (mode, budget.case, relay) and budget.key in sample.figures
    }


def judge(
    samples: Sequence[Sample], modes: Sequence[str], cases: Sequence[str], relays: Sequence[str]
) -> list[Verdict]:
    """A verdict in every mode on every budget of `cases` whose peer is one of `relays`, the ones asked for.

    A ratio is taken within each round, where both were measured within seconds of each other, and its median counts.
    """
    verdicts: list[Verdict] = []
    for mode in modes:
        for budget in BUDGETS:
            if budget.case not in cases or (budget.peer is not None and budget.peer not in relays):
                continue
            found = _by_round(samples, mode, budget, _SUBJECT)
            if budget.peer is not None:
                peers = _by_round(samples, mode, budget, budget.peer)
                found = {number: found[number] / peers[number] for number in found if number in peers}
            verdicts.append(Verdict(budget, mode, median(found.values()) if found else None))
    return verdicts
