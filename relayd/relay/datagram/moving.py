"""Sessions whose target has gone down by its checks: to another one, some in each turn of the loop."""

from collections import deque
from collections.abc import Iterable

from relayd.log.logger import Logger
from relayd.relay.datagram.session import Session
from relayd.relay.loop import Loop

#: Each costs a socket, some 50 us: a few milliseconds, then others have their turn (S5).
MOVES_PER_TURN = 64


class Moving:
    """Those that are still to move."""

    def __init__(self, loop: Loop, log: Logger) -> None:
        self._loop = loop
        self._log = log
        self._sessions: deque[Session] = deque()

    def add(self, sessions: Iterable[Session]) -> None:
        """They are to move, from the next turn on."""
        idle = not self._sessions
        self._sessions.extend(sessions)
        if idle and self._sessions:
            self._loop.again(self._move_some)

    def _move_some(self) -> None:
        for _ in range(min(len(self._sessions), MOVES_PER_TURN)):
            session = self._sessions.popleft()
            try:
                session.move_on()
            except Exception as error:
                session.crashed(error)
        if self._sessions:
            self._loop.again(self._move_some)

    def expire(self) -> None:
        """It has no timer."""

    def crashed(self, error: Exception) -> None:
        """A bug: those that are left stay where they are."""
        self._sessions.clear()
        self._log.bug("met sessions that were to move", error)
