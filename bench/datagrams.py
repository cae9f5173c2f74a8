"""Datagrams, both ends: the loads that `bench.load` runs and the kinds that `bench.target` serves.

Two loads, both closed loops with one thing on its way for each client. A round trip is one datagram and its echo. A
burst is 50 datagrams of 1,200 bytes that the target counts and acknowledges once all have come. No answer for 0.5 s is
a loss, and the client goes on with the next: what comes later is known by its number and counts for nothing. Before the
clock runs each client in turn has a probe sent back, so that a relay makes its sessions one after the other.
"""

import abc
import contextlib
import itertools
import math
import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.wire import (
    BURST_ACK,
    BURST_BYTES,
    BURST_CHECKED,
    BURST_DATAGRAM_BYTES,
    BURST_DATAGRAMS,
    NUMBER_BYTES,
    PATIENCE,
    PATIENCE_S,
    PROBE,
    TRIP,
    WrongDataError,
    burst,
    number_burst,
    trip,
)

SOL_UDP = 17
UDP_SEGMENT = 103
"""Linux 4.18: what is sent is datagrams of this size (udp(7))."""
UDP_GRO = 104
"""Linux 5.0: a read may give several datagrams of one size, and says which."""

_LOST_AFTER_S = 0.5
_LOOK_S = 0.1
"""How often overdue answers are looked for."""
_DRAIN = 256
"""Datagrams that a target reads before it looks at its stdin again."""
_BUFFER_BYTES = 1 << 16
_ANCILLARY_BYTES = 64
_STDIN = 0
_INT = struct.Struct("@i")


def _dial(port: int) -> tuple[socket.socket, int]:
    """A connected, blocking socket that a probe has come back to, and how many were lost. The caller closes it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE)
    try:
        sock.connect(("127.0.0.1", port))
        with select.epoll() as poller:
            poller.register(sock, select.EPOLLIN)
            for lost in range(round(PATIENCE_S / _LOST_AFTER_S)):
                sock.send(PROBE)
                # Another answer is to what somebody has sent who had this port before.
                while poller.poll(_LOST_AFTER_S):
                    if sock.recv(_BUFFER_BYTES) == PROBE:
                        return sock, lost
        raise WrongDataError(f"no probe came back for {PATIENCE_S} s")
    except BaseException:
        sock.close()
        raise


class _Client(abc.ABC):
    """One connected socket and what it has on its way. Numbers only grow, over all runs: what is late has a lower one.

    `sent_at` is when the last one left; infinity when nothing is awaited.
    """

    __slots__ = ("sent_at", "sock", "whole")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent_at = math.inf
        self.whole = 0

    @abc.abstractmethod
    def send(self) -> None:
        """Send the next one."""

    @abc.abstractmethod
    def take(self) -> bool:
        """Read an answer: True when it is the one to what was sent last, False when it is late. WrongDataError else."""


class _Tripper(_Client):
    """A client of round trips. The index in each datagram tells the clients of one run apart.

    `first` is the number that the run begins with: what has a lower one was sent in an earlier run, by a socket that
    had the same port. A relay that is gone may have left it with the target.
    """

    __slots__ = ("_datagram", "_first", "_index", "_number")

    def __init__(self, sock: socket.socket, index: int, size: int, first: int) -> None:
        super().__init__(sock)
        self._index = index
        self._first = self._number = first
        self._datagram = bytearray(trip(index, first, size))

    def send(self) -> None:
        self._number += 1
        TRIP.pack_into(self._datagram, 0, self._index, self._number)
        self.sock.send(self._datagram)

    def take(self) -> bool:
        answer = self.sock.recv(_BUFFER_BYTES)
        if answer == self._datagram:
            return True
        if answer == PROBE:
            return False
        if len(answer) >= TRIP.size:
            _, number = TRIP.unpack_from(answer)
            if number < self._first:
                return False
            if number < self._number and answer == trip(self._index, number, len(self._datagram)):
                return False
        raise WrongDataError(f"{len(answer)} bytes that are not the echo")


class _Burster(_Client):
    """A client of bursts. `segmented`: one send, which the kernel cuts (GSO); else a send for each datagram.

    `checked`: the target compares the bytes, and does not only count datagrams.
    """

    __slots__ = ("_burst", "_number", "_pieces", "_words")

    def __init__(self, sock: socket.socket, *, segmented: bool, checked: bool) -> None:
        super().__init__(sock)
        # Only the lowest bit says how: numbers of a relay that had the same port before are lower either way.
        self._number = time.monotonic_ns() << 1 | (BURST_CHECKED if checked else 0)
        self._burst = burst(self._number)
        view = memoryview(self._burst)
        self._words = view.cast("Q")
        step = BURST_BYTES if segmented else BURST_DATAGRAM_BYTES
        self._pieces = [view[at : at + step] for at in range(0, BURST_BYTES, step)]
        if segmented:
            sock.setsockopt(SOL_UDP, UDP_SEGMENT, BURST_DATAGRAM_BYTES)

    def send(self) -> None:
        self._number += 2
        number_burst(self._words, self._number)
        send = self.sock.send
        for piece in self._pieces:
            send(piece)

    def take(self) -> bool:
        answer = self.sock.recv(_BUFFER_BYTES)
        if len(answer) == BURST_ACK.size:
            number, right = BURST_ACK.unpack(answer)
            if not right:
                raise WrongDataError("the target got a burst with wrong bytes, or datagrams of another size")
            if number == self._number:
                return True
            if number < self._number:
                return False
        if answer == PROBE:
            return False
        raise WrongDataError(f"{len(answer)} bytes that are no acknowledgement")


def _closed_loop(clients: Sequence[_Client], seconds: float) -> dict[str, float]:
    """Run all `clients` for `seconds`, each until it has at least one answer: how many were whole, and lost.

    `seconds` of the answer end with the last whole one. WrongDataError when none comes for 10 s.
    """
    with select.epoll() as poller:
        by_fd = {client.sock.fileno(): client for client in clients}
        started = ended = looked = now = time.monotonic()
        deadline = started + seconds
        for fd, client in by_fd.items():
            poller.register(fd, select.EPOLLIN)
            client.send()
            client.sent_at = now
        lost, waiting = 0, len(clients)
        while waiting:
            events = poller.poll(_LOOK_S)
            now = time.monotonic()
            more = now < deadline
            for fd, _ in events:
                client = by_fd[fd]
                if not client.take() or client.sent_at == math.inf:
                    continue
                client.whole += 1
                ended = now
                if more:
                    client.send()
                    client.sent_at = now
                else:
                    client.sent_at = math.inf
                    waiting -= 1
            if now - looked < _LOOK_S:
                continue
            looked = now
            if now - ended > PATIENCE_S:
                raise WrongDataError(f"nothing came back for {PATIENCE_S} s")
            for client in clients:
                if now - client.sent_at < _LOST_AFTER_S:
                    continue
                lost += 1
                if more or not client.whole:
                    client.send()
                    client.sent_at = now
                else:
                    client.sent_at = math.inf
                    waiting -= 1
        return {"count": sum(client.whole for client in clients), "lost": lost, "seconds": ended - started}


def _dial_all(port: int, count: int, owned: contextlib.ExitStack) -> tuple[list[socket.socket], int]:
    """`count` sockets that `owned` closes, and the probes that got lost."""
    socks, lost = [], 0
    for _ in range(count):
        sock, lost_here = _dial(port)
        socks.append(owned.enter_context(sock))
        lost += lost_here
    return socks, lost


def trips(port: int, clients: int, size: int, seconds: float) -> dict[str, float]:
    """Round trips of `size` bytes by `clients` at once. `lost` of them had no echo in 0.5 s and are not in `count`."""
    with contextlib.ExitStack() as owned:
        socks, lost = _dial_all(port, clients, owned)
        first = time.monotonic_ns()
        figures = _closed_loop([_Tripper(sock, index, size, first) for index, sock in enumerate(socks)], seconds)
        return figures | {"lost": figures["lost"] + lost}


def bursts(port: int, flows: int, seconds: float, *, segmented: bool, checked: bool) -> dict[str, float]:
    """Bursts of `flows` at once. `bytes` are those of the `count` that arrived whole; `lost` bursts did not."""
    with contextlib.ExitStack() as owned:
        socks, _ = _dial_all(port, flows, owned)
        figures = _closed_loop([_Burster(sock, segmented=segmented, checked=checked) for sock in socks], seconds)
        return figures | {"bytes": figures["count"] * BURST_BYTES}


class Sessions:
    """Clients that have each had a probe sent back, held open until told otherwise."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def hold(self, port: int, sessions: int) -> dict[str, float]:
        """Open `sessions` more, one after the other, each with a probe."""
        for _ in range(sessions):
            self._held.append(_dial(port)[0])
        return {"count": len(self._held)}

    def drop(self) -> dict[str, float]:
        """Close all that are held. The relay is not told, as ever with datagrams."""
        while self._held:
            self._held.pop().close()
        return {"count": 0}


def _watch(sock: socket.socket) -> select.epoll:
    poller = select.epoll()
    poller.register(sock, select.EPOLLIN)
    poller.register(_STDIN, select.EPOLLIN)
    return poller


def serve_echo(sock: socket.socket) -> None:
    """Send every datagram back to where it came from, until stdin ends."""
    poller = _watch(sock)
    while all(fd != _STDIN for fd, _ in poller.poll()):
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):  # drained; or a relay that has ended
            for _ in range(_DRAIN):
                data, client = sock.recvfrom(_BUFFER_BYTES)
                sock.sendto(data, client)


@dataclass(slots=True)
class _Burst:
    """What has come of a burst from one address; the bytes too when they are to be checked."""

    number: int
    count: int = 0
    data: bytearray = field(default_factory=bytearray)


class BurstCounter:
    """The sink's bookkeeping: what has arrived, by the address that sent it, and what to answer."""

    def __init__(self) -> None:
        self._bursts: dict[object, _Burst] = {}

    def take(self, client: object, data: memoryview, size: int) -> list[bytes]:
        """Count what one read gave, datagrams of `size` bytes; the acknowledgements that are due now."""
        words = data.cast("Q") if len(data) % NUMBER_BYTES == 0 and data else None
        if words is None or size != BURST_DATAGRAM_BYTES or len(data) % size:
            return [BURST_ACK.pack(0, False)]
        numbers = words[:: size // NUMBER_BYTES].tolist()
        runs = [(numbers[0], len(numbers))]
        if numbers.count(numbers[0]) != len(numbers):  # joined from two bursts: one of them had a loss
            runs = [(number, len(list(group))) for number, group in itertools.groupby(numbers)]
        due: list[bytes] = []
        at = 0
        for number, count in runs:
            arrived = self._bursts.get(client)
            if arrived is None or arrived.number < number:
                arrived = self._bursts[client] = _Burst(number)
            if arrived.number == number:
                arrived.count += count
                right = True
                if number & BURST_CHECKED:
                    arrived.data += data[at * size : (at + count) * size]
                    right = arrived.count < BURST_DATAGRAMS or arrived.data == burst(number)
                if arrived.count == BURST_DATAGRAMS or not right:
                    due.append(BURST_ACK.pack(number, right))
            at += count
        return due


def _joined(ancillary: Sequence[tuple[int, int, bytes]], size: int) -> int:
    """The size of each datagram in a read of `size` bytes."""
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_UDP, UDP_GRO):
            return int(_INT.unpack_from(value)[0])
    return size


def serve_sink(sock: socket.socket) -> None:
    """Count bursts and acknowledge those that are whole, until stdin ends. A probe comes back as it is."""
    with contextlib.suppress(OSError):  # a kernel before 5.0: it reads every datagram by itself
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    poller, counter = _watch(sock), BurstCounter()
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    while all(fd != _STDIN for fd, _ in poller.poll()):
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):  # as above
            for _ in range(_DRAIN):
                got, ancillary, _, client = sock.recvmsg_into([buffer], _ANCILLARY_BYTES)
                data = view[:got]
                answers = [PROBE] if data == PROBE else counter.take(client, data, _joined(ancillary, got))
                for answer in answers:
                    sock.sendto(answer, client)
