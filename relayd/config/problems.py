"""What is wrong with a configuration, in the form in which people and editors read it.

relay.toml:7:1: listeners.web.listen: unknown key
    listen = "0.0.0.0:80"
    ^
    did you mean `bind`?
"""

import re
import unicodedata
from collections.abc import Sequence

from relayd.errors import RelaydError
from relayd.values import dataclass

#: Characters of a source line that are shown: a file without line breaks must not fill the terminal.
EXCERPT_CHARACTERS = 160
#: What is shown of a value that a message quotes.
VALUE_CHARACTERS = 80

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error or warning. `line` and `column` count from 1, in characters; line 0 means the file as a whole.

    `key` is the dotted path of what is wrong, "" for none. `suggestion` is a whole line of advice, or "".
    """

    file: str
    line: int
    column: int
    key: str
    message: str
    source_line: str = ""
    suggestion: str = ""

    @property
    def place(self) -> str:
        """`file:line:column`, or the file alone."""
        return f"{printable(self.file)}:{self.line}:{self.column}" if self.line else printable(self.file)

    def __str__(self) -> str:
        head = f"{self.place}: {printable(self.key)}: " if self.key else f"{self.place}: "
        lines = [head + printable(self.message)]
        if self.line and self.source_line:
            excerpt, caret = _excerpt(self.source_line, self.column)
            lines += ["    " + excerpt, "    " + caret]
        if self.suggestion:
            lines.append("    " + printable(self.suggestion))
        return "\n".join(lines)


class ConfigError(RelaydError):
    """The configuration cannot be used. `problems` is everything that is wrong with it, in the order of the files."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def printable(text: str) -> str:
    """`text` with control characters and stray surrogates as escapes, so that it can do nothing to a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quote(text: str) -> str:
    """`text` as a TOML basic string on one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else _escape(c) for c in escaped) + '"'


def quote_short(text: str) -> str:
    """`quote` for a message: no longer than a message can bear."""
    return quote(text if len(text) <= VALUE_CHARACTERS else text[:VALUE_CHARACTERS] + "…")


def key_text(path: Sequence[str | int]) -> str:
    """`("listeners", "web", "targets", 1)` as `listeners.web.targets[1]`, as TOML would write it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE_KEY.match(part) else quote_short(part)
            text += f".{name}" if text else name
    return text


def _escape(character: str) -> str:
    return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}.get(character) or f"\\U{ord(character):08x}"


def _excerpt(line: str, column: int) -> tuple[str, str]:
    """What is shown of `line`, and a caret under `column`: tabs are echoed, wide characters take two places."""
    start = max(0, column - EXCERPT_CHARACTERS // 2) if len(line) > EXCERPT_CHARACTERS else 0
    shown = line[start : start + EXCERPT_CHARACTERS]
    before = shown[: column - 1 - start]
    cut_left, cut_right = "…" if start else "", "…" if start + EXCERPT_CHARACTERS < len(line) else ""
    excerpt = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return cut_left + excerpt + cut_right, " " * len(cut_left) + "".join(map(_blank_like, before)) + "^"


def _blank_like(character: str) -> str:
    """As much blank as `character` takes on a terminal."""
    if character == "\t":
        return "\t"
    if unicodedata.combining(character):
        return ""
    return "  " if unicodedata.east_asian_width(character) in "WF" else " "
