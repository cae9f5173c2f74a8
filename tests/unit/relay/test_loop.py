import socket
from collections.abc import Iterator

import pytest

from relayd import clock
from relayd.counters import LAG_BOUNDS_S
from relayd.net.poller import IN, STREAM
from relayd.relay.loop import ASIDE_EVERY_S, Loop, WakeUp


class Recorder:
    """An actor that keeps what was called, and does what it is told."""

    def __init__(self, loop: Loop, calls: list[str], name: str = "") -> None:
        self.loop, self.calls, self.name = loop, calls, name
        self.bugs: set[str] = set()

    def _call(self, what: str) -> None:
        self.calls.append(f"{self.name}{what}")
        if what in self.bugs:
            raise KeyError(what)

    def on_event(self, mask: int) -> None:
        self._call("event")

    def step(self) -> None:
        self._call("step")

    def expire(self) -> None:
        self._call("expire")

    def crashed(self, error: Exception) -> None:
        self.calls.append(f"{self.name}crashed {error.args[0]}")


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def loop(calls: list[str]) -> Iterator[Loop]:
    loop = Loop(lambda: calls.append("flush"))
    yield loop
    loop.close()


@pytest.fixture
def readable(loop: Loop) -> Iterator[socket.socket]:
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")
        yield one


def test_how_late_it_came_to_the_first_timer(loop: Loop, calls: list[str]) -> None:
    for late_s in (0.3, 0.03):
        loop.call_at(Recorder(loop, calls), loop.now - late_s)
    loop.turn()  # one look for both
    lag = loop.lag.snapshot()
    assert sum(lag.counts) == 1
    assert lag.counts[LAG_BOUNDS_S.index(0.5)] == 1
    assert 0.25 < lag.sum_s <= 0.5


def test_events_then_steps_then_timers_then_the_log(loop: Loop, calls: list[str], readable: socket.socket) -> None:
    actor = Recorder(loop, calls)
    loop.selector.register(readable, IN, actor.on_event)
    loop.again(actor.step)
    loop.call_at(actor, loop.now - 1)
    loop.turn()
    assert calls == ["event", "step", "expire", "flush"]


def test_a_bug_anywhere_is_its_actors_and_the_turn_goes_on(
    loop: Loop, calls: list[str], readable: socket.socket
) -> None:
    # F3
    buggy, good = Recorder(loop, calls, "b "), Recorder(loop, calls)
    buggy.bugs = {"event", "step", "expire"}
    loop.selector.register(readable, IN, buggy.on_event)
    loop.again(buggy.step)
    loop.again(good.step)
    loop.call_at(buggy, loop.now - 1)
    loop.turn()
    assert calls == [
        *("b event", "b crashed event", "b step", "b crashed step", "step", "b expire", "b crashed expire", "flush"),
    ]


def test_a_step_that_asks_for_another_gets_it_in_the_next_turn(loop: Loop, calls: list[str]) -> None:
    # S5
    class Greedy(Recorder):
        def step(self) -> None:
            super().step()
            self.loop.again(self.step)

    greedy, modest = Greedy(loop, calls, "greedy "), Recorder(loop, calls)
    loop.again(greedy.step)
    loop.again(modest.step)
    loop.turn()
    assert calls == ["greedy step", "step", "flush"]
    loop.turn()
    assert calls[3:] == ["greedy step", "flush"]


def test_who_has_unfinished_work_is_not_waited_for(loop: Loop, calls: list[str]) -> None:
    loop.call_at(Recorder(loop, calls), loop.now + 60)
    loop.again(Recorder(loop, calls).step)
    before = clock.monotonic()
    loop.turn()
    assert clock.monotonic() - before < 5


def test_a_turn_waits_for_the_next_timer(loop: Loop, calls: list[str]) -> None:
    # S7
    actor = Recorder(loop, calls)
    at = loop.now + 0.05
    loop.call_at(actor, at)
    while "expire" not in calls:
        loop.turn()
    assert loop.now >= at
    assert calls.count("flush") <= 2  # it did not turn in the meantime


def test_a_cancelled_timer_does_not_fire(loop: Loop, calls: list[str]) -> None:
    actor = Recorder(loop, calls)
    loop.call_at(actor, loop.now - 1).discard(actor)
    loop.call_at(Recorder(loop, calls, "other "), loop.now)
    while "other expire" not in calls:
        loop.turn()
    assert "expire" not in calls


def test_a_wait_that_fails_is_no_end_and_no_spin(loop: Loop, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(clock, "pause", pauses.append)

    def fails(timeout: float | None) -> list[object]:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(loop.selector, "ready", fails)
    loop.turn()
    assert len(pauses) == 1
    assert 0.01 < pauses[0] < 1
    assert calls == ["flush"]


def test_a_number_is_not_given_out_again_in_the_turn_in_which_its_owner_ended(loop: Loop, calls: list[str]) -> None:
    """Two sockets have an event in one turn. Whoever comes first ends the other one and opens a third."""
    pairs = [socket.socketpair(), socket.socketpair()]
    numbers = [near.fileno() for near, _ in pairs]
    opened: list[socket.socket] = []

    class Ending(Recorder):
        other: int

        def on_event(self, mask: int) -> None:
            super().on_event(mask)
            loop.selector.forget(numbers[self.other])
            loop.closing.append(pairs[self.other][0])
            opened.append(socket.socket())
            loop.selector.watch(opened[-1].fileno(), Recorder(loop, calls, "wrong ").on_event)

    for number in (0, 1):
        actor = Ending(loop, calls)
        actor.other = 1 - number
        loop.selector.watch(numbers[number], actor.on_event)
        pairs[number][1].send(b"x")
    loop.turn()
    assert calls == ["event", "flush"]
    assert opened[0].fileno() not in numbers
    assert sum(near.fileno() == -1 for near, _ in pairs) == 1
    for sock in (*opened, *pairs[0], *pairs[1]):
        sock.close()


def test_what_ended_after_the_last_turn_is_closed_with_the_loop(calls: list[str]) -> None:
    loop = Loop(lambda: calls.append("flush"))
    near, far = socket.socketpair()
    loop.closing += [near, near]  # closing twice is nothing
    loop.close()
    assert near.fileno() == -1
    far.close()


def test_it_runs_until_told(loop: Loop, calls: list[str], readable: socket.socket) -> None:
    class Last(Recorder):
        def on_event(self, mask: int) -> None:
            self.loop.running = False

    loop.selector.register(readable, STREAM, Last(loop, calls).on_event)
    loop.run()
    assert calls == ["flush"]


def test_a_turn_that_is_asked_for_comes_and_flushes(loop: Loop, calls: list[str]) -> None:
    begun = loop.now
    WakeUp(loop).after(0.01)
    loop.turn()  # which waits for the timer, and would for ever without one
    assert loop.now - begun >= 0.01
    assert calls == ["flush"]
    assert loop.timers.wait(loop.now) is None


# aside -------------------------------------------------------------------------------------------------------------


def test_what_nobody_waits_for_has_one_step_in_a_millisecond(loop: Loop, calls: list[str]) -> None:
    buggy, good = Recorder(loop, calls, "buggy "), Recorder(loop, calls, "good ")
    buggy.bugs.add("step")
    loop.aside(buggy.step)
    loop.aside(good.step)
    loop.turn()
    assert calls == ["buggy step", "buggy crashed step", "flush"]
    calls.clear()
    began = clock.monotonic()
    while "good step" not in calls:
        loop.turn()
    assert clock.monotonic() - began >= ASIDE_EVERY_S / 2
    assert len(calls) < 10, "it waits meanwhile, and does not turn"


def test_what_is_aside_keeps_no_timer_waiting(loop: Loop, calls: list[str]) -> None:
    class Endless(Recorder):
        def step(self) -> None:
            self._call("step")
            self.loop.aside(self.step)

    loop.aside(Endless(loop, calls).step)
    loop.call_at(Recorder(loop, calls), loop.now + 0.03)
    while "expire" not in calls:
        loop.turn()
    assert 2 < calls.count("step") < 100
