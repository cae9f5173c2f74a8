"""A mass false alarm: clients find every target failing at once, and it is this machine. Nobody is refused for it.

uv run pytest -m soak tests/soak/test_alarms.py     # half a minute; prints its figures
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e.daemon import Daemon
from tests.soak.crowd import Clients, Target

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives the daemon a network of its own"),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is missing")
        for program in ("unshare", "nsenter", "ip")
    ),
]

RATE, WORKERS, TARGETS = 500, 2, 3
ALARM_S, PHASE_S = 1.0, 3.0
#: Before the first trials of suspects (`suspects.FIRST_S`), which may be as soon as the alarm is over: who is passed
#: over is passed over at least by those clients.
MANY = 30
#: A target has connections from so many local ports of the daemon.
LOCAL_PORTS = 32
Say: TypeAlias = Callable[[str], None]
CHECK = 'health_check = { type = "tcp", interval = "500ms", rise = 2, fall = 3 }\n'


@dataclass(frozen=True, slots=True)
class Network:
    """A network with the daemon in it, and another one with the targets."""

    daemon: tuple[str, ...]
    targets: tuple[str, ...]

    def run(self, *command: str) -> None:
        """In that of the daemon."""
        subprocess.run([*self.daemon, *command], check=True)

    def local_ports(self, count: int) -> None:
        """From now on so many, for each address that is dialled."""
        self.run("sh", "-c", f"echo 50000 {49999 + count} >/proc/sys/net/ipv4/ip_local_port_range")


@pytest.fixture
def network() -> Iterator[Network]:
    """192.0.2.1 has the daemon, 192.0.2.11 and on the targets, which are found by a route of their own."""
    with contextlib.ExitStack() as stack:
        inside = []
        for _ in range(2):
            command = ["unshare", "--net", "sh", "-ec", "ip link set lo up; echo made; exec cat"]
            holder = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"made\n"
            inside.append((str(holder.pid), ("nsenter", f"--net=/proc/{holder.pid}/ns/net")))
        (_, daemon), (other, targets) = inside
        made = Network(daemon, targets)
        made.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", other)
        addresses = ["192.0.2.1/32"], [f"192.0.2.{11 + number}/32" for number in range(TARGETS)]
        for prefix, own in zip((daemon, targets), addresses, strict=True):
            for address in own:
                subprocess.run([*prefix, "ip", "address", "add", address, "dev", "eth0"], check=True)
            subprocess.run([*prefix, "ip", "link", "set", "eth0", "up"], check=True)
            subprocess.run([*prefix, "ip", "route", "add", "192.0.2.0/24", "dev", "eth0"], check=True)
        yield made


@pytest.fixture
def targets(network: Network) -> Iterator[list[Target]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Target(f"192.0.2.{11 + at}", 80, network.targets)) for at in range(TARGETS)]


def config(targets: list[Target], sockets: Path, more: str) -> str:
    listed = ", ".join(f'"{target.text}"' for target in targets)
    return (
        f'[daemon]\nworkers = {WORKERS}\n[log]\nformat = "json"\n'
        f'[listeners.web]\nbind = "unix:{sockets}/web.sock"\ntargets = [{listed}]\nconnect_timeout = "1s"\n{more}'
    )


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line of figures."""

    def printed(text: str) -> None:
        with capsys.disabled():
            sys.stderr.write(f"\n{text}")

    return printed


@pytest.mark.parametrize("more", ['max_ejected = "50%"\n', 'max_ejected = "100%"\n', CHECK], ids=["50", "100", "check"])
def test_no_route_to_any_target(more: str, network: Network, targets: list[Target], tmp_path: Path, say: Say) -> None:
    with Daemon(config(targets, tmp_path, more), tmp_path, prefix=network.daemon) as daemon:
        with Clients(f"{tmp_path}/web.sock", 0, RATE) as clients:
            time.sleep(PHASE_S)  # traffic flows meanwhile
            began = time.time()
            network.run("ip", "route", "replace", "blackhole", "192.0.2.0/24")
            time.sleep(ALARM_S)  # and is refused meanwhile
            network.run("ip", "route", "replace", "192.0.2.0/24", "dev", "eth0")
            over = time.time()
            time.sleep(PHASE_S)
        daemon.wait_for_event("connection", clients.told["count"])
        lines = sorted(daemon.events("connection"), key=lambda line: float(line["start_time"]))
        after = [line for line in lines if line["start_time"] > over]
        late = [failed for failed in clients.told["failed_at"] if failed > over]
        first = Counter(line["target"] for line in after[:MANY])
        last = Counter(line["target"] for line in after[-RATE:])
        outcomes = Counter(line["outcome"] for line in lines if began <= line["start_time"] <= over)
        events = {event: len(daemon.events(event)) for event in ("target_suspect", "target_trusted", "target_down")}
        say(f"{more.strip()}: {clients.figures()}; in the alarm {dict(outcomes)}; {events}")
        say(
            f"  after it {len(late)} failed of {len(after)}; the first {MANY} went to {sorted(first.values())}, "
            f"the last {RATE} to {sorted(last.values())}\n"
        )
        assert not late
        assert {line["outcome"] for line in after} == {"normal"}
        assert set(outcomes) <= {"normal", "target_unreachable"}
        if "100%" not in more:  # one of three is passed over at most
            assert len(first) >= TARGETS - 1
        assert len(last) == TARGETS
        assert events["target_suspect"] >= TARGETS  # the alarm was one


def test_no_local_port_left(network: Network, targets: list[Target], tmp_path: Path, say: Say) -> None:
    network.local_ports(LOCAL_PORTS)
    text = config(targets, tmp_path, CHECK)
    with Daemon(text, tmp_path, prefix=network.daemon) as daemon, contextlib.ExitStack() as stack:
        live: list[socket.socket] = []
        while not any(line["outcome"] == "resource_exhausted" for line in daemon.events("connection")):
            assert len(live) < 2 * TARGETS * LOCAL_PORTS
            live.append(stack.enter_context(daemon.connect("web")))
            with contextlib.suppress(ConnectionError):
                live[-1].sendall(b"hello")
                live[-1].recv(100)
        with Clients(f"{tmp_path}/web.sock", 0, RATE) as clients:
            time.sleep(PHASE_S)  # clients are turned away meanwhile
        assert clients.failed > 0
        outcomes = Counter(line["outcome"] for line in daemon.events("connection"))
        for client in live:
            client.close()
        network.local_ports(100 * LOCAL_PORTS)  # those that there were are in TIME_WAIT
        daemon.wait_for_event("connection", clients.told["count"] + len(live))
        before = len(daemon.events("connection"))
        for _ in range(TARGETS):
            with daemon.connect("web") as client:
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
        daemon.wait_for_event("connection", before + TARGETS)
        events = {event: len(daemon.events(event)) for event in ("target_suspect", "target_down", "check_impeded")}
        say(f"no local ports: {dict(outcomes)}; {events}\n")
        assert set(outcomes) <= {"normal", "resource_exhausted"}
        assert events["target_suspect"] == events["target_down"] == 0
