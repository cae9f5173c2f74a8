import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.control.recent import HISTORY_STEPS, STEP_S, Recent

WEB, DNS = ("stream", "web"), ("dgram", "dns")


def test_a_rate_is_that_of_the_steps_that_are_over() -> None:
    recent = Recent(100.0)
    recent.add(WEB, (4, 100, 10), 100.0, 100.5)
    assert recent.rate(WEB, 100.9) == (4.0, 100.0, 10.0), "nothing is over yet: that of the second that there is"
    assert recent.rate(WEB, 101.25) == (3.2, 80.0, 8.0)
    recent.add(WEB, (2, 0, 0), 102.0, 102.0)
    assert recent.rate(WEB, 103.9) == (2.0, 50.0, 5.0)
    assert recent.rate(WEB, 104.0) == (1.5, 25.0, 2.5)
    assert recent.rate(DNS, 104.0) == (0.0, 0.0, 0.0)


def test_a_rate_begins_when_the_process_does() -> None:
    """In the midst of a step: what that has less is not counted as nothing."""
    recent = Recent(101.5)
    for number in range(8):
        recent.add(WEB, (100, 0, 0), 101.5 + number, 102.5 + number)
    for now in (104.0, 106.0, 108.0):
        assert recent.rate(WEB, now)[0] == pytest.approx(100), now


def test_what_was_long_ago_is_in_the_history_and_in_no_rate() -> None:
    recent = Recent(0.0)
    recent.add(WEB, (2, 4, 8), 0.0, 1.0)
    assert recent.rate(WEB, 8.0) == (0.0, 0.0, 0.0)
    assert recent.history(WEB, 8.0) == [(1.0, 2.0, 4.0), *[(0.0, 0.0, 0.0)] * 3]
    assert (1.0, 2.0, 4.0) not in recent.history(WEB, 2.0 + HISTORY_STEPS * STEP_S)


def test_a_night_without_anything_is_a_history_without_anything() -> None:
    recent = Recent(0.0)
    recent.add(WEB, (1, 1, 1), 0.0, 0.0)
    assert recent.history(WEB, 1e6) == [(0.0, 0.0, 0.0)] * HISTORY_STEPS


def test_what_was_reported_late_is_of_the_steps_that_it_was_in() -> None:
    recent = Recent(0.0)
    recent.add(WEB, (8, 0, 0), 1.0, 3.0)
    recent.add(WEB, (4, 0, 0), 3.0, 5.0)
    recent.add(WEB, (6, 0, 0), 1.0, 7.0)  # five of six seconds before this step, and no further back than one
    assert [rate for rate, _, _ in recent.history(WEB, 8.0)] == pytest.approx([2.0, 3.0, 3.5, 0.5])


@given(st.floats(0.5, 1.9), st.integers(5, 40))
def test_a_steady_rate_is_a_flat_line(period: float, reports: int) -> None:
    recent = Recent(0.0)
    for number in range(reports):
        recent.add(WEB, (100 * period, 0, 0), number * period, (number + 1) * period)
    steps = recent.history(WEB, reports * period)
    assert all(rate == pytest.approx(100) for rate, _, _ in steps[1:-1])


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 1000)), max_size=50))
def test_nothing_is_lost_and_nothing_is_counted_twice(steps: list[tuple[float, int]]) -> None:
    recent, now, total = Recent(0.0), 0.0, 0
    for passed, count in steps:
        since, now = now, min(now + passed, HISTORY_STEPS * STEP_S - STEP_S)
        total += count
        recent.add(WEB, (count, 0, 0), since, now)
    counted = sum(step[0] for step in recent.history(WEB, HISTORY_STEPS * STEP_S)) * STEP_S
    assert counted == pytest.approx(total)
