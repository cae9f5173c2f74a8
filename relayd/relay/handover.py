"""All connections and sessions of a worker, into parcels and out of them (R4).

    pack   away: batch by batch, each with the listener that it belongs to; what is in a parcel is no more here
    take   back: each to its listener, as a reload would treat it where that is not what it was

What the kernel does not take, and what is not understood, ends by its name (`not_taken_over`), and a line says how
many.
"""

import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from relayd.channel import parcel
from relayd.channel.codec import plain, value_of
from relayd.channel.parcel import BATCH_FDS, BROKEN_RECORD, LABEL_VERSION, VERSIONS_READ, Content, Label, ParcelFull
from relayd.choosing.group import Choice, choice_of
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.outcomes import Outcome
from relayd.relay.batch import Choices
from relayd.relay.datagram import handover as datagram
from relayd.relay.datagram.reception import Reception
from relayd.relay.datagram.services import DatagramServices
from relayd.relay.datagram.session import Session
from relayd.relay.departures import Departing, Departures
from relayd.relay.stream import handover as stream
from relayd.relay.stream.connection import Connection
from relayd.relay.stream.services import StreamServices
from relayd.spec import Listener

__all__ = ["Arrivals", "Packer"]


class Packer:
    """Fills `parcels`, the ends to send into, one after the other. Owns them."""

    def __init__(self, parcels: Iterable[socket.socket]) -> None:
        self._parcels = list(parcels)
        self.connections = 0
        self.sessions = 0

    def pack_streams(self, listener: Listener, connections: Sequence[Connection]) -> None:
        """As many of a listener's connections as the parcels take."""
        waiting = list(connections)
        while waiting and self._parcels:
            batch: list[Connection] = []
            choices = Choices()
            records: list[stream.StreamRecord] = []
            fds: list[int] = []
            tail = b""
            while waiting and len(fds) + stream.FDS_MAX <= BATCH_FDS:
                record, more, bytes_held = stream.freeze(waiting[-1], choices)
                records.append(record)
                fds += more
                tail += bytes_held
                batch.append(waiting.pop())
            label = Label(False, listener.name, len(batch), len(fds))
            texts, table = stream.written(records)
            if self._put(label, _content(listener, choices, texts, table + tail), fds):
                self.connections += len(batch)
                for connection in batch:
                    connection.leave()

    def pack_sessions(self, listener: Listener, sock: socket.socket, sessions: Sequence[Session]) -> None:
        """As many of the sessions of a listener at the receiving socket `sock` as the parcels take."""
        inode = os.fstat(sock.fileno()).st_ino
        for at in range(0, len(sessions), BATCH_FDS):
            batch = sessions[at : at + BATCH_FDS]
            choices = Choices()
            frozen = [datagram.freeze(session, choices) for session in batch]
            content = _content(
                listener, choices, [record for record, _, _ in frozen], b"".join(tail for _, _, tail in frozen)
            )
            label = Label(True, listener.name, len(batch), len(batch), inode)
            if self._put(label, content, [fd for _, fd, _ in frozen]):
                self.sessions += len(batch)
                for session in batch:
                    session.leave()

    def close(self) -> None:
        """All is packed that can be."""
        while self._parcels:
            self._parcels.pop().close()

    def _put(self, label: Label, content: Content, fds: list[int]) -> bool:
        """False: no parcel takes it, nor will one take another."""
        try:
            memfd = parcel.pack(content)
        except OSError:
            self.close()
            return False
        try:
            while self._parcels:
                try:
                    parcel.put(self._parcels[-1], label, [memfd, *fds])
                except (ParcelFull, OSError):
                    self._parcels.pop().close()
                else:
                    return True
            return False
        finally:
            os.close(memfd)


def _content(listener: Listener, choices: Choices, records: Sequence[Any], tail: bytes) -> Content:
    dialled = [(plain(choice.target), plain(choice.address)) for choice in choices.every]
    values = {"listener": plain(listener), "choices": dialled, "records": records}
    return Content(values, tail)


class Arrivals:
    """What comes from other processes, to the services of this one. `take` any number of times, then `settle`."""

    def __init__(
        self, streams: StreamServices, datagrams: DatagramServices | None, log: Logger, departures: Departures
    ) -> None:
        self._streams = streams
        self._datagrams = datagrams
        self._log = log
        self._departures = departures
        #: Each with what its listener was, and whether they are sessions.
        self._taken: dict[tuple[Listener, bool], list[Departing]] = {}
        #: Connections and sessions (True) that live on here; and those that have ended, with a line of the log.
        self.went_on = {False: 0, True: 0}
        self.told = {False: 0, True: 0}
        #: Of one batch: those that live on, or have ended by their name and with their line.
        self._dealt_with = 0

    def take(self, label: Label, fds: Sequence[int]) -> None:
        """Go on with a batch. Owns `fds`."""
        left = list(fds)
        self._dealt_with, before = 0, self.went_on[label.datagram]
        reason = "nothing is written down of them"
        try:
            if label.version not in VERSIONS_READ:
                reason = f"they are written down as of version {label.version}, and this one knows {LABEL_VERSION}"
            elif left:
                self._take(label, left)
            else:  # control has closed them (`Dealer`)
                reason = "workers may not have so many, or nobody listens at their address any more"
        except BROKEN_RECORD as error:
            reason = f"{type(error).__name__}: {error}"
        finally:
            for fd in left:
                os.close(fd)
        if self._dealt_with < label.count:
            self._count_missing(label, label.count - self._dealt_with, reason)
        self.told[label.datagram] += label.count - (self.went_on[label.datagram] - before)

    def _take(self, label: Label, fds: list[int]) -> None:
        """Takes out of `fds` what belongs to a connection or session now."""
        content = parcel.unpack(fds[0])
        os.close(fds.pop(0))
        listener = value_of(content.values["listener"])
        choices = [choice_of(value_of(address), value_of(target)) for target, address in content.values["choices"]]
        take = (
            self._sessions(label, content, choices, fds)
            if label.datagram
            else self._connections(label, listener, content, choices, fds)
        )
        taken = self._taken.setdefault((listener, label.datagram), [])
        for one in take:
            self._dealt_with += 1
            if one is not None:
                self.went_on[label.datagram] += 1
                taken.append(one)

    def _connections(
        self, label: Label, listener: Listener, content: Content, choices: Sequence[Choice], fds: list[int]
    ) -> Iterator[Connection | None]:
        """Each as soon as it lives here. None: it has ended."""
        written, tail = content.values["records"], memoryview(content.tail)
        if label.version == 1:
            records = stream.read_version_1(written)
        else:
            size = stream.table_size(len(written))
            records, tail = stream.read(written, tail[:size]), tail[size:]
        for record in records:
            service, group = self._streams.place(listener, record.bind_port, record.bind_index)
            held = b""
            if size := record.tail:
                held, tail = bytes(tail[:size]), tail[size:]
            connection = stream.thaw(service, group, record, choices, _first(fds, record.fds), held)
            if connection is not None and listener.stream is not None:
                service.welcome(connection, listener.stream)
            yield connection

    def _sessions(
        self, label: Label, content: Content, choices: Sequence[Choice], fds: list[int]
    ) -> Iterator[Session | None]:
        """As `_connections`."""
        receiver, tail = self._receiver(label), memoryview(content.tail)
        for value in content.values["records"]:
            record = datagram.SessionRecord.of_json(value)
            held, tail = bytes(tail[: record.tail]), tail[record.tail :]
            (fd,) = _first(fds, 1)
            yield datagram.thaw(receiver, record, choices, fd, held)

    def _receiver(self, label: Label) -> Reception:
        receiver = self._datagrams.receiver(label.socket) if self._datagrams is not None else None
        if receiver is None:
            raise ValueError("nobody listens at their address any more")
        return receiver

    def _count_missing(self, label: Label, missing: int, reason: str) -> None:
        closed = self._streams.closed(label.listener)
        if label.datagram and self._datagrams is not None:
            closed = self._datagrams.closed(label.listener)
        closed[Outcome.NOT_TAKEN_OVER] += missing
        what = "sessions" if label.datagram else "connections"
        services = self._datagrams if label.datagram else self._streams
        service = services.services.get(label.listener) if services is not None else None
        log = service.log if service is not None else self._log
        log.event(
            Event.NOT_TAKEN_OVER,
            f"{missing} {what} of listener {label.listener} were not taken over: {reason}",
            listener=label.listener,
            count=missing,
        )

    def settle(self) -> None:
        """All are there: those that the configuration does not want any more depart (R3)."""
        for (listener, sessions), taken in self._taken.items():
            self._departures.arrived(taken, listener, datagram=sessions)
        self._taken.clear()
        if self._datagrams is not None:
            self._datagrams.settle_sessions()


def _first(fds: list[int], count: int) -> list[int]:
    """Take the first `count` out of `fds`. Raises ValueError when there are fewer."""
    if len(fds) < count:
        raise ValueError("descriptors are missing")
    own = fds[:count]
    del fds[:count]
    return own
