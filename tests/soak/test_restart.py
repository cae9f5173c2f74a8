"""Twenty times `systemctl restart` under traffic of every kind, restarts with 8,000 connections, and a hundred that
come while another one is under way. All with the shipped unit in a real systemd, as the user that it makes. About a
minute.

uv run pytest -m soak tests/soak/test_restart.py -s
"""

import asyncio
import resource
import selectors
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from relayd.address import Family, InetAddress
from tests.soak.storm import Storm, Targets, listeners
from tests.systemd.box import Box, Service
from tests.systemd.conftest import box, service

pytestmark = pytest.mark.soak
__all__ = ["box", "service"]

RESTARTS = 20
CONNECTIONS = 8_000
#: Restarts of which each comes a little later in the one before; over all, up to when the other one is done.
OVERTAKING, LATER_S = 100, 0.004
#: R4: "service back in 0.5 s", from the command to READY. It counts the start of a Python with all its modules: single
#: ones may take longer where something else wants the processors.
MARK_S = 0.5

STREAMS = """
[daemon]
workers = 2
drain_timeout = "1s"
[log]
access = false
[listeners.web]
bind = "0.0.0.0:80"
targets = ["127.0.0.1:9001"]
"""


def at(port: int) -> InetAddress:
    return InetAddress(Family.INET, "127.0.0.1", port)


def test_twenty_restarts_break_nothing(box: Box, service: Service) -> None:
    # R4
    async def scenario() -> None:
        async with Targets() as targets:
            service.configure(
                f'[daemon]\nworkers = 2\ndrain_timeout = "1s"\n[log]\naccess = false\n{listeners(targets)}'
            )
            await asyncio.to_thread(service.start)
            storm = Storm(targets, at(80), at(81), at(53))
            await storm.begin()
            fds: list[int] = []
            for _ in range(RESTARTS):
                await asyncio.to_thread(box.run, "systemctl", "restart", "relayd")
                storm.look()
                await asyncio.sleep(0.5)
                storm.look()
                fds.append(await asyncio.to_thread(_descriptors, box, service))
            await storm.end()
            assert storm.new > RESTARTS * 10
            sys.stdout.write(
                f"\n{RESTARTS} restarts, {storm.new} new connections; descriptors of all processes {fds}\n"
            )
            # The last one has no more than the first: sessions, two for each connection, and a few new ones.
            assert max(fds) - min(fds) < 100, fds

    box.inside(lambda: asyncio.run(scenario()))
    assert service.show("NFileDescriptorStore") == "5"  # two sockets, two copies of the third, the manifest
    said = service.journal(output="cat")
    assert "not taken over" not in said
    assert "Traceback" not in said
    service.clean_up()


def _descriptors(box: Box, service: Service) -> int:
    pids = [service.main_pid(), *service.workers()]
    return sum(len(list((box.root / f"proc/{pid}/fd").iterdir())) for pid in pids)


class Echo:
    """Echoes thousands of connections in one thread."""

    def __init__(self, box: Box, port: int) -> None:
        self._listening = box.make_socket()
        self._listening.bind(("127.0.0.1", port))
        self._listening.listen(4096)
        self._listening.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """End it, and every connection."""
        self._wake.close()
        self._thread.join()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listening, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._woken:
                        for each in list(selector.get_map().values()):
                            assert isinstance(each.fileobj, socket.socket)
                            each.fileobj.close()
                        return
                    if sock is self._listening:
                        selector.register(sock.accept()[0], selectors.EVENT_READ)
                    elif data := _received(sock):
                        sock.sendall(data)
                    else:
                        selector.unregister(sock)
                        sock.close()


def _received(sock: socket.socket) -> bytes:
    """Nothing: the connection has ended, as relayd's own end may have it, by a reset. Clients count what is broken."""
    try:
        return sock.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.fixture
def many_files() -> Iterator[None]:
    """16,000 descriptors, and some more, for this process: both ends of each connection are here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2 * CONNECTIONS + 500:
        pytest.skip(f"RLIMIT_NOFILE {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 100_000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_eight_thousand_connections_outlive_a_restart(box: Box, service: Service, many_files: None) -> None:
    # R4
    echo = Echo(box, 9001)
    clients: list[socket.socket] = []
    try:
        service.configure(STREAMS)
        service.start()
        clients += _connected(box, CONNECTIONS)
        took: list[float] = []
        for number in range(5):
            box.run("systemctl", "restart", "relayd")
            # As systemd sees it: from the end of "active" to READY.
            left, came = (int(service.show(f"Active{verb}TimestampMonotonic")) for verb in ("Exit", "Enter"))
            took.append((came - left) / 1e6)
            assert _broken(clients, b"after %d" % number) == 0
        shown = ", ".join(f"{each:.2f}" for each in took)
        sys.stdout.write(f"\nrestart with {CONNECTIONS} connections: {shown} s; median {statistics.median(took):.2f}\n")
        assert statistics.median(took) <= MARK_S, took
        assert "not taken over" not in service.journal(output="cat")
    finally:
        for client in clients:
            client.close()
        service.clean_up()
        echo.close()


def test_restarts_that_come_at_any_moment_of_another_one(box: Box, service: Service, many_files: None) -> None:
    # R4: the start of Python is among them, when a signal still ends the process at once.
    echo = Echo(box, 9001)
    clients: list[socket.socket] = []
    try:
        service.configure(STREAMS)
        service.start()
        clients += _connected(box, CONNECTIONS // 8)
        for step in range(OVERTAKING):
            box.run("systemctl", "restart", "--no-block", "relayd")
            time.sleep(step * LATER_S)
        box.run("systemctl", "restart", "relayd")
        assert _broken(clients, b"after") == 0
        said = service.journal(output="cat")
        assert "not taken over" not in said
        sys.stdout.write(f"\n{OVERTAKING} restarts: {said.count('code=killed')} starts were cut off\n")
    finally:
        for client in clients:
            client.close()
        service.clean_up()
        echo.close()


def _connected(box: Box, count: int) -> list[socket.socket]:
    """So many clients, each with an answer."""
    clients: list[socket.socket] = []

    def connect() -> None:
        clients.extend(socket.create_connection(("127.0.0.1", 80), 20) for _ in range(count))

    box.inside(connect)
    assert _broken(clients, b"before") == 0
    return clients


def _broken(clients: list[socket.socket], data: bytes) -> int:
    """How many do not get back what they send."""
    broken = 0
    for client in clients:
        client.sendall(data)
    for client in clients:
        try:
            broken += client.recv(len(data), socket.MSG_WAITALL) != data
        except OSError:
            broken += 1
    return broken
