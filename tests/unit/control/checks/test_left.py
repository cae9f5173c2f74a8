import json

from hypothesis import given
from hypothesis import strategies as st

from relayd.control.checks.left import pack, unpack
from relayd.control.checks.standing import Standing, State
from relayd.control.checks.subject import Cause

KEY = ("app", "10.0.0.11:80")
DOWN = Standing(90.0, State.DOWN, "status 503 x3", 4, 0, 4, "status 503", "status 503", 99.0, 0.25, Cause.STATUS)


def test_another_process_reads_the_same_by_its_own_clock() -> None:
    value = json.loads(json.dumps(pack([(KEY, DOWN, 101.0)], epoch=1000.0)))
    assert unpack(value, now=7.0, epoch=1095.0) == {
        KEY: (DOWN._replace(since=-5.0, last_at=4.0), 6.0),
    }


def test_a_life_that_told_no_causes() -> None:
    value = pack([(KEY, DOWN, 101.0), (("app", "b"), Standing(1.0), 2.0)], epoch=0.0)
    for target in value["targets"]:
        del target["cause"]
    found = unpack(value, now=200.0, epoch=0.0)
    assert [standing.cause for standing, _ in found.values()] == [Cause.UNKNOWN, None]


def test_a_target_that_was_never_asked() -> None:
    value = pack([(KEY, Standing(1.0), 2.0)], epoch=0.0)
    assert unpack(value, now=5.0, epoch=0.0) == {KEY: (Standing(1.0), 2.0)}


def test_nothing_is_after_now_where_the_clock_was_set_back() -> None:
    value = pack([(KEY, DOWN, 101.0)], epoch=1000.0)
    [(standing, _)] = unpack(value, now=7.0, epoch=0.0).values()
    assert (standing.since, standing.last_at) == (7.0, 7.0)


def test_what_is_not_understood_is_left_out_entry_by_entry() -> None:
    value = pack([(KEY, DOWN, 101.0), (("app", "b"), DOWN, 1.0)], epoch=0.0)
    value["targets"][0]["state"] = "asleep"
    value["targets"].append(None)
    assert list(unpack(value, now=200.0, epoch=0.0)) == [("app", "b")]
    value["version"] = 2
    assert unpack(value, now=200.0, epoch=0.0) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, st.sampled_from([*pack([(KEY, DOWN, 1.0)], 0.0)["targets"][0]]))
def test_garbage_is_nothing(value: object, field: str) -> None:
    unpack(value, now=1.0, epoch=0.0)
    packed = pack([(KEY, DOWN, 1.0)], epoch=0.0)
    packed["targets"][0][field] = value
    unpack(packed, now=1.0, epoch=0.0)
    unpack({"version": 1, "targets": [value]}, now=1.0, epoch=0.0)
