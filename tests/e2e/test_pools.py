"""Targets that a listener of streams and one of datagrams share, and a reload that changes them for both."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_reload import changes, reload

CONFIG = """
[daemon]
workers = 1
drain_timeout = "30s"
[log]
format = "json"
[listeners.web]
bind = "127.0.0.1:0"
pool = "app"
[listeners.dns]
type = "dgram"
bind = "127.0.0.1:0"
pool = "app"
[pools.app]
targets = [{}]
"""


class Site:
    """A target of streams and of datagrams at one address."""

    def __init__(self, streams: socket.socket, datagrams: socket.socket) -> None:
        self.streams, self.datagrams = streams, datagrams
        host, port = streams.getsockname()
        self.address = f"{host}:{port}"

    def serves_stream(self, client: socket.socket) -> None:
        """What `client` sends comes here, and what is answered comes back."""
        accepted, _ = self.streams.accept()
        with accepted:
            client.sendall(b"hello")
            assert accepted.recv(100) == b"hello"
            accepted.sendall(self.address.encode())
            assert client.recv(100) == self.address.encode()

    def serves_datagram(self, client: socket.socket) -> None:
        """The same of a datagram."""
        client.send(b"hello")
        data, session = self.datagrams.recvfrom(100)
        assert data == b"hello"
        self.datagrams.sendto(self.address.encode(), session)
        assert client.recv(100) == self.address.encode()


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    """Two of them."""
    with contextlib.ExitStack() as stack:
        yield _site(stack), _site(stack)


def _site(stack: contextlib.ExitStack) -> Site:
    while True:
        streams = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            datagrams.bind(streams.getsockname())
        except OSError:  # somebody else's: the kernel chose the port for streams alone
            continue
        streams.settimeout(DEADLINE_S)
        datagrams.settimeout(DEADLINE_S)
        return Site(streams, datagrams)


@contextlib.contextmanager
def datagram_client(daemon: Daemon) -> Iterator[socket.socket]:
    """A new client of the listener of datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect(daemon.address("dns", kind="dgram").sockaddr)
        yield client


def test_a_reload_changes_a_pool_for_all_that_share_it(tmp_path: Path, sites: tuple[Site, Site]) -> None:
    old, new = sites
    with Daemon(CONFIG.format(f'"{old.address}"'), tmp_path) as daemon, datagram_client(daemon) as session:
        with daemon.connect("web") as client:
            old.serves_stream(client)
        daemon.wait_for_event("connection")
        old.serves_datagram(session)
        refused = reload(daemon, CONFIG.format(f'"{new.address}", "10.0.0.1:80:80"'))
        assert refused["event"] == "reload_failed"
        assert "relay.toml:15:" in refused["message"]
        assert ": pools.app.targets[1]: " in refused["message"]
        assert reload(daemon, CONFIG.format(f'"{new.address}"'))["event"] == "reloaded"
        assert changes(daemon) == [
            f"~ listener web: target {old.address} removed",
            f"~ listener web: target {new.address} added",
            f"~ listener dns: target {old.address} removed (1 session: drain 30s)",
            f"~ listener dns: target {new.address} added",
        ]
        with daemon.connect("web") as client, datagram_client(daemon) as other:
            new.serves_stream(client)
            new.serves_datagram(other)
        old.serves_datagram(session)  # it drains
        assert daemon.command("plan", "--json")["changes"] == []
