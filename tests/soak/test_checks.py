"""What health checks cost: a thousand targets that answer, every 2 s, in at most 5 % of a core.

All on one machine: what the kernel does for a target as it receives is done in the system calls of whoever sends, and
counts as ours.
"""

import asyncio
import contextlib
import multiprocessing
import random
import resource
import selectors
import socket
import sys
import time
from collections.abc import Iterator

import pytest

from relayd.address import Family, InetAddress
from relayd.control.checks.checker import Checker, Subject
from relayd.net.dialing import ephemeral_ports
from relayd.spec import Check, CheckKind

pytestmark = pytest.mark.soak

TARGETS = 1000
INTERVAL_S = 2.0
#: Until all have been asked once, and then so long.
BEFORE_S, MEASURED_S = 2.5, 10.0
BUDGET_PERCENT = 5.0
#: Of some runs the best: what else runs on the machine costs caches, and no check can help that.
TRIES = 3

_TCP = Check(CheckKind.TCP, INTERVAL_S, INTERVAL_S, 1.0, 2, 3)
CHECKS = {
    "tcp": _TCP,
    "tcp, send and expect": Check(CheckKind.TCP, INTERVAL_S, INTERVAL_S, 1.0, 2, 3, send="PING\r\n", expect="OK"),
    "http": Check(CheckKind.HTTP, INTERVAL_S, INTERVAL_S, 1.0, 2, 3),
    "udp": Check(CheckKind.UDP, INTERVAL_S, INTERVAL_S, 1.0, 2, 3, send="PING", expect="OK"),
}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("kind", CHECKS)
def test_a_thousand_targets(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    check = CHECKS[kind]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * TARGETS)), hard))
    try:
        with _targets(datagrams=check.kind is CheckKind.UDP) as addresses:
            percents = []
            for seed in range(TRIES):
                percents.append(100 * asyncio.run(_cpu_share(check, addresses, seed)))
                with capsys.disabled():
                    each_us = percents[-1] / 100 * INTERVAL_S / TARGETS * 1e6
                    text = f"{kind}: {TARGETS} per {INTERVAL_S:g} s: {percents[-1]:.1f} % of a core"
                    sys.stderr.write(f"\n{text}, {each_us:.0f} us a check\n")
                if percents[-1] <= BUDGET_PERCENT:
                    break
        assert min(percents) <= BUDGET_PERCENT
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def _targets(*, datagrams: bool) -> Iterator[list[InetAddress]]:
    """So many, in a process of their own: their processor time is not that of the checks."""
    if datagrams:
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(TARGETS)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
    else:
        sockets = list(_listening())
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(sockets, datagrams), daemon=True)
    server.start()
    try:
        addresses = [InetAddress(Family.INET, *sock.getsockname()) for sock in sockets]
        for sock in sockets:
            sock.close()
        yield addresses
    finally:
        server.kill()
        server.join()


def _listening() -> Iterator[socket.socket]:
    """As targets are: at ports that the kernel gives to nobody else. At others each check asks whether it has met
    itself, which is a system call.
    """
    ports = iter(random.sample(range(10_000, ephemeral_ports()[0]), 2 * TARGETS))
    for _ in range(TARGETS):
        sock = None
        while sock is None:
            with contextlib.suppress(OSError):  # taken: the next one
                sock = socket.create_server(("127.0.0.1", next(ports)), backlog=16)
        yield sock


def _serve(sockets: list[socket.socket], datagrams: bool) -> None:
    """Each target answers at once, and closes. A bare connection is reset by whoever checks, or was already."""
    selector = selectors.DefaultSelector()
    for sock in sockets:
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, True)
    while True:
        for key, _ in selector.select():
            assert isinstance(key.fileobj, socket.socket)
            sock = key.fileobj
            with contextlib.suppress(OSError):
                if datagrams:
                    sock.sendto(b"OK", sock.recvfrom(64)[1])
                elif key.data:
                    client = sock.accept()[0]
                    client.setblocking(False)
                    selector.register(client, selectors.EVENT_READ, False)
            if not datagrams and not key.data:
                with contextlib.suppress(OSError):
                    if sock.recv(4096):
                        sock.send(ANSWER)
                selector.unregister(sock)
                sock.close()


async def _cpu_share(check: Check, addresses: list[InetAddress], seed: int) -> float:
    """CPU seconds of this process in a second."""
    said: list[object] = []
    checker = Checker(lambda *line, **_: said.append(line), lambda: None, random.Random(seed))
    try:
        checker.change(Subject(f"pool{at % 10}", str(each), each, check, None) for at, each in enumerate(addresses))
        await asyncio.sleep(BEFORE_S)
        began, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(MEASURED_S)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        known = list(checker.states())
        assert len(known) == TARGETS
        assert all(each.up and each.asked for each in known)
        assert all(time.monotonic() - (each.last_at or 0.0) < 2 * INTERVAL_S for each in known)
        assert not said
    finally:
        checker.close()
    return share
