"""Ranges of ports: every port to its own target port, and ten thousand of them as soon as one."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon
from tests.ports import OWN_HOST, free_range

#: Seconds to READY=1 with 10,000 ports in one listener, on a machine that does nothing else.
READY_S = 2.0


def config(bind: str, targets: str, workers: int = 2, kind: str = "stream") -> str:
    return (
        f'[daemon]\nworkers = {workers}\n[listeners.range]\ntype = "{kind}"\nbind = "{bind}"\ntargets = ["{targets}"]\n'
    )


@pytest.fixture
def closing() -> Iterator[contextlib.ExitStack]:
    """Closes what a test has opened."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.mark.parametrize(
    ("targets", "place"),
    [("127.0.0.2", 0), ("127.0.0.2:+3", 3), ("127.0.0.2:{next}-{last}", 3), ("127.0.0.2:{next}", None)],
)
def test_every_port_goes_to_its_own(
    tmp_path: Path, closing: contextlib.ExitStack, targets: str, place: int | None
) -> None:
    """127.0.0.1:N, N+1, N+2 to 127.0.0.2: the same port, one by an offset, one by position, one for all."""
    first = free_range(6)
    targets = targets.format(next=first + 3, last=first + 5)
    servers = [closing.enter_context(socket.create_server(("127.0.0.2", first + index))) for index in range(6)]
    with Daemon(config(f"127.0.0.1:{first}-{first + 2}", targets), tmp_path) as daemon:
        assert [line["address"] for line in daemon.events("listening")] == [f"127.0.0.1:{first}-{first + 2}"]
        for index in range(3):
            with socket.create_connection(("127.0.0.1", first + index), timeout=10) as client:
                server = servers[3 if place is None else index + place]
                server.settimeout(10)
                accepted, _ = server.accept()
                with accepted:
                    client.sendall(b"x")
                    assert accepted.recv(1) == b"x"
        line = daemon.wait_for_log(lambda line: line.get("event") == "connection", count=3)
        assert line["local"].startswith("127.0.0.1:")
        assert daemon.stop() == 0


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["stream"])
@pytest.mark.alone
def test_ten_thousand_ports_are_ready_soon(tmp_path: Path, workers: int, kind: str) -> None:
    """In CPU time, so that others on the machine do not count: control's and then the slowest worker's, one after the
    other, are what READY waits for."""
    first = free_range(10_000, OWN_HOST)
    with Daemon(config(f"{OWN_HOST}:{first}-{first + 9999}", "127.0.0.2", workers, kind), tmp_path) as daemon:
        assert cpu_s(daemon.pid) + max(map(cpu_s, daemon.workers())) < READY_S
        assert len(daemon.events("listening")) == 1
        assert daemon.stop() == 0


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
