"""Which test types which command line of the documents; and which no test types, and why.

A test has its lines from here, by the name of its file: a line that is changed, or added, is a line that is typed.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.documents import PAGES, command_lines, name_of, spans

LOOK = "docs/how-to/look-and-kill.md"
MIGRATE = "docs/how-to/migrate.md"
PIP = "docs/how-to/pip.md"
TUTORIAL = "docs/tutorial.md"
#: Programs whose lines count where running text has them, too. Of others, text says what they do.
SPOKEN = (
    "apt",
    "apt-get",
    "bench/run",
    "dnf",
    "docker",
    "kubectl",
    "packaging/build",
    "packaging/dev",
    "pacman",
    "pip",
    "python3",
    "sysctl",
    "systemd-analyze",
    "systemd-socket-activate",
    "uv",
)
_ACTIVATION = "tests/systemd/test_activation.py"
_CLONE = "tests/soak/test_clone.py"
_OPERATORS = "tests/systemd/test_documents.py"
_PACKAGE = "tests/systemd/package.py"
_TERMINALS = "tests/integration/test_terminals.py"
_PIP = "tests/soak/test_pip.py"
_CONTAINER = "a container runtime; tests/e2e/test_container.py runs what is in the container without one"
_ELSEWHERE = "a distribution that no test has"
#: What no test types: a line, or all lines of a program.
NOT_TYPED = {
    "dnf": _ELSEWHERE,
    "docker": _CONTAINER,
    "kubectl": _CONTAINER,
    "packaging/dev test -m soak tests/soak": "it is what runs the test that would type it",
    "pacman": _ELSEWHERE,
    "sysctl": "net.core.rmem_max is the whole machine's; in a network namespace it is read-only",
}
#: It does not end by itself.
_RATES = "relayd status --json --watch=10 | jq -c '{time: now, listeners: [.listeners[] | {name, rate}]}' >> rates.log"
#: What types a line, or the lines of a program, on a page, else on all pages.
_TYPED = {
    (LOOK, "relayd top"): _TERMINALS,
    (LOOK, "relayd kill 8f76d9-0-1"): _TERMINALS,
    (LOOK, _RATES): _TERMINALS,
    (MIGRATE, "relayd"): "tests/unit/test_documents.py",
    (TUTORIAL, ""): "tests/e2e/test_tutorial.py",
    **{(TUTORIAL, words): _OPERATORS for words in ("journalctl", "relayd check", "relayd plan", "systemctl")},
    (PIP, ""): _PIP,
    **{(PIP, program): _CLONE for program in ("packaging/dev", "uv")},
    **{("", program): _CLONE for program in ("bench/run", "packaging/build", "packaging/dev")},
    **{("", program): _OPERATORS for program in ("cp", "curl", "dig", "journalctl", "kill", "relayd", "systemctl")},
    ("", "apt"): _PACKAGE,
    ("", "systemd-analyze"): _OPERATORS,
    ("", "systemd-socket-activate"): _ACTIVATION,
}


@dataclass(frozen=True, slots=True)
class Line:
    """A command line of a document. `spoken`: it stands in running text."""

    place: str
    page: str
    text: str
    spoken: bool = False

    @property
    def words(self) -> list[str]:
        """As a shell would split it, up to a pipe or a redirection, without comments."""
        found = shlex.split(self.text, comments=True)
        end = next((index for index, word in enumerate(found) if word in ("|", ">")), len(found))
        return found[:end]

    @property
    def program(self) -> str:
        """By its name; one of this repository, by its path."""
        first = self.words[0]
        return Path(first).name if first.startswith("/") else first

    @property
    def typed_by(self) -> str:
        """The file of the test that types it, or ""."""
        if self.not_typed:
            return ""
        keys = ((self.page, self.text), (self.page, self.program), (self.page, ""), ("", self.program))
        return next((_TYPED[key] for key in keys if key in _TYPED), "")

    @property
    def not_typed(self) -> str:
        """Why no test types it, or ""."""
        return NOT_TYPED.get(self.text, NOT_TYPED.get(self.program, ""))


def lines_of(page: Path) -> Iterator[Line]:
    """In the order of the page, but for those in running text, which come last."""
    for place, text in command_lines(page):
        yield Line(place, name_of(page), text)
    for place, text in spans(page):
        if text.partition(" ")[0] in SPOKEN and " " in text:
            yield Line(place, name_of(page), text, spoken=True)


def all_lines() -> list[Line]:
    """Of all documents."""
    return [line for page in PAGES for line in lines_of(page)]


def lines_for(test: str) -> list[Line]:
    """The lines that this test types, by the path of its file from the root."""
    return [line for line in all_lines() if line.typed_by == test]
