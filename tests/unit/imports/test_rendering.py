"""Drafts as text."""

import dataclasses

import pytest
import tomli

from relayd.imports.draft import Draft, Home, Imported, Leftover, Place, Setting
from relayd.imports.rendering import LINES_SHOWN, opening_lines, to_toml


def draft(
    name: str = "web",
    settings: dict[str, Setting] | None = None,
    types: tuple[str, ...] = ("stream",),
    **more: Setting,
) -> Draft:
    return Draft(
        name,
        3,
        "listen web",
        types,
        (Place("0.0.0.0:80", 4),),
        (Place("10.0.0.1:80", 5),),
        {**(settings or {}), **more},
    )


def imported(*drafts: Draft) -> Imported:
    return Imported(drafts, (), {}, ())


def test_a_listener() -> None:
    found = imported(
        draft(
            "a.b",
            None,
            ("stream", "dgram"),
            session_timeout=Setting("5s", 1),
            keepalive=Setting({"idle": "5s", "probes": 3}, 1),
            backlog=Setting(5, 1, "why"),
            fast_open=Setting(True, 1),
        )
    )
    assert to_toml(found, "haproxy.cfg") == (
        "# From haproxy.cfg, by `relayd import`.\n"
        "\n"
        "# Line 3: listen web\n"
        '[listeners."a.b"]\n'
        'type = ["stream", "dgram"]\n'
        'bind = "0.0.0.0:80"\n'
        "backlog = 5 # why\n"
        "fast_open = true\n"
        'targets = ["10.0.0.1:80"]\n'
        'keepalive = { idle = "5s", probes = 3 }\n'
        'session_timeout = "5s"\n'
    )


def test_what_all_agree_on_is_a_default() -> None:
    both = {"idle_timeout": Setting("5s", 1, "why"), "connect_timeout": Setting("1s", 1)}
    found = imported(
        draft("a", both), draft("b", {**both, "connect_timeout": Setting("2s", 1)}), draft("c", None, ("dgram",))
    )
    data = tomli.loads(to_toml(found, "x"))
    assert data["defaults"] == {"idle_timeout": "5s"}
    assert [list(data["listeners"][name]) for name in "abc"] == [
        ["bind", "targets", "connect_timeout"],
        ["bind", "targets", "connect_timeout"],
        ["type", "bind", "targets"],
    ]
    assert "defaults" not in tomli.loads(to_toml(imported(draft("a", both)), "x"))
    assert "defaults" not in tomli.loads(to_toml(imported(draft("a", both), draft("b")), "x"))


def test_a_default_keeps_what_is_said_of_it_when_all_say_it() -> None:
    first, second = Setting("5s", 1, "why"), Setting("5s", 2, "another")
    assert 'idle_timeout = "5s" # why\n' in to_toml(
        imported(draft("a", idle_timeout=first), draft("b", idle_timeout=first)), "x"
    )
    assert 'idle_timeout = "5s"\n' in to_toml(
        imported(draft("a", idle_timeout=first), draft("b", idle_timeout=second)), "x"
    )


def test_a_long_comment_stands_above() -> None:
    text = to_toml(imported(draft(idle_timeout=Setting("5s", 1, "because " * 20))), "x")
    assert "\n# because because" in text
    assert '\nidle_timeout = "5s"\n' in text


def test_many_targets_stand_one_below_the_other() -> None:
    many = tuple(Place(f"10.0.0.{number}:80", 5) for number in range(1, 20))
    text = to_toml(imported(dataclasses.replace(draft(), targets=many)), "x")
    assert '\ntargets = [\n    "10.0.0.1:80",\n' in text
    assert tomli.loads(text)["listeners"]["web"]["targets"] == [place.text for place in many]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place("a:1", 5), '"a:1"'),
        (Place("a:1", 5, weight=2), '{ address = "a:1", weight = 2 }'),
        (Place("a:1", 5, backup=True), '{ address = "a:1", backup = true }'),
        (Place("a:1", 5, 2, backup=True), '{ address = "a:1", weight = 2, backup = true }'),
        (Place("a:1", 5, max_connections=7), '{ address = "a:1", max_connections = 7 }'),
    ],
)
def test_a_target_with_a_share_is_a_table(place: Place, expected: str) -> None:
    one = dataclasses.replace(draft(), targets=(Place("b:1", 5), place))
    assert f'\ntargets = ["b:1", {expected}]\n' in to_toml(imported(one), "x")


CHECK = Setting(
    {"type": "http", "status": (200, "300-399"), "send": {"hex": "00"}, "interval": "2s"}, 1, "why it is so"
)


def test_a_health_check() -> None:
    text = to_toml(imported(draft(health_check=CHECK, fail_open=Setting(False, 1), slow_start=Setting("5s", 1))), "x")
    assert text.endswith(
        'targets = ["10.0.0.1:80"]\n# why it is so\n'
        'health_check = { type = "http", status = [200, "300-399"], send = { hex = "00" }, interval = "2s" }\n'
        'fail_open = false\nslow_start = "5s"\n'
    )


def shared(name: str, **settings: Setting) -> Draft:
    return dataclasses.replace(draft(name, settings), home=Home("db", 9, "backend db"), about_targets="why")


def test_a_pool() -> None:
    settings = {"balance": Setting("first", 1), "nodelay": Setting(False, 1)}
    text = to_toml(imported(shared("a", **settings), shared("b", **settings), draft("c")), "x")
    assert (
        '[listeners.b]\nbind = "0.0.0.0:80"\npool = "db"\nnodelay = false\n\n# Line 3: listen web\n[listeners.c]\n'
    ) in text
    assert text.endswith('\n# Line 9: backend db\n[pools.db]\ntargets = ["10.0.0.1:80"] # why\nbalance = "first"\n')


def test_what_pools_agree_on_is_a_default() -> None:
    both = {"health_check": CHECK, "idle_timeout": Setting("5s", 1)}
    data = tomli.loads(to_toml(imported(shared("a", **both), shared("b", **both), draft("c", both)), "x"))
    assert list(data["defaults"]) == ["health_check", "idle_timeout"]
    assert list(data["pools"]["db"]) == ["targets"]
    alone = tomli.loads(to_toml(imported(shared("a", **both), shared("b", **both)), "x"))
    assert list(alone["defaults"]) == ["idle_timeout"]
    assert list(alone["pools"]["db"]) == ["targets", "health_check"]


def test_balance_stands_after_targets() -> None:
    text = to_toml(imported(draft(dial_attempts=Setting(3, 1), balance=Setting("first", 1, "why"))), "x")
    assert text.endswith('targets = ["10.0.0.1:80"]\nbalance = "first" # why\ndial_attempts = 3\n')


def test_balance_is_a_default_of_both_types() -> None:
    same = {"balance": Setting("random", 1)}
    found = imported(draft("a", same), draft("b", same, ("dgram",)))
    assert tomli.loads(to_toml(found, "x"))["defaults"] == {"balance": "random"}
    assert "defaults" not in tomli.loads(to_toml(imported(draft("a", same), draft("b", None, ("dgram",))), "x"))


def test_what_is_said_of_targets() -> None:
    short = dataclasses.replace(draft(), about_targets="why")
    assert '\ntargets = ["10.0.0.1:80"] # why\n' in to_toml(imported(short), "x")
    long = dataclasses.replace(draft(), about_targets="because " * 20)
    assert "\n# because because" in to_toml(imported(long), "x")
    many = dataclasses.replace(short, targets=tuple(Place(f"10.0.0.{number}:80", 5) for number in range(20)))
    text = to_toml(imported(many), "x")
    assert "\n# why\ntargets = [\n" in text
    assert len(tomli.loads(text)["listeners"]["web"]["targets"]) == 20


def test_remarks() -> None:
    found = Imported(
        (draft(),),
        (Leftover(1, "allow a", "why", opens=True), Leftover(2, "b", "why")),
        {"workers": Setting(4, 1, "nbthread 4")},
        ((3, "log"), (5, "log"), (4, "daemon")),
    )
    text = to_toml(found, "x")
    assert "# OPEN TO EVERYBODY: rules about who may connect were not carried over (line 1)." in text
    assert "# Not carried over: 2 things;" in text
    assert "log (3, 5), daemon (4)." in text
    assert "\n[daemon]\nworkers = 4 # nbthread 4\n" in text


def test_nothing_from_a_file_ends_a_comment() -> None:
    hostile = 'a\n[listeners.x]\r\n"\x1b\udcff'
    found = Imported(
        (dataclasses.replace(draft(idle_timeout=Setting("5s", 1, hostile)), title=hostile),),
        (),
        {},
        ((1, hostile),),
    )
    assert list(tomli.loads(to_toml(found, hostile))["listeners"]) == ["web"]


def test_lines_that_are_named() -> None:
    left = [Leftover(number, "a", "why", opens=True) for number in range(1, LINES_SHOWN + 3)]
    assert opening_lines(left[:1]) == "line 1"
    assert opening_lines(left[:2]) == "lines 1, 2"
    assert opening_lines(left).endswith(f", {LINES_SHOWN} and 2 more")
