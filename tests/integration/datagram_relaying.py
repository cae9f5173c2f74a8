"""The datagram half of the data plane in this process: a loop in a thread, and both ends in the test's hands.

    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address]) as relay:
        client = relay.client()
        client.send(b"question")
        session = target.receive()            # the datagram, and the session that it came from
        session.reply(b"answer")
        record = relay.ended()                # the access record of the next session that has ended

Everything that is handed out is closed at the end. Nothing here sleeps: every wait is for a socket or for a record, and
is bounded by DEADLINE_S.
"""

import contextlib
import gc
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relayd.address import Address, InetAddress, NameAddress, SocketAddress, UnixAddress, from_sockaddr, parse
from relayd.counters import DatagramCounters
from relayd.log.events import Event
from relayd.net.datagrams import ask_for_local_address
from relayd.outcomes import Drop, Outcome
from relayd.relay.datagram.services import DatagramServices
from relayd.relay.datagram.session import Session
from relayd.relay.datagram.sessions import STEP_S
from relayd.spec import UNCHECKED, Bind, Datagram, Health, Listener, SessionMode
from relayd.spec import Target as TargetSpec
from relayd.spec.sockets import Endpoint
from tests.integration.loop_thread import DEADLINE_S, LoopThread, remove_file
from tests.integration.relaying import free_address, parse_inet
from tests.specs import BINDING, DATAGRAM


@dataclass
class Received:
    """A datagram that a target has received."""

    data: bytes
    sender: object
    _sock: socket.socket

    def reply(self, data: bytes) -> None:
        """Answer the session that it came from."""
        self._sock.sendto(data, self.sender)  # type: ignore[call-overload]  # as recvfrom gave it


class DatagramTarget:
    """A bound socket of one kind. Closes it."""

    def __init__(self, kind: str, directory: Path, *, address: SocketAddress | None = None) -> None:
        self.address = address or free_address(kind, directory)
        self.sock = socket.socket(self.address.family.af, socket.SOCK_DGRAM)
        self.sock.settimeout(DEADLINE_S)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        if address is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # see dead_address
        self.sock.bind(self.address.sockaddr)
        if not isinstance(self.address, UnixAddress):
            self.address = from_sockaddr(self.sock.family, self.sock.getsockname())

    def receive(self) -> Received:
        """The next datagram."""
        data, sender = self.sock.recvfrom(70_000)
        return Received(data, sender, self.sock)

    def waiting(self) -> list[bytes]:
        """What is there now."""
        found = []
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.sock.recv(70_000))
        self.sock.settimeout(DEADLINE_S)
        return found

    def close(self) -> None:
        """Close it, and remove its file. Idempotent."""
        self.sock.close()
        if isinstance(self.address, UnixAddress) and not self.address.abstract:
            Path(self.address.path).unlink(missing_ok=True)

    def __enter__(self) -> "DatagramTarget":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


@contextlib.contextmanager
def dead_address() -> Iterator[InetAddress]:
    """An address where nobody receives, and that nobody is given by chance: the socket that keeps it is connected, and
    so takes nobody's datagrams. A DatagramTarget may be put there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        keeper.connect(("127.0.0.99", 9))
        yield parse_inet(f"127.0.0.1:{keeper.getsockname()[1]}")


class DatagramRelay(LoopThread):
    """One listener, relayed by a loop in a thread. Inside `with` it relays; afterwards nothing of it is left."""

    def __init__(
        self,
        targets: Sequence[Address | TargetSpec],
        *,
        bind: str = "127.0.0.1:0",
        ports: int = 1,
        fast: bool = True,
        datagram: Datagram = DATAGRAM,
        source: SocketAddress | None = None,
        limit: int = 1000,
        share: int | None = None,
        resolved: Mapping[NameAddress, tuple[InetAddress, ...]] | None = None,
        health: Health = UNCHECKED,
    ) -> None:
        super().__init__(self._flush)
        self.services = DatagramServices(self.loop, self.log, limit, fast=fast)
        self._sockets = [_receiving_socket(bind) for _ in range(ports)]
        self.addresses = [from_sockaddr(sock.family, sock.getsockname()) for sock in self._sockets]
        spec = Listener(
            name="web",
            binds=tuple(Bind(address) for address in self.addresses),
            binding=BINDING,
            targets=tuple(target if isinstance(target, TargetSpec) else TargetSpec(target) for target in targets),
            source=source,
            stream=None,
            datagram=datagram,
            health=health,
        )
        self.services.serve(spec, share, "t-")
        for bound, address, sock in zip(spec.binds, self.addresses, self._sockets, strict=True):
            self.services.attend(Endpoint(spec, bound, 0, address, True, 1), sock)
        for name, addresses in (resolved or {}).items():
            self.services.resolved(name, addresses)
        self.service = self.services.services["web"]

    @property
    def address(self) -> SocketAddress:
        """That of the first socket."""
        return self.addresses[0]

    @property
    def counters(self) -> DatagramCounters:
        """Those of the listener."""
        return self.service.counters

    def __enter__(self) -> "DatagramRelay":
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop(failed=raised[0] is not None)

    # from the test's thread -------------------------------------------------------------------------------------

    def client(self, to: str | None = None, *, bind: SocketAddress | None = None, port: int = 0) -> socket.socket:
        """A new client with a timeout, connected to the relay, so that it takes replies from there only. `to` is a host
        that the relay's wildcard bind stands for. A Unix client is autobound, unless `bind` says otherwise.
        """
        address = self.addresses[port]
        if isinstance(address, InetAddress):
            host = to or address.host
            family, sockaddr = (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, address.port)
            client = socket.socket(family, socket.SOCK_DGRAM)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            if bind is not None:
                client.bind(bind.sockaddr)
            client.connect(sockaddr)
        else:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            client.bind(bind.sockaddr if bind is not None else "")
            client.connect(address.sockaddr)
        client.settimeout(DEADLINE_S)
        self._clients.append(client)
        return client

    def until_dropped(self, reason: Drop, count: int) -> None:
        """Wait until so many datagrams have been dropped for this reason."""
        self.until(lambda: self.counters.dropped[reason] >= count, f"{count} dropped as {reason}")
        assert self.counters.dropped[reason] == count

    def pass_step(self) -> None:
        """Let the time pass in which the table does not note a second use."""
        began = self.call(lambda: self.loop.now)
        self.until(lambda: self.loop.now > began + 2 * STEP_S, "a step of time")

    def dropped_line(self) -> tuple[str, Mapping[str, str | int | float]]:
        """Message and fields of the line about lost datagrams that the worker now writes, as it does every second."""
        self.call(self.services.look)
        return self.wait_event(Event.DATAGRAMS_DROPPED)

    # in the loop's thread ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """See `LoopThread`."""
        self.services.open()

    def end(self) -> None:
        """See `LoopThread`."""
        self.services.end_all(Outcome.SHUTDOWN)

    def close(self) -> None:
        """See `LoopThread`."""
        for sock in self._sockets:
            sock.close()
        for address in self.addresses:
            remove_file(address)

    def _flush(self) -> None:
        self.services.flush()
        self.log.flush()

    def check(self) -> None:
        """See `LoopThread`."""
        counters, records = self.counters, self.log.records
        assert counters.active == self.services.active == 0
        assert not self.service.table
        assert not any(group._main.counts() for group in self.services._groups["web"])
        assert counters.accepted == sum(counters.closed.values()) == len(records)
        bugs = [event for event in self.log.events if event[0] is Event.INTERNAL_ERROR]
        assert not bugs, bugs[0][2]["traceback"]
        # What came in belongs to a session, or was dropped before there was one; and every answer to a session.
        if self.service.datagram.session is SessionMode.CLIENT:
            in_sessions = sum(record.datagrams_in or 0 for record in records)
            assert in_sessions <= counters.datagrams_in <= in_sessions + sum(counters.dropped.values())
            assert counters.datagrams_out == sum(record.datagrams_out for record in records)
            assert counters.bytes_out == sum(record.bytes_out for record in records)
        left = [each for each in transients() if each.service is self.service]
        assert not left, left


def transients() -> list[Session]:
    """Everything of a session that lives in this process: freed by reference counting, for the collector is off."""
    return [each for each in gc.get_objects() if isinstance(each, Session)]


def _receiving_socket(bind: str) -> socket.socket:
    address = parse(bind)
    assert not isinstance(address, NameAddress)
    sock = socket.socket(address.family.af, socket.SOCK_DGRAM)
    if address.family.af == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if isinstance(address, InetAddress) and address.port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # see dead_address
    if isinstance(address, InetAddress) and address.wildcard:
        ask_for_local_address(sock, address.family.af)
    sock.bind(address.sockaddr)
    return sock
