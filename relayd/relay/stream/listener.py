"""Accepting: one acceptor per listening socket.

The socket is shared by all workers and never closed by the loss of one. The accept loop neither dies nor spins: an
error of one connection is skipped; at the limit of connections, or out of descriptors or memory, the acceptor pauses
on a timer (F1).
"""

import socket
from dataclasses import replace

from relayd import address, errors
from relayd.choosing.group import Group
from relayd.errors import ACCEPT_RETRY, OUT_OF_RESOURCES, TRANSIENT
from relayd.log.events import Event
from relayd.net.poller import IN, LISTENING
from relayd.relay.limits import ACCEPT_PAUSE_S
from relayd.relay.stream.connection import Arrival, Connection
from relayd.relay.stream.service import StreamService

#: Connections taken in one turn, before those that are open get theirs (S5). The rest wait in the backlog for the
#: next one.
ACCEPTS_PER_TURN = 16

#: Rounds of accepting before a socket is closed for good: net.core.somaxconn is 4096 by default.
LAST_ACCEPTS = 4096 // ACCEPTS_PER_TURN + 8

_STREAM = int(socket.SOCK_STREAM)


class AcceptingSocket(socket.socket):
    """A listening socket. `socket.accept` asks for family, type and timeout at every call; this knows them.

    What it gives, like what `net.dialing` opens, is a `SocketType`: the class below `socket.socket`, the same but for
    `makefile` and its bookkeeping, at half the cost of making and closing one.
    """

    def accept_from(self, af: int) -> tuple[socket.SocketType, object]:
        """A non-blocking accepted socket and the address of its peer. `af` is this socket's family. Raises as
        accept(2).
        """
        fd, peer = self._accept()  # type: ignore[attr-defined]  # what socket.accept calls; typeshed has it one class up
        client = socket.SocketType(af, _STREAM, 0, fd)
        client.setblocking(False)
        return client, peer


class Acceptor:
    """Accepts on one listening socket. Owns the socket."""

    def __init__(
        self, service: StreamService, sock: AcceptingSocket, bind: address.SocketAddress, group: Group
    ) -> None:
        """Takes `sock`, which listens on `bind` and whose clients go to `group`. `open` begins to accept."""
        sock.setblocking(False)
        self._service = service
        self._sock = sock
        self._budget = 1
        self._accepting = False
        self._open = False
        # A Unix socket was renamed after its bind(2), and the kernel only remembers the name before; a port may be new.
        unix = isinstance(bind, address.UnixAddress)
        bound = bind if unix else address.from_sockaddr(sock.family, sock.getsockname())
        wildcard = isinstance(bound, address.InetAddress) and bound.wildcard
        self._arrival = Arrival(int(sock.family), None if wildcard else str(bound), group)

    def serve(self, service: StreamService, group: Group) -> None:
        """From now on clients are those of `service`, and go to `group`."""
        self._service = service
        if group is not self._arrival.group:
            self._arrival = replace(self._arrival, group=group)

    def open(self) -> None:
        """Begin to accept."""
        self._open = True
        self._resume()

    def finish(self) -> None:
        """Accept what waits already, and close: with the last copy of the socket, the kernel would reset those."""
        counters = self._service.counters
        for _ in range(LAST_ACCEPTS):
            before = counters.accepted
            if self._accepting:
                self.on_readable(IN)
            if counters.accepted == before:
                break
        self.close()

    def close(self) -> None:
        """Accept no more, and close this worker's copy of the socket. Idempotent."""
        if not self._open:
            return
        self._open = False
        self._suspend()
        self._sock.close()

    def on_readable(self, mask: int) -> None:  # noqa: ARG002  # a handler takes the event bits
        """Accept what waits, within a budget that follows how much that is.

        One more accept(2) than there are connections costs as much as a small read; so the budget doubles while it is
        used up, and goes back to what there was.
        """
        if not self._accepting:
            return  # suspended or closed by an earlier handler of this very turn
        service, group = self._service, self._arrival.group
        admission = service.admission
        af = self._arrival.af
        for taken in range(self._budget):
            if admission.active >= admission.limit or (group.limited and group.full(service.loop.now)):
                self._pause_full()  # filled by another listener, or since the event
                return
            try:
                client, sockaddr = self._sock.accept_from(af)
            except BlockingIOError:
                self._budget = max(1, taken)
                return
            except OSError as error:
                if error.errno in ACCEPT_RETRY or error.errno in TRANSIENT:
                    continue
                self._pause(errors.name(error.errno or 0) + (": " + (error.strerror or "")))
                if error.errno not in OUT_OF_RESOURCES:
                    raise
                return
            connection = Connection(service, client, sockaddr, self._arrival)
            try:
                connection.start()
            except Exception as error:
                connection.crashed(error)  # its own bug, not the acceptor's (F3)
            if admission.active >= admission.limit or (group.limited and group.full(service.loop.now)):
                # Now, and not when the next one comes: that would wake this worker alone (EPOLLEXCLUSIVE), and wait
                # here although another worker has room.
                self._pause_full()
                return
        self._budget = min(2 * self._budget, ACCEPTS_PER_TURN)

    def fileno(self) -> int:
        """The listening socket's descriptor, owned by this object. -1 once closed."""
        return self._sock.fileno()

    def look(self) -> None:
        """Accept what waits although no event says so: it woke a worker that has not taken it, being full or hung."""
        self.on_readable(IN)

    def expire(self) -> None:
        """The pause is over: try again."""
        if self._open:
            group = self._arrival.group
            if self._service.admission.full or (group.limited and group.full(self._service.loop.now)):
                self._wait()
            else:
                self._resume()

    def crashed(self, error: Exception) -> None:
        """A bug, or an errno of accept(2) that nobody knows: logged, and accepting goes on after a pause."""
        self._service.report_crash(error)
        if self._open and self._accepting:
            self._suspend()
            self._wait()

    def _pause_full(self) -> None:
        admission = self._service.admission
        if admission.full:
            self._pause(f"all {admission.limit} connections that this worker may have are open")
        else:
            self._pause("its targets have all the connections of this worker that they may have (max_connections)")

    def _pause(self, reason: str) -> None:
        service = self._service
        service.counters.accept_pauses += 1
        self._suspend()
        self._wait()
        if service.admission.log_pause(service.loop.now):
            service.log.event(
                Event.ACCEPT_PAUSED,
                f"accepting pauses: {reason}; new connections wait in the backlog",
                listener=service.spec.name,
                reason=reason,
                active=service.admission.active,
            )

    def _suspend(self) -> None:
        # EPOLLEXCLUSIVE cannot be modified (epoll_ctl(2): EINVAL), so a pause is an unregistration.
        if self._accepting:
            self._accepting = False
            self._service.loop.selector.unregister(self._sock)

    def _wait(self) -> None:
        loop = self._service.loop
        loop.call_at(self, loop.now + ACCEPT_PAUSE_S)

    def _resume(self) -> None:
        try:
            self._service.loop.selector.register(self._sock, LISTENING, self.on_readable)
        except OSError as error:
            self._pause(f"epoll: {error.strerror}")
        else:
            self._accepting = True
