"""Whom to ask, what has been found, and what is known by now, as values."""

import enum
from dataclasses import field
from typing import TypeAlias

from relayd.address import SocketAddress
from relayd.spec import Check
from relayd.values import dataclass

__all__ = ["UP", "Cause", "Found", "Key", "Known", "Subject"]

#: A pool (`spec.Listener.pool_name`) and a target of it (`spec.Target.origin`).
Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Subject:
    """A target of a pool and how it is asked. `address` is what to dial, the check's port applied already. `source` is
    where to dial from, where it has the family of `address`.
    """

    pool: str
    target: str
    address: SocketAddress
    check: Check
    source: SocketAddress | None
    #: What people call it; another text makes no other subject.
    text: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """What the target is called in lines of the log and to commands."""
        return self.text or self.target

    @property
    def key(self) -> Key:
        """What the target is known by, whatever becomes of its check or address."""
        return (self.pool, self.target)


class Cause(enum.Enum):
    """Of what kind a failure is. A reason is for people, and has what a target has sent; this is for the label of a
    metric. The value is the label.
    """

    #: No connection: it was refused, or there is no way.
    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    #: There was a connection, and no answer in time.
    TIMEOUT = "timeout"
    #: An answer that is not the one expected, an end or an error before it.
    ANSWER = "answer"
    #: The status of an HTTP answer.
    STATUS = "status"
    #: The command of a check has failed.
    COMMAND = "command"
    #: Clients have met it failing.
    CLIENTS = "clients"
    #: It was taken down before causes were told, by a relayd that has handed over since.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Found:
    """What one check has found. `up` None: nothing about the target, for a reason of this machine. `reason` is "" where
    the target is up, and `cause` None where it is not down.
    """

    up: bool | None
    reason: str = ""
    cause: Cause | None = None


#: The target has answered as it should.
UP = Found(True)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a target. Times are monotonic seconds, `since_wall` the same as `since` on the wall clock.

    `asked` False: no check has found anything yet, and it is up unless clients have taken it down. `why` is what took
    it down, "" while it is up, and `cause` the kind of that, None then. `failures` and `successes` are those in a row.
    `last_reason` is that of the last check, "" where it was a success, `last_at` when it began, and `last_duration_s`
    how long it took; both None before there was one.
    """

    pool: str
    target: str
    up: bool
    asked: bool
    since: float
    since_wall: float
    why: str
    cause: Cause | None
    failures: int
    successes: int
    last_reason: str
    last_at: float | None
    last_duration_s: float | None
