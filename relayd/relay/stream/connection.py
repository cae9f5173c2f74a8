"""One connection, from accept to close, in the order in which it happens.

                    ┌────────── close(outcome) from any phase ──────────┐
    DIALING ──▶ RELAYING ──(both pumps finished)────────────────▶ CLOSED
     │  ▲          │                                                ▲
     └──┘          └─one side reset─▶ RESETTING ─flushed, or late───┘
    next target, up to `dial_attempts`

DIALING waits for connect(2), or for the time to try again. The client's early bytes stay in its socket. RELAYING is
two pumps. RESETTING delivers what came before a reset, bounded, and then passes the reset on (S3): the pump that
reads from the failed side runs on to the end of what there is, the other one is stopped.

Every end that is not `normal` resets both sides: a FIN says "that was all", and nobody shall take a cut stream for a
whole one.
"""

import contextlib
import enum
import errno
import socket

from relayd.choosing.group import Choice, Group, client_key
from relayd.errors import OUT_OF_RESOURCES, REFUSED, spoken
from relayd.log.access import LIVING
from relayd.log.events import Event
from relayd.net.dialing import NoSource, met_itself, open_dial_socket, pending_error
from relayd.net.options import apply_keepalive
from relayd.net.poller import ENDING, ERR, HUP, IN, OUT
from relayd.net.tcp import reset_at_close, unacknowledged
from relayd.outcomes import Outcome, Side
from relayd.relay.loop import Actor
from relayd.relay.stream.pump import Flow, Pump
from relayd.relay.stream.record import connection_record
from relayd.relay.stream.service import StreamService
from relayd.spec import Target
from relayd.values import dataclass

#: How long bytes that came before a reset may take to be acknowledged before the reset overtakes them, and how often
#: we look.
RESET_FLUSH_S = 2.0
RESET_LOOK_S = 0.01
#: Wait before a dial that this machine could not even begin (no descriptor, full Unix backlog) is tried again: at least
#: this, and a quarter of the time that it has waited already, so that a thousand of them cost little.
_DIAL_RETRY_S = 0.05


class Phase(enum.Enum):
    """Where a connection is; the moves are drawn above, and `LEGAL` has them as data."""

    DIALING = "dialing"
    RELAYING = "relaying"
    RESETTING = "resetting"
    CLOSED = "closed"

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash goes through Python


LEGAL = {
    Phase.DIALING: frozenset({Phase.RELAYING, Phase.CLOSED}),
    Phase.RELAYING: frozenset({Phase.RESETTING, Phase.CLOSED}),
    Phase.RESETTING: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset[Phase](),
}
_DIALING, _RELAYING, _RESETTING, _CLOSED = Phase.DIALING, Phase.RELAYING, Phase.RESETTING, Phase.CLOSED
_FINISHED, _NORMAL = Flow.FINISHED, Outcome.NORMAL
_CLIENT, _TARGET = Side.CLIENT, Side.TARGET
_AF_UNIX = int(socket.AF_UNIX)
#: What connect(2) of a non-blocking socket says when an event will say the rest.
_UNDER_WAY = (errno.EINPROGRESS, 0, errno.EINTR)
#: Dials that fail for us, and say nothing about the target.
_OURS = (Outcome.NO_SOURCE, Outcome.RESOURCE_EXHAUSTED)
_NEVER = float("inf")
_NO_TIMER: set[Actor] = set()  # shared by all that have no timer yet; nobody is ever in it


@dataclass(frozen=True, slots=True)
class Arrival:
    """What all connections of one listening socket have in common.

    `af` of the clients; `local` the address that they came to, None on a wildcard, where each connection is asked;
    `group` the targets that they go to.
    """

    af: int
    local: str | None
    group: Group


class Connection:
    """A client's socket, a target's socket, and a pump each way. Owns all of them until it is CLOSED."""

    __slots__ = (
        "_arrival",
        "_attempts",
        "_client",
        "_client_fd",
        "_client_sockaddr",
        "_connected_at",
        "_counted",
        "_deadline",
        "_early",
        "_errno",
        "_first_fin",
        "_guarded",
        "_keepalive_pending",
        "_number",
        "_outcome",
        "_pump_in",
        "_pump_out",
        "_reloads_before",
        "_restarts",
        "_service",
        "_started_at",
        "_target",
        "_target_fd",
        "_timer",
        "_timer_at",
        "_tried",
        "active_at",
        "choice",
        "loop",
        "phase",
    )

    def __init__(
        self,
        service: StreamService,
        client: socket.SocketType,
        sockaddr: object,
        arrival: Arrival,
        conn_id: str | None = None,
    ) -> None:
        """Takes `client`, an accepted non-blocking socket whose peer is `sockaddr`. With a `conn_id` it is one that
        another process has accepted and counted (`handover.thaw`).
        """
        self._service = service
        self._client = client
        self._client_fd = client.fileno()
        self._client_sockaddr = sockaddr
        self._arrival = arrival
        self._target: socket.SocketType | None = None
        self._target_fd = -1
        self.choice: Choice | None = None
        #: The choice while it counts this connection; what it was stays in `choice`.
        self._counted: Choice | None = None
        #: Both between DIALING and CLOSED, and neither else.
        self._pump_in: Pump | None = None
        self._pump_out: Pump | None = None
        self._outcome: Outcome | None = None
        self._errno = 0
        self._attempts = 0
        self._early = 0
        self._first_fin: Side | None = None
        self._guarded = False
        self._connected_at = 0.0
        self._deadline = 0.0
        self._timer: set[Actor] = _NO_TIMER
        self._timer_at = 0.0
        self._tried: tuple[Choice, ...] = ()
        self._keepalive_pending = False
        self.loop = service.loop
        self.phase = _DIALING
        self._started_at = self.active_at = service.loop.now
        self._restarts = 0
        #: Reloads that this process had seen when the connection began.
        self._reloads_before = service.loop.reloads
        #: The number, or the whole id of one that has come from another process.
        self._number: int | str = service.begin(self) if conn_id is None else service.readmit(self, conn_id)

    # dialling ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Watch the client. Its first event comes in the next turn, for it is writable, and tells whether it has spoken
        already, which is good to know for a dial. Where targets have limits, dial at once: whether there is room for
        another client is known then.
        """
        try:
            self.loop.selector.watch(self._client_fd, self.client_event)
        except OSError as error:
            self._close(Outcome.RESOURCE_EXHAUSTED, error.errno)
            return
        if self._arrival.group.limited:
            self._dial_next()

    def _dial_next(self) -> None:
        """Dial the next target in turn, until one is under way or none is left."""
        stream = self._service.stream
        while self._attempts < stream.dial_attempts:
            group = self._arrival.group
            key = client_key(self._client_sockaddr) if group.keyed else b""
            choice = group.pick(self._tried, key, self.loop.now)
            if choice is None:
                break
            self._count(choice)
            self._attempts += 1
            self.active_at = self.loop.now  # no byte moves before this dial is over
            self._deadline = self.loop.now + stream.timeouts.connect_s
            if self._dial(choice):
                return
        self._close(self._outcome or Outcome.NO_TARGET, self._errno)

    def _count(self, choice: Choice) -> None:
        """It is the choice of this connection from now on, and has one more, until `_uncount`."""
        self.choice = self._counted = choice
        self._arrival.group.begun(choice)

    def _uncount(self) -> None:
        """The choice has one less. Idempotent."""
        if self._counted is not None:
            self._arrival.group.ended(self._counted)
            self._counted = None

    def _dial(self, choice: Choice) -> bool:
        """Begin to connect to `choice`; False when that has failed for good, with `outcome` and `errno` set."""
        service = self._service
        target: socket.SocketType | None = None
        try:
            target = open_dial_socket(choice.af, service.settings, service.spec.source)
            if self._early & IN and choice.af != _AF_UNIX:
                # The last ACK of the handshake waits for the client's bytes, which follow at once, and goes with them:
                # a segment less, and the target wakes up once, not twice (tcp(7); tcp_rcv_synsent_state_process).
                target.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
            number = target.connect_ex(choice.sockaddr or choice.address.sockaddr)
            if number in _UNDER_WAY:
                fd = target.fileno()
                self.loop.selector.watch(fd, self.target_event)
                self._target, self._target_fd = target, fd
                self._timer.discard(self)
                self._timer, self._timer_at = service.first_look(self)
                return True
        except NoSource as error:
            self._dial_failed(error.errno or errno.EADDRNOTAVAIL, Outcome.NO_SOURCE)
            return False
        except OSError as error:
            number = error.errno or errno.EIO
        if target is not None:
            self.loop.closing.append(target)
        if number == errno.EAGAIN or number in OUT_OF_RESOURCES - {errno.EADDRNOTAVAIL}:
            # EAGAIN is the full backlog of a Unix socket (connect(2)): it makes no event when it has room again.
            self._errno = number
            now = self.loop.now
            waited_s = now - (self._deadline - service.stream.timeouts.connect_s)
            self._set_timer(min(self._deadline, now + max(_DIAL_RETRY_S, waited_s / 4)))
            return True
        self._dial_failed(number)
        return False

    def _dial_failed(self, number: int, outcome: Outcome | None = None) -> None:
        """Remember why, and that this choice has been tried. `outcome` None: `number` is connect(2)'s, and says it."""
        self._service.counters.dial_failures += 1
        self._errno = number
        if outcome is not None:
            self._outcome = outcome
        elif number in REFUSED:
            self._outcome = Outcome.TARGET_REFUSED
        elif number in (errno.ETIMEDOUT, errno.EAGAIN):
            self._outcome = Outcome.CONNECT_TIMEOUT
        elif number in OUT_OF_RESOURCES:
            self._outcome = Outcome.RESOURCE_EXHAUSTED
        else:
            self._outcome = Outcome.TARGET_UNREACHABLE
        if self.choice is not None:
            self._tried = (*self._tried, self.choice)
            if self._outcome not in _OURS:
                self._arrival.group.failed(self.choice, spoken(number), self.loop.now, self.active_at)
            self._uncount()

    def _dial_again(self, number: int) -> None:
        """The attempt under way has failed with errno `number`: forget its socket and go on with the next target."""
        if self._target is not None:
            self.loop.selector.forget(self._target_fd)
            self.loop.closing.append(self._target)
            self._target = None
        self._dial_failed(number)
        self._dial_next()

    def client_event(self, mask: int) -> None:
        """Handler of the client's socket while DIALING: its early bytes, which wait, or its leaving. The first event
        begins the dial.
        """
        self._early |= mask
        if mask & (ERR | HUP):
            self._client_left(mask)
        if not self._attempts and self.phase is _DIALING:
            self._dial_next()

    def _client_left(self, mask: int) -> None:
        """The client has reset; or, a Unix client, closed, perhaps after it had sent all that it wanted to."""
        if not mask & ERR:
            with contextlib.suppress(OSError):
                if self._client.recv(1, socket.MSG_PEEK):
                    return
        self._close(Outcome.CLIENT_ABORTED_CONNECTING, pending_error(self._client))

    def target_event(self, mask: int) -> None:
        """Handler of the target's socket while DIALING: it has answered. EPOLLHUP beside EPOLLOUT is not believed: some
        kernels say it of a good connect.
        """
        target, choice = self._target, self.choice
        if target is None or choice is None or not mask & (OUT | ERR | HUP):
            return
        if mask & (ERR | HUP):
            number = pending_error(target)
            if number or not mask & OUT:
                self._dial_again(number or errno.ECONNREFUSED)
                return
        if choice.may_meet_itself and met_itself(target, choice.port):
            self._dial_again(errno.ECONNREFUSED)
            return
        self._connected(target, choice, mask)

    # relaying ---------------------------------------------------------------------------------------------------

    def _connected(self, target: socket.SocketType, choice: Choice, mask: int) -> None:
        loop, client, pipes = self.loop, self._client, self._service.pipes
        self.phase = _RELAYING
        self._outcome, self._errno = None, 0
        self._connected_at = self.active_at = loop.now
        self._service.counters.connects.add(loop.now - self._started_at)
        self._keepalive_pending = choice.af != _AF_UNIX
        if self._arrival.group.suspicious:
            self._arrival.group.worked(choice, loop.now)
        pump_in = Pump(self, client, target, pipes, self._arrival.af)
        pump_out = Pump(self, target, client, pipes, choice.af)
        self._pump_in, self._pump_out = pump_in, pump_out
        handlers = loop.selector.handlers
        handlers[self._client_fd] = pump_in.source_event
        handlers[self._target_fd] = pump_out.source_event
        if self._service.log.start:
            self._service.log.living(Event.CONNECTION_STARTED, connection_record(self, LIVING, 0))
        if self._early:
            pump_in.source_event(self._early)
        if mask != OUT:
            pump_out.source_event(mask)

    def guard(self) -> None:
        """Have both sides reset should this process be killed: half of a file is not to be taken for all of it.

        Two system calls, so only for connections with something to lose: bulk, and those that live at the first look.
        """
        if not self._guarded and self._target is not None:
            self._guarded = True
            reset_at_close(self._client)
            reset_at_close(self._target)

    def opposite(self, pump: Pump) -> Pump:
        """The pump of the other direction. Only between DIALING and CLOSED."""
        other = self._pump_out if pump is self._pump_in else self._pump_in
        if other is None:
            raise RuntimeError(f"no pumps while {self.phase}")
        return other

    def finished(self, pump: Pump) -> None:
        """Pass the FIN on (S2), or close when it was the second: the close sends it."""
        if self.phase is not _RELAYING:
            self._reset_look()
            return
        if self._first_fin is not None:
            self._close(_NORMAL)
            return
        self._first_fin = _CLIENT if pump is self._pump_in else _TARGET
        try:
            pump.sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.sink_failed(pump, error.errno or 0)
            return
        self.active_at = self.loop.now
        half_close_s = self._service.stream.timeouts.half_close_s
        if half_close_s is not None and self.active_at + half_close_s < self._timer_at:
            self._set_timer(self.active_at + half_close_s)

    # one side has failed ----------------------------------------------------------------------------------------

    def source_failed(self, pump: Pump, number: int) -> None:
        """All that came before the reset has been written: see it acknowledged, then pass the reset on."""
        if self.phase is _RELAYING:
            self._reset(pump, number)
        pump.stop()
        self._reset_look()

    def source_failing(self, pump: Pump) -> None:
        """A side has reset while bytes from it still wait for the other side to take them."""
        if self.phase is _RELAYING:
            self._reset(pump, pending_error(pump.source))

    def source_event_after_end(self, pump: Pump) -> None:
        """A side that had finished has now reset (S3), unless this is only the end of both directions (HUP)."""
        number = pending_error(pump.source)
        if number and self.phase is _RESETTING and self._outcome is not None and pump is not self._survivor:
            self._close(self._outcome, self._errno)  # the other side has reset as well: nobody acknowledges any more
        elif number:
            self.source_failed(pump, number)

    def sink_failed(self, pump: Pump, number: int) -> None:
        """The sink has reset. What it sent before that is in its socket still, and belongs to the other side."""
        pump.stop()
        if self.phase is _RESETTING:
            self._close(self._outcome or Outcome.INTERNAL_ERROR, self._errno)
        else:
            survivor = self.opposite(pump)
            self._reset(survivor, number)
            survivor.source_event(ENDING)

    def _reset(self, survivor: Pump, number: int) -> None:
        """RESETTING: the source of `survivor` is dead, with errno `number`; only `survivor` goes on, and not for
        long.
        """
        from_client = survivor is self._pump_in
        if number == errno.ETIMEDOUT:
            self._outcome = Outcome.CLIENT_TIMEOUT if from_client else Outcome.TARGET_TIMEOUT
        else:
            self._outcome = Outcome.CLIENT_RESET if from_client else Outcome.TARGET_RESET
        self._errno = number
        self.phase = _RESETTING
        self._deadline = self.loop.now + RESET_FLUSH_S
        self.opposite(survivor).stop()
        survivor.flags_at_end = 0  # no FIN follows that would push what is held back for it
        self._set_timer(self.loop.now + RESET_LOOK_S)

    @property
    def _survivor(self) -> Pump | None:
        """While RESETTING: the pump whose source is the dead side."""
        return self._pump_in if self._outcome in (Outcome.CLIENT_RESET, Outcome.CLIENT_TIMEOUT) else self._pump_out

    def _reset_look(self) -> None:
        """Pass the reset on when everything before it has arrived, or when that takes too long."""
        if self.phase is not _RESETTING or self._outcome is None:
            return
        survivor = self._survivor
        waiting = survivor is not None and (survivor.flow is not _FINISHED or unacknowledged(survivor.sink) > 0)
        if waiting and self.loop.now < self._deadline:
            self._set_timer(self.loop.now + RESET_LOOK_S)
        else:
            self._close(self._outcome, self._errno)

    # time -------------------------------------------------------------------------------------------------------

    @property
    def started_at(self) -> float:
        """When it was accepted, by whatever process (monotonic seconds)."""
        return self._started_at

    def reconsider(self) -> None:
        """The timeouts are others now: what is over by the new ones ends, what is not gets a timer for them."""
        if self.phase is _RELAYING:
            self._set_timer(self.loop.now)

    def _set_timer(self, at: float) -> None:
        self._timer.discard(self)
        self._timer_at = at
        self._timer = self.loop.call_at(self, at)

    def expire(self) -> None:
        """The timer has fired: is anything really over? (S7: activity moves no timer, it is looked at here)"""
        now = self.loop.now
        if self.phase is _RELAYING:
            self._look_at_timeouts(now)
        elif self.phase is _RESETTING:
            self._reset_look()
        elif self.phase is _DIALING:
            if now >= self._deadline:
                self._dial_again(errno.ETIMEDOUT if self._target is not None else self._errno)
            elif self._target is not None:
                self._set_timer(self._deadline)
            elif self.choice is None or not self._dial(self.choice):
                self._dial_next()

    def _look_at_timeouts(self, now: float) -> None:
        self.guard()
        options, timeouts = self._service.stream.options, self._service.stream.timeouts
        if self._keepalive_pending and self._target is not None:
            self._keepalive_pending = False
            if options.keepalive is not None:
                apply_keepalive(self._target, options.keepalive)
        half_closed = self._first_fin is not None and timeouts.half_close_s is not None
        silence_s = timeouts.half_close_s if half_closed else timeouts.idle_s
        at, outcome = _NEVER, Outcome.IDLE_TIMEOUT
        if silence_s is not None:
            at = self.active_at + silence_s
            outcome = Outcome.HALF_CLOSE_TIMEOUT if half_closed else Outcome.IDLE_TIMEOUT
        if timeouts.max_lifetime_s is not None and self._started_at + timeouts.max_lifetime_s < at:
            at, outcome = self._started_at + timeouts.max_lifetime_s, Outcome.MAX_LIFETIME
        if at <= now:
            self._close(outcome)
        elif at < _NEVER:
            self._set_timer(at)
        else:
            self._timer_at = _NEVER

    # the one way out --------------------------------------------------------------------------------------------

    @property
    def conn_id(self) -> str:
        """What the log calls it, for as long as it lives, whatever process has it."""
        number = self._number
        return number if isinstance(number, str) else f"{self._service.id_prefix}{number}"

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes from the client and from the target so far; what came in another process is among them."""
        pump_in, pump_out = self._pump_in, self._pump_out
        return (pump_in.moved, pump_out.moved) if pump_in is not None and pump_out is not None else (0, 0)

    @property
    def target(self) -> Target | None:
        """Where it goes, or tries to; None before the first dial."""
        return self.choice.target if self.choice is not None else None

    def end(self, outcome: Outcome) -> None:
        """End the connection from outside: shutdown, or an operator."""
        self._close(outcome)

    def crashed(self, error: Exception) -> None:
        """A bug: this connection ends, with the traceback in the log, and nothing else does (F3)."""
        self._service.report_crash(error)
        try:
            self._close(Outcome.INTERNAL_ERROR)
        except Exception as second:
            self._service.report_crash(second)  # its line is lost, but it is closed, and the loop goes on

    def _close(self, outcome: Outcome, number: int | None = 0) -> None:
        """Forget both sockets in the loop, cancel the timer, count, log, give pipes back, close. Idempotent."""
        if self.phase is _CLOSED:
            return
        self.phase = _CLOSED
        self._timer.discard(self)
        self._uncount()
        service, pump_in, pump_out = self._service, self._pump_in, self._pump_out
        bytes_in = bytes_out = 0
        if pump_in is not None and pump_out is not None:
            bytes_in, bytes_out = pump_in.moved, pump_out.moved
        service.ended(self, outcome, bytes_in, bytes_out)
        try:
            if service.log.access_enabled:
                service.log.access(connection_record(self, outcome, number or 0))
        finally:  # a bug in logging must not keep descriptors
            loop = self.loop
            forget, closing = loop.selector.forget, loop.closing
            if pump_in is not None and pump_out is not None:
                pump_in.release()
                pump_out.release()
                # They know their connection: without them nobody goes round in circles.
                self._pump_in = self._pump_out = None
            reset = outcome is not _NORMAL
            if reset is not self._guarded:
                reset_at_close(self._client, reset=reset)
                if self._target is not None:
                    reset_at_close(self._target, reset=reset)
            forget(self._client_fd)
            closing.append(self._client)
            if self._target is not None:
                forget(self._target_fd)
                closing.append(self._target)

    def leave(self) -> None:
        """CLOSED, here: another process has its sockets now, and goes on with it (`handover`). Idempotent.

        They stay in the epoll set, which reports them for as long as this process lives: it is about to end, and to
        take 8,000 sockets out of the set one by one would take a tenth of the time that a restart has.
        """
        if self.phase is _CLOSED:
            return
        self.phase = _CLOSED
        self._timer.discard(self)
        self._uncount()
        self._service.left(self, *self.moved)
        for pump in (self._pump_in, self._pump_out):
            if pump is not None:
                pump.release()
        self._pump_in = self._pump_out = None
        selector, closing = self.loop.selector, self.loop.closing
        for sock in (self._client, self._target):
            if sock is not None:
                selector.forget(sock.fileno())
                closing.append(sock)
