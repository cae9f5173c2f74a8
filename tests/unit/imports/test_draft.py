"""Names of listeners, and notes."""

import pytest

from relayd.imports.draft import Names, Notes


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        *(("web", "web"), ("my db", "my-db"), ("a:b", "a-b"), ("é", "listener"), ("", "listener"), ("..", "listener")),
        *(("a.b_c-D", "a.b_c-D"), ("x" * 90, "x" * 64)),
    ],
)
def test_names_are_legal(wanted: str, name: str) -> None:
    assert Names().take(wanted) == name


def test_names_are_each_used_once() -> None:
    names = Names()
    assert [names.take("a") for _ in range(3)] == ["a", "a-2", "a-3"]
    assert [names.take("a", "a-udp") for _ in range(2)] == ["a-udp", "a-4"]
    assert names.take("a-5") == "a-5"
    assert names.take("a") == "a-6"
    assert [names.take("x" * 64) for _ in range(2)] == ["x" * 64, "x" * 62 + "-2"]


def test_notes_are_in_the_order_of_lines() -> None:
    notes = Notes()
    notes.leave(5, "b", "why")
    notes.leave(2, "a", "why", opens=True)
    notes.leave_once(9, "c", "why")
    notes.leave_once(9, "c", "why")
    notes.cover(4, "y")
    notes.cover(3, "x")
    found = notes.imported([])
    assert [(one.line, one.text, one.opens) for one in found.leftovers] == [
        (2, "a", True),
        (5, "b", False),
        (9, "c", False),
    ]
    assert found.covered == ((3, "x"), (4, "y"))
