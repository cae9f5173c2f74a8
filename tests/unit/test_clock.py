import re
import time

from relayd import clock


def test_the_clocks_are_what_they_say() -> None:
    assert abs(time.time() - clock.wall()) < 5
    assert abs(time.monotonic() - clock.monotonic()) < 5


def test_a_pause_pauses() -> None:
    before = clock.monotonic()
    clock.pause(0.02)
    assert clock.monotonic() - before >= 0.02


def test_a_second_as_people_read_it() -> None:
    assert clock.utc(0) == "1970-01-01T00:00:00"
    assert clock.utc(1795348862) == "2026-11-22T12:01:02"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", clock.utc(int(clock.wall())))
