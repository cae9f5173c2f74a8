"""One life of the control process, from the listening sockets to the last worker's end.

    bind ──▶ boot workers, resolve names ──▶ READY ──▶ serve ──SIGTERM──▶ drain ──▶ end
                                                       │  ▲ │   └─ SIGTERM, or drain_timeout over: stop, then kill
                                                 SIGHUP└──┘ └─SIGUSR1, SIGUSR2──▶ hand over ──▶ end, and the next begins
                                                    reload                        (control.handover)

Everything happens in one asyncio loop, and systemd's watchdog is fed from that loop.
"""

import asyncio
import contextlib
import enum
import os
import signal
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relayd import clock
from relayd.channel.messages import Resolved, TargetFailures
from relayd.control import orphans, status, upgrade
from relayd.control.admin import AdminServer
from relayd.control.handover import Dealer, Found, Store
from relayd.control.heartbeat import TICK_S
from relayd.control.listeners import BindFailed, ListeningSockets
from relayd.control.log_level import LogLevel
from relayd.control.main import FIRST_PROCESS, WAITING_SIGNALS
from relayd.control.observing import Observer
from relayd.control.operations import Operations
from relayd.control.passed import PassedSockets
from relayd.control.reload import InForce, Reloader, logs_of, tell_listening
from relayd.control.resolver import Resolver
from relayd.control.spawning import WORKER_COMMAND, Nursery
from relayd.control.supervisor import Supervisor
from relayd.control.targets import Targets
from relayd.control.threads import aside
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.sd.activation import Inherited
from relayd.sd.notify import Notifier
from relayd.spec import Spec
from relayd.spec.budget import budget_of
from relayd.spec.sockets import SocketKey, endpoints

if TYPE_CHECKING:
    from relayd.control.checks.checker import Checker

__all__ = ["Daemon"]

#: A worker ends its connections itself when the drain is over; it gets this long on top before it is killed.
_DRAIN_GRACE_S = 1.0
#: From "stop now" to SIGKILL: enough to close tens of thousands of sockets and write their log lines.
_STOP_GRACE_S = 1.0
#: While draining, systemd's own stop timeout is pushed ahead by this much, three times as often as needed.
_EXTENSION_S = 15.0
#: A worker that has not handed over by then hangs, or has nothing to say: half a second is much for 10,000 connections.
_HAND_OVER_S = 5.0
#: A process that was killed and has not ended by then waits for a disk, and is not waited for.
_GIVE_UP_S = 1.0
#: A worker that has not said by then how much it has hangs.
_COUNT_S = 0.5
#: What nobody waits for comes so much later: processors have better to do before. That is what most do not have at all,
#: and to read the file after a restart, where it has not changed.
_LATER_S = 1.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ALL_SIGNALS = WAITING_SIGNALS.union(_STOP_SIGNALS)
#: systemd answers in microseconds, unless it is busy starting a machine.
_BARRIER_S = 5.0


class Way(enum.Enum):
    """How a life is to end: for good, or with another one that goes on with everything, started by systemd (R4) or by
    execve(2) (R5).
    """

    STOP = "stop"
    RESTART = "restart"
    UPGRADE = "upgrade"


class _StopRequests:
    """SIGTERM and SIGINT: the first asks for an orderly end, the second for an immediate one. SIGUSR1 and SIGUSR2 ask
    for an end that is none to connections and sessions.
    """

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.reason = ""
        #: STOP, or for what to hand over: set at any time, and looked at when the daemon is READY.
        self.way = Way.STOP
        self.any = asyncio.Event()
        #: What goes before an upgrade has been asked for.
        self.overtaken = asyncio.Event()

    def request(self, number: signal.Signals) -> None:
        if self.first.is_set():
            self.second.set()
        self.reason = number.name
        self.way = Way.STOP
        self.first.set()
        self.any.set()
        self.overtaken.set()

    def forget(self, way: Way) -> None:
        """What was asked for, `way`, cannot be. Nothing where it is something else by now."""
        if self.way is way and not self.first.is_set():
            self.way = Way.STOP
            self.any.clear()
            self.overtaken.clear()

    def hand_over(self, number: signal.Signals, way: Way) -> None:
        """To `way`, unless an end was asked for already. A restart goes before an upgrade that is looked into still:
        systemd waits for the end of this process, and kills it when that does not come.
        """
        if not self.any.is_set() or (self.way is Way.UPGRADE and way is Way.RESTART):
            self.reason, self.way = number.name, way
            self.any.set()
            if way is not Way.UPGRADE:
                self.overtaken.set()


class Daemon:
    """The control process's objects and the order in which they come and go."""

    def __init__(
        self,
        start: InForce,
        nofile: int,
        logger: Logger,
        notifier: Notifier,
        worker_command: Sequence[str] = WORKER_COMMAND,
        found: Found | None = None,
        nursery: Nursery | None = None,
        passed: PassedSockets | None = None,
        refused: tuple[str, ...] = (),
    ) -> None:
        """`nofile` is this process's limit on open files, and that of its workers. `found` is what the process before
        has left, which this owns; `nursery` has workers that are started already; `passed` stays the caller's.
        `refused` is why the file is not what is in force: then that is what it was before.
        """
        self._refused = refused
        self._found = found or Found()
        self._nursery = nursery
        self._store = Store(notifier, self._found)
        self._start = start
        self._nofile = nofile
        self._logger = logger
        self._notifier = notifier
        self._worker_command = worker_command
        self._passed = passed
        self._requests = _StopRequests()
        self._status = status.StatusLine()
        self._ready = self._reload_at_ready = False
        self._reloads: set[asyncio.Task[Any]] = set()

    async def run(self) -> list[Inherited]:
        """Start, serve until asked to stop, stop. Nothing is left afterwards: no process, no socket, no socket file.

        Returns nothing then; and what execve(2) is to pass on, the caller's from now on, where another process shall go
        on. Raises BindFailed or WorkersFailed when it could not start.
        """
        self._handle_signals()
        spec, say = self._start.spec, self._logger.event
        with contextlib.ExitStack() as cleanup:
            sockets = self._open()  # should that fail, there may be another spec to try with what was found
            cleanup.callback(self._found.close)
            cleanup.callback(sockets.close)
            cleanup.callback(self._admin.release)
            self._supervisor = Supervisor(
                spec, sockets.filenos, say, self._worker_command, sockets.release, self._nursery, self._failed
            )
            self._targets = Targets(say, self._supervisor.states, self._make_checker)
            cleanup.callback(self._targets.close)
            self._targets.restore(self._found.targets)
            self._targets.restore_failures(self._left("failures"))
            self._targets.change(spec)
            self._store.targets, self._store.counted = self._targets.snapshot, self._counted
            self._resolver = Resolver(spec.names, self._resolved, say)
            self._resolver.restore(self._found.known)
            cleanup.callback(self._resolver.close)
            self._sockets = sockets
            self._reloader = Reloader(
                self._start,
                self._nofile,
                self._logger,
                sockets,
                self._supervisor,
                self._resolver,
                self._reloading,
                self._keep,
                self._let_go,
                self._changed,
                lambda: self._log_level.forget(),
            )
            self._log_level = LogLevel(
                self._logger, lambda: self._reloader.in_force.spec.log, self._supervisor.log_level
            )
            cleanup.callback(self._reloader.close)
            if self._refused:
                self._reloader.refuse(self._refused)
            timers = [asyncio.ensure_future(self._every(TICK_S, self._tick))]
            if self._notifier.watchdog_interval_s is not None:
                timers.append(
                    asyncio.ensure_future(self._every(self._notifier.watchdog_interval_s, self._notifier.watchdog))
                )
            if os.getpid() == FIRST_PROCESS:
                timers.append(asyncio.ensure_future(self._every(orphans.LOOK_S, orphans.Orphans().look)))
            try:
                if await self._boot():
                    way = await self._way_to_end()
                    self._reloader.close()
                    if way is not Way.STOP and self._reloader.in_force.spec.preserve_connections:
                        return await self._hand_over(way)
                self._reloader.close()
                await self._stop()
                return []
            finally:
                await self._admin.close()
                self._supervisor.kill()
                await self._supervisor.ended()
                for timer in timers:
                    timer.cancel()

    def _counted(self) -> dict[str, object]:
        """What is counted, but by listener: for the next life."""
        totals = self._supervisor.totals.snapshot(self._logger.lost)
        return {"totals": totals, "failures": self._targets.failures()}

    def _left(self, name: str) -> object:
        """A part of what `_counted` has said in the life before, None where it has not."""
        counted = self._found.counted
        return counted.get(name) if isinstance(counted, dict) else None

    def _open(self) -> ListeningSockets:
        """Listen, on what the process before has left as far as the file says so. Raises BindFailed, and has then left
        that to whoever tries again.
        """
        spec, left = self._start.spec, self._found.sockets
        wanted = {endpoint.legacy for endpoint in endpoints(spec)}
        in_the_way = self._found.in_the_way(wanted)  # asked now: what is wanted is taken out of what was found

        def admin() -> None:
            self._admin = AdminServer.open(spec.admin, self._logger.event, self._report_bug)

        try:
            sockets = ListeningSockets.open(spec, self._passed, left, admin)
        except BindFailed:
            if not self._close_others(wanted, in_the_way):
                raise
            return ListeningSockets.open(spec, self._passed, left, admin)
        self._close_others(wanted, in_the_way)
        return sockets

    def _close_others(self, wanted: Collection[SocketKey], in_the_way: Collection[int]) -> bool:
        """Close what was found and is not `wanted`; systemd is to let go first of what is `in_the_way`, by inodes.
        Whether there was anything.
        """
        found = self._found
        if in_the_way:
            self._store.forget(in_the_way)
            self._tell_late(self._notifier.barrier(_BARRIER_S))
        before = len(found.sockets)
        found.close_others(wanted)
        return bool(in_the_way) or len(found.sockets) < before

    def _tell_late(self, done: bool) -> None:  # noqa: FBT001  # the answer of a barrier
        if not done:
            text = f"systemd has not said for {_BARRIER_S:g} s that it keeps, or lets go of, what it was told to"
            self._logger.event(Event.SYSTEMD_UNREACHABLE, text)

    async def _boot(self) -> bool:
        """Workers and first answers at the same time, then READY. False when a stop was asked for meanwhile, which is
        only looked at afterwards where there are connections to drain.
        """
        self._resolver.start()
        spec = self._start.spec
        dealer = Dealer(self._found, self._sockets, budget_of(spec, self._nofile), spec.workers)
        adopted = dealer.batches() if self._found.parcels else None
        boot = self._supervisor.boot(adopted, dealer.shared())
        booted = asyncio.ensure_future(_both(boot, self._resolver.first_answers()))
        stop = self._requests.first if adopted is None else self._requests.second
        await _first_of(booted, stop.wait())
        if not booted.done() or booted.cancelled():
            return False
        booted.result()
        dealer.close()
        self._supervisor.totals.restore(self._found.totals)
        self._supervisor.totals.go_on(self._left("totals"))
        self._keep()
        self._tell_taken_over(dealer)
        log_of = logs_of(self._logger, self._start.spec)
        for each in self._sockets.opened():
            tell_listening(log_of(each.listener), each)
        text = self._serving()
        self._logger.event(Event.STARTED, f"started: {text}", workers=self._start.spec.workers)
        self._status.due(text, clock.monotonic())
        self._notifier.ready(text)
        self._ready = True
        observer = Observer(
            self._reloader,
            self._supervisor,
            self._targets,
            self._resolver,
            lambda: self._logger.lost,
            self._requests.first.is_set,
        )
        self._admin.start(Operations(self._reloader, self._targets, observer, self._supervisor, self._log_level))
        # What the start has not waited for. What fails is told, and keeps nobody else from it.
        self._in_background(self._load_at_last())
        if self._start.unread:
            self._in_background(self._read_at_last())
        if self._reload_at_ready:
            self._reload_requested()
        return True

    def _make_checker(self, on_change: Callable[[], None]) -> "Checker":
        """A start without health checks does not wait for what asks."""
        from relayd.control.checks.checker import Checker

        return Checker(self._logger.event, on_change)

    def _changed(self, spec: Spec) -> None:
        """`spec` is in force now."""
        self._targets.change(spec)
        self._admin.change(spec.admin)

    def _failed(self, failures: TargetFailures) -> None:
        self._targets.failed(failures)

    def _resolved(self, answer: Resolved) -> None:
        self._targets.resolved(answer, self._supervisor.resolved)

    def _tell_taken_over(self, dealer: Dealer) -> None:
        if self._found.problem:
            text = f"the listening sockets of the process before are not understood: {self._found.problem}"
            self._logger.event(Event.NOT_TAKEN_OVER, text, listener="", count=0)
        adopted = self._supervisor.adopted
        missing = dealer.missing(adopted)
        lost = dealer.lost + adopted.lost
        if lost:
            text = f"{lost} batches of connections or sessions were not taken over: they are not understood"
            self._logger.event(Event.NOT_TAKEN_OVER, text, listener="", count=lost)
        if any(missing):
            why = "they are in those batches, or " if lost else ""
            text = f"not taken over: {status.Active(*missing)}: {why}the worker that had them ended before it was ready"
            self._logger.event(Event.NOT_TAKEN_OVER, text, listener="", count=sum(missing))
        if adopted.connections or adopted.sessions:
            text = f"taken over: {status.Active(adopted.connections, adopted.sessions)}"
            fields = {"connections": adopted.connections, "sessions": adopted.sessions}
            self._logger.event(Event.TAKEN_OVER, text, **fields)

    def _keep(self) -> None:
        """Have the store hold the sockets that there are now."""
        in_force = self._reloader.in_force
        self._store.remember(in_force.spec, in_force.sha256, alone=in_force.alone, known=self._resolver.known())
        self._store.keep(self._sockets.bound, self._supervisor.totals.sums())

    async def _let_go(self, keys: set[SocketKey]) -> None:
        """Have the store let go of these sockets, and wait until it has."""
        bound = [each.socket for each in self._sockets.bound if each.endpoint.key in keys]
        self._store.forget({each.inode for each in bound if not each.passed})
        self._tell_late(await aside(lambda: self._notifier.barrier(_BARRIER_S), "wait for systemd"))

    async def _way_to_end(self) -> Way:
        """Wait for a signal that ends this life, and can. While an upgrade is looked into others may come, and go
        first.
        """
        while True:
            way = await self._asked_for()
            if (way is not Way.UPGRADE or await self._can_upgrade()) and self._requests.way is way:
                return way

    async def _asked_for(self) -> Way:
        """Wait for a signal that ends this life, and can."""
        while True:
            await self._requests.any.wait()
            way = self._requests.way
            if way is not Way.RESTART or self._notifier.enabled:
                return way
            text = (
                f"{self._requests.reason} is ignored: nobody keeps connections for the next process (no NOTIFY_SOCKET)"
            )
            self._logger.event(Event.UPGRADE_REFUSED, text)
            self._requests.forget(way)

    async def _can_upgrade(self) -> bool:
        """Ask the relayd that is installed now whether it runs, and takes the file."""
        if self._reloader.in_force.spec.preserve_connections:
            problem = await self._problem_of_upgrade(self._reloader.in_force.file)
        else:
            problem = (
                "daemon.preserve_connections is false, and every connection would end; systemctl restart does that"
            )
        if problem and self._requests.way is Way.UPGRADE:
            text = f"{self._requests.reason} is ignored, nothing has changed: {problem}"
            self._logger.event(Event.UPGRADE_REFUSED, text)
            self._requests.forget(Way.UPGRADE)
        return not problem

    async def _problem_of_upgrade(self, file: Path) -> str:
        """As the relayd that is installed now says; whatever it is, where a signal that goes before comes first."""
        try:
            question = upgrade.Question(file)
        except OSError as error:
            return str(error)
        answer = asyncio.ensure_future(aside(question.answer, "check the next relayd"))
        if await _first_of(asyncio.shield(answer), self._requests.overtaken.wait()):
            return await answer
        question.give_up()
        await asyncio.wait((answer,), timeout=_GIVE_UP_S)
        return "something else is wanted by now"

    async def _hand_over(self, way: Way) -> list[Inherited]:
        """R4, R5. Afterwards every worker has ended."""
        if way is Way.UPGRADE:  # what comes from now on waits for the next life: the mask outlives execve(2)
            signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        await self._admin.close()
        if way is Way.UPGRADE:
            self._notifier.reloading(clock.monotonic())
        else:
            self._notifier.stopping("handing over to the next process")
        self._logger.event(Event.HANDING_OVER, f"{self._requests.reason}: handing over", signal=self._requests.reason)
        in_force, store, totals = self._reloader.in_force, self._store, self._supervisor.totals
        store.remember(in_force.spec, in_force.sha256, alone=in_force.alone, known=self._resolver.known())
        store.begin(self._sockets.bound, totals.sums(), totals.sessions)
        needed = await self._supervisor.packets(_COUNT_S)
        parcels = {number: store.parcels(packets) for number, packets in needed.items()}
        store.put()
        self._tell_late(self._notifier.barrier(_BARRIER_S))
        done, all_told = await self._supervisor.hand_over(parcels, _HAND_OVER_S)
        store.finish(totals.sums(), done.sessions, done.connections if all_told else None)
        packed = store.take() if way is Way.UPGRADE else []
        store.release()
        self._sockets.let_go()
        left = f", and {done.left} end, for which the kernel had no room" if done.left else ""
        self._logger.event(
            Event.HANDED_OVER,
            f"handed over {status.Active(done.connections, done.sessions)}{left}",
            connections=done.connections,
            sessions=done.sessions,
        )
        if way is Way.UPGRADE and self._requests.way is not way:
            # Another signal had come, and was not heard yet, when the mask was set.
            signal.raise_signal(signal.Signals[self._requests.reason])
        return packed

    def _reloading(self, begins: bool) -> None:  # noqa: FBT001  # what it says is what it is called with
        """Tell systemd of a reload that begins or has ended, and in STATUS of one that was refused (R1)."""
        if self._requests.first.is_set():
            return
        if begins:
            self._notifier.reloading(clock.monotonic())
        else:
            self._notifier.ready(self._serving())

    async def _stop(self) -> None:
        """R6. Afterwards every worker has ended."""
        await self._admin.close()
        supervisor, drain_timeout_s = self._supervisor, self._reloader.in_force.spec.drain_timeout_s
        text = status.stopping(self._active())
        self._notifier.stopping(text)
        # Without a number: the one at hand is from the last reports. STATUS follows them until the end.
        drain = f"open connections have {drain_timeout_s:g}s to finish"
        self._logger.event(Event.STOPPING, f"{self._requests.reason}: stopping; {drain}", signal=self._requests.reason)
        supervisor.drain(drain_timeout_s)
        if self._requests.way is Way.RESTART:  # systemd passes them to the next process
            self._sockets.let_go()
        else:
            self._store.forget()
            self._sockets.close()
        extensions = asyncio.ensure_future(
            self._every(_EXTENSION_S / 3, lambda: self._notifier.extend_timeout(_EXTENSION_S))
        )
        patience = drain_timeout_s + _DRAIN_GRACE_S
        if not await _first_of(supervisor.ended(), self._requests.second.wait(), timeout_s=patience):
            supervisor.stop()
            if not await _first_of(supervisor.ended(), timeout_s=_STOP_GRACE_S):
                supervisor.kill()
                await supervisor.ended()
        extensions.cancel()
        self._logger.event(Event.STOPPED, "stopped")

    def _tick(self) -> None:
        self._supervisor.tick()
        self._logger.flush()
        if not self._ready:
            return
        stopping = self._requests.first.is_set()
        text = status.stopping(self._active()) if stopping else self._serving()
        if self._status.due(text, clock.monotonic()):
            self._notifier.status(text)

    def _serving(self) -> str:
        spec, last = self._reloader.in_force.spec, self._reloader.last
        text = status.serving(len(spec.listeners), self._active(), spec.workers, self._supervisor.restarting)
        if last is None or not last[1]:
            return text
        reason, _, _ = last[1][0].partition("\n")  # what follows is the line of the file, and a caret below it
        return f"{text}; the last reload was refused: {reason}"

    def _active(self) -> status.Active:
        listeners = self._reloader.in_force.spec.listeners
        datagrams = any(listener.datagram is not None for listener in listeners)
        streams = any(listener.stream is not None for listener in listeners) or not datagrams
        totals = self._supervisor.totals
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
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._requests.request, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload_requested)
        loop.add_signal_handler(signal.SIGUSR1, self._requests.hand_over, signal.SIGUSR1, Way.RESTART)
        loop.add_signal_handler(signal.SIGUSR2, self._requests.hand_over, signal.SIGUSR2, Way.UPGRADE)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL_SIGNALS)

    def _reload_requested(self) -> None:
        if not self._ready:  # the file may have been read before it was changed: once more, then
            self._reload_at_ready = True
            return
        if self._requests.first.is_set():
            return
        self._in_background(self._reloader.reload())

    async def _load_at_last(self) -> None:
        """Before anybody asks for it: files may be those of another version then."""
        await asyncio.sleep(_LATER_S)
        await aside(_load, "load health checks")

    async def _read_at_last(self) -> None:
        await asyncio.sleep(_LATER_S)
        await self._reloader.read_at_last()

    def _in_background(self, work: Coroutine[Any, Any, Any]) -> None:
        """What nobody waits for, such as what SIGHUP asks for: a verdict, or a bug, goes to the log."""

        async def do() -> None:
            try:
                await work
            except asyncio.CancelledError:  # a stop came first
                return
            except Exception as error:
                self._report_bug(error)

        task = asyncio.ensure_future(do())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

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


def _load() -> None:
    import relayd.control.checks.checker
    import relayd.control.explaining  # noqa: F401  # to have them loaded
