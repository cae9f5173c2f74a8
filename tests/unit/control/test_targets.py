"""What is known of targets: from the file, from names, from checks, from clients, and from an operator."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from relayd.address import Address, Family, InetAddress, NameAddress, UnixAddress
from relayd.channel.messages import Resolved, TargetFailure, TargetFailures, TargetStates
from relayd.control.checks.checker import Known, Subject
from relayd.control.checks.subject import Cause
from relayd.control.metrics import TargetFacts
from relayd.control.targets import Targets
from relayd.log.events import Event
from relayd.spec import (
    Balance,
    Bind,
    Check,
    CheckKind,
    Health,
    Listener,
    Log,
    Ordered,
    PortRule,
    Share,
    Spec,
    Target,
    TargetState,
)
from tests.specs import BINDING

CHECK = Check(CheckKind.TCP, 2.0, 2.0, 1.0, 2, 3)
NAME = NameAddress("app.example.com", 80)


def inet(number: int, port: int = 80) -> InetAddress:
    return InetAddress(Family.INET, f"192.0.2.{number}", port)


def listener(name: str, *addresses: Address, check: Check | None = CHECK, **keys: Any) -> Listener:
    bind = Bind(InetAddress(Family.INET, "127.0.0.1", 5000), keys.pop("ports", 1))
    rule = keys.pop("rule", PortRule.FIXED)
    targets = tuple(Target(address, rule) for address in addresses)
    return Listener(name, (bind,), BINDING, targets, None, None, None, health=Health(check), **keys)


def spec(*listeners: Listener) -> Spec:
    return Spec(1, 30.0, Log("info", "auto", access=False), listeners)


class FakeChecker:
    """Knows what it is told."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.on_change = on_change
        self.subjects: dict[tuple[str, str], Subject] = {}
        self.known: dict[tuple[str, str], Known] = {}
        self.told: list[tuple[object, ...]] = []

    def change(self, subjects: Iterable[Subject]) -> None:
        self.subjects = {subject.key: subject for subject in subjects}

    def failed(self, *what: object) -> None:
        self.told.append(what)

    def state(self, pool: str, target: str) -> Known | None:
        key = pool, target
        if key not in self.subjects:
            return None
        return self.known.get(key) or Known(pool, target, True, False, 0.0, 0.0, "", None, 0, 0, "", None, None)

    def says(self, pool: str, target: str, why: str) -> None:
        """From now on it is down, or, without `why`, up."""
        self.known[pool, target] = Known(
            pool, target, not why, True, 5.0, 5.0, why, Cause.CONNECT if why else None, 3, 0, why, 4.0, 0.001
        )
        self.on_change()

    def snapshot(self) -> object:
        return {"snapshot": 1}

    def restore(self, value: object) -> None:
        self.told.append(("restore", value))

    def close(self) -> None:
        self.told.append(("close",))


class Bench:
    """Targets, and what came of them."""

    def __init__(self) -> None:
        self.said: list[tuple[Event, str]] = []
        self.published: list[TargetStates] = []
        self.made: list[FakeChecker] = []
        self.targets = Targets(self._say, self.published.append, self._make)  # type: ignore[arg-type]  # a stand-in

    def _say(self, event: Event, message: str, **_: object) -> None:
        self.said.append((event, message))

    def _make(self, on_change: Callable[[], None]) -> FakeChecker:
        self.made.append(FakeChecker(on_change))
        return self.made[0]

    @property
    def checker(self) -> FakeChecker:
        (made,) = self.made
        return made

    def states(self) -> tuple[TargetState, ...]:
        return self.published[-1].states

    def asked(self) -> dict[tuple[str, str], Subject]:
        return self.checker.subjects

    def shown(self, key: str) -> dict[str, object]:
        return {one["target"]: one[key] for one in self.targets.status()}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_checks_nobody_is_asked(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), UnixAddress("@a"), check=None)))
    assert not bench.made
    assert bench.states() == ()
    assert bench.shown("state") == {"192.0.2.1:80": "unchecked", "unix:@a": "unchecked"}
    assert bench.targets.snapshot() is None


def test_every_address_of_a_name_is_asked(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), NAME)))
    assert [key for _, key in bench.asked()] == ["192.0.2.1:80"]
    bench.targets.resolved(Resolved(NAME, (inet(2), inet(3))))
    assert [key for _, key in bench.asked()] == ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]
    bench.targets.change(spec(listener("web", inet(1))))
    assert [key for _, key in bench.asked()] == ["192.0.2.1:80"]


def test_a_check_has_its_own_port_and_the_source_of_the_listener(bench: Bench) -> None:
    with_port = replace(CHECK, port=8080)
    of_range = listener("game", inet(1, 0), check=with_port, rule=PortRule.OFFSET, ports=100)
    bench.targets.change(spec(replace(listener("web", inet(1), check=with_port), source=inet(9, 0)), of_range))
    web, game = bench.asked().values()
    assert (web.address, web.source, web.target) == (inet(1, 8080), inet(9, 0), "192.0.2.1:80")
    assert (game.address, game.target) == (inet(1, 8080), Target(inet(1, 0), PortRule.OFFSET).origin(inet(1, 0)))
    assert bench.shown("state").keys() == {"192.0.2.1:80", "192.0.2.1"}


def test_what_checks_find_is_published(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), inet(2))))
    bench.checker.says("web", "192.0.2.1:80", "connection refused x3")
    assert bench.states() == (TargetState("web", "192.0.2.1:80", up=False),)
    assert bench.shown("state") == {"192.0.2.1:80": "down", "192.0.2.2:80": "up"}
    assert bench.shown("reason")["192.0.2.1:80"] == "connection refused x3"
    bench.checker.says("web", "192.0.2.1:80", "")
    assert bench.states() == ()


def test_how_many_connections_targets_have(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), inet(2), check=None)))
    assert bench.shown("active") == {"192.0.2.1:80": None, "192.0.2.2:80": None}
    counted = {("web", "192.0.2.1:80"): 3, ("other", "192.0.2.2:80"): 4, ("web", ""): 1}
    assert [one["active"] for one in bench.targets.status(counted)] == [3, 0]


def test_what_clients_meet_is_passed_on_and_kept(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1))))
    failures = TargetFailures(
        (
            TargetFailure("web", "192.0.2.1:80", "connection refused", 3),
            TargetFailure("web", "192.0.2.9:80", "connection refused", 3),  # gone meanwhile
        )
    )
    bench.targets.failed(failures)
    bench.targets.failed(failures)
    assert bench.checker.told == [("web", "192.0.2.1:80", 3, "connection refused")] * 2
    (failed,) = bench.shown("failures").values()
    assert isinstance(failed, dict)
    assert (failed["count"], failed["reason"]) == (6, "connection refused")


def test_orders_are_published_and_taken_back(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), NAME, check=None)))
    bench.targets.resolved(Resolved(NAME, (inet(2), inet(3))))
    assert str(bench.targets.order("web", "192.0.2.1:80", Ordered.DRAINED).changes[0]) == (
        "~ target 192.0.2.1:80 of web: drained"
    )
    assert bench.states() == (TargetState("web", "192.0.2.1:80", ordered=Ordered.DRAINED),)
    assert bench.targets.order("web", "192.0.2.1:80", Ordered.DRAINED).changes == ()
    changes = bench.targets.order("web", "app.example.com:80", None, 7).changes
    assert [change.text for change in changes] == [
        "target app.example.com:80 of web: weight 7 (2 addresses now, and those to come)"
    ]
    assert {(state.target, state.weight) for state in bench.states()} == {
        ("192.0.2.1:80", None),
        ("192.0.2.2:80", 7),
        ("192.0.2.3:80", 7),
    }
    assert bench.shown("weight") == {"192.0.2.1:80": 1, "192.0.2.2:80": 7, "192.0.2.3:80": 7}
    assert bench.shown("state")["192.0.2.1:80"] == "drained"
    bench.targets.order("web", "192.0.2.1:80", Ordered.ENABLED)
    bench.targets.order("web", "app.example.com:80", None, 0)
    assert bench.states() == ()
    assert {event for event, _ in bench.said} == {Event.TARGET_ORDERED}


def test_orders_stay_over_a_reload_that_keeps_the_target(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), inet(2), check=None)))
    for number in (1, 2):
        bench.targets.order("web", f"192.0.2.{number}:80", Ordered.DISABLED)
    bench.targets.change(spec(listener("web", inet(2), inet(3), check=None)))
    assert [state.target for state in bench.states()] == ["192.0.2.2:80"]
    bench.targets.change(spec(listener("web", inet(1), inet(2), check=None)))
    assert [state.target for state in bench.states()] == ["192.0.2.2:80"]

    assert [text for event, text in bench.said if event is Event.TARGET_ORDER_LOST] == [
        "target 192.0.2.1:80 of web: the order on it (disabled) does not hold any more: it is not in the file any more"
    ]


def test_an_order_on_a_name_is_on_all_addresses_to_come(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), NAME, check=None)))
    assert str(bench.targets.order("web", str(NAME), Ordered.DISABLED).changes[0]) == (
        "~ target app.example.com:80 of web: disabled (0 addresses now, and those to come)"
    )
    for numbers in ((2,), (3, 4)):
        bench.targets.resolved(Resolved(NAME, tuple(map(inet, numbers))))
        assert bench.states() == tuple(
            TargetState("web", str(inet(number)), ordered=Ordered.DISABLED) for number in numbers
        )
    assert bench.shown("reason")["192.0.2.3:80"] == "by order on app.example.com:80"
    assert bench.targets.order("web", str(NAME), Ordered.DISABLED).changes == ()
    bench.targets.change(spec(listener("web", inet(1), check=None)))
    assert bench.said[-1][0] is Event.TARGET_ORDER_LOST
    bench.targets.change(spec(listener("web", inet(1), NAME, check=None)))
    bench.targets.resolved(Resolved(NAME, (inet(2),)))
    assert bench.states() == ()


def test_no_worker_knows_an_address_without_what_was_ordered_of_it(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", NAME, check=None)))
    bench.targets.order("web", str(NAME), Ordered.DISABLED)
    known: list[set[str]] = []

    def pass_on(_: Resolved) -> None:
        known.append({state.target for state in bench.states()})

    for numbers in ((2, 3), (3, 4)):
        bench.targets.resolved(Resolved(NAME, tuple(map(inet, numbers))), pass_on)
    assert known == [{"192.0.2.2:80", "192.0.2.3:80"}, {"192.0.2.2:80", "192.0.2.3:80", "192.0.2.4:80"}]
    assert {state.target for state in bench.states()} == {"192.0.2.3:80", "192.0.2.4:80"}


def test_the_last_word_counts_of_a_name_and_its_addresses(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", NAME, check=None)))
    bench.targets.resolved(Resolved(NAME, (inet(2), inet(3))))
    bench.targets.order("web", "192.0.2.2:80", None, 5)
    bench.targets.order("web", str(NAME), Ordered.DRAINED)
    assert bench.targets.order("web", "192.0.2.3:80", Ordered.ENABLED).changes
    assert bench.states() == (TargetState("web", "192.0.2.2:80", ordered=Ordered.DRAINED, weight=5),)
    assert not bench.targets.order("web", "192.0.2.3:80", Ordered.ENABLED).changes
    assert bench.targets.order("web", str(NAME), Ordered.DRAINED).changes, "one of them was enabled"
    assert bench.shown("state") == {"192.0.2.2:80": "drained", "192.0.2.3:80": "drained"}
    bench.targets.order("web", str(NAME), None, 7)
    assert bench.shown("weight") == {"192.0.2.2:80": 7, "192.0.2.3:80": 7}
    bench.targets.order("web", "192.0.2.2:80", None, 0)
    assert bench.shown("weight") == {"192.0.2.2:80": 1, "192.0.2.3:80": 7}
    bench.targets.order("web", str(NAME), None, 0)
    bench.targets.order("web", str(NAME), Ordered.ENABLED)
    assert bench.states() == ()
    assert bench.targets.snapshot() is None


def test_an_order_on_an_address_waits_for_it(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", NAME, check=None)))
    bench.targets.resolved(Resolved(NAME, (inet(2), inet(3))))
    bench.targets.order("web", "192.0.2.2:80", Ordered.DRAINED)
    bench.targets.resolved(Resolved(NAME, (inet(3),)))
    assert bench.states() == ()
    bench.targets.resolved(Resolved(NAME, (inet(2), inet(3))))
    assert [state.target for state in bench.states()] == ["192.0.2.2:80"]
    bench.targets.resolved(Resolved(NAME, (inet(3),)))
    assert bench.targets.order("web", "192.0.2.2:80", Ordered.ENABLED).changes
    assert not bench.targets.order("web", "192.0.2.2:80", Ordered.ENABLED).ok, "nobody knows it any more"
    bench.targets.resolved(Resolved(NAME, (inet(2), inet(3))))
    assert bench.states() == ()


def test_the_next_life_says_which_orders_are_lost(bench: Bench) -> None:
    before = Bench()
    weighted = listener("web", inet(1), inet(4), NAME, check=None)
    before.targets.change(spec(weighted, listener("gone", inet(1), check=None)))
    before.targets.order("web", "192.0.2.1:80", Ordered.DRAINED)
    before.targets.order("web", "192.0.2.1:80", None, 7)
    before.targets.order("web", "192.0.2.4:80", None, 7)
    before.targets.order("web", str(NAME), Ordered.DISABLED)
    before.targets.order("gone", "192.0.2.1:80", None, 2)
    left = before.targets.snapshot()
    assert json.loads(json.dumps(left)) == left
    bench.targets.restore(left)
    bench.targets.change(spec(replace(weighted, shares=(Share(), Share(7), Share()))))
    assert bench.states() == ()
    held = "does not hold any more: relayd was restarted"
    assert [text for event, text in bench.said if event is Event.TARGET_ORDER_LOST] == [
        f"target app.example.com:80 of web: the order on it (disabled) {held}",
        f"target 192.0.2.1:80 of web: the order on it (drained, weight 7) {held}",
        f"target 192.0.2.1:80 of gone: the order on it (weight 2) {held}",
    ]
    assert bench.targets.snapshot() is None


@pytest.mark.parametrize(
    "orders",
    [
        None,
        {},
        [5],
        [{}],
        [{"pool": "web", "target": 5, "ordered": "drained", "weight": None}],
        [{"pool": "web", "target": "a", "ordered": "asleep", "weight": None}],
        [{"pool": "web", "target": "a", "ordered": "enabled", "weight": True}],
    ],
)
def test_orders_of_a_life_before_that_are_none(bench: Bench, orders: object) -> None:
    bench.targets.restore({"version": 1, "targets": [], "orders": orders})
    bench.targets.change(spec(listener("web", inet(1), check=None)))
    assert not bench.said


def test_of_many_orders_that_are_lost_not_all_have_a_line(bench: Bench) -> None:
    row = {"pool": "web", "target": "a", "ordered": "drained", "weight": None}
    bench.targets.restore({"orders": [row] * 103})
    bench.targets.change(spec())
    assert len(bench.said) == 101
    assert bench.said[-1][1].startswith("3 more orders on targets")


@pytest.mark.parametrize(
    ("pool", "target", "weight", "error"),
    [
        ("shares", "192.0.2.1:80", None, "listener shares shares the targets of pool web"),
        ("wob", "192.0.2.1:80", None, "there is no pool 'wob': did you mean web?"),
        ("x", "192.0.2.1:80", None, "there is no pool 'x': there is first, web"),
        ("web", "192.0.2.11:80", None, "pool web has no target '192.0.2.11:80': did you mean 192.0.2.1:80?"),
        ("web", "x", None, "pool web has no target 'x': there is 192.0.2.1:80, 192.0.2.2:80"),
        ("web", "192.0.2.1:80", 257, "a weight is 1 to 256"),
        ("web", "192.0.2.1:80", -1, "a weight is 1 to 256"),
        ("first", "192.0.2.1:80", 2, "no weights with balance"),
    ],
)
def test_an_order_that_cannot_be(bench: Bench, pool: str, target: str, weight: int | None, error: str) -> None:
    first = listener("first", inet(1), check=None, balance=Balance.FIRST)
    shares = listener("shares", inet(1), inet(2), check=None, pool="web")
    bench.targets.change(spec(listener("web", inet(1), inet(2), check=None), first, shares))
    published = len(bench.published)
    verdict = bench.targets.order(pool, target, Ordered.DRAINED if weight is None else None, weight)
    assert not verdict.ok
    assert error in verdict.errors[0]
    assert len(bench.published) == published


def test_what_the_life_before_knew_is_for_the_first_check(bench: Bench) -> None:
    bench.targets.restore({"some": "thing"})
    bench.targets.change(spec(listener("web", inet(1), check=None)))
    assert not bench.made
    bench.targets.change(spec(listener("web", inet(1))))
    assert bench.checker.told == [("restore", {"some": "thing"})]
    assert bench.targets.snapshot() == {"snapshot": 1}
    bench.targets.close()
    assert bench.checker.told[-1] == ("close",)


def test_listeners_that_share_a_pool_have_one_target(bench: Bench) -> None:
    shares = (Share(3), Share(backup=True, max_connections=5))
    bench.targets.change(spec(*(listener(name, inet(1), inet(2), shares=shares, pool="app") for name in ("a", "b"))))
    assert [(one["pool"], one["target"]) for one in bench.targets.status()] == [
        ("app", "192.0.2.1:80"),
        ("app", "192.0.2.2:80"),
    ]
    assert bench.shown("max_connections") == {"192.0.2.1:80": None, "192.0.2.2:80": 5}


def test_an_explanation_knows_checks_and_orders(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), inet(2), inet(3))))
    bench.checker.says("web", "192.0.2.1:80", "connection refused x3")
    bench.targets.order("web", "192.0.2.2:80", Ordered.DRAINED)
    found = bench.targets.explain("web", b"192.0.2.7", None)
    assert isinstance(found, dict)
    assert [one["target"] for one in found["candidates"]] == ["192.0.2.3:80"]
    assert found["out"] == [
        {"target": "192.0.2.1:80", "why": "down: connection refused x3"},
        {"target": "192.0.2.2:80", "why": "drained by order"},
    ]
    assert bench.targets.explain("wep", b"", None) == "there is no listener 'wep': did you mean web?"
    assert bench.targets.explain("web", b"", 1) == "listener web: it does not listen on port 1"


@pytest.mark.parametrize(
    ("check", "datagrams", "counts"),
    [
        (CHECK, False, True),
        (CHECK, True, False),
        (replace(CHECK, kind=CheckKind.UDP), True, True),
        (replace(CHECK, kind=CheckKind.UDP), False, False),
        (replace(CHECK, kind=CheckKind.HTTP, port=80), False, True),
        (replace(CHECK, port=8080), False, False),
        (replace(CHECK, kind=CheckKind.EXEC), True, True),
    ],
)
def test_clients_count_where_they_meet_what_is_asked(bench: Bench, check: Check, datagrams: bool, counts: bool) -> None:
    bench.targets.change(spec(listener("web", inet(1), check=check)))
    failure = TargetFailure("web", "192.0.2.1:80", "connection refused", 1, datagrams)
    bench.targets.failed(TargetFailures((failure,)))
    assert bool(bench.checker.told) == counts
    assert bench.shown("failures")["192.0.2.1:80"] is not None


def test_clients_of_a_time_before_it_was_found_well_are_counted_and_take_it_down_no_more(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), check=CHECK)))
    failure = TargetFailure("web", "192.0.2.1:80", "connect timeout", 3, news=False)
    bench.targets.failed(TargetFailures((failure,)))
    assert bench.checker.told == []
    assert bench.shown("failures")["192.0.2.1:80"] is not None


def test_a_port_of_a_range_says_nothing_about_the_others(bench: Bench) -> None:
    of_range = listener("game", inet(1, 0), check=replace(CHECK, port=5000), rule=PortRule.OFFSET, ports=100)
    bench.targets.change(spec(of_range))
    origin = of_range.targets[0].origin(inet(1, 0))
    bench.targets.failed(TargetFailures((TargetFailure("game", origin, "connection refused", 3),)))
    assert bench.checker.told == []


# for the metrics


def test_facts_are_what_checks_orders_and_clients_say(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("relayd.control.targets.clock.monotonic", lambda: 10.0)
    monkeypatch.setattr("relayd.control.targets.clock.wall", lambda: now + 10.0)
    bench.targets.change(spec(listener("web", inet(1), inet(2)), listener("log", inet(3), check=None)))
    bench.checker.says("web", "192.0.2.1:80", "refused")
    bench.targets.order("web", "192.0.2.2:80", Ordered.DRAINED)
    bench.targets.failed(failures("log", "192.0.2.3:80", 2))
    assert list(bench.targets.facts()) == [
        TargetFacts("web", "192.0.2.1:80", "down", up=False, failures=0, since=now + 5.0, cause="connect"),
        TargetFacts("web", "192.0.2.2:80", "drained", up=True, failures=0, since=now + 10.0, cause=""),
        TargetFacts("log", "192.0.2.3:80", "unchecked", up=None, failures=2, since=None, cause=""),
    ]


def failures(pool: str, target: str, count: int) -> TargetFailures:
    return TargetFailures((TargetFailure(pool, target, "refused", count),))


def counted(bench: Bench) -> dict[str, int]:
    return {each.target: each.failures for each in bench.targets.facts()}


def test_failures_go_on_when_a_target_comes_back_and_in_the_next_life(bench: Bench) -> None:
    both, one = (spec(listener("web", *map(inet, numbers), check=None)) for numbers in ((1, 2), (2,)))
    bench.targets.change(both)
    for count in (2, 3):
        bench.targets.failed(failures("web", "192.0.2.1:80", count))
        bench.targets.change(one)
        assert counted(bench) == {"192.0.2.2:80": 0}
        assert bench.targets.failures() == []
        bench.targets.change(both)
    assert counted(bench) == {"192.0.2.1:80": 5, "192.0.2.2:80": 0}
    assert bench.shown("failures") == {"192.0.2.1:80": None, "192.0.2.2:80": None}
    left = json.loads(json.dumps(bench.targets.failures()))
    again = Bench()
    again.targets.restore_failures(left)
    again.targets.change(one)  # its name has no address yet
    again.targets.change(both)
    again.targets.failed(failures("web", "192.0.2.1:80", 1))
    assert counted(again) == {"192.0.2.1:80": 6, "192.0.2.2:80": 0}
    assert again.targets.failures() == [["web", "192.0.2.1:80", 6]]


@pytest.mark.parametrize("left", [None, 7, [7], [["web", 1]], [["web", "192.0.2.1:80", "1"]], [[1, 2, 3]]])
def test_failures_that_are_not_understood_count_as_nothing(bench: Bench, left: object) -> None:
    bench.targets.restore_failures(left)
    bench.targets.change(spec(listener("web", inet(1), check=None)))
    assert counted(bench) == {"192.0.2.1:80": 0}


def test_only_so_many_targets_that_are_gone_are_remembered(bench: Bench) -> None:
    bench.targets.restore_failures([["web", f"unix:@{number}", 1] for number in range(1003)])
    bench.targets.change(spec(listener("web", UnixAddress("@0"), check=None)))
    bench.targets.change(spec(listener("web", *(UnixAddress(f"@{number}") for number in range(5)), check=None)))
    assert counted(bench) == {"unix:@0": 1, "unix:@1": 0, "unix:@2": 0, "unix:@3": 1, "unix:@4": 1}


def test_an_explanation_has_what_is_known_of_candidates(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("relayd.control.targets.clock.monotonic", lambda: now)
    slow = replace(listener("web", inet(1), inet(2)), health=Health(CHECK, slow_start_s=60.0))
    bench.targets.change(spec(replace(slow, shares=(Share(), Share(max_connections=10)))))

    def candidates(key: str) -> list[object]:
        found = bench.targets.explain("web", b"", None, {("web", "192.0.2.2:80"): 4})
        assert not isinstance(found, str)
        return [one[key] for one in sorted(found["candidates"], key=lambda one: str(one["target"]))]

    assert (candidates("active"), candidates("max_connections")) == ([0, 4], [None, 10])
    assert candidates("failed_ago_s") == candidates("slow_start_s") == [None, None]
    bench.targets.failed(TargetFailures((TargetFailure("web", "192.0.2.1:80", "refused", 1),)))
    bench.targets.order("web", "192.0.2.1:80", Ordered.DRAINED)
    bench.checker.says("web", "192.0.2.2:80", "connection refused x3")
    now = 1010.0
    bench.targets.order("web", "192.0.2.1:80", Ordered.ENABLED)
    now = 1020.0
    bench.checker.says("web", "192.0.2.2:80", "")
    assert (candidates("failed_ago_s"), candidates("slow_start_s")) == ([20, None], [50, 60])
    now = 1079.5
    assert (candidates("failed_ago_s"), candidates("slow_start_s")) == ([None, None], [None, 1])
