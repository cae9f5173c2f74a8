"""The data plane in this process: a loop in a thread, and both ends of its connections in the test's hands.

    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        client, far = relay.pair(target)      # the client's socket, and what the target accepted for it
        ...
        record = relay.ended()                # the access record of the next connection that has ended

`Relay` and `Target` close what they handed out. Nothing here sleeps: every wait is for a socket or for a record, and is
bounded by DEADLINE_S.
"""

import contextlib
import errno
import fcntl
import gc
import secrets
import selectors
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from relayd.address import Address, InetAddress, NameAddress, SocketAddress, from_sockaddr, parse
from relayd.choosing.group import Group, Rules
from relayd.net.options import apply_tcp
from relayd.net.pipes import Pipe, PipePool
from relayd.outcomes import Outcome
from relayd.relay.limits import Admission
from relayd.relay.stream.connection import Connection, Phase
from relayd.relay.stream.listener import AcceptingSocket, Acceptor
from relayd.relay.stream.pump import Pump
from relayd.relay.stream.service import StreamService
from relayd.spec import Bind, Listener, SocketOptions, Stream, StreamTimeouts
from relayd.spec import Target as TargetSpec
from tests.integration.loop_thread import DEADLINE_S, LoopThread, remove_file
from tests.specs import BINDING

KINDS = ("inet", "inet6", "unix", "abstract")
TIMEOUTS = StreamTimeouts(connect_s=10.0, idle_s=None, half_close_s=60.0, max_lifetime_s=None)
OPTIONS = SocketOptions(nodelay=True, keepalive=None, user_timeout_ms=None, congestion=None)
_RESET = struct.pack("ii", 1, 0)
#: What must not outlive a connection, by reference counting alone.
_TRANSIENT = (Connection, Pump, Pipe)

Result = TypeVar("Result")


def transients() -> list[object]:
    """Everything of a connection that lives in this process."""
    return [each for each in gc.get_objects() if isinstance(each, _TRANSIENT)]


class Target:
    """A listening socket of one kind that the test accepts from. Closes what it accepted."""

    def __init__(self, kind: str, directory: Path, *, backlog: int = 64) -> None:
        self.address = free_address(kind, directory)
        self.sock = socket.socket(self.address.family.af)
        self.sock.settimeout(DEADLINE_S)
        self.sock.bind(self.address.sockaddr)
        self.sock.listen(backlog)
        self.address = from_sockaddr(self.sock.family, self.sock.getsockname())
        self._accepted: list[socket.socket] = []

    def accept(self) -> socket.socket:
        """The next connection, with a timeout set."""
        accepted, _ = self.sock.accept()
        accepted.settimeout(DEADLINE_S)
        self._accepted.append(accepted)
        return accepted

    def close(self) -> None:
        """Close everything. Idempotent."""
        for sock in (self.sock, *self._accepted):
            sock.close()

    def fill_backlog(self) -> None:
        """Connect and do not accept, until a connect waits. Those sockets are closed with the target."""
        while True:
            sock = socket.socket(self.address.family.af, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._accepted.append(sock)
            if sock.connect_ex(self.address.sockaddr) == errno.EAGAIN:  # Unix
                return
            with selectors.DefaultSelector() as selector:
                selector.register(sock, selectors.EVENT_WRITE)
                if not selector.select(0.2):  # inet: the kernel has dropped the SYN
                    return

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Relay(LoopThread):
    """One listener, relayed by a loop in a thread. Inside `with` it relays; afterwards nothing of it is left."""

    def __init__(
        self,
        targets: Sequence[Address],
        *,
        bind: SocketAddress | None = None,
        splice: bool = True,
        timeouts: StreamTimeouts = TIMEOUTS,
        options: SocketOptions = OPTIONS,
        dial_attempts: int = 3,
        source: SocketAddress | None = None,
        limit: int = 1000,
        resolved: Mapping[NameAddress, tuple[InetAddress, ...]] | None = None,
    ) -> None:
        address = bind or InetAddress(parse_inet("127.0.0.1:0").family, "127.0.0.1", 0)
        listening = AcceptingSocket(address.family.af, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if address.family.af == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if address.family.af != socket.AF_UNIX:
            apply_tcp(listening, options)
        listening.bind(address.sockaddr)
        listening.listen(1024)
        self.address = from_sockaddr(listening.family, listening.getsockname())
        spec = Listener(
            name="web",
            binds=(Bind(self.address),),
            binding=BINDING,
            targets=tuple(TargetSpec(target) for target in targets),
            source=source,
            stream=(stream := Stream(dial_attempts, options, timeouts)),
            datagram=None,
        )
        super().__init__(self._flush)
        self.pipes = PipePool(64)
        self.group = Group(spec.targets, rules=Rules.of(spec, datagrams=False))
        for name, addresses in (resolved or {}).items():
            self.group.resolved(name, addresses)
        self.service = StreamService(
            loop=self.loop,
            spec=spec,
            stream=stream,
            log=self.log.of(spec.log),
            admission=Admission(limit),
            pipes=self.pipes if splice else None,
            id_prefix="t-",
        )
        #: Connections whose record a test has spoilt.
        self.unlogged = 0
        self.acceptor = Acceptor(self.service, listening, self.address, self.group)
        #: Those of other tests in this process, which pytest may still hold.
        self._before: set[int] = set()

    def __enter__(self) -> "Relay":
        self._before = {id(each) for each in transients()}
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop(failed=raised[0] is not None)

    # from the test's thread -------------------------------------------------------------------------------------

    def connect(self, *, receive_bytes: int | None = None, bind: SocketAddress | None = None) -> socket.socket:
        """A new client with a timeout set. `receive_bytes` sets SO_RCVBUF before it connects."""
        client = socket.socket(self.address.family.af)
        self._clients.append(client)
        client.settimeout(DEADLINE_S)
        if receive_bytes is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if bind is not None:
            client.bind(bind.sockaddr)
        client.connect(self.address.sockaddr)
        return client

    def pair(self, target: Target) -> tuple[socket.socket, socket.socket]:
        """A new client, and the connection that `target` has accepted for it. The relay knows that it is connected."""
        client = self.connect()
        accepted = target.accept()
        self.until(self._nobody_dials, "the end of the dial")
        return client, accepted

    def turned_away(self) -> bool:
        """True when a new client is reset, be it before its connect(2) has returned."""
        try:
            return was_reset(self.connect())
        except ConnectionResetError:
            return True

    def wait_active(self, count: int) -> None:
        """Wait until `count` connections are open."""
        self.until(lambda: self.service.counters.active == count, f"{count} open connections")

    def settled(self) -> None:
        """Return when the loop has had nothing to do for one turn."""
        self.until(lambda: not self.loop._again and len(self.loop.selector._epoll.poll(0)) <= 1, "a turn of rest")

    def open(self) -> None:
        """See `LoopThread`."""
        self.acceptor.open()

    def end(self) -> None:
        """See `LoopThread`."""
        self.acceptor.close()
        self.service.end_all(Outcome.SHUTDOWN)

    def close(self) -> None:
        """See `LoopThread`."""
        self.acceptor.close()
        self.pipes.close()
        remove_file(self.address)

    def _nobody_dials(self) -> bool:
        phases = [connection.phase for connection in self.service.connections if isinstance(connection, Connection)]
        return Phase.DIALING not in phases

    def _flush(self) -> None:
        self.log.flush()

    def check(self) -> None:
        """See `LoopThread`."""
        counters = self.service.counters
        assert counters.active == 0
        assert self.service.admission.active == 0
        assert not self.service.connections
        assert self.group._main.counts() == {}
        assert counters.accepted == sum(counters.closed.values()) == len(self.log.records) + self.unlogged
        if not self.unlogged:
            assert counters.bytes_in == sum(record.bytes_in for record in self.log.records)
            assert counters.bytes_out == sum(record.bytes_out for record in self.log.records)
        assert self.pipes.lent == 0
        # The collector is off (conftest.py): what is here was not freed by reference counting.
        left = [each for each in transients() if id(each) not in self._before]
        assert not left, left


def free_address(kind: str, directory: Path) -> SocketAddress:
    """An address of `kind` that nobody uses; port 0 for inet and inet6."""
    name = secrets.token_hex(4)
    text = {
        "inet": "127.0.0.1:0",
        "inet6": "[::1]:0",
        "unix": f"unix:{directory}/{name}.sock",
        "abstract": f"unix:@relayd-test-{name}",
    }[kind]
    address = parse(text)
    assert not isinstance(address, NameAddress)
    return address


def parse_inet(text: str) -> InetAddress:
    """`text` as an address of inet or inet6."""
    address = parse(text)
    assert isinstance(address, InetAddress)
    return address


def receive(sock: socket.socket, count: int) -> bytes:
    """Exactly `count` bytes."""
    parts = []
    while count:
        data = sock.recv(min(count, 65536))
        assert data, f"end of file, {count} bytes early"
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def receive_all(sock: socket.socket) -> tuple[bytes, int]:
    """Everything up to the end, and the errno of the end: 0 for a FIN."""
    parts = []
    try:
        while data := sock.recv(65536):
            parts.append(data)
    except ConnectionError as error:
        return b"".join(parts), error.errno or 0
    return b"".join(parts), 0


def reset(sock: socket.socket) -> None:
    """Close with a reset. What is unsent is lost."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def was_reset(sock: socket.socket) -> bool:
    """True when the next thing on `sock` is a reset, False for a FIN or data."""
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def fill(sock: socket.socket, data: bytes) -> int:
    """Send of `data` what goes without anybody reading: until nothing has gone for a while. Returns how much."""
    sock.setblocking(False)
    sent = 0
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        while sent < len(data) and selector.select(0.5):
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(data[sent : sent + 65536])
    sock.settimeout(DEADLINE_S)
    return sent


def unsent(sock: socket.socket) -> int:
    """Bytes that the other end has not acknowledged (TCP), or not read (Unix)."""
    return int(struct.unpack("=I", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0])


def wait_sent(sock: socket.socket) -> None:
    """Wait until all that was sent is acknowledged."""
    deadline = time.monotonic() + DEADLINE_S
    while unsent(sock):
        assert time.monotonic() < deadline, f"{unsent(sock)} bytes not taken"


def connection_errno(function: Callable[[], object]) -> int:
    """errno of the connection error that `function` ends with; 0 when it ends with none."""
    try:
        function()
    except ConnectionError as error:
        return error.errno or errno.EIO
    return 0
