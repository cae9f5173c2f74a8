"""The target that every relay forwards to: `python -m bench.target KIND`, one process for each kind.

`exchange` answers 256 bytes to every 64 it gets; `once` answers one request and closes, like HTTP/1.0; `bulk` sends a
stream as its client asks (`wire.HEADER`). `udp-echo` and `udp-sink` take datagrams (`bench.datagrams`). One loop,
level-triggered epoll, one recv and one send a request, so that the target costs less than any relay. It prints its port
and ends when its stdin does: it cannot be left behind.
"""

import contextlib
import hashlib
import random
import select
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import datagrams
from bench.wire import ANSWER, BLOCK, CONGESTION, HEADER, REQUEST, TRAILER

_BACKLOG = 4096
_SERVICE_PORTS = range(10_000, 32_768)
_TRIES = 50
_RECEIVE_BUFFER_BYTES = 4 << 20  # net.core.rmem_max caps it without an error, see socket(7)
_STDIN = 0
_BLOCK = memoryview(BLOCK)
_NOTHING = memoryview(b"")


def _bind(sock: socket.socket) -> None:
    for port in random.sample(_SERVICE_PORTS, _TRIES):
        with contextlib.suppress(OSError):  # somebody has it: the next one
            sock.bind(("127.0.0.1", port))
            return
    raise SystemExit(f"{_TRIES} ports from {_SERVICE_PORTS.start} on are all taken")


def listen() -> socket.socket:
    """A listening socket on a free loopback port where services are; accepted sockets inherit its options.

    Not among the ports that connect(2) takes (32768 and up, ip(7)), where no real target is: after a connect to such a
    port relayd asks whether it has met itself.
    """
    listener = socket.socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _bind(listener)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def listen_datagrams() -> socket.socket:
    """The same for datagrams, with all the room that the kernel gives: what is lost is lost by the relay."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    _bind(sock)
    sock.setblocking(False)
    return sock


def _accept(listener: socket.socket) -> socket.socket | None:
    """The next waiting connection; None when it was taken back."""
    try:
        return listener.accept()[0]
    except (BlockingIOError, ConnectionError):
        return None


def _watch(listener: socket.socket) -> select.epoll:
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    poller.register(_STDIN, select.EPOLLIN)
    return poller


def serve_exchange(listener: socket.socket) -> None:
    """Answer each request on every connection, until stdin ends."""
    poller, listening = _watch(listener), listener.fileno()
    clients: dict[int, socket.socket] = {}
    owed: dict[int, int] = {}
    while True:
        for fd, _ in poller.poll():
            client = clients.get(fd)
            if client is None:
                if fd != listening:
                    return
                if (client := _accept(listener)) is not None:
                    clients[client.fileno()] = client
                    poller.register(client, select.EPOLLIN)
                continue
            try:
                data = client.recv(65536)
                if len(data) == len(REQUEST) and fd not in owed:
                    client.send(ANSWER)
                    continue
                requests, rest = divmod(owed.pop(fd, 0) + len(data), len(REQUEST))
                if rest:
                    owed[fd] = rest
                if requests:
                    client.sendall(ANSWER * requests)
            except ConnectionError:
                data = b""
            if not data:
                clients.pop(fd).close()
                owed.pop(fd, None)


def serve_once(listener: socket.socket) -> None:
    """Answer one request on each connection and close it, until stdin ends."""
    poller, listening = _watch(listener), listener.fileno()
    clients: dict[int, tuple[socket.socket, int]] = {}
    while True:
        for fd, _ in poller.poll():
            if fd == _STDIN:
                return
            if fd == listening:
                if (client := _accept(listener)) is None:
                    continue
                got = 0
            else:
                client, got = clients[fd]
            try:
                got += (arrived := len(client.recv(65536, socket.MSG_DONTWAIT)))
                if got >= len(REQUEST):
                    client.send(ANSWER)
                going = arrived > 0 and got < len(REQUEST)
            except BlockingIOError:
                going = True
            except ConnectionError:
                going = False
            if going:
                clients[client.fileno()] = (client, got)
                if fd == listening:
                    poller.register(client, select.EPOLLIN)
            else:
                clients.pop(client.fileno(), None)
                client.close()


@dataclass(slots=True)
class _Stream:
    """One bulk connection: what is left of the block on its way, and when to stop."""

    client: socket.socket
    pending: memoryview = _NOTHING
    deadline: float = 0.0
    blocks: int = 0
    sent: int = 0
    digest: "hashlib._Hash | None" = None
    asked: bytes = b""
    ended: bool = False

    def read_header(self) -> bool:
        """Take what has come of the header; True once it is whole and sending may begin."""
        self.asked += self.client.recv(HEADER.size - len(self.asked))
        if len(self.asked) < HEADER.size:
            return False
        seconds, self.blocks, hashed = HEADER.unpack(self.asked)
        self.deadline = time.monotonic() + seconds
        self.digest = hashlib.sha256() if hashed else None
        return True

    def send_some(self) -> bool:
        """One send; False when the stream and its trailer are out."""
        if not self.pending:
            if self.ended:
                return False
            if self.sent < self.blocks * len(BLOCK) or time.monotonic() < self.deadline:
                self.pending = _BLOCK
                self.sent += len(BLOCK)
                if self.digest is not None:
                    self.digest.update(BLOCK)
            else:
                self.ended = True
                digest = self.digest.digest() if self.digest is not None else bytes(32)
                self.pending = memoryview(TRAILER.pack(self.sent, digest))
        self.pending = self.pending[self.client.send(self.pending, socket.MSG_DONTWAIT) :]
        return True


def serve_bulk(listener: socket.socket) -> None:
    """Send every connection the stream it asks for and close it, until stdin ends."""
    poller, listening = _watch(listener), listener.fileno()
    streams: dict[int, _Stream] = {}
    while True:
        for fd, events in poller.poll():
            if fd == _STDIN:
                return
            if fd == listening:
                if (client := _accept(listener)) is not None:
                    streams[client.fileno()] = _Stream(client)
                    poller.register(client, select.EPOLLIN)
                continue
            stream = streams[fd]
            try:
                if events & select.EPOLLOUT:
                    going = stream.send_some()
                else:
                    before = len(stream.asked)
                    if stream.read_header():
                        poller.modify(fd, select.EPOLLOUT)
                    going = len(stream.asked) > before
            except BlockingIOError:
                continue
            except ConnectionError:
                going = False
            if not going:
                streams.pop(fd).client.close()


KINDS: dict[str, tuple[Callable[[], socket.socket], Callable[[socket.socket], None]]] = {
    "exchange": (listen, serve_exchange),
    "once": (listen, serve_once),
    "bulk": (listen, serve_bulk),
    "udp-echo": (listen_datagrams, datagrams.serve_echo),
    "udp-sink": (listen_datagrams, datagrams.serve_sink),
}


def main() -> None:
    """Print the port, then serve the kind named in argv until stdin ends."""
    opened, serve = KINDS[sys.argv[1]]
    with opened() as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener)


if __name__ == "__main__":
    main()
