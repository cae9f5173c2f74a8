"""Whom a reload sends away, and when (R3); `spec.plan.effect`, which decides, is tested where it is."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from relayd.address import Family, InetAddress, NameAddress, SocketAddress, UnixAddress
from relayd.choosing.group import Choice, choice_of
from relayd.outcomes import Outcome
from relayd.relay.departures import Departures
from relayd.relay.loop import Loop
from relayd.spec import Listener, OnChange, SocketOptions, Stream, StreamTimeouts, Target
from tests.integration.loop_thread import CollectedLog
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(10.0, None, 60.0, None))
TARGET = Target(UnixAddress("@target"))
STREAMS = Listener("web", (), BINDING, (TARGET,), None, STREAM, None)
SESSIONS = replace(STREAMS, stream=None, datagram=DATAGRAM)
BOTH = replace(STREAMS, datagram=DATAGRAM)


class Live:
    """A connection, or a session."""

    target = TARGET
    choice: Choice | None = None

    def __init__(self) -> None:
        self.ends: list[Outcome] = []

    def end(self, outcome: Outcome) -> None:
        self.ends.append(outcome)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(lambda: None)
    yield loop
    loop.close()


class Reload:
    """One, and what is in force after it, and later."""

    def __init__(self, loop: Loop, new: Listener | None) -> None:
        self.in_force = new
        self.departures = Departures(loop, CollectedLog(), lambda _: self.in_force, 30.0)

    def ends(self, live: Live) -> tuple[bool, bool]:
        """Whether it ends at once, and whether it does when drain_timeout is over."""
        self.departures.begin()
        at_once = bool(live.ends)
        self.departures.expire()
        assert live.ends in ([], [Outcome.REMOVED])
        return at_once, bool(live.ends)


@pytest.mark.parametrize(
    ("policy", "ends"), [(None, (False, True)), (OnChange.KEEP, (False, False)), (OnChange.CLOSE, (True, True))]
)
def test_a_listener_that_goes(policy: OnChange | None, ends: tuple[bool, bool], loop: Loop) -> None:
    live, reload = Live(), Reload(loop, None)
    reload.departures.consider([live], replace(STREAMS, on_change=policy), None, datagram=False)
    assert reload.ends(live) == ends


class Choices:
    """What there is to choose from."""

    def __init__(self, *addresses: SocketAddress) -> None:
        self.there = addresses

    def addresses(self) -> tuple[SocketAddress, ...]:
        return self.there


NAME = NameAddress("app.example.com", 80)
HERE, GONE = InetAddress(Family.INET, "192.0.2.1", 80), InetAddress(Family.INET, "192.0.2.2", 80)


def of_name(address: SocketAddress, name: NameAddress = NAME) -> Live:
    live = Live()
    live.target = Target(name)
    live.choice = choice_of(address, live.target)
    return live


@pytest.mark.parametrize(
    ("policy", "ends"),
    [
        (None, (False, False)),
        (OnChange.KEEP, (False, False)),
        (OnChange.DRAIN, (False, True)),
        (OnChange.CLOSE, (True, True)),
    ],
)
def test_an_address_that_the_dns_has_no_more(policy: OnChange | None, ends: tuple[bool, bool], loop: Loop) -> None:
    # T3: a record that rotates moves nobody, unless the file says so in so many words
    listener = replace(STREAMS, on_change=policy)
    reload = Reload(loop, listener)
    stays, goes, other = of_name(HERE), of_name(GONE), of_name(GONE, NameAddress("other.example.com", 80))
    reload.departures.gone([stays, goes, other, Live()], listener, NAME, Choices(HERE))
    assert reload.ends(goes) == ends
    assert stays.ends == other.ends == []


def test_an_address_that_has_come_back_keeps_what_it_had(loop: Loop) -> None:
    listener, choices, goes = replace(STREAMS, on_change=OnChange.DRAIN), Choices(HERE), of_name(GONE)
    reload = Reload(loop, listener)
    reload.departures.gone([goes], listener, NAME, choices)
    choices.there = (HERE, GONE)
    assert reload.ends(goes) == (False, False)


def test_one_that_has_come_back_keeps_what_it_had(loop: Loop) -> None:
    live, reload = Live(), Reload(loop, None)
    reload.departures.consider([live], STREAMS, None, datagram=False)
    reload.in_force = STREAMS
    assert reload.ends(live) == (False, False)


@pytest.mark.parametrize(("old", "new", "datagram"), [(STREAMS, SESSIONS, False), (SESSIONS, STREAMS, True)])
def test_one_that_serves_another_type_now_has_not_come_back(
    old: Listener, new: Listener, datagram: bool, loop: Loop
) -> None:
    """Though it has the same name and the same targets."""
    live, reload = Live(), Reload(loop, new)
    reload.departures.consider([live], old, None, datagram=datagram)
    assert reload.ends(live) == (False, True)


@pytest.mark.parametrize(("old", "new", "datagram"), [(BOTH, STREAMS, True), (BOTH, SESSIONS, False)])
@pytest.mark.parametrize(
    ("policy", "ends"), [(None, (False, True)), (OnChange.KEEP, (False, False)), (OnChange.CLOSE, (True, True))]
)
def test_what_comes_from_another_process_to_one_that_serves_another_type(
    policy: OnChange | None, ends: tuple[bool, bool], old: Listener, new: Listener, datagram: bool, loop: Loop
) -> None:
    # R3, R4: by what the listener says now.
    live, reload = Live(), Reload(loop, replace(new, on_change=policy))
    reload.departures.arrived([live], old, datagram=datagram)
    assert reload.ends(live) == ends


@pytest.mark.parametrize("datagram", [False, True])
def test_what_comes_from_another_process_to_the_same_listener_stays(datagram: bool, loop: Loop) -> None:
    # R4
    live, reload = Live(), Reload(loop, BOTH)
    reload.departures.arrived([live], BOTH, datagram=datagram)
    assert reload.ends(live) == (False, False)
