"""Sessions that come from another process, and that go to one, as the service counts them (R4)."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.net.batches import Batches
from relayd.outcomes import Outcome
from relayd.relay.datagram.service import EXPIRED_PER_TURN, DatagramService, LiveSession, SessionRoom
from relayd.relay.datagram.sessions import STEP_S
from relayd.relay.loop import Loop
from relayd.spec import Listener, ListenerLog, Target
from tests.integration.loop_thread import CollectedLog
from tests.specs import BINDING, DATAGRAM

TIMEOUT_S = DATAGRAM.session_timeout_s


class FakeSession(LiveSession):
    """Notes when and how it ended."""

    def __init__(self, service: DatagramService) -> None:
        self.service = service
        self.ends: list[tuple[float, Outcome]] = []

    @property
    def target(self) -> Target | None:
        return None

    def end(self, outcome: Outcome) -> None:
        self.ends.append((self.service.loop.now, outcome))
        self.service.ended(self, outcome)


class Bench:
    """A service, and time at the test's will."""

    def __init__(self) -> None:
        self.loop = Loop(lambda: None)
        self.room = SessionRoom(1000)
        self.home: dict[bytes, Any] = {}
        self.service = DatagramService(
            loop=self.loop,
            spec=Listener("dns", (), BINDING, (), None, None, DATAGRAM),
            datagram=DATAGRAM,
            log=CollectedLog().of(ListenerLog()),
            batches=Batches(fast=False),
            room=self.room,
            limit=None,
            id_prefix="t-",
        )

    def readmit(self, noted_until: float) -> FakeSession:
        session = FakeSession(self.service)
        self.service.readmit(session, self.home, b"%d" % len(self.home), noted_until)
        return session

    def pass_to(self, now: float) -> None:
        """Do what the loop does in its turns until then."""
        self.loop.now = now
        for actor in self.loop.timers.expired(now):
            actor.expire()
        self.turn()

    def turn(self) -> None:
        """The steps of one turn."""
        for _ in range(len(self.loop._again)):
            self.loop._again.popleft()()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Accepted, active, and active of all listeners."""
        counters = self.service.counters
        return counters.accepted, counters.active, self.room.active


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.loop.close()


def test_a_session_of_another_process_is_active_and_was_not_accepted_here(bench: Bench) -> None:
    # R4
    now = bench.loop.now
    session = bench.readmit(now - 1.0)
    bench.service.settle()
    assert bench.counts == (0, 1, 1)
    assert bench.home == {b"0": session}
    assert (session.ends, session.noted_until) == ([], now - 1.0)


def test_one_that_leaves_has_not_ended(bench: Bench) -> None:
    # R4
    staying, leaving = bench.readmit(bench.loop.now), bench.readmit(bench.loop.now)
    bench.service.left(leaving)
    assert bench.counts == (0, 1, 1)
    assert bench.home == {b"0": staying}
    assert list(bench.service.table) == [staying]
    assert (leaving.ends, dict(bench.service.counters.closed)) == ([], {})


def test_what_was_over_on_the_way_ends_at_once_and_nothing_else_does(bench: Bench) -> None:
    now = bench.loop.now
    silent = [now, now - TIMEOUT_S, now - 2 * TIMEOUT_S, now - TIMEOUT_S + STEP_S]
    sessions = [bench.readmit(noted_until) for noted_until in silent]
    bench.service.settle()
    assert [session.ends for session in sessions] == [[], *[[(now, Outcome.SESSION_TIMEOUT)]] * 2, []]
    assert bench.counts == (0, 2, 2)


def test_many_that_are_over_end_a_few_at_a_time(bench: Bench) -> None:
    # S5
    sessions = [bench.readmit(0.0) for _ in range(EXPIRED_PER_TURN + 1)]
    bench.loop.now = TIMEOUT_S
    bench.service.settle()
    assert sum(bool(session.ends) for session in sessions) == EXPIRED_PER_TURN
    bench.turn()
    assert all(session.ends for session in sessions)


@given(st.lists(st.integers(0, 59).map(float) | st.floats(0.0, 59.0), min_size=1, max_size=12))
def test_in_whatever_order_they_come_each_ends_in_its_time(silences: list[float]) -> None:
    # D3, S7
    bench = Bench()
    begin = bench.loop.now
    due = {bench.readmit(begin - silence): begin - silence + TIMEOUT_S for silence in silences}
    bench.service.settle()
    for at in sorted(due.values()):
        bench.pass_to(max(bench.loop.now, at - 0.001))
        assert all(due[session] <= bench.loop.now for session in due if session.ends)
        bench.pass_to(at + 0.3)  # a timer may be a quarter of a second late
        assert all(session.ends for session in due if due[session] <= at)
    assert dict(bench.service.counters.closed) == {Outcome.SESSION_TIMEOUT: len(silences)}
    assert bench.counts == (0, 0, 0)
    bench.loop.close()
