"""What it costs to look: 5,000 connections, all of them listed every second, and what others notice of it. Two minutes.

uv run pytest -m soak tests/soak/test_live.py
"""

import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.cli import client
from tests import installed
from tests.e2e.daemon import Daemon

pytestmark = pytest.mark.soak

CONNECTIONS = 5000
RATE = 2000
#: Seconds of a window: without anybody who looks, with, without, with ...
WINDOW_S, WINDOWS = 5.0, 20
#: A command has started by then.
SETTLE_S = 1.0
ANSWER_MAX_S = 1.0
#: The median over the windows of the 99th percentile, with against without: on two processors, which two workers, the
#: control process, whoever looks and both ends of the connections share.
P99_MOVES_MAX = 2.0


class Pinger:
    """`pinger.py`, held by its standard input."""

    def __init__(self) -> None:
        command = [sys.executable, "-IS", str(Path(__file__).with_name("pinger.py")), str(CONNECTIONS), str(RATE)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "it has ended"
        return line

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def opened(self, port: int) -> None:
        self.say(str(port))
        assert self._line() == "open\n"

    def result(self) -> dict[str, list[float]]:
        assert self._process.stdin is not None
        self._process.stdin.close()
        found: dict[str, list[float]] = json.loads(self._line())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def looking(daemon: Daemon) -> Iterator[None]:
    """Somebody who asks for all of them every second."""
    command = installed.relayd("connections", "--watch=1", "--json", "--limit", "10000", "--admin", str(daemon.admin))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def asked(daemon: Daemon) -> float:
    """How long an answer takes."""
    began = time.monotonic()
    found = client.ask(client.Place((daemon.admin,)), "GET", "/v1/connections?limit=10000")
    took = time.monotonic() - began
    assert found["complete"]
    assert len(found["connections"]) == found["total"] == CONNECTIONS
    return took


def p99(took: list[float]) -> float:
    return took[int(len(took) * 0.99)]


def test_looking_is_quick_and_nobody_notices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with many_descriptors(), contextlib.closing(Pinger()) as pinger:
        text = (
            '[daemon]\nworkers = 2\n[log]\naccess = false\nformat = "json"\n'
            f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:{pinger.port}"]\n'
        )
        with Daemon(text, tmp_path) as daemon:
            pinger.opened(int(str(daemon.address("web")).rpartition(":")[2]))
            for window in range(WINDOWS):
                with looking(daemon) if window % 2 else contextlib.nullcontext():
                    time.sleep(SETTLE_S)
                    pinger.say(f"{'with' if window % 2 else 'without'} {window}")
                    time.sleep(WINDOW_S)
                    pinger.say("between")
            answers = [asked(daemon) for _ in range(5)]
            command = time.monotonic()
            words = installed.relayd("connections", "--limit", "10000", "--admin", str(daemon.admin))
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            command = time.monotonic() - command
            result = pinger.result()
    by_kind = {
        kind: statistics.median(p99(took) for name, took in result.items() if name.startswith(f"{kind} "))
        for kind in ("without", "with")
    }
    with capsys.disabled():
        sys.stderr.write(
            f"\n{CONNECTIONS} connections, {RATE} messages/s, listed once a second: answered in "
            f"{statistics.median(answers):.2f} s, at most {max(answers):.2f} s; by command in {command:.2f} s; p99 "
            f"{by_kind['with'] * 1e6:.0f} us, without {by_kind['without'] * 1e6:.0f} us\n"
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > CONNECTIONS
    assert max(answers) <= ANSWER_MAX_S
    assert by_kind["with"] <= by_kind["without"] * P99_MOVES_MAX
