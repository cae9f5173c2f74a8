"""A stand-in for what the admin API is for, and the API itself on a socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from relayd.address import SocketAddress
from relayd.channel.messages import Selection, Sort
from relayd.control.admin import AdminServer
from relayd.control.verdict import Change, Verdict
from relayd.spec import Admin, Ordered

YES = Verdict(ok=True, changes=(Change("+", "dns"),), warnings=("relay.toml:4:1: careful",))
METRICS = ("text/plain; version=0.0.4; charset=utf-8", b"relayd_workers 1.0\n")
NO = Verdict(ok=False, errors=("relay.toml:3:1: bad\n    x\n    ^", "more"))
TARGETS: list[dict[str, Any]] = [
    {
        "pool": "web",
        "target": "10.0.0.11:80",
        "state": "down",
        "since": "2026-11-23T00:15:00Z",
        "for_s": 210,
        "reason": "connect timeout x3",
        "weight": 2,
        "backup": False,
        "max_connections": 100,
        "active": 12,
        "check": {"up": False, "at": "2026-11-23T00:18:00Z", "ms": 1000.0, "reason": "connect timeout"},
        "failures": {"count": 5, "reason": "connect timeout", "ago_s": 150},
    },
    {
        "pool": "web",
        "target": "10.0.0.12:80",
        "state": "up",
        "since": None,
        "for_s": None,
        "reason": "",
        "weight": 1,
        "backup": True,
        "max_connections": None,
        "active": None,
        "check": None,
        "failures": None,
    },
]
LISTING: dict[str, Any] = {"total": 0, "complete": True, "connections": []}
NO_FACTS = dict.fromkeys(("failed_ago_s", "slow_start_s", "active", "max_connections"))
EXPLANATION: dict[str, Any] = {
    "listener": "web",
    "pool": "app",
    "port": 80,
    "balance": "source_hash",
    "certain": True,
    "failing_open": False,
    "candidates": [
        {"target": "10.0.0.12:80", "backup": False, "weight": 1, "part": None, **NO_FACTS},
        {"target": "10.0.0.13:80", "backup": True, "weight": 1, "part": None, **NO_FACTS},
    ],
    "out": [{"target": "10.0.0.11:80", "why": "down: connect timeout x3"}],
}
STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "pid": 7,
    "started_at": "2026-11-23T00:12:00Z",
    "config": {
        "file": "/etc/relayd/relay.toml",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "loaded_at": "2026-11-23T00:14:10Z",
        "number": 3,
        "last_reload": None,
        "confirm_until": None,
    },
    "workers": [{"number": 1, "pid": 8, "phase": "running"}],
    "names": [],
    "listeners": [
        {"name": "web", "type": "stream", "active": 12, "accepted": 3400, "bytes_in": 512, "bytes_out": 1_572_864}
    ],
    "targets": TARGETS,
}


CONFIG: dict[str, Any] = {
    "file": "/etc/relayd/relay.toml",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "number": 3,
    "toml": "[daemon]\nworkers = 2\n",
}
EVERYBODY = Admin()


class FakeOperator:
    """Says `verdict` to everything, and notes what it was asked for. `stuck`: it is never done."""

    def __init__(self, verdict: Verdict = YES) -> None:
        self.verdict = verdict
        self.asked: list[object] = []
        self.stuck = False
        self.unready = ""
        self.broken: Exception | None = None
        self.cancelled = 0
        self.killed = (3, True)
        self.busy = asyncio.Event()

    async def reload(self, confirm_s: float | None) -> Verdict:
        return await self._say("reload", confirm_s)

    async def confirm(self) -> Verdict:
        return await self._say("confirm")

    async def plan(self, file: Path | None) -> Verdict:
        return await self._say("plan", file)

    def status(self, *, history: int = 0) -> dict[str, Any]:
        self.asked.append(("status", history) if history else "status")
        return STATUS

    async def connections(self, selection: Selection, sort: Sort, limit: int, *, tcp_info: bool) -> bytes:
        await self._say("connections", selection, sort, limit, tcp_info)
        return json.dumps(LISTING).encode()

    async def kill(self, selection: Selection) -> tuple[int, bool]:
        await self._say("kill", selection)
        return self.killed

    async def targets(self) -> dict[str, Any]:
        await self._say("targets")
        return {"targets": TARGETS}

    async def explain(self, listener: str, client: bytes, port: int | None) -> dict[str, Any] | str:
        self.asked.append(("explain", listener, client, port))
        return EXPLANATION if listener == "web" else f"there is no listener {listener!r}"

    async def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None) -> Verdict:
        return await self._say("order", pool, target, ordered, weight)

    async def config(self) -> dict[str, Any]:
        await self._say("config")
        return CONFIG

    def log(self) -> dict[str, Any]:
        self.asked.append("log")
        return {"level": "info", "file": "info"}

    def set_log_level(self, level: str, who: str) -> dict[str, Any]:
        self.asked.append(("set_log_level", level, who))
        return {"level": level, "file": "info"}

    def not_ready(self) -> str:
        return self.unready

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        await self._say("metrics", accept)
        return METRICS

    async def _say(self, *what: object) -> Verdict:
        self.asked.append(what if len(what) > 1 else what[0])
        if self.broken is not None:
            raise self.broken
        if self.stuck:
            self.busy.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return self.verdict


class Said(list[str]):
    """What was logged, by the name of its kind, and bugs."""

    def say(self, event: Any, message: str, **fields: object) -> None:
        self.append(event.value)

    def report(self, error: BaseException) -> None:
        self.append(repr(error))


@contextlib.asynccontextmanager
async def serving(
    operator: FakeOperator, *listen: SocketAddress, said: Said | None = None, who: Admin = EVERYBODY
) -> AsyncIterator[AdminServer]:
    """The admin API of `operator`, for those who may ask by `who`. Nothing may be said, unless `said` takes it."""
    heard = Said() if said is None else said
    server = AdminServer.open(replace(who, listen=listen), heard.say, heard.report)
    try:
        server.start(operator)
        yield server
    finally:
        await server.close()
    assert said is not None or heard == []
