"""One direction of a connection: bytes from `source` to `sink`. Two of these, swapped, make a connection.

                                 ┌── the sink took all ──┐
                                 ▼                       │
    QUEUED ◀─a step is due─▶ FLOWING ─the sink is full─▶ BLOCKED
       │      by itself          │ FIN, and all before it   │
       └────── stop() ──────▶ FINISHED ◀───── stop() ───────┘        release() from any state: RELEASED

Small exchanges move by one recv and one send. A recv that fills its buffer is bulk: from then on the bytes go by
splice(2) through a pipe, until a burst was small again. Where splice does not work, or no pipe is to be had, bulk is
copied as well.

A pump reads only while it holds nothing: so it holds at most the remainder of one buffer or one pipe (S4), and when
it reads a FIN, every byte before it has been written (S2). Nobody turns the selector's interest on or off; both
sockets are registered once, for both directions, and an edge that comes while BLOCKED is made up for by reading when
the block ends. The same holds for QUEUED: one that stopped at its budget (S5), or whose socket was out of memory, takes
its next step in the next turn or after a pause, whatever edges come before.
"""

import enum
import os
import socket
from collections.abc import Callable
from typing import Protocol

from relayd.errors import OUT_OF_RESOURCES, SPLICE_UNSUPPORTED, TRANSIENT
from relayd.net.pipes import Pipe, PipePool
from relayd.net.poller import ENDING, ERR, IN, OUT, PRI, RDHUP
from relayd.net.tcp import nothing_unread
from relayd.relay.loop import Loop

#: One recv. 64 KiB is what loopback and GRO deliver at once, and what the kernel copies in about the time of a system
#: call.
BUFFER_BYTES = 64 * 1024
#: Copied in one step before others get their turn (S5).
_COPY_STEP_BYTES = 4 * BUFFER_BYTES
#: Spliced in one step: pages change hands, so a byte costs about a tenth of a copied one.
_SPLICE_STEP_BYTES = 1024 * 1024
#: Asked of one splice; the pipe's size bounds what comes.
_SPLICE_BYTES = 1024 * 1024
#: A burst of less than this ends the splicing: below it, one recv and one send are cheaper than three splices.
_SMALL_BURST_BYTES = 16 * 1024
#: Wait after ENOBUFS or ENOMEM from a socket that is otherwise fine.
_RESOURCES_RETRY_S = 0.1

_AF_UNIX = int(socket.AF_UNIX)
_MORE = int(socket.MSG_MORE)
_READABLE = IN | ENDING
#: RDHUP comes with both; a reset has ERR as well.
_FIN_OR_RESET = RDHUP | ERR
#: The event of a socket that has bytes, and nothing else to say.
_BYTES = IN | OUT
_SPLICE_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Flow(enum.Enum):
    """The state of a pump; the moves are drawn above, and `LEGAL` has them as data."""

    __hash__ = object.__hash__  # members are singletons, and Enum's own goes through Python

    FLOWING = "flowing"
    QUEUED = "queued"
    BLOCKED = "blocked"
    FINISHED = "finished"
    RELEASED = "released"


LEGAL = {
    Flow.FLOWING: frozenset({Flow.QUEUED, Flow.BLOCKED, Flow.FINISHED, Flow.RELEASED}),
    Flow.QUEUED: frozenset({Flow.FLOWING, Flow.FINISHED, Flow.RELEASED}),
    Flow.BLOCKED: frozenset({Flow.FLOWING, Flow.QUEUED, Flow.FINISHED, Flow.RELEASED}),
    Flow.FINISHED: frozenset({Flow.RELEASED}),
    Flow.RELEASED: frozenset[Flow](),
}
# Looked up once: an attribute of an enum class costs more than a global.
_FLOWING, _QUEUED, _BLOCKED = Flow.FLOWING, Flow.QUEUED, Flow.BLOCKED
_FINISHED, _RELEASED = Flow.FINISHED, Flow.RELEASED
_MOVING = (_FLOWING, _QUEUED, _BLOCKED)


class Owner(Protocol):
    """What a pump tells its connection. Each of these may end the connection, and with it the pump."""

    #: When a byte last moved, in either direction (monotonic seconds); pumps set it.
    active_at: float
    loop: Loop

    def guard(self) -> None:
        """There is bulk: a cut would be felt."""

    def opposite(self, pump: "Pump") -> "Pump":
        """The pump of the other direction."""

    def finished(self, pump: "Pump") -> None:
        """`pump` has read a FIN, and everything before it is written."""

    def source_failed(self, pump: "Pump", number: int) -> None:
        """Reading failed with errno `number`; everything read before is written."""

    def source_failing(self, pump: "Pump") -> None:
        """The source has failed, but `pump` is blocked and holds bytes that came before."""

    def source_event_after_end(self, pump: "Pump") -> None:
        """The source, whose FIN has been read, reports another end or an error."""

    def sink_failed(self, pump: "Pump", number: int) -> None:
        """Writing failed with errno `number`."""

    def crashed(self, error: Exception) -> None:
        """There is a bug."""


class Pump:
    """Moves bytes from `source` to `sink`. Owns its pipe while it has one; the sockets belong to the connection.

    `moved` counts bytes that the sink has taken, the first of them at `first_byte_at` (monotonic seconds, 0 before).
    """

    __slots__ = (
        "_ending",
        "_held_up",
        "_owner",
        "_pending",
        "_pipe",
        "_pipes",
        "_recv",
        "_send",
        "_splicing",
        "first_byte_at",
        "flags_at_end",
        "flow",
        "moved",
        "sink",
        "source",
    )

    #: The pump of the other direction while it is BLOCKED, for its sink is our source.
    _held_up: "Pump | None"
    _recv: Callable[[int], bytes]
    _send: Callable[..., int]

    def __init__(
        self, owner: Owner, source: socket.SocketType, sink: socket.SocketType, pipes: PipePool | None, af: int
    ) -> None:
        """Both sockets are connected, and `af` is the family of `source`. `pipes` None never splices. Moves nothing
        itself: from now on an event does.
        """
        self._owner = owner
        self.source = source
        self.sink = sink
        self._recv = source.recv
        self._send = sink.send
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._pending: memoryview | bytes = b""
        self._splicing = False
        #: Events that say: do not stop at a short read. On a Unix socket all do, for a message with descriptors ends a
        #: read early, with more behind it and no event for that (unix(7)).
        self._ending = IN if af == _AF_UNIX else 0
        self._held_up = None
        self.flow = _FLOWING
        self.moved = 0
        self.first_byte_at = 0.0
        #: For the send of the last bytes, where a FIN is known to follow: it rides on their segment (send(2)).
        self.flags_at_end = _MORE

    @property
    def holding(self) -> bool:
        """True while it has bytes that the sink has not taken."""
        return bool(self._pending) or (self._pipe is not None and self._pipe.held > 0)

    def source_event(self, mask: int) -> None:
        """Handler of the socket that is this pump's source, and the sink of the other one.

        It runs once per event, and a request makes two of them: so the common way through it is short.
        """
        if mask == _BYTES and self.flow is _FLOWING and self._held_up is None:
            if self._splicing:
                self._splice()
            else:
                self._copy()
            return
        if mask & OUT and self._held_up is not None:
            held_up, self._held_up = self._held_up, None
            if held_up.flow is _BLOCKED:
                held_up.flow = _FLOWING
                held_up.run()
        if mask & ENDING:
            self._ending |= mask & ENDING
            if mask & PRI and self._pipes is not None and self.flow in _MOVING:
                self._copy_from_now_on()  # splice(2) never gets past an urgent mark (tcp(7))
        if self.flow is _FLOWING:
            if mask & _READABLE:
                self.run()
        elif self.flow is _FINISHED:
            if mask & ENDING:
                self._owner.source_event_after_end(self)
        elif self.flow is _BLOCKED and mask & ERR:
            self._owner.source_failing(self)

    def run(self) -> None:
        """Move what can be moved, up to one step. Only FLOWING does anything."""
        if self.flow is not _FLOWING or (self._pending and not self._write_pending()):
            return
        if self._splicing:
            self._splice()
        else:
            self._copy()

    def _again(self) -> None:
        """Take the next step in the next turn: one step a turn, one place in the queue."""
        if self.flow is not _QUEUED:
            self.flow = _QUEUED
            self._owner.loop.again(self.expire)

    def expire(self) -> None:
        """The step of a QUEUED pump is due."""
        if self.flow is _QUEUED:
            self.flow = _FLOWING
            self.run()

    def crashed(self, error: Exception) -> None:
        """A bug in this pump ends its connection."""
        self._owner.crashed(error)

    def stop(self) -> None:
        """FINISHED: move no more, drop what is held, give the pipe back. Idempotent."""
        self.flow = _FINISHED
        self._pending = b""
        pipe = self._pipe
        if pipe is not None and self._pipes is not None:
            self._pipe = None
            self._pipes.give_back(pipe)

    def release(self) -> None:
        """RELEASED: `stop`, and let go of the other pump, so that reference counting frees the connection at once.

        A step or an event that comes afterwards finds nothing to do.
        """
        if self.flow is not _FINISHED:
            self.stop()
        self.flow = _RELEASED
        self._held_up = None

    def _block(self) -> None:
        """The sink is full: its next event, which the opposite pump gets, ends that."""
        self.flow = _BLOCKED
        self._owner.opposite(self)._held_up = self

    # copying ----------------------------------------------------------------------------------------------------

    def _copy(self) -> None:
        budget = _COPY_STEP_BYTES
        last = False
        while True:
            try:
                data = self._recv(BUFFER_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._source_error(error)
                return
            if not data:
                self._end_of_file()
                return
            if self._ending:
                last = self._ending & _FIN_OR_RESET == RDHUP and nothing_unread(self.source)
            try:
                sent = self._send(data, self.flags_at_end) if last else self._send(data)
            except OSError as error:
                self._pending = data
                self._splicing = len(data) == BUFFER_BYTES and self._pipes is not None
                self._sink_error(error)
                return
            owner = self._owner
            now = owner.active_at = owner.loop.now
            if not self.moved:
                self.first_byte_at = now
            self.moved += sent
            size = len(data)
            if sent == size < BUFFER_BYTES:
                if not self._ending:
                    return  # a short read is an empty socket: the next byte makes a new edge
                if last:
                    self._end_of_file()
                    return
            else:
                if size == BUFFER_BYTES:
                    owner.guard()
                    self._splicing = self._pipes is not None
                if sent < size:
                    self._pending = memoryview(data)[sent:]
                    self._block()
                    return
                if self._splicing:
                    self._splice()
                    return
            budget -= size
            if budget <= 0:
                self._again()
                return

    def _write_pending(self) -> bool:
        """Write the remainder; True when all of it is written."""
        pending = self._pending
        try:
            sent = self._send(pending)
        except OSError as error:
            self._sink_error(error)
            return False
        self._moved(sent)
        if sent < len(pending):
            self._pending = memoryview(pending)[sent:]
            self._block()
            return False
        self._pending = b""
        return True

    def _moved(self, count: int) -> None:
        now = self._owner.loop.now
        if not self.moved:
            self.first_byte_at = now
        self.moved += count
        self._owner.active_at = now

    # splicing ---------------------------------------------------------------------------------------------------

    def _splice(self) -> None:
        pipes = self._pipes
        pipe = self._pipe
        if pipe is None:
            pipe = self._pipe = pipes.take() if pipes is not None else None
        if pipe is None or pipes is None:
            self._splicing = False
            self._again()  # no pipe to be had: copy, and ask again at the next full buffer
            return
        burst = 0
        while True:
            while pipe.held:
                if not self._empty_pipe(pipe):
                    return
            if burst >= _SPLICE_STEP_BYTES:
                self._again()
                return
            try:
                # The pipe is empty here, so EAGAIN means an empty socket and never a full pipe.
                taken = os.splice(self.source.fileno(), pipe.write_fd, _SPLICE_BYTES, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                self._pipe = None
                pipes.give_back(pipe)
                self._splicing = burst >= _SMALL_BURST_BYTES
                return
            except OSError as error:
                if error.errno in SPLICE_UNSUPPORTED:
                    self._copy_from_now_on()
                else:
                    self._source_error(error)
                return
            if not taken:
                self._copy_from_now_on()  # most likely the end; but splice(2) says the same at an urgent mark
                return
            pipe.held = taken
            burst += taken

    def _empty_pipe(self, pipe: Pipe) -> bool:
        """Pipe to sink, once; False when the step ends here."""
        try:
            written = os.splice(pipe.read_fd, self.sink.fileno(), pipe.held, flags=_SPLICE_FLAGS)
        except OSError as error:
            if error.errno in SPLICE_UNSUPPORTED:
                self._copy_from_now_on()
            else:
                self._sink_error(error)
            return False
        pipe.held -= written
        self._moved(written)
        return True

    def _copy_from_now_on(self) -> None:
        """splice(2) does not work here: take the bytes out of the pipe, and never use one again (S8)."""
        pipe, pipes = self._pipe, self._pipes
        if pipe is not None and pipes is not None:
            while pipe.held:
                data = os.read(pipe.read_fd, pipe.held)
                pipe.held -= len(data)
                self._pending = bytes(self._pending) + data
            pipes.give_back(pipe)
        self._pipe = self._pipes = None
        self._splicing = False
        self._again()

    # ends -------------------------------------------------------------------------------------------------------

    def _end_of_file(self) -> None:
        self.flow = _FINISHED
        if self._pipe is not None:
            self.stop()
        self._owner.finished(self)

    def _source_error(self, error: OSError) -> None:
        number = error.errno or 0
        if number in OUT_OF_RESOURCES:
            self._retry_later()
        elif number in TRANSIENT:
            self._again()  # EINTR; EAGAIN is caught where it happens
        else:
            self._owner.source_failed(self, number)

    def _sink_error(self, error: OSError) -> None:
        number = error.errno or 0
        if isinstance(error, BlockingIOError):
            self._block()
        elif number in OUT_OF_RESOURCES:
            self._retry_later()
        elif number in TRANSIENT:
            self._again()
        else:
            self._owner.sink_failed(self, number)

    def _retry_later(self) -> None:
        self.flow = _QUEUED
        loop = self._owner.loop
        loop.call_at(self, loop.now + _RESOURCES_RETRY_S)
