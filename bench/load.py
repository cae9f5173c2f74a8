"""The load generator: `python -m bench.load`. One JSON command a line on stdin, one JSON answer a line on stdout.

The loads are closed loops: a connection sends its next request when the last answer is whole, so a slow relay
gets less work, never a queue. Every answer is compared with what it must be, and every bulk stream with the count that
its target put at the end. A wrong byte is an error in the answer, not a figure. It ends with its stdin. The loads of
datagrams are in `bench.datagrams`.
"""

import contextlib
import hashlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from bench import datagrams
from bench.wire import ANSWER, CONGESTION, HEADER, PATIENCE, PATIENCE_S, REQUEST, TRAILER, WrongDataError

Answer = dict[str, float]
_BUFFER_BYTES = 1 << 20


def dial(port: int) -> socket.socket:
    """A connected, blocking socket with the named congestion control. OSError when it waits longer than is sane."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(("127.0.0.1", port))
    return sock


def _expect(got: bytes) -> None:
    if got != ANSWER:
        raise WrongDataError(f"{len(got)} bytes that are not the answer")


def exchange(sock: socket.socket) -> None:
    """One request and its whole answer on a blocking socket."""
    sock.send(REQUEST)
    answer = sock.recv(4096)
    while 0 < len(answer) < len(ANSWER):
        more = sock.recv(4096)
        if not more:
            break
        answer += more
    _expect(answer)


def _poll(poller: select.epoll) -> list[tuple[int, int]]:
    events = poller.poll(PATIENCE_S)
    if not events:
        raise WrongDataError(f"nothing arrived for {PATIENCE_S} s")
    return events


def request(port: int, connections: int, seconds: float) -> Answer:
    """Requests and answers on open connections for `seconds`; every answer asked for has come when it returns."""
    with contextlib.ExitStack() as owned:
        poller = owned.enter_context(select.epoll())
        socks = {sock.fileno(): sock for sock in (owned.enter_context(dial(port)) for _ in range(connections))}
        partial: dict[int, bytes] = {}
        started = time.monotonic()
        deadline = started + seconds
        for sock in socks.values():
            poller.register(sock, select.EPOLLIN)
            sock.send(REQUEST)
        count, waiting, more = 0, connections, True
        while waiting:
            for fd, _ in _poll(poller):
                sock = socks[fd]
                answer = sock.recv(4096)
                if answer != ANSWER:
                    answer = partial.pop(fd, b"") + answer
                    if answer and len(answer) < len(ANSWER) and ANSWER.startswith(answer):
                        partial[fd] = answer
                        continue
                    _expect(answer)
                count += 1
                if more:
                    sock.send(REQUEST)
                else:
                    waiting -= 1
            more = more and time.monotonic() < deadline
        return {"count": count, "seconds": time.monotonic() - started}


def connect(port: int, connections: int, seconds: float) -> Answer:
    """A new connection for each request, `connections` at a time; the target closes first and the client after it."""
    with contextlib.ExitStack() as owned:
        poller = owned.enter_context(select.epoll())
        live: dict[int, tuple[socket.socket, bytes]] = {}

        def close_all() -> None:
            for sock, _ in live.values():
                sock.close()

        def begin() -> None:
            sock = socket.socket()
            live[sock.fileno()] = (sock, b"")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE)
            sock.connect(("127.0.0.1", port))
            sock.send(REQUEST)
            poller.register(sock, select.EPOLLIN)

        owned.callback(close_all)
        started = time.monotonic()
        deadline = started + seconds
        for _ in range(connections):
            begin()
        count = 0
        while live:
            more = time.monotonic() < deadline
            for fd, _ in _poll(poller):
                sock, answer = live[fd]
                if data := sock.recv(4096):
                    live[fd] = (sock, answer + data)
                    continue
                _expect(answer)
                sock.close()
                del live[fd]
                count += 1
                if more:
                    begin()
        return {"count": count, "seconds": time.monotonic() - started}


def latency(port: int, seconds: float) -> Answer:
    """Round trips of one connection, one at a time: median and 99th percentile in microseconds."""
    trips: list[int] = []
    clock = time.perf_counter_ns
    with dial(port) as sock:
        deadline = clock() + int(seconds * 1e9)
        before = clock()
        while before < deadline:
            exchange(sock)
            after = clock()
            trips.append(after - before)
            before = after
    trips.sort()
    return {"count": len(trips), "p50_us": trips[len(trips) // 2] / 1e3, "p99_us": trips[len(trips) * 99 // 100] / 1e3}


class _Sink:
    """The reading end of one bulk stream: counts, keeps the trailer, and the whole stream when it is to be hashed."""

    def __init__(self, sock: socket.socket, *, hashed: bool) -> None:
        self.sock = sock
        self.count = 0
        self._tail = b""
        self._kept: bytearray | None = bytearray() if hashed else None

    def take(self, data: memoryview) -> None:
        self.count += len(data)
        if len(data) >= TRAILER.size:
            self._tail = bytes(data[-TRAILER.size :])
        else:
            self._tail = (self._tail + bytes(data))[-TRAILER.size :]
        if self._kept is not None:
            self._kept += data

    def check(self) -> None:
        """Raise WrongDataError unless count and digest are what the target put into the trailer."""
        if len(self._tail) < TRAILER.size:
            raise WrongDataError("a bulk stream ended before its trailer")
        sent, digest = TRAILER.unpack(self._tail)
        if sent != self.count - TRAILER.size:
            raise WrongDataError(f"{self.count - TRAILER.size} bytes arrived of {sent}")
        if self._kept is not None and hashlib.sha256(self._kept[: -TRAILER.size]).digest() != digest:
            raise WrongDataError("the digest of a bulk stream differs")


def bulk(port: int, streams: int, seconds: float, blocks: int, *, hashed: bool) -> Answer:
    """Read `streams` streams at once from the target until each ends and is found right."""
    with contextlib.ExitStack() as owned:
        poller = owned.enter_context(select.epoll())
        sinks: dict[int, _Sink] = {}
        view = memoryview(bytearray(_BUFFER_BYTES))
        started = time.monotonic()
        for _ in range(streams):
            sock = owned.enter_context(dial(port))
            sock.send(HEADER.pack(seconds, blocks, hashed))
            sinks[sock.fileno()] = _Sink(sock, hashed=hashed)
            poller.register(sock, select.EPOLLIN)
        total, going = 0, streams
        while going:
            for fd, _ in _poll(poller):
                sink = sinks[fd]
                if got := sink.sock.recv_into(view):
                    sink.take(view[:got])
                    continue
                sink.check()
                poller.unregister(fd)
                total += sink.count
                going -= 1
        return {"bytes": total, "seconds": time.monotonic() - started}


class Idle:
    """Idle connections that have each exchanged one request, held open until told otherwise."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def hold(self, port: int, connections: int) -> Answer:
        """Open `connections` more and exchange one request on each."""
        for _ in range(connections):
            sock = dial(port)
            self._held.append(sock)
            exchange(sock)
        return {"count": len(self._held)}

    def drop(self) -> Answer:
        """Close all that are held."""
        while self._held:
            self._held.pop().close()
        return {"count": 0}


def main() -> None:
    """Answer commands until stdin ends. A failed load answers `{"error": …}` and the next command is served."""
    idle, sessions = Idle(), datagrams.Sessions()
    commands: dict[str, Callable[..., Answer]] = {
        "request": request,
        "connect": connect,
        "latency": latency,
        "bulk": bulk,
        "hold": idle.hold,
        "drop": idle.drop,
        "udp-trips": datagrams.trips,
        "udp-bursts": datagrams.bursts,
        "udp-hold": sessions.hold,
        "udp-drop": sessions.drop,
    }
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        answer: Answer | dict[str, str]
        try:
            answer = commands[command.pop("load")](**command)
        except (OSError, WrongDataError) as error:
            idle.drop()
            sessions.drop()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
