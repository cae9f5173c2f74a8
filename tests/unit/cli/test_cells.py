"""Text in the cells of a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.cli.cells import cut, cut_end, left, printable, right, width

#: With what is wide, what has no cell of its own, and what is not printable.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ab漢é́\x1b\u202e\udc80")))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("10.0.0.1:80 é", "10.0.0.1:80 é"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r\t\x7f", "a\\nb\\r\\t\\x7f"),
        ("\x9b31m", "\\x9b31m"),  # CSI in one byte
        ("\u202egnp.exe", "\\u202egnp.exe"),  # would turn what follows around
        ("\udc80", "\\udc80"),
    ],
)
def test_what_may_be_said(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.parametrize(("text", "cells"), [("", 0), ("abc", 3), ("漢字", 4), ("e\u0301", 1), ("é…", 2)])
def test_how_many_it_takes(text: str, cells: int) -> None:
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "shown", "end"),
    [
        ("unix:/run/relayd/app.sock", 25, "unix:/run/relayd/app.sock", "unix:/run/relayd/app.sock"),
        ("unix:/run/relayd/app.sock", 12, "unix:/….sock", "unix:/run/r…"),
        ("漢字漢字", 4, "漢…", "漢…"),
        ("ab", 1, "…", "…"),
    ],
)
def test_how_it_is_cut(text: str, cells: int, shown: str, end: str) -> None:
    assert (cut(text, cells), cut_end(text, cells)) == (shown, end)


@given(TEXTS, st.integers(1, 30))
def test_it_fits_whatever_it_is(text: str, cells: int) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert width(cut(shown, cells)) <= cells
    assert width(cut_end(shown, cells)) <= cells
    assert width(left(cut(shown, cells), cells)) == width(right(cut(shown, cells), cells)) == cells
