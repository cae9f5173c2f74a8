"""What is known of targets: from the file, from names, from checks, from clients, and from an operator."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from relayd.address import Address, Family, InetAddress, NameAddress, UnixAddress
from relayd.channel.messages import Resolved, TargetFailure, TargetFailures, TargetStates
from relayd.control.checks.checker import Known, Subject
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
        return self.known.get(key) or Known(pool, target, True, False, 0.0, 0.0, "", 0, 0, "", None, None)

    def says(self, pool: str, target: str, why: str) -> None:
        """From now on it is down, or, without `why`, up."""
        self.known[pool, target] = Known(pool, target, not why, True, 5.0, 5.0, why, 3, 0, why, 4.0, 0.001)
        self.on_change()

    def snapshot(self) -> object:
        return ["snapshot"]

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
        "target 192.0.2.2:80 of web: weight 1 -> 7",
        "target 192.0.2.3:80 of web: weight 1 -> 7",
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


@pytest.mark.parametrize(
    ("pool", "target", "weight", "error"),
    [
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
    bench.targets.change(spec(listener("web", inet(1), inet(2), check=None), first))
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
    assert bench.targets.snapshot() == ["snapshot"]
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


def test_a_port_of_a_range_says_nothing_about_the_others(bench: Bench) -> None:
    of_range = listener("game", inet(1, 0), check=replace(CHECK, port=5000), rule=PortRule.OFFSET, ports=100)
    bench.targets.change(spec(of_range))
    origin = of_range.targets[0].origin(inet(1, 0))
    bench.targets.failed(TargetFailures((TargetFailure("game", origin, "connection refused", 3),)))
    assert bench.checker.told == []


# for the metrics


def test_facts_are_what_checks_orders_and_clients_say(bench: Bench) -> None:
    bench.targets.change(spec(listener("web", inet(1), inet(2)), listener("log", inet(3), check=None)))
    bench.checker.says("web", "192.0.2.1:80", "refused")
    bench.targets.order("web", "192.0.2.2:80", Ordered.DRAINED)
    bench.targets.failed(failures("log", "192.0.2.3:80", 2))
    assert list(bench.targets.facts()) == [
        TargetFacts("web", "192.0.2.1:80", "down", up=False, failures=0),
        TargetFacts("web", "192.0.2.2:80", "drained", up=True, failures=0),
        TargetFacts("log", "192.0.2.3:80", "unchecked", up=None, failures=2),
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
