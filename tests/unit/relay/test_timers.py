import math

from hypothesis import given
from hypothesis import strategies as st

from relayd.relay.timers import Timers

#: S7: a deadline is kept within this, at the granularity of the module.
FINE_S, COARSE_S = 0.01, 0.25
#: Deadlines are floats.
EPSILON_S = 1e-6


class Item:
    """Somebody who waits."""


#: ("add", seconds from now) | ("cancel", which of those added) | ("pass", seconds)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.floats(0, 3)),
    ),
    max_size=60,
)


def latest(at: float, now: float) -> float:
    return at + (COARSE_S if at - now >= 1.0 else FINE_S) + EPSILON_S


@given(STEPS, st.floats(0, 1e6))
def test_against_a_list(steps: list[tuple[str, float]], start: float) -> None:
    now = start
    timers: Timers[Item] = Timers()
    slots: list[tuple[Item, set[Item]]] = []
    #: The model: item -> earliest and latest time to come out.
    waiting: dict[Item, tuple[float, float]] = {}
    for step, value in steps:
        if step == "add":
            item = Item()
            slots.append((item, timers.add(item, now + value, now)))
            waiting[item] = (now + value, latest(now + value, now))
        elif step == "cancel" and slots:
            item, slot = slots[int(value) % len(slots)]
            slot.discard(item)
            waiting.pop(item, None)
        elif step == "pass":
            now += value
            out = list(timers.expired(now))
            assert len(out) == len(set(out))
            for item in out:
                earliest, _ = waiting.pop(item)
                assert earliest - EPSILON_S <= now
            assert all(now < at_most for _, at_most in waiting.values())
        wait = timers.wait(now)
        if waiting:
            assert wait is not None
            assert now + wait <= min(at_most for _, at_most in waiting.values())
        else:
            assert wait is None


def test_an_item_comes_out_once_and_not_early() -> None:
    timers: Timers[Item] = Timers()
    item = Item()
    timers.add(item, 10.005, 10.0)
    assert list(timers.expired(10.0049)) == []
    assert list(timers.expired(10.0151)) == [item]
    assert list(timers.expired(1e9)) == []
    assert timers.wait(0) is None


def test_items_may_be_added_and_cancelled_while_others_come_out() -> None:
    timers: Timers[Item] = Timers()
    first, second, third = Item(), Item(), Item()
    slots = {item: timers.add(item, 1.0, 0.0) for item in (first, second)}
    seen = []
    for item in timers.expired(2.0):
        seen.append(item)
        other = second if item is first else first
        slots[other].discard(other)
        timers.add(third, 2.5, 2.0)
    assert len(seen) == 1
    assert list(timers.expired(2.52)) == [third]


def test_who_is_due_again_at_once_comes_out_again() -> None:
    timers: Timers[Item] = Timers()
    item = Item()
    timers.add(item, 1.0, 0.0)
    expired = timers.expired(2.0)
    assert next(expired) is item
    timers.add(item, 1.5, 1.0)
    assert next(expired) is item
    assert next(expired, None) is None


def test_cancelled_items_wake_nobody() -> None:
    timers: Timers[Item] = Timers()
    item = Item()
    timers.add(item, 1.0, 0.0).discard(item)
    later = Item()
    timers.add(later, 100.0, 0.0)
    wait = timers.wait(0.0)
    assert wait is not None
    assert math.isclose(wait, 100.0, abs_tol=COARSE_S)
    assert list(timers.expired(50.0)) == []


def test_the_wait_is_never_negative() -> None:
    timers: Timers[Item] = Timers()
    timers.add(Item(), 1.0, 0.0)
    assert timers.wait(5.0) == 0.0


def test_slots_that_everyone_has_left_do_not_stay_until_their_time() -> None:
    """A reload that changes idle_timeout sets one anew for every connection, an hour ahead."""
    timers: Timers[Item] = Timers()
    items = [Item() for _ in range(10)]
    kept, soon = Item(), Item()
    timers.add(kept, 5.0, 0.0)
    for number in range(1000):
        slots = [timers.add(item, 3600.0 + number, float(number)) for item in items]
        if number < 999:
            for item, slot in zip(items, slots, strict=True):
                slot.discard(item)
        assert len(timers._slots) == len(timers._heap) <= 16
    timers.add(soon, 999.5, 999.0)
    assert list(timers.expired(1000.0)) == [kept, soon]
    assert set(timers.expired(10_000.0)) == set(items)
    assert timers.wait(10_000.0) is None
