"""Five hundred reloads in half a minute under traffic of every kind: what issue 4 wants seen. About a minute.

uv run pytest -m soak tests/soak/test_reload.py
"""

import asyncio
import contextlib
import hashlib
import random
import signal
import socket
from pathlib import Path
from typing import cast

import pytest

from relayd.address import InetAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.soak.worker import Worker

pytestmark = pytest.mark.soak

RELOADS, RELOADS_S = 500, 30.0
STREAMING, IDLE, HALF_CLOSED, SESSIONS, NEW_PER_S = 200, 200, 100, 200, 100
_RSS_SLACK_KIB = 2 * 1024


class Targets:
    """A TCP and a UDP echo. `ports` are the source ports that each client of datagrams was seen from."""

    def __init__(self) -> None:
        self.ports: dict[bytes, set[int]] = {}
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Targets":
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0, backlog=1024)
        self.tcp = self._server.sockets[0].getsockname()[1]
        self._transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Datagrams(self), ("127.0.0.1", 0)
        )
        self.udp = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._transport.close()
        self._server.close()

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


class Storm:
    """Clients of a daemon. Each raises when anything is wrong with what it gets."""

    def __init__(self, tcp: InetAddress, udp: InetAddress) -> None:
        self.over = asyncio.Event()
        self.new = 0
        self._tcp = tcp
        self._udp = udp

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

    async def half_closes(
        self, sink: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]], port: int
    ) -> None:
        """A client that has finished; its target sends on, until it is over."""
        reader, writer = await asyncio.open_connection(self._tcp.host, port)
        writer.write(b"question")
        writer.write_eof()
        their_reader, their_writer = await sink.get()
        assert await their_reader.read() == b"question"
        count = 0
        while not self.over.is_set():
            their_writer.write(b"tick")
            assert await reader.readexactly(4) == b"tick"
            count += 1
            await asyncio.sleep(0.5)
        their_writer.close()
        assert await reader.read() == b""
        assert count > 10
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


def config(targets: Targets, sink: int, variant: int) -> str:
    """Of four variants: timeouts, other listeners, another target and another bind come and go."""
    idle = ("1h", "2h")[variant % 2]
    # Nobody is there: a dial that is refused goes on to the next target.
    more = ', "127.0.0.1:9"' if variant in (2, 3) else ""
    other = f'[listeners.other]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:{sink}"]\n' if variant % 2 else ""
    return f"""
        [daemon]
        workers = 2
        [log]
        format = "json"
        access = false
        [defaults]
        idle_timeout = "{idle}"
        session_timeout = "{60 + variant}s"
        on_target_error = "close"
        [listeners.web]
        bind = "127.0.0.1:0"
        targets = ["127.0.0.1:{targets.tcp}"{more}]
        [listeners.half]
        bind = "127.0.0.1:0"
        targets = ["127.0.0.1:{sink}"]
        [listeners.dns]
        type = "dgram"
        bind = "127.0.0.1:0"
        targets = ["127.0.0.1:{targets.udp}"]
        {other}
    """


def test_five_hundred_reloads_break_nothing(tmp_path: Path) -> None:
    # R1, R2, R3
    async def scenario() -> None:
        sink: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        server = await asyncio.start_server(
            lambda reader, writer: sink.put_nowait((reader, writer)), "127.0.0.1", 0, backlog=1024
        )
        sink_port = server.sockets[0].getsockname()[1]
        async with Targets() as targets:
            with Daemon(config(targets, sink_port, 0), tmp_path) as daemon:
                await _storm(daemon, targets, sink, sink_port)
        server.close()

    asyncio.run(scenario())


async def _storm(
    daemon: Daemon,
    targets: Targets,
    sink: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
    sink_port: int,
) -> None:
    web, half, dns = daemon.address("web"), daemon.address("half"), daemon.address("dns", kind="dgram")
    assert isinstance(web, InetAddress)
    assert isinstance(half, InetAddress)
    assert isinstance(dns, InetAddress)
    workers = [Worker(pid) for pid in daemon.workers()]
    fds = [worker.fds() for worker in workers]
    storm = Storm(web, dns)
    tasks = [asyncio.ensure_future(storm.streams(seed)) for seed in range(STREAMING)]
    tasks += [asyncio.ensure_future(storm.idles()) for _ in range(IDLE)]
    tasks += [asyncio.ensure_future(storm.half_closes(sink, half.port)) for _ in range(HALF_CLOSED)]
    tasks += [asyncio.ensure_future(storm.session(number)) for number in range(SESSIONS)]
    tasks.append(asyncio.ensure_future(storm.newcomers()))
    rss: list[int] = []
    for number in range(RELOADS):
        daemon.configure(config(targets, sink_port, number % 4))
        daemon.signal(signal.SIGHUP)
        await asyncio.sleep(RELOADS_S / RELOADS)
        if number % 50 == 49:
            rss.append(max(worker.rss_kib() for worker in workers))
        for task in tasks:
            if task.done():
                task.result()
    storm.over.set()
    done, late = await asyncio.wait(tasks, timeout=60)
    for task in done:
        task.result()
    assert not late
    assert storm.new > RELOADS_S * NEW_PER_S * 0.5
    assert [len(ports) for ports in targets.ports.values()] == [1] * SESSIONS
    assert [event["message"] for event in daemon.events("reload_failed")] == []
    assert [event for event in daemon.lines if event["level"] in ("error", "warning")] == []
    # Signals that arrive while one is handled are one (signal(7)), and requests during a reload share the next one.
    assert len(daemon.events("reloaded")) > RELOADS // 2
    assert max(rss[2:]) - min(rss[2:]) <= _RSS_SLACK_KIB, rss
    until = asyncio.get_running_loop().time() + 10
    while [worker.fds() for worker in workers] != fds and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.1)
    sessions = [worker.fds() - before for worker, before in zip(workers, fds, strict=True)]
    assert sum(sessions) <= SESSIONS + 4, sessions
    daemon.close()
