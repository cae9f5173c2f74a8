"""Which target a client would get, by the code that workers choose by."""

from typing import Any

import pytest

from relayd.address import Address, Family, InetAddress, NameAddress, UnixAddress
from relayd.channel.messages import Resolved
from relayd.choosing.group import Groups, Rules
from relayd.control.explaining import Facts, NoSuchPort, explain
from relayd.spec import Balance, Bind, Health, Listener, Ordered, PortRule, Share, Target, TargetState
from tests.specs import BINDING

KEY = b"192.0.2.7"
NAME = NameAddress("app.example.com", 80)
FACTS = {"10.0.0.2:80": Facts(3, 12, 99, 100)}


def inet(number: int, port: int = 80) -> InetAddress:
    return InetAddress(Family.INET, f"10.0.0.{number}", port)


def listener(*addresses: Address, rule: PortRule = PortRule.FIXED, ports: int = 1, **keys: Any) -> Listener:
    bind = Bind(InetAddress(Family.INET, "127.0.0.1", 5000), ports)
    return Listener("web", (bind,), BINDING, tuple(Target(one, rule) for one in addresses), None, None, None, **keys)


def down(number: int, ordered: Ordered = Ordered.ENABLED) -> TargetState:
    return TargetState("web", str(inet(number)), ordered is not Ordered.ENABLED, ordered)


def explained(of: Listener, *states: TargetState, key: bytes = KEY, port: int | None = None) -> dict[str, Any]:
    reasons = {str(inet(1)): "connect timeout x3"}
    answer = Resolved(NAME, (inet(7), inet(8)))
    return explain(of, {state.target: state for state in states}, [answer], reasons, FACTS, key, port)


def names(found: dict[str, Any]) -> list[str]:
    return [one["target"] for one in found["candidates"]]


def test_it_is_what_workers_choose() -> None:
    of = listener(*(inet(number) for number in range(1, 9)), balance=Balance.SOURCE_HASH)
    group = Groups(of.targets, Rules.of(of, datagrams=False)).at(5000, 0)
    for number in range(50):
        key = f"192.0.2.{number}".encode()
        chosen = group.pick((), key)
        assert chosen is not None
        found = explained(of, key=key)
        assert found["certain"]
        assert names(found)[0] == chosen.label
        assert len(names(found)) == 8


@pytest.mark.parametrize("balance", list(Balance))
def test_what_is_out_and_why(balance: Balance) -> None:
    of = listener(*map(inet, (1, 2, 3, 4)), balance=balance, shares=(Share(), Share(), Share(), Share(backup=True)))
    found = explained(of, down(1), down(2, Ordered.DRAINED))
    assert names(found) == [str(inet(3)), str(inet(4))]
    assert [one["why"] for one in found["out"]] == ["down: connect timeout x3", "drained by order"]
    assert not found["failing_open"]


def test_parts_are_by_weight() -> None:
    of = listener(inet(1), inet(2), inet(3), shares=(Share(3), Share(1), Share(backup=True)))
    parts = {one["target"]: one["part"] for one in explained(of)["candidates"]}
    assert parts == {str(inet(1)): 0.75, str(inet(2)): 0.25, str(inet(3)): None}


def test_backups_have_the_parts_where_they_are_all_that_is_left() -> None:
    of = listener(inet(1), inet(2), inet(3), shares=(Share(), Share(backup=True), Share(backup=True)))
    parts = {one["target"]: one["part"] for one in explained(of, down(1))["candidates"]}
    assert parts == {str(inet(2)): 0.5, str(inet(3)): 0.5}


def test_all_down_and_tried_all_the_same_or_not() -> None:
    found = explained(listener(inet(1)), down(1))
    assert (names(found), found["failing_open"]) == ([str(inet(1))], True)
    found = explained(listener(inet(1), health=Health(fail_open=False)), down(1))
    assert (names(found), found["failing_open"]) == ([], False)


def test_names_are_what_they_were_resolved_to() -> None:
    assert sorted(names(explained(listener(NAME)))) == [str(inet(7)), str(inet(8))]


def test_ports_follow() -> None:
    of = listener(inet(1, 0), rule=PortRule.OFFSET, ports=10)
    assert names(explained(of)) == ["10.0.0.1:5000"]
    assert names(explained(of, port=5009)) == ["10.0.0.1:5009"]
    with pytest.raises(NoSuchPort, match="port 5010"):
        explained(of, port=5010)


def test_a_unix_socket_has_no_port() -> None:
    of = Listener("web", (Bind(UnixAddress("@a")),), BINDING, (Target(inet(1)),), None, None, None)
    assert explained(of, key=b"")["port"] == 0
    with pytest.raises(NoSuchPort):
        explained(of, port=5000)


def test_what_control_knows_of_candidates() -> None:
    one, other = explained(listener(inet(1), inet(2)))["candidates"]
    assert (one["failed_ago_s"], one["slow_start_s"], one["active"], one["max_connections"]) == (None,) * 4
    assert (other["failed_ago_s"], other["slow_start_s"], other["active"], other["max_connections"]) == (3, 12, 99, 100)
