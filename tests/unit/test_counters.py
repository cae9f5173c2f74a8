import pytest

from relayd.counters import (
    CONNECT_BOUNDS_S,
    ControlTotals,
    DatagramCounters,
    DatagramTotals,
    Durations,
    Histogram,
    ListenerCounters,
    ListenerTotals,
    WorkerTotals,
)
from relayd.outcomes import Drop, Outcome


def test_a_snapshot_does_not_follow() -> None:
    counters = ListenerCounters(accepted=3, active=1, bytes_in=10, bytes_out=20, dial_failures=2, accept_pauses=4)
    counters.closed[Outcome.NORMAL] = 2
    taken = counters.snapshot("web")
    counters.accepted += 1
    counters.closed[Outcome.NORMAL] += 1
    assert taken == ListenerTotals("web", 3, 1, 10, 20, 2, 4, ((Outcome.NORMAL, 2),))
    assert counters.snapshot("web") != taken


def test_a_snapshot_of_datagrams_does_not_follow_either() -> None:
    counters = DatagramCounters(3, 1, 10, 20, 1000, 2000, 2)
    counters.closed[Outcome.EVICTED] = 2
    counters.dropped[Drop.TOO_LARGE] = 1
    taken = counters.snapshot("dns")
    counters.datagrams_in += 1
    counters.dropped[Drop.TOO_LARGE] += 1
    assert taken == DatagramTotals("dns", 3, 1, 10, 20, 1000, 2000, 2, ((Outcome.EVICTED, 2),), ((Drop.TOO_LARGE, 1),))


def test_datagrams_of_two_workers_add_up_and_nothing_is_active_in_one_that_is_gone() -> None:
    one = DatagramTotals("dns", 3, 1, 10, 20, 1000, 2000, 2, ((Outcome.EVICTED, 2),), ((Drop.TOO_LARGE, 1),))
    two = DatagramTotals("dns", 1, 1, 1, 2, 3, 4, 5, ((Outcome.SHUTDOWN, 1),), ((Drop.TOO_LARGE, 1),))
    assert one.ended() + two == DatagramTotals(
        "dns",
        4,
        1,
        11,
        22,
        1003,
        2004,
        7,
        ((Outcome.EVICTED, 2), (Outcome.SHUTDOWN, 1)),
        ((Drop.TOO_LARGE, 2),),
    )


# durations


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.5, 0), (0.500001, 1), (1.0, 1), (2.0, 2), (2.1, 3), (1e9, 3), (-0.1, 0)]
)
def test_the_bound_of_a_bucket_is_in_it(seconds: float, bucket: int) -> None:
    durations = Durations((0.5, 1.0, 2.0))
    durations.add(seconds)
    counts = [0, 0, 0, 0]
    counts[bucket] = 1
    assert durations.snapshot() == Histogram(tuple(counts), seconds)


def test_histograms_add_up_by_bucket() -> None:
    assert Histogram((1, 2), 3.0) + Histogram((10, 20), 30.0) == Histogram((11, 22), 33.0)
    assert Histogram() + Histogram((1, 2), 3.0) == Histogram((1, 2), 3.0) == Histogram((1, 2), 3.0) + Histogram()


def test_a_histogram_of_another_version_gives_way_to_ours() -> None:
    assert Histogram((1,), 1.0) + Histogram((1, 2), 3.0) == Histogram((1, 2), 3.0)


def test_connects_are_in_the_snapshot_and_in_the_sum() -> None:
    counters = ListenerCounters()
    assert counters.snapshot("web").connects == Histogram()
    counters.connects.add(0.002)
    one = counters.snapshot("web")
    counters.connects.add(0.002)
    counts = [0] * (len(CONNECT_BOUNDS_S) + 1)
    counts[2] = 3
    assert (one + counters.snapshot("web")).connects == Histogram(tuple(counts), 0.006)


def test_what_workers_and_control_count_of_themselves_adds_up() -> None:
    one = WorkerTotals(Histogram((1, 2), 0.5), 3, 0.25)
    assert one + one == WorkerTotals(Histogram((2, 4), 1.0), 6, 0.5)
    assert ControlTotals(1, 2, 3, 4) + ControlTotals(10, 20, 30, 40) == ControlTotals(11, 22, 33, 44)
