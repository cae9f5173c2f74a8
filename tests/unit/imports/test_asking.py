"""Values of a health_check."""

import pytest

from relayd.config import probing
from relayd.imports.asking import takes, text_or_hex
from relayd.imports.draft import Value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\r\n\t", "a\r\n\t"),
        ("ä".encode(), "ä"),
        (b"\xff", {"hex": "ff"}),
        (b"a\x00", {"hex": "6100"}),
    ],
)
def test_text_or_hex(data: bytes, expected: Value) -> None:
    assert text_or_hex(data) == expected


def test_what_the_loader_takes() -> None:
    assert takes(probing.expected, {"regex": "^a"})
    assert not takes(probing.expected, {"regex": "("})
    assert not takes(probing.sent, "")
