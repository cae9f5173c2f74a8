"""One life of the control process, from the listening sockets to the last worker's end.

    bind ──▶ boot workers, resolve names ──▶ READY ──▶ serve ──SIGTERM──▶ drain ──▶ end
                                                                 └─ SIGTERM, or drain_timeout over: stop, then kill

Everything happens in one asyncio loop, and systemd's watchdog is fed from that loop.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from relayd import clock
from relayd.control import status
from relayd.control.heartbeat import TICK_S
from relayd.control.listeners import ListeningSockets
from relayd.control.resolver import Resolver
from relayd.control.supervisor import Supervisor
from relayd.control.worker_process import WORKER_COMMAND
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.sd.notify import Notifier
from relayd.spec import Spec

__all__ = ["Daemon"]

#: A worker ends its connections itself when the drain is over; it gets this long on top before it is killed.
_DRAIN_GRACE_S = 1.0
#: From "stop now" to SIGKILL: enough to close tens of thousands of sockets and write their log lines.
_STOP_GRACE_S = 1.0
#: While draining, systemd's own stop timeout is pushed ahead by this much, three times as often as needed.
_EXTENSION_S = 15.0


class _StopRequests:
    """SIGTERM and SIGINT: the first asks for an orderly end, the second for an immediate one."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.reason = ""

    def request(self, number: signal.Signals) -> None:
        if self.first.is_set():
            self.second.set()
        self.reason = number.name
        self.first.set()


class Daemon:
    """The control process's objects and the order in which they come and go."""

    def __init__(
        self, spec: Spec, logger: Logger, notifier: Notifier, worker_command: Sequence[str] = WORKER_COMMAND
    ) -> None:
        self._spec = spec
        self._logger = logger
        self._notifier = notifier
        self._worker_command = worker_command
        self._requests = _StopRequests()
        self._status = status.StatusLine()
        self._ready = False

    async def run(self) -> None:
        """Start, serve until asked to stop, stop. Nothing is left afterwards: no process, no socket, no socket file.

        Raises BindFailed or WorkersFailed when it could not start.
        """
        self._handle_signals()
        with contextlib.ExitStack() as cleanup:
            sockets = ListeningSockets.open(self._spec)
            cleanup.callback(sockets.close)
            say = self._logger.event
            supervisor = Supervisor(self._spec, sockets.filenos, say, self._worker_command)
            resolver = Resolver(self._spec.names, supervisor.resolved, say)
            cleanup.callback(resolver.close)
            timers = [asyncio.ensure_future(self._every(TICK_S, lambda: self._tick(supervisor)))]
            if self._notifier.watchdog_interval_s is not None:
                timers.append(
                    asyncio.ensure_future(self._every(self._notifier.watchdog_interval_s, self._notifier.watchdog))
                )
            try:
                if await self._boot(supervisor, resolver, sockets):
                    await self._requests.first.wait()
                await self._stop(supervisor, sockets)
            finally:
                supervisor.kill()
                await supervisor.ended()
                for timer in timers:
                    timer.cancel()

    async def _boot(self, supervisor: Supervisor, resolver: Resolver, sockets: ListeningSockets) -> bool:
        """Workers and first answers at the same time, then READY. False when a stop was asked for meanwhile."""
        resolver.start()
        booted = asyncio.ensure_future(_both(supervisor.boot(), resolver.first_answers()))
        await _first_of(booted, self._requests.first.wait())
        if not booted.done() or booted.cancelled():
            return False
        booted.result()
        for each in sockets.opened():
            address = str(each.address)
            text = f"{each.listener} listens on {address}" + (" for datagrams" if each.datagram else "")
            kind = "dgram" if each.datagram else "stream"
            self._logger.event(Event.LISTENING, text, listener=each.listener, address=address, type=kind)
        text = self._serving(supervisor)
        self._logger.event(Event.STARTED, f"started: {text}", workers=self._spec.workers)
        self._status.due(text, clock.monotonic())
        self._notifier.ready(text)
        self._ready = True
        return True

    async def _stop(self, supervisor: Supervisor, sockets: ListeningSockets) -> None:
        """R6. Afterwards every worker has ended."""
        text = status.stopping(self._active(supervisor))
        self._notifier.stopping(text)
        # Without a number: the one at hand is from the last reports. STATUS follows them until the end.
        drain = f"open connections have {self._spec.drain_timeout_s:g}s to finish"
        self._logger.event(Event.STOPPING, f"{self._requests.reason}: stopping; {drain}", signal=self._requests.reason)
        supervisor.drain(self._spec.drain_timeout_s)
        sockets.close()
        extensions = asyncio.ensure_future(
            self._every(_EXTENSION_S / 3, lambda: self._notifier.extend_timeout(_EXTENSION_S))
        )
        patience = self._spec.drain_timeout_s + _DRAIN_GRACE_S
        if not await _first_of(supervisor.ended(), self._requests.second.wait(), timeout_s=patience):
            supervisor.stop()
            if not await _first_of(supervisor.ended(), timeout_s=_STOP_GRACE_S):
                supervisor.kill()
                await supervisor.ended()
        extensions.cancel()
        self._logger.event(Event.STOPPED, "stopped")

    def _tick(self, supervisor: Supervisor) -> None:
        supervisor.tick()
        self._logger.flush()
        if not self._ready:
            return
        stopping = self._requests.first.is_set()
        text = status.stopping(self._active(supervisor)) if stopping else self._serving(supervisor)
        if self._status.due(text, clock.monotonic()):
            self._notifier.status(text)

    def _serving(self, supervisor: Supervisor) -> str:
        listeners = len(self._spec.listeners)
        return status.serving(listeners, self._active(supervisor), self._spec.workers, supervisor.restarting)

    def _active(self, supervisor: Supervisor) -> status.Active:
        datagrams = any(listener.datagram is not None for listener in self._spec.listeners)
        streams = any(listener.stream is not None for listener in self._spec.listeners) or not datagrams
        totals = supervisor.totals
        return status.Active(totals.active if streams else None, totals.sessions if datagrams else None)

    async def _every(self, interval_s: float, action: Callable[[], None]) -> None:
        """Call `action` now and every `interval_s`, one call however late the loop is. A bug in it does not end it."""
        while True:
            try:
                action()
            except Exception as error:
                self._report_bug(error)
            await asyncio.sleep(interval_s)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self._report_bug(context.get("exception"), context["message"]))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._requests.request, number)
        loop.add_signal_handler(
            signal.SIGHUP,
            lambda: self._logger.event(
                Event.RELOAD_IGNORED, "SIGHUP: this version cannot reload; a restart reads the file again"
            ),
        )

    def _report_bug(self, error: BaseException | None, message: str = "") -> None:
        self._logger.bug("met the control process", error or RuntimeError(message))


async def _both(*wanted: Coroutine[Any, Any, None]) -> None:
    """Wait for all of `wanted`; raises as the first that fails. A coroutine, so that it can be cancelled in silence:
    asyncio complains about a cancelled gather that nobody awaits.
    """
    await asyncio.gather(*wanted)


async def _first_of(
    wanted: "Coroutine[Any, Any, Any] | asyncio.Future[Any]",
    *others: Coroutine[Any, Any, Any],
    timeout_s: float | None = None,
) -> bool:
    """Wait until one of these is done, or `timeout_s` is over, and cancel the rest. True when `wanted` is done."""
    futures = [asyncio.ensure_future(each) for each in (wanted, *others)]
    try:
        await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return futures[0].done()
    finally:
        for future in futures:
            future.cancel()
