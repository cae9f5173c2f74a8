"""So many new clients a second, each with one exchange: a process of its own. Standard library only.

    python clients.py HOST PORT RATE SOURCES [COUNT]
    python clients.py /PATH  0   RATE SOURCES [COUNT]

begins RATE connections a second, however long each takes, until standard input ends, or there were COUNT. With SOURCES
clients come from as many addresses, in turn. The last line is JSON: how many there were, what has gone wrong how often,
and when each began that failed, or took longer than a second.
"""

import asyncio
import contextlib
import json
import socket
import sys
import time
from collections import Counter
from typing import Any

#: An exchange that takes longer has failed.
_PATIENCE_S = 10.0
_SLOW_S = 1.0


class Clients:
    """All of them, and what they have met."""

    def __init__(self, host: str, port: int, sources: int) -> None:
        self._host, self._port, self._sources = host, port, sources
        self.count = 0
        self.wrong: Counter[str] = Counter()
        self.failed_at: list[float] = []
        self.slow_at: list[float] = []

    async def run(self, rate: float, most: int | None) -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(0, over.set)
        running: set[asyncio.Task[None]] = set()
        began = loop.time()
        while not over.is_set() and (most is None or self.count < most):
            while self.count <= (loop.time() - began) * rate and (most is None or self.count < most):
                task = loop.create_task(self._client(self.count))
                running.add(task)
                task.add_done_callback(running.discard)
                self.count += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(over.wait(), max(0.0, began + self.count / rate - loop.time()))
        self.took_s = loop.time() - began
        while running:
            await asyncio.wait(running)

    async def _client(self, number: int) -> None:
        began, at = time.monotonic(), time.time()
        try:
            await asyncio.wait_for(self._exchange(number), _PATIENCE_S)
        except asyncio.TimeoutError:
            self._note("timeout", at)
        except OSError as error:
            self._note(f"{type(error).__name__} {error.errno}", at)
        except AssertionError:
            self._note("no answer", at)
        else:
            if time.monotonic() - began > _SLOW_S:
                self.slow_at.append(at)

    def _note(self, what: str, at: float) -> None:
        self.wrong[what] += 1
        self.failed_at.append(at)

    async def _exchange(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET if self._port else socket.AF_UNIX) as sock:
            sock.setblocking(False)
            if self._sources:
                source = number % self._sources
                sock.bind((f"127.1.{source // 250}.{source % 250 + 1}", 0))
            await loop.sock_connect(sock, (self._host, self._port) if self._port else self._host)
            await loop.sock_sendall(sock, b"hello")
            assert await loop.sock_recv(sock, 100) == b"hello"

    def told(self) -> dict[str, Any]:
        """See the module."""
        return {
            "count": self.count,
            "rate": self.count / self.took_s,
            "wrong": self.wrong,
            "failed_at": self.failed_at,
            "slow_at": self.slow_at,
        }


def main() -> None:
    host, port, rate, sources, *most = sys.argv[1:]
    clients = Clients(host, int(port), int(sources))
    asyncio.run(clients.run(float(rate), int(most[0]) if most else None))
    print(json.dumps(clients.told()))  # noqa: T201  # the test reads it


if __name__ == "__main__":
    main()
