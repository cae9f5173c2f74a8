"""Datagrams that wait until one side has room again: a short queue, and for a Unix client the look whether it has."""

import errno
import socket
from collections import deque
from typing import Protocol

from relayd.outcomes import Drop
from relayd.relay.datagram.reception import Reception
from relayd.relay.loop import Actor, Loop

#: What one session lets wait in one direction: the bytes are what a direction of a stream may hold (S4).
WAITING_MAX = 64
WAITING_BYTES_MAX = 256 * 1024
#: How often we look whether a Unix client has room again: nothing tells (unix(7)).
_LOOK_S = 0.01


class Waiting:
    """A queue of datagrams, bounded by their number and their bytes. Pure."""

    __slots__ = ("_bytes", "_datagrams")

    def __init__(self) -> None:
        self._datagrams: deque[bytes] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._datagrams)

    def put(self, data: bytes | memoryview) -> bool:
        """Let a copy of `data` wait. False: there are too many, and it does not."""
        if len(self._datagrams) >= WAITING_MAX or self._bytes + len(data) > WAITING_BYTES_MAX:
            return False
        self._datagrams.append(bytes(data))
        self._bytes += len(data)
        return True

    @property
    def first(self) -> bytes:
        """The one that has waited for longest. Raises IndexError when there is none."""
        return self._datagrams[0]

    def pop(self) -> None:
        """Take the first one out."""
        self._bytes -= len(self._datagrams.popleft())

    def all(self) -> list[bytes]:
        """Each of them, in order."""
        return list(self._datagrams)


class Answered(Protocol):
    """A session with a Unix client."""

    @property
    def receiver(self) -> Reception:
        """Where answers leave."""

    key: bytes

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count answers that are lost."""

    def client_has_room(self) -> None:
        """All late answers are gone."""

    def crashed(self, error: Exception) -> None:
        """There is a bug."""


class LateAnswers:
    """Answers that a Unix client has no room for. As long as there are any, its session reads no more from the
    target.
    """

    __slots__ = ("_loop", "_session", "_timer", "_waiting")

    def __init__(self, session: Answered, loop: Loop) -> None:
        self._session = session
        self._loop = loop
        self._waiting = Waiting()
        self._timer: set[Actor] = loop.call_at(self, loop.now + _LOOK_S)

    def put(self, data: memoryview) -> None:
        """Behind those that wait."""
        if not self._waiting.put(data):
            self._session.drop(Drop.CLIENT_FULL)

    def expire(self) -> None:
        """Has the client room again?"""
        session, waiting = self._session, self._waiting
        receiver = session.receiver
        client = receiver.layout.client(session.key)
        while waiting:
            try:
                receiver.sock.sendto(waiting.first, socket.MSG_DONTWAIT, client)
            except BlockingIOError:
                self._timer = self._loop.call_at(self, self._loop.now + _LOOK_S)
                return
            except OSError as error:
                session.drop(Drop.TOO_LARGE if error.errno == errno.EMSGSIZE else Drop.CLIENT_FAILED)
            waiting.pop()
        session.client_has_room()

    def crashed(self, error: Exception) -> None:
        """A bug: the session ends."""
        self._session.crashed(error)

    def all(self) -> list[bytes]:
        """Each of them, in order."""
        return self._waiting.all()

    def cancel(self) -> None:
        """Look no more: what waits goes on in another process."""
        self._timer.discard(self)

    def give_up(self) -> None:
        """The session ends: what waits is lost."""
        self.cancel()
        self._session.drop(Drop.CLIENT_FULL, len(self._waiting))
