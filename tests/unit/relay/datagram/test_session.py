"""A session that has no room to watch its socket, in the middle of a move (D5, F1)."""

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from relayd.address import from_sockaddr
from relayd.net.poller import OUT, Handler
from relayd.outcomes import Outcome
from relayd.relay.datagram.session import Session
from relayd.spec import Target
from tests.integration.loop_thread import DEADLINE_S
from tests.unit.relay.lives import Life, Targets


@pytest.fixture
def other() -> Iterator[socket.socket]:
    """Where a session can move to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(DEADLINE_S)
        yield sock


@pytest.fixture
def receiving() -> Iterator[socket.socket]:
    """Where clients send to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def counts(session: Session) -> dict[str, int]:
    """Sessions of each target, as the balance knows them."""
    return session.receiver.group._main.counts()


def no_room_for_two_kinds_of_events(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    register = life.loop.selector.register

    def registered(sock: socket.socket, events: int, handler: Handler) -> object:
        if events & OUT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return register(sock, events, handler)

    monkeypatch.setattr(life.loop.selector, "register", registered)


def test_what_waits_moves_with_a_session_and_it_is_counted_once(
    receiving: socket.socket, other: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Targets() as targets:
        listener = targets.datagrams()
        two = (*listener.targets, Target(from_sockaddr(other.family, other.getsockname())))
        with Life(replace(listener, targets=two), receiving={"dns": receiving}) as life:
            client = life.udp_client(socket.AF_INET)
            session = life.session(client, receiving)
            first, second = (str(target.address) for target in two)
            assert counts(session) == {first: 1}
            session._wait(b"waiting")
            session.send = session._wait
            no_room_for_two_kinds_of_events(life, monkeypatch)
            assert session.failed(errno.ECONNREFUSED)
            assert [other.recv(100), other.recv(100)] == [b"question", b"waiting"]
            assert counts(session) == {second: 1}
            session.end(Outcome.EVICTED)
            assert counts(session) == {}
