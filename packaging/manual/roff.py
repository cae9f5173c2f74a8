"""Texts as roff, in the macros of man(7)."""

import re
from collections.abc import Iterable

_CODE = re.compile(r"`([^`]*)`")
#: Characters that mean something to roff, or that it would set in another form than a terminal can copy.
_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "^": r"\(ha", "~": r"\(ti"})


def escaped(text: str) -> str:
    """`text` as it is. A line is safe to begin with what it begins with."""
    text = text.translate(_ESCAPES)
    return rf"\&{text}" if text.startswith(".") else text


def prose(text: str) -> str:
    """`text` on one line, with what stands in backticks in bold."""
    parts = _CODE.split(text)
    line = "".join(rf"\fB{escaped(part)}\fR" if number % 2 else escaped(part) for number, part in enumerate(parts))
    return rf"\&{line}" if line.startswith(".") else line


def title(name: str, section: int, heading: str) -> str:
    """How a page begins. Nothing in it is hyphenated: a reader may copy a path or a key."""
    return f'.TH {name} {section} "" relayd "{heading}"\n.nh\n.ad l\n'


def section(name: str) -> str:
    """A heading."""
    return f".SH {name}\n"


def subsection(name: str) -> str:
    """A heading below one."""
    return f".SS {escaped(name)}\n"


def paragraph(text: str) -> str:
    """Prose."""
    return f".PP\n{prose(text)}\n"


def literal(text: str) -> str:
    """Lines as they are."""
    lines = "".join(f"{escaped(line)}\n" for line in text.rstrip("\n").split("\n"))
    return f".PP\n.RS 4\n.nf\n{lines}.fi\n.RE\n"


def item(tag: str, *texts: str) -> str:
    """A tag, in roff already, and what there is to say of it."""
    first, *more = texts
    return f".TP\n{tag}\n{prose(first)}\n" + "".join(f".br\n{prose(text)}\n" for text in more if text)


def items(rows: Iterable[tuple[str, str]]) -> str:
    """Tags in bold."""
    return "".join(item(rf"\fB{escaped(tag)}\fR", text) for tag, text in rows)
