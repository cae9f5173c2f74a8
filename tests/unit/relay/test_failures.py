"""What clients meet at targets is told once a turn, and what an operator disables is left."""

from dataclasses import replace

import pytest

from relayd.channel.messages import TargetFailure, TargetFailures
from relayd.log.events import Event
from relayd.relay.departures import Disabled
from relayd.relay.failures import Failures
from relayd.relay.loop import Loop
from relayd.spec import OnChange
from tests.integration.loop_thread import CollectedLog
from tests.unit.relay.lives import DRAIN_TIMEOUT_S, Life, Targets, address_of


def test_failures_of_one_turn_are_told_together() -> None:
    told: list[TargetFailures] = []
    log = CollectedLog()
    loop = Loop(log.flush)
    heard = Failures(loop, log, told.append)
    for first in (True, False, False):
        heard.target_failed("web", "a", "a", "connection refused", first=first, datagrams=False, news=True)
    heard.target_failed("web", "a", "a", "connect timeout", first=False, datagrams=True, news=False)
    loop.turn()
    assert told == [
        TargetFailures(
            (
                TargetFailure("web", "a", "connection refused", 3),
                TargetFailure("web", "a", "connect timeout", 1, True, False),
            )
        )
    ]
    heard.target_worked("web", "a", "a")
    heard.target_failed("web", "a", "a", "connection refused", first=True, datagrams=False, news=True)
    loop.turn()
    assert len(told) == 2
    assert [event for event, *_ in log.events] == [Event.TARGET_SUSPECT, Event.TARGET_TRUSTED, Event.TARGET_SUSPECT]
    loop.close()


@pytest.mark.parametrize(
    ("on_change", "at_once", "in_the_end"),
    [(None, False, True), (OnChange.DRAIN, False, True), (OnChange.CLOSE, True, True), (OnChange.KEEP, False, False)],
)
def test_connections_leave_a_disabled_target_by_on_change(
    on_change: OnChange | None, at_once: bool, in_the_end: bool
) -> None:
    with Targets() as targets:
        listener = replace(targets.streams(), on_change=on_change)
        with Life(listener) as life:
            _, _, connection = life.relaying(targets)
            origin = str(address_of(targets.listening))
            leaving = Disabled(life.loop, life.log, lambda _pool, _target: True, DRAIN_TIMEOUT_S)
            for of, live in life.streams.of_target(listener.name, origin):
                leaving.consider(live, of, origin)
            leaving.begin()
            assert (life.streams.active == 0) == at_once
            life.pass_to(life.loop.now + DRAIN_TIMEOUT_S + 1)
            assert (life.streams.active == 0) == in_the_end
            assert connection.conn_id


def test_a_target_that_is_enabled_again_keeps_its_connections() -> None:
    with Targets() as targets:
        listener = targets.streams()
        with Life(listener) as life:
            life.relaying(targets)
            leaving = Disabled(life.loop, life.log, lambda _pool, _target: False, DRAIN_TIMEOUT_S)
            for of, live in life.streams.of_target(listener.name, str(address_of(targets.listening))):
                leaving.consider(live, of, str(address_of(targets.listening)))
            leaving.begin()
            life.pass_to(life.loop.now + DRAIN_TIMEOUT_S + 1)
            assert life.streams.active == 1
