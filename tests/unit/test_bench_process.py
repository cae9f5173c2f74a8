"""The benchmark's processes: what it reads of them from outside, and that none is left behind."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import datagrams, load
from bench.cases import Load, LoadError
from bench.datagrams import BurstCounter
from bench.process import RelayError, RunningRelay, cpu, free_port, helper, tree
from bench.wire import (
    ANSWER,
    BLOCK,
    BURST_ACK,
    BURST_BYTES,
    BURST_CHECKED,
    BURST_DATAGRAM_BYTES,
    BURST_DATAGRAMS,
    PROBE,
    REQUEST,
    WrongDataError,
    burst,
)

_LISTEN = """
import socket, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
with open("child", "w") as file:
    file.write(str(child.pid))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()[0].close()
"""
_BURN = "import time\nwhile time.process_time() < 0.2: sum(range(10000))\n"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@contextmanager
def _target(kind: str) -> Iterator[int]:
    with helper(sys.executable, "-m", "bench.target", kind) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def test_cpu_counts_a_living_process_and_its_reaped_children() -> None:
    before = cpu([os.getpid()])
    subprocess.run([sys.executable, "-S", "-c", _BURN], check=True)
    used = cpu([os.getpid()]) - before
    assert used.total >= 0.2 - 2 * _TICK_S  # user and system of what was reaped are each cut to a tick
    user, system = used.split()
    assert user + system == pytest.approx(used.total)
    assert user > system


def test_stop_leaves_no_process_of_the_tree(tmp_path: Path) -> None:
    port = free_port()
    with RunningRelay([sys.executable, "-c", _LISTEN, str(port)], tmp_path, port, ready_by_notify=False) as relay:
        relay_pid, child = relay.pids()
        assert child == int((tmp_path / "child").read_text())
        memory = relay.memory()
        assert memory.total_kib > memory.largest_child_kib > 0
        assert memory.total_kib >= memory.dirty_kib > 0
        assert relay.ready_s > 0
        opened = os.pidfd_open(child)
    try:
        assert select.select([opened], [], [], 5.0)[0]  # readable once the process has ended, see pidfd_open(2)
    finally:
        os.close(opened)
    assert not Path(f"/proc/{relay_pid}").exists()


def test_a_relay_that_ends_says_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no such port')"]
    with pytest.raises(RelayError, match="ended with 1: no such port"):
        RunningRelay(command, tmp_path, free_port(), ready_by_notify=True)


def test_ready_by_notify_waits_for_the_message(tmp_path: Path) -> None:
    script = (
        "import os, socket, signal\n"
        "notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "for text in (b'STATUS=NOT_READY=1', b'STATUS=up\\nREADY=1'):\n"
        "    open('said', 'wb').write(text)\n"
        "    notify.sendto(text, os.environ['NOTIFY_SOCKET'])\n"
        "signal.pause()\n"
    )
    with RunningRelay([sys.executable, "-c", script], tmp_path, free_port(), ready_by_notify=True) as relay:
        assert (tmp_path / "said").read_bytes().endswith(b"READY=1")
        assert len(relay.pids()) == 1


def test_tree_of_a_process_that_is_gone_is_itself() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert tree(process.pid) == [process.pid]


def test_request_and_latency_exchange_on_open_connections() -> None:
    with _target("exchange") as port:
        assert load.request(port, 5, 0.05)["count"] >= 5
        assert load.latency(port, 0.05)["p50_us"] > 0


def test_connect_opens_a_connection_for_each_request() -> None:
    with _target("once") as port:
        assert load.connect(port, 5, 0.05)["count"] >= 5


def test_bulk_is_counted_and_hashed() -> None:
    with _target("bulk") as port:
        figures = load.bulk(port, 2, 0.0, 3, hashed=True)
        assert figures["bytes"] == 2 * (3 * len(BLOCK) + 40)


_LIAR = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    client = listener.accept()[0]
    client.recv(4096)
    client.sendall(sys.argv[1].encode())
    client.close()
"""


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("request", {"connections": 1, "seconds": 0.05}),
        ("connect", {"connections": 1, "seconds": 0.05}),
        ("latency", {"seconds": 0.05}),
        ("bulk", {"streams": 1, "seconds": 0.0, "blocks": 1, "hashed": True}),
    ],
)
def test_wrong_bytes_are_an_error_and_the_next_load_is_served(command: str, options: dict[str, float]) -> None:
    liar = subprocess.Popen([sys.executable, "-c", _LIAR, "x" * len(ANSWER)], stdout=subprocess.PIPE, text=True)
    try:
        assert liar.stdout is not None
        wrong = int(liar.stdout.readline())
        with helper(sys.executable, "-m", "bench.load") as process, _target("exchange") as right:
            generator = Load(process)
            with pytest.raises(LoadError, match="WrongDataError"):
                generator.run(command, port=wrong, **options)
            assert generator.run("hold", port=right, connections=3)["count"] == 3
            assert generator.run("drop")["count"] == 0
    finally:
        liar.kill()
        liar.wait()
        if liar.stdout is not None:
            liar.stdout.close()


def test_sizes_are_what_the_documentation_says() -> None:
    assert (len(REQUEST), len(ANSWER), len(BLOCK)) == (64, 256, 256 * 1024)


def test_round_trips_come_back_whole_and_none_is_lost() -> None:
    with _target("udp-echo") as port, helper(sys.executable, "-m", "bench.load") as process:
        generator = Load(process)
        for size in (64, 1200):
            figures = generator.run("udp-trips", port=port, clients=5, size=size, seconds=0.05)
            assert figures["count"] >= 5
            assert figures["lost"] == 0
        assert generator.run("udp-hold", port=port, sessions=3)["count"] == 3
        assert generator.run("udp-drop")["count"] == 0


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("checked", [False, True])
def test_bursts_are_counted_and_checked(segmented: bool, checked: bool) -> None:
    with _target("udp-sink") as port:
        figures = datagrams.bursts(port, 2, 0.05, segmented=segmented, checked=checked)
    assert figures["count"] >= 2
    assert figures["bytes"] == figures["count"] * BURST_BYTES
    assert figures["lost"] == 0


_DATAGRAM_LIAR = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
dropped = False
while True:
    data, client = sock.recvfrom(65536)
    if data == b"bench probe":
        sock.sendto(data, client)
    elif MODE == "lie":
        sock.sendto(data[:-1] + b"?", client)
    elif MODE == "mix":
        sock.sendto(bytes([data[0] ^ 1]) + data[1:], client)
    elif not dropped:
        dropped = True
    else:
        sock.sendto(data, client)
        sock.sendto(data, client)
"""


@contextmanager
def _datagram_liar(mode: str) -> Iterator[int]:
    script = f"MODE = {mode!r}\n{_DATAGRAM_LIAR}"
    liar = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert liar.stdout is not None
        yield int(liar.stdout.readline())
    finally:
        liar.kill()
        liar.wait()
        if liar.stdout is not None:
            liar.stdout.close()


@pytest.mark.parametrize("mode", ["lie", "mix"])
def test_a_wrong_echo_is_an_error(mode: str) -> None:
    with _datagram_liar(mode) as port, pytest.raises(WrongDataError, match="not the echo"):
        datagrams.trips(port, 1, 64, 0.05)


def test_a_lost_datagram_is_counted_and_one_that_comes_twice_is_not() -> None:
    with _datagram_liar("drop one, double the others") as port:
        figures = datagrams.trips(port, 1, 64, 0.0)
        assert (figures["count"], figures["lost"]) == (1, 1)
        assert datagrams.trips(port, 2, 64, 0.05)["lost"] == 0  # every second answer is late


def _acknowledged(number: int, *, right: bool = True) -> list[bytes]:
    return [BURST_ACK.pack(number, right)]


def test_a_burst_is_acknowledged_once_it_is_whole_for_each_client_by_itself() -> None:
    counter, data = BurstCounter(), memoryview(burst(6))
    half = BURST_BYTES // 2
    assert counter.take("a", data[:half], BURST_DATAGRAM_BYTES) == []
    assert counter.take("b", data[half:], BURST_DATAGRAM_BYTES) == []
    assert counter.take("a", data[half:], BURST_DATAGRAM_BYTES) == _acknowledged(6)
    for at in range(0, half, BURST_DATAGRAM_BYTES):
        due = counter.take("b", data[at : at + BURST_DATAGRAM_BYTES], BURST_DATAGRAM_BYTES)
    assert due == _acknowledged(6)


def test_a_burst_with_a_loss_is_never_acknowledged_and_the_next_one_is() -> None:
    counter, first, second = BurstCounter(), burst(6), burst(8)
    joined = memoryview(first[BURST_DATAGRAM_BYTES:] + second[:BURST_DATAGRAM_BYTES])
    assert counter.take("a", joined, BURST_DATAGRAM_BYTES) == []
    assert counter.take("a", memoryview(first)[:BURST_DATAGRAM_BYTES], BURST_DATAGRAM_BYTES) == []  # late
    assert counter.take("a", memoryview(second)[BURST_DATAGRAM_BYTES:], BURST_DATAGRAM_BYTES) == _acknowledged(8)


def test_a_checked_burst_must_be_right_byte_by_byte_and_in_order() -> None:
    number = BURST_CHECKED | 7
    right = burst(number)
    assert BurstCounter().take("a", memoryview(right), BURST_DATAGRAM_BYTES) == _acknowledged(number)
    changed = bytearray(right)
    changed[-1] ^= 1
    swapped = right[BURST_DATAGRAM_BYTES:] + right[:BURST_DATAGRAM_BYTES]
    for wrong in (changed, swapped):
        assert BurstCounter().take("a", memoryview(wrong), BURST_DATAGRAM_BYTES) == _acknowledged(number, right=False)


@pytest.mark.parametrize(("length", "size"), [(0, 0), (1199, 1199), (1200, 600), (60_000, 60_000), (1300, 1200)])
def test_datagrams_of_another_size_are_wrong(length: int, size: int) -> None:
    assert BurstCounter().take("a", memoryview(burst(7))[:length], size) == _acknowledged(0, right=False)


_LATE_ECHO = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(sys.argv[1])))
for seen in range(1000):
    data, client = sock.recvfrom(65536)
    if seen:
        sock.sendto(data, client)
"""


def test_a_relay_of_datagrams_is_ready_when_a_probe_comes_back(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_DGRAM)
    command = [sys.executable, "-S", "-c", _LATE_ECHO, str(port)]
    with RunningRelay(command, tmp_path, port, ready_by_notify=False, datagrams=True) as relay:
        assert relay.ready_s >= 0.1  # the first probe that reached it was dropped, and waited for


def test_sizes_of_datagrams_are_what_the_documentation_says() -> None:
    assert (BURST_DATAGRAMS, BURST_DATAGRAM_BYTES, BURST_BYTES) == (50, 1200, 60_000)
    assert len(PROBE) < BURST_DATAGRAM_BYTES
