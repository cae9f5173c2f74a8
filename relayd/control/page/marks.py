"""Pieces of HTML, and numbers as people read them. Pure.

A name of a listener, a reason and a client's address are texts of others. So a `Markup` is made by `text`, which
escapes, and by what puts markups together: mypy finds a text that would become a part of the page as it stands.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NewType

__all__ = [
    "UNKNOWN",
    "Markup",
    "address",
    "cell",
    "join",
    "lasting",
    "line",
    "number",
    "rate",
    "row",
    "size",
    "state",
    "text",
]

Markup = NewType("Markup", str)

#: In place of a number that is not known.
UNKNOWN = "–"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
#: Of a line, in its own units: it is as wide as its cell.
_WIDTH, _HEIGHT = 100, 30
#: Of a full history; one that has just begun is at the right.
_POINTS = 60
#: One more class of a cell, by whether only a wide page has it.
_WIDE = {True: " wide", False: ""}
#: Above the highest point, and below the lowest: half of what the line is wide.
_MARGIN = 1


def text(value: object) -> Markup:
    """Says what `value` says, and no more."""
    return Markup(escape(str(value)))


def address(value: object) -> Markup:
    """The same of an address, which may go on in another line after a colon, a slash or a dash."""
    return Markup(re.sub("([:/-])", r"\1<wbr>", text(value)))


def join(pieces: Iterable[Markup]) -> Markup:
    """One after the other."""
    return Markup("".join(pieces))


def cell(main: object, more: object = "", *, head: bool = False) -> Markup:
    """A cell of a table: what it says, `more` in small below it. `head`: it says what its row is about."""
    tag, scope = ("th", ' scope="row"') if head else ("td", "")
    below = f"<small>{address(more)}</small>" if more != "" else ""
    return Markup(f"<{tag}{scope}>{address(main)}{below}</{tag}>")


def number(main: object, more: object = "", *, wide: bool = False) -> Markup:
    """The same for numbers, which are never cut in two. `wide`: left out on a phone."""
    below = f"<small>{text(more)}</small>" if more != "" else ""
    return Markup(f'<td class="number{_WIDE[wide]}">{text(main)}{below}</td>')


def state(name: str, more: str) -> Markup:
    """A cell with the state of a target: a word, and a dot of its colour beside it."""
    return Markup(f'<td><span class="state {text(name)}">{text(name)}</span><small>{text(more)}</small></td>')


def row(*cells: Markup) -> Markup:
    """A row of a table."""
    return Markup(f"<tr>{join(cells)}</tr>\n")


def line(values: Sequence[float]) -> Markup:
    """A cell with a small graph from the oldest value to the newest, from 0 up to the highest. Who does not see it
    has the same in numbers beside it.
    """
    if len(values) < 2:
        return Markup('<td class="line"></td>')
    top = max(*values, 1e-9)
    step, scale = _WIDTH / (_POINTS - 1), (_HEIGHT - 2 * _MARGIN) / top
    first = _WIDTH - (len(values) - 1) * step
    points = " ".join(
        f"{first + index * step:.1f},{_HEIGHT - _MARGIN - max(value, 0.0) * scale:.1f}"
        for index, value in enumerate(values)
    )
    return Markup(
        f'<td class="line"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<polygon class="area" points="{first:.1f},{_HEIGHT} {points} {_WIDTH},{_HEIGHT}"/>'
        f'<polyline class="edge" points="{points}"/></svg></td>'
    )


def size(count: float | None) -> str:
    """`1.5 MiB`: three digits or so."""
    if count is None:
        return UNKNOWN
    value, unit = float(count), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.{1 if unit and value < 99.95 else 0}f} {_UNITS[unit]}"


def rate(per_s: float | None) -> str:
    """`1.5 MiB/s`."""
    return UNKNOWN if per_s is None else f"{size(per_s)}/s"


def lasting(seconds: float) -> str:
    """`4s`, `3m`, `2h`, `5d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s" if seconds >= 1 else "<1s"
