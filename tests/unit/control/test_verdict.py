"""What a reload is answered with, as people and as programs see it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.control.verdict import Change, Verdict

verdicts = st.builds(
    Verdict,
    st.booleans(),
    st.lists(st.builds(Change, st.sampled_from("+-~"), st.none() | st.text(), st.text(), st.text())).map(tuple),
    st.lists(st.text()).map(tuple),
    st.lists(st.text()).map(tuple),
)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            Change("~", "web", "target 10.0.0.2:80 removed", "42 connections: drain 30s"),
            "~ listener web: target 10.0.0.2:80 removed (42 connections: drain 30s)",
        ),
        (Change("+", "dns"), "+ listener dns"),
        (Change("-", "old", effect="3 connections: close"), "- listener old (3 connections: close)"),
        (Change("~", "web", "backlog 1 -> 2"), "~ listener web: backlog 1 -> 2"),
        (Change("~", None, "daemon.workers 2 -> 4", "needs a restart"), "~ daemon.workers 2 -> 4: needs a restart"),
        (Change("~", None, "log.access true -> false"), "~ log.access true -> false"),
    ],
)
def test_a_change_is_one_line(change: Change, text: str) -> None:
    assert str(change) == text


@given(verdicts)
def test_json_and_back(verdict: Verdict) -> None:
    assert Verdict.from_json(json.loads(json.dumps(verdict.as_json()))) == verdict


GOOD = Verdict(ok=True, changes=(Change("+", "a"),)).as_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "ok",
        {},
        {**GOOD, "ok": 1},
        {**GOOD, "changes": None},
        {**GOOD, "changes": ["+ a"]},
        {**GOOD, "errors": [5]},
        {**GOOD, "warnings": "none"},
        {**GOOD, "changes": [{**GOOD["changes"][0], "sign": "*"}]},
        {**GOOD, "changes": [{**GOOD["changes"][0], "sign": []}]},
        {**GOOD, "changes": [{**GOOD["changes"][0], "listener": 5}]},
        {**GOOD, "changes": [{**GOOD["changes"][0], "text": None}]},
    ],
)
def test_what_is_no_verdict(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected|no verdict|no change"):
        Verdict.from_json(value)
