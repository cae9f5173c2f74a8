"""Connections that go to another process, and those that have come from one (R4): what is written down of them.

    RELAYING    both sockets, and of each pump what it holds: bytes that the sink has not taken, a pipe that is not
    empty RESETTING   the same, with how it ends and how long that may take
    DIALING     the client alone, whose early bytes are in its socket: the next process dials anew

A record has what the kernel does not keep. Times are of CLOCK_MONOTONIC, which goes on over a restart, and so do the
timeouts that count from them. This module knows the insides of `Connection` and `Pump`; what changes there changes
here, and with it `channel.parcel.LABEL_VERSION`.
"""

import math
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from relayd.address import from_sockaddr
from relayd.channel.parcel import BROKEN_RECORD
from relayd.choosing.group import Choice, Group
from relayd.net.pipes import Pipe, PipePool
from relayd.outcomes import Outcome, Side, outcome_named
from relayd.relay.batch import Choices
from relayd.relay.stream.connection import RESET_LOOK_S, Arrival, Connection, Phase
from relayd.relay.stream.pump import Flow, Pump
from relayd.relay.stream.service import StreamService

__all__ = ["FDS_MAX", "PumpRecord", "StreamRecord", "freeze", "read", "read_version_1", "table_size", "thaw", "written"]

#: Descriptors of one connection: two sockets, two pipes with two ends each.
FDS_MAX = 6

# A global name is cheaper than an attribute of its enum, and thousands of connections wait for the last one.
_FINISHED = Flow.FINISHED
_DIALING, _RELAYING, _RESETTING = Phase.DIALING.value, Phase.RELAYING.value, Phase.RESETTING.value
#: Sockets of connections are non-blocking, whatever process they come from: Python is to know it, too.
_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
_FAMILIES = frozenset({int(socket.AF_INET), int(socket.AF_INET6), int(socket.AF_UNIX)})


class PumpRecord(NamedTuple):
    """One direction. `pending` is how many bytes of the tail it holds; `piped` how many are in its pipe, whose ends are
    among the descriptors, 0 where it has none.
    """

    finished: bool
    moved: int
    first_byte_at: float
    splicing: bool
    pending: int
    piped: int


class StreamRecord(NamedTuple):
    """One connection. `client` is the peer's sockaddr, a path for a Unix socket. `bind_port` and `bind_index` say
    which group dials for it; `choice` and `tried` are places in the batch's list of those, -1 before the first dial.
    `dialled` is whether it has a target's socket; `early`, the events of the client so far, and `tried` matter while
    DIALING, when there are no `pumps`. `outcome`, `errno` and `deadline` are those of DIALING and RESETTING;
    at `timer_at` its timeouts are to be looked at, unless they are others now.
    """

    # Written as JSON:
    conn_id: str
    phase: str
    client: Sequence[str | int]
    local: str | None
    tried: Sequence[int]
    first_fin: str | None
    outcome: str | None
    # Written as they are, in this order, and both pumps behind them (`_NUMBERS`):
    af: int
    bind_port: int
    bind_index: int
    choice: int
    dialled: bool
    early: int
    attempts: int
    started_at: float
    connected_at: float
    active_at: float
    guarded: bool
    keepalive_pending: bool
    errno: int
    deadline: float
    timer_at: float
    reloads: int
    restarts: int
    pumps: Sequence[PumpRecord]

    def check(self) -> None:
        """Raises ValueError for what no connection is, and none can go on as."""
        phase = self.phase
        relaying = phase in (_RELAYING, _RESETTING)
        if not (relaying or phase == _DIALING) or relaying is not bool(self.pumps) or (relaying and not self.dialled):
            raise ValueError(f"no pumps, or no target, while {phase}")
        if (self.dialled and self.choice < 0) or (phase == _RESETTING and self.outcome is None):
            raise ValueError(f"no choice, or no end, while {phase}")

    @property
    def fds(self) -> int:
        """How many descriptors it has."""
        count = 1 + self.dialled
        for pump in self.pumps:
            if pump.piped:
                count += 2
        return count

    @property
    def tail(self) -> int:
        """How many bytes of the batch's tail it has."""
        count = 0
        for pump in self.pumps:
            count += pump.pending
        return count


#: A record's fields from `af` to `restarts`, whether it has pumps, and both. JSON takes three times as long to write
#: them and twice as long to read them, which was a fifth of all that a restart does for a connection.
_NUMBERS = struct.Struct("=4i?Iq3d??i2d2q" + "?" + 2 * "?Qd?QQ")
_TEXTS = StreamRecord._fields.index("af")
_NO_PUMPS = (False, *PumpRecord(False, 0, 0.0, False, 0, 0) * 2)


def written(records: Sequence[StreamRecord]) -> tuple[list[Sequence[object]], bytes]:
    """What `read` makes `records` of: what JSON can have, and a table of numbers."""
    table = []
    for record in records:
        pumps = (True, *record.pumps[0], *record.pumps[1]) if record.pumps else _NO_PUMPS
        table.append(_NUMBERS.pack(*record[_TEXTS:-1], *pumps))
    return [record[:_TEXTS] for record in records], b"".join(table)


def table_size(count: int) -> int:
    """Of so many records, in bytes."""
    return count * _NUMBERS.size


def read(texts: Sequence[Sequence[Any]], table: bytes | memoryview) -> Iterator[StreamRecord]:
    """What was `written`, one by one. Raises ValueError or TypeError where that is none."""
    if len(table) != table_size(len(texts)):
        raise ValueError("there are not as many texts as numbers")
    for text, numbers in zip(texts, _NUMBERS.iter_unpack(table), strict=True):
        pumps = (PumpRecord._make(numbers[-12:-6]), PumpRecord._make(numbers[-6:])) if numbers[-13] else ()
        record = StreamRecord._make((*text, *numbers[:-13], pumps))
        if record.af not in _FAMILIES or not record.client:
            raise ValueError("no client")
        yield record


#: What was before `pumps` in a record of version 1 of parcels, in its order.
_FIELDS_1 = (
    *("conn_id", "phase", "af", "client", "local", "bind_port", "bind_index", "choice", "tried", "dialled", "early"),
    *("attempts", "started_at", "connected_at", "active_at", "first_fin", "guarded", "keepalive_pending", "outcome"),
    *("errno", "deadline", "timer_at", "reloads", "restarts"),
)


def read_version_1(values: Iterable[Sequence[Any]]) -> Iterator[StreamRecord]:
    """As `read`, from what version 1 of parcels has of connections: JSON alone."""
    for *fields, pumps in values:
        record = StreamRecord(
            **dict(zip(_FIELDS_1, fields, strict=True)), pumps=tuple(PumpRecord._make(pump) for pump in pumps)
        )
        try:
            yield from read(*written([record]))
        except (struct.error, IndexError) as error:
            raise ValueError(f"no record of a connection: {error}") from error


# away ---------------------------------------------------------------------------------------------------------------


def freeze(connection: Connection, choices: Choices) -> tuple[StreamRecord, list[int], bytes]:
    """The record of a live connection, its descriptors, which stay its own, and its part of the tail. Its choice gets a
    number among `choices`.

    Changes nothing, but that a sudden end would be a reset. What the connection does afterwards is not in the record:
    it leaves (`Connection.leave`), or the record is for nothing.
    """
    fds, tail = [connection._client_fd], b""
    if connection._target is not None:
        fds.append(connection._target_fd)
    pumps = []
    if connection.phase is not Phase.DIALING:
        connection.guard()
        for pump in (connection._pump_in, connection._pump_out):
            if pump is None:
                raise RuntimeError(f"no pumps while {connection.phase}")
            pending, piped, pipe = len(pump._pending), 0, pump._pipe
            if pending:
                tail += pump._pending
            if pipe is not None and pipe.held:
                piped = pipe.held
                fds += (pipe.read_fd, pipe.write_fd)
            finished = pump.flow is _FINISHED
            pumps.append(PumpRecord(finished, pump.moved, pump.first_byte_at, pump._splicing, pending, piped))
    return _record(connection, choices, pumps), fds, tail


def _record(connection: Connection, choices: Choices, pumps: list[PumpRecord]) -> StreamRecord:
    choice, arrival = connection.choice, connection._arrival
    first_fin, outcome = connection._first_fin, connection._outcome
    # By position, in the order of the class: by name it takes a quarter of all that is done here.
    return StreamRecord(
        connection.conn_id,
        connection.phase.value,
        _plain(arrival.af, connection._client_sockaddr),
        arrival.local,
        [choices.number(each) for each in connection._tried],
        first_fin.value if first_fin is not None else None,
        outcome.value if outcome is not None else None,
        arrival.af,
        arrival.group.bind_port,
        arrival.group.index,
        choices.number(choice) if choice is not None else -1,
        connection._target is not None,
        connection._early,
        connection._attempts,
        connection._started_at,
        connection._connected_at,
        connection.active_at,
        connection._guarded,
        connection._keepalive_pending,
        connection._errno,
        connection._deadline,
        connection._timer_at,
        connection.loop.reloads - connection._reloads_before,
        connection._restarts,
        pumps,
    )


def _plain(af: int, sockaddr: object) -> Sequence[str | int]:
    """What JSON can have of the sockaddr that accept(2) gave."""
    if af == socket.AF_UNIX:
        return [str(from_sockaddr(af, sockaddr)).removeprefix("unix:")]
    if not isinstance(sockaddr, tuple):
        raise TypeError(f"not an internet socket address: {sockaddr!r}")
    return sockaddr


# back ---------------------------------------------------------------------------------------------------------------


def thaw(
    service: StreamService,
    group: Group,
    record: StreamRecord,
    choices: Sequence[Choice],
    fds: Sequence[int],
    tail: bytes,
) -> Connection | None:
    """A connection of `service` that goes on as `record` says, with `fds` and `tail`, as many as it says. It owns the
    descriptors, and dials for another target by `group`.

    None: the record is not what this version makes of it, and the connection has ended by its name. Raises OSError or
    ValueError where not even that can be said; `fds` are closed then.
    """
    left = list(fds)  # those that nobody has yet
    try:
        sockaddr = record.client[0] if record.af == socket.AF_UNIX else tuple(record.client)
        client = _socket(record.af, left)
        connection = Connection(service, client, sockaddr, Arrival(record.af, record.local, group), record.conn_id)
        try:
            record.check()
            _remember(connection, record, choices)
            if record.dialled:
                choice = choices[record.choice]
                target = connection._target = _socket(choice.af, left)
                connection._target_fd = target.fileno()
                if record.pumps:
                    _resume(connection, record, target, choice.af, left, tail)
            if not record.pumps:
                _dial_on(connection, record.timer_at)
        except BROKEN_RECORD:
            connection.end(Outcome.NOT_TAKEN_OVER)
            return None
        return connection
    finally:
        for fd in left:
            os.close(fd)


def _socket(af: int, fds: list[int]) -> socket.SocketType:
    """Takes the first of `fds`, which is non-blocking, as it was with the process before. Raises OSError where that is
    no socket, and leaves it.
    """
    sock = socket.SocketType(af, _STREAM, 0, fds[0])
    del fds[0]
    return sock


def _remember(connection: Connection, record: StreamRecord, choices: Sequence[Choice]) -> None:
    if record.choice >= 0:
        connection._count(choices[record.choice])
    connection._tried = tuple(choices[at] for at in record.tried)
    connection._early = record.early
    connection._attempts = record.attempts
    connection._started_at = record.started_at
    connection._connected_at = record.connected_at
    connection.active_at = record.active_at
    connection._first_fin = Side(record.first_fin) if record.first_fin is not None else None
    connection._guarded = record.guarded
    connection._keepalive_pending = record.keepalive_pending
    connection._outcome = outcome_named(record.outcome) if record.outcome is not None else None
    connection._errno, connection._deadline = record.errno, record.deadline
    connection._reloads_before -= record.reloads
    connection._restarts = record.restarts + 1


def _dial_on(connection: Connection, timer_at: float) -> None:
    """Before the first dial, in the middle of one, or before it is tried again."""
    connection.start()
    if connection._target is not None:
        connection.loop.selector.watch(connection._target_fd, connection.target_event)
        connection._set_timer(timer_at)
    elif connection._attempts:
        connection._set_timer(connection.loop.now)


def _resume(
    connection: Connection, record: StreamRecord, target: socket.SocketType, af: int, fds: list[int], tail: bytes
) -> None:
    """Both pumps as they were; takes the ends of their pipes out of `fds`. What each can do next comes as an event:
    watching a socket tells what it is ready for.
    """
    client, service, loop = connection._client, connection._service, connection.loop
    pump_in = Pump(connection, client, target, service.pipes, record.af)
    pump_out = Pump(connection, target, client, service.pipes, af)
    connection._pump_in, connection._pump_out = pump_in, pump_out
    was_in, was_out = record.pumps
    pump_in.moved, pump_in.first_byte_at, pump_in._splicing = was_in.moved, was_in.first_byte_at, was_in.splicing
    pump_out.moved, pump_out.first_byte_at, pump_out._splicing = was_out.moved, was_out.first_byte_at, was_out.splicing
    # That has been counted where it was moved: whatever becomes of this connection, it is not to be counted again.
    service.counters.bytes_in -= was_in.moved
    service.counters.bytes_out -= was_out.moved
    if was_in.pending or was_in.piped or was_in.finished:
        _refill(pump_in, pump_out, was_in, service.pipes, fds, tail[: was_in.pending])
    if was_out.pending or was_out.piped or was_out.finished:
        _refill(pump_out, pump_in, was_out, service.pipes, fds, tail[was_in.pending :])
    connection.phase = Phase.RELAYING
    loop.selector.watch(connection._client_fd, pump_in.source_event)
    loop.selector.watch(connection._target_fd, pump_out.source_event)
    if record.phase == _RESETTING:
        connection.phase = Phase.RESETTING
        survivor = connection._survivor
        if survivor is not None:
            survivor.flags_at_end = 0
        connection._set_timer(loop.now + RESET_LOOK_S)
    elif record.timer_at < math.inf:
        connection._set_timer(record.timer_at)
    else:
        connection._timer_at = record.timer_at


def _refill(pump: Pump, other: Pump, was: PumpRecord, pool: PipePool | None, fds: list[int], pending: bytes) -> None:
    """Have `pump` hold what it held; `other` is of the opposite direction. Takes the ends of its pipe out of `fds`."""
    pump._pending = pending
    if was.piped and pool is not None:
        pump._pipe = Pipe.of(fds[0], fds[1], was.piped)
        del fds[:2]
        pool.lend_another()
    if was.finished:
        pump.flow = _FINISHED
    elif pump.holding:
        pump.flow, other._held_up = Flow.BLOCKED, pump
