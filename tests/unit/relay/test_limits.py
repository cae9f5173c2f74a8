from relayd.relay.limits import LOG_INTERVAL_S, Admission


def test_full_at_the_limit_and_not_before() -> None:
    admission = Admission(2)
    full = []
    for _ in range(3):
        full.append(admission.full)
        admission.active += 1
    assert full == [False, False, True]
    admission.active = 1
    assert not admission.full


def test_a_limit_of_nothing_is_always_full() -> None:
    assert Admission(0).full


def test_one_line_in_an_interval() -> None:
    admission = Admission(1)
    times = [0.0, 0.1, LOG_INTERVAL_S - 0.1, LOG_INTERVAL_S, LOG_INTERVAL_S + 0.1, 2 * LOG_INTERVAL_S]
    assert [admission.log_pause(now) for now in times] == [True, False, False, True, False, True]
