"""What `relayd top` shows -> lines of a screen. Pure.

relayd 1.2.3, pid 7, up 3d04h                              the daemon, and what all listeners do together
12 open, 34 new/s, in 1.2 MiB/s, out 30.4 MiB/s
answered 0.4 s ago                                         or why not
listener  active  new/s  in/s  out/s  last minutes         the busiest
web           12     34   ...    ...  ▁▂▃▅█
12 connections, by rate                                    and the filter
id  listener  client  target  ...
8f76d9-0-1 ...                                             as many as there is room for
q quit  / filter  ...                                      or a question
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from relayd.cli import connections, tables
from relayd.cli import status as words
from relayd.cli.amounts import UNKNOWN, count, per_second, rate, size
from relayd.cli.cells import cut_end, left, printable
from relayd.cli.connections import client_of
from relayd.cli.tables import Column
from relayd.cli.top.state import SEARCHED, Seen, View, page, settled
from relayd.values import dataclass

__all__ = ["Style", "lines", "room"]

Line: TypeAlias = "tuple[str, Style]"

#: Smaller than this there is room for nothing.
_COLUMNS_MIN, _LINES_MIN = 20, 8
#: What an operator should look at: the first of it.
_TROUBLES = 3
#: The title of the connections, the head of their table, three of them, and the last line: before anything else.
_NOT_FREE = 6
#: The head of the listeners, and a blank line above and below.
_LISTENERS_MIN = 3
#: An answer that old, in intervals of a second, is worth saying loudly.
_STALE_S = 3.0
_BARS = "▁▂▃▄▅▆▇█"
#: One for each 2 s of the history.
_BARS_MAX = 30
_LISTENERS = (
    Column("listener", wanted=24),
    Column("type", 5),
    Column("active", 2, numeric=True, least=7),
    Column("new/s", 1, numeric=True, least=7),
    Column("in/s", numeric=True, least=12),
    Column("out/s", numeric=True, least=12),
    Column("accepted", 7, numeric=True, least=9),
    Column("in / out so far", 6, numeric=True, least=21),
    Column("", 3, least=2),
    Column("bytes, the last minute", 4),
)
_KEYS = "q quit  ? help  / filter  k end it  p pause  a age  n new  i idle  b bytes  r rate"
_HELP = (
    "up, down, page up, page down, home, end   move; the cursor stays at its connection",
    "a n i b r, or left and right              by age, newest, longest idle, bytes, rate",
    "/                                         filter as you type: words are looked for in what is shown;",
    "                                          listener:L, client:ADDR or NET, target:T in all that there is",
    "escape                                    no filter",
    "k                                         end the connection at the cursor, after a yes",
    "t                                         round-trip times and retransmits of TCP",
    "p                                         pause: ask no more until p",
    "q, Ctrl-C                                 quit",
    "",
    "any key                                   back",
)


class Style(enum.Enum):
    """How a line is drawn."""

    PLAIN = "plain"
    BOLD = "bold"
    FAINT = "faint"
    HEAD = "head"
    CURSOR = "cursor"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is above the connections, and what is below."""

    above: Sequence[Line]
    below: Line


def room(view: View, seen: Seen, columns: int, height: int, now: float) -> int:
    """How many connections there is room for. Raises as `lines` does."""
    return max(1, height - len(_parts(view, seen, columns, height, now).above) - 2)


def lines(view: View, seen: Seen, columns: int, height: int, now: float, wall: float) -> list[Line]:
    """`height` lines or fewer, each of at most `columns` cells. `now` is monotonic seconds, `wall` since the epoch.

    Raises KeyError, TypeError or ValueError for an answer that is none of this version.
    """
    if columns < _COLUMNS_MIN or height < _LINES_MIN:
        return [(cut_end("too small", max(1, columns)), Style.WARNING)]
    made: list[Line]
    if view.help:
        made = [("relayd top", Style.BOLD), ("", Style.PLAIN), *((line, Style.PLAIN) for line in _HELP)][:height]
    else:
        parts = _parts(view, seen, columns, height, now, wall)
        made = [*parts.above, *_connections(view, seen, columns, height - len(parts.above) - 1)]
        made += [("", Style.PLAIN)] * (height - 1 - len(made))
        made.append(parts.below)
    filled = (Style.CURSOR, Style.HEAD)
    return [
        (left(shown, columns) if style in filled else shown, style)
        for shown, style in ((cut_end(printable(text), columns), style) for text, style in made)
    ]


def _parts(view: View, seen: Seen, columns: int, height: int, now: float, wall: float = 0.0) -> _Parts:
    status = seen.status
    above: list[Line] = [
        (words.head(status, wall), Style.BOLD),
        (_totals(status["listeners"]), Style.PLAIN),
        _answered(view, seen, now),
    ]
    free = max(0, height - len(above) - _NOT_FREE)
    above += _troubles(words.troubles(status))[:free]
    free = height - len(above) - _NOT_FREE
    if free > _LISTENERS_MIN:
        rows = min(free - _LISTENERS_MIN, height // 3)
        above += [("", Style.PLAIN), *_listeners(status["listeners"], columns, rows), ("", Style.PLAIN)]
    above.append(_title(view, seen))
    return _Parts(above, _below(view))


def _troubles(found: Sequence[str]) -> list[Line]:
    shown = [(one, Style.WARNING) for one in found[:_TROUBLES]]
    more = len(found) - len(shown)
    return [*shown, (f"{count(more)} more to look at: relayd status", Style.WARNING)] if more else shown


def _totals(found: Sequence[Mapping[str, Any]]) -> str:
    rates = [dict(one).get("rate") for one in found]
    known = [each for each in rates if each]

    def total(key: str) -> float | None:
        return sum(float(each[key]) for each in known) if known else None

    return (
        f"{count(sum(int(one['active']) for one in found))} open, {per_second(total('accepted'))} new/s, "
        f"in {rate(total('bytes_in'))}, out {rate(total('bytes_out'))}"
    )


def _answered(view: View, seen: Seen, now: float) -> Line:
    age_s = max(0.0, now - seen.at)
    if seen.error:
        return f"no answer for {age_s:.0f} s: {seen.error}", Style.ERROR
    if seen.refused:
        return f"refused: {seen.refused}", Style.ERROR
    if view.paused:
        return f"paused, {age_s:.0f} s ago: p goes on", Style.WARNING
    if age_s > _STALE_S:
        return f"no answer for {age_s:.0f} s", Style.ERROR
    if not seen.connections["complete"]:
        return "a worker has not answered in time: what it has is missing", Style.WARNING
    return f"answered {age_s:.0f} s ago", Style.FAINT


def _listeners(found: Sequence[Mapping[str, Any]], columns: int, rows: int) -> list[Line]:
    """The busiest `rows` of them, and how many are left out."""
    busiest = sorted(found, key=_busy, reverse=True)
    shown = busiest if len(busiest) <= rows else busiest[: max(1, rows - 1)]
    head, *texts = tables.lines(_LISTENERS, [_listener(one) for one in shown], columns)
    made = [(head, Style.HEAD), *((text, Style.PLAIN) for text in texts)]
    more = len(found) - len(shown)
    return [*made, (f"{count(more)} more", Style.FAINT)] if more else made


def _busy(one: Mapping[str, Any]) -> tuple[float, int]:
    rates = dict(one).get("rate") or {"bytes_in": 0, "bytes_out": 0}
    return float(rates["bytes_in"]) + float(rates["bytes_out"]), int(one["active"])


def _listener(one: Mapping[str, Any]) -> tuple[str, ...]:
    rates = dict(one).get("rate") or {}
    return (
        str(one["name"]),
        str(one["type"]),
        count(one["active"]),
        per_second(rates.get("accepted")),
        rate(rates.get("bytes_in")),
        rate(rates.get("bytes_out")),
        count(one["accepted"]),
        f"{size(one['bytes_in'])} / {size(one['bytes_out'])}",
        "",
        _bars(dict(one).get("history") or ()),
    )


def _bars(history: Sequence[Sequence[float]]) -> str:
    """Bytes of both directions over the last minute, a bar for each 2 s."""
    values = [float(into) + float(out) for _, into, out in history[-_BARS_MAX:]]
    most = max(values, default=0.0)
    if not most:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * len(_BARS)))] for value in values)


def _title(view: View, seen: Seen) -> Line:
    total = int(seen.connections["total"])
    text = f"{count(total)} connection{'' if total == 1 else 's'}, by {view.sort.value}"
    if view.filter:
        found = page(view, seen, 1).found
        text += f", with {view.filter}: {count(len(found))}"
        if total > SEARCHED and len(found) < total:
            text += f" of the first {count(SEARCHED)}"
    return text, Style.BOLD


def _connections(view: View, seen: Seen, columns: int, height: int) -> list[Line]:
    """The head of their table, and those for which there is room."""
    found = page(view, seen, height - 1)
    view = settled(view, found)
    shown = found.found[view.offset : view.offset + found.room]
    head, *texts = tables.lines(
        connections.columns(tcp_info=view.tcp_info, steady=True),
        [connections.row(one, tcp_info=view.tcp_info) for one in shown],
        columns,
    )
    styles = [Style.CURSOR if view.offset + number == view.cursor else _style(one) for number, one in enumerate(shown)]
    return [(head, Style.HEAD), *zip(texts, styles, strict=True)]


def _style(one: Mapping[str, Any]) -> Style:
    """What does not get on is to be seen."""
    if one["state"] == "dialing":
        return Style.FAINT
    return Style.WARNING if one["state"] != "relaying" or "full" in (one["in"], one["out"]) else Style.PLAIN


def _below(view: View) -> Line:
    if view.killing is not None:
        one = view.killing
        target = str(one["target"]) or UNKNOWN
        return f"end {one['id']}, {client_of(one)} -> {target}? y/n", Style.ERROR
    if view.editing:
        return f"/{view.filter}_  enter: keep it  escape: no filter", Style.BOLD
    return (view.note, Style.WARNING) if view.note else (_KEYS, Style.FAINT)
