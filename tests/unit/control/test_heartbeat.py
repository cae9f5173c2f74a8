from relayd.control.heartbeat import REPORT_TICKS, START_TICKS, Heartbeat


def test_a_starting_worker_has_its_own_patience() -> None:
    heartbeat = Heartbeat()
    assert [heartbeat.tick() for _ in range(START_TICKS)] == [False] * (START_TICKS - 1) + [True]


def test_a_silent_worker_hangs_once() -> None:
    heartbeat = Heartbeat()
    heartbeat.heard()
    ticks = [heartbeat.tick() for _ in range(3 * REPORT_TICKS)]
    assert ticks.count(True) == 1
    assert ticks.index(True) == REPORT_TICKS - 1
    assert heartbeat.silent_s == 3 * REPORT_TICKS * 0.5


def test_every_report_begins_the_count_again() -> None:
    heartbeat = Heartbeat()
    for _ in range(10):
        heartbeat.heard()
        assert not any(heartbeat.tick() for _ in range(REPORT_TICKS - 1))
