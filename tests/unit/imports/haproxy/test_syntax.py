"""Words, sections and conditions of haproxy.cfg."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.haproxy.syntax import WORDS_MAX, Section, sections


def read(text: str) -> tuple[list[Section], Notes]:
    notes = Notes()
    return sections(text, notes), notes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bind :80", ("bind", ":80")),
        ("\tbind   :80  # a comment", ("bind", ":80")),
        ("bind :80#a", ("bind", ":80")),
        (r"send PING\r\n", ("send", "PING\r\n")),
        (r"a b\ c\#d \"e", ("a", "b c#d", '"e')),
        ('a "b c" d', ("a", "b c", "d")),
        ('a "b # \\" c"d', ("a", 'b # " cd')),
        (r"a 'b \n $X' c", ("a", r"b \n $X", "c")),
        ("a '' \"\"", ("a", "", "")),
        ("a\\", ("a",)),
    ],
)
def test_words(line: str, words: tuple[str, ...]) -> None:
    found, notes = read(f"listen x\n{line}\n")
    assert [one.words for one in found[0].lines] == [words]
    assert found[0].lines[0].number == 2
    assert not notes.leftovers


@pytest.mark.parametrize("line", ['a "b', "a 'b", 'a "b\\', '"'])
def test_a_quote_that_is_not_closed(line: str) -> None:
    found, notes = read(f"listen x\n{line}\n")
    assert len(found[0].lines) == 1
    assert [(one.line, one.text) for one in notes.leftovers] == [(2, line)]


def test_a_line_has_an_end() -> None:
    found, notes = read("listen x\nbind :80" + " tfo" * WORDS_MAX)
    assert len(found[0].lines[0].words) == WORDS_MAX
    assert [one.line for one in notes.leftovers] == [2]


def test_sections() -> None:
    found, notes = read("global\n a\ndefaults d\n b\nlisten x from d\n c\n\nfrontend y\nresolvers z\n e\ndefaults\n")
    assert [(one.kind, one.name, one.number, one.parent) for one in found] == [
        ("global", "", 1, ""),
        ("defaults", "d", 3, ""),
        ("listen", "x", 5, "d"),
        ("frontend", "y", 8, ""),
        ("resolvers", "z", 9, ""),
        ("defaults", "", 11, ""),
    ]
    assert [len(one.lines) for one in found] == [1, 1, 1, 0, 1, 0]
    assert found[2].text == "listen x"
    assert not notes.leftovers


def test_the_head_of_old_times_has_an_address() -> None:
    found, notes = read("listen x 10.0.0.1:80\nbackend y more\n")
    assert [one.words for one in found[0].lines] == [("bind", "10.0.0.1:80")]
    assert [(one.line, one.text) for one in notes.leftovers] == [(2, "more")]


def test_what_stands_in_no_section() -> None:
    _, notes = read("bind :80\nlisten x\n")
    assert [(one.line, one.text) for one in notes.leftovers] == [(1, "bind :80")]


def test_conditions_are_not_evaluated() -> None:
    text = "listen x\n.if defined(A)\na\n.if defined(B)\nb\n.endif\n.else\nc\n.endif\nd\n.endif\ne\n.notice hello\n"
    found, notes = read(text)
    assert [one.words for one in found[0].lines] == [("d",), ("e",)]
    assert [(one.line, one.text) for one in notes.leftovers] == [(2, ".if defined(A)")]
