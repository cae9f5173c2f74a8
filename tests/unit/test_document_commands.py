"""Every command that the documents show is typed by a test, or it is known why not; and those of relayd are parsed by
its own command line, those of the benchmark by its own.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from bench.__main__ import arguments
from relayd.cli.verbs import app
from tests.documents import LINKED, PAGES, ROOT, spans
from tests.typed import NOT_TYPED, Line, all_lines, lines_of

GROUP: Any = typer.main.get_command(app)
LINES = all_lines()
COMMANDS = [line for line in LINES if line.program == "relayd"]
OTHERS = [line for line in LINES if line.program != "relayd"]
BENCHES = [line for page in LINKED for line in lines_of(page) if line.program == "bench/run"]
#: Tests that have another way to what they type than by their name: what stands in them.
BY_PAGE = {
    "tests/e2e/test_tutorial.py": '"tutorial.md"',
    "tests/unit/test_documents.py": 'f"$ relayd import {name} > relay.toml"',
}


def name(line: Line) -> str:
    return f"{line.place}-{line.text}"


@pytest.mark.parametrize("line", COMMANDS, ids=name)
def test_relayd_takes_it(line: Line) -> None:
    """Parsed as it would be when typed; nothing is done."""
    verb, *options = line.words[1:]
    command = GROUP.commands[verb]
    command.make_context(verb, options, parent=GROUP.make_context("relayd", [verb]))


@pytest.mark.parametrize("line", BENCHES, ids=name)
def test_the_benchmark_takes_it(line: Line) -> None:
    if "--help" not in line.words:
        arguments(line.words[1:])


@pytest.mark.parametrize("line", LINES, ids=name)
def test_a_test_types_it_or_it_is_known_why_not(line: Line) -> None:
    if line.not_typed:
        return
    test = ROOT / line.typed_by
    assert test.is_file(), "no test types it"
    text = test.read_text()
    own = f'lines_for("{line.typed_by}")'
    assert BY_PAGE.get(line.typed_by, own) in text


@pytest.mark.parametrize("what", NOT_TYPED)
def test_what_is_not_typed_is_there(what: str) -> None:
    assert any(what in (line.program, line.text) for line in LINES)


def spoken() -> Iterator[tuple[str, str]]:
    """`relayd VERB OPTIONS` in running text, brackets for what may be left out included."""
    for page in PAGES:
        for place, text in spans(page):
            if text.startswith("relayd "):
                yield place, text


@pytest.mark.parametrize(("place", "text"), list(spoken()))
def test_what_is_spoken_of_exists(place: str, text: str) -> None:
    """Verbs, and names of options; values may be left out."""
    verb, *rest = re.sub(r"[\[\]]", "", text).split("|")[0].split()[1:]
    if verb in ("COMMAND", "VERB", "--help"):
        return
    command = GROUP.commands[verb]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    assert {word for word in rest if word.startswith("-")} <= known


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 15
    assert len(OTHERS) >= 60
    assert len(BENCHES) >= 5
