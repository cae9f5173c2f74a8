"""Datagrams from more clients than there is room for: what issue 3 wants seen. About a minute.

uv run pytest -m soak tests/soak/test_datagrams.py
"""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.address import InetAddress
from tests.e2e.daemon import Daemon
from tests.e2e.test_metrics import scrape, value
from tests.soak.worker import Worker

pytestmark = pytest.mark.soak

_SOURCES = 100_000
_MAX_SESSIONS = 4096
_BUSY = 50
#: Datagrams of new sources between two rounds of the busy ones: together less than half a receive buffer.
_BURST = 64
#: The share of their datagrams that busy sessions may lose.
_LOSS_MAX = 0.001
#: Listening sockets, the channel, epoll, stdio, and sockets of one turn that its end closes.
_FDS_MORE = 64
_RSS_SLACK_KIB = 2 * 1024


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A UDP echo in a thread, and its port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind(("127.0.0.1", 0))
        stop = b"stop " + bytes(16)

        def run() -> None:
            while True:
                data, sender = sock.recvfrom(2048)
                if data == stop:
                    return
                with contextlib.suppress(OSError):  # an evicted session's port refuses
                    sock.sendto(data, sender)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(stop, sock.getsockname())
            thread.join()


def test_a_hundred_thousand_sources_take_no_more_than_the_cap_and_disturb_nobody(tmp_path: Path) -> None:
    # D3
    with echo() as target, contextlib.ExitStack() as stack:
        text = f"""
            [daemon]
            workers = 1
            [log]
            format = "json"
            access = false
            [listeners.dns]
            type = "dgram"
            bind = "127.0.0.1:0"
            targets = ["127.0.0.1:{target}"]
            max_sessions = {_MAX_SESSIONS}
            session_timeout = "1h"
        """
        daemon = stack.enter_context(Daemon(text, tmp_path))
        worker = Worker.of(daemon)
        address = daemon.address("dns", kind="dgram")
        assert isinstance(address, InetAddress)
        busy = []
        for _ in range(_BUSY):
            client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            client.settimeout(0.5)
            client.connect(address.sockaddr)
            busy.append(client)
        sent = lost = fds = 0
        rss: dict[int, int] = {}
        for first in range(0, _SOURCES, _BURST):
            for number in range(first, min(first + _BURST, _SOURCES)):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
                    source.bind((f"127.1.{number // 250 % 250}.{number % 250 + 1}", 0))
                    source.sendto(b"once", address.sockaddr)
            question = first.to_bytes(4, "big")
            for client in busy:
                client.send(question)
            for client in busy:
                sent += 1
                try:
                    while client.recv(64) != question:
                        pass  # the answer to an earlier one, late
                except TimeoutError:
                    lost += 1
            if first % (_BURST * 100) == 0:
                fds = max(fds, worker.fds())
                rss[first] = worker.rss_kib()
        settled = [size for first, size in rss.items() if first > _SOURCES // 5]
        assert lost <= sent * _LOSS_MAX, f"{lost} of {sent}"
        assert fds <= _MAX_SESSIONS + _FDS_MORE
        assert max(settled) - min(settled) <= _RSS_SLACK_KIB
        # Every session that has begun is counted. What a flood brings faster than sessions begin is `overloaded`.
        families = scrape(daemon)

        def counted(name: str, **labels: str) -> float:
            return value(families, name, listener="dns", type="dgram", **labels)

        begun = counted("relayd_connections_total")
        assert begun >= (_SOURCES + _BUSY) * 0.75
        assert counted("relayd_connections_active") == _MAX_SESSIONS
        assert counted("relayd_connections_closed_total", outcome="evicted") == begun - _MAX_SESSIONS
        assert daemon.stop() == 0
