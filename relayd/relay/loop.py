"""What one turn of a worker does:

    wait      for events, but no longer than until the next timer, and not at all while somebody has unfinished work
    dispatch  each event to the handler that registered for it
    again     those who stopped at their budget in the turn before, one step each (S5)
    aside     what nobody waits for, one step in a millisecond, whatever else there is to do
    expire    timers that are due: after the I/O, so that a process that was stopped for a while does not time out
              connections whose data was waiting (research: SIGSTOP for 30 s)
    close     the sockets of what has ended in this turn: not before, for a new socket would get the number of a closed
              one, and with it an event of the same turn that was meant for the other
    flush     the log, once per turn

`now` is read once per turn. How late the loop is, is how late it comes to timers: a turn without one pays nothing for
it, and a worker has one each second. A handler that raises has a bug: its owner ends, the loop goes on (F3).
"""

import socket
from collections import deque
from collections.abc import Callable
from typing import Protocol

from relayd import clock
from relayd.counters import LAG_BOUNDS_S, Durations
from relayd.net.poller import EdgeSelector
from relayd.relay.timers import Timers

#: Pause after a failing epoll_wait, which only a filter or a tracer causes: go on, and do not spin.
_SELECT_FAILED_PAUSE_S = 0.1
#: Between two steps of what nobody waits for, at least. Half of it doubled what others notice of whoever looks at
#: thousands of connections, and twice of it made that no less.
ASIDE_EVERY_S = 0.001


class Actor(Protocol):
    """Whoever is called by the loop: bound methods of actors are the handlers."""

    def expire(self) -> None:
        """A timer of this actor is due. `loop.now` is the time."""

    def crashed(self, error: Exception) -> None:
        """A handler of this actor raised `error`: end, log it, and do not raise."""


class Loop:
    """A selectors loop for one thread. Owns its selector."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self.selector = EdgeSelector()
        self.timers: Timers[Actor] = Timers()
        self.now = clock.monotonic()
        self.running = True
        #: How many turns there have been.
        self.turns = 0
        #: How late timers were that came first.
        self.lag = Durations(LAG_BOUNDS_S)
        #: Reloads that there have been: a connection that began before one has survived it.
        self.reloads = 0
        #: Sockets, forgotten by the selector, that this loop owns and closes at the end of the turn.
        self.closing: list[socket.SocketType] = []
        #: Called as each turn ends.
        self.flush = flush
        self._again: deque[Callable[[], None]] = deque()
        self._aside: deque[Callable[[], None]] = deque()
        self._aside_at = 0.0

    def again(self, step: Callable[[], None]) -> None:
        """Call `step`, a bound method of an Actor, once in the next turn."""
        self._again.append(step)

    def aside(self, step: Callable[[], None]) -> None:
        """Call `step`, a bound method of an Actor, once, ASIDE_EVERY_S after its last one: between them the
        processor is for others, of this process and of the machine.
        """
        self._aside.append(step)

    def call_at(self, actor: Actor, at: float) -> set[Actor]:
        """`actor.expire()` at `at` (monotonic seconds). `result.discard(actor)` cancels it."""
        return self.timers.add(actor, at, self.now)

    def run(self) -> None:
        """Turn until `running` is False."""
        while self.running:
            self.turn()

    def turn(self) -> None:
        """One turn."""
        again, aside, timers, selector = self._again, self._aside, self.timers, self.selector
        self.turns += 1
        try:
            # `now` of the turn before: how long its handlers took is how late a timer may be, and that is little.
            events = selector.ready(0.0 if again else self._wait_s() if aside else timers.wait(self.now))
        except OSError:
            clock.pause(_SELECT_FAILED_PAUSE_S)
            events = []
        self.now = now = clock.monotonic()
        handlers = selector.handlers
        for fd, mask in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler(mask)
                except Exception as error:
                    handler.__self__.crashed(error)  # type: ignore[attr-defined]  # handlers are bound methods
        if again:
            self._step_again()
        if aside and now >= self._aside_at:
            self._step_aside(now)
        if timers.soonest <= now:
            self._expire(now)
        if self.closing and self.running:
            self.close_ended()
        self.flush()

    def close_ended(self) -> None:
        """Close what is in `closing`. Every turn ends with it but the last one: that leaves it to the caller, or to the
        end of the process.
        """
        for sock in self.closing:
            try:  # noqa: SIM105  # twice for each connection: `suppress` takes three times as long
                sock.close()
            except OSError:
                pass  # Linux has given the descriptor back even when close(2) reports an error
        self.closing.clear()

    def _step_again(self) -> None:
        for _ in range(len(self._again)):
            step = self._again.popleft()
            try:
                step()
            except Exception as error:
                step.__self__.crashed(error)  # type: ignore[attr-defined]  # `again` takes bound methods

    def _wait_s(self) -> float:
        """Until the next timer, or the next step of those aside."""
        wait_s, aside_s = self.timers.wait(self.now), max(0.0, self._aside_at - self.now)
        return aside_s if wait_s is None else min(wait_s, aside_s)

    def _step_aside(self, now: float) -> None:
        self._aside_at = now + ASIDE_EVERY_S / len(self._aside)  # each of several goes on as if it were alone
        step = self._aside.popleft()
        try:
            step()
        except Exception as error:
            step.__self__.crashed(error)  # type: ignore[attr-defined]  # as `again`

    def _expire(self, now: float) -> None:
        self.lag.add(now - self.timers.soonest)
        for actor in self.timers.expired(now):
            try:
                actor.expire()
            except Exception as error:
                actor.crashed(error)

    def close(self) -> None:
        """Close what has ended, and the selector."""
        self.close_ended()
        self.selector.close()


class WakeUp:
    """An Actor with nothing to do but to have the loop turn: for what happens as a turn ends."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def after(self, seconds: float) -> None:
        """Have a turn then, or a step of the timers later."""
        self._loop.call_at(self, self._loop.now + seconds)

    def expire(self) -> None:
        """That was it."""

    def crashed(self, error: Exception) -> None:
        """It does nothing that could."""
