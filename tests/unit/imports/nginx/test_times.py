"""Times of nginx."""

import pytest

from relayd.imports.nginx.times import milliseconds, seconds_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30_000),
        ("30s", 30_000),
        ("500ms", 500),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("1d", 86_400_000),
        ("1w", 604_800_000),
        ("1M", 2_592_000_000),
        ("5y", 366 * 86_400_000),
        ("0", 0),
        ("", None),
        (" ", None),
        ("x", None),
        ("5x", None),
        ("-5", None),
        ("$t", None),
    ],
)
def test_milliseconds(text: str, expected: int | None) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("30m", "30m"), ("90", "1m30s"), ("500ms", None), ("0", None), ("x", None)]
)
def test_whole_seconds(text: str, expected: str | None) -> None:
    assert seconds_text(text) == expected
