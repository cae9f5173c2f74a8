"""Sizes, rates and times for people."""

import pytest

from relayd.cli.amounts import count, lasting, per_second, rate, size


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1_572_864, "1.5 MiB"),
        (5 * 1024**5, "5.0 PiB"),
        (5000 * 1024**5, "5000.0 PiB"),
    ],
)
def test_sizes(bytes_: int, shown: str) -> None:
    assert size(bytes_) == shown
    assert rate(float(bytes_)) == f"{shown}/s"


def test_what_is_not_known() -> None:
    assert (rate(None), per_second(None)) == ("-", "-")


@pytest.mark.parametrize(("events", "shown"), [(0, "0"), (0.34, "0.3"), (9.94, "9.9"), (9.95, "10"), (1234.4, "1,234")])
def test_events(events: float, shown: str) -> None:
    assert per_second(events) == shown


def test_counts() -> None:
    assert count(4000) == "4,000"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0s"),
        (0.9, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (192, "3m12s"),
        (3600, "1h00m"),
        (7500, "2h05m"),
        (86_400, "1d00h"),
        (442_800, "5d03h"),
    ],
)
def test_how_long_that_is(seconds: float, shown: str) -> None:
    assert lasting(seconds) == shown
