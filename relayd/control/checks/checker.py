"""Asks targets whether they are up, in the event loop of the control process: one selector for all, and one timer.

The selector is readable when one of its sockets is, and asyncio knows it as one descriptor: what many checks have to do
comes in one callback. A thousand checks every 2 s cost some 3 to 5 % of a core (tests/soak/test_checks.py).
"""

import asyncio
import functools
import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Iterator

from relayd import clock
from relayd.control.checks import left
from relayd.control.checks.answers import Script, script_of
from relayd.control.checks.command import Command
from relayd.control.checks.probe import Probe
from relayd.control.checks.schedule import GRID_S, Schedule, spread
from relayd.control.checks.standing import Standing
from relayd.control.checks.subject import Cause, Found, Key, Known, Subject
from relayd.log.events import Event
from relayd.net.poller import EdgeSelector
from relayd.spec import Check, CheckKind
from relayd.spec.budget import CHECKS_MAX, COMMANDS_MAX

__all__ = ["Checker", "Found", "Known", "Subject"]

#: What was left by the life before waits for its target for so long: names that do not resolve at once do later.
_LEFT_S = 300.0
#: Where checks are late, a line says so no oftener than this: it is about the machine and its configuration.
LATE_S = 60.0
#: Nothing is late that is asked so soon after it was due: the grid alone takes half of it.
_BEHIND_S = 2 * GRID_S
#: Starting a process takes some 2 ms, which nothing else in the loop has meanwhile.
COMMANDS_SLOT_MAX = 5
#: Seconds that `close` waits for the ends of commands that it has killed. All but those that wait for a dead disk are
#: gone in milliseconds.
_END_S = 0.5
#: Of a turn for the events of checks: then others have the loop.
_LOOKS_MAX = 4


class _Entry:
    """One target. `asking` is the check that is under way, or a command that was killed and has not ended."""

    __slots__ = ("asking", "began", "impeded", "script", "standing", "subject")

    def __init__(self, subject: Subject, standing: Standing) -> None:
        self.subject = subject
        self.standing = standing
        #: None for a command.
        self.script: Script | None = None
        self.asking: Probe | Command | None = None
        self.began = 0.0
        #: Why this machine cannot ask it; "" where it can.
        self.impeded = ""

    @property
    def command(self) -> bool:
        return self.subject.check.kind is CheckKind.EXEC


class Checker:
    """Keeps asking the subjects of the last `change`. To be made in the loop that it lives in.

    `say` (`Logger.event`) gets a line for each target that comes up or goes down. `on_change` is called in the loop,
    and at most once in a turn of it, when there was one.
    """

    def __init__(
        self, say: Callable[..., None], on_change: Callable[[], None], rng: random.Random | None = None
    ) -> None:
        """Raises OSError without a descriptor left."""
        rng = rng or random.Random()  # noqa: S311  # spreads load, hides nothing
        self._say = say
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._entries: dict[Key, _Entry] = {}
        self._sockets = Schedule(CHECKS_MAX, rng)
        self._commands = Schedule(COMMANDS_MAX, rng, COMMANDS_SLOT_MAX)
        #: When those under way are late. Those that are over stay in it until they are the first.
        self._deadlines: list[tuple[float, int, _Entry, Probe | Command]] = []
        self._order = itertools.count()
        self._killed: set[Command] = set()
        self._left: dict[Key, left.Left] = {}
        self._left_until = 0.0
        self._impeded: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wake: float | None = None
        #: Something may begin before that.
        self._sooner = False
        self._telling: asyncio.Handle | None = None
        self._late_said = -LATE_S
        self._closed = False
        self._selector = EdgeSelector()
        self._loop.add_reader(self._selector.fileno(), self._turn)

    def change(self, subjects: Iterable[Subject]) -> None:
        """Ask these from now on, and no others. Idempotent.

        What is known of those that stay, by pool and target, is kept, and so is when they are due. One whose check or
        address is another now is as up or down as before, counts anew, and is due within the interval at the latest.
        New ones begin spread over it. None of that is a change between up and down: nothing is said, and `on_change`
        not called.
        """
        now = clock.monotonic()
        wanted = {subject.key: subject for subject in subjects}
        for key in [key for key in self._entries if key not in wanted]:
            self._remove(self._entries.pop(key))
        if now > self._left_until:
            self._left.clear()
        new: dict[str, list[Subject]] = {}
        for key, subject in wanted.items():
            entry = self._entries.get(key)
            if entry is None and not self._go_on(subject):
                new.setdefault(subject.pool, []).append(subject)
            elif entry is not None and entry.subject != subject:
                self._replace(entry, subject, now)
            elif entry is not None:
                entry.subject = subject  # it may be called something else
        times = spread([(len(pool), pool[0].check.interval_s) for pool in new.values()], now)
        for pool, dues in zip(new.values(), times, strict=True):
            for subject, due in zip(pool, dues, strict=True):
                self._add(subject, Standing(now), due)
        self._arm(now)

    def failed(self, pool: str, target: str, count: int, reason: str) -> None:
        """Clients have met `count` failures of this target. It is asked at once, unless it was just now. Nothing where
        nobody asks it.
        """
        entry = self._entries.get((pool, target))
        if entry is None or not entry.standing.up:
            return
        now = clock.monotonic()
        self._stand(entry, entry.standing.told(count, reason, entry.subject.check, now))
        self._schedule(entry).hurry(entry.subject.key, now)
        self._arm(now)

    def state(self, pool: str, target: str) -> Known | None:
        """What is known of a target; None where nobody asks it."""
        entry = self._entries.get((pool, target))
        return None if entry is None else _known(entry, _epoch())

    def states(self) -> Iterator[Known]:
        """What is known of all, in the order of the last `change`s."""
        epoch = _epoch()
        return iter([_known(entry, epoch) for entry in self._entries.values()])

    def snapshot(self) -> dict[str, object]:
        """For `restore` in the next life: a value for JSON. What was left by the life before, and has not been asked
        for yet, goes on.
        """
        epoch = _epoch()
        here = [(key, each.standing, self._schedule(each).due(key) or 0.0) for key, each in self._entries.items()]
        waiting = [(key, standing, due) for key, (standing, due) in self._left.items()]
        return left.pack([*here, *waiting], epoch)

    def restore(self, value: object) -> int:
        """Before the first `change`: what `snapshot` returned in the life before. Each target goes on from there once
        `change` has it, within _LEFT_S; one that is overdue is asked at once, and never too many together. How many
        there are; what is not understood is left out, and those targets are new ones.
        """
        now = clock.monotonic()
        self._left = left.unpack(value, now, _epoch())
        self._left_until = now + _LEFT_S
        return len(self._left)

    def close(self) -> None:
        """Ask no more. Nothing is left afterwards: no socket, no process. Idempotent."""
        for entry in self._entries.values():
            self._remove(entry)
        self._entries.clear()
        deadline = clock.monotonic() + _END_S
        for command in self._killed:
            command.finish(max(0.0, deadline - clock.monotonic()))
        self._killed.clear()
        for handle in (self._timer, self._telling):
            if handle is not None:
                handle.cancel()
        self._timer = self._telling = None
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._selector.fileno())
            self._selector.close()

    def _go_on(self, subject: Subject) -> bool:
        """Whether the life before has left something about it: then it goes on from there."""
        known = self._left.pop(subject.key, None)
        if known is None:
            return False
        (standing, due), now = known, clock.monotonic()
        self._add(subject, standing, max(due, now))  # nobody was there to be late
        self._schedule(self._entries[subject.key]).within(subject.key, _interval(standing, subject.check), now)
        return True

    def _add(self, subject: Subject, standing: Standing, due: float) -> None:
        entry = self._entries[subject.key] = _Entry(subject, standing)
        if not entry.command:
            entry.script = script_of(subject)
        self._schedule(entry).add(subject.key, due, failing=not standing.up)

    def _replace(self, entry: _Entry, subject: Subject, now: float) -> None:
        """The same target, with another check or address. What is under way would ask the old way."""
        key, before = subject.key, self._schedule(entry)
        self._break_off(entry)
        before.again(key, now)
        due = before.due(key) or now
        entry.subject = subject
        entry.standing = entry.standing.afresh()
        entry.script = None if entry.command else script_of(subject)
        schedule = self._schedule(entry)
        if schedule is not before:
            before.remove(key)
            schedule.add(key, due, failing=not entry.standing.up)
        schedule.within(key, _interval(entry.standing, subject.check), now)

    def _remove(self, entry: _Entry) -> None:
        self._break_off(entry)
        self._unimpede(entry)
        self._schedule(entry).remove(entry.subject.key)

    def _break_off(self, entry: _Entry) -> None:
        asking, entry.asking = entry.asking, None
        if isinstance(asking, Command):
            asking.drop()
            self._killed.add(asking)
        elif asking is not None:
            asking.close()

    def _schedule(self, entry: _Entry) -> Schedule:
        return self._commands if entry.command else self._sockets

    def _turn(self) -> None:
        """What has happened to checks that are under way. A target that is near has answered by the time when others
        have been asked: a look that finds it is a third of a turn of asyncio.
        """
        handlers = self._selector.handlers
        for _ in range(_LOOKS_MAX):
            ready = self._selector.ready(0)
            for fd, mask in ready:
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(mask)
                    except Exception as error:  # the others have had their edge, and get no other (F3)
                        self._bug(error)
            if len(ready) < 2:
                break
        if self._sooner:
            self._go()

    def _go(self) -> None:
        """What is late, and what is due. No socket is opened while events are handled: it would get the number, and the
        event, of one just closed.
        """
        now = clock.monotonic()
        self._sooner = False
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, entry, asking = heapq.heappop(self._deadlines)
            if entry.asking is asking:
                try:
                    asking.late()
                except Exception as error:
                    self._met_bug(entry, error)
        if self._killed:
            self._killed = {command for command in self._killed if not command.gone}
        for schedule in (self._sockets, self._commands):
            for key in schedule.begin(now):
                entry = self._entries[key]
                try:
                    if schedule.behind_s > _BEHIND_S:
                        self._complain(entry, schedule, now)
                    self._ask(entry, now)
                except Exception as error:
                    self._met_bug(entry, error)
        self._arm(now)

    def _ask(self, entry: _Entry, now: float) -> None:
        entry.began = now
        if isinstance(entry.asking, Command) and not entry.asking.gone:
            self._found(entry, Found(False, "its command was killed, and does not end", Cause.COMMAND))
            return
        subject = entry.subject
        done = functools.partial(self._found, entry)
        asking: Probe | Command
        if entry.script is None:
            asking = Command(self._selector, subject, done)
        else:
            asking = Probe(self._selector, subject, entry.script, done)
        entry.asking = asking
        asking.start()
        if entry.asking is asking:
            heapq.heappush(self._deadlines, (now + subject.check.timeout_s, next(self._order), entry, asking))

    def _complain(self, entry: _Entry, schedule: Schedule, now: float) -> None:
        """Checks are late: said once in LATE_S, for whichever is the first."""
        pool, target, late_s = entry.subject.pool, entry.subject.name, schedule.late_s(entry.subject.key)
        if late_s > _interval(entry.standing, entry.subject.check) and now >= self._late_said + LATE_S:
            self._late_said = now
            text = f"{pool}: {target} is checked {late_s:.1f} s late: {schedule.under_way} checks are under way"
            text += f", of {schedule.limit} that can be"
            self._say(Event.CHECKS_LATE, text, pool=pool, target=target)

    def _met_bug(self, entry: _Entry, error: Exception) -> None:
        """A bug in the check of one target is no end of the checks of others, and not of its own (F3)."""
        self._break_off(entry)
        self._schedule(entry).done(entry.subject.key, _interval(entry.standing, entry.subject.check))
        self._bug(error)

    def _bug(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "in a health check", "exception": error})

    def _found(self, entry: _Entry, found: Found) -> None:
        """The check of `entry` is over. A command that was killed and has not ended stays with it."""
        if not isinstance(entry.asking, Command) or entry.asking.gone:
            entry.asking = None
        check = entry.subject.check
        if found.up is None:
            self._impede(entry, found.reason)
        else:
            self._unimpede(entry)
            self._stand(entry, entry.standing.found(found, check, entry.began, clock.monotonic()))
        schedule = self._schedule(entry)
        due = schedule.done(entry.subject.key, _interval(entry.standing, check), failing=found.up is False)
        if schedule.held_up or self._wake is None or due < self._wake:
            self._sooner = True

    def _stand(self, entry: _Entry, standing: Standing) -> None:
        before, entry.standing = entry.standing, standing
        if before.up is standing.up:
            return
        pool, target = entry.subject.pool, entry.subject.name
        if standing.up:
            self._say(Event.TARGET_UP, f"{pool}: {target} is up", pool=pool, target=target)
        else:
            text = f"{pool}: {target} is down: {standing.why}"
            self._say(Event.TARGET_DOWN, text, pool=pool, target=target, reason=standing.why)
        if self._telling is None:
            self._telling = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._on_change()

    def _impede(self, entry: _Entry, reason: str) -> None:
        """This machine could not ask. Said once for each reason, until all that it has kept from being asked were."""
        if entry.impeded == reason:
            return
        self._unimpede(entry)
        entry.impeded = reason
        self._impeded[reason] = self._impeded.get(reason, 0) + 1
        if self._impeded[reason] == 1:
            pool, target = entry.subject.pool, entry.subject.name
            text = f"{pool}: {target} cannot be checked: {reason}; it stays {'up' if entry.standing.up else 'down'}"
            self._say(Event.CHECK_IMPEDED, text, pool=pool, target=target, reason=reason)

    def _unimpede(self, entry: _Entry) -> None:
        if entry.impeded:
            self._impeded[entry.impeded] -= 1
            if not self._impeded[entry.impeded]:
                del self._impeded[entry.impeded]
            entry.impeded = ""

    def _arm(self, now: float) -> None:
        """Have the timer go off when something is due or late."""
        while self._deadlines and self._deadlines[0][2].asking is not self._deadlines[0][3]:
            heapq.heappop(self._deadlines)
        times = [time for time in (self._sockets.wake_at(now), self._commands.wake_at(now)) if time is not None]
        if self._deadlines:
            times.append(self._deadlines[0][0])
        wake = min(times, default=None)
        if wake == self._wake and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake = wake
        self._timer = None if wake is None else self._loop.call_at(wake, self._rung)  # its clock is ours

    def _rung(self) -> None:
        self._timer = None
        self._go()


def _interval(standing: Standing, check: Check) -> float:
    return check.interval_s if standing.up else check.unhealthy_interval_s


def _epoch() -> float:
    """What a monotonic second is on the wall clock, less that second. Timeouts do not go by it: it is for people, and
    for another process.
    """
    return clock.wall() - clock.monotonic()


def _known(entry: _Entry, epoch: float) -> Known:
    standing, (pool, target) = entry.standing, entry.subject.key
    return Known(
        pool=pool,
        target=target,
        up=standing.up,
        asked=standing.last_at is not None,
        since=standing.since,
        since_wall=standing.since + epoch,
        why=standing.why,
        cause=standing.cause,
        failures=standing.failures,
        successes=standing.successes,
        last_reason=standing.last_reason,
        last_at=standing.last_at,
        last_duration_s=standing.last_duration_s,
    )
