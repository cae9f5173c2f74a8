"""All that an operator can have the control process do and say: what the admin API passes on (`admin.Operator`)."""

from pathlib import Path
from typing import Any

from relayd.control.observing import Observer
from relayd.control.reload import Reloader
from relayd.control.targets import Targets
from relayd.control.verdict import Verdict
from relayd.spec import Ordered

__all__ = ["Operations"]


class Operations:
    """See `admin.Operator`."""

    def __init__(self, reloader: Reloader, targets: Targets, observer: Observer) -> None:
        self._reloader = reloader
        self._targets = targets
        self._observer = observer

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
        """Everything at a glance."""
        return {**self._reloader.status(), "targets": self._targets.status()}

    def targets(self) -> dict[str, Any]:
        """Every target."""
        return {"targets": self._targets.status()}

    async def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None) -> Verdict:
        """What becomes of a target."""
        return self._targets.order(pool, target, ordered, weight)

    def explain(self, listener: str, client: bytes, port: int | None) -> dict[str, Any] | str:
        """Which target a client would get."""
        return self._targets.explain(listener, client, port)

    def not_ready(self) -> str:
        """Why nobody should come just now."""
        return self._observer.not_ready()

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """All of them, as text."""
        return await self._observer.metrics(accept)
