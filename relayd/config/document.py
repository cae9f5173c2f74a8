"""One file of the configuration: read within bounds, decoded, parsed, and able to say where each key stands."""

import codecs
import functools
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import tomli

from relayd.config.positions import Path, Positions
from relayd.config.problems import Problem, key_text, printable

#: The largest file that is read. 65,535 listeners, one for each port, take some 7 MB; what is larger is a mistake,
#: and parsing it would hold the daemon up.
FILE_BYTES_MAX = 8 * 1024 * 1024
#: Python's own limit on decimal integers (3.11), held here for every version: converting takes quadratic time.
DIGITS_MAX = 4300

_DIGITS = re.compile(rf"(?<![0-9_])[0-9](?:_?[0-9]){{{DIGITS_MAX},}}")
#: How tomli ends every message (TOMLDecodeError has attributes for it only since 2.1).
_TOMLI_PLACE = re.compile(r" \(at (?:line ([0-9]+), column ([0-9]+)|end of document)\)\Z")
_TOMLI_DECLARED = re.compile(r"Cannot declare \((.*)\) twice\Z", re.DOTALL)

#: A value that is neither in quotes nor anything else, and what tomli says about it.
_BARE_VALUE = re.compile(r"=\s*([^\s\"'\[\]{},#]+)")
_WITHOUT_QUOTES = ("Invalid value", "Expected newline or end of document")
#: tomli's messages in the voice of the others.
_FRIENDLY = {
    "Invalid value": "the value is missing or incomplete",
    "Invalid statement": "neither a key, a [table] nor a comment",
    "Expected '=' after a key in a key/value pair": "a key is followed by = and its value",
    "Expected newline or end of document after a statement": "one key to a line: something follows the value",
    "Unterminated string": "the string is not closed",
    'Expected "\'"': "the string is not closed",
    "Expected \"'''\"": "the string is not closed",
    "Unclosed array": "the array is not closed, or a comma is missing",
    "Unclosed inline table": "the table is not closed, or a comma is missing",
}

_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a named pipe"),
    (stat.S_ISSOCK, "is a socket"),
    (stat.S_ISCHR, "is a device"),
    (stat.S_ISBLK, "is a device"),
)


class UnreadableError(Exception):
    """The file cannot be used at all. `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class Document:
    """A file that tomli has accepted. `data` is what it means; `text` is what it says."""

    file: str
    text: str
    data: dict[str, Any]

    @functools.cached_property
    def _positions(self) -> Positions:
        return Positions(self.text)

    @functools.cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    def place_of_value(self, path: Path) -> str:
        """`file:line:column` of the value at `path`, to be named in a message about something else."""
        line, column = self._positions.of_value(path)
        return f"{printable(self.file)}:{line}:{column}"

    def place_of_key(self, path: Path) -> str:
        """As `place_of_value`, of the key."""
        line, column = self._positions.of_key(path)
        return f"{printable(self.file)}:{line}:{column}"

    def problem(self, path: Path, message: str, suggestion: str = "", *, at_key: bool = False) -> Problem:
        """What is wrong with the value at `path`, or with its key; where there is none, with the table around it."""
        line, column = self._positions.of_key(path) if at_key else self._positions.of_value(path)
        return Problem(self.file, line, column, key_text(path), message, self._lines[line - 1], suggestion)


def read(path: FilePath) -> Document:
    """Reads and parses `path`. Never blocks on what is not a regular file. Raises UnreadableError and nothing else."""
    file = str(path)
    text = _decode(file, _bytes(path, file))
    digits = _DIGITS.search(text)
    if digits:
        raise UnreadableError(_at(file, text, digits.start(), f"a number of more than {DIGITS_MAX} digits"))
    try:
        return Document(file, text, tomli.loads(text))
    except tomli.TOMLDecodeError as error:
        raise UnreadableError(_syntax_problem(file, text, str(error))) from None
    except RecursionError:
        raise UnreadableError(Problem(file, 0, 0, "", "arrays or tables are nested too deeply")) from None
    except (ValueError, OverflowError) as error:  # a value that Python cannot hold, such as a date in the year 0
        raise UnreadableError(Problem(file, 0, 0, "", f"a value is out of range: {error}")) from None


def meaning(text: str) -> dict[str, Any] | None:
    """What some TOML means that need not be a configuration; None where it is none."""
    if _DIGITS.search(text):
        return None
    try:
        return tomli.loads(text)
    except (ValueError, OverflowError, RecursionError):
        return None


def _bytes(path: FilePath, file: str) -> bytes:
    try:
        _require_regular(file, path.stat().st_mode)  # before open: opening a device may already do something
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            _require_regular(file, os.fstat(descriptor).st_mode)
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UnreadableError(Problem(file, 0, 0, "", f"cannot be read: {error.strerror or error}")) from None
    except ValueError as error:  # a NUL in the path
        raise UnreadableError(Problem(file, 0, 0, "", f"cannot be read: {error}")) from None
    if len(data) > FILE_BYTES_MAX:
        message = f"has more than {FILE_BYTES_MAX // 1024**2} MiB; split it with include"
        raise UnreadableError(Problem(file, 0, 0, "", message))
    return data


def _require_regular(file: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        what = next((text for test, text in _KINDS if test(mode)), "is no file")
        raise UnreadableError(Problem(file, 0, 0, "", f"{what}, not a file"))


def _decode(file: str, data: bytes) -> str:
    """The text, its line ends as \\n as TOML has them, without the byte order mark that some editors put in front."""
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        shown = before + data[error.start :].decode(errors="replace")
        message = f"byte 0x{data[error.start]:02x} is not UTF-8 text"
        raise UnreadableError(_at(file, shown, len(before), message, "help: save the file as UTF-8")) from None
    nul = text.find("\0")
    if nul >= 0:
        raise UnreadableError(_at(file, text, nul, "a NUL byte: this is not a text file"))
    return text.replace("\r\n", "\n")


def _at(file: str, text: str, offset: int, message: str, suggestion: str = "") -> Problem:
    """A problem at an offset in `text`, about no key."""
    line = text.count("\n", 0, offset) + 1
    start = text.rfind("\n", 0, offset) + 1
    source_line = text[start:].partition("\n")[0].rstrip("\r")
    return Problem(file, line, offset - start + 1, "", message, source_line, suggestion)


def _syntax_problem(file: str, text: str, error: str) -> Problem:
    found = _TOMLI_PLACE.search(error)
    message = error[: found.start()] if found else error
    offset = _offset(text, int(found[1]), int(found[2])) if found and found[1] else len(text.rstrip())
    if not found or not found[1]:
        offset = max(0, offset - 1) if message == "Cannot overwrite a value" else offset
    line_start = text.rfind("\n", 0, offset) + 1
    line = text[line_start:].partition("\n")[0]
    declared = _TOMLI_DECLARED.match(message)
    if declared or message == "Cannot overwrite a value":
        return _twice(file, text, line_start, line)
    bare = _BARE_VALUE.search(line)
    if bare and bare.start(1) <= offset - line_start < bare.end(1) and message.startswith(_WITHOUT_QUOTES):
        help_text = f'help: write "{bare[1]}"'
        return _at(file, text, line_start + bare.start(1), "a string stands in quotes", help_text)
    return _at(file, text, offset, _FRIENDLY.get(message) or message[:1].lower() + message[1:])


def _offset(text: str, line: int, column: int) -> int:
    start = 0
    for _ in range(line - 1):
        start = text.find("\n", start) + 1
    return start + column - 1


def _twice(file: str, text: str, line_start: int, line: str) -> Problem:
    """A table or key that stands twice; tomli notices at the end of the second, often on the line after a key."""
    if not line.strip() or line.strip().startswith("#"):
        line_start = text.rfind("\n", 0, max(0, line_start - 1)) + 1
        line = text[line_start:].partition("\n")[0]
    statement = line.split("#")[0].strip()
    what = statement if statement.startswith("[") else statement.partition("=")[0].strip()
    indent = len(line) - len(line.lstrip())
    suggestion = ""
    if statement.startswith("["):
        for number, earlier in enumerate(text[:line_start].split("\n"), 1):
            if earlier.split("#")[0].strip() == statement:
                suggestion = f"help: the first is in line {number}"
                break
    return _at(file, text, line_start + indent, f"{what} stands twice", suggestion)
