"""A real daemon for minutes: what issue 2 wants seen before it is resolved. Nothing else should run on the machine.

uv run pytest -m soak tests/soak/test_streams.py                     # everything, about 15 minutes
RELAYD_SOAK_TRANSFERS=2 uv run pytest -m soak tests/soak/test_streams.py -k random
"""

import contextlib
import errno
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from relayd.relay.limits import LOG_INTERVAL_S
from tests.e2e.conftest import Echo
from tests.e2e.daemon import Daemon
from tests.integration.relaying import Target, fill, free_address, receive, receive_all, reset
from tests.soak.worker import Worker

pytestmark = pytest.mark.soak

#: Transfers of _TRANSFER_BYTES both ways at once, one after the other.
_TRANSFERS = int(os.environ.get("RELAYD_SOAK_TRANSFERS", "20"))
_TRANSFER_BYTES = 1 << 30
_STALLED = 1000
_REPEATS = int(os.environ.get("RELAYD_SOAK_REPEATS", "1000"))
_PIPE_KIB = 256
_RSS_SLACK_KIB = 16 * 1024

#: One side of a transfer: `python -c _SIDE FD SEED BYTES` sends BYTES of its seed and prints the digest of what it sent
#: and of what it received. A process of its own, so that nobody waits for an interpreter lock.
_SIDE = """
import hashlib, random, socket, sys, threading, time
sock = socket.socket(fileno=int(sys.argv[1])); sock.settimeout(120)
rng, stalls, left = random.Random(int(sys.argv[2])), random.Random(7), int(sys.argv[3])
sent, received = hashlib.blake2b(), hashlib.blake2b()
def send():
    global left
    block = memoryview(rng.randbytes(1 << 20))
    while left:
        size = min(left, rng.choice((1, 1, 700, 1460, 16384, 65535, 65536, 65537, 1 << 18, 1 << 20, 1 << 20, 1 << 20)))
        start = rng.randrange((1 << 20) - size + 1)
        sent.update(block[start:start + size]); sock.sendall(block[start:start + size]); left -= size
        if rng.random() < 0.002: time.sleep(rng.random() * 0.05)
    sock.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=send); thread.start()
while data := sock.recv(stalls.choice((1, 4096, 65536, 1 << 18, 1 << 18))):
    received.update(data)
    if stalls.random() < 0.001: time.sleep(stalls.random() * 0.05)
thread.join()
print(sent.hexdigest(), received.hexdigest())
"""


def config(target: SocketAddress, listener: str = "") -> str:
    return (
        f'[daemon]\nworkers = 1\n[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["{target}"]\n'
        f'connect_timeout = "5s"\n{listener}\n'
    )


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Room for the test's own ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def side(sock: socket.socket, seed: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _SIDE, str(sock.fileno()), str(seed), str(_TRANSFER_BYTES)],
        pass_fds=[sock.fileno()],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_random_gigabytes_both_ways(kind: str, tmp_path: Path) -> None:
    # S1, S4: 0 digests differ, and memory is flat
    with Target(kind, tmp_path) as target, Daemon(config(target.address), tmp_path) as daemon:
        worker = Worker.of(daemon)
        first_kib = 0
        for number in range(_TRANSFERS):
            with daemon.connect("web") as client:
                far = target.accept()
                sides = side(client, 2 * number), side(far, 2 * number + 1)
            far.close()
            (sent, got), (far_sent, far_got) = (each.communicate(timeout=300)[0].split() for each in sides)
            assert (sent, far_sent) == (far_got, got)
            line = daemon.wait_for_event("connection", number + 1)
            assert (line["outcome"], line["bytes_in"], line["bytes_out"]) == (
                "normal",
                _TRANSFER_BYTES,
                _TRANSFER_BYTES,
            )
            first_kib = first_kib or worker.rss_kib()
        assert worker.rss_kib() - first_kib <= 2048


def percentile_ms(ask: Callable[[], object], count: int = 2000) -> float:
    """The 99th percentile of `count` calls, in milliseconds."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return sorted(times)[count * 99 // 100] * 1000


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_clients_that_stop_reading(tmp_path: Path) -> None:
    # S4: memory <= 1,000 x one pipe, CPU 0 while stalled, a neighbour's p99 <= 2 x its base line
    answer = bytes(4 << 20)
    with (
        Target("inet", tmp_path, backlog=1024) as target,
        Daemon(config(target.address), tmp_path) as daemon,
        contextlib.ExitStack() as opened,
    ):
        worker = Worker.of(daemon)
        neighbour = opened.enter_context(daemon.connect("web"))
        next_door = target.accept()

        def ask() -> None:
            neighbour.sendall(b"q" * 64)
            next_door.sendall(receive(next_door, 64))
            receive(neighbour, 64)

        ask()
        base_ms = min(percentile_ms(ask) for _ in range(3))
        base_kib = worker.rss_kib()
        for _ in range(_STALLED):
            opened.enter_context(daemon.connect("web"))
            far = target.accept()
            far.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while far.send(answer):
                    pass
        deadline = time.monotonic() + 60
        while worker.cpu_share(5) > 0.001:  # until all are stalled, and keepalive is set on the last of them
            assert time.monotonic() < deadline
        assert worker.rss_kib() - base_kib <= _STALLED * _PIPE_KIB + _RSS_SLACK_KIB
        stalled_ms = min(percentile_ms(ask) for _ in range(3))
        assert stalled_ms <= 2 * base_ms, f"{base_ms:.3f} -> {stalled_ms:.3f} ms"


@pytest.mark.usefixtures("many_descriptors")
def test_descriptors_run_out(tmp_path: Path) -> None:
    # F1, F2: RLIMIT_NOFILE 256
    echo = Echo(free_address("inet", tmp_path))
    try:
        with Daemon(config(echo.address), tmp_path, prefix=("prlimit", "--nofile=256:256")) as daemon:
            worker = Worker.of(daemon)
            before = worker.fds()
            clients = [daemon.connect("web") for _ in range(400)]
            for client in clients:
                client.sendall(b"question")
            daemon.wait_for_event("accept_paused")
            clients[0].settimeout(5)
            assert receive(clients[0], 8) == b"question"
            served = sum(answered(client) for client in clients[1:]) + 1
            assert served >= 80
            assert worker.cpu_share(LOG_INTERVAL_S + 2) <= 0.05
            assert len(daemon.events("accept_paused")) <= 2
            for client in clients[:served]:
                client.sendall(b"still here")
                assert receive(client, 10) == b"still here"
            waiting = clients[served]
            began = time.monotonic()
            for client in clients[:served]:
                client.close()
            waiting.settimeout(5)
            assert receive(waiting, 8) == b"question"
            assert time.monotonic() - began <= 1
            for client in clients[served:]:
                client.close()
            daemon.wait_for_log(lambda line: line.get("event") == "connection", count=400)
            assert daemon.events("internal_error") == []
            assert worker.fds() <= before
    finally:
        echo.close()


def answered(client: socket.socket) -> bool:
    """True when the answer has come, or comes in a moment."""
    client.settimeout(0.05)
    try:
        return bool(client.recv(8))
    except TimeoutError:
        return False
    finally:
        client.settimeout(5)


@pytest.mark.parametrize("first", ["client", "target"])
@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("pending", [0, 150_000])
def test_the_half_close_matrix(first: str, end: str, pending: int, tmp_path: Path) -> None:
    # S2, S3: all of them; a FIN or a reset is passed on within 50 ms when nothing waits
    data = os.urandom(pending)
    with Target("inet", tmp_path) as target, Daemon(config(target.address), tmp_path) as daemon:
        worker = Worker.of(daemon)
        before = worker.fds()
        late = 0
        for _ in range(_REPEATS):
            client = daemon.connect("web")
            far = target.accept()
            client.sendall(b"hi")  # both ends are known to be connected
            far.sendall(receive(far, 2))
            receive(client, 2)
            one, other = (client, far) if first == "client" else (far, client)
            assert fill(one, data) == pending
            began = time.monotonic()
            if end == "reset":
                while unsent(one):
                    assert time.monotonic() < began + 10
                began = time.monotonic()
                reset(one)
                received, number = receive_all(other)
                assert (received, number) == (data, 104)
            else:
                one.shutdown(socket.SHUT_WR)
                assert receive_all(other) == (data, 0)
                other.sendall(b"answer")
                other.close()
                assert receive_all(one) == (b"answer", 0)
            late += time.monotonic() - began > 0.05
            client.close()
            far.close()
        assert late == 0 or pending
        daemon.wait_for_log(lambda line: line.get("event") == "connection", count=_REPEATS, timeout_s=10)
        expected = "normal" if end == "fin" else f"{first}_reset"
        assert {line["outcome"] for line in daemon.events("connection")} == {expected}
        assert worker.fds() <= before


def unsent(sock: socket.socket) -> int:
    """Bytes that are not acknowledged yet, from struct tcp_info (tcpi_unacked)."""
    return int(struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 24)[0])


@pytest.mark.parametrize("first", ["client", "target"])
@pytest.mark.parametrize("pending", [0, 150_000])
@pytest.mark.usefixtures("many_descriptors")
def test_the_silent_row_of_the_matrix(first: str, pending: int, tmp_path: Path) -> None:
    # S2, S7: a side that says nothing after the other's FIN; a thousand at once
    listener = 'half_close_timeout = "3s"'
    data = os.urandom(pending)
    with Target("inet", tmp_path, backlog=1024) as target, Daemon(config(target.address, listener), tmp_path) as daemon:
        worker = Worker.of(daemon)
        before = worker.fds()
        pairs = []
        for _ in range(_REPEATS):
            client = daemon.connect("web")
            pairs.append((client, target.accept()))
        finished = []
        for client, far in pairs:
            one, _ = (client, far) if first == "client" else (far, client)
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            finished.append((one, time.monotonic()))
        for one, _ in finished:
            with pytest.raises(ConnectionResetError):
                one.recv(1)
        daemon.wait_for_log(lambda line: line.get("event") == "connection", count=_REPEATS, timeout_s=30)
        for line in daemon.events("connection"):
            assert line["outcome"] == "half_close_timeout"
        for client, far in pairs:
            client.close()
            far.close()
        assert worker.fds() <= before


@pytest.mark.parametrize("silent", ["client", "target"])
@pytest.mark.parametrize("pending", [0, 150_000])
@pytest.mark.usefixtures("many_descriptors")
def test_silence_without_an_end(silent: str, pending: int, tmp_path: Path) -> None:
    # S7: nobody finishes, and one side neither says nor reads anything: idle_timeout, a thousand at once
    idle_s = 3.0
    data = os.urandom(pending)
    listener = f'idle_timeout = "{idle_s:g}s"'
    with Target("inet", tmp_path, backlog=1024) as target, Daemon(config(target.address, listener), tmp_path) as daemon:
        worker = Worker.of(daemon)
        before = worker.fds()
        pairs = []
        for _ in range(_REPEATS):
            client = daemon.connect("web")
            pairs.append((client, target.accept()))
        talking = [far if silent == "client" else client for client, far in pairs]
        for one in talking:
            one.sendall(data)
        for one in talking:
            assert receive_all(one) == (b"", errno.ECONNRESET)
        daemon.wait_for_log(lambda line: line.get("event") == "connection", count=_REPEATS, timeout_s=30)
        lines = daemon.events("connection")
        assert len(lines) == _REPEATS
        for line in lines:
            assert (line["outcome"], line["side"]) == ("idle_timeout", "relay")
            # Nothing else moved: what has been counted is what the kernel took for the silent side.
            assert (line["bytes_in"], line["bytes_out"]) == ((0, pending) if silent == "client" else (pending, 0))
            if not pending:
                silent_ms = line["duration_ms"] - line["connect_ms"]
                assert idle_s * 1000 <= silent_ms <= (idle_s + 1) * 1000, silent_ms
        for client, far in pairs:
            received, number = receive_all(client if silent == "client" else far)  # what came before the reset
            assert (received, number) == (data[: len(received)], errno.ECONNRESET)
            client.close()
            far.close()
        assert worker.fds() <= before
