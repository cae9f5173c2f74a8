"""The documents of the project, and what stands in them: for the tests that hold them to the truth."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What users read. ARCHITECTURE.md and the change log are held to their links only.
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", ROOT / "bench" / "README.md"]

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_PROMPTS = ("$ ", "# ")
_INDENT = "    "
#: Blocks that may show commands; in others "# " begins a comment.
_SHELL = ("console", "text")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: `kind` is the first word after the fence, `more` the others; `text` without its indentation."""

    page: Path
    line: int
    kind: str
    more: str
    text: str

    @property
    def place(self) -> str:
        """PAGE:LINE, for messages and ids."""
        return f"{name_of(self.page)}:{self.line}"

    def after(self, command: str) -> str:
        """What stands after this command, "" when it is not here."""
        return self.text.partition(f"{command}\n")[2]


def name_of(page: Path) -> str:
    """Its path from the root."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text()
    for match in _FENCE.finditer(text):
        kind, _, more = match["info"].strip().partition(" ")
        inner = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        yield Block(page, text.count("\n", 0, match.start()) + 1, kind, more, inner)


def prose(page: Path) -> str:
    """A page without its fenced blocks; lines keep their numbers."""
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), page.read_text())


def spans(page: Path) -> Iterator[tuple[str, str]]:
    """Place and text of every `code` in the prose of a page."""
    for number, line in enumerate(prose(page).splitlines(), 1):
        for text in _SPAN.findall(line):
            yield f"{name_of(page)}:{number}", text


def _continued(lines: list[str]) -> Iterator[str]:
    """The first of `lines`, and what a backslash at its end continues it with."""
    for line in lines:
        yield line.removesuffix("\\")
        if not line.endswith("\\"):
            return


def command_lines(page: Path) -> Iterator[tuple[str, str]]:
    """Place and text of every command: what stands after a prompt, and each line of an indented block."""
    for block in blocks(page):
        if block.kind in _SHELL:
            lines = block.text.splitlines()
            for number, line in enumerate(lines):
                if line.startswith(_PROMPTS):
                    yield f"{name_of(page)}:{block.line + 1 + number}", "".join(_continued(lines[number:]))[2:]
    before = ""
    lines = prose(page).splitlines()
    for number, line in enumerate(lines):
        inside = line.startswith(_INDENT) and (not before or before.startswith(_INDENT))
        if inside and not before.endswith("\\"):
            yield f"{name_of(page)}:{number + 1}", "".join(_continued(lines[number:])).strip()
        before = line if inside or not line.startswith(_INDENT) else "text"
