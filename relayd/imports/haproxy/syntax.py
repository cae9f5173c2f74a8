"""haproxy.cfg as sections and words: section 2 of HAProxy's configuration manual. Pure.

Quotes and backslashes are taken away; what an environment variable would put there is not known, so that its name
stays: whoever reads a word with "$" in it says so.
"""

import re
from collections.abc import Iterator
from dataclasses import field

from relayd.imports.draft import Notes
from relayd.imports.text import joined, lines
from relayd.values import dataclass

#: Sections with proxies, and all others that HAProxy has.
PROXIES = ("frontend", "backend", "listen")
SECTIONS = frozenset(
    (
        *(*PROXIES, "global", "defaults", "resolvers", "peers", "userlist", "mailers", "cache", "program", "ring"),
        *("acme", "http-errors", "log-forward", "log-profile", "fcgi-app", "crt-store", "traces", "healthcheck"),
    )
)
#: Words of a line; HAProxy itself takes 64 (MAX_LINE_ARGS). Bounds what an option with many values costs.
WORDS_MAX = 1000
_CONDITION = re.compile(r"\.(if|elif|else|endif|notice|warning|alert|diag)\b")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
#: Blank, a comment, a quoted piece (perhaps not closed), an escape, or plain text: a word is several of the last three.
_PIECE = re.compile(r"""\s+|#.*|'[^']*'?|"(?:\\.|[^"\\])*\\?"?|\\.?|[^\s#'"\\]+""", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Line:
    """One line, as words."""

    number: int
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it is shown."""
        return joined(self.words)


@dataclass(slots=True)
class Section:
    """What stands below one head. `parent` is the name behind `from`, "" for none."""

    kind: str
    name: str
    number: int
    parent: str = ""
    lines: list[Line] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The head, as it is shown."""
        return joined((self.kind, self.name)).strip()


def sections(text: str, notes: Notes) -> list[Section]:
    """Every section, in the order of the file. What stands in none, or below a condition, is a leftover."""
    found: list[Section] = []
    for line in _unconditional(_lines(text, notes), notes):
        head = line.words[0]
        if head in SECTIONS:
            name = line.words[1] if len(line.words) > 1 and line.words[1] != "from" else ""
            rest = line.words[1 + bool(name) :]
            parent = rest[1] if len(rest) > 1 and rest[0] == "from" else ""
            found.append(Section(head, name, line.number, parent))
            if len(rest) > 2 * bool(parent):
                _odd_head(found[-1], rest[2 * bool(parent) :], notes)
        elif found:
            found[-1].lines.append(line)
        else:
            notes.leave(line.number, line.text, "stands before the first section")
    return found


def _odd_head(section: Section, rest: tuple[str, ...], notes: Notes) -> None:
    """An address behind the name of a proxy was a bind until HAProxy 1.7."""
    if section.kind in ("frontend", "listen") and ":" in rest[0]:
        section.lines.append(Line(section.number, ("bind", *rest)))
    else:
        notes.leave(section.number, joined(rest), f"not understood behind the name of a {section.kind}")


def _unconditional(every: Iterator[Line], notes: Notes) -> Iterator[Line]:
    """The lines that stand in every case: what a condition would say here is not known."""
    depth = 0
    for line in every:
        word = _CONDITION.match(line.words[0])
        if not word and not depth:
            yield line
        elif word and word[1] == "if":
            if not depth:
                reason = "conditions are not evaluated, and nothing down to .endif is carried over: take them out"
                notes.leave(line.number, line.text, reason)
            depth += 1
        elif word and word[1] == "endif":
            depth = max(0, depth - 1)


def _lines(text: str, notes: Notes) -> Iterator[Line]:
    for number, line in enumerate(lines(text), 1):
        words, whole = _words(line)
        if not whole:
            notes.leave(number, line, "a quote is not closed; what stands before it counts")
        if len(words) > WORDS_MAX:
            notes.leave(number, line, f"more than {WORDS_MAX} words: the rest of the line does not count")
        if words:
            yield Line(number, words[:WORDS_MAX])


def _words(line: str) -> tuple[tuple[str, ...], bool]:
    """The words of `line` down to its comment, and whether every quote is closed."""
    if not any(character in line for character in "\"'\\"):
        return tuple(line.partition("#")[0].split()), True
    words: list[str] = []
    parts: list[str] = []
    begun, closed = False, True
    for piece in _PIECE.finditer(line):
        token = piece[0]
        if token.isspace() or token.startswith("#"):
            words += ["".join(parts)] if begun else []
            parts, begun = [], False
            if token.startswith("#"):
                break
            continue
        begun = True
        if token[0] in "\"'":
            closed = closed and len(token) > 1 and token[-1] == token[0]
            inner = token[1:-1] if len(token) > 1 and token[-1] == token[0] else token[1:]
            parts.append(inner if token[0] == "'" else _ESCAPED.sub(_meant, inner))
        else:
            parts.append(_ESCAPED.sub(_meant, token) if token[0] == "\\" else token)
    words += ["".join(parts)] if begun else []
    return tuple(words), closed


def _meant(escape: re.Match[str]) -> str:
    return _ESCAPES.get(escape[1], escape[1])
