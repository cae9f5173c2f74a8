"""Traffic of every kind, in which nothing may go wrong: what reloads and restarts are held to."""

import asyncio
import contextlib
import hashlib
import random
import socket
from typing import TypeAlias, cast

from relayd.address import InetAddress
from tests.e2e.daemon import DEADLINE_S

STREAMING, IDLE, HALF_CLOSED, SESSIONS, NEW_PER_S = 200, 200, 100, 200, 100
Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Targets:
    """A TCP and a UDP echo, and a sink. `ports` are the source ports that each client of datagrams was seen from."""

    def __init__(self) -> None:
        self.ports: dict[bytes, set[int]] = {}
        #: What has come to the port `sink`, for the test to read and write.
        self.sunk: asyncio.Queue[Streams] = asyncio.Queue()

    async def __aenter__(self) -> "Targets":
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0, backlog=1024)
        self.tcp = self._server.sockets[0].getsockname()[1]
        self._sink = await asyncio.start_server(
            lambda reader, writer: self.sunk.put_nowait((reader, writer)), "127.0.0.1", 0, backlog=1024
        )
        self.sink = self._sink.sockets[0].getsockname()[1]
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), ("127.0.0.1", 0)
        )
        self.udp = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._transport.close()
        self._server.close()
        self._sink.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._targets.ports.setdefault(data[:4], set()).add(addr[1])
        cast(asyncio.DatagramTransport, self._transport).sendto(data, addr)  # is none by inheritance


def listeners(targets: Targets) -> str:
    """What a storm on 127.0.0.1:80, :81 and :53 goes through, as relay.toml has it."""
    return f"""
        [listeners.web]
        bind = "127.0.0.1:80"
        targets = ["127.0.0.1:{targets.tcp}"]
        [listeners.half]
        bind = "127.0.0.1:81"
        targets = ["127.0.0.1:{targets.sink}"]
        [listeners.dns]
        type = "dgram"
        bind = "127.0.0.1:53"
        targets = ["127.0.0.1:{targets.udp}"]
    """


class Storm:
    """Clients of a daemon. Each raises when anything is wrong with what it gets."""

    def __init__(self, targets: Targets, tcp: InetAddress, half: InetAddress, udp: InetAddress) -> None:
        """`tcp` is relayed to the echo of `targets`, `half` to its sink, `udp` to its other echo."""
        self.over = asyncio.Event()
        self.new = 0
        self._targets = targets
        self._tcp = tcp
        self._half = half
        self._udp = udp
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """All of them. Returns when each of the sessions has had an answer."""
        wanted = [self.streams(seed) for seed in range(STREAMING)]
        wanted += [self.idles() for _ in range(IDLE)]
        wanted += [self.half_closes() for _ in range(HALF_CLOSED)]
        wanted += [self.session(number) for number in range(SESSIONS)]
        self._tasks = [asyncio.ensure_future(each) for each in (*wanted, self.newcomers())]
        while len(self._targets.ports) < SESSIONS:
            await asyncio.sleep(0.01)
            self.look()

    def look(self) -> None:
        """Raise what has gone wrong so far."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def end(self) -> None:
        """Let all of them finish, and raise what has gone wrong."""
        self.over.set()
        _, late = await asyncio.wait(self._tasks, timeout=60)
        self.look()
        assert not late
        assert [len(ports) for ports in self._targets.ports.values()] == [1] * SESSIONS

    async def streams(self, seed: int) -> None:
        """Hash what goes and what comes back until it is over."""
        rng = random.Random(seed)
        reader, writer = await asyncio.open_connection(self._tcp.host, self._tcp.port)
        sent, received = hashlib.blake2b(), hashlib.blake2b()
        while not self.over.is_set():
            data = rng.randbytes(rng.choice((1, 700, 4096, 30_000)))
            writer.write(data)
            sent.update(data)
            received.update(await reader.readexactly(len(data)))
            await asyncio.sleep(rng.random() * 0.2)
        writer.write_eof()
        received.update(await reader.read())
        assert sent.digest() == received.digest()
        writer.close()

    async def idles(self) -> None:
        """Say something at the beginning and at the end."""
        reader, writer = await asyncio.open_connection(self._tcp.host, self._tcp.port)
        for _ in range(2):
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            if not self.over.is_set():
                await self.over.wait()
        writer.close()

    async def half_closes(self) -> None:
        """A client that has finished; its target sends on, until it is over."""
        reader, writer = await asyncio.open_connection(self._half.host, self._half.port)
        writer.write(b"question")
        writer.write_eof()
        their_reader, their_writer = await self._targets.sunk.get()
        assert await their_reader.read() == b"question"
        count = 0
        while not self.over.is_set():
            their_writer.write(b"tick")
            assert await reader.readexactly(4) == b"tick"
            count += 1
            await asyncio.sleep(0.5)
        their_writer.close()
        assert await reader.read() == b""
        assert count > 3
        writer.close()

    async def session(self, number: int) -> None:
        """Datagrams to and fro; each has its answer."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self._udp.sockaddr)
            count = 0
            while not self.over.is_set():
                question = number.to_bytes(4, "big") + count.to_bytes(4, "big")
                await loop.sock_sendall(sock, question)
                answer = await asyncio.wait_for(loop.sock_recv(sock, 100), DEADLINE_S)
                assert answer == question
                count += 1
                await asyncio.sleep(0.1)

    async def newcomers(self) -> None:
        """So many new connections per second, each with one exchange."""
        running: set[asyncio.Task[None]] = set()
        while not self.over.is_set():
            running.add(asyncio.ensure_future(self._newcomer()))
            await asyncio.sleep(1 / NEW_PER_S)
            done = {task for task in running if task.done()}
            running -= done
            for task in done:
                task.result()
        for task in running:
            await task

    async def _newcomer(self) -> None:
        reader, writer = await asyncio.open_connection(self._tcp.host, self._tcp.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        self.new += 1
