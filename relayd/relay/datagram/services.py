"""Everything about datagrams in one worker: what the worker itself says to it, and nothing more."""

import socket
from collections.abc import Callable

from relayd.address import InetAddress, NameAddress
from relayd.counters import DatagramTotals
from relayd.log.logger import Logger
from relayd.net.batches import Batches
from relayd.outcomes import Outcome
from relayd.relay.datagram.listener import Receiver, SessionReceiver
from relayd.relay.datagram.service import DatagramService, SessionRoom
from relayd.relay.datagram.spreading import Spreader, SpreadingReceiver
from relayd.relay.group import Group, Groups
from relayd.relay.loop import Loop
from relayd.spec import Listener, SessionMode
from relayd.spec.sockets import Endpoint


class DatagramServices:
    """The datagram listeners of one worker. Owns their sockets and sessions."""

    def __init__(self, loop: Loop, log: Logger, limit: int, *, fast: bool = True) -> None:
        """`limit` sessions at most, over all listeners. `fast` False uses no batched system calls."""
        self.batches = Batches(fast=fast)
        #: Sends what waits for clients. To be called at the end of every turn of the loop.
        self.flush: Callable[[], None] = self.batches.flush
        self.services: dict[str, DatagramService] = {}
        self._loop = loop
        self._log = log
        self._room = SessionRoom(limit)
        self._idle = True
        self._groups: dict[str, Groups] = {}
        self._spreaders: dict[Group, Spreader] = {}
        self._receivers: list[Receiver] = []

    @property
    def active(self) -> int:
        """Sessions that are there now."""
        return self._room.active

    def serve(self, listener: Listener, limit: int | None, id_prefix: str) -> None:
        """Make what all sockets of `listener` share. `limit`: this worker's part of its `max_sessions`."""
        if listener.datagram is None:
            raise ValueError(f"{listener.name} serves no datagrams")
        self._groups[listener.name] = Groups(listener.targets)
        self.services[listener.name] = DatagramService(
            loop=self._loop,
            spec=listener,
            datagram=listener.datagram,
            log=self._log,
            batches=self.batches,
            room=self._room,
            limit=limit,
            id_prefix=id_prefix,
        )

    def attend(self, endpoint: Endpoint, sock: socket.socket) -> None:
        """Make what serves one socket of a listener, which it owns then."""
        service = self.services[endpoint.listener.name]
        port = endpoint.address.port if isinstance(endpoint.address, InetAddress) else 0
        group = self._groups[endpoint.listener.name].at(port, endpoint.index)
        if service.datagram.session is SessionMode.CLIENT:
            self._receivers.append(SessionReceiver(service, sock, group))
            return
        if group not in self._spreaders:
            self._spreaders[group] = Spreader(service, group)
        self._receivers.append(SpreadingReceiver(service, sock, group, self._spreaders[group]))

    def open(self) -> None:
        """Begin to receive."""
        for receiver in self._receivers:
            receiver.open()

    def resolved(self, name: NameAddress, addresses: tuple[InetAddress, ...]) -> None:
        """From now on `name` means `addresses`. Sessions stay where they are (T3)."""
        for groups in self._groups.values():
            groups.resolved(name, addresses)
        for spreader in self._spreaders.values():
            spreader.prune()

    def look(self) -> None:
        """Once a second, between two handlers: say what was lost, if anything was, and give back memory that nobody
        uses.
        """
        if self._room.active:
            self._idle = False
        elif not self._idle:
            self._idle = True
            self.batches.trim()
        for receiver in self._receivers:
            receiver.count_lost()
        for service in self.services.values():
            service.tell_drops()

    def totals(self) -> list[DatagramTotals]:
        """The counts of every listener."""
        return [service.counters.snapshot(name) for name, service in self.services.items()]

    def drain(self) -> None:
        """Begin no more sessions (R6). Those that are there go on until they are silent; what has no sessions passes on
        what has arrived, and ends."""
        for service in self.services.values():
            service.drain()
        for receiver in self._receivers:
            if isinstance(receiver, SpreadingReceiver):
                receiver.finish()

    def end_all(self, outcome: Outcome) -> None:
        """End every session, and close every socket."""
        for service in self.services.values():
            service.end_all(outcome)
        for receiver in self._receivers:
            receiver.close()
        for spreader in self._spreaders.values():
            spreader.close()
