"""What is to be seen of a running relay by programs that watch it: metrics, and whether it serves. For the event loop.

The facts are gathered in the loop, where nothing changes meanwhile, and made into text aside.
"""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import relayd
from relayd import clock
from relayd.control.reload import Reloader
from relayd.control.resolver import Resolver
from relayd.control.supervisor import Supervisor
from relayd.control.targets import Targets
from relayd.control.threads import aside

if TYPE_CHECKING:  # a start does not wait for it: the admin API loads it
    from relayd.control.metrics import Facts, WorkerFacts

__all__ = ["Observer"]

_PAGE_BYTES = resource.getpagesize()


class Observer:
    """Looks at the parts of the control process. `lines_lost` says how many lines of its log are lost; `stopping`,
    whether it is.
    """

    def __init__(
        self,
        reloader: Reloader,
        supervisor: Supervisor,
        targets: Targets,
        resolver: Resolver,
        lines_lost: Callable[[], int],
        stopping: Callable[[], bool],
    ) -> None:
        self._reloader = reloader
        self._supervisor = supervisor
        self._targets = targets
        self._resolver = resolver
        self._lines_lost = lines_lost
        self._stopping = stopping
        #: When what is in force was loaded, on the monotonic clock and on that of the wall, where the difference is
        #: another each time.
        self._loaded_at = (0.0, 0.0)

    def not_ready(self) -> str:
        """Why nobody should come just now; empty: every worker accepts."""
        if self._stopping():
            return "relayd is stopping"
        missing, of = self._supervisor.restarting, self._reloader.in_force.spec.workers
        return f"{missing} of {of} workers do not accept" if missing else ""

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of all metrics, for a client that sends this Accept."""
        facts = self.facts()

        def render() -> tuple[str, bytes]:
            from relayd.control.exposition import render

            return render(facts, accept)

        return await aside(render, "render the metrics")

    def facts(self) -> "Facts":
        """As of now."""
        from relayd.control.metrics import Facts

        reloader, totals = self._reloader, self._supervisor.totals
        loaded_at = reloader.in_force.loaded_at
        if loaded_at != self._loaded_at[0]:
            self._loaded_at = loaded_at, round(clock.wall() - clock.monotonic() + loaded_at, 3)
        return Facts(
            version=relayd.__version__,
            python="{}.{}.{}".format(*sys.version_info),
            streams=totals.listeners(),
            datagrams=totals.datagrams(),
            workers=tuple(self._workers()),
            counted=tuple(totals.workers().items()),
            control=replace(totals.control),
            lines_lost=self._lines_lost(),
            reload_ok=reloader.last is None or not reloader.last[1],
            loaded_at=self._loaded_at[1],
            targets=tuple(self._targets.facts()),
            names=tuple(self._resolver.facts()),
        )

    def _workers(self) -> "Iterator[WorkerFacts]":
        from relayd.control.metrics import WorkerFacts

        for each in self._supervisor.workers():
            pid = each["pid"]
            yield WorkerFacts(each["number"], each["phase"] == "running", None if pid is None else _resident_bytes(pid))


def _resident_bytes(pid: int) -> int | None:
    """What /proc says of a process (proc_pid_statm(5)); None: it is gone."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * _PAGE_BYTES
    return None
