"""The session table, pure: keys in, sessions out. No socket, no clock; `now` is given, and never goes back.

A session belongs to a client of one receiving socket (D1). It is over when no datagram has moved in either direction
for `timeout_s` (D3). All sessions of a table have the same timeout, so the order of last use is the order of expiry:
one ordered dictionary holds both, its front is the next to expire and the one to evict, and nothing is ever searched.

A use that follows a noted one within STEP_S is not noted: noting costs more than anything else that is done for a
datagram. So a session never expires early, and at most STEP_S late; and of sessions that were used within STEP_S of
each other, any may be the one to evict.

Each receiving socket has a dictionary of its own from key to session, its `home`, for the one look-up that a datagram
costs. The table keeps the homes and the order in step.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

#: A 128th of a second, so that sums of it are exact.
STEP_S = 0.0078125


class Entry:
    """What the table knows of a session. From `noted_until` on, a use is to be noted again."""

    __slots__ = ("home", "key", "noted_until")

    key: bytes
    home: dict[bytes, Any]
    noted_until: float


SessionT = TypeVar("SessionT", bound=Entry)


class Sessions(Generic[SessionT]):
    """The sessions of one listener in one worker, at most `limit` of them. Sessions are hashed by identity."""

    def __init__(self, timeout_s: float, limit: int) -> None:
        #: May be changed at any time; it counts for sessions that are there already, too.
        self.timeout_s = timeout_s
        self.limit = limit
        self._order: OrderedDict[SessionT, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[SessionT]:
        """From the one unused for longest to the one used last."""
        return iter(self._order)

    @property
    def full(self) -> bool:
        """True when one has to go before another can come."""
        return len(self._order) >= self.limit

    @property
    def next_expiry(self) -> float | None:
        """Nothing expires before this time; None when there is nothing."""
        oldest = next(iter(self._order), None)
        return None if oldest is None else oldest.noted_until + self.timeout_s

    def add(self, session: SessionT, home: dict[bytes, SessionT], key: bytes, now: float) -> None:
        """Begin `session`, which is not in the table: `home[key]` finds it from now on. The caller has made room."""
        session.home, session.key, session.noted_until = home, key, now + STEP_S
        home[key] = session
        self._order[session] = None

    def used(self, session: SessionT, now: float) -> None:
        """A datagram of `session` moves: it is now the one used last. May be left out before `session.noted_until`."""
        session.noted_until = now + STEP_S
        self._order.move_to_end(session)

    def settle(self) -> None:
        """Bring sessions that were added with uses of long ago (their `noted_until`) into the order of last use."""
        self._order = OrderedDict.fromkeys(sorted(self._order, key=lambda session: session.noted_until))

    def remove(self, session: SessionT) -> None:
        """End `session`. Idempotent."""
        if session in self._order:
            del self._order[session]
            del session.home[session.key]

    def evict(self) -> SessionT | None:
        """Remove and return the one unused for longest; None when there is none."""
        oldest = next(iter(self._order), None)
        if oldest is not None:
            self.remove(oldest)
        return oldest

    def expired(self, now: float) -> Iterator[SessionT]:
        """Remove and return each session that is over, the one unused for longest first. Others may be added and
        removed meanwhile.
        """
        while (at := self.next_expiry) is not None and at <= now:
            oldest = self.evict()
            if oldest is not None:
                yield oldest
