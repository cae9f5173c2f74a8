"""Text in the cells of a terminal: what it may say there, how many it takes, and how it is cut. Pure.

Names come from files and from other machines. What is not printable (control characters, marks that turn the direction
of writing, bytes that are no UTF-8) is shown as Python would write it, so that it does nothing to a terminal.
"""

import unicodedata

#: At the place where something is left out.
ELLIPSIS = "…"
#: What east_asian_width says of a character that takes two cells.
_WIDE = ("F", "W")
#: Categories of characters that are drawn over the one before.
_NO_CELL = ("Me", "Mn")


def printable(text: str) -> str:
    r"""`text` on one line, with nothing in it that acts on a terminal: `\x1b`, `\n`, `\u202e`."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def width(text: str) -> int:
    """How many cells `text` takes, which is printable."""
    if text.isascii():
        return len(text)
    return sum(map(_cells, text))


def cut(text: str, cells: int) -> str:
    """`text` in at most so many cells, 1 or more. What is left out is in the middle: addresses differ at both ends."""
    if width(text) <= cells:
        return text
    end = (cells - 1) // 2
    head, tail = _first(text, cells - 1 - end), _first(text[::-1], end)[::-1]
    return f"{head}{ELLIPSIS}{tail}"


def cut_end(text: str, cells: int) -> str:
    """As `cut`, and what is left out is the end: of what is read from the left."""
    if width(text) <= cells:
        return text
    return f"{_first(text, cells - 1)}{ELLIPSIS}" if cells > 0 else ""


def left(text: str, cells: int) -> str:
    """`text` at the left of so many cells."""
    return text + " " * (cells - width(text))


def right(text: str, cells: int) -> str:
    """`text` at the right of so many cells."""
    return " " * (cells - width(text)) + text


def _first(text: str, cells: int) -> str:
    """As many characters as fit."""
    taken = 0
    for number, character in enumerate(text):
        taken += _cells(character)
        if taken > cells:
            return text[:number]
    return text


def _cells(character: str) -> int:
    if unicodedata.category(character) in _NO_CELL:
        return 0
    return 2 if unicodedata.east_asian_width(character) in _WIDE else 1
