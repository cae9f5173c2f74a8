"""A real name server whose records change, and which fails, under traffic of every kind (T3). A minute and a half.

uv run pytest -m soak tests/soak/test_names.py
"""

import asyncio
import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.address import InetAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.namespaces import in_network_of
from tests.soak.storm import NEW_PER_S, Storm, Targets

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives the daemon a network and a resolv.conf of its own"),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is missing")
        for program in ("dnsmasq", "unshare", "nsenter", "ip")
    ),
]

CHANGES, CHANGES_S = 120, 36.0
#: The control process answers whoever asks within this, on a machine that is as busy as this makes it.
ANSWER_MAX_S = 0.5
#: The workers, which have nothing to do with names, come this late to their timers at most, but for those moments in
#: which clients and name server have both processors.
LAG_S, ALMOST_ALL = 0.01, 0.95
#: What the names of the targets mean, in turn. At ::1 and 127.0.0.9 nobody listens.
HOSTS = (
    "127.0.0.1 echo.test half.test",
    "127.0.0.9 echo.test half.test\n127.0.0.1 echo.test half.test",
    "::1 echo.test half.test\n127.0.0.1 echo.test half.test",
    "::1 echo.test half.test\n127.0.0.1 echo.test half.test\n127.0.0.9 echo.test half.test",
    "127.0.0.1 somebody.else.test",  # NXDOMAIN: the last good answer stays
)
#: In the end it takes every question, and says nothing.
SILENT_S = 30.0


def config(targets: Targets) -> str:
    return f"""
        [daemon]
        workers = 2
        [log]
        format = "json"
        access = false
        [defaults]
        on_target_error = "close"
        [listeners.web]
        bind = "127.0.0.1:0"
        targets = ["echo.test:{targets.tcp}", "srv:_echo._tcp.test"]
        [listeners.half]
        bind = "127.0.0.1:0"
        targets = ["half.test:{targets.sink}"]
        [listeners.dns]
        type = "dgram"
        bind = "127.0.0.1:0"
        targets = ["echo.test:{targets.udp}"]
    """


@pytest.fixture
def place(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Holds a network with nothing but loopback in it, and a resolv.conf that names it."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    script = f"ip link set lo up; mount --bind {tmp_path}/resolv.conf /etc/resolv.conf; echo made; exec cat"
    command = ["unshare", "--net", "--mount", "sh", "-ec", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"made\n"
        yield holder


class Dnsmasq:
    """A real name server at 127.0.0.1:53 of the network of whoever starts it."""

    def __init__(self, directory: Path, port: int) -> None:
        self._hosts, self._port = directory / "names", port
        self.say(HOSTS[0])

    def say(self, hosts: str) -> None:
        """What it shall know, in the form of hosts(5), when it reads it."""
        self._hosts.write_text(f"{hosts}\n")

    def start(self) -> None:
        """`srv:_echo._tcp.test` leads to echo.test."""
        options = ["keep-in-foreground", "no-resolv", "no-hosts", "bind-interfaces", "listen-address=127.0.0.1"]
        options += ["local-ttl=1", "user=root", "pid-file=", "conf-file=/dev/null", f"addn-hosts={self._hosts}"]
        options += [f"srv-host=_echo._tcp.test,echo.test,{self._port},1,5", "local=/test/"]
        self._process = subprocess.Popen(
            ["dnsmasq", *(f"--{option}" for option in options)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def live_through(self, moment: int) -> None:
        """Of 40 moments: mostly it hears of what it shall know, once it is gone for a while, and once it is silent."""
        if moment == 10:
            self.stop()
        elif moment == 15:
            self.start()
        elif moment == 30:
            self._process.send_signal(signal.SIGSTOP)
        elif moment == 34:
            self._process.send_signal(signal.SIGCONT)
        elif not 10 < moment < 15:
            self._process.send_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Inside, it takes questions and answers none."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Idempotent."""
        self._process.kill()
        self._process.wait(DEADLINE_S)


@contextlib.asynccontextmanager
async def asking(daemon: Daemon) -> AsyncIterator[list[float]]:
    """How long each answer of the control process takes, one question after the other."""
    took: list[float] = []

    async def ask() -> None:
        while True:
            started = time.monotonic()
            await status(daemon)
            took.append(time.monotonic() - started)
            await asyncio.sleep(0.02)

    task = asyncio.ensure_future(ask())
    try:
        yield took
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def status(daemon: Daemon) -> dict[str, Any]:
    """Of the daemon, without a process for it."""
    found: dict[str, Any] = json.loads(await get(daemon, "/v1/status"))
    return found


async def lag(daemon: Daemon) -> dict[float, int]:
    """How often the loops of the workers came so late to a timer at most, by the upper bound in seconds."""
    found: dict[float, int] = {}
    for line in (await get(daemon, "/metrics")).decode().splitlines():
        if matched := re.match(r'relayd_event_loop_lag_seconds_bucket\{.*le="([^"]+)".*\} ([0-9.e+]+)', line):
            bound = float(matched[1])
            found[bound] = found.get(bound, 0) + int(float(matched[2]))
    return found


async def get(daemon: Daemon, path: str) -> bytes:
    """What the admin API answers."""
    reader, writer = await asyncio.open_unix_connection(daemon.admin.path)
    try:
        writer.write(b"GET %s HTTP/1.1\r\nHost: relayd\r\nConnection: close\r\n\r\n" % path.encode())
        _, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return body


def test_records_that_change_break_nothing(place: "subprocess.Popen[bytes]", tmp_path: Path) -> None:
    # T3
    async def scenario() -> None:
        async with Targets() as targets:
            dnsmasq = Dnsmasq(tmp_path, targets.tcp)
            dnsmasq.start()
            try:
                prefix = ["nsenter", "--target", str(place.pid), "--net", "--mount", "--"]
                with Daemon(config(targets), tmp_path, prefix=prefix) as daemon:
                    await _storm(daemon, targets, dnsmasq)
                    assert daemon.stop() == 0
            finally:
                dnsmasq.stop()

    in_network_of(place.pid, lambda: asyncio.run(scenario()))


async def _storm(daemon: Daemon, targets: Targets, dnsmasq: Dnsmasq) -> None:
    web, half, dns = daemon.address("web"), daemon.address("half"), daemon.address("dns", kind="dgram")
    assert isinstance(web, InetAddress)
    assert isinstance(half, InetAddress)
    assert isinstance(dns, InetAddress)
    assert len((await status(daemon))["names"]) == 4
    storm = Storm(targets, web, half, dns)
    await storm.begin()
    async with asking(daemon) as took:
        for number in range(CHANGES):
            dnsmasq.say(HOSTS[number % len(HOSTS)])
            dnsmasq.live_through(number % 40)
            await asyncio.sleep(CHANGES_S / CHANGES)
            storm.look()
        with dnsmasq.silent():
            await asyncio.sleep(SILENT_S)
            storm.look()
    lags = await lag(daemon)
    print(f"loop lag of the workers: {lags}")  # noqa: T201  # the figure
    assert lags[LAG_S] >= ALMOST_ALL * lags[math.inf]
    await storm.end()
    assert storm.new > CHANGES_S * NEW_PER_S * 0.25
    assert len(daemon.events("target_resolved")) > 10
    assert daemon.events("target_unresolved")
    assert [line for line in daemon.lines if line["level"] == "error"] == []
    warnings = {line["event"] for line in daemon.lines if line["level"] == "warning"}
    # Ten of a kind in ten seconds (F5); and at some addresses nobody listens, which clients find out.
    assert warnings - {"lines_left_out", "target_suspect"} == {"target_unresolved"}
    assert max(took) <= ANSWER_MAX_S, f"of {len(took)} answers"
