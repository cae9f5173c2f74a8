"""Suspects: for how long, one client at a time, and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.choosing.suspects import FIRST_S, LONGEST_S, Suspects

PATIENCE_S = 5.0


@pytest.fixture
def suspects() -> Suspects:
    return Suspects(PATIENCE_S, silence_is_success=False)


def test_who_fails_is_passed_over_for_a_while(suspects: Suspects) -> None:
    assert suspects.failed("a", 10.0)
    assert suspects.out(10.0) == ["a"]
    assert suspects.soonest == 10.0 + FIRST_S
    assert suspects.out(suspects.soonest) == []
    assert "a" in suspects


def test_those_under_way_do_not_count_again(suspects: Suspects) -> None:
    suspects.failed("a", 10.0)
    for _ in range(100):
        assert not suspects.failed("a", 10.5)
    assert suspects.out(10.0 + FIRST_S) == []


def test_one_client_at_a_time_finds_out(suspects: Suspects) -> None:
    suspects.failed("a", 0.0)
    assert suspects.out(FIRST_S) == []
    suspects.on_trial("a", FIRST_S)
    assert suspects.out(FIRST_S) == ["a"]
    assert suspects.worked("a", FIRST_S)
    assert suspects.out(FIRST_S) == []
    assert not suspects.worked("a", FIRST_S)


def test_each_failed_trial_doubles_the_time_up_to_the_longest(suspects: Suspects) -> None:
    now, times = 0.0, []
    suspects.failed("a", now)
    for _ in range(8):
        times.append(suspects.soonest - now)
        now = suspects.soonest
        assert suspects.out(now) == []
        suspects.on_trial("a", now)
        suspects.failed("a", now)
        assert suspects.out(now) == ["a"]
    assert times == [1, 2, 4, 8, 16, 30, 30, 30]
    assert times[-1] == LONGEST_S
    suspects.worked("a", now)
    suspects.failed("a", now)
    assert suspects.out(now) == ["a"]
    assert suspects.soonest == now + FIRST_S


def test_a_trial_of_which_nothing_is_heard_is_made_again(suspects: Suspects) -> None:
    suspects.failed("a", 0.0)
    suspects.on_trial("a", 1.0)
    assert suspects.out(1.0 + PATIENCE_S - 0.1) == ["a"]
    assert suspects.out(1.0 + PATIENCE_S) == []
    assert "a" in suspects
    suspects.on_trial("a", 7.0)
    assert suspects.out(7.0) == ["a"]


def test_it_is_known_since_when_it_works_again(suspects: Suspects) -> None:
    assert suspects.worked_at("a") == -math.inf
    suspects.failed("a", 5.0, began=0.0)
    suspects.on_trial("a", 6.0)
    assert suspects.worked("a", 6.1)
    assert suspects.worked_at("a") == 6.1
    assert suspects.failed("a", 6.3, began=6.2)
    assert suspects.out(6.3) == ["a"]


def test_a_trial_is_not_over_before_that_very_client_has_met_a_failure(suspects: Suspects) -> None:
    suspects.failed("a", 5.0, began=0.0)
    suspects.on_trial("a", 6.0)
    assert not suspects.failed("a", 6.1, began=1.1)
    assert suspects.out(6.1) == ["a"]
    assert suspects.soonest == 6.0 + PATIENCE_S
    assert suspects.failed("a", 6.2, began=6.0)
    assert suspects.out(6.2) == ["a"]
    assert suspects.soonest == 6.2 + 2 * FIRST_S
    assert not suspects.failed("a", 8.3, began=8.1)  # sent there while it was passed over: all others failed, too


def test_where_nobody_has_to_answer_a_trial_without_a_failure_is_one_that_worked() -> None:
    suspects = Suspects(0.0, silence_is_success=True)
    suspects.failed("a", 0.0)
    suspects.on_trial("a", FIRST_S)
    assert suspects.out(FIRST_S) == ["a"]
    assert suspects.out(2 * FIRST_S) == []
    assert "a" not in suspects


def test_the_longest_suspect_is_the_first(suspects: Suspects) -> None:
    for number, label in enumerate("cab"):
        suspects.failed(label, number / 10)
    assert suspects.out(0.5) == ["c", "a", "b"]
    suspects.keep({"b", "c"})
    assert suspects.out(0.5) == ["c", "b"]


STEPS = st.lists(
    st.tuples(st.sampled_from("fwto"), st.sampled_from("abc"), st.floats(0, 40)),
    max_size=60,
)


@given(STEPS)
def test_nobody_is_out_for_ever_and_the_next_look_is_never_late(steps: list[tuple[str, str, float]]) -> None:
    suspects = Suspects(PATIENCE_S, silence_is_success=False)
    now = 0.0
    out: list[str] = []
    for step, label, later in steps:
        if step == "f":
            suspects.failed(label, now)
        elif step == "w":
            suspects.worked(label, now)
        elif step == "t" and label in suspects and label not in out:
            suspects.on_trial(label, now)
        out = suspects.out(now)
        assert (suspects.soonest == math.inf) == (not out)
        if out:
            assert now < suspects.soonest <= now + LONGEST_S
            before = suspects.out((now + suspects.soonest) / 2)
            assert before == out
        now += later
    for _ in range(4):
        now += LONGEST_S + PATIENCE_S
        assert suspects.out(now) == []
