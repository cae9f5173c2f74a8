"""The session table against a naive model, in seeded simulations: the same answers, step by step.

A failing seed is named by its test, and replays alone:  RELAYD_SEED=17 pytest tests/sim/test_sessions.py
"""

import itertools
import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from relayd.relay.datagram.sessions import STEP_S, Entry, Sessions

SEEDS = 256
STEPS = 3000
#: Seeds that one test runs: a few tests, each with a name, rather than one for all.
SEEDS_PER_TEST = 32


class Session(Entry):
    """A session that has nothing but a number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


@dataclass
class Shadow:
    """What the model knows of a session: when it was really used last."""

    number: int
    socket: int
    client: bytes
    used_at: float


class Model:
    """The rules D1 and D3, by searching a list. Where the table may be late, or choose, it says within what."""

    def __init__(self, timeout_s: float, limit: int) -> None:
        self.timeout_s, self.limit = timeout_s, limit
        self.sessions: list[Shadow] = []

    def find(self, socket: int, client: bytes) -> Shadow | None:
        found = [each for each in self.sessions if (each.socket, each.client) == (socket, client)]
        assert len(found) < 2
        return found[0] if found else None

    def end(self, number: int) -> Shadow:
        """Forget that session, which has to be there."""
        found = [each for each in self.sessions if each.number == number]
        assert len(found) == 1
        self.sessions.remove(found[0])
        return found[0]

    def evict(self, number: int) -> None:
        """It was the one unused for longest, or used within STEP_S of that one."""
        evicted = self.end(number)
        assert evicted.used_at <= min([each.used_at for each in self.sessions], default=math.inf) + STEP_S

    def expire(self, numbers: list[int], now: float) -> None:
        """All of them are over, and nobody is left who has been for more than STEP_S."""
        for number in numbers:
            assert self.end(number).used_at + self.timeout_s <= now
        assert all(now < each.used_at + self.timeout_s + STEP_S for each in self.sessions)


class Simulation:
    """One seed: a table and a model that are told the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        timeout_s = self.random.choice([0.25, 1.0, 60.0])
        limit = self.random.choice([1, 2, 7, 20])
        self.table: Sessions[Session] = Sessions(timeout_s, limit)
        self.model = Model(timeout_s, limit)
        self.homes: list[dict[bytes, Session]] = [{} for _ in range(self.random.choice([1, 3]))]
        self.clients = [bytes([number]) for number in range(self.random.choice([1, limit, 3 * limit]))]
        # Times are multiples of half a step, so that sums are exact, and ties and exact expiries come about.
        self.now = 0.0
        self.began = 0
        self.ended: dict[str, int] = {"evicted": 0, "expired": 0, "ended": 0}
        self.moves: list[tuple[int, Callable[[], None]]] = [
            (60, self.datagram_in),
            (30, self.datagram_out),
            (20, self.time_passes),
            (5, self.session_ends),
            (1, self.long_silence),
            (1, self.timeout_changes),
        ]

    def run(self) -> None:
        weights = [weight for weight, _ in self.moves]
        for move in self.random.choices([move for _, move in self.moves], weights, k=STEPS):
            move()
            self.compare()

    # moves

    def datagram_in(self) -> None:
        at = self.random.randrange(len(self.homes))
        client = self.random.choice(self.clients)
        session, shadow = self.homes[at].get(client), self.model.find(at, client)
        assert (session and session.number) == (shadow and shadow.number)
        if session is not None and shadow is not None:
            self.use(session, shadow)
            return
        assert self.table.full == (len(self.model.sessions) >= self.model.limit)
        if self.table.full:
            evicted = self.table.evict()
            assert evicted is not None
            self.model.evict(evicted.number)
            self.ended["evicted"] += 1
        self.began += 1
        self.table.add(Session(self.began), self.homes[at], client, self.now)
        self.model.sessions.append(Shadow(self.began, at, client, self.now))

    def datagram_out(self) -> None:
        picked = self.pick()
        if picked is not None:
            self.use(*picked)

    def session_ends(self) -> None:
        """It has had its last response, say. Ending twice is ending once."""
        picked = self.pick()
        if picked is not None:
            for _ in range(self.random.choice([1, 2])):
                self.table.remove(picked[0])
            self.model.end(picked[1].number)
            self.ended["ended"] += 1

    def time_passes(self) -> None:
        self.now += self.random.choice([0, 1, 2, 3, 32, 128]) * STEP_S / 2
        self.expire()

    def long_silence(self) -> None:
        self.now += self.table.timeout_s * self.random.choice([0.5, 1, 2])
        self.expire()

    def timeout_changes(self) -> None:
        """As a drain does."""
        self.table.timeout_s = self.model.timeout_s = self.random.choice([0.25, 1.0, 60.0])
        self.expire()

    # between moves

    def pick(self) -> tuple[Session, Shadow] | None:
        if not self.model.sessions:
            return None
        shadow = self.random.choice(self.model.sessions)
        return self.homes[shadow.socket][shadow.client], shadow

    def use(self, session: Session, shadow: Shadow) -> None:
        """As the relay does."""
        shadow.used_at = self.now
        if self.now >= session.noted_until:
            self.table.used(session, self.now)

    def expire(self) -> None:
        over = [session.number for session in self.table.expired(self.now)]
        self.model.expire(over, self.now)
        self.ended["expired"] += len(over)

    def compare(self) -> None:
        model = self.model.sessions
        assert len(self.table) == len(model) <= self.table.limit
        assert sum(map(len, self.homes)) == len(model)
        earliest = min((each.used_at for each in model), default=math.inf) + self.model.timeout_s
        next_expiry = self.table.next_expiry
        assert (next_expiry is None) == (not model)
        assert next_expiry is None or earliest <= next_expiry <= earliest + STEP_S
        if self.random.random() < 0.02:
            in_order = [self.model.find(self.homes.index(each.home), each.key) for each in self.table]
            times = [shadow.used_at for shadow in in_order if shadow is not None]
            assert len(times) == len(model)
            assert all(later >= earlier - STEP_S for earlier, later in itertools.pairwise(times))
            assert self.began == len(model) + sum(self.ended.values())


REPLAYED = os.environ.get("RELAYD_SEED")
RANGES = [range(first, first + SEEDS_PER_TEST) for first in range(0, SEEDS, SEEDS_PER_TEST)]


@pytest.mark.parametrize("seeds", [range(int(REPLAYED), int(REPLAYED) + 1)] if REPLAYED else RANGES, ids=str)
def test_the_table_does_what_the_naive_model_does(seeds: range) -> None:
    # D1, D3
    totals = {"evicted": 0, "expired": 0, "ended": 0}
    for seed in seeds:
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Exception as error:
            raise AssertionError(f"seed {seed}: replay it with RELAYD_SEED={seed}") from error
        for kind, count in simulation.ended.items():
            totals[kind] += count
    assert REPLAYED or all(totals.values()), totals  # every way to end was met
