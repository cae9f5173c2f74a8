"""Restarts in the middle of everything: what is live goes into a parcel and comes out of it, in the loop that carries
it.

Everything that a restart does to a connection or a session happens, but for the change of process. So what is promised
of them can be asked of those that are restarted all the time, by the very same tests.
"""

import os
from typing import Any

from relayd.channel import parcel
from relayd.channel.parcel import Content, Label
from relayd.relay.batch import Choices
from relayd.relay.datagram import handover as datagram
from relayd.relay.stream import handover as stream
from relayd.relay.stream.connection import Connection
from tests.integration.datagram_relaying import DatagramRelay
from tests.integration.relaying import Relay

#: Between two restarts: watching a socket anew is an event, so that without a pause no loop would ever rest.
INTERVAL_S = 0.003


def restart_streams(relay: Relay) -> None:
    """In place of `Relay._flush`, at the end of a turn."""
    relay.log.flush()
    if _due(relay):
        choices = Choices()
        kept, sending = parcel.pair()
        with kept, sending:
            for connection in tuple(relay.service.connections):
                assert isinstance(connection, Connection)
                record, fds, tail = stream.freeze(connection, choices)
                texts, table = stream.written([record])
                _put(sending, texts, table + tail, fds)
                _end_watching(relay, *fds)
                connection.leave()
            relay.loop.close_ended()
            for texts, tail, fds in _taken(kept):
                size = stream.table_size(1)
                (thawed,), tail = stream.read(texts, tail[:size]), tail[size:]
                assert thawed.fds == len(fds)
                assert thawed.tail == len(tail)
                stream.thaw(relay.service, relay.group, thawed, choices.every, fds, tail)


def restart_datagrams(relay: DatagramRelay) -> None:
    """In place of `DatagramRelay._flush`, at the end of a turn."""
    relay.services.flush()
    relay.log.flush()
    if _due(relay):
        choices = Choices()
        kept, sending = parcel.pair()
        with kept, sending:
            receivers = {}
            for _, sock, sessions in relay.services.live():
                inode = os.fstat(sock.fileno()).st_ino
                for session in sessions:
                    record, fd, tail = datagram.freeze(session, choices)
                    _put(sending, record, tail, [fd])
                    _end_watching(relay, fd)
                    session.leave()
                    receivers[session.key.hex()] = relay.services.receiver(inode)
            relay.loop.close_ended()
            for record, tail, fds in _taken(kept):
                thawed = datagram.SessionRecord.of_json(record)
                receiver = receivers[thawed.key]
                assert receiver is not None
                datagram.thaw(receiver, thawed, choices.every, fds[0], tail)
            relay.services.settle_sessions()


def _end_watching(relay: Any, *fds: int) -> None:
    """What the end of a process does, and `leave` leaves to it: the epoll set is gone, with all that was in it."""
    for fd in fds:
        relay.loop.selector.abandon(fd)


def _due(relay: Any) -> bool:
    due = bool(relay.loop.now >= getattr(relay, "restart_at", 0.0))
    if due:
        relay.restart_at = relay.loop.now + INTERVAL_S
    return due


def _put(sending: Any, record: Any, tail: bytes, fds: list[int]) -> None:
    memfd = parcel.pack(Content(record, tail))
    try:
        parcel.put(sending, Label(False, "web", 1, len(fds)), [memfd, *fds])
    finally:
        os.close(memfd)


def _taken(kept: Any) -> list[tuple[Any, bytes, list[int]]]:
    found = []
    for label, (memfd, *fds) in parcel.read(kept):
        assert label is not None
        content = parcel.unpack(memfd)
        os.close(memfd)
        found.append((content.values, content.tail, fds))
    return found
