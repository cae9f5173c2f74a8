"""Datagrams through the real daemon: sessions over its life, its log, its end."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relayd.address import InetAddress
from tests.e2e.daemon import DEADLINE_S, Daemon

#: R6: a worker that drains ends sessions that are silent for a second; then it looks again within 20 ms.
SILENCE_S = 1.0
#: For processes to end, on a loaded machine.
END_S = 1.0


def config(target: socket.socket, *, workers: int = 1, bind: str = "127.0.0.1:0", more: str = "") -> str:
    host, port = target.getsockname()
    return f"""
        [daemon]
        workers = {workers}
        drain_timeout = "10s"
        [log]
        format = "json"
        [listeners.dns]
        type = "dgram"
        bind = "{bind}"
        targets = ["{host}:{port}"]
        {more}
    """


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A bound UDP socket with a timeout."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(DEADLINE_S)
        yield sock


@contextmanager
def client_of(daemon: Daemon, host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A client that takes answers from `host` only."""
    address = daemon.address("dns", kind="dgram")
    assert isinstance(address, InetAddress)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect((host, address.port))
        yield client


def exchange(client: socket.socket, target: socket.socket, data: bytes) -> object:
    """One question and its answer; the port of the session."""
    client.send(data)
    received, sender = target.recvfrom(70_000)
    assert received == data
    target.sendto(data[::-1], sender)
    assert client.recv(70_000) == data[::-1]
    return sender


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.alone
def test_clients_are_answered_and_their_sessions_logged(tmp_path: Path, target: socket.socket, workers: int) -> None:
    # D1, D2, O1: a client always meets the same worker
    more = 'session_timeout = "300ms"'
    with Daemon(config(target, workers=workers, bind="0.0.0.0:0", more=more), tmp_path) as daemon:
        ports = set()
        for last in range(1, 9):
            with client_of(daemon, f"127.0.0.{last}") as client:
                senders = {exchange(client, target, b"question %d" % number) for number in range(20)}
                assert len(senders) == 1
                ports.add(client.getsockname()[1])
        daemon.wait_for_log(lambda line: line["event"] == "session", count=8)
        lines = daemon.events("session")
        assert {line["client_port"] for line in lines} == ports
        assert {line["outcome"] for line in lines} == {"session_timeout"}
        assert {(line["datagrams_in"], line["datagrams_out"], line["datagrams_dropped"]) for line in lines} == {
            (20, 20, 0)
        }
        assert len({line["conn_id"] for line in lines}) == 8
        assert daemon.stop() == 0


def test_a_stop_waits_for_the_answers_and_not_for_the_timeout(tmp_path: Path, target: socket.socket) -> None:
    # R6: session_timeout is a minute
    with Daemon(config(target), tmp_path) as daemon, client_of(daemon) as client:
        exchange(client, target, b"before")
        client.send(b"last question")
        _, sender = target.recvfrom(100)
        began = time.monotonic()
        daemon.terminate()
        daemon.wait_for_event("stopping")
        target.sendto(b"last answer", sender)
        assert client.recv(100) == b"last answer"
        assert daemon.wait() == 0
        assert time.monotonic() - began < SILENCE_S + END_S
        (line,) = daemon.events("session")
        assert (line["outcome"], line["datagrams_in"], line["datagrams_out"]) == ("shutdown", 2, 2)


def test_workers_without_control_leave_the_address_to_the_next_daemon(tmp_path: Path, target: socket.socket) -> None:
    # R7: at once, and not when the sessions are over
    with Daemon(config(target), tmp_path) as first, client_of(first) as client:
        exchange(client, target, b"question")
        address = first.address("dns", kind="dgram")
        first.kill()
        first.wait_for_log(lambda line: line["event"] == "session" and line["outcome"] == "shutdown")
        first.wait_for(lambda: first._ended, "the end of the worker")
        other = tmp_path / "other"
        other.mkdir()
        with Daemon(config(target, bind=str(address)), other) as second:
            exchange(client, target, b"the same client")
            assert second.stop() == 0


def test_what_is_lost_is_said_and_reaches_the_status(tmp_path: Path, target: socket.socket) -> None:
    # D4
    with Daemon(config(target), tmp_path) as daemon, client_of(daemon) as client:
        exchange(client, target, b"question")
        daemon.wait_for_status(lambda status: "1 session" in status)
        target.close()
        client.send(b"into the void")
        line = daemon.wait_for_event("datagrams_dropped")
        assert (line["listener"], line["reason"], line["count"]) == ("dns", "target_failed", 1)
        assert daemon.wait_for_event("session")["outcome"] == "target_refused"
        assert daemon.stop() == 0
