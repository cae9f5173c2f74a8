"""What a worker relays, in one of its lives, with a loop that turns when a test says so (R4).

    with Targets() as targets, Life(listener) as old, Life(listener) as new:
        client, connection = old.connect()         # of the listener "web"
        old.turn_until(...)
        batches = old.packed()                     # what is in the parcel, taken apart
        new.take(*batches)

Both lives are of this process, as are both ends of everything.
"""

import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from relayd import clock
from relayd.address import Family, InetAddress, from_sockaddr
from relayd.channel import parcel
from relayd.channel.parcel import Content, Label
from relayd.log.events import Event
from relayd.net.pipes import PipePool
from relayd.outcomes import Outcome
from relayd.relay.datagram.services import DatagramServices
from relayd.relay.datagram.session import Session
from relayd.relay.departures import Departures
from relayd.relay.handover import Arrivals, Packer
from relayd.relay.limits import Admission
from relayd.relay.loop import Loop
from relayd.relay.stream.connection import Arrival, Connection, Phase
from relayd.relay.stream.handover import StreamRecord
from relayd.relay.stream.services import StreamServices
from relayd.spec import Bind, Listener, SocketOptions, Stream, StreamTimeouts, Target
from relayd.spec.sockets import Endpoint
from tests.integration.loop_thread import DEADLINE_S, CollectedLog
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(10.0, None, 60.0, None))
DRAIN_TIMEOUT_S = 30.0
_TICK_S = 0.02


class Targets:
    """A listening socket, and one for datagrams. Closes them, and what was accepted."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4)
        self.receiving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiving.bind(("127.0.0.1", 0))
        self.receiving.settimeout(DEADLINE_S)
        #: Everything that was accepted, and what fills the backlog.
        self.accepted: list[socket.socket] = []

    def __enter__(self) -> "Targets":
        return self

    def __exit__(self, *raised: object) -> None:
        for sock in (self.listening, self.receiving, *self.accepted):
            sock.close()

    def accept(self) -> socket.socket:
        """The next connection."""
        accepted, _ = self.listening.accept()
        accepted.settimeout(DEADLINE_S)
        self.accepted.append(accepted)
        return accepted

    def fill_backlog(self) -> None:
        """Connect until a connect waits."""
        while True:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self.accepted.append(sock)
            sock.connect_ex(self.listening.getsockname())
            if not select.select([], [sock], [], 0.1)[1]:  # the kernel has dropped the SYN
                return

    def streams(self, name: str = "web") -> Listener:
        """A listener of streams that dials here."""
        target = Target(address_of(self.listening))
        bind = Bind(InetAddress(Family.INET, "127.0.0.1", 8080))
        return Listener(name, (bind,), BINDING, (target,), None, STREAM, None)

    def datagrams(self, name: str = "dns") -> Listener:
        """A listener of datagrams that sends them here."""
        target = Target(address_of(self.receiving))
        bind = Bind(InetAddress(Family.INET, "127.0.0.1", 5353))
        return Listener(name, (bind,), BINDING, (target,), None, None, DATAGRAM)


@dataclass
class Batch:
    """One batch of a parcel, taken apart: the descriptors behind the first one, and what that has to say. Owned by
    whoever has it.
    """

    label: Label
    fds: list[int]
    values: Any
    tail: bytes

    def close(self) -> None:
        """Nobody takes it."""
        close(self.fds)


class Life:
    """The services of one worker. Inside `with` they are there; afterwards nothing of them is left."""

    def __init__(
        self, *listeners: Listener, receiving: dict[str, socket.socket] | None = None, splices: bool = True
    ) -> None:
        """`receiving`: by listener, the socket that its clients' datagrams come to, which stays the caller's."""
        self.log = CollectedLog()
        self.loop = Loop(self._flush)
        self.admission = Admission(10_000)
        self.pipes = PipePool(64 if splices else 0)
        self.streams = StreamServices(self.loop, self.log, self.admission, self.pipes)
        self.datagrams = DatagramServices(self.loop, self.log, 10_000)
        self.departures = Departures(self.loop, self.log, self._in_force, DRAIN_TIMEOUT_S)
        self.listeners = {listener.name: listener for listener in listeners}
        self._clients: list[socket.socket] = []
        for listener in listeners:
            if listener.stream is not None:
                self.streams.serve(listener, "t-", self.departures)
            if listener.datagram is not None:
                self.datagrams.serve(listener, None, "t-d")
        for name, sock in (receiving or {}).items():
            listener = self.listeners[name]
            own = sock.dup()
            address = from_sockaddr(sock.family, sock.getsockname())
            self.datagrams.attend(Endpoint(listener, listener.binds[0], 0, address, True, 1), own)

    def __enter__(self) -> "Life":
        self.loop.call_at(self, self.loop.now)
        self.datagrams.open()
        return self

    def __exit__(self, *raised: object) -> None:
        self.streams.end_all(Outcome.SHUTDOWN)
        self.datagrams.end_all(Outcome.SHUTDOWN)
        self.loop.close()
        self.pipes.close()
        close_all(self._clients)
        if raised[0] is None:
            assert self.pipes.lent == self.streams.active == self.datagrams.active == 0
            groups = [*self.streams._groups.values(), *self.datagrams._groups.values()]
            assert not any(group._main.counts() for each in groups for group in each), "somebody is counted still"
            bugs = [event for event in self.log.events if event[0] is Event.INTERNAL_ERROR]
            assert not bugs, bugs[0][2]["traceback"]

    # time -------------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """No turn waits for long."""
        self.loop.call_at(self, self.loop.now + _TICK_S)

    def crashed(self, error: Exception) -> None:
        """A test's own mistake."""
        raise error

    def turn_until(self, condition: Callable[[], object], what: str = "what was waited for") -> None:
        """Turn until `condition` holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not seen: {what}"
            self.loop.turn()

    def pass_to(self, now: float) -> None:
        """Have everything expire that is over by then."""
        self.loop.now = now
        for actor in self.loop.timers.expired(now):
            if actor is not self:
                actor.expire()
        self.loop.close_ended()
        self.loop.now = clock.monotonic()
        self.expire()

    # clients ----------------------------------------------------------------------------------------------------

    def connect(self, listener: str = "web", *, af: int = socket.AF_INET) -> tuple[socket.socket, Connection]:
        """A new client, and its connection, which has not dialled yet."""
        client, ours, peer = connected(af)
        self._clients.append(client)
        service, group = self.streams.place(self.listeners[listener], 8080, 0)
        connection = Connection(service, ours, peer, Arrival(af, "127.0.0.1:8080", group))
        connection.start()
        return client, connection

    def relaying(self, targets: Targets, listener: str = "web") -> tuple[socket.socket, socket.socket, Connection]:
        """A new client, what the target has accepted for it, and its connection."""
        client, connection = self.connect(listener)
        self.turn_until(lambda: connection.phase is Phase.RELAYING, "the end of the dial")
        return client, targets.accept(), connection

    def session(self, client: socket.socket, receiving: socket.socket, data: bytes = b"question") -> Session:
        """The session of `client`, which sends `data` to `receiving` for it."""
        before = set(self._sessions())
        client.sendto(data, receiving.getsockname())
        self.turn_until(lambda: set(self._sessions()) - before, "a session")
        (session,) = set(self._sessions()) - before
        return session

    def _sessions(self) -> list[Session]:
        return [session for _, _, sessions in self.datagrams.live() for session in sessions]

    def udp_client(self, af: int = socket.AF_INET) -> socket.socket:
        """A new one, bound to an address of its own."""
        client = socket.socket(af, socket.SOCK_DGRAM)
        client.bind("" if af == socket.AF_UNIX else ("::1" if af == socket.AF_INET6 else "127.0.0.1", 0))
        client.settimeout(DEADLINE_S)
        self._clients.append(client)
        return client

    # over a restart ---------------------------------------------------------------------------------------------

    def pack(self, packer: Packer) -> None:
        """Put everything into parcels, as a worker does."""
        for listener, connections in self.streams.live():
            packer.pack_streams(listener, connections)
        self.datagrams.suspend()
        for listener, sock, sessions in list(self.datagrams.live()):
            packer.pack_sessions(listener, sock, sessions)
        packer.close()
        self.loop.close_ended()

    def packed(self) -> list[Batch]:
        """Everything, in a parcel and out of it."""
        kept, sending = parcel.pair()
        with kept:
            self.pack(Packer([sending]))
            return batches(kept)

    def take(self, *batches: Batch) -> None:
        """Go on with these, as a worker does."""
        arrivals = Arrivals(self.streams, self.datagrams, self.log, self.departures)
        for batch in batches:
            memfd = parcel.pack(Content(batch.values, batch.tail))
            arrivals.take(batch.label, [memfd, *batch.fds])
        self.settle(arrivals)

    def take_raw(self, label: Label, fds: Sequence[int]) -> None:
        """Go on with whatever it is."""
        arrivals = Arrivals(self.streams, self.datagrams, self.log, self.departures)
        arrivals.take(label, fds)
        self.settle(arrivals)

    def settle(self, arrivals: Arrivals) -> None:
        """The last of what a worker does at its start."""
        self.arrivals = arrivals
        arrivals.settle()
        self.departures.begin()
        self.loop.close_ended()

    # what was counted and told ----------------------------------------------------------------------------------

    def closed(self, listener: str = "web", *, datagram: bool = False) -> dict[Outcome, int]:
        """How many have ended, by outcome."""
        services = self.datagrams if datagram else self.streams
        return {outcome: count for outcome, count in services.closed(listener).items() if count}

    def told(self) -> list[str]:
        """The lines about what was not taken over."""
        return [message for event, message, _ in self.log.events if event is Event.NOT_TAKEN_OVER]

    def connections(self) -> list[Connection]:
        """Those that are live, of whatever listener."""
        return [connection for _, connections in self.streams.live() for connection in connections]

    def sessions(self) -> list[Session]:
        """Those that are live, of whatever listener."""
        return self._sessions()

    def _in_force(self, name: str) -> Listener | None:
        return self.listeners.get(name)

    def _flush(self) -> None:
        self.datagrams.flush()


def batches(kept: socket.socket) -> list[Batch]:
    """What is in a parcel, which has nothing that nobody knows."""
    found = []
    for label, (memfd, *fds) in parcel.read(kept):
        assert label is not None
        content = parcel.unpack(memfd)
        os.close(memfd)
        found.append(Batch(label, fds, content.values, content.tail))
    return found


def as_version_1(record: StreamRecord) -> list[Any]:
    """What version 1 of parcels would have written."""
    first = ("conn_id", "phase", "af", "client", "local", "bind_port", "bind_index", "choice", "tried")
    inserted = {"active_at": "first_fin", "keepalive_pending": "outcome"}
    names = list(first)
    for name in record._fields[record._fields.index("dialled") :]:
        names += (name, inserted[name]) if name in inserted else (name,)
    value: list[Any] = json.loads(json.dumps([getattr(record, name) for name in names]))
    return value


def address_of(sock: socket.socket) -> InetAddress:
    """What `sock` is bound to."""
    address = from_sockaddr(sock.family, sock.getsockname())
    assert isinstance(address, InetAddress)
    return address


def connected(af: int) -> tuple[socket.socket, socket.socket, object]:
    """A client, the accepted end of its connection, and the peer that accept(2) tells."""
    with socket.socket(af) as listening:
        listening.bind("" if af == socket.AF_UNIX else ("::1" if af == socket.AF_INET6 else "127.0.0.1", 0))
        listening.listen()
        client = socket.socket(af)
        client.settimeout(DEADLINE_S)
        client.connect(listening.getsockname())
        accepted, peer = listening.accept()
    accepted.setblocking(False)
    return client, accepted, peer


def with_timeouts(listener: Listener, timeouts: StreamTimeouts) -> Listener:
    """`listener` with other timeouts for streams."""
    assert listener.stream is not None
    return replace(listener, stream=replace(listener.stream, timeouts=timeouts))


def close(fds: Iterable[int]) -> None:
    """Close them all."""
    for fd in fds:
        os.close(fd)


def close_all(sockets: Iterable[socket.socket]) -> None:
    """Close them all."""
    for sock in sockets:
        sock.close()
