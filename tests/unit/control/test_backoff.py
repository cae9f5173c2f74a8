from relayd.control.backoff import Backoff


def ends(count: int, lived_s: float = 0.05) -> list[float]:
    """The delays after `count` ends of workers that each lived `lived_s`."""
    backoff, delays = Backoff(), []
    for _ in range(count):
        backoff = backoff.after_end(started=100.0, now=100.0 + lived_s)
        delays.append(backoff.delay_s)
    return delays


def test_first_replacement_is_immediate_and_a_loop_slows_down() -> None:
    assert ends(6) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]


def test_the_delay_is_capped_for_ever() -> None:
    assert ends(3000)[-1] == 5.0


def test_a_worker_that_lived_a_while_starts_the_count_again() -> None:
    backoff = Backoff(ends=7).after_end(started=100.0, now=102.0)
    assert (backoff.ends, backoff.delay_s) == (1, 0.0)
