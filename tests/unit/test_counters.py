from relayd.counters import DatagramCounters, DatagramTotals, ListenerCounters, ListenerTotals
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
