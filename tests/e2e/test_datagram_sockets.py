"""Listening sockets of datagrams, as the daemon has them: nobody else's, kept by the control process, ready soon."""

import os
import signal
import socket
from pathlib import Path

import pytest

from relayd.address import InetAddress
from tests.e2e.daemon import Daemon
from tests.e2e.test_ranges import READY_S, config, cpu_s
from tests.ports import OWN_HOST, free_range

CANNOT_START = 4


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_daemon_is_refused(tmp_path: Path, workers: int) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Daemon(config("127.0.0.1:0", "127.0.0.1:9", workers, "dgram"), tmp_path) as first:
        address = first.address("range", kind="dgram")
        second = Daemon(config(str(address), "127.0.0.1:9", workers, "dgram"), other)
        try:
            second.start()
            assert second.wait() == CANNOT_START
            assert f"listeners.range: {address}: address already in use: another process listens" in second.stderr
        finally:
            second.close()
        assert first.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.alone
def test_ten_thousand_ports_are_ready_soon(tmp_path: Path, workers: int) -> None:
    first = free_range(10_000, OWN_HOST)
    with Daemon(config(f"{OWN_HOST}:{first}-{first + 9999}", "127.0.0.2", workers, "dgram"), tmp_path) as daemon:
        assert cpu_s(daemon.pid) + max(map(cpu_s, daemon.workers())) < READY_S
        assert [line["address"] for line in daemon.events("listening")] == [f"{OWN_HOST}:{first}-{first + 9999}"]
        assert daemon.stop() == 0


def test_datagrams_wait_for_the_next_worker(tmp_path: Path) -> None:
    # R7
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        target.settimeout(10)
        to = f"127.0.0.1:{target.getsockname()[1]}"
        with Daemon(config("127.0.0.1:0", to, 1, "dgram"), tmp_path) as daemon:
            (worker,) = daemon.workers()
            os.kill(worker, signal.SIGSTOP)
            address = daemon.address("range", kind="dgram")
            assert isinstance(address, InetAddress)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for number in range(5):
                    client.sendto(b"%d" % number, address.sockaddr)
                os.kill(worker, signal.SIGKILL)
                assert [target.recv(9) for _ in range(5)] == [b"%d" % number for number in range(5)]
            daemon.wait_for_event("worker_exited")
            assert daemon.stop() == 0


def test_both_types_on_one_port(tmp_path: Path) -> None:
    first = free_range(1)
    text = config(f"127.0.0.1:{first}", "127.0.0.2").replace('"stream"', '["stream", "dgram"]')
    with (
        Daemon(text, tmp_path) as daemon,
        socket.create_server(("127.0.0.2", first)) as streams,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.create_connection(("127.0.0.1", first), timeout=10) as connection,
    ):
        streams.settimeout(10)
        datagrams.bind(("127.0.0.2", first))
        for sock in (datagrams, client):
            sock.settimeout(10)
        assert [line["type"] for line in daemon.events("listening")] == ["stream", "dgram"]
        client.sendto(b"d", ("127.0.0.1", first))
        data, sender = datagrams.recvfrom(9)
        datagrams.sendto(data + b"!", sender)
        assert client.recvfrom(9) == (b"d!", ("127.0.0.1", first))
        accepted, _ = streams.accept()
        with accepted:
            connection.sendall(b"s")
            assert accepted.recv(1) == b"s"
        connection.close()
        daemon.wait_for_status(lambda text: text.startswith("1 listener, 0 connections, 1 session"))
        assert daemon.stop() == 0
