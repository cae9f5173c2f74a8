"""All that an operator can have the control process do and say: what the admin API passes on (`admin.Operator`)."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from relayd.channel.messages import Selection, Sort
from relayd.control.living import listing
from relayd.control.log_level import LogLevel
from relayd.control.observing import Observer
from relayd.control.reload import Reloader
from relayd.control.supervisor import Supervisor
from relayd.control.targets import Targets
from relayd.control.threads import aside
from relayd.control.verdict import Verdict
from relayd.spec import Ordered

__all__ = ["Operations"]

#: So long workers have to count: one that is busy answers in its next turn, one that hangs never.
_COUNT_WAIT_S = 1.0
#: More connections than this is many.
LIMIT_OF_MANY = 1000
#: And so long to look at all that they have: a quarter of a second for the rates, and slices of turns that are busy.
_LOOK_WAIT_S = 3.0
#: Ending 10,000 takes a second of processor time, in slices.
_KILL_WAIT_S = 10.0


class Operations:
    """See `admin.Operator`."""

    def __init__(
        self,
        reloader: Reloader,
        targets: Targets,
        observer: Observer,
        supervisor: Supervisor,
        log_level: LogLevel,
    ) -> None:
        self._reloader = reloader
        self._targets = targets
        self._observer = observer
        self._supervisor = supervisor
        self._one_of_many = asyncio.Lock()
        self._log_level = log_level

    async def reload(self, confirm_s: float | None) -> Verdict:
        """Read the file again."""
        return await self._reloader.reload(confirm_s)

    async def confirm(self) -> Verdict:
        """Stay with what the last reload has done."""
        return await self._reloader.confirm()

    async def plan(self, file: Path | None) -> Verdict:
        """What a reload of `file` would do."""
        return await self._reloader.plan(file)

    def status(self, *, history: int = 0) -> dict[str, Any]:
        """Everything at a glance, and at once: nobody is asked for it."""
        return {**self._reloader.status(history=history), "targets": self._targets.status()}

    async def connections(self, selection: Selection, sort: Sort, limit: int, *, tcp_info: bool) -> bytes:
        """What lives. Those who ask for many take turns: each worker tells up to `limit`."""
        many = limit > LIMIT_OF_MANY
        async with self._one_of_many if many else contextlib.nullcontext():
            seen, complete = await self._supervisor.look(selection, sort, limit, _LOOK_WAIT_S, tcp_info=tcp_info)
            return await aside(lambda: listing(seen, limit, complete=complete), "list what lives")

    async def kill(self, selection: Selection) -> tuple[int, bool]:
        """End what lives."""
        return await self._supervisor.end(selection, _KILL_WAIT_S)

    async def targets(self) -> dict[str, Any]:
        """Every target, with how many connections it has."""
        active = await self._supervisor.active(_COUNT_WAIT_S)
        return {"targets": self._targets.status(active)}

    async def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None) -> Verdict:
        """What becomes of a target."""
        return self._targets.order(pool, target, ordered, weight)

    async def explain(self, listener: str, client: bytes, port: int | None) -> dict[str, Any] | str:
        """Which target a client would get."""
        return self._targets.explain(listener, client, port, await self._supervisor.active(_COUNT_WAIT_S))

    async def config(self) -> dict[str, Any]:
        """What is in force."""
        return await self._reloader.shown()

    def log(self) -> dict[str, Any]:
        """From which level on lines are logged."""
        return self._log_level.status()

    def set_log_level(self, level: str, who: str) -> dict[str, Any]:
        """Log from another level on."""
        return self._log_level.change(level, who)

    def not_ready(self) -> str:
        """Why nobody should come just now."""
        return self._observer.not_ready()

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """All of them, as text."""
        return await self._observer.metrics(accept)
