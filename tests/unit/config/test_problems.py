"""How a problem is printed."""

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from relayd.config.problems import EXCERPT_CHARACTERS, Problem, key_text, printable, quote


def lines(line: str, column: int) -> list[str]:
    return str(Problem("f", 1, column, "k", "m", line)).splitlines()


def test_whole() -> None:
    problem = Problem("relay.toml", 7, 5, "a.b", "wrong", "a = 1", "did you mean `c`?")
    assert str(problem) == "relay.toml:7:5: a.b: wrong\n    a = 1\n        ^\n    did you mean `c`?"


def test_without_a_place_or_a_key() -> None:
    assert str(Problem("relay.toml", 0, 0, "", "is a directory")) == "relay.toml: is a directory"
    assert str(Problem("relay.toml", 1, 2, "", "wrong")) == "relay.toml:1:2: wrong"


@pytest.mark.parametrize(
    ("line", "column", "caret"),
    [
        ("a = 1", 1, "^"),
        ("\ta = 1", 2, "\t^"),
        ("日本 = 1", 6, "       ^"),
        ("e\u0301 = 1", 4, "  ^"),
        ("a", 2, " ^"),
    ],
)
def test_caret(line: str, column: int, caret: str) -> None:
    assert lines(line, column)[1:] == ["    " + line, "    " + caret]


def test_caret_of_a_long_line() -> None:
    line = "x" * 5000 + "Y" + "x" * 5000
    _, excerpt, caret = lines(line, 5001)
    assert excerpt[caret.index("^")] == "Y"
    assert len(excerpt) <= EXCERPT_CHARACTERS + 6


def test_nothing_from_a_file_reaches_the_terminal_raw() -> None:
    text = str(Problem("f\x1b", 1, 1, "k\x1b", "m\x1b\ud800", "a\x1b", "s\x1b"))
    assert "\x1b" not in text
    assert text.encode()


def test_key_text() -> None:
    assert key_text(("listeners", "web", "targets", 1)) == "listeners.web.targets[1]"
    assert key_text(("listeners", "a.b", "x")) == 'listeners."a.b".x'
    assert key_text(("", "a")) == '"".a'


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quote_is_toml(text: str) -> None:
    assert tomli.loads(f"a = {quote(text)}") == {"a": text}
    assert "\n" not in quote(text)


@given(st.text())
def test_printable(text: str) -> None:
    assert printable(text).isprintable()
