"""Words, blocks and quotes of nginx.conf."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.nginx.syntax import Directive, directives


def read(text: str) -> tuple[list[Directive], list[tuple[int, str]]]:
    notes = Notes()
    return directives(text, notes), [(one.line, one.text) for one in notes.leftovers]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b c;", ("a", "b", "c")),
        ("  a\n\tb\n c  ;", ("a", "b", "c")),
        ("a # b\n c;", ("a", "c")),
        ("a b#c;", ("a", "b#c")),
        ("a 'b c' \"d;{}\";", ("a", "b c", "d;{}")),
        (r"a 'b\'c' d\;e;", ("a", "b'c", r"d\;e")),
        ("a $b ${c}d;", ("a", "$b", "${c}d")),
        ("a '';", ("a", "")),
        (r"a '\t';", ("a", "\t")),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    found, left = read(text)
    assert [(one.name, *one.args) for one in found] == [words]
    assert left == []


def test_blocks_and_lines() -> None:
    found, left = read("a {\n  b c;\n  d\n  e {\n }\n}\nf;;\n")
    assert [(one.name, one.line) for one in found] == [("a", 1), ("f", 7)]
    assert [(one.name, one.args, one.line) for one in found[0].block or ()] == [("b", ("c",), 2), ("d", ("e",), 3)]
    assert (found[1].block, found[0].text) == (None, "a { … }")
    assert left == []


@pytest.mark.parametrize(
    ("text", "names", "left"),
    [
        ("a { b;", ["a"], [(1, "a { … }")]),
        ("a;\n}\nb;", ["a", "b"], [(2, "}")]),
        ("a { b }", ["a"], [(1, "b")]),
        ("a;\nb c", ["a"], [(2, "b c")]),
        ("a 'b;\nc;", [], [(1, "'b;\nc;"), (1, "a b;\nc;")]),
        ("{ a; }", [""], []),
        ("a \\", [], [(1, "a \\")]),
        ("", [], []),
    ],
)
def test_what_is_not_closed(text: str, names: list[str], left: list[tuple[int, str]]) -> None:
    found, told = read(text)
    assert [one.name for one in found] == names
    assert told == left
