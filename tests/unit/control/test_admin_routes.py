"""The table of requests, and what a query may say. Answers on real sockets are in test_admin.py."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.control.admin_access import Refusal
from relayd.control.admin_routes import (
    ROUTES,
    Parameter,
    Route,
    count_in_query,
    find,
    members_of,
    one_of,
    query_of,
    switch_in_query,
)


def test_every_request_is_there_once_and_found() -> None:
    there = [(route.method, route.path) for route in ROUTES]
    assert len(set(there)) == len(there)
    assert [find(*each) for each in there] == list(ROUTES)


def test_what_a_get_does_changes_nothing() -> None:
    assert {route.method for route in ROUTES} == {"GET", "POST"}
    assert not [route.path for route in ROUTES if route.method == "GET" and route.changes]
    asks = {route.path for route in ROUTES if route.method == "POST" and not route.changes}
    assert asks == {"/v1/plan", "/v1/explain"}


def test_the_methods_that_there_are_stand_in_the_refusal() -> None:
    with pytest.raises(Refusal, match="/v1/reload takes POST") as caught:
        find("GET", "/v1/reload")
    assert (caught.value.status, caught.value.headers) == (405, (("Allow", "POST"),))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a=", {"a": ""}),
        ("a=1;b=2", {"a": "1;b=2"}),  # ; separates nothing
        ("a=1&b=x%20y+z&c=%C3%A9%3d", {"a": "1", "b": "x y z", "c": "é="}),
    ],
)
def test_a_query(text: str, found: dict[str, str]) -> None:
    assert query_of(text) == found


@pytest.mark.parametrize("text", ["a", "&", "a=1&", "a=1&&b=2", "a=1&a=1", "a=%", "a=%4", "a=%zz", "a=%ff"])
def test_what_is_no_query(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        query_of(text)
    assert caught.value.status == 400


@given(st.text(st.characters(max_codepoint=0x2FF), max_size=60) | st.from_regex(r"([a-c%&=+0-9A-F]{1,4}){1,12}"))
def test_any_query_is_taken_or_refused(text: str) -> None:
    with contextlib.suppress(Refusal):
        assert all(isinstance(each, str) for pair in query_of(text).items() for each in pair)


@given(st.binary(max_size=60))
def test_any_body_is_taken_or_refused(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert isinstance(members_of(body), dict)


async def _unused(_: object) -> None:
    raise AssertionError


LIST = Route(
    "GET",
    "/v1/list",
    _unused,  # type: ignore[arg-type]  # nobody calls it
    (
        Parameter("sort", "one of age, new", one_of("age", "new")),
        Parameter("limit", "a number from 1 to 100", count_in_query(1, 100)),
        Parameter("more", "yes or no", switch_in_query),
        Parameter("id", "a string", str, required=True, not_by_tcp="not by TCP"),
    ),
)


def test_values_of_a_query() -> None:
    assert LIST.read({"sort": "new", "limit": "007", "more": "yes", "id": ""}) == {
        "sort": "new",
        "limit": 7,
        "more": True,
        "id": "",
    }
    assert LIST.read({"id": "x", "more": "no"}) == {"sort": None, "limit": None, "more": False, "id": "x"}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({}, "id is missing: it is a string"),
        ({"id": "x", "sort": "old"}, "sort is one of age, new"),
        ({"id": "x", "limit": "0"}, "limit is a number from 1 to 100"),
        ({"id": "x", "limit": "101"}, "limit is a number from 1 to 100"),
        ({"id": "x", "limit": "1_0"}, "limit is a number from 1 to 100"),
        ({"id": "x", "limit": "٣"}, "limit is a number from 1 to 100"),
        ({"id": "x", "limit": "9" * 5000}, "limit is a number from 1 to 100"),
        ({"id": "x", "more": "true"}, "more is yes or no"),
        ({"id": "x", "nosuch": "1"}, "unknown parameter 'nosuch': only 'sort', 'limit', 'more', 'id' are taken here"),
    ],
)
def test_what_is_not_taken(query: dict[str, str], error: str) -> None:
    with pytest.raises(Refusal) as caught:
        LIST.read(query)
    assert (caught.value.status, str(caught.value)) == (400, error)


def test_what_nobody_may_say_by_tcp() -> None:
    with pytest.raises(Refusal, match="not by TCP") as caught:
        LIST.read({"id": "x"}, by_unix_socket=False)
    assert caught.value.status == 403
