"""Five hundred reloads in half a minute under traffic of every kind: what issue 4 wants seen. About a minute.

uv run pytest -m soak tests/soak/test_reload.py
"""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from relayd.address import InetAddress
from tests.e2e.daemon import Daemon
from tests.soak.storm import NEW_PER_S, SESSIONS, Storm, Targets
from tests.soak.worker import Worker

pytestmark = pytest.mark.soak

RELOADS, RELOADS_S = 500, 30.0
_RSS_SLACK_KIB = 2 * 1024
#: A dial that is refused goes on to the next target; a line says that it was (`target_suspect`).
_NOBODY = "127.0.0.1:9"


def config(targets: Targets, variant: int) -> str:
    """Of four variants: timeouts, other listeners, another target and another bind come and go."""
    idle = ("1h", "2h")[variant % 2]
    more = f', "{_NOBODY}"' if variant in (2, 3) else ""
    other = f'[listeners.other]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:{targets.sink}"]\n' if variant % 2 else ""
    return f"""
        [daemon]
        workers = 2
        [log]
        format = "json"
        access = false
        [defaults]
        idle_timeout = "{idle}"
        session_timeout = "{60 + variant}s"
        on_target_error = "close"
        [listeners.web]
        bind = "127.0.0.1:0"
        targets = ["127.0.0.1:{targets.tcp}"{more}]
        [listeners.half]
        bind = "127.0.0.1:0"
        targets = ["127.0.0.1:{targets.sink}"]
        [listeners.dns]
        type = "dgram"
        bind = "127.0.0.1:0"
        targets = ["127.0.0.1:{targets.udp}"]
        {other}
    """


def test_five_hundred_reloads_break_nothing(tmp_path: Path) -> None:
    # R1, R2, R3
    async def scenario() -> None:
        async with Targets() as targets:
            with Daemon(config(targets, 0), tmp_path) as daemon:
                await _storm(daemon, targets)

    asyncio.run(scenario())


async def _storm(daemon: Daemon, targets: Targets) -> None:
    web, half, dns = daemon.address("web"), daemon.address("half"), daemon.address("dns", kind="dgram")
    assert isinstance(web, InetAddress)
    assert isinstance(half, InetAddress)
    assert isinstance(dns, InetAddress)
    workers = [Worker(pid) for pid in daemon.workers()]
    fds = [worker.fds() for worker in workers]
    storm = Storm(targets, web, half, dns)
    await storm.begin()
    rss: list[int] = []
    for number in range(RELOADS):
        daemon.configure(config(targets, number % 4))
        daemon.signal(signal.SIGHUP)
        await asyncio.sleep(RELOADS_S / RELOADS)
        if number % 50 == 49:
            rss.append(max(worker.rss_kib() for worker in workers))
        storm.look()
    await storm.end()
    assert storm.new > RELOADS_S * NEW_PER_S * 0.5
    assert [event["message"] for event in daemon.events("reload_failed")] == []
    bad = [event for event in daemon.lines if event["level"] in ("error", "warning") and not _is_expected(event)]
    assert not bad, f"{len(bad)}, the first ones {bad[:3]}"
    # Signals that arrive while one is handled are one (signal(7)), and requests during a reload share the next one.
    assert len(daemon.events("reloaded")) > RELOADS // 2
    assert max(rss[2:]) - min(rss[2:]) <= _RSS_SLACK_KIB, rss
    until = asyncio.get_running_loop().time() + 10
    while [worker.fds() for worker in workers] != fds and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.1)
    sessions = [worker.fds() - before for worker, before in zip(workers, fds, strict=True)]
    assert sum(sessions) <= SESSIONS + 4, sessions


def _is_expected(line: dict[str, Any]) -> bool:
    """It says that nobody was there, or that this was said too often."""
    return line.get("target") == _NOBODY or line.get("kind") == "target_suspect"
