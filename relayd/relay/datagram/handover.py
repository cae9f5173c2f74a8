"""Sessions that go to another process, and those that have come from one (R4): what is written down of them.

A session goes with the receiving socket that its client's datagrams come to, into whatever worker has that. What is in
the queues of either socket stays there; what the session itself holds is in the record: datagrams that wait for the
target, or for a Unix client, and the one that would go to another target (D5). This module knows the insides of
`Session`; what changes there changes here, and with it `channel.parcel.LABEL_VERSION`.
"""

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from relayd.channel.parcel import BROKEN_RECORD
from relayd.choosing.group import Choice
from relayd.net.poller import IN
from relayd.outcomes import Outcome
from relayd.relay.batch import Choices
from relayd.relay.datagram.reception import Reception
from relayd.relay.datagram.session import Phase, Session
from relayd.relay.datagram.waiting import LateAnswers, Waiting

__all__ = ["SessionRecord", "freeze", "thaw"]

_DGRAM = int(socket.SOCK_DGRAM)


class SessionRecord(NamedTuple):
    """One session. `key` is its client's, in hexadecimal. `choice` is a place in the batch's list of those. `kept`,
    `waiting` and `late` are lengths, of what is in this order in the tail; `kept` None: there is none.
    """

    conn_id: str
    key: str
    choice: int
    attempts: int
    errno: int
    started_at: float
    noted_until: float
    first_reply_at: float
    datagrams_in: int
    datagrams_out: int
    bytes_in: int
    bytes_out: int
    dropped: int
    joined: bool
    reloads: int
    restarts: int
    kept: int | None
    waiting: Sequence[int]
    late: Sequence[int]

    @classmethod
    def of_json(cls, value: Sequence[object]) -> "SessionRecord":
        """From what JSON makes of one: a list. Raises ValueError or TypeError."""
        return cls._make(value)

    @property
    def tail(self) -> int:
        """How many bytes of the batch's tail it has."""
        return (self.kept or 0) + sum(self.waiting) + sum(self.late)


def freeze(session: Session, choices: Choices) -> tuple[SessionRecord, int, bytes]:
    """The record of a live session, its descriptor, which stays its own, and its part of the tail. Its choice gets a
    number among `choices`. Changes nothing; what the session does afterwards is not in the record.
    """
    waiting = session._waiting.all() if session._waiting is not None else []
    late = session._late.all() if session._late is not None else []
    record = SessionRecord(
        conn_id=session.conn_id,
        key=session.key.hex(),
        choice=choices.number(session.choice),
        attempts=session.attempts,
        errno=session.errno,
        started_at=session.started_at,
        noted_until=session.noted_until,
        first_reply_at=session.first_reply_at,
        datagrams_in=session.datagrams_in,
        datagrams_out=session.datagrams_out,
        bytes_in=session.bytes_in,
        bytes_out=session.bytes_out,
        dropped=session.dropped,
        joined=session._joined,
        reloads=session._loop.reloads - session.reloads_before,
        restarts=session.restarts,
        kept=len(session.kept) if session.kept is not None else None,
        waiting=[len(data) for data in waiting],
        late=[len(data) for data in late],
    )
    return record, session._sock.fileno(), b"".join((session.kept or b"", *waiting, *late))


def thaw(receiver: Reception, record: SessionRecord, choices: Sequence[Choice], fd: int, tail: bytes) -> Session | None:
    """A session of `receiver` that goes on as `record` says, with `fd`, which it owns, and `tail`.

    None: the record is not what this version makes of it, and the session has ended by its name. Raises what a record
    makes it raise of which not even that can be said; `fd` is closed then.
    """
    sock: socket.SocketType | None = None
    try:
        session = Session(receiver, bytes.fromhex(record.key))
        choice = choices[record.choice]
        sock = socket.SocketType(choice.af, _DGRAM, 0, fd)
        sock.setblocking(False)
        session._loop.selector.register(sock, IN, session.on_event)
        session.reply_to = receiver.outbox.reply_to(session.key)
        session.number = record.conn_id
        session._take(sock, choice)
    except BaseException:
        receiver.service.loop.selector.abandon(fd)
        if sock is not None:
            sock.close()
        else:
            os.close(fd)
        raise
    session.service.readmit(session, receiver.home, session.key, record.noted_until)
    try:
        _remember(session, record, tail)
    except BROKEN_RECORD:
        session.end(Outcome.NOT_TAKEN_OVER)
        return None
    return session


def _remember(session: Session, record: SessionRecord, tail: bytes) -> None:
    session.attempts, session.errno = record.attempts, record.errno
    session.started_at, session.first_reply_at = record.started_at, record.first_reply_at
    session.datagrams_in, session.datagrams_out = record.datagrams_in, record.datagrams_out
    session.bytes_in, session.bytes_out = record.bytes_in, record.bytes_out
    session.dropped = record.dropped
    session.reloads_before -= record.reloads
    session.restarts = record.restarts + 1
    session._joined = record.joined
    session._look_at = record.datagrams_out + 1
    at = 0
    if record.kept is not None:
        session.kept, at = tail[: record.kept], record.kept
    if record.waiting:
        session._waiting = Waiting()
        session.send = session._wait
        for size in record.waiting:
            session._wait(tail[at : at + size])
            at += size
    if record.late:
        session._late = LateAnswers(session, session._loop)
        session._enter(Phase.HELD_UP)
        for size in record.late:
            session._late.put(memoryview(tail)[at : at + size])
            at += size
    session._watch()
