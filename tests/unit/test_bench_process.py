"""The benchmark's processes: what it reads of them from outside, and that none is left behind."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import load
from bench.cases import Load, LoadError
from bench.process import RelayError, RunningRelay, cpu, free_port, helper, tree
from bench.wire import ANSWER, BLOCK, REQUEST

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
