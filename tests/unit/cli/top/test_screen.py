"""What is on the screen."""

from dataclasses import replace
from typing import Any

import pytest

from relayd.cli.cells import width
from relayd.cli.top.screen import Style, lines, room
from relayd.cli.top.state import Seen, View
from tests.fake_admin import connection, status

#: Of "2026-11-26T04:12:30Z".
WALL = 1_795_666_350.0
ONES = [connection(number) for number in range(4)]


def seen(*ones: dict[str, Any], total: int | None = None, complete: bool = True, **changed: Any) -> Seen:
    found = {"total": len(ones) if total is None else total, "complete": complete, "connections": list(ones)}
    return Seen(status(**changed), found, 100.0)


def shown(view: View, what: Seen, columns: int = 110, height: int = 16, now: float = 100.0) -> list[str]:
    return [text.rstrip() for text, _ in lines(view, what, columns, height, now, WALL)]


def styles(view: View, what: Seen) -> list[Style]:
    return [style for _, style in lines(view, what, 110, 16, 100.0, WALL)]


def test_all_of_it() -> None:
    listener = {**status()["listeners"][0], "history": [[0, 0, 0], [5, 1, 1], [5, 2, 6]]}
    assert shown(View(), seen(*ONES, listeners=[listener])) == [
        "relayd 1.2.3, pid 7, up 3d04h, since 2026-11-23T00:12:00Z",
        "12 open, 12 new/s, in 1.2 KiB/s, out 96.7 KiB/s",
        "answered 0 s ago",
        "",
        "listener  type     active    new/s          in/s         out/s      bytes, the last minute",
        "web       stream       12       12     1.2 KiB/s    96.7 KiB/s      ▁▃█",
        "",
        "4 connections, by rate",
        "id          listener  client          target            age    idle         in/s        out/s  state",
        "8f76d9-0-0  web       10.0.0.1:30000  10.1.0.1:8080      0s      0s        0 B/s        0 B/s  open/open",
        "8f76d9-0-1  web       10.0.0.2:30001  10.1.0.2:8080      1s      0s       12 B/s    1.0 KiB/s  open/open",
        "8f76d9-0-2  web       10.0.0.3:30002  10.1.0.3:8080      2s      0s       24 B/s    2.0 KiB/s  open/open",
        "8f76d9-0-3  web       10.0.0.4:30003  10.1.0.1:8080      3s      0s       36 B/s    3.0 KiB/s  open/open",
        "",
        "",
        "q quit  ? help  / filter  k end it  p pause  a age  n new  i idle  b bytes  r rate",
    ]
    assert room(View(), seen(*ONES), 110, 16, 100.0) == 6


def test_totals_where_there_is_room() -> None:
    head, web = shown(View(), seen(*ONES), columns=160)[4:6]
    assert head.split("  ")[0] == "listener"
    assert " accepted        in / out so far " in head
    one = status()["listeners"][0]
    assert f"{one['accepted']:,d}" in web
    assert " / " in web


def test_the_cursor_and_what_does_not_get_on() -> None:
    what = seen(ONES[0], ONES[1], connection(2, out="full"), connection(3, state="dialing", out=None))
    found = styles(View(cursor=1), what)
    assert found[8:13] == [Style.HEAD, Style.PLAIN, Style.CURSOR, Style.WARNING, Style.FAINT]


@pytest.mark.parametrize(
    ("view", "what", "now", "text", "style"),
    [
        (View(), seen(), 103.4, "no answer for 3 s", Style.ERROR),
        (View(), replace(seen(), error="no daemon"), 104.0, "no answer for 4 s: no daemon", Style.ERROR),
        (View(), replace(seen(), refused="client is no address"), 104.0, "refused: client is no address", Style.ERROR),
        (View(paused=True), seen(), 104.0, "paused, 4 s ago: p goes on", Style.WARNING),
        (
            View(),
            seen(complete=False),
            100.0,
            "a worker has not answered in time: what it has is missing",
            Style.WARNING,
        ),
        (View(), seen(), 101.2, "answered 1 s ago", Style.FAINT),
    ],
)
def test_how_old_it_is(view: View, what: Seen, now: float, text: str, style: Style) -> None:
    assert lines(view, what, 110, 16, now, WALL)[2] == (text, style)


def test_what_to_look_at() -> None:
    workers = [{"number": number, "pid": None, "phase": "waiting"} for number in range(5)]
    found = lines(View(), seen(workers=workers), 110, 20, 100.0, WALL)
    assert found[3] == ("worker 0 is waiting, and does not accept", Style.WARNING)
    assert found[6] == ("2 more to look at: relayd status", Style.WARNING)


def test_the_busiest_listeners_are_shown() -> None:
    rate = {"accepted": 0, "bytes_in": 0, "bytes_out": 0}
    base = status()["listeners"][0]
    found = [{**base, "name": f"l{number}", "rate": {**rate, "bytes_in": number}} for number in range(40)]
    texts = shown(View(), seen(listeners=found), height=30)
    assert [text.split()[0] for text in texts[5:8]] == ["l39", "l38", "l37"]
    assert "31 more" in texts
    del found[0]["rate"]  # a daemon before has none
    assert len(shown(View(), seen(listeners=found), height=30)) == 30


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (View(killing=ONES[1]), "end 8f76d9-0-1, 10.0.0.2:30001 -> 10.1.0.2:8080? y/n"),
        (View(editing=True, filter="10."), "/10._  enter: keep it  escape: no filter"),
        (View(note="8f76d9-0-1 is ended"), "8f76d9-0-1 is ended"),
    ],
)
def test_the_last_line(view: View, text: str) -> None:
    assert shown(view, seen(*ONES))[-1] == text


def test_what_the_filter_finds() -> None:
    texts = shown(View(filter="10.0.0.3"), seen(*ONES))
    assert "4 connections, by rate, with 10.0.0.3: 1" in texts
    assert sum("8f76d9" in text for text in texts) == 1
    assert "5,000 connections, by rate, with nope: 0 of the first 1,000" in shown(
        View(filter="nope"), seen(*ONES, total=5000)
    )


def test_it_scrolls() -> None:
    many = seen(*(connection(number) for number in range(100)))
    texts = shown(View(cursor=50, offset=48), many)
    assert [text.split()[0] for text in texts if "8f76d9" in text] == [f"8f76d9-0-{number}" for number in range(48, 54)]


def test_help() -> None:
    texts = shown(View(help=True), seen())
    assert texts[0] == "relayd top"
    assert any(text.startswith("k  ") for text in texts)


@pytest.mark.parametrize("view", [View(), View(help=True), View(tcp_info=True), View(killing=ONES[0]), View(cursor=3)])
def test_it_fits_every_terminal(view: View) -> None:
    names = {"client": "2001:db8:1111:2222:3333:4444:5555:6666", "listener": "漢字" * 20}
    what = seen(*ONES, connection(5, **names), workers=[{"number": 1, "pid": None, "phase": "\x1b[2J"}] * 9)
    for columns in (1, 5, 19, 20, 21, 40, 79, 80, 120, 300):
        for height in (1, 2, 7, 8, 9, 12, 24, 100):
            found = lines(view, what, columns, height, 100.0, WALL)
            assert len(found) <= height
            assert all(width(text) <= columns and text.isprintable() for text, _ in found)


@pytest.mark.parametrize("key", ["status", "connections"])
def test_of_another_version(key: str) -> None:
    what = {"status": status(), "connections": seen().connections, key: {}}
    with pytest.raises((KeyError, TypeError, ValueError)):
        lines(View(), Seen(what["status"], what["connections"], 100.0), 80, 24, 100.0, WALL)
