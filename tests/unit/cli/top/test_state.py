"""What keys do."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.cli.connections import Sort
from relayd.cli.top.state import (
    Act,
    Kill,
    Page,
    Seen,
    View,
    answered,
    found_in,
    page,
    path,
    pressed,
    settled,
    status_path,
)
from tests.fake_admin import connection

ONES = [connection(number) for number in range(10)]
PAGE = Page(ONES, 4)
KEYS = [
    "up",
    "down",
    "page up",
    "page down",
    "home",
    "end",
    "left",
    "right",
    "enter",
    "escape",
    "backspace",
    *"aninbrptkxy/?q zé",
]


def after(view: View, *keys: str, page: Page = PAGE) -> View:
    for key in keys:
        view, _ = pressed(view, key, page)
    return view


@pytest.mark.parametrize(
    ("keys", "cursor", "offset"),
    [
        (["up"], 0, 0),
        (["down"], 1, 0),
        (["down"] * 4, 4, 1),
        (["down"] * 4 + ["up"] * 3, 1, 1),
        (["page down"], 4, 1),
        (["end"], 9, 6),
        (["end", "home"], 0, 0),
        (["end", "page up", "page up"], 1, 1),
    ],
)
def test_the_cursor_moves(keys: list[str], cursor: int, offset: int) -> None:
    view = after(View(), *keys)
    assert (view.cursor, view.offset) == (cursor, offset)


def test_it_stays_at_its_connection() -> None:
    view = after(View(), "down", "down")
    assert view.selected == "8f76d9-0-2"
    others = Page(ONES[::-1], 4)
    assert (settled(view, others).cursor, settled(view, others).offset) == (7, 4)
    gone = settled(view, Page(ONES[5:], 4))
    assert (gone.cursor, gone.selected) == (2, "")
    assert settled(view, Page([], 4)).cursor == 0


def test_the_first_place_is_a_place() -> None:
    view = after(View(), "down", "up")
    assert (view.cursor, view.selected) == (0, "")
    assert settled(view, Page(ONES[::-1], 4)).cursor == 0


def test_beyond_what_was_asked_for_more_is_asked() -> None:
    view, act = pressed(after(View(), "end"), "down", PAGE)
    assert act is Act.ASK
    assert path(view, 4) == "/v1/connections?sort=rate&limit=11"
    assert settled(view, PAGE).cursor == 9
    assert settled(view, Page([*ONES, connection(10)], 4)).cursor == 10


def test_who_is_faster_than_answers_gets_there() -> None:
    view = after(View(), "end", "page down", "page down")
    late = Page([*ONES, connection(10)], 4, more=True)
    assert answered(view, late) == view
    assert path(view, 4).endswith("limit=18")
    assert answered(view, replace(late, more=False)).cursor == 10


def test_there_is_more_where_the_daemon_can_tell() -> None:
    seen = Seen({}, {"total": 11, "connections": ONES}, 0.0)
    assert page(View(), seen, 4).more
    assert not page(View(filter="web"), seen, 4).more
    assert page(View(filter="listener:web"), seen, 4).more
    assert not page(View(), replace(seen, connections={"total": 10, "connections": ONES}), 4).more


@pytest.mark.parametrize(
    ("key", "sort"),
    [("a", "age"), ("n", "new"), ("i", "idle"), ("b", "bytes"), ("r", "rate"), ("right", "age"), ("left", "bytes")],
)
def test_order(key: str, sort: str) -> None:
    view, act = pressed(View(cursor=3, offset=2, selected="x"), key, PAGE)
    assert (view, act) == (View(sort=Sort(sort)), Act.ASK)


def test_a_filter_is_typed() -> None:
    view = after(View(), *"/10.0q", "backspace")
    assert (view.filter, view.editing) == ("10.0", True)
    assert after(view, "enter") == replace(view, editing=False)
    assert after(view, "enter", "escape") == after(view, "escape") == View()
    assert after(view, "up", "left").filter == "10.0"
    assert len(after(View(editing=True), *"x" * 300).filter) == 200


def test_what_is_asked() -> None:
    assert path(View(), 20) == path(View(filter="client: "), 20) == "/v1/connections?sort=rate&limit=20"
    asked = "/v1/connections?listener=web&client=10.0.0.0%2F8&sort=age&limit=20&tcp_info=yes"
    assert path(View(Sort.AGE, "listener:web client:10.0.0.0/8", tcp_info=True), 20) == asked
    assert path(View(filter="target:a:80 full"), 20) == "/v1/connections?target=a%3A80&sort=rate&limit=1000"
    assert path(View(offset=20_000), 20).endswith("limit=10000")
    assert (status_path(1), status_path(31)) == ("/v1/status?history=yes", "/v1/status")


def test_words_are_looked_for() -> None:
    ones = [connection(1, listener="Web"), connection(2, client="2001:db8::1"), connection(3, state="dialing")]

    def numbers(filter_: str) -> list[Any]:
        return [one["id"][-1] for one in found_in(ones, filter_)]

    assert numbers("") == numbers("listener:web") == ["1", "2", "3"]
    assert numbers("WEB 10.0.0.") == ["1", "3"]
    assert numbers("[2001:db8::1]:30002") == ["2"]
    assert numbers("dial") == ["3"]
    assert numbers("dial 2001") == []


@pytest.mark.parametrize("key", ["k", "x"])
def test_kill_asks(key: str) -> None:
    view = after(View(), "down", key)
    assert view.killing is ONES[1]
    assert pressed(view, "y", PAGE)[1] == Kill("8f76d9-0-1")
    assert pressed(view, "k", PAGE) == (view, None)
    for no in ("n", "escape", "q", "enter"):
        assert pressed(view, no, PAGE) == (replace(view, killing=None, note="nothing was ended"), None)


def test_nothing_to_kill() -> None:
    assert after(View(), "k", page=Page([], 4)) == View(note="there is nothing to end")


def test_the_rest() -> None:
    assert pressed(View(), "q", PAGE)[1] is Act.QUIT
    assert after(View(), "p").paused
    assert not after(View(), "p", " ").paused
    assert after(View(), "t").tcp_info
    assert after(View(), "?").help
    assert after(View(), "?", "z") == View()
    assert pressed(View(help=True), "q", PAGE)[1] is Act.QUIT
    assert after(View(note="x"), "z") == View()


@given(st.lists(st.sampled_from(KEYS), max_size=60), st.integers(0, 12), st.integers(1, 12))
def test_the_cursor_is_always_on_the_screen(keys: list[str], count: int, room: int) -> None:
    view = View()
    for key in keys:
        view, _ = pressed(view, key, Page(found_in(ONES[:count], view.filter), room))
        there = Page(found_in(ONES[:count], view.filter), room)
        drawn = settled(view, there)
        assert 0 <= drawn.offset <= drawn.cursor < drawn.offset + room
        assert drawn.cursor < max(1, len(there.found))
        assert settled(drawn, there) == drawn
