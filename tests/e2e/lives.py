"""How a life of the daemon ends and the next one begins, and a client that would notice."""

import signal
import socket
from collections.abc import Callable

import pytest

from tests.e2e.daemon import Daemon

#: How a life ends and the next one begins.
Again = Callable[[Daemon], None]


def upgrade(daemon: Daemon) -> None:
    """SIGUSR2, and READY again."""
    count = len(daemon.events("started"))
    daemon.signal(signal.SIGUSR2)
    daemon.wait_for_event("started", count + 1)


WAYS: dict[str, Again] = {"restart": Daemon.restart, "upgrade": upgrade}
#: For what does not depend on how the next life has got its descriptors: by an upgrade as well among the soaks, to keep
#: the usual run short.
BY_RESTART = pytest.mark.parametrize(
    "again", ["restart", pytest.param("upgrade", marks=pytest.mark.soak)], indirect=True
)


def answered(client: socket.socket, target: socket.socket, data: bytes) -> int:
    """A question and its answer; the port that the session has."""
    client.send(data)
    received, sender = target.recvfrom(100)
    assert received == data
    target.sendto(data, sender)
    assert client.recv(100) == data
    port: int = sender[1]
    return port
