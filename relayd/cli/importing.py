"""`relayd import`: a file of another relay in, the text of a relay.toml out."""

import codecs
import os
import re
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from relayd.config import ConfigError, Problem, load
from relayd.config.document import FILE_BYTES_MAX
from relayd.config.problems import printable
from relayd.errors import RelaydError
from relayd.imports import Dialect
from relayd.imports.draft import Leftover
from relayd.imports.loadable import loadable
from relayd.imports.rendering import opening_lines, to_toml
from relayd.imports.text import shown
from relayd.imports.translation import detect, translate
from relayd.values import dataclass

STANDARD_INPUT = "-"
#: More than anybody reads: a file that is of another kind altogether has one in each line.
LEFTOVERS_SHOWN = 1000
_NOBODY_KNOWS = "cannot tell whose configuration it is: say so by --from rinetd, haproxy or nginx"
_OPEN = "WARNING: rules about who may connect were not carried over ({}): what was imported is open to everybody"


class NotImported(RelaydError):
    """Nothing came of it, for the reason that `str(error)` tells."""


@dataclass(frozen=True, slots=True)
class Result:
    """The text of a relay.toml, "" when nothing was imported, and lines about what was not carried over."""

    toml: str
    complaints: tuple[str, ...]


def import_file(name: str, dialect: Dialect | None) -> Result:
    """What comes of the file `name`, or of standard input. What it says is checked by the loader of relayd, which
    resolves host names in binds. Raises NotImported when it cannot be read, or nobody knows what it is.
    """
    file = "standard input" if name == STANDARD_INPUT else name
    text = _text(_read(name, file), file)
    found = dialect or detect(text)
    if found is None:
        raise NotImported(f"relayd: {printable(file)}: {_NOBODY_KNOWS}")
    imported = loadable(translate(text, found, _service), file, _problems)
    complaints = [_line(file, one) for one in imported.leftovers[:LEFTOVERS_SHOWN]]
    if len(imported.leftovers) > LEFTOVERS_SHOWN:
        complaints.append(f"relayd: {printable(file)}: and {len(imported.leftovers) - LEFTOVERS_SHOWN} more")
    if not imported.drafts:
        complaints.append(f"relayd: {printable(file)}: there is nothing to import ({found.value})")
    elif any(one.opens for one in imported.leftovers):
        complaints.append(_OPEN.format(opening_lines(imported.leftovers)))
    return Result(to_toml(imported, file) if imported.drafts else "", tuple(complaints))


def _line(file: str, one: Leftover) -> str:
    place = f"{printable(file)}:{one.line}" if one.line else printable(file)
    return f"{place}: {shown(one.text)}: {printable(one.reason)}"


def _read(name: str, file: str) -> bytes:
    """At most a byte more than `FILE_BYTES_MAX`: whatever is read may have no end."""
    try:
        if name == STANDARD_INPUT:
            return sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if sys.stdin else b""
        with open(name, "rb") as stream:
            return stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise NotImported(f"relayd: {printable(file)}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the path
        raise NotImported(f"relayd: {printable(file)}: cannot be read: {error}") from None


def _text(data: bytes, file: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise NotImported(f"relayd: {printable(file)}: has more than {FILE_BYTES_MAX // 1024**2} MiB")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise NotImported(f"relayd: {printable(file)}:{line}: a NUL byte: this is not a text file")
    # Comments in an old encoding are no reason to fail. Elsewhere the loader refuses what comes of it.
    return data.removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")


def _problems(toml: str) -> tuple[Problem, ...]:
    """What the loader says of `toml`. It reads files, so that there is one, for as long as it takes."""
    descriptor, path = tempfile.mkstemp(suffix=".toml", prefix="relayd-import-")
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(toml)
        load(Path(path))
    except ConfigError as error:
        here = re.compile(rf"(:| at) {re.escape(path)}:\d+:\d+")  # a place that nobody else can see
        return tuple(replace(problem, message=here.sub("", problem.message)) for problem in error.problems)
    finally:
        os.unlink(path)
    return ()


def _service(name: str, proto: str) -> int | None:
    try:
        return socket.getservbyname(name, proto)
    except (OSError, ValueError):
        return None
