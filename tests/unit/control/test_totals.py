import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.channel.codec import plain, value_of
from relayd.control.totals import Totals
from relayd.counters import ControlTotals, DatagramCounters, Histogram, ListenerCounters, ListenerTotals, WorkerTotals
from relayd.outcomes import Outcome


def counted(listener: str, accepted: int, active: int, normal: int = 0) -> ListenerTotals:
    counters = ListenerCounters(accepted=accepted, active=active, bytes_in=10 * accepted, bytes_out=100 * accepted)
    if normal:
        counters.closed[Outcome.NORMAL] = normal
    return counters.snapshot(listener)


def test_workers_are_summed_per_listener() -> None:
    totals = Totals()
    totals.report(1, [counted("web", 5, 2, normal=3), counted("pg", 1, 1)])
    totals.report(2, [counted("web", 7, 4, normal=3)])
    assert totals.listeners() == (counted("pg", 1, 1), counted("web", 12, 6, normal=6))
    assert totals.active == 7


def test_a_new_report_replaces_the_old_one_of_the_same_worker() -> None:
    totals = Totals()
    totals.report(1, [counted("web", 5, 2), counted("pg", 1, 1)])
    totals.report(1, [counted("web", 6, 1)])
    assert totals.listeners() == (counted("pg", 1, 1), counted("web", 6, 1))


def test_what_a_dead_worker_counted_stays_and_what_was_active_does_not() -> None:
    totals = Totals()
    totals.report(1, [counted("web", 5, 2, normal=3)])
    totals.ended(1)
    totals.report(1, [counted("web", 1, 1)])
    assert totals.listeners() == (counted("web", 6, 1, normal=3),)
    assert totals.active == 1


def test_a_worker_that_ended_before_its_first_report_changes_nothing() -> None:
    totals = Totals()
    totals.ended(1)
    assert totals.listeners() == ()


def test_a_listener_of_both_types_has_both_counts() -> None:
    totals = Totals()
    sessions = DatagramCounters(accepted=9, active=3, datagrams_in=20, bytes_in=200).snapshot("dns")
    totals.report(1, [counted("dns", 5, 2), sessions])
    totals.report(2, [sessions])
    assert (totals.active, totals.sessions) == (2, 6)
    totals.ended(1)
    assert (totals.active, totals.sessions) == (0, 3)
    assert totals.listeners() == (counted("dns", 5, 0),)
    (sum_of_both,) = totals.datagrams()
    assert (sum_of_both.accepted, sum_of_both.active, sum_of_both.bytes_in) == (18, 3, 400)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["a", "b"]), st.one_of(st.none(), st.integers(0, 50))), max_size=40
    )
)
def test_totals_never_go_backwards(steps: list[tuple[int, str, int | None]]) -> None:
    """Any mix of reports (of counters that grow) and deaths (None)."""
    totals = Totals()
    living: dict[tuple[int, str], int] = {}
    expected: dict[str, int] = {}
    for worker, listener, more in steps:
        if more is None:
            totals.ended(worker)
            living = {key: count for key, count in living.items() if key[0] != worker}
        else:
            living[worker, listener] = living.get((worker, listener), 0) + more
            expected[listener] = expected.get(listener, 0) + more
            totals.report(worker, [counted(listener, living[worker, listener], 0)])
        assert {each.listener: each.accepted for each in totals.listeners()} == expected
        assert all(each == replace(each, bytes_in=10 * each.accepted) for each in totals.listeners())


# Over a restart (R4, R5).


def test_what_was_counted_before_is_added_and_nothing_of_it_is_active() -> None:
    before = Totals()
    sessions = DatagramCounters(accepted=9, active=3, datagrams_in=20).snapshot("dns")
    before.report(1, [counted("web", 5, 2, normal=3), sessions])
    before.report(2, [counted("web", 7, 4), counted("dns", 1, 1)])
    totals = Totals()
    totals.restore(before.sums())
    assert (totals.active, totals.sessions) == (0, 0)
    assert totals.listeners() == (counted("dns", 1, 0), counted("web", 12, 0, normal=3))
    assert totals.datagrams() == (replace(sessions, active=0),)
    totals.report(1, [counted("web", 1, 1, normal=1), sessions])
    assert (totals.active, totals.sessions) == (1, 3)
    assert totals.sums() == (
        counted("dns", 1, 0),
        counted("web", 13, 1, normal=4),
        replace(sessions + sessions, active=3),
    )
    totals.ended(1)  # what was restored is no worker's
    assert totals.listeners() == (counted("dns", 1, 0), counted("web", 13, 0, normal=4))


def test_what_one_worker_has() -> None:
    totals = Totals()
    totals.report(1, [counted("web", 5, 2), counted("pg", 1, 1), DatagramCounters(active=4).snapshot("dns")])
    totals.report(2, [counted("web", 5, 5)])
    assert [totals.active_of(worker) for worker in (1, 2, 3)] == [7, 5, 0]
    totals.ended(1)
    assert totals.active_of(1) == 0


ITSELF = WorkerTotals(Histogram((1, 2), 0.5), 3, 0.25)


def test_what_workers_count_of_themselves_is_kept_by_number() -> None:
    totals = Totals()
    totals.report(2, [], ITSELF)
    totals.report(1, [], ITSELF)
    totals.report(1, [], ITSELF + ITSELF)
    assert list(totals.workers().items()) == [(1, ITSELF + ITSELF), (2, ITSELF)]
    totals.ended(1)
    assert totals.workers()[1] == ITSELF + ITSELF
    totals.report(1, [], ITSELF)
    assert totals.workers()[1] == ITSELF + ITSELF + ITSELF


def left_by(totals: Totals, lines_lost: int = 0) -> object:
    return json.loads(json.dumps(totals.snapshot(lines_lost)))


def test_the_next_life_goes_on_from_it() -> None:
    before = Totals()
    before.report(1, [], ITSELF)
    before.ended(1)
    before.report(1, [], ITSELF)
    before.report(2, [], ITSELF)
    before.control = ControlTotals(1, 2, 3, 4)
    totals = Totals()
    totals.control.reloads_refused += 1  # what was refused at the start
    totals.report(1, [], ITSELF)  # a worker that was quick
    totals.go_on(left_by(before, 10))
    assert totals.workers() == {1: ITSELF + ITSELF + ITSELF, 2: ITSELF}
    assert totals.control == ControlTotals(1, 2, 4, 14)
    assert before.control == ControlTotals(1, 2, 3, 4)


@pytest.mark.parametrize(
    "left",
    [
        None,
        7,
        [],
        {},
        {"control": 7, "workers": 7},
        {"control": {"": "Popen"}, "workers": [[1]]},
        {"control": {"": "ControlTotals", "reloads": "x"}, "workers": [["1", {"": "WorkerTotals"}]]},
        {"control": {"": "Histogram"}, "workers": [[1, {"": "ControlTotals"}]]},
    ],
)
def test_what_is_not_understood_counts_as_nothing(left: object) -> None:
    totals = Totals()
    totals.go_on(left)
    assert totals.workers() == {}
    assert totals.control == ControlTotals()


def test_what_an_earlier_version_has_not_counted_is_nothing() -> None:
    totals = Totals()
    totals.go_on({"control": {"": "ControlTotals", "reloads": 3}, "workers": [[1, {"": "WorkerTotals", "cpu_s": 2}]]})
    assert totals.workers() == {1: WorkerTotals(cpu_s=2)}
    assert totals.control == ControlTotals(reloads=3)


def test_counts_of_listeners_by_an_earlier_version_are_read() -> None:
    left = plain(replace(counted("web", 5, 0, normal=3), connects=Histogram((1,), 1.0)))
    del left["connects"]
    assert value_of(json.loads(json.dumps(left))) == counted("web", 5, 0, normal=3)
