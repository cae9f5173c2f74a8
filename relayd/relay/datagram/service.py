"""What the sessions of one listener share in a worker: its spec, the table, the boxes, the counters, the log, one
timer.
"""

import abc
from collections.abc import Callable
from typing import Any

from relayd.choosing.group import Choice
from relayd.counters import DatagramCounters
from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.log.logger import ListenerLogger
from relayd.net.batches import Batches
from relayd.outcomes import Drop, Outcome
from relayd.relay.datagram.sessions import Entry, Sessions
from relayd.relay.loop import Actor, Loop
from relayd.spec import Datagram, Listener, Target

#: While a worker is draining, a session that has been silent for this long has said all it wanted: a question to a name
#: server is answered by then, and a stop does not wait for `session_timeout` (R6).
DRAIN_SILENCE_S = 1.0
#: Sessions ended by their timeout in one turn: about a millisecond, then the others have their turn (S5).
EXPIRED_PER_TURN = 64
#: At most one line about lost datagrams of one reason in this time.
DROP_LINE_INTERVAL_S = 10.0
#: What is lost by intent is counted and not told.
_EXPECTED = frozenset({Drop.NO_REPLY_PATH, Drop.DRAINING})


class LiveSession(Entry, abc.ABC):
    """A session, as the service knows it."""

    __slots__ = ()

    choice: Choice

    @property
    @abc.abstractmethod
    def target(self) -> Target | None:
        """Where it goes."""

    @abc.abstractmethod
    def end(self, outcome: Outcome) -> None:
        """End it now. Idempotent."""


class SessionRoom:
    """How many sessions all listeners of a worker may have together: each costs a descriptor (F2)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self.tables: list[Sessions[LiveSession]] = []

    def share(self, limit: int | None) -> int:
        """How many sessions a listener may have whose own limit is `limit`."""
        return self.limit if limit is None else min(limit, self.limit)

    def evict(self) -> LiveSession | None:
        """The session that has to go: the one unused for longest of the listener that has most. None: there is none."""
        return max(self.tables, key=len).evict() if self.tables else None


class DatagramService:
    """One listener of type dgram in one worker. `limit` None: only `room` limits its sessions."""

    def __init__(
        self,
        *,
        loop: Loop,
        spec: Listener,
        datagram: Datagram,
        log: ListenerLogger,
        batches: Batches,
        room: SessionRoom,
        limit: int | None,
        id_prefix: str,
        counters: DatagramCounters | None = None,
    ) -> None:
        self.loop = loop
        self.spec = spec
        self.datagram = datagram
        self.log = log
        self.batches = batches
        self.id_prefix = id_prefix
        self.counters = DatagramCounters() if counters is None else counters
        self.table: Sessions[LiveSession] = Sessions(datagram.session_timeout_s, room.share(limit))
        self.draining = False
        self._room = room
        self._timer: set[Actor] | None = None
        self._told: dict[Drop, int] = {}
        self._tell_at: dict[Drop, float] = {}
        room.tables.append(self.table)

    # sessions ---------------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Evict until one session more may begin (D3)."""
        room = self._room
        while self.table.full and self._evict(self.table.evict):
            pass
        while room.active >= room.limit and self._evict(room.evict):
            pass

    def evict_one(self) -> bool:
        """Give a descriptor back, for the kernel has none left. False: there is nobody to take it from."""
        return self._evict(self.table.evict) or self._evict(self._room.evict)

    def _evict(self, choose: Callable[[], LiveSession | None]) -> bool:
        session = choose()
        if session is not None:
            session.end(Outcome.EVICTED)
        return session is not None

    def begin(self, session: LiveSession, home: dict[bytes, Any], key: bytes) -> int:
        """Count `session` in, and find it under `home[key]`; its number, the second half of its id."""
        self.counters.accepted += 1
        self._admit(session, home, key)
        return self.counters.accepted

    def readmit(self, session: LiveSession, home: dict[bytes, Any], key: bytes, noted_until: float) -> None:
        """Count in `session`, which another process has begun, and which was last used by `noted_until`. When all are
        there, `settle`.
        """
        self._admit(session, home, key)
        session.noted_until = noted_until

    def settle(self) -> None:
        """All that come from other processes are there: bring them in order, and end what is over."""
        self.table.settle()
        self._look_now()

    def _admit(self, session: LiveSession, home: dict[bytes, Any], key: bytes) -> None:
        now = self.loop.now
        self.table.add(session, home, key, now)
        self.counters.active += 1
        self._room.active += 1
        if self._timer is None:
            self._timer = self.loop.call_at(self, now + self.table.timeout_s)

    def left(self, session: LiveSession) -> None:
        """Count out `session`, which another process has now: it has not ended."""
        self.table.remove(session)
        self.counters.active -= 1
        self._room.active -= 1

    def ended(self, session: LiveSession, outcome: Outcome) -> None:
        """Count `session` out. Once."""
        self.table.remove(session)
        self.counters.active -= 1
        self.counters.closed[outcome] += 1
        self._room.active -= 1

    def access(self, record: AccessRecord) -> None:
        """Log one ended session."""
        self.log.access(record)

    def change(self, spec: Listener, datagram: Datagram, limit: int | None) -> None:
        """From now on do what `spec` says. Timeout and limit count for sessions that are there, too (R3)."""
        self.spec, self.datagram = spec, datagram
        self.log.change(spec.log)
        self.table.limit = self._room.share(limit)
        if datagram.session_timeout_s != self.table.timeout_s:
            self.table.timeout_s = datagram.session_timeout_s
            self._look_now()

    def retire(self) -> None:
        """It begins no sessions, for its listener is gone, and has none any more."""
        self._room.tables.remove(self.table)

    # time -------------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """The one timer of the table: end what is over, and come back when the next one may be."""
        self._timer = None
        self._end_expired()

    def _end_expired(self) -> None:
        outcome = Outcome.SHUTDOWN if self.draining else Outcome.SESSION_TIMEOUT
        left = EXPIRED_PER_TURN
        for session in self.table.expired(self.loop.now):
            session.end(outcome)
            left -= 1
            if not left:
                self.loop.again(self._end_expired)
                return
        at = self.table.next_expiry
        if at is not None and self._timer is None:
            self._timer = self.loop.call_at(self, at)

    def _look_now(self) -> None:
        if self._timer is not None:
            self._timer.discard(self)
            self._timer = None
        self._end_expired()

    def drain(self) -> None:
        """Begin no more sessions; those that are there go on until they fall silent (R6)."""
        if self.draining:
            return
        self.draining = True
        self.table.timeout_s = min(self.table.timeout_s, DRAIN_SILENCE_S)
        self._look_now()

    def end_all(self, outcome: Outcome) -> None:
        """End every session."""
        for session in tuple(self.table):
            session.end(outcome)

    # what goes wrong --------------------------------------------------------------------------------------------

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count datagrams that are not passed on (D4)."""
        if count:
            self.counters.dropped[reason] += count

    def tell_drops(self) -> None:
        """One line for each reason that datagrams were lost for since the last one, and not too often. Once a
        second.
        """
        now = self.loop.now
        for reason, count in self.counters.dropped.items():
            lost = count - self._told.get(reason, 0)
            if not lost or reason in _EXPECTED or now < self._tell_at.get(reason, 0.0):
                continue
            self._told[reason] = count
            self._tell_at[reason] = now + DROP_LINE_INTERVAL_S
            self.log.event(
                Event.DATAGRAMS_DROPPED,
                f"{lost} datagrams of listener {self.spec.name} were not passed on: {reason.meaning}",
                listener=self.spec.name,
                reason=reason.value,
                count=lost,
            )

    def report_crash(self, error: Exception) -> None:
        """Log a bug with its traceback."""
        self.log.bug(f"met a session of listener {self.spec.name}", error, listener=self.spec.name)

    def crashed(self, error: Exception) -> None:
        """A bug in the timer: the sessions live on, and it is set again."""
        self.report_crash(error)
        if self._timer is None:
            self._timer = self.loop.call_at(self, self.loop.now + self.table.timeout_s)
