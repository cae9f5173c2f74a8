"""A reload: the file is read again, and the difference is applied as one transaction (R1 to R3).

    read ──▶ plan ──▶ prepare ──▶ commit ──▶ wait for the workers ──▶ retire
      └────────┴─────────┴─ refused: nothing has changed, and the error is logged, kept for `status`, and returned

Reads and look-ups are done aside, so that the loop lives on. Those who ask for a reload while one is under way share
the next one. `confirm_s` sets a timer that goes back to the spec before unless `confirm` comes first.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import relayd
from relayd import clock, config
from relayd.config.show import to_toml
from relayd.control.changes import changes_between
from relayd.control.listeners import BindFailed, ListeningSockets, Opened, opened
from relayd.control.recent import Key, Recent
from relayd.control.resolver import Resolver
from relayd.control.supervisor import Supervisor
from relayd.control.threads import aside
from relayd.control.verdict import Change, Verdict
from relayd.counters import DatagramTotals, ListenerTotals
from relayd.errors import RelaydError
from relayd.log.events import Event
from relayd.log.logger import ListenerLogger, Logger
from relayd.spec import ListenerLog, Spec
from relayd.spec.budget import budget_of, control_budget, shortages
from relayd.spec.plan import Close, NotWithoutRestart, Open, Plan, plan
from relayd.spec.sockets import SocketKey
from relayd.values import dataclass

__all__ = ["STATUS_COUNTS", "InForce", "Reloader", "in_force", "logs_of", "tell_listening"]

#: Of what is counted for a listener (`counters`): what `relayd status` shows.
STATUS_COUNTS = ("active", "accepted", "bytes_in", "bytes_out")

#: A worker that has not done a change by then is busy, or about to be replaced: it will do it, and nobody waits.
_CHANGE_WAIT_S = 5.0
#: What workers have not told by then of their connections is not in a preview.
_COUNT_WAIT_S = 0.5


@dataclass(frozen=True, slots=True)
class InForce:
    """The configuration that is in force: `sha256` over all its files; `loaded_at` is monotonic."""

    spec: Spec
    file: Path
    sha256: str
    loaded_at: float
    #: Counts reloads that have changed something; 0 is what relayd was started with.
    number: int = 0
    #: The file includes no others, so that it alone says what is in force.
    alone: bool = False
    #: It has not been read in this life, for it has not changed since the one before.
    unread: bool = False


class Refused(RelaydError):
    """A reload that cannot be: nothing has changed. `errors` as `relayd check` writes them."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


class Reloader:
    """Reads, decides, and has the parts of the control process do it. For the event loop."""

    def __init__(
        self,
        in_force: InForce,
        nofile: int,
        logger: Logger,
        sockets: ListeningSockets,
        supervisor: Supervisor,
        resolver: Resolver,
        announce: Callable[[bool], None],
        keep: Callable[[], None] = lambda: None,
        let_go: Callable[[set[SocketKey]], Coroutine[Any, Any, None]] | None = None,
        on_change: Callable[[Spec], None] = lambda _: None,
        on_reloaded: Callable[[], None] = lambda: None,
    ) -> None:
        """`announce(True)` is called when a reload begins, `announce(False)` when it has ended. `keep()` has the FD
        store hold the sockets that there are, and `let_go(keys)` has it let go of these, before they are closed.
        `on_change` is told of the spec as soon as it is in force, and `on_reloaded` of every reload that was not
        refused, if nothing has changed.
        """
        self.in_force = in_force
        #: Of the last reload: monotonic time and errors; None before the first.
        self.last: tuple[float, tuple[str, ...]] | None = None
        #: Monotonic time at which the spec before comes back unless `confirm` is called.
        self.confirm_until: float | None = None
        self._started_at = clock.monotonic()
        self._nofile = nofile
        self._logger = logger
        self._sockets = sockets
        self._supervisor = supervisor
        self._resolver = resolver
        self._announce = announce
        self._keep = keep
        self._let_go = let_go
        self._on_change = on_change
        self._on_reloaded = on_reloaded
        #: One at a time; and the one that has not begun, for whoever asks meanwhile.
        self._one_at_a_time = asyncio.Lock()
        self._queued: asyncio.Task[Verdict] | None = None
        self._tasks: set[asyncio.Task[Verdict]] = set()
        self._closed = False
        self._warnings: tuple[str, ...] = ()
        self._before: InForce | None = None
        self._timer: asyncio.TimerHandle | None = None

    # what may be asked for --------------------------------------------------------------------------------------

    async def reload(self, confirm_s: float | None = None) -> Verdict:
        """Read the file again and do what it says. With `confirm_s`, for that long unless `confirm` is called."""
        if self._closed:
            return Verdict(False, (), ("relayd is stopping",), ())
        if self._queued is None:
            self._queued = self._start(self._from_file)
        verdict = await asyncio.shield(self._queued)
        changed = verdict.ok and self._before is not None and self._before.spec != self.in_force.spec
        if confirm_s is not None and changed:
            self._expect_confirmation(confirm_s)
        return verdict

    async def read_at_last(self) -> None:
        """The file, which was not read at the start, for it had not changed: what it says may be something else all the
        same, when a name or a user means another address or number now. Then that is a reload.
        """
        try:
            loaded = await self._load(self.in_force.file)
        except Refused as refused:
            self.refuse(refused.errors)
            return
        now = self.in_force.spec
        same = replace(loaded.spec, workers=now.workers, copies=now.copies) == now
        self._warnings = tuple(map(str, loaded.warnings))
        for warning in self._warnings if same else ():
            self._logger.event(Event.CONFIGURATION_WARNING, warning)
        if not same:
            await self.reload()

    async def confirm(self) -> Verdict:
        """Keep what the last reload has brought. The answer is no when nothing waits for that."""
        if self._timer is None:
            return Verdict(False, (), ("no reload waits to be confirmed",), ())
        self._forget_confirmation()
        self._logger.event(Event.RELOADED, "the reload is confirmed", number=self.in_force.number)
        return Verdict(True, (), (), ())

    async def plan(self, file: Path | None = None) -> Verdict:
        """What a reload would do, from `file` or the one that is in force; sockets are not opened to find out."""
        try:
            loaded = await self._load(file or self.in_force.file)
        except Refused as refused:
            return Verdict(False, (), refused.errors, ())
        live = await self._supervisor.counts(_COUNT_WAIT_S)
        try:
            changes = changes_between(self.in_force.spec, loaded.spec, live)
        except NotWithoutRestart as error:
            return Verdict(False, (), (str(error),), ())
        return Verdict(True, changes, (), tuple(map(str, loaded.warnings)))

    def status(self, *, history: int) -> dict[str, Any]:
        """What `relayd status` shows; docs/admin.md says what is in it. `history`: as of `admin.Operator`."""
        in_force, totals, now = self.in_force, self._supervisor.totals, clock.monotonic()
        sums: dict[tuple[str, str], ListenerTotals | DatagramTotals] = {}
        sums |= {("stream", each.listener): each for each in totals.listeners()}
        sums |= {("dgram", each.listener): each for each in totals.datagrams()}
        served = [
            (kind, listener.name)
            for listener in in_force.spec.listeners
            for kind, how in (("stream", listener.stream), ("dgram", listener.datagram))
            if how is not None
        ]
        return {
            "version": relayd.__version__,
            "pid": os.getpid(),
            "started_at": _time_of_day(self._started_at),
            "config": {
                "file": str(in_force.file),
                "sha256": in_force.sha256,
                "loaded_at": _time_of_day(in_force.loaded_at),
                "number": in_force.number,
                "last_reload": None if self.last is None else _last_reload(*self.last),
                "confirm_until": None if self.confirm_until is None else _time_of_day(self.confirm_until),
            },
            "workers": self._supervisor.workers(),
            "names": self._resolver.status(),
            "listeners": [
                {"name": name, "type": kind}
                | _counts(sums.get((kind, name)))
                | _recently(totals.recent, (kind, name), now, history=at < history)
                for at, (kind, name) in enumerate(served)
            ],
        }

    async def shown(self) -> dict[str, Any]:
        """What is in force, as docs/admin.md says."""
        now = self.in_force
        toml = await aside(lambda: to_toml(now.spec), "show the configuration")  # of thousands of listeners, perhaps
        return {"file": str(now.file), "sha256": now.sha256, "number": now.number, "toml": toml}

    def refuse(self, errors: tuple[str, ...]) -> None:
        """The file is not what is in force, and this is why: for the log, for STATUS and for `status`."""
        self.last = (clock.monotonic(), errors)
        self._supervisor.totals.control.reloads_refused += 1
        for error in errors:
            self._logger.event(Event.RELOAD_FAILED, f"refused, nothing has changed: {error}")

    def close(self) -> None:
        """Stop: a reload under way is left as far as it has come, which is all or nothing."""
        self._closed = True
        self._forget_confirmation()
        for task in self._tasks:
            task.cancel()

    # one reload -------------------------------------------------------------------------------------------------

    def _start(self, work: Callable[[], Coroutine[Any, Any, tuple[Change, ...]]]) -> "asyncio.Task[Verdict]":
        """`work` in a task of its own: whoever asked for it may go away, and it is done all the same."""
        task = asyncio.ensure_future(self._do(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _do(self, work: Callable[[], Coroutine[Any, Any, tuple[Change, ...]]]) -> Verdict:
        async with self._one_at_a_time:
            self._queued = None  # what the file says from now on is for the next one
            self._announce(True)
            try:
                changes = await work()
                self.last = (clock.monotonic(), ())
                self._supervisor.totals.control.reloads += 1
                self._on_reloaded()
            except Refused as refused:
                self.refuse(refused.errors)
                return Verdict(False, (), refused.errors, ())
            finally:
                self._announce(False)
            return Verdict(True, changes, (), self._warnings)

    async def _from_file(self) -> tuple[Change, ...]:
        before = self.in_force
        loaded = await self._load(before.file)
        changes = await self._apply(in_force(loaded, before.file, before.number + 1))
        self._warnings = tuple(map(str, loaded.warnings))
        for warning in self._warnings:
            self._logger.event(Event.CONFIGURATION_WARNING, warning)
        if self._timer is None:  # else what was before the first reload that nobody has confirmed
            self._before = before
        self._tell(changes, "reloaded")
        return changes

    async def _load(self, file: Path) -> "config.Loaded":
        """In a thread: files may be large, and a bind may have a host name. Raises Refused."""
        try:
            loaded = await aside(lambda: config.load(file, self._sockets.passed.inventory), f"load {file}")
        except config.ConfigError as error:
            raise Refused(tuple(map(str, error.problems))) from None
        now = self.in_force.spec
        too_few = shortages(self._nofile, replace(loaded.spec, workers=now.workers, copies=now.copies))
        if too_few:
            raise Refused(too_few)
        return loaded

    async def _apply(self, after: InForce) -> tuple[Change, ...]:
        """Prepare, commit, retire. Raises Refused when it cannot be prepared."""
        old = self.in_force.spec
        try:
            change = plan(old, after.spec)
        except NotWithoutRestart as error:
            raise Refused((str(error),)) from None
        spec = change.spec
        if spec is None or spec == old:
            self.in_force = replace(after, spec=old, number=self.in_force.number)
            return changes_between(old, after.spec)
        changes = changes_between(old, after.spec, await self._supervisor.counts(_COUNT_WAIT_S))
        self._check_room(change)
        # Names first: between prepare and commit nothing may come that closes a socket.
        await self._resolver.change(spec.names | old.names)
        closing = {step.endpoint.key for step in change.steps if isinstance(step, Close)}
        if closing and self._let_go is not None:
            # Or somebody could still come to them when everybody here has closed them, and nobody would answer.
            await self._let_go(closing)
        try:
            prepared = self._sockets.prepare(change)
        except BindFailed as error:
            self._keep()
            await self._resolver.change(old.names)
            raise Refused(tuple(error.problems)) from None
        # From here on nothing can fail.
        prepared.commit()
        self._supervisor.change(spec, prepared.filenos)
        self._on_change(spec)
        self._logger.change(spec.log)
        log_of = logs_of(self._logger, spec)
        for each in opened(prepared.opened.values()):
            tell_listening(log_of(each.listener), each)
        self.in_force = replace(after, spec=spec)
        self._keep()
        done = await self._supervisor.changed(_CHANGE_WAIT_S)
        if not done:
            late = f"a worker does not do yet what the reload says, after {_CHANGE_WAIT_S:g} s: it will, or is replaced"
            self._logger.event(Event.RELOAD_LATE, late)
        self._sockets.retire()
        await self._resolver.change(spec.names)
        return changes

    def _check_room(self, change: Plan) -> None:
        """While a reload is under way, old and new sockets are open, and workers have what they have. Raises
        Refused.
        """
        opens = [step.endpoint for step in change.steps if isinstance(step, Open)]
        old, nofile = self.in_force.spec, self._nofile
        problems = []
        control = control_budget(nofile, old).needed + len(opens)
        if control > nofile:
            problems.append(f"too few file descriptors: old and new sockets together need {control} of {nofile}")
        budget = budget_of(old, nofile)
        for worker, in_use in self._supervisor.descriptors().items():
            needed = budget.listening + 2 * budget.pipes + in_use
            needed += sum(endpoint.worker in (None, worker) for endpoint in opens)
            if needed > nofile:
                problems.append(
                    f"too few file descriptors: worker {worker} has {in_use} in use by connections and sessions, and "
                    f"would need {needed} of {nofile} with the new sockets; try again when it has fewer"
                )
        if problems:
            raise Refused(tuple(problems))

    def _tell(self, changes: tuple[Change, ...], what: str) -> None:
        log_of = logs_of(self._logger, self.in_force.spec)
        for each in changes:
            log_of(each.listener).event(Event.RELOAD_CHANGE, str(each), listener=each.listener or "")
        count = f"{len(changes)} change{'' if len(changes) == 1 else 's'}" if changes else "nothing to change"
        self._logger.event(
            Event.RELOADED,
            f"{what}: {count}",
            changes=len(changes),
            number=self.in_force.number,
            sha256=self.in_force.sha256,
        )

    # confirmation -----------------------------------------------------------------------------------------------

    def _expect_confirmation(self, confirm_s: float) -> None:
        self._forget_timer()
        self.confirm_until = clock.monotonic() + confirm_s
        self._timer = asyncio.get_running_loop().call_later(confirm_s, self._go_back)

    def _go_back(self) -> None:
        self._forget_timer()
        if self._before is not None:
            self._start(self._back)

    async def _back(self) -> tuple[Change, ...]:
        before, self._before = self._before, None
        if before is None:  # confirmed, or overtaken by another reload, while this one waited
            return ()
        changes = await self._apply(replace(before, number=self.in_force.number + 1, loaded_at=clock.monotonic()))
        self._tell(changes, "the reload was not confirmed in time: gone back")
        return changes

    def _forget_confirmation(self) -> None:
        self._forget_timer()
        self._before = None

    def _forget_timer(self) -> None:
        self.confirm_until = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _recently(recent: Recent, key: Key, now: float, *, history: bool) -> dict[str, Any]:
    """Rates of a listener."""
    accepted, bytes_in, bytes_out = map(_rounded, recent.rate(key, now))
    found: dict[str, Any] = {"rate": {"accepted": accepted, "bytes_in": bytes_in, "bytes_out": bytes_out}}
    if history:
        found["history"] = [list(map(_rounded, step)) for step in recent.history(key, now)]
    return found


def _rounded(rate: float) -> float:
    return round(rate, 1)


def _counts(totals: ListenerTotals | DatagramTotals | None) -> dict[str, int]:
    """None: no worker has told yet."""
    return {key: getattr(totals, key, 0) for key in STATUS_COUNTS}


def _time_of_day(at: float) -> str:
    """A monotonic time as ISO 8601, in UTC."""
    return f"{clock.utc(round(clock.wall() + (at - clock.monotonic())))}Z"


def _last_reload(at: float, errors: tuple[str, ...]) -> dict[str, Any]:
    return {"at": _time_of_day(at), "ok": not errors, "errors": list(errors)}


def in_force(loaded: "config.Loaded", file: Path, number: int = 0) -> InForce:
    """What `loaded` is once it is in force."""
    alone = not loaded.model.include
    return InForce(loaded.spec, file, loaded.sha256, clock.monotonic(), number, alone)


def logs_of(logger: Logger, spec: Spec) -> Callable[[str | None], ListenerLogger]:
    """By the name of a listener, for lines about it. None, or a listener that is gone: as about everything else."""
    rules = {each.name: each.log for each in spec.listeners}
    return lambda name: logger.of(rules.get(name or "", ListenerLog()))


def tell_listening(logger: ListenerLogger, opened: Opened) -> None:
    """Log that clients can come to a bind."""
    address = str(opened.address)
    text = f"{opened.listener} listens on {address}" + (" for datagrams" if opened.datagram else "")
    text += f", passed as {opened.passed_as}" if opened.passed_as else ""
    kind = "dgram" if opened.datagram else "stream"
    logger.event(Event.LISTENING, text, listener=opened.listener, address=address, type=kind)
