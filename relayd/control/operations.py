"""All that an operator can have the control process do and say: what the admin API passes on (`admin.Operator`)."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from relayd.control.observing import Observer
from relayd.control.reload import Reloader
from relayd.control.targets import Key, Targets
from relayd.control.verdict import Verdict
from relayd.spec import Ordered

__all__ = ["Operations"]

#: So long workers have to count: one that is busy answers in its next turn, one that hangs never.
_COUNT_WAIT_S = 1.0


class Operations:
    """See `admin.Operator`. `count` is `Supervisor.active`."""

    def __init__(
        self,
        reloader: Reloader,
        targets: Targets,
        observer: Observer,
        count: Callable[[float], Awaitable[dict[Key, int] | None]],
    ) -> None:
        self._reloader = reloader
        self._targets = targets
        self._observer = observer
        self._count = count

    async def reload(self, confirm_s: float | None) -> Verdict:
        """Read the file again."""
        return await self._reloader.reload(confirm_s)

    async def confirm(self) -> Verdict:
        """Stay with what the last reload has done."""
        return await self._reloader.confirm()

    async def plan(self, file: Path | None) -> Verdict:
        """What a reload of `file` would do."""
        return await self._reloader.plan(file)

    def status(self) -> dict[str, Any]:
        """Everything at a glance, and at once: nobody is asked for it."""
        return {**self._reloader.status(), "targets": self._targets.status()}

    async def targets(self) -> dict[str, Any]:
        """Every target, with how many connections it has."""
        active = await self._count(_COUNT_WAIT_S)
        return {"targets": self._targets.status(active)}

    async def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None) -> Verdict:
        """What becomes of a target."""
        return self._targets.order(pool, target, ordered, weight)

    async def explain(self, listener: str, client: bytes, port: int | None) -> dict[str, Any] | str:
        """Which target a client would get."""
        return self._targets.explain(listener, client, port, await self._count(_COUNT_WAIT_S))

    def not_ready(self) -> str:
        """Why nobody should come just now."""
        return self._observer.not_ready()

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """All of them, as text."""
        return await self._observer.metrics(accept)
