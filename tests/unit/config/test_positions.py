"""positions.py against tomli: whatever tomli accepts, every key and value is found where it stands."""

from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.config.positions import DEPTH_MAX, Path, Positions, scan


@pytest.mark.parametrize(
    ("text", "path", "key", "value"),
    [
        ("a = 1", ("a",), (1, 1), (1, 5)),
        ("\n\t a=1 # b = 2", ("a",), (2, 3), (2, 5)),
        ("[x.y]\na = 1", ("x", "y", "a"), (2, 1), (2, 5)),
        ("[x.y]\na = 1", ("x", "y"), (1, 4), (1, 4)),
        ("[ x . 'y' ]\n", ("x", "y"), (1, 7), (1, 7)),
        ("a.b . c = 1", ("a", "b", "c"), (1, 7), (1, 11)),
        ('"a.b" = 1', ("a.b",), (1, 1), (1, 9)),
        ('"\\u0061" = 1', ("a",), (1, 1), (1, 12)),
        ("a = [1, [2,\n 3], ]", ("a", 1, 1), (2, 2), (2, 2)),
        ("a = [ # ]\n 1 ]", ("a", 0), (2, 2), (2, 2)),
        ('a = {b = "}", c = [{d = 1}]}', ("a", "c", 0, "d"), (1, 21), (1, 25)),
        ('a = "\\"" \nb = 1', ("b",), (2, 1), (2, 5)),
        ('a = """x\n"" \\""" y""""\nb = 1', ("b",), (3, 1), (3, 5)),
        ("a = '''x\n'y'''''\nb = 1", ("b",), (3, 1), (3, 5)),
        ("a = 1979-05-27 07:32:00\nb = [1979-05-27 07:32:00, 2]", ("b", 1), (2, 27), (2, 27)),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3", ("a", 1, "b"), (4, 1), (4, 5)),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\n[a.c]\nd = 3", ("a", 1, "c", "d"), (6, 1), (6, 5)),
        ('"日本" = 1', ("日本",), (1, 1), (1, 8)),
    ],
)
def test_place(text: str, path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
    tomli.loads(text)
    positions = Positions(text)
    assert (positions.of_key(path), positions.of_value(path)) == (key, value)


def test_unknown_path_is_at_its_nearest_parent() -> None:
    positions = Positions("[a]\nb = [1]")
    assert positions.of_value(("a", "b", 7, "c")) == (2, 1)
    assert positions.of_key(("a", "nope")) == (1, 2)
    assert positions.of_key(("nope",)) == (1, 1)


def test_what_lies_too_deep_is_at_its_parent() -> None:
    text = "a = " + "[" * 300 + "1" + "]" * 300
    assert max(map(len, scan(text))) == DEPTH_MAX


@pytest.mark.parametrize(
    "text", ["[", "[a", "a", "a =", "a = [", "a = {b", 'a = "', "a = '''", "[[a]", "a = \\", "=", "]"]
)
def test_a_text_that_is_no_toml_ends_the_scan(text: str) -> None:
    assert isinstance(scan(text), dict)


# Documents whose every place is known, because they are put together here.

bare = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
odd = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\"\\'"), max_size=5)
names = st.one_of(bare, odd)
SCALARS = r"""
1 | 0x1f | 1_000 | 1.5e3 | inf | true | 1979-05-27 | 1979-05-27 07:32:00Z | 07:32:00 | "" | '' | 'a \'
"a # ] } , = \" \\" | '''a#''b''' | '''''a'''''
"""
MULTILINE_SCALARS = ['"""a\n"b""\n\\" = [c]\n"""', "'''a\n''b\n'''", '"""""a"""""']
scalars = st.sampled_from([*SCALARS.replace("\n", " | ").strip(" |").split(" | "), *MULTILINE_SCALARS])
blanks = st.sampled_from(["", " ", "\t "])
lines = st.sampled_from(["", " ", "\n", " # a = [1, '\n\t", "\n\n"])


def values(depth: int) -> st.SearchStrategy[Any]:
    if depth == 0:
        return scalars
    return scalars | st.lists(values(depth - 1), max_size=3) | st.dictionaries(names, values(depth - 1), max_size=3)


class Writer:
    """A TOML text in the making, and where everything in it has been put."""

    def __init__(self, data: st.DataObject) -> None:
        self.text = ""
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}
        self._data = data

    def key(self, name: str, path: Path) -> None:
        self.keys.setdefault(path, len(self.text))
        plain = name and name.isascii() and all(c.isalnum() or c in "_-" for c in name)
        self.text += name if plain else f"'{name}'" if self._data.draw(st.booleans()) else f'"{name}"'

    def space(self, strategy: st.SearchStrategy[str] = blanks) -> None:
        self.text += self._data.draw(strategy)

    def assignment(self, name: str, value: Any, path: Path) -> None:
        self.key(name, path)
        self.space()
        self.text += "="
        self.space()
        self.value(value, path)

    def value(self, value: Any, path: Path) -> None:
        self.values[path] = len(self.text)
        if isinstance(value, str):
            self.text += value
        elif isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.space(lines)
                here = (*path, index)
                self.keys[here] = len(self.text)
                self.value(item, here)
                self.space(lines)
                self.text += ","
            self.text += "]"
        else:
            self.text += "{"
            for number, (name, item) in enumerate(value.items()):
                self.text += ", " if number else " "
                self.assignment(name, item, (*path, name))
                self.space()
            self.text += "}"


@given(st.data(), st.dictionaries(names, st.dictionaries(names, values(2), max_size=3), max_size=3))
@settings(max_examples=60, deadline=None)
def test_every_place_of_a_document(data: st.DataObject, tables: dict[str, dict[str, Any]]) -> None:
    writer = Writer(data)
    for table, content in tables.items():
        writer.space(lines.map(lambda blank: blank + "\n"))
        writer.text += "["
        writer.space()
        writer.key(table, (table,))
        writer.space()
        writer.text += "]\n"
        for name, value in content.items():
            writer.space(lines)
            writer.assignment(name, value, (table, name))
            writer.text += data.draw(st.sampled_from(["\n", " # end\n"]))
    tomli.loads(writer.text)
    places = scan(writer.text)
    assert {path: place.key for path, place in places.items()} == writer.keys
    assert {path: places[path].value for path in writer.values} == writer.values


@given(st.text(st.sampled_from(list("ab.=[]{}'\"\\#,\n 1-:T_"))))
@settings(max_examples=300, deadline=None)
def test_whatever_tomli_accepts_is_found(text: str) -> None:
    places = scan(text)
    try:
        document = tomli.loads(text)
    except ValueError:
        return
    for path in _paths(document):
        assert path[:DEPTH_MAX] in places, (path, text)


def _paths(value: object, path: Path = ()) -> list[Path]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [here for name, item in inner for here in [(*path, name), *_paths(item, (*path, name))]]
