"""What `relayd top` shows and asks for, and what keys make of it. Pure.

    key ─▶ pressed(view, key, page) ─▶ view, and perhaps an act: quit, ask, kill
    answer ─▶ answered(view, page): the cursor stays at its connection, wherever that is now

A filter is words, as they are typed. `listener:L`, `client:ADDR`, `target:T` are asked of the daemon, and hold for all
that it has; other words are looked for in what it has sent.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from relayd.cli import connections
from relayd.cli.connections import LIMIT_MAX, Sort, client_of
from relayd.values import dataclass

__all__ = [
    "Act",
    "Kill",
    "Page",
    "Seen",
    "View",
    "answered",
    "found_in",
    "page",
    "path",
    "pressed",
    "settled",
    "status_path",
]

One: TypeAlias = Mapping[str, Any]

#: Among so many, the first by the order that is shown, words are looked for: all of them would be megabytes a second.
SEARCHED = 1000
#: Of so many listeners the history is asked for, which is as long as a hundred connections.
_HISTORIES_MAX = 30
_ASKED = ("listener", "client", "target")
_SORTS = {"a": Sort.AGE, "n": Sort.NEW, "i": Sort.IDLE, "b": Sort.BYTES, "r": Sort.RATE}
_ORDER = tuple(Sort)
_FILTER_MAX = 200


class Act(enum.Enum):
    """What a key wants done."""

    QUIT = "quit"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Kill:
    """End this connection."""

    id: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What the daemon has said last, and when (monotonic seconds); `error`: why it has not since; `refused`: why it has
    told no connections.
    """

    status: Mapping[str, Any]
    connections: Mapping[str, Any]
    at: float
    error: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """`cursor` counts from the first of what is found, `offset` is the first on the screen. `selected` is the id of the
    connection that the cursor stays at, "" while it is at a place. `editing`: keys go to the filter. `killing`: whether
    this one is to be ended is asked. `note`: what was done last.
    """

    sort: Sort = Sort.RATE
    filter: str = ""
    editing: bool = False
    cursor: int = 0
    offset: int = 0
    selected: str = ""
    killing: One | None = None
    paused: bool = False
    help: bool = False
    tcp_info: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The connections that the filter finds, and how many of them the screen has room for, 1 or more. `more`: the
    daemon has others, which it has not been asked for.
    """

    found: Sequence[One]
    room: int
    more: bool = False


def page(view: View, seen: Seen, room: int) -> Page:
    """As it is now. Raises KeyError, TypeError or ValueError for what is no answer of this version."""
    sent = seen.connections["connections"]
    more = len(sent) < min(int(seen.connections["total"]), LIMIT_MAX) and not _parted(view.filter)[1]
    return Page(found_in(sent, view.filter), max(1, room), more)


def found_in(ones: Sequence[One], filter_: str) -> Sequence[One]:
    """Those in which every word is found that the daemon was not asked for."""
    words = _parted(filter_)[1]
    return [one for one in ones if _has(one, words)] if words else ones


def path(view: View, room: int) -> str:
    """What to ask for connections: no more than can be seen, where the daemon itself can tell."""
    asked, words = _parted(view.filter)
    limit = SEARCHED if words else min(view.offset + max(1, room), LIMIT_MAX)
    return connections.path({**asked, "sort": view.sort.value, "limit": limit, "tcp_info": view.tcp_info})


def status_path(listeners: int) -> str:
    """What to ask for the status, where there are so many listeners."""
    return "/v1/status?history=yes" if listeners <= _HISTORIES_MAX else "/v1/status"


def settled(view: View, page: Page) -> View:
    """The cursor is on a connection, its own if that is still there, and on the screen."""
    cursor, selected = view.cursor, view.selected
    if selected:
        at = next((number for number, one in enumerate(page.found) if one["id"] == selected), None)
        cursor, selected = (cursor, "") if at is None else (at, selected)
    cursor = max(0, min(cursor, len(page.found) - 1))
    offset = max(0, min(view.offset, len(page.found) - page.room))
    offset = min(max(offset, cursor - page.room + 1), cursor)
    return replace(view, cursor=cursor, offset=offset, selected=selected)


def answered(view: View, page: Page) -> View:
    """As `settled`; but who has gone on, beyond what this answer has, gets there with the next one."""
    return view if page.more and view.cursor >= len(page.found) else settled(view, page)


def pressed(view: View, key: str, page: Page) -> tuple[View, Act | Kill | None]:
    """What a key makes of it."""
    if view.killing is not None:
        return _answered(view, view.killing, key)
    if view.editing:
        return _edited(view, key)
    if view.help:
        return replace(view, help=False), Act.QUIT if key == "q" else None
    view = replace(view, note="")
    if key in _SORTS or key in ("left", "right"):
        return _sorted(view, key), Act.ASK
    match key:
        case "q":
            return view, Act.QUIT
        case "?" | "h":
            return replace(view, help=True), None
        case "/":
            return replace(view, editing=True), None
        case "escape":
            return replace(view, filter=""), Act.ASK
        case "p" | " ":
            return replace(view, paused=not view.paused), Act.ASK
        case "t":
            return replace(view, tcp_info=not view.tcp_info), Act.ASK
        case "k" | "x":
            if not page.found:
                return replace(view, note="there is nothing to end"), None
            return replace(view, killing=page.found[min(view.cursor, len(page.found) - 1)]), None
    return _moved(view, key, page)


def _moved(view: View, key: str, page: Page) -> tuple[View, Act | None]:
    last = len(page.found) - 1
    steps = {"up": -1, "down": 1, "page up": -page.room, "page down": page.room, "home": -view.cursor, "end": last}
    if key not in steps or last < 0:
        return view, None
    if key in ("down", "page down") and view.cursor + steps[key] > last:
        # What follows has not been asked for: it comes with the next answer.
        offset = view.offset + (1 if key == "down" else page.room)
        return replace(view, cursor=view.cursor + steps[key], offset=offset, selected=""), Act.ASK
    cursor = max(0, min(view.cursor + steps[key], last))
    selected = (
        str(page.found[cursor]["id"]) if cursor else ""
    )  # the first place is a place: who is first is of interest
    return settled(replace(view, cursor=cursor, selected=selected), page), None


def _sorted(view: View, key: str) -> View:
    if key in _SORTS:
        sort = _SORTS[key]
    else:
        sort = _ORDER[(_ORDER.index(view.sort) + (1 if key == "right" else -1)) % len(_ORDER)]
    return replace(view, sort=sort, cursor=0, offset=0, selected="")


def _edited(view: View, key: str) -> tuple[View, Act | None]:
    match key:
        case "enter":
            return replace(view, editing=False), Act.ASK
        case "escape":
            return replace(view, editing=False, filter=""), Act.ASK
        case "backspace":
            text = view.filter[:-1]
        case _:
            text = view.filter + key if len(key) == 1 and len(view.filter) < _FILTER_MAX else view.filter
    return replace(view, filter=text, cursor=0, offset=0, selected=""), Act.ASK


def _answered(view: View, killing: One, key: str) -> tuple[View, Kill | None]:
    if key in ("y", "Y"):
        return replace(view, killing=None, note=""), Kill(str(killing["id"]))
    if key in ("n", "N", "escape", "q", "enter"):
        return replace(view, killing=None, note="nothing was ended"), None
    return view, None


def _parted(filter_: str) -> tuple[dict[str, str], list[str]]:
    """What the daemon is asked for, and the words to look for, in small letters."""
    asked: dict[str, str] = {}
    words = []
    for word in filter_.split():
        key, colon, value = word.partition(":")
        if colon and key in _ASKED:
            if value:  # else it is still being typed
                asked[key] = value
        else:
            words.append(word.lower())
    return asked, words


def _has(one: One, words: Sequence[str]) -> bool:
    text = " ".join(
        (str(one["id"]), str(one["listener"]), client_of(one), str(one["target"]), str(one["type"]), str(one["state"]))
    )
    text = text.lower()
    return all(word in text for word in words)
