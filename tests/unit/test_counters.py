from relayd.counters import ListenerCounters, ListenerTotals
from relayd.outcomes import Outcome


def test_a_snapshot_does_not_follow() -> None:
    counters = ListenerCounters(accepted=3, active=1, bytes_in=10, bytes_out=20, dial_failures=2, accept_pauses=4)
    counters.closed[Outcome.NORMAL] = 2
    taken = counters.snapshot("web")
    counters.accepted += 1
    counters.closed[Outcome.NORMAL] += 1
    assert taken == ListenerTotals("web", 3, 1, 10, 20, 2, 4, ((Outcome.NORMAL, 2),))
    assert counters.snapshot("web") != taken
