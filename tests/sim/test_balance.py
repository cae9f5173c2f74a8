"""Balancers against naive models, in seeded simulations: the same picks, step by step, in several workers.

A failing seed is named by its test, and replays alone:  RELAYD_SEED=17 pytest tests/sim/test_balance.py
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fractions import Fraction

import pytest

from relayd.choosing.balance import Balancer, balancer
from relayd.spec import Balance

SEEDS = 256
STEPS = 1000
#: Seeds that one test runs: a few tests, each with a name, rather than one for all.
SEEDS_PER_TEST = 32
KEY = bytes([192, 0, 2, 1])


@dataclass(frozen=True, slots=True)
class Node:
    """A member that has nothing else."""

    label: str
    weight: int

    @property
    def origin(self) -> str:
        """Itself."""
        return self.label


class LeastLoaded:
    """The rule of LEAST_CONNECTIONS by looking at everyone: a queue of members, and counts."""

    def __init__(self) -> None:
        self.queue: list[Node] = []
        self.active: Counter[str] = Counter()

    def change(self, members: list[Node]) -> None:
        self.queue = members

    def pick(self, excluded: Collection[str]) -> Node | None:
        """The least loaded; of those that are equally loaded the first in the queue, to whose end it goes."""
        free = [member for member in self.queue if member.label not in excluded]
        if not free:
            return None
        picked = min(free, key=lambda member: Fraction(self.active[member.label] + 1, member.weight))
        self.queue = [*(member for member in self.queue if member is not picked), picked]
        return picked


class EarliestDue:
    """The rule of ROUND_ROBIN by looking at everyone, from the first change on: when each is due, in fractions."""

    def __init__(self, members: list[Node]) -> None:
        self.members = members
        self.due: dict[str, Fraction] = {}
        for weight in {member.weight for member in members}:
            same = [member for member in members if member.weight == weight]
            for place, member in enumerate(same):
                self.due[member.label] = Fraction(2 * place + 1, 2 * weight * len(same))

    def pick(self, excluded: Collection[str]) -> Node | None:
        """The first that is due, of those of one time the first given. Others are due one turn before that at most."""
        free = [member for member in self.members if member.label not in excluded]
        if not free:
            return None
        picked = min(free, key=lambda member: self.due[member.label])
        at = self.due[picked.label]
        for member in self.members:
            if member.label in excluded:
                self.due[member.label] = max(self.due[member.label], at - Fraction(1, member.weight))
        self.due[picked.label] += Fraction(1, picked.weight)
        return picked


class Worker:
    """One balancer of least connections, and its model."""

    def __init__(self, rng: random.Random) -> None:
        self.balancer: Balancer[Node] = balancer(Balance.LEAST_CONNECTIONS, rng)
        self.model = LeastLoaded()
        self.live: list[str] = []


class Simulation:
    """One seed: workers that have the same members, each with its own connections."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.labels = [f"192.0.2.{number}:80" for number in range(self.random.choice([1, 2, 5, 9]))]
        self.weights = self.random.choice([[1], [1, 2, 3], [1, 7, 255, 256]])
        self.workers = [Worker(self.random) for _ in range(self.random.choice([1, 3]))]
        self.moves: list[tuple[int, Callable[[Worker], None]]] = [
            (50, self.client_comes),
            (8, self.client_tries_another),
            (self.random.choice([30, 55]), self.connection_ends),
            (3, self.adopted),
            (1, self.all_end),
            (3, self.order_is_given_again),
        ]

    def run(self) -> None:
        self.members_change()
        weights = [weight for weight, _ in self.moves]
        for move in self.random.choices([move for _, move in self.moves], weights, k=STEPS):
            if self.random.random() < 0.02:
                self.members_change()
            worker = self.random.choice(self.workers)
            move(worker)
            assert worker.balancer.order() == worker.model.queue
        for worker in self.workers:
            assert {label: worker.balancer.active(label) for label in worker.live} == Counter(worker.live)

    # moves

    def picked(self, worker: Worker, excluded: Collection[str] = ()) -> Node | None:
        member = worker.balancer.pick(KEY, excluded)
        assert member is worker.model.pick(excluded)
        return member

    def begin(self, worker: Worker, label: str) -> None:
        worker.balancer.begun(label)
        worker.model.active[label] += 1
        worker.live.append(label)

    def end(self, worker: Worker, label: str) -> None:
        worker.live.remove(label)
        worker.balancer.ended(label)
        worker.model.active[label] -= 1

    def client_comes(self, worker: Worker) -> None:
        member = self.picked(worker)
        if member is not None and self.random.random() < 0.9:
            self.begin(worker, member.label)

    def client_tries_another(self, worker: Worker) -> None:
        tried: list[str] = []
        while (member := self.picked(worker, tried)) is not None and self.random.random() < 0.8:
            tried.append(member.label)
        if member is not None:
            self.begin(worker, member.label)

    def connection_ends(self, worker: Worker) -> None:
        if worker.live:
            self.end(worker, self.random.choice(worker.live))

    def all_end(self, worker: Worker) -> None:
        for label in self.random.sample(worker.live, k=len(worker.live)):
            self.end(worker, label)

    def adopted(self, worker: Worker) -> None:
        """From another worker: of any label, whether it is a member or not."""
        for label in self.random.choices(self.labels, k=self.random.randrange(1, 20)):
            self.begin(worker, label)

    def order_is_given_again(self, worker: Worker) -> None:
        worker.balancer.change(worker.balancer.order())

    def members_change(self) -> None:
        """Some go, some come, in places of those that go or at the end, some have another weight."""
        there = [label for label in self.labels if self.random.random() < 0.7]
        weights = {label: self.random.choice(self.weights) for label in there}
        for worker in self.workers:
            queue = worker.balancer.order()
            new = iter([label for label in there if label not in {member.label for member in queue}])
            places = [member.label if member.label in weights else next(new, None) for member in queue]
            members = [Node(label, weights[label]) for label in [*places, *new] if label is not None]
            worker.balancer.change(members)
            worker.model.change(members)


def seeds_of(first: int) -> list[int]:
    chosen = os.environ.get("RELAYD_SEED")
    return [int(chosen)] if chosen else list(range(first, first + SEEDS_PER_TEST))


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_least_connections_are_those_of_the_model(first: int) -> None:
    for seed in seeds_of(first):
        try:
            Simulation(seed).run()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_turns_are_those_of_the_model(first: int) -> None:
    for seed in seeds_of(first):
        rng = random.Random(seed)
        heaviest = rng.choice([1, 3, 256])
        members = [Node(str(number), rng.randint(1, heaviest)) for number in range(rng.randint(1, 9))]
        chooser: Balancer[Node] = balancer(Balance.ROUND_ROBIN, rng)
        chooser.change(members)
        model = EarliestDue(members)
        mixed = len({member.weight for member in members}) > 1
        for _ in range(STEPS // 4):
            # With equal weights there is a queue, and not what is due: that is in the unit tests.
            known = [member.label for member in members] if mixed else []
            excluded = rng.sample(known, k=rng.randint(0, len(known))) if rng.random() < 0.3 else []
            assert chooser.pick(KEY, excluded) is model.pick(excluded), f"seed {seed}"
