import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.control.checks.schedule import GRID_S, HURRY_S, JITTER, SLOT_MAX, Schedule, spread
from relayd.control.checks.subject import Key

A, B, C = ("pool", "a"), ("pool", "b"), ("pool", "c")


def schedule(limit: int = 100) -> Schedule:
    return Schedule(limit, random.Random(1))


def test_one_is_asked_when_it_is_due_and_not_twice_at_once() -> None:
    times = schedule()
    times.add(A, 5.0)
    assert times.begin(4.9) == []
    assert times.begin(5.0) == [A]
    assert times.begin(50.0) == []
    assert times.under_way == 1
    assert times.wake_at(50.0) is None


def test_the_next_check_counts_from_the_start_of_the_last() -> None:
    times = schedule()
    times.add(A, 5.0)
    times.begin(5.0)
    times.done(A, 2.0)
    due = times.due(A)
    assert due is not None
    assert 5.0 + 2.0 * (1 - JITTER) <= due <= 5.0 + 2.0 * (1 + JITTER)


def test_one_that_is_there_keeps_its_time() -> None:
    times = schedule()
    times.add(A, 5.0)
    times.add(A, 1.0)
    assert times.due(A) == 5.0


def test_no_more_than_the_limit_and_the_longest_waiting_first() -> None:
    times = schedule(limit=2)
    for key, due in ((A, 3.0), (B, 1.0), (C, 2.0)):
        times.add(key, due)
    assert times.begin(9.0) == [B, C]
    assert times.wake_at(9.0) is None
    times.done(C, 100.0)
    assert times.wake_at(9.0) == 9.0
    assert times.begin(9.0) == [A]


def test_no_more_than_so_many_in_a_slot() -> None:
    times = schedule(limit=1000)
    for number in range(SLOT_MAX + 3):
        times.add(("pool", str(number)), 0.0)
    assert len(times.begin(10.001)) == SLOT_MAX
    assert times.begin(10.002) == []
    wake = times.wake_at(10.002)
    assert wake is not None
    assert wake == pytest.approx(10.0 + GRID_S)
    assert len(times.begin(wake)) == 3


def test_what_costs_more_has_fewer_in_a_slot() -> None:
    times = Schedule(1000, random.Random(1), slot_max=2)
    for number in range(3):
        times.add(("pool", str(number)), 0.0)
    assert len(times.begin(10.001)) == 2
    assert times.wake_at(10.001) == pytest.approx(10.0 + GRID_S)


def test_what_is_due_together_begins_together_at_the_end_of_a_slot() -> None:
    times = schedule()
    times.add(A, 1.0 + GRID_S / 10)
    times.add(B, 1.0 + GRID_S / 2)
    wake = times.wake_at(0.5)
    assert wake is not None
    assert wake == pytest.approx(1.0 + GRID_S)
    assert times.begin(wake) == [A, B]


def test_one_that_is_gone_is_not_asked_and_makes_room() -> None:
    times = schedule(limit=1)
    times.add(A, 0.0)
    times.add(B, 1.0)
    times.begin(2.0)
    times.remove(A)
    assert times.begin(2.0) == [B]
    times.done(A, 1.0)
    times.remove(A)
    assert times.under_way == 1
    assert times.due(A) is None


def test_one_that_left_and_came_back_is_asked_once() -> None:
    times = schedule()
    times.add(A, 1.0)
    times.remove(A)
    times.add(A, 1.0)
    assert times.begin(2.0) == [A]
    assert times.begin(2.0) == []


def test_a_hurry_is_no_oftener_than_so() -> None:
    times = schedule()
    times.add(A, 5.0)
    times.hurry(A, 1.0)
    assert times.begin(1.0) == [A]
    times.hurry(A, 1.05)
    assert times.begin(1.05) == [], "it is asked just now"
    times.done(A, 100.0)
    times.hurry(A, 1.1)
    assert times.due(A) == 1.0 + HURRY_S
    times.hurry(A, 1.15)
    assert times.due(A) == 1.0 + HURRY_S
    times.hurry(B, 1.0)


def test_a_shorter_interval_is_kept_at_once() -> None:
    times = schedule()
    times.add(A, 3600.0)
    times.within(A, 2.0, 10.0)
    due = times.due(A)
    assert due is not None
    assert 10.0 <= due <= 12.0
    times.within(A, 1e6, 10.0)
    assert times.due(A) == due
    times.within(B, 2.0, 10.0)


def test_one_that_was_broken_off_is_due_at_once() -> None:
    times = schedule()
    times.add(A, 1.0)
    times.again(A, 1.0)
    assert times.due(A) == 1.0
    times.begin(1.0)
    assert times.due(A) == 1.0
    times.again(A, 1.5)
    assert times.under_way == 0
    assert times.begin(1.5) == [A]


def test_nothing_to_wait_for() -> None:
    assert schedule().wake_at(1.0) is None


def test_a_pool_is_spread_over_its_interval_and_pools_beside_each_other() -> None:
    assert spread([(4, 2.0)], 10.0) == [[10.0, 10.5, 11.0, 11.5]]
    assert spread([(1, 2.0), (1, 2.0)], 0.0) == [[0.0], [1.0]]
    times = sorted(time for pool in spread([(10, 2.0)] * 100, 0.0) for time in pool)
    steps = [after - before for before, after in itertools.pairwise(times)]
    assert max(steps) == pytest.approx(0.002)
    assert spread([], 0.0) == []


@settings(max_examples=60)
@given(st.data())
def test_no_storm_and_nothing_forgotten(data: st.DataObject) -> None:
    """Whatever is due together and however long checks take: never over the limits, never two of one, all are asked."""
    targets = data.draw(st.integers(1, 200), "targets")
    limit = data.draw(st.integers(1, 100), "limit")
    rng = random.Random(data.draw(st.integers(0, 2**32), "seed"))
    together = data.draw(st.booleans(), "together")
    times = Schedule(limit, rng)
    keys: list[Key] = [("pool", str(number)) for number in range(targets)]
    for key in keys:
        times.add(key, 0.0 if together else rng.uniform(0, 2.0))
    now, under_way, slots = 0.0, dict[Key, float](), dict[int, int]()
    asked = dict.fromkeys(keys, 0)
    for _ in range(3000):
        for key in times.begin(now):
            assert key not in under_way
            under_way[key] = now + rng.choice([0.001, 0.1, 1.0])
            asked[key] += 1
            slot = math.floor(now / GRID_S + 1e-6)
            slots[slot] = slots.get(slot, 0) + 1
        assert len(under_way) == times.under_way <= limit
        ends = min(under_way.values(), default=math.inf)
        wake = times.wake_at(now)
        now = min(ends, math.inf if wake is None else wake)
        assert now < math.inf
        for key in [key for key, end in under_way.items() if end <= now]:
            del under_way[key]
            times.done(key, 2.0)
        if min(asked.values()) >= 2:
            break
    assert min(asked.values()) >= 2
    assert max(slots.values()) <= SLOT_MAX


def test_a_thousand_that_began_together_come_apart() -> None:
    times = Schedule(1000, random.Random(3))
    for number in range(1000):
        times.add(("pool", str(number)), 0.0)
    now, begun = 0.0, list[tuple[float, int]]()
    while now < 60.0:
        keys = times.begin(now)
        begun.append((now, len(keys)))
        for key in keys:
            times.done(key, 2.0)
        wake = times.wake_at(now)
        assert wake is not None
        now = wake
    first = max(sum(count for at, count in begun if start <= at < start + 0.2) for start in (0.0, 0.1))
    late = [sum(count for at, count in begun if 58 + step / 5 <= at < 58 + (step + 1) / 5) for step in range(10)]
    assert first > 400
    assert max(late) < 250


def test_room_that_others_have_left_is_told_of() -> None:
    """Two groups have all but what is kept for a third: what is due waits, and each that ends makes room for one."""
    times = Schedule(18, random.Random(1))
    for pool in ("a", "b"):
        for number in range(20):
            times.add((pool, str(number)), 0.0)
    begun = times.begin(1.0)
    assert len(begun) < 18
    assert times.held_up
    times.done(begun[0], 30.0)
    assert len(times.begin(1.0)) == 1
    for key in begun[1:]:
        times.done(key, 30.0)
    assert times.begin(1.0)


class Machine:
    """Runs a schedule: `silent` targets take a second, and fail; others answer at once. When each was begun."""

    def __init__(self, times: Schedule, interval_s: float = 2.0) -> None:
        self.times, self.interval_s = times, interval_s
        self.silent = set[Key]()
        self.begun: list[tuple[float, Key]] = []
        self.now = 0.0
        self._ends: list[tuple[float, Key]] = []

    def run(self, until: float) -> None:
        while True:
            for key in self.times.begin(self.now):
                self.begun.append((self.now, key))
                self._ends.append((self.now + (1.0 if key in self.silent else 0.001), key))
            wake = self.times.wake_at(self.now)
            ends = min((end for end, _ in self._ends), default=math.inf)
            now = min(ends, math.inf if wake is None else wake)
            if now > until:
                return
            assert now >= self.now
            self.now = now
            for end, key in [each for each in self._ends if each[0] <= self.now]:
                self._ends.remove((end, key))
                self.times.done(key, self.interval_s, failing=key in self.silent)

    def gaps(self, key: Key, since: float = 0.0) -> list[float]:
        times = [at for at, each in self.begun if each == key and at >= since]
        return [after - before for before, after in itertools.pairwise(times)]


def of(pool: str, count: int) -> list[Key]:
    return [(pool, str(number)) for number in range(count)]


@pytest.mark.parametrize(("limit", "slot_max", "silent"), [(512, SLOT_MAX, 4096), (16, 2, 128)])
@pytest.mark.parametrize("known", [True, False])
def test_silent_targets_of_one_pool_do_not_delay_another(limit: int, slot_max: int, silent: int, known: bool) -> None:
    machine = Machine(Schedule(limit, random.Random(1), slot_max))
    for key in of("silent", silent):
        machine.times.add(key, 0.0, failing=known)
        machine.silent.add(key)
    machine.times.add(A, 0.5)
    machine.run(12.0)
    assert max(machine.gaps(A)) < 2.0 * (1 + JITTER) + 0.1
    assert next(at for at, key in machine.begun if key == A) < 0.6
    assert machine.times.under_way >= limit * 3 // 4, "what is not needed is not kept free"


def test_up_targets_are_in_time_whatever_pools_the_silent_ones_are_in() -> None:
    machine = Machine(schedule(limit=64))
    for number in range(300):
        key = (f"silent{number}", "a")
        machine.times.add(key, 0.0, failing=True)
        machine.silent.add(key)
    machine.times.add(A, 0.5)
    machine.run(12.0)
    assert max(machine.gaps(A)) < 2.0 * (1 + JITTER) + 0.1
    waits = [max(machine.gaps(key)) for key in machine.silent if machine.gaps(key)]
    assert max(waits) < 300 / 56 + 1.5, "in turn, and none is forgotten"


def test_two_pools_that_are_silent_get_the_same() -> None:
    machine = Machine(schedule(limit=34))
    for key in [*of("many", 500), *of("few", 60)]:
        machine.times.add(key, 0.0, failing=True)
        machine.silent.add(key)
    machine.run(20.0)
    few = sum(key[0] == "few" for _, key in machine.begun)
    many = len(machine.begun) - few
    assert 0.8 < few / many < 1.2


def test_a_pool_alone_has_all_the_room() -> None:
    machine = Machine(schedule(limit=10))
    for key in of("silent", 100):
        machine.times.add(key, 0.0, failing=True)
        machine.silent.add(key)
    machine.run(0.9)
    assert machine.times.under_way == 10


def test_those_that_fail_are_asked_where_the_others_need_all_slots() -> None:
    machine = Machine(Schedule(100, random.Random(1), slot_max=1))
    for key in of("up", 200):
        machine.times.add(key, 0.0)
    machine.times.add(B, 0.0, failing=True)
    machine.silent.add(B)
    machine.run(20.0)
    assert len(machine.gaps(B)) > 5


def test_how_late_the_last_one_was() -> None:
    times = schedule(limit=1)
    times.add(A, 1.0)
    times.add(B, 1.0)
    assert times.begin(1.5) == [A]
    times.done(A, 2.0)
    assert times.begin(4.0) == [B]
    assert (times.late_s(A), times.late_s(B), times.late_s(C)) == (0.5, 3.0, 0.0)


def test_what_was_due_is_gone_and_the_rest_of_its_pool_waits() -> None:
    times = schedule(limit=1)
    times.add(A, 1.0)
    times.add(C, 1.0)
    times.add(B, 9.0)
    assert times.begin(2.0) == [A]
    times.remove(C)
    times.done(A, 100.0)
    assert times.begin(2.0) == []
    assert times.wake_at(2.0) == pytest.approx(9.0)
    assert times.begin(9.0) == [B]
