"""Aligned tables, as wide as they may be."""

import pytest

from relayd.cli.cells import width
from relayd.cli.tables import Column, lines

COLUMNS = (
    Column("id"),
    Column("client", wanted=12),
    Column("type", 3),
    Column("out", 1, numeric=True),
    Column("in", 2, numeric=True),
)
ROWS = [("1", "10.0.0.1:4711", "tcp", "1.0 KiB", "5 B"), ("22", "unix:/run/" + "x" * 40, "unix", "2 B", "6 B")]


def test_as_wide_as_it_comes() -> None:
    assert lines(COLUMNS, ROWS, None) == [
        "id  client                                              type      out   in",
        "1   10.0.0.1:4711                                       tcp   1.0 KiB  5 B",
        "22  unix:/run/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  unix      2 B  6 B",
    ]


def test_one_long_name_costs_no_column() -> None:
    assert lines(COLUMNS, ROWS, 40) == [
        "id  client            type      out   in",
        "1   10.0.0.1:4711     tcp   1.0 KiB  5 B",
        "22  unix:/ru…xxxxxxx  unix      2 B  6 B",
    ]


def test_the_least_important_goes_first() -> None:
    assert lines(COLUMNS, ROWS, 30)[0] == "id  client            out   in"
    assert lines(COLUMNS, ROWS, 29) == [
        "id  client                out",
        "1   10.0.0.1:4711     1.0 KiB",
        "22  unix:/ru…xxxxxxx      2 B",
    ]
    assert lines(COLUMNS, ROWS, 25)[0] == "id  client            out"
    assert lines(COLUMNS, ROWS, 24)[0] == "id  client"


@pytest.mark.parametrize("cells", range(1, 90))
def test_it_never_wraps(cells: int) -> None:
    assert all(width(line) <= cells for line in lines(COLUMNS, ROWS, cells))


def test_without_rows() -> None:
    assert lines(COLUMNS, [], 80) == ["id  client  type  out  in"]


def test_control_characters_do_nothing() -> None:
    assert lines((Column("a"), Column("b")), [("\x1b[2J", "x")], None) == ["a        b", "\\x1b[2J  x"]
