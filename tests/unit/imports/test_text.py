"""Text on its way into messages and values."""

import pytest

from relayd.imports.text import SHOWN_CHARACTERS, host_and_port, lines, number, shown


def test_lines_are_those_of_an_editor() -> None:
    assert lines("a\r\nb\x0cc\u2028d\n") == ["a", "b\x0cc\u2028d", ""]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\n c ", "a b c"),
        ("a\x1b[31m", "a\\x1b[31m"),
        ("a\udcff", "a\\udcff"),
        ("x" * 500, "x" * SHOWN_CHARACTERS + "…"),
        ("", ""),
    ],
)
def test_shown(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("10.0.0.1", "80", "10.0.0.1:80"),
        ("a", "", "a"),
        ("::1", "80", "[::1]:80"),
        ("[::1]", "80", "[::1]:80"),
        ("::1", "", "[::1]"),
        ("a", "+5", "a:+5"),
    ],
)
def test_host_and_port(host: str, port: str, expected: str) -> None:
    assert host_and_port(host, port) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5), ("0", None), ("11", None), ("x", None), ("", None), ("٥", None), ("9" * 5000, None)],
)
def test_number(text: str, expected: int | None) -> None:
    assert number(text, 1, 10) == expected
