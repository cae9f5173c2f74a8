"""Three minutes of scrapes, once a second, under load, over reloads, workers that are killed, restarts and upgrades: no
counter has ever become less, every name is one of docs/metrics.md, and in the end they say what clients say.

uv run pytest -m soak tests/soak/test_metrics.py
"""

import contextlib
import itertools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.lives import upgrade
from tests.e2e.test_metrics import OPEN_METRICS, Watching, reload, scrape, value
from tests.soak.crowd import Clients, Target

pytestmark = pytest.mark.soak

LASTS_S = 180.0
#: Between two things that happen.
EVERY_S = 8.0
RATE = 200


def config(target: Target, port: int, drain_s: int) -> str:
    return (
        f'[daemon]\nworkers = 2\ndrain_timeout = "{drain_s}s"\n[log]\naccess = false\nformat = "json"\n'
        f'[listeners.web]\nbind = "127.0.0.1:{port}"\ntargets = ["{target.text}"]\n'
        'health_check = { type = "tcp", interval = "1s" }\n'
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def one_worker_dies(daemon: Daemon) -> None:
    count = len(daemon.events("worker_started"))
    os.kill(daemon.workers()[0], signal.SIGKILL)
    daemon.wait_for_event("worker_started", count + 1)


def test_minutes_of_scrapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    port, drains = free_port(), itertools.count(10)
    with Target("127.0.0.1", free_port()) as target, Daemon(config(target, port, 9), tmp_path) as daemon:
        happenings: list[Callable[[], object]] = [
            lambda: reload(daemon, config(target, port, next(drains))),
            lambda: one_worker_dies(daemon),
            daemon.restart,
            lambda: upgrade(daemon),
        ]
        watching, scrapes, happened = Watching(daemon), 0, 0
        clients = Clients("127.0.0.1", port, RATE)
        with clients:
            until, next_at = time.monotonic() + LASTS_S, time.monotonic() + EVERY_S
            while time.monotonic() < until:
                watching.look()
                with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
                    scrape(daemon, OPEN_METRICS)
                scrapes += 1
                if time.monotonic() >= next_at:
                    happenings[happened % len(happenings)]()
                    happened, next_at = happened + 1, time.monotonic() + EVERY_S
                time.sleep(1.0)
        time.sleep(2.0)  # the last reports
        found = watching.look()
        accepted = value(found, "relayd_connections_total", listener="web", type="stream")
        with capsys.disabled():
            sys.stderr.write(
                f"\n{scrapes} scrapes, {happened} happenings, {clients.figures()}, {accepted:.0f} counted\n"
            )
        assert happened >= 16
        # What a killed worker has counted since its last report is lost: up to a second of half of the clients.
        killed = value(found, "relayd_worker_restarts_total")
        assert clients.told["count"] - killed * RATE <= accepted <= clients.told["count"] + clients.failed
