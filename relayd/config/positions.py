"""Where each key and value of a TOML text stands. Pure.

tomli says what a document means and not where its parts are. This walks a text that tomli has already accepted, so it
checks nothing: it only has to tell keys from values. When it loses its way (a newer TOML than it knows) it stops, and
whatever it has not seen is reported at the nearest parent that it has.
"""

import bisect
import contextlib
import re
from collections.abc import Sequence
from typing import TypeAlias

import tomli

from relayd.values import dataclass

#: How to get to a value from the top: keys of tables and indexes of arrays.
Path: TypeAlias = "tuple[str | int, ...]"

#: Nothing in a configuration lies deeper; what does is reported at its parent of this depth.
DEPTH_MAX = 8
#: Elements of one array, and parts of one document, whose places are kept: bounds memory for a hostile file.
ELEMENTS_MAX = 65_536
PLACES_MAX = 1_000_000

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
#: A date and a time may have a space between them; nothing else that is not in quotes has one.
_BARE = re.compile(r"[^\s,\]}#]+(?: [0-9][^\s,\]}#]*)?")
_BASIC_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_MULTILINE_STEP = re.compile(r'\\.|"""', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Place:
    """Offsets of a key and of its value. An element of an array has no key: both are the element's."""

    key: int
    value: int


class Positions:
    """Line and column, from 1 and in characters, of everything in `text`."""

    def __init__(self, text: str) -> None:
        self._places = scan(text)
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def of_key(self, path: Path) -> tuple[int, int]:
        """Where the key at `path` stands, or its nearest known parent; (1, 1) when there is none."""
        found = self._nearest(path)
        return self._line_column(found.key) if found else (1, 1)

    def of_value(self, path: Path) -> tuple[int, int]:
        """Where the value at `path` begins, or the key of its nearest known parent."""
        place = self._places.get(path)
        return self._line_column(place.value) if place else self.of_key(path)

    def _nearest(self, path: Path) -> Place | None:
        for length in range(len(path), 0, -1):
            place = self._places.get(path[:length])
            if place:
                return place
        return None

    def _line_column(self, offset: int) -> tuple[int, int]:
        line = bisect.bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1


class _LostError(Exception):
    """The text is not what this scanner knows as TOML."""


def scan(text: str) -> dict[Path, Place]:
    """The place of every key and value in `text`, which tomli has accepted. Raises nothing."""
    scanner = _Scanner(text)
    with contextlib.suppress(_LostError, IndexError):  # IndexError: past the end of the text
        scanner.document()
    return scanner.places


class _Scanner:
    """One walk through a text. No recursion: the depth of a document is its author's choice."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.places: dict[Path, Place] = {}
        #: How many tables each [[array]] has so far.
        self._tables_in: dict[Path, int] = {}

    def document(self) -> None:
        text = self.text
        table: Path = ()
        at = self._skip_blank(0)
        while at < len(text):
            if text[at] == "[":
                brackets = 2 if text.startswith("[[", at) else 1
                parts, at = self._key(at + brackets)
                table = self._enter_table(parts, array=brackets == 2)
                at = self._expect("]" * brackets, at)
            else:
                at = self._value(*self._assignment(table, at))
            at = self._skip_blank(at)

    def _enter_table(self, parts: Sequence[tuple[str, int]], *, array: bool) -> Path:
        """The path of the table that a [header] or [[header]] opens."""
        path: Path = ()
        for number, (name, offset) in enumerate(parts):
            path = self._note((*path, name), offset, offset) if len(path) < DEPTH_MAX else path
            last = number == len(parts) - 1
            if last and array:
                self._tables_in[path] = self._tables_in.get(path, 0) + 1
            if path in self._tables_in and len(path) < DEPTH_MAX:
                path = self._note((*path, self._tables_in[path] - 1), offset, offset)
        return path

    def _assignment(self, table: Path, at: int) -> tuple[int, Path]:
        """Reads `key =`. Returns where the value begins, and its path."""
        parts, at = self._key(at)
        value = self._skip_blank(self._expect("=", at))
        path = table
        for number, (name, offset) in enumerate(parts):
            if len(path) < DEPTH_MAX:
                path = self._note((*path, name), offset, value if number == len(parts) - 1 else offset)
        return value, path

    def _value(self, at: int, path: Path) -> int:
        """Reads one value with everything in it. Returns where it ends."""
        text = self.text
        open_values: list[tuple[Path, bool]] = []
        counts: list[int] = []
        while True:
            if text[at] in "[{":
                open_values.append((path, text[at] == "["))
                counts.append(0)
                at += 1
            else:
                at = self._scalar_end(at)
            while open_values:
                at = self._skip_blank(at)
                if text[at] == ",":
                    at += 1
                elif text[at] in "]}":
                    open_values.pop()
                    counts.pop()
                    at += 1
                else:
                    break
            if not open_values:
                return at
            parent, is_array = open_values[-1]
            if is_array:
                path = self._element(parent, counts[-1], at)
                counts[-1] += 1
            else:
                at, path = self._assignment(parent, at)

    def _element(self, parent: Path, index: int, at: int) -> Path:
        if len(parent) >= DEPTH_MAX or index >= ELEMENTS_MAX:
            return parent
        return self._note((*parent, index), at, at)

    def _note(self, path: Path, key: int, value: int) -> Path:
        """The first place of a table that has several, [a.b] and [a.c], is where it begins."""
        if len(self.places) < PLACES_MAX:
            self.places.setdefault(path, Place(key, value))
        return path

    def _key(self, at: int) -> tuple[list[tuple[str, int]], int]:
        """The parts of a dotted key with their offsets, and where the key ends."""
        parts: list[tuple[str, int]] = []
        while True:
            at = self._skip_space(at)
            match = _KEY_PART.match(self.text, at)
            if not match:
                raise _LostError
            parts.append((_key_text(match[0]), at))
            at = self._skip_space(match.end())
            if not self.text.startswith(".", at):
                return parts, at
            at += 1

    def _scalar_end(self, at: int) -> int:
        text = self.text
        if text.startswith('"""', at):
            at += 3
            while match := _MULTILINE_STEP.search(text, at):
                at = match.end()
                if match[0] == '"""':
                    return self._skip_quotes(at, '"')
            raise _LostError
        if text.startswith("'''", at):
            return self._skip_quotes(self._after("'''", at + 3), "'")
        if text[at] == "'":
            return self._after("'", at + 1)
        match = _BASIC_END.match(text, at + 1) if text[at] == '"' else _BARE.match(text, at)
        if not match:
            raise _LostError
        return match.end()

    def _after(self, token: str, at: int) -> int:
        """Where the next `token` ends."""
        found = self.text.find(token, at)
        if found < 0:
            raise _LostError
        return found + len(token)

    def _skip_quotes(self, at: int, quote: str) -> int:
        """One or two quotes just before the three that close a multi-line string belong to the string."""
        for _ in range(2):
            if self.text.startswith(quote, at):
                at += 1
        return at

    def _expect(self, token: str, at: int) -> int:
        if not self.text.startswith(token, at):
            raise _LostError
        return at + len(token)

    def _skip_blank(self, at: int) -> int:
        match = _BLANK.match(self.text, at)
        return match.end() if match else at

    def _skip_space(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at


def _key_text(token: str) -> str:
    if token.startswith("'"):
        return token[1:-1]
    if not token.startswith('"'):
        return token
    if "\\" not in token:
        return token[1:-1]
    try:
        return str(tomli.loads(f"k={token}")["k"])
    except tomli.TOMLDecodeError:  # nobody asks for places in a text that tomli has refused
        raise _LostError from None
