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
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from relayd.address import Address, InetAddress, NameAddress, SocketAddress, UnixAddress, from_sockaddr, parse
from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.net.options import apply_tcp
from relayd.net.pipes import Pipe, PipePool
from relayd.net.poller import IN
from relayd.outcomes import Outcome
from relayd.relay.group import Group
from relayd.relay.limits import Admission
from relayd.relay.loop import Loop
from relayd.relay.stream.connection import Connection, Phase
from relayd.relay.stream.listener import AcceptingSocket, Acceptor
from relayd.relay.stream.pump import Pump
from relayd.relay.stream.service import StreamService
from relayd.spec import Bind, Binding, Listener, SocketOptions, Stream, StreamTimeouts
from relayd.spec import Target as TargetSpec

#: Far more than anything takes here; a wait that fails takes this long.
DEADLINE_S = 10.0
KINDS = ("inet", "inet6", "unix", "abstract")
TIMEOUTS = StreamTimeouts(connect_s=10.0, idle_s=None, half_close_s=60.0, max_lifetime_s=None)
OPTIONS = SocketOptions(nodelay=True, keepalive=None, user_timeout_ms=None, congestion=None)
BINDING = Binding(
    backlog=64,
    ipv6_only=False,
    interface=None,
    freebind=False,
    fast_open=False,
    defer_accept_s=None,
    mode=0o666,
    user_id=None,
    group_id=None,
)
_RESET = struct.pack("ii", 1, 0)
#: What must not outlive a connection, by reference counting alone.
_TRANSIENT = (Connection, Pump, Pipe)

Result = TypeVar("Result")


def transients() -> list[object]:
    """Everything of a connection that lives in this process."""
    return [each for each in gc.get_objects() if isinstance(each, _TRANSIENT)]


class CollectedLog(Logger):
    """A logger whose lines are lists."""

    def __init__(self) -> None:
        self.access_enabled = True
        self.records: list[AccessRecord] = []
        self.events: list[tuple[Event, str, Mapping[str, str | int | float]]] = []
        self.said = threading.Condition()

    def event(self, event: Event, message: str, /, **fields: str | int | float) -> None:
        """Keep it."""
        with self.said:
            self.events.append((event, message, fields))
            self.said.notify_all()

    def access(self, record: AccessRecord) -> None:
        """Keep it."""
        with self.said:
            self.records.append(record)
            self.said.notify_all()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


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


class Relay:
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
        self.log = CollectedLog()
        self.loop = Loop(self.log.flush)
        self.pipes = PipePool(64)
        self.group = Group(spec.targets)
        for name, addresses in (resolved or {}).items():
            self.group.resolved(name, addresses)
        self.service = StreamService(
            loop=self.loop,
            spec=spec,
            stream=stream,
            log=self.log,
            admission=Admission(limit),
            pipes=self.pipes if splice else None,
            id_prefix="t-",
        )
        #: Connections whose record a test has spoilt.
        self.unlogged = 0
        self.acceptor = Acceptor(self.service, listening, self.address, self.group)
        self._errors: list[Exception] = []
        self._seen = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.thread_clock = 0

    def __enter__(self) -> "Relay":
        #: Those of other tests in this process, which pytest may still hold.
        self._before = {id(each) for each in transients()}
        self.loop.selector.register(self._woken, IN, self.on_wake)
        self.acceptor.open()
        self._thread.start()
        self.thread_clock = time.pthread_getcpuclockid(self._thread.ident or 0)
        return self

    def __exit__(self, *raised: object) -> None:
        for client in self._clients:
            client.close()
        with contextlib.suppress(OSError):  # the loop has died: its error is raised below
            self.call(self._stop)
        self._thread.join(DEADLINE_S)
        alive = self._thread.is_alive()
        watched = [key for key in self.loop.selector.get_map().values() if key.fileobj is not self._woken]
        for sock in (self._wake, self._woken):
            sock.close()
        self.acceptor.close()
        self.pipes.close()
        self.loop.close()
        if isinstance(self.address, UnixAddress) and not self.address.abstract:
            Path(self.address.path).unlink(missing_ok=True)
        assert not alive, "the loop does not stop"
        if self._errors:
            raise self._errors[0]
        if raised[0] is None:
            assert not watched, watched
            self._assert_nothing_left()

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
        deadline = time.monotonic() + DEADLINE_S
        while not self.call(self._nobody_dials):
            assert time.monotonic() < deadline
        return client, accepted

    def turned_away(self) -> bool:
        """True when a new client is reset, be it before its connect(2) has returned."""
        try:
            return was_reset(self.connect())
        except ConnectionResetError:
            return True

    def ended(self, timeout_s: float = DEADLINE_S) -> AccessRecord:
        """The record of the next connection that has ended, in the order of their ends."""
        self._seen += 1
        self._wait(lambda: len(self.log.records) >= self._seen, "the end of a connection", timeout_s)
        return self.log.records[self._seen - 1]

    def outcomes(self, count: int) -> set[Outcome]:
        """How the next `count` connections ended."""
        return {self.ended().outcome for _ in range(count)}

    def wait_event(self, event: Event) -> tuple[str, Mapping[str, str | int | float]]:
        """Message and fields of the first event of this kind, seen already or still to come."""
        self._wait(lambda: any(each[0] is event for each in self.log.events), f"event {event}", DEADLINE_S)
        return next((message, fields) for each, message, fields in self.log.events if each is event)

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` in the loop's thread, between turns, and return its result."""
        done = threading.Event()
        results: list[Result] = []

        def run() -> None:
            try:
                results.append(function())
            finally:
                done.set()

        self._calls.append(run)
        self._wake.send(b".")
        assert done.wait(DEADLINE_S), f"the loop does not turn: {self._errors}"
        return results[0]

    def cpu_s(self) -> float:
        """CPU seconds that the loop's thread has used."""
        return time.clock_gettime(self.thread_clock)

    def wait_active(self, count: int) -> None:
        """Wait until `count` connections are open."""
        deadline = time.monotonic() + DEADLINE_S
        while self.call(lambda: self.service.counters.active) != count:
            assert time.monotonic() < deadline, f"{self.service.counters.active} connections, not {count}"

    def settled(self) -> None:
        """Return when the loop has had nothing to do for one turn."""
        deadline = time.monotonic() + DEADLINE_S
        while self.call(lambda: bool(self.loop._again) or len(self.loop.selector._epoll.poll(0)) > 1):
            assert time.monotonic() < deadline

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        with self.log.said:
            if not self.log.said.wait_for(condition, timeout_s):
                raise AssertionError(f"not seen in {timeout_s:g} s: {what}\n{self.log.records}\n{self.log.events}")

    # in the loop's thread ---------------------------------------------------------------------------------------

    def on_wake(self, mask: int) -> None:
        """Handler of the wake-up socket."""
        self._woken.recv(4096)
        while self._calls:
            self._calls.popleft()()

    def _nobody_dials(self) -> bool:
        phases = [connection.phase for connection in self.service.connections if isinstance(connection, Connection)]
        return Phase.DIALING not in phases

    def crashed(self, error: Exception) -> None:
        """A test's own mistake."""
        self._errors.append(error)

    def _run(self) -> None:
        try:
            self.loop.run()
        except Exception as error:
            self._errors.append(error)
        finally:
            self._wake.close()

    def _stop(self) -> None:
        self.acceptor.close()
        self.service.end_all(Outcome.SHUTDOWN)
        self.loop.running = False

    def _assert_nothing_left(self) -> None:
        counters = self.service.counters
        assert counters.active == 0
        assert self.service.admission.active == 0
        assert not self.service.connections
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
