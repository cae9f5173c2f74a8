"""One aligned table, of whatever width: in a terminal it never wraps. Pure.

Where a table is wider than the screen, its least important columns go first, then what can be cut is cut. For one long
name in a thousand no column goes: each asks for no more than its `wanted` before others have to.
"""

from collections.abc import Sequence

from relayd.cli.cells import cut, left, printable, right, width
from relayd.values import dataclass

__all__ = ["Column", "lines"]

_GAP = "  "
#: Narrower than this no column is cut: what is left would say nothing.
_CUT_MIN = 6


@dataclass(frozen=True, slots=True)
class Column:
    """`rank` 0 is the last to go. `wanted`: the cells that it may take before a column of higher rank has to go; what
    has none is never cut. `least`: so wide it is anyway, lest a table that is drawn again and again moves about.
    """

    title: str
    rank: int = 0
    numeric: bool = False
    wanted: int | None = None
    least: int = 0


def lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], cells: int | None) -> list[str]:
    """The head of the table and a line for each row, in at most `cells` each; None is as wide as it comes."""
    texts = [[printable(text) for text in row] for row in rows]
    widths = [
        max(column.least, width(column.title), *(width(row[number]) for row in texts))
        for number, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if cells is not None:
        shown = _kept(columns, widths, cells)
        widths = _narrowed(columns, widths, shown, cells)
    made = [_line(columns, [column.title for column in columns], widths, shown)]
    made += [_line(columns, row, widths, shown) for row in texts]
    return made if cells is None else [cut(line, max(1, cells)) for line in made]


def _kept(columns: Sequence[Column], widths: Sequence[int], cells: int) -> list[int]:
    """Numbers of the columns that there is room for."""
    shown = list(range(len(columns)))
    while len(shown) > 1:
        asked = [widths[each] if (most := columns[each].wanted) is None else min(widths[each], most) for each in shown]
        if sum(asked) + len(_GAP) * (len(shown) - 1) <= cells:
            break
        last = max(shown, key=lambda each: (columns[each].rank, each))
        if columns[last].rank == 0:
            break  # these stay, however little of them
        shown.remove(last)
    return shown


def _narrowed(columns: Sequence[Column], widths: Sequence[int], shown: Sequence[int], cells: int) -> list[int]:
    """The widths after cutting: always the widest of those that can be cut."""
    found = list(widths)
    over = sum(found[each] for each in shown) + len(_GAP) * (len(shown) - 1) - cells
    while over > 0:
        able = [each for each in shown if columns[each].wanted is not None and found[each] > _CUT_MIN]
        if not able:
            break
        found[max(able, key=lambda each: found[each])] -= 1
        over -= 1
    return found


def _line(columns: Sequence[Column], row: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> str:
    made = []
    for each in shown:
        text = cut(row[each], widths[each])
        made.append(right(text, widths[each]) if columns[each].numeric else left(text, widths[each]))
    return _GAP.join(made).rstrip()
