"""Durations: what is one, what is not, and there and back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.config.units import DURATION_MAX_MS, DURATION_PATTERN, DurationError, format_duration, parse_duration_ms


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("5m", 300_000),
        ("1h", 3_600_000),
        ("1d", 86_400_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("1m500ms", 60_500),
        ("0s", 0),
        ("90s", 90_000),
    ],
)
def test_duration(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("30", "30s"),
        ("30 s", "30s"),
        ("30sec", "30s"),
        ("5 minutes", "5m"),
        ("5M", "5m"),
        ("1.5s", ""),
        ("", ""),
        ("s", ""),
        ("-5s", ""),
        ("5s1m", ""),
        ("5s\n", "5s"),
        ("1234567890s", ""),
        ("٣s", ""),
    ],
)
def test_no_duration(text: str, suggestion: str) -> None:
    with pytest.raises(DurationError, match="is not a duration") as caught:
        parse_duration_ms(text)
    assert caught.value.suggestion == suggestion


def test_too_long() -> None:
    assert parse_duration_ms("366d") == DURATION_MAX_MS
    with pytest.raises(DurationError, match="longer than 366d"):
        parse_duration_ms("367d")


@given(st.integers(0, DURATION_MAX_MS))
def test_there_and_back(milliseconds: int) -> None:
    text = format_duration(milliseconds)
    assert parse_duration_ms(text) == milliseconds
    assert re.search(DURATION_PATTERN, text)


@given(st.from_regex(r"[0-9dhms]{0,12}", fullmatch=True))
def test_pattern_of_the_schema_is_the_parser(text: str) -> None:
    try:
        parse_duration_ms(text)
        accepted = True
    except DurationError as error:
        accepted = "longer" in str(error)
    assert accepted == bool(re.search(DURATION_PATTERN, text))
