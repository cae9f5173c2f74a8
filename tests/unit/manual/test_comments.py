"""`#:` comments: what they are about, and that a missing one is found."""

import dataclasses
from pathlib import Path

import pytest
from manual import comments

import relayd
from relayd.counters import DatagramCounters, ListenerCounters
from relayd.log.access import AccessRecord
from relayd.log.events import Event

PACKAGE = Path(relayd.__file__).parent


def write(folder: Path, text: str) -> Path:
    path = folder / "module.py"
    path.write_text(text)
    return path


def test_of_a_class(tmp_path: Path) -> None:
    path = write(
        tmp_path, 'class A:\n    """Doc."""\n\n    #: one\n    #: two\n    x: int = 0\n    #: three\n    y = 1\n'
    )
    assert comments.of_class(path, "A") == {"x": "one two", "y": "three"}
    with pytest.raises(comments.NoComment, match="no class B"):
        comments.of_class(path, "B")


def test_an_annotation_in_an_enum_is_no_member(tmp_path: Path) -> None:
    path = write(tmp_path, "class A(Enum):\n    value: str\n\n    #: one\n    X = 1\n")
    assert comments.of_class(path, "A") == {"X": "one"}


def test_of_constants(tmp_path: Path) -> None:
    path = write(tmp_path, "#: one\nEXIT_A = 1\n#: two\nEXIT_B = 70  # why\nOTHER = 3\n")
    assert comments.of_constants(path, "EXIT_") == {1: "one", 70: "two"}


def test_a_missing_one_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, "# no such comment\nEXIT_A = 1\n")
    with pytest.raises(comments.NoComment, match=r"module\.py:2: EXIT_A"):
        comments.of_constants(path, "EXIT_")


@pytest.mark.parametrize(
    ("module", "cls"),
    [("counters", ListenerCounters), ("counters", DatagramCounters), ("log/access", AccessRecord)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_field_has_one(module: str, cls: type) -> None:
    fields = [field.name for field in dataclasses.fields(cls)]
    assert list(comments.of_class(PACKAGE / f"{module}.py", cls.__name__)) == fields


def test_every_kind_of_event_has_one() -> None:
    assert list(comments.of_class(PACKAGE / "log/events.py", "Event")) == [event.name for event in Event]
