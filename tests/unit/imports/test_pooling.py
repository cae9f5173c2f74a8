"""Which drafts share their targets."""

from dataclasses import replace

import pytest

from relayd.imports.draft import Draft, Home, Place, Setting
from relayd.imports.pooling import pools

HOME = Home("db", 9, "backend db")


def draft(name: str, home: Home | None = HOME, target: str = "10.0.0.1:80", **settings: Setting) -> Draft:
    places = (Place("0.0.0.0:80", 4),), (Place(target, 10),)
    return Draft(name, 3, "frontend x", ("stream",), *places, settings, home=home)


def found(*drafts: Draft) -> list[tuple[str, list[str]]]:
    return [(pool.name, [one.name for one in pool.drafts]) for pool in pools(drafts)]


def test_of_two_or_more() -> None:
    assert found() == found(draft("a")) == found(draft("a", None), draft("b", None)) == []
    assert found(draft("a"), draft("b"), draft("c", None)) == [("db", ["a", "b"])]


def test_in_the_order_of_the_file() -> None:
    other = Home("app", 5, "backend app")
    drafts = (draft("a"), draft("b", other), draft("c"), draft("d", other))
    assert found(*drafts) == [("app", ["b", "d"]), ("db", ["a", "c"])]


@pytest.mark.parametrize(
    "other",
    [
        draft("b", target="10.0.0.2:80"),
        draft("b", balance=Setting("first", 1)),
        draft("b", dial_attempts=Setting(1, 1)),
        replace(draft("b"), about_targets="why"),
        draft("b", Home("db2", 8, "backend db2")),
    ],
)
def test_what_differs_is_no_pool(other: Draft) -> None:
    assert found(draft("a"), other) == []
    assert found(draft("a"), other, draft("c")) == [("db", ["a", "c"])]


def test_two_pools_of_one_home_have_names_of_their_own() -> None:
    first = Setting("first", 1)
    drafts = (draft("a"), draft("b"), draft("c", balance=first), draft("d", balance=first))
    assert found(*drafts) == [("db", ["a", "b"]), ("db-pool", ["c", "d"])]


@pytest.mark.parametrize(
    ("target", "shared"),
    [
        ("a:80", True),
        ("[::1]:80", True),
        ("unix:/a", True),
        ("srv:_http._tcp.a", True),
        ("a", False),
        ("[::1]", False),
        ("a:+5", False),
        ("a:80-90", False),
    ],
)
def test_a_port_that_follows_the_bind_is_not_shared(target: str, shared: bool) -> None:
    assert bool(found(draft("a", target=target), draft("b", target=target))) is shared


def test_datagrams_are_not_dialled() -> None:
    """So that what says nothing about dials goes with one that does, wherever it stands."""
    dials, datagrams = draft("a", dial_attempts=Setting(5, 1)), replace(draft("b"), types=("dgram",))
    for drafts in ((dials, datagrams), (datagrams, dials)):
        (pool,) = pools(drafts)
        assert {key: one.value for key, one in pool.settings.items()} == {"dial_attempts": 5}
        assert pool.types == {"stream", "dgram"}
    assert found(datagrams, dials, draft("c")) == [("db", ["b", "a"])]


def test_names_are_not_those_of_listeners_with_their_own_targets() -> None:
    assert found(draft("db"), draft("b")) == [("db", ["db", "b"])]
    assert found(draft("a"), draft("b"), draft("db", None)) == [("db-pool", ["a", "b"])]
    taken = (draft("db", None), draft("db-pool", None))
    assert found(draft("a"), draft("b"), *taken) == [("db-pool-2", ["a", "b"])]
    long = Home("x" * 80, 9, "backend x")
    assert [len(name) for name, _ in found(draft("a", long), draft("b", long), draft("x" * 64, None))] == [64]
    odd = Home("a b/c", 9, "upstream a b/c")
    assert found(draft("a", odd), draft("b", odd)) == [("a-b-c", ["a", "b"])]
