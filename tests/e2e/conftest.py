"""Targets for the daemon to relay to: echo, in a thread, over any family."""

import contextlib
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayd.address import InetAddress, SocketAddress, from_sockaddr, parse
from tests import installed
from tests.e2e.daemon import DEADLINE_S
from tests.e2e.lives import WAYS, Again


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    """What these tests run is made before the first of them."""
    installed.environment()


class Echo:
    """Sends back what it gets, with half-close, on one listening socket. One thread for all connections."""

    def __init__(self, address: SocketAddress) -> None:
        self._sock = socket.socket(address.family.af, socket.SOCK_STREAM)
        self._sock.bind(address.sockaddr)
        self._sock.listen(1024)
        self.address = from_sockaddr(address.family.af, self._sock.getsockname())
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and close every socket."""
        self._wake.send(b".")
        self._thread.join()
        self._wake.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
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
                    if sock is self._sock:
                        selector.register(sock.accept()[0], selectors.EVENT_READ)
                    elif not self._echo(sock):
                        selector.unregister(sock)
                        sock.close()

    @staticmethod
    def _echo(sock: socket.socket) -> bool:
        try:
            data = sock.recv(65536)
            sock.sendall(data)  # tests of this directory send little: it never waits
        except OSError:
            return False  # reset: this connection is over
        return bool(data)


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Callable[[str], SocketAddress]]:
    """`echo("inet")`, `"inet6"`, `"unix"`, `"abstract"`: start an echo target; returns its address."""
    with contextlib.ExitStack() as started:

        def start(kind: str) -> SocketAddress:
            name = secrets.token_hex(4)
            text = {
                "inet": "127.0.0.1:0",
                "inet6": "[::1]:0",
                "unix": f"unix:{tmp_path}/echo-{name}.sock",
                "abstract": f"unix:@relayd-test-echo-{name}",
            }[kind]
            address = parse(text)
            assert isinstance(address, InetAddress) or text.startswith("unix:")
            target = Echo(address)  # type: ignore[arg-type]  # no name among them
            started.callback(target.close)
            return target.address

        yield start


@pytest.fixture
def udp_echo() -> Iterator[socket.socket]:
    """A UDP socket that the test answers from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(DEADLINE_S)
        yield sock


@pytest.fixture(params=WAYS)
def again(request: pytest.FixtureRequest) -> Again:
    """Both ways: by the FD store, and by execve(2)."""
    return WAYS[request.param]
