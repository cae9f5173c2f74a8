"""Keeps `workers` worker processes running: starts, feeds, listens for their heartbeat, replaces, and ends them.

One slot per worker number, each with a phase:

    WAITING ──start──▶ STARTING ──Ready──▶ RUNNING ──drain, hand over──▶ DRAINING
       ▲                  │                   │                             │
       └────── its process ended (Backoff) ───┘                             ▼
    every phase ────────── drain, hand over or stop, and no process left ▶ ENDED
"""

import asyncio
import enum
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from relayd import clock
from relayd.address import SocketAddress
from relayd.channel.messages import (
    Adopt,
    AllAdopted,
    Change,
    Changed,
    Configure,
    Count,
    Counted,
    Drain,
    HandedOver,
    HandOver,
    Kill,
    Killed,
    LiveCount,
    LogLevel,
    Look,
    Message,
    Parcels,
    Ready,
    Released,
    Report,
    Resolved,
    Seen,
    Selection,
    Sort,
    Stop,
    TargetFailures,
    TargetStates,
)
from relayd.channel.parcel import CONNECTIONS_AT_LEAST
from relayd.control import adopting, upgrade
from relayd.control.adopting import Adopted, Shared
from relayd.control.backoff import Backoff
from relayd.control.heartbeat import START_TICKS, TICK_S, Heartbeat
from relayd.control.inquiries import Inquiries, Inquiry
from relayd.control.spawning import WORKER_COMMAND, Nursery
from relayd.control.totals import Totals
from relayd.control.worker_process import End, WorkerProcess
from relayd.errors import RelaydError
from relayd.log.events import Event
from relayd.spec import Spec, Wanted

__all__ = ["Supervisor", "WorkersFailed"]

#: A worker that has ended so often, while others wait with what they have adopted, will not come up.
_FAILURES_MAX = 2


class WorkersFailed(RelaydError):
    """A worker could not be started at boot. `str(error)` has the reason that the worker gave."""


class Phase(enum.Enum):
    """Where a slot is; the moves are drawn above."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    ENDED = "ended"


_MOVES = {
    Phase.WAITING: {Phase.STARTING, Phase.ENDED},
    Phase.STARTING: {Phase.RUNNING, Phase.WAITING, Phase.ENDED},
    Phase.RUNNING: {Phase.WAITING, Phase.DRAINING, Phase.ENDED},
    Phase.DRAINING: {Phase.ENDED},
    Phase.ENDED: set[Phase](),
}


class _Slot:
    """One worker number, and the process that has it at the moment."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.phase = Phase.WAITING
        self.process: WorkerProcess | None = None
        self.heartbeat = Heartbeat()
        self.backoff = Backoff()
        #: How often it has ended; for the boot.
        self.failures = 0
        self.started = 0.0
        self.timer: asyncio.TimerHandle | None = None
        #: The number of the last change that it does.
        self.does = 0

    def move(self, phase: Phase) -> None:
        if phase not in _MOVES[self.phase]:
            raise AssertionError(f"worker {self.number}: no way from {self.phase.value} to {phase.value}")
        self.phase = phase


class Supervisor:
    """The workers of one daemon. `sockets(number)` are the descriptors that worker `number` is sent; they stay the
    caller's, who keeps them open until `drain` or `stop`.

    `say(event, message, **fields)` writes a log line. `on_release(number, address)` is told of datagram sockets that a
    worker has let go of; address None: of all, for it is gone. `nursery` has workers that are started already.
    `on_failures` is told what clients have met.
    """

    def __init__(
        self,
        spec: Spec,
        sockets: Callable[[int], Sequence[int]],
        say: Callable[..., None],
        command: Sequence[str] = WORKER_COMMAND,
        on_release: Callable[[int, SocketAddress | None], None] | None = None,
        nursery: Nursery | None = None,
        on_failures: Callable[[TargetFailures], None] | None = None,
    ) -> None:
        self._spec = spec
        self._sockets = sockets
        self._say = say
        self._command = command
        self._on_release = on_release
        self._on_failures = on_failures
        self._nursery = nursery
        self._slots = [_Slot(number) for number in range(1, spec.workers + 1)]
        self._resolved: dict[Wanted, Resolved] = {}
        self._states = TargetStates(())
        #: In place of that of the spec.
        self._log_level: str | None = None
        self._booted: asyncio.Future[None] | None = None
        #: While booting: whether workers go on with what is adopted, and whether they have been given all of it.
        self._adopts = self._all_given = False
        #: While booting: what workers take themselves, and whether they have been told.
        self._shared: Shared | None = None
        self._sharing = False
        self._ending = False
        self._ended = asyncio.Event()
        #: Of the last change; and what waits for workers to say something.
        self._change = 0
        self._waiting: list[asyncio.Future[None]] = []
        #: By worker, as told last.
        self._counts: dict[int, tuple[LiveCount, ...]] = {}
        self._inquiries = Inquiries()
        self._handed_over = HandedOver(0, 0, 0)
        #: How many workers have said it.
        self._have_said = 0
        #: What those workers say that are ready.
        self.adopted = Adopted()
        self.totals = Totals(clock.monotonic())

    @property
    def restarting(self) -> int:
        """Workers that do not accept connections just now."""
        return sum(slot.phase in (Phase.WAITING, Phase.STARTING) for slot in self._slots)

    def workers(self) -> list[dict[str, Any]]:
        """Number, process id (None where there is no process just now) and phase of each."""
        return [
            {
                "number": slot.number,
                "pid": slot.process.pid if slot.process is not None else None,
                "phase": slot.phase.value,
            }
            for slot in self._slots
        ]

    async def boot(
        self, adopted: AsyncIterator[tuple[int, Adopt, list[int]]] | None = None, shared: Shared | None = None
    ) -> None:
        """Start every worker and wait until all accept. Raises WorkersFailed at the first one that ends instead.

        They go on first with what is `adopted`: worker number, batch, and its descriptors, which this owns. Where it
        is `shared`, workers take it themselves. Of these workers one may end, and takes along what it had: it is
        replaced as at any other time, and the next one takes the rest of its share.

        After WorkersFailed no worker is started any more, and the caller gets rid of the others by `kill`.
        """
        self._booted = asyncio.get_running_loop().create_future()
        self._adopts, self._shared = adopted is not None, shared
        try:
            for slot in self._slots:
                self._start(slot)
            if self._nursery is not None:
                self._nursery.close()  # the file wants fewer than were started
            if adopted is not None:
                self._sharing = shared is not None
                numbers = [slot.number for slot in self._slots]
                await adopting.give_all(adopted, shared, numbers, self._send, self._no_room)
                self._all_given = True
                for number in numbers:
                    await self._send(number, AllAdopted(), [])
            await self._booted
        finally:
            self._booted = self._shared = None

    async def _send(self, number: int, message: Message, fds: Sequence[int]) -> None:
        process = self._slots[number - 1].process
        if process is not None:  # else it has ended, and perhaps the boot
            process.send(message, fds)
            await process.sent()

    def _no_room(self) -> bool:
        return any(slot.process is not None and slot.process.no_room for slot in self._slots)

    def tick(self) -> None:
        """To be called every TICK_S: kills workers that hang."""
        for slot in self._slots:
            if slot.process is None:
                continue
            if slot.phase in (Phase.STARTING, Phase.RUNNING) and slot.heartbeat.tick():
                starting = slot.phase is Phase.STARTING
                self._say(
                    Event.WORKER_HUNG,
                    f"worker {slot.number} (pid {slot.process.pid}) "
                    + ("did not become ready" if starting else "has sent no report")
                    + f" for {slot.heartbeat.silent_s:g} s: killing it",
                    worker=slot.number,
                    pid=slot.process.pid,
                )
                if starting and not self._adopts:
                    self._boot_failed(f"worker {slot.number} was not ready after {START_TICKS * TICK_S:g} s")
                slot.process.kill()

    def resolved(self, answer: Resolved) -> None:
        """Tell every worker, now and future, the addresses of a name."""
        self._resolved[answer.wanted] = answer
        for slot in self._slots:
            if slot.process is not None and slot.phase is not Phase.DRAINING:
                slot.process.send(answer)

    def states(self, states: TargetStates) -> None:
        """Tell every worker, now and future, what is to be known of targets. Nothing where that is no news."""
        if states == self._states:
            return
        self._states = states
        for slot in self._slots:
            if slot.process is not None and slot.phase is not Phase.DRAINING:
                slot.process.send(states)

    def log_level(self, level: str | None) -> None:
        """Have every worker, now and future, log from `level` on; None: as the spec says."""
        self._log_level = level
        for slot in self._slots:
            if slot.process is not None and slot.phase is not Phase.DRAINING:
                slot.process.send(LogLevel(level or self._spec.log.level))

    def change(self, spec: Spec, added: Callable[[int], Sequence[int]]) -> None:
        """Have every worker, now and future, do what `spec` says. `added(number)` are the sockets of worker `number`
        that it has not been sent yet.
        """
        self._spec = spec
        self._change += 1
        names = spec.names
        self._resolved = {name: answer for name, answer in self._resolved.items() if name in names}
        for slot in self._slots:
            if slot.process is not None and slot.phase in (Phase.STARTING, Phase.RUNNING):
                slot.process.send(Change(spec, self._change), added(slot.number))
                for answer in self._resolved.values():
                    slot.process.send(answer)
            else:
                self._released(slot, None)

    async def changed(self, timeout_s: float) -> bool:
        """Wait until every worker that accepts does what the last `change` says. False: after `timeout_s` one does not
        yet.
        """
        return await self._wait_for(
            lambda: all(slot.does == self._change for slot in self._slots if slot.phase is Phase.RUNNING), timeout_s
        )

    async def counts(self, timeout_s: float) -> tuple[LiveCount, ...]:
        """How many connections and sessions there are of each listener to each target; what workers do not tell within
        `timeout_s` is not in it.
        """
        await self._ask_counts(timeout_s)
        return tuple(count for counts in self._counts.values() for count in counts)

    async def active(self, timeout_s: float) -> dict[tuple[str, str], int] | None:
        """How many connections and sessions there are by pool and target (`spec.Target.origin`), of which there may be
        none; None where a worker does not tell within `timeout_s`.
        """
        if not await self._ask_counts(timeout_s):
            return None
        sums: dict[tuple[str, str], int] = {}
        for counts in self._counts.values():
            for each in counts:
                sums[each.pool, each.origin] = sums.get((each.pool, each.origin), 0) + each.count
        return sums

    async def _ask_counts(self, timeout_s: float) -> bool:
        """Have `_counts` be what workers tell now. False: not all have within `timeout_s`."""
        inquiry = await self._ask(Count, timeout_s)
        self._counts = {worker: told.counts for worker, told in inquiry.answers if isinstance(told, Counted)}
        return inquiry.complete

    async def look(
        self, selection: Selection, sort: Sort, limit: int, timeout_s: float, *, tcp_info: bool
    ) -> tuple[list[Seen], bool]:
        """What workers see of `selection`, each of them up to `limit`; and whether all of them have told all within
        `timeout_s`.
        """
        inquiry = await self._ask(lambda number: Look(number, selection, sort, limit, tcp_info), timeout_s)
        return [seen for _, seen in inquiry.answers if isinstance(seen, Seen)], inquiry.complete

    async def end(self, selection: Selection, timeout_s: float) -> tuple[int, bool]:
        """End the connections and sessions of `selection`. How many have ended; and whether all workers have told
        within `timeout_s`.
        """
        inquiry = await self._ask(lambda number: Kill(number, selection), timeout_s)
        return sum(told.count for _, told in inquiry.answers if isinstance(told, Killed)), inquiry.complete

    async def _ask(self, question: Callable[[int], Message], timeout_s: float) -> Inquiry:
        """What workers that run answer within `timeout_s`. Several may ask at once."""
        asked = {slot.number: slot.process for slot in self._slots if slot.phase is Phase.RUNNING}
        inquiry = self._inquiries.begin({number for number, process in asked.items() if process is not None})
        try:
            for process in asked.values():
                if process is not None:
                    process.send(question(inquiry.number))
            await self._wait_for(lambda: inquiry.over, timeout_s)
        finally:
            self._inquiries.end(inquiry)
        return inquiry

    def descriptors(self) -> dict[int, int]:
        """By worker: how many descriptors its connections and sessions have at most, by the last `counts`."""
        return {
            number: sum(each.count * (1 if each.datagram else 2) for each in counts)
            for number, counts in self._counts.items()
        }

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until `condition`, asked whenever a worker has said something that matters to it, holds."""
        until = clock.monotonic() + timeout_s
        while not condition():
            said = asyncio.get_running_loop().create_future()
            self._waiting.append(said)
            try:
                await asyncio.wait_for(said, until - clock.monotonic())
            except asyncio.TimeoutError:
                return False
        return True

    def _note_said(self) -> None:
        waiting, self._waiting = self._waiting, []
        for said in waiting:
            if not said.done():
                said.set_result(None)

    def _released(self, slot: _Slot, address: SocketAddress | None) -> None:
        if self._on_release is not None:
            self._on_release(slot.number, address)

    def drain(self, timeout_s: float) -> None:
        """Have workers accept no more and end after their last connection, or after `timeout_s`. None is replaced."""
        self._ending = True
        for slot in self._slots:
            self._cancel(slot)
            if slot.process is None:
                slot.move(Phase.ENDED)
            elif slot.phase is Phase.RUNNING:
                slot.process.send(Drain(timeout_s))
                slot.move(Phase.DRAINING)
            else:
                slot.process.kill()  # not Ready yet: at most, the rest of what another process has had
        self._note_end()

    async def packets(self, timeout_s: float) -> dict[int, int]:
        """How many packets of parcels each worker that can hand over will need: a packet has connections of one
        listener, or sessions of one socket. Of workers that have not told within `timeout_s`, by their last reports.
        """
        await self.counts(timeout_s)
        needed = {}
        for slot in self._slots:
            if slot.process is not None and slot.phase is Phase.RUNNING:
                counted = self._counts.get(slot.number, ())
                active = max(self.totals.active_of(slot.number), sum(each.count for each in counted))
                groups = len(self._sockets(slot.number)) + len({each.listener for each in counted})
                needed[slot.number] = active // CONNECTIONS_AT_LEAST + min(active, groups) + 1
        return needed

    async def hand_over(
        self, parcels: Mapping[int, Sequence[socket.socket]], timeout_s: float
    ) -> tuple[HandedOver, bool]:
        """Have workers put all that they have into `parcels`, by worker the ends to send into, which this owns, and
        end. What has not ended after `timeout_s` is killed, and what it has put into its parcel counts as nothing. None
        is replaced. What they have said, all together, and whether all have said it.
        """
        self._ending = True
        self._handed_over = HandedOver(0, 0, 0)
        self._have_said = 0
        given: list[asyncio.Future[None]] = []  # to all at once: when one has filled the room, others get no parcel
        for slot in self._slots:
            self._cancel(slot)
            if slot.process is None:
                slot.move(Phase.ENDED)
            elif slot.phase is Phase.RUNNING:
                ends = [end.detach() for end in parcels.get(slot.number, ())]
                given.append(asyncio.ensure_future(slot.process.give(HandOver(), ends)))
                slot.move(Phase.DRAINING)
            else:
                slot.process.kill()
        for unused in parcels.values():
            for end in unused:  # of workers that have ended
                end.close()
        self._note_end()
        try:
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        except asyncio.TimeoutError:
            self.kill()
            await self._ended.wait()
        finally:
            for each in given:
                each.cancel()
            await asyncio.gather(*given, return_exceptions=True)
        return self._handed_over, self._have_said == len(given)

    def stop(self) -> None:
        """Have draining workers close their connections and end now."""
        for slot in self._slots:
            if slot.process is not None:
                slot.process.send(Stop())

    def kill(self) -> None:
        """SIGKILL for every worker that is left. None is replaced."""
        self._ending = True
        for slot in self._slots:
            self._cancel(slot)
            if slot.process is not None:
                slot.process.kill()
            elif slot.phase is not Phase.ENDED:
                slot.move(Phase.ENDED)
        self._note_end()

    async def ended(self) -> None:
        """Wait until, after `drain` or `kill`, no worker process is left."""
        await self._ended.wait()

    def _start(self, slot: _Slot) -> None:
        slot.timer = None
        if self._ending:
            return
        slot.started = clock.monotonic()
        try:
            slot.process = WorkerProcess(
                self._nursery.take() if self._nursery is not None else None,
                self._command,
                lambda message: self._heard(slot, message),
                lambda end: self._gone(slot, end),
            )
        except OSError as error:
            self._boot_failed(f"worker {slot.number} could not be started: {error}")
            self._say(
                Event.WORKER_EXITED, f"worker {slot.number} could not be started: {error}", worker=slot.number, pid=0
            )
            self._start_later(slot)
            return
        slot.move(Phase.STARTING)
        slot.heartbeat = Heartbeat()
        slot.does = self._change
        shared = self._shared if self._sharing else None
        adopts = self._adopts and (not self._all_given or shared is not None)
        slot.process.send(Configure(self._spec, slot.number, adopts), self._sockets(slot.number))
        if shared is not None:  # it takes what the one before has left
            slot.process.send(Parcels(shared.each), shared.parcels)
            if self._all_given:
                slot.process.send(AllAdopted())
        if self._log_level is not None:
            slot.process.send(LogLevel(self._log_level))
        if self._states.states:
            slot.process.send(self._states)
        for answer in self._resolved.values():
            slot.process.send(answer)

    def _heard(self, slot: _Slot, message: Message) -> None:
        slot.heartbeat.heard()
        if isinstance(message, Report):
            self.totals.report(slot.number, message.listeners, message.worker, clock.monotonic())
        elif isinstance(message, Changed):
            slot.does = message.number
            self._note_said()
        elif isinstance(message, Counted | Seen | Killed):
            if self._inquiries.heard(slot.number, message):
                self._note_said()
        elif isinstance(message, HandedOver):
            self._have_said += 1
            sums = self._handed_over
            self._handed_over = HandedOver(
                sums.connections + message.connections, sums.sessions + message.sessions, sums.left + message.left
            )
        elif isinstance(message, Released):
            self._released(slot, message.address)
        elif isinstance(message, TargetFailures) and self._on_failures is not None:
            self._on_failures(message)
        elif isinstance(message, Ready) and slot.phase is Phase.STARTING and not self._ending:
            slot.move(Phase.RUNNING)
            self.adopted += message
            pid = slot.process.pid if slot.process is not None else 0
            self._say(Event.WORKER_STARTED, f"worker {slot.number} accepts (pid {pid})", worker=slot.number, pid=pid)
            if self._booted is not None and not self._booted.done() and self.restarting == 0:
                self._booted.set_result(None)

    def _gone(self, slot: _Slot, end: End) -> None:
        process, slot.process = slot.process, None
        self._released(slot, None)
        self._inquiries.gone(slot.number)
        self._note_said()
        pid = process.pid if process is not None else 0
        self.totals.ended(slot.number)
        # A worker that had not begun to drain was killed by `drain` or `kill`: no news, and no reason to search for.
        ours = end.status == -signal.SIGKILL and slot.phase is not Phase.DRAINING
        if self._ending and (end.status == 0 or ours):
            slot.move(Phase.ENDED)
        else:
            self._say(
                Event.WORKER_EXITED,
                f"worker {slot.number} (pid {pid}) {end}",
                worker=slot.number,
                pid=pid,
                status=end.status,
                stderr=end.stderr,
            )
            self._worker_failed(slot, f"worker {slot.number} {end}")
            slot.move(Phase.ENDED if self._ending else Phase.WAITING)
        self._start_later(slot)
        self._note_end()

    def _start_later(self, slot: _Slot) -> None:
        if self._ending:
            return
        self.totals.control.worker_restarts += 1
        slot.backoff = slot.backoff.after_end(slot.started, clock.monotonic())
        delay = slot.backoff.delay_s
        if delay:
            other = upgrade.other_version()
            self._say(
                Event.WORKER_BACKOFF,
                f"worker {slot.number} has ended {slot.backoff.ends} times in a row: next start in {delay:g} s"
                + (f"; workers are of version {other}, which is installed now: restart relayd" if other else ""),
                worker=slot.number,
                ends=slot.backoff.ends,
                delay_s=delay,
            )
        slot.timer = asyncio.get_running_loop().call_later(delay, self._start, slot)

    def _worker_failed(self, slot: _Slot, reason: str) -> None:
        """At a boot that is the end of it; unless others have connections, and it is worth another try."""
        slot.failures += 1
        if not self._adopts or slot.failures >= _FAILURES_MAX:
            self._boot_failed(reason)

    def _boot_failed(self, reason: str) -> None:
        if self._booted is not None and not self._booted.done():
            self._ending = True
            self._booted.set_exception(WorkersFailed(reason))

    def _cancel(self, slot: _Slot) -> None:
        if slot.timer is not None:
            slot.timer.cancel()
            slot.timer = None

    def _note_end(self) -> None:
        if all(slot.phase is Phase.ENDED for slot in self._slots):
            self._ended.set()
