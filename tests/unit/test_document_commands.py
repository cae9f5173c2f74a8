"""Every command that the documents show can be typed: those of relayd are parsed by its own command line.

The tutorial is run as a whole, by tests/e2e/test_tutorial.py. What else a page shows needs a machine that a test does
not have, and is in `NOT_RUN` with the reason.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from relayd.cli.verbs import app
from tests.documents import PAGES, ROOT, command_lines, name_of, spans

GROUP: Any = typer.main.get_command(app)
#: Run as they stand by tests/e2e/test_tutorial.py.
RUN = "docs/tutorial.md"
#: Other programs, and why no test runs the lines that are theirs.
NOT_RUN = {
    **dict.fromkeys(("apt", "apt-get", "dnf", "dpkg", "pacman", "pip"), "root, or the network: it installs"),
    **dict.fromkeys(("cp", "mkdir", "sed", "sysctl"), "root: it changes the machine"),
    **dict.fromkeys(("docker", "kubectl", "podman"), "a container runtime; tests/e2e/test_container.py does without"),
    **dict.fromkeys(("journalctl", "systemctl", "systemd-analyze"), "systemd; tests/systemd has a real one"),
    "curl": "a running daemon; tests/e2e/test_commands.py asks its admin API, and the tutorial's lines are run",
    "dig": "a resolver",
    "kill": "the process that a page is about; tests/e2e/test_restart.py sends the same signals",
    "python3": "the network: what follows is installed into the environment that it makes",
    "systemd-socket-activate": "systemd; tests/e2e/test_activation.py passes sockets in the same way",
}
#: Programs of this repository: they are there, and developers use them.
OURS = ("packaging/dev", "packaging/build", "bench/run")
LINES = [
    (place, line)
    for page in PAGES
    for place, line in command_lines(page)
    if name_of(page) != RUN or line.startswith("relayd ")
]
COMMANDS = [(place, line) for place, line in LINES if Path(line.split()[0]).name == "relayd"]
OTHERS = [(place, line) for place, line in LINES if (place, line) not in COMMANDS]


def words(line: str) -> list[str]:
    """`line` as a shell would split it, up to a pipe or a redirection, without comments."""
    found = shlex.split(line, comments=True)
    end = next((index for index, word in enumerate(found) if word in ("|", ">")), len(found))
    return found[:end]


@pytest.mark.parametrize(("place", "line"), COMMANDS)
def test_relayd_takes_it(place: str, line: str) -> None:
    """Parsed as it would be when typed; nothing is done."""
    name, *arguments = words(line)[1:]
    command = GROUP.commands[name]
    command.make_context(name, arguments, parent=GROUP.make_context("relayd", [name]))


@pytest.mark.parametrize(("place", "line"), OTHERS)
def test_it_is_known_why_it_is_not_run(place: str, line: str) -> None:
    program = words(line)[0]
    assert Path(program).name in NOT_RUN or (program in OURS and (ROOT / program).exists())


def spoken() -> Iterator[tuple[str, str]]:
    """`relayd VERB OPTIONS` in running text, brackets for what may be left out included."""
    for page in PAGES:
        for place, text in spans(page):
            if text.startswith("relayd "):
                yield place, text


@pytest.mark.parametrize(("place", "text"), list(spoken()))
def test_what_is_spoken_of_exists(place: str, text: str) -> None:
    """Verbs, and names of options; values may be left out."""
    name, *rest = re.sub(r"[\[\]]", "", text).split("|")[0].split()[1:]
    if name in ("COMMAND", "VERB", "--help"):
        return
    command = GROUP.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    assert {word for word in rest if word.startswith("-")} <= known


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 15
    assert len(OTHERS) >= 15
