"""Who is told of, and when: looks at connections of this test, with its clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.relay.loop import Loop
from relayd.relay.progress import LINES_PER_TURN, LOOKS_PER_TURN, Progress, Watched
from relayd.spec import ListenerLog
from tests.integration.loop_thread import CollectedLog


@dataclass(eq=False)
class Life:
    """What lives since `started_at`, until it is `over`."""

    record: AccessRecord
    started_at: float
    over: bool = False


class Bench:
    """A listener with `live` in it, and the time."""

    def __init__(self, progress_s: float | None, record: AccessRecord) -> None:
        self.collected = CollectedLog()
        self.loop = Loop(lambda: None)
        self.loop.now = self.begun = 1000.0
        self.log = self.collected.of(ListenerLog(progress_s=progress_s))
        self.live: list[Life] = []
        self.progress = Progress(self.loop, self.collected)
        self.record = record

    def add(self, age_s: float = 0.0) -> Life:
        life = Life(self.record, self.loop.now - age_s)
        self.live.append(life)
        return life

    def look(self, after_s: float = 1.0) -> int:
        """The look that comes then, and all its turns: how many there were."""
        self.loop.now += after_s
        self.progress.look([Watched(self.log, Event.CONNECTION_PROGRESS, self.live, self._record)])
        return self.turns()

    def turns(self, most: int = 1000) -> int:
        turns = 0
        while self.loop._again and turns < most:
            turns += 1
            self.loop._step_again()
        return turns

    @staticmethod
    def _record(life: Life) -> AccessRecord | None:
        return None if life.over else life.record

    @property
    def lines(self) -> int:
        return len(self.collected.lives)


@contextmanager
def bench_of(progress_s: float | None, record: AccessRecord) -> Iterator[Bench]:
    bench = Bench(progress_s, record)
    try:
        yield bench
    finally:
        bench.loop.close()


@pytest.mark.parametrize("every_s", [1.0, 2.5, 30.0])
def test_a_line_each_time_that_it_has_lived_so_long(access_record: AccessRecord, every_s: float) -> None:
    with bench_of(every_s, access_record) as bench:
        bench.add()
        for second in range(1, 101):
            bench.look()
            late_s = max(1.0, every_s * 0.01)
            assert (second - late_s) // every_s <= bench.lines <= second // every_s


def test_nobody_is_told_of_without_the_wish_for_it(access_record: AccessRecord) -> None:
    with bench_of(None, access_record) as bench:
        bench.add(age_s=3600)
        assert sum(bench.look(60.0) for _ in range(10)) == 0
        assert bench.lines == 0


def test_looks_are_as_rare_as_a_late_line_allows(access_record: AccessRecord) -> None:
    with bench_of(600.0, access_record) as bench:
        bench.add()
        assert sum(bench.look() > 0 for _ in range(60)) == 10


def test_a_wish_that_comes_late_is_about_the_time_to_come(access_record: AccessRecord) -> None:
    with bench_of(None, access_record) as bench:
        bench.add(age_s=95.0)
        bench.look()
        bench.log.change(ListenerLog(progress_s=10.0))
        for _ in range(3):
            bench.look()
        assert bench.lines == 0
        bench.look()
        assert bench.lines == 1  # at 100 s


def test_a_new_process_goes_on_where_the_one_before_has_ended(access_record: AccessRecord) -> None:
    with bench_of(10.0, access_record) as bench:
        bench.add(age_s=9.5)  # and the process is as old as its first look is late
        bench.look()
        assert bench.lines == 1
        for _ in range(9):
            bench.look()
        assert bench.lines == 1


def test_what_has_ended_between_look_and_line_has_none(access_record: AccessRecord) -> None:
    with bench_of(10.0, access_record) as bench:
        lives = [bench.add(age_s=9.5) for _ in range(3)]
        lives[1].over = True
        bench.look()
        assert bench.lines == 2


def test_many_are_looked_at_and_told_of_in_slices(access_record: AccessRecord) -> None:
    with bench_of(10.0, access_record) as bench:
        for _ in range(10 * LOOKS_PER_TURN):
            bench.add()
        assert 10 <= bench.look() <= 12
        for _ in range(5 * LINES_PER_TURN):
            bench.add(age_s=9.5)
        bench.loop.now += 1.0
        bench.progress.look([Watched(bench.log, Event.CONNECTION_PROGRESS, bench.live, bench._record)])
        most = 0
        while bench.loop._again:
            before = bench.lines
            bench.loop._step_again()
            most = max(most, bench.lines - before)
        assert (bench.lines, most) == (5 * LINES_PER_TURN, LINES_PER_TURN)


def test_a_look_that_takes_long_is_not_overtaken_and_nobody_is_left_out(access_record: AccessRecord) -> None:
    with bench_of(10.0, access_record) as bench:
        for _ in range(3 * LINES_PER_TURN):
            bench.add(age_s=9.5)
        late = bench.add(age_s=8.5)
        watched = [Watched(bench.log, Event.CONNECTION_PROGRESS, bench.live, bench._record)]
        for _ in range(3):  # the first look goes on over the time of two more
            bench.loop.now += 1.0
            bench.progress.look(watched)
            bench.turns(1)
        bench.turns()
        assert bench.lines == 3 * LINES_PER_TURN
        bench.look()
        assert bench.lines == 3 * LINES_PER_TURN + 1
        assert late in bench.live


def test_a_bug_ends_the_look_and_not_the_next_one(access_record: AccessRecord) -> None:
    with bench_of(10.0, access_record) as bench:
        bench.add(age_s=9.5)
        bench.loop.now += 1.0
        broken = Watched(bench.log, Event.CONNECTION_PROGRESS, bench.live, lambda _: 1 / 0)  # type: ignore[arg-type,return-value]
        bench.progress.look([broken])
        bench.turns()
        assert [event for event, *_ in bench.collected.events] == [Event.INTERNAL_ERROR]
        bench.look(10.0)
        assert bench.lines == 1
