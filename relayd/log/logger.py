"""The log of one process: what control and workers call.

    logger = open_logger(spec.log, worker=3)
    logger.event(Event.ACCEPT_PAUSED, "no file descriptors left: accepting is paused on web", listener="web")
    if logger.access_enabled:
        logger.access(AccessRecord(...))
    web = logger.of(listener.log)    # the same, as one listener wants it
    logger.flush()      # once per turn of the loop
    logger.close()      # at the end

Nothing here waits or raises because of where the lines go (F5). A sink that takes nothing (a stopped journald, a full
disk, a pipe that nobody reads) makes lines wait in memory up to LINES_HELD_MAX; further ones are counted, and once
lines go again, one line says how many there were.
"""

import os
import sys
import traceback
import weakref
from collections.abc import Callable, Mapping

from relayd import clock
from relayd.log.access import AccessRecord
from relayd.log.events import Event, Level
from relayd.log.formats import Format, JournalFormat, JsonFormat, TextFormat, Value
from relayd.log.sinks import JournalSink, Sink, open_stream
from relayd.sd.journal import JOURNAL_SOCKET, JournalSender, under_journal
from relayd.spec import ListenerLog, Log

__all__ = ["AccessRecord", "Event", "Level", "ListenerLogger", "Logger", "open_logger"]

#: Lines that wait for a sink: at 400 bytes a line about 3 MiB, and nearly a second of 10,000 connections/s.
LINES_HELD_MAX = 8192
#: Seconds before a sink that took nothing is asked again: a dead one costs 100 system calls a second and not one per
#: loop turn, and journald with room for 512 entries may still take 50,000 a second.
RETRY_INTERVAL_S = 0.01
#: Lines that one `flush` writes: to journald, which is the slowest, 7 us each. What has waited for a sink for long goes
#: to it over several turns, and delays none of them.
LINES_PER_FLUSH = 256
#: Of each kind of event: lines written in one interval, seconds, before the rest are only counted.
BURST = 10
BURST_INTERVAL_S = 10.0


class Logger:
    """Writes lines in one format to one sink. Owns the sink. For one thread."""

    def __init__(
        self,
        log: Log,
        format_: Format,
        sink: Sink,
        *,
        monotonic: Callable[[], float] = clock.monotonic,
        wall: Callable[[], float] = clock.wall,
    ) -> None:
        #: Whether to make an AccessRecord at all: `[log] access`. The level does not matter for access lines.
        self.access_enabled = log.access
        #: Lines that nobody will ever see, since the start.
        self.lost = 0
        #: Told where more lines wait than a `flush` writes, or than the sink took: in so many seconds is time for the
        #: next one. Whoever turns often enough for that by itself need not listen.
        self.on_rest: Callable[[float], None] | None = None
        self._lost_told = 0
        #: Of syslog: what is less grave is not written.
        self.priority_max = Level(log.level).priority
        self._format = format_
        self._format_access = format_.access
        self._sink = sink
        self._monotonic = monotonic
        self._wall = wall
        self._lines: list[bytes] = []
        self._retry_at: float | None = None
        self._bursts: dict[Event, _Burst] = {}
        self._bursts_left_out = False
        self._of_listeners: weakref.WeakSet[ListenerLogger] = weakref.WeakSet()

    def of(self, rules: ListenerLog) -> "ListenerLogger":
        """What lines about one listener are written through."""
        of_listener = ListenerLogger(self, rules)
        self._of_listeners.add(of_listener)
        return of_listener

    def change(self, log: Log) -> None:
        """From now on write what `log` says. The format stays."""
        self.access_enabled = log.access
        self.priority_max = Level(log.level).priority
        for each in tuple(self._of_listeners):
            each.look()

    def enabled(self, level: Level) -> bool:
        """Whether events of `level` are written; for callers to whom making the message costs something."""
        return level.priority <= self.priority_max

    def event(self, event: Event, message: str, /, **fields: Value) -> None:
        """Write a line about `event` at once, as far as the sink takes it, unless the level is filtered or limited.

        `message` alone tells a reader all; `fields` say it again for machines. A field of several lines (`traceback`)
        is shown to readers too.
        """
        if event.level.priority <= self.priority_max:
            self.write(event, message, fields)

    def write(self, event: Event, message: str, fields: Mapping[str, Value]) -> None:
        """Write a line about `event`, whatever its level, as far as the sink takes it, unless it is limited."""
        if event.limited and not self._in_burst(event):
            return
        self._hold(self._format.event(self._wall(), event, message, fields))
        self.flush()

    def bug(self, what: str, error: BaseException, /, **fields: Value) -> None:
        """Write what a bug did, with its traceback (F3). `what` goes on from "a bug in relayd "."""
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        message = f"a bug in relayd {what}: {error!r}; please report this"
        self.event(Event.INTERNAL_ERROR, message, **fields, traceback=trace)

    def access(self, record: AccessRecord) -> None:
        """Keep the line of an ended connection for the next `flush`. Does not ask `access_enabled`: the caller has."""
        if len(self._lines) < LINES_HELD_MAX or self._has_room():
            self._lines.append(self._format_access(record))
        else:
            self.lost += 1

    def living(self, event: Event, record: AccessRecord) -> None:
        """Keep the line of a connection or session that lives for the next `flush`. The caller has asked whether it is
        wanted.
        """
        self._hold(self._format.living(event, record))

    def flush(self) -> None:
        """Write some of what is held, as far as the sink takes it. Cheap when there is nothing."""
        if self._bursts_left_out:
            self._tell_left_out(self._monotonic())
        if not self._lines and not self._sink.pending:
            return
        if self._retry_at is not None and self._monotonic() < self._retry_at:
            return
        self._write()
        if not self._lines and self._retry_at is None and self.lost > self._lost_told:
            self._tell_lost()

    def drain(self) -> None:
        """Write all that is held, as far as the sink takes it: at the end, when nobody waits for a turn any more."""
        self._retry_at = None
        self.flush()
        while self._lines and self._retry_at is None:
            self.flush()

    def close(self) -> None:
        """Say what was left out, write what the sink takes now, and close it. What is still held then is lost."""
        self._tell_left_out(float("inf"))
        self.drain()
        self.lost += len(self._lines)
        self._lines.clear()
        self._sink.close()

    def _hold(self, line: bytes) -> None:
        if len(self._lines) < LINES_HELD_MAX or self._has_room():
            self._lines.append(line)
        else:
            self.lost += 1

    def _has_room(self) -> bool:
        """All are held that can be: so many have come in one turn, or the sink takes nothing."""
        if self._retry_at is None:
            self._write()
        return len(self._lines) < LINES_HELD_MAX

    def _write(self) -> None:
        lines = self._lines
        due = lines if len(lines) <= LINES_PER_FLUSH else lines[:LINES_PER_FLUSH]
        most = len(due)
        taken = self._sink.write(due)
        if taken == len(lines):
            lines.clear()
        else:
            del lines[:taken]
        blocked = taken < most or self._sink.pending
        self._retry_at = self._monotonic() + RETRY_INTERVAL_S if blocked else None
        if lines and taken and self.on_rest is not None:
            self.on_rest(RETRY_INTERVAL_S)

    def _tell_lost(self) -> None:
        count, self._lost_told = self.lost - self._lost_told, self.lost
        message = f"{count} log lines were lost: the log took nothing for a while, or not fast enough"
        self._hold(self._format.event(self._wall(), Event.LINES_LOST, message, {"count": count}))
        self._write()

    def _in_burst(self, event: Event) -> bool:
        """Whether one more line of this kind may be written now; counts it either way."""
        now = self._monotonic()
        burst = self._bursts.get(event)
        if burst is None or now >= burst.ends_at:
            self._tell_left_out(now)
            self._bursts[event] = _Burst(now + BURST_INTERVAL_S)
            return True
        if burst.written < BURST:
            burst.written += 1
            return True
        burst.left_out += 1
        self._bursts_left_out = True
        return False

    def _tell_left_out(self, now: float) -> None:
        """One line for each kind of which some were left out in an interval that is over."""
        for event, burst in list(self._bursts.items()):
            if now < burst.ends_at:
                continue
            del self._bursts[event]
            if burst.left_out:
                message = f"{burst.left_out} more lines of {event.value} were left out in {BURST_INTERVAL_S:g} s"
                fields: Mapping[str, Value] = {"kind": event.value, "count": burst.left_out}
                self._hold(self._format.event(self._wall(), Event.LINES_LEFT_OUT, message, fields))
        self._bursts_left_out = any(burst.left_out for burst in self._bursts.values())


class ListenerLogger:
    """The log of a process for lines about one listener, as its `ListenerLog` has them. What is written goes where all
    lines go, and storms are limited together.
    """

    __slots__ = ("__weakref__", "_log", "_priority_max", "_rules", "access", "access_enabled", "progress_s", "start")

    access_enabled: bool
    _priority_max: int

    def __init__(self, log: Logger, rules: ListenerLog) -> None:
        """To be had of `Logger.of`."""
        self._log = log
        #: As `Logger.access`: that itself, for it is called for every connection.
        self.access = log.access
        self.change(rules)

    def change(self, rules: ListenerLog) -> None:
        """From now on write what `rules` says."""
        self._rules = rules
        #: Whether to tell of a start, and how often of progress (None: never): for callers to ask, as `access_enabled`.
        self.start, self.progress_s = rules.start, rules.progress_s
        self.look()

    def look(self) -> None:
        """What the rules leave to the log of the process is perhaps another now."""
        access, level = self._rules.access, self._rules.level
        self.access_enabled = self._log.access_enabled if access is None else access
        self._priority_max = self._log.priority_max if level is None else Level(level).priority

    def event(self, event: Event, message: str, /, **fields: Value) -> None:
        """As `Logger.event`, by the level of this listener."""
        if event.level.priority <= self._priority_max:
            self._log.write(event, message, fields)

    def living(self, event: Event, record: AccessRecord) -> None:
        """As `Logger.living`."""
        self._log.living(event, record)

    def bug(self, what: str, error: BaseException, /, **fields: Value) -> None:
        """As `Logger.bug`."""
        self._log.bug(what, error, **fields)


class _Burst:
    """Lines of one kind in one interval."""

    __slots__ = ("ends_at", "left_out", "written")

    def __init__(self, ends_at: float) -> None:
        self.ends_at = ends_at
        self.written = 1
        self.left_out = 0


def open_logger(
    log: Log,
    *,
    worker: int | None = None,
    fd: int = 1,
    environ: Mapping[str, str] = os.environ,
    journal_socket: str = JOURNAL_SOCKET,
) -> Logger:
    """The logger that `log` describes, to `fd` or to journald. `worker` is named in the lines of a worker.

    Format "auto": journal when `fd` leads to journald, text on a terminal, else JSON. To be called early: where `fd` is
    closed it is opened on /dev/null, before a socket can get its number.
    """
    name = log.format
    if name == "auto":
        name = _format_for(fd, environ)
    if name == "journal":
        if worker is None and not os.path.exists(journal_socket) and sys.stderr is not None:
            # Once, from the control process. Not an error: journald may yet start.
            sys.stderr.write(f'relayd: [log] format is "journal", but nothing listens at {journal_socket}\n')
        return Logger(log, JournalFormat(worker), JournalSink(JournalSender(journal_socket)))
    return Logger(log, TextFormat(worker) if name == "text" else JsonFormat(worker), open_stream(fd))


def _format_for(fd: int, environ: Mapping[str, str]) -> str:
    if under_journal(environ, fd):
        return "journal"
    return "text" if os.isatty(fd) else "json"
