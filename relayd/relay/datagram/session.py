"""One session: a client of one receiving socket, and a socket of its own towards one target (D1).

    client ──▶ receiver ──send──▶ session's socket ──▶ target      at once; while the socket is full, through a queue
    client ◀── outbox ◀──on_event── session's socket ◀── target    into the outbox, which is sent as the turn ends

The common way of a datagram is short: a look-up and a send in the receiver, a read and a `put` in `on_event`. The
socket is registered level-triggered and read once for an event. One that turns out to have more waiting, at one look in
PROBE_EVERY answers, is read in batches from then on, joined by UDP_GRO where the kernel can.

An error of the target, told by ICMP or by a call, moves the session to the next target that has not failed, together
with the datagram that nobody has answered (D5). Without one the session ends.

             ┌── a Unix client is full ──┐
    RELAYING ┤                           HELD_UP (nothing is read from the target)
       │     └─ it has taken everything ─┘ │
       └──────────── end(outcome) ─────────┴──▶ CLOSED
"""

import enum
import errno
import socket
from collections.abc import Callable

from relayd.choosing.group import Choice, Group, client_key
from relayd.errors import OUT_OF_RESOURCES, REFUSED, spoken
from relayd.net.datagrams import (
    BATCH,
    GSO_REFUSED,
    forget_errors,
    join_segments,
    lost_in_kernel,
    open_session_socket,
    segment_control,
    widen,
)
from relayd.net.dialing import met_itself
from relayd.net.poller import IN, OUT
from relayd.outcomes import Drop, Outcome
from relayd.relay.datagram.reception import Reception
from relayd.relay.datagram.record import session_record
from relayd.relay.datagram.service import LiveSession
from relayd.relay.datagram.waiting import LateAnswers, Waiting
from relayd.spec import OnTargetError, Target

#: Answers between two looks whether more wait than one: a look that finds nothing costs a system call.
PROBE_EVERY = 64
#: Datagrams that one session reads in one turn, joined ones counted as one (S5).
READ_MAX = 32
#: A read of more bytes than this is followed by one of fewer datagrams: what is copied stays in the cache.
READ_BYTES = 256 * 1024
#: Reads of so many show that datagrams come in bursts: have the kernel join them.
_JOIN_FROM = 8
#: The local port could not be had, which is no error of the target (ip(7): EAGAIN from connect, EADDRINUSE from bind).
_NO_PORT = frozenset({errno.EAGAIN, errno.EADDRINUSE})
#: The kernel has no memory for this datagram, and may have for the next one.
_NO_MEMORY = frozenset({errno.ENOBUFS, errno.ENOMEM})


class Phase(enum.Enum):
    """Where a session is; the moves are drawn above, and `LEGAL` has them as data."""

    RELAYING = "relaying"
    HELD_UP = "held_up"
    CLOSED = "closed"

    __hash__ = object.__hash__  # members are singletons, and Enum's own hash goes through Python


LEGAL = {
    Phase.RELAYING: frozenset({Phase.HELD_UP, Phase.CLOSED}),
    Phase.HELD_UP: frozenset({Phase.RELAYING, Phase.CLOSED}),
    Phase.CLOSED: frozenset[Phase](),
}
_RELAYING, _HELD_UP, _CLOSED = Phase.RELAYING, Phase.HELD_UP, Phase.CLOSED


class Session(LiveSession):
    """A client, and a socket connected to one target. Owns the socket until it is CLOSED. It begins when `dial` has
    connected it: `begin` puts it into the table.
    """

    __slots__ = (
        "_careful",
        "_group",
        "_gso_in",
        "_joined",
        "_late",
        "_look_at",
        "_loop",
        "_outbox",
        "_read_most",
        "_recv_into",
        "_sock",
        "_tried",
        "_tried_at",
        "_waiting",
        "_watched",
        "attempts",
        "bytes_in",
        "bytes_out",
        "choice",
        "datagrams_in",
        "datagrams_out",
        "dropped",
        "errno",
        "first_reply_at",
        "gso",
        "keeps",
        "kept",
        "number",
        "phase",
        "receiver",
        "reloads_before",
        "reply_to",
        "restarts",
        "send",
        "service",
        "started_at",
    )

    #: To the target: the method of the socket itself. Whoever sends counts in `datagrams_in` and `bytes_in`, and, where
    #: the session `keeps`, keeps the datagram in `kept`.
    send: Callable[[bytes | memoryview], int]
    reply_to: bytes
    _sock: socket.SocketType
    choice: Choice
    _group: Group  # that counts this session among those of its choice
    _recv_into: Callable[[memoryview], int]

    def __init__(self, receiver: Reception, key: bytes) -> None:
        service = receiver.service
        self.receiver = receiver
        self.key = key
        self.phase = _RELAYING
        self.datagrams_in = self.bytes_in = self.datagrams_out = self.bytes_out = 0
        self.gso = receiver.layout.af != socket.AF_UNIX
        #: What was sent last and nobody has answered yet; only where it may have to go to another target (D5).
        self.kept: bytes | None = None
        self.keeps = False
        self.service = service
        self._loop = service.loop
        self._outbox = receiver.outbox
        self.attempts = self.errno = self.dropped = self._watched = self.restarts = 0
        #: 0 before `begin`; the whole id of one that has come from another process.
        self.number: int | str = 0
        self.reloads_before = service.loop.reloads
        self._tried: tuple[Choice, ...] = ()
        self._tried_at = 0
        self.started_at = service.loop.now
        self.first_reply_at = 0.0
        # What waits for the target, and for the client: made when something does.
        self._waiting: Waiting | None = None
        self._late: LateAnswers | None = None

    # begin ------------------------------------------------------------------------------------------------------

    def dial(self) -> Drop | None:
        """Connect to the next target that has not failed. None: connected; else why there is none.
        A session that had a target before lets go of it when the next one is there.
        """
        service = self.service
        move = service.datagram.on_target_error is OnTargetError.MOVE
        group = self.receiver.group
        key = client_key(self.receiver.layout.client(self.key)) if group.keyed else b""
        while (choice := group.pick(self._tried, key, self._loop.now)) is not None:
            try:
                sock = self._open(choice)
            except OSError as error:
                self.errno = error.errno or errno.EIO
                if self.errno in OUT_OF_RESOURCES or self.errno in _NO_PORT:
                    return Drop.RESOURCE_EXHAUSTED
                self._failed(choice)
                if not move:
                    return Drop.TARGET_FAILED
                continue
            if self.attempts:
                self._let_go()
            self._take(sock, choice)
            return None
        return Drop.TARGET_FAILED if self._tried else Drop.NO_TARGET

    def begin(self) -> None:
        """Into the table: datagrams of its client find it from now on."""
        receiver = self.receiver
        self.reply_to = receiver.outbox.reply_to(self.key)
        self.number = self.service.begin(self, receiver.home, self.key)

    def abandon(self) -> None:
        """It has a socket and will not begin, for there is a bug. Never raises."""
        if self.attempts:
            self._let_go()

    def _open(self, choice: Choice) -> socket.SocketType:
        """A socket connected to `choice`, watched. Raises OSError. Out of descriptors, another session gives up its
        own.
        """
        target, source = choice.sockaddr or choice.address.sockaddr, self.service.spec.source
        try:
            sock = open_session_socket(choice.af, target, source)
        except OSError as error:
            # A session that moves is in the table itself, and might be the one to go.
            if error.errno not in OUT_OF_RESOURCES or self.number or not self.service.evict_one():
                raise
            self._loop.close_ended()
            sock = open_session_socket(choice.af, target, source)
        try:
            if choice.may_meet_itself and met_itself(sock, choice.port):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there but ourselves")
            self._loop.selector.register(sock, IN, self.on_event)
        except OSError:
            sock.close()
            raise
        return sock

    def _take(self, sock: socket.SocketType, choice: Choice) -> None:
        self._sock, self.choice, self._group = sock, choice, self.receiver.group
        self._group.begun(choice)
        self._watched = IN
        self.attempts += 1
        self._look_at = self.datagrams_out + 1
        self.send = sock.send
        self._recv_into = sock.recv_into
        move = self.service.datagram.on_target_error is OnTargetError.MOVE
        self.keeps = move and len(self.receiver.group) > 1
        self._gso_in = choice.af != socket.AF_UNIX
        self._joined, self._read_most = False, 1
        self._watch()

    def _failed(self, choice: Choice) -> None:
        """`choice` is not to be had. Those that failed before the last answer came may have recovered since."""
        if self.datagrams_out != self._tried_at:
            self._tried, self._tried_at = (), self.datagrams_out
        self._tried = (*self._tried, choice)
        self.receiver.group.failed(choice, spoken(self.errno), self._loop.now)
        self.service.counters.target_errors += 1

    # target to client -------------------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """Handler of the socket."""
        if self._careful:
            self._on_unusual_event(mask)
            return
        # Slots that hold functions are read before they are called: CPython 3.11 is slow at doing both in one.
        outbox, recv_into = self._outbox, self._recv_into
        sizes = outbox.sizes
        try:
            size = recv_into(outbox.views[len(sizes)])
        except OSError as error:
            self._not_read(error.errno or errno.EIO)
            return
        # `outbox.put`, spelled out.
        sizes.append(size)
        outbox.owners.append(self)
        now = self._loop.now
        if now >= self.noted_until:
            self.service.table.used(self, now)
        self.kept = None
        self.datagrams_out = count = self.datagrams_out + 1
        self.bytes_out += size
        if len(sizes) == BATCH:
            outbox.flush()
        if count >= self._look_at:
            self._look()

    def _on_unusual_event(self, mask: int) -> None:
        if mask & OUT and self._waiting:
            self._send_waiting()
        if mask & ~OUT and self.phase is _RELAYING:
            self._read(max(self._read_most, 2))

    def _look(self) -> None:
        """Once in a while: was that the first answer, or the last one (D3)? And is there another one waiting?"""
        count, most = self.datagrams_out, self.service.datagram.max_responses
        if not self.first_reply_at:
            self.first_reply_at = self._loop.now
        if self._group.suspicious:
            self._group.worked(self.choice, self._loop.now)
        if most is None:
            self._look_at = count + PROBE_EVERY
        else:
            most = max(most, self.datagrams_in)
            if count >= most:
                self.end(Outcome.MAX_RESPONSES)
                return
            self._look_at = min(count + PROBE_EVERY, most)
        if count >= PROBE_EVERY and self._read_most == 1:
            self._read(2)

    def _read(self, most: int) -> None:
        """Read up to `most` datagrams, and learn from their number how many to ask for the next time."""
        responses = self.service.datagram.max_responses
        if responses is not None:
            most = min(most, max(responses, self.datagrams_in) - self.datagrams_out)
        if self.key:
            datagrams, size, number = self._outbox.fill(self, self._sock, most)
        else:
            datagrams, size, number = self.receiver.discard(self._sock, self._outbox.views[-1], most)
            self.drop(Drop.NO_REPLY_PATH, datagrams)
        if self.phase is _CLOSED:
            return  # the outbox was full, and was sent
        if datagrams:
            self.service.table.used(self, self._loop.now)
            self.kept = None
            self.datagrams_out += datagrams
            self.bytes_out += size
        if size > READ_BYTES:
            self._read_most = max(most // 2, 2)
        elif not number:
            if most == 2:
                widen(self._sock)
            self._read_most = min(2 * most, READ_MAX)
            if most >= _JOIN_FROM and responses is None and self.choice.af != socket.AF_UNIX:
                self._joined = self._joined or join_segments(self._sock)
        elif number == errno.EAGAIN and datagrams < 2:
            self._read_most = 1
        self._watch()
        if datagrams and self.datagrams_out >= self._look_at:
            self._look()
        if number:
            self._not_read(number)

    def _not_read(self, number: int) -> None:
        """Reading has ended with errno `number`: nothing there (or only what had a wrong checksum), or an error."""
        if number in (errno.EAGAIN, errno.EINTR) or number in _NO_MEMORY or self.phase is _CLOSED:
            return
        if number == errno.EMSGSIZE:
            self._path_narrowed()
        else:
            self.failed(number)

    def _path_narrowed(self) -> None:
        """ICMP has told that a datagram was too large for the way to the target. From now on the kernel fragments
        them.
        """
        forget_errors(self._sock)
        self.drop(Drop.TOO_LARGE)

    def undelivered(self, number: int, data: memoryview) -> None:
        """The kernel did not take `data` for the client, with errno `number`. A Unix client may have room later."""
        if number == errno.EAGAIN and self.receiver.layout.af == socket.AF_UNIX and self.phase is not _CLOSED:
            if self._late is None:
                self._late = LateAnswers(self, self._loop)
                self._enter(_HELD_UP)
                self._watch()
            if self._late is not None:  # that may have ended the session
                self._late.put(data)
        elif number == errno.EAGAIN or number in _NO_MEMORY:
            self.drop(Drop.CLIENT_FULL)
        else:
            self.drop(Drop.TOO_LARGE if number == errno.EMSGSIZE else Drop.CLIENT_FAILED)

    @property
    def conn_id(self) -> str:
        """What the log calls it."""
        return self.number if isinstance(self.number, str) else f"{self.service.id_prefix}{self.number}"

    @property
    def target(self) -> Target | None:
        """Where it goes."""
        return self.choice.target if self.attempts else None

    @property
    def held_up(self) -> bool:
        """True while answers have to wait for those that the client has not taken yet."""
        return self.phase is _HELD_UP

    def client_has_room(self) -> None:
        """The Unix client has taken everything: read on."""
        self._late = None
        self._enter(_RELAYING)
        self._watch()

    def expire(self) -> None:
        """It has no timer of its own."""

    # client to target -------------------------------------------------------------------------------------------

    def send_run(self, views: list[memoryview], segment: int, datagrams: int) -> bool:
        """Send several datagrams of `segment` bytes each by one call. False: it cannot be, or not now; send them
        singly.
        """
        if not self._gso_in or self._waiting:
            return False
        try:
            size = self._sock.sendmsg(views, [segment_control(segment)])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in GSO_REFUSED:
                self._gso_in = False
            else:
                self.failed(error.errno or errno.EIO)
            return False
        self.service.table.used(self, self._loop.now)
        self.datagrams_in += datagrams
        self.bytes_in += size
        if self.keeps:
            last = views[-1]
            self.kept = bytes(last[(len(last) - 1) // segment * segment :])
        return True

    def not_sent(self, number: int, data: bytes | memoryview) -> bool:
        """The kernel did not take `data`, with errno `number`. True: that has been dealt with, and `data` counts as
        sent. False: the session has ended, and `data` is still to be sent.
        """
        if number == errno.EMSGSIZE:  # told of this datagram, or of an earlier one: then this one passes
            self._path_narrowed()
            try:
                self._sock.send(data)
            except OSError as error:
                number = error.errno or errno.EIO
            if number == errno.EMSGSIZE:
                forget_errors(self._sock)
                return True
        if number == errno.EAGAIN:
            self.send = self._wait
            self._wait(data)
            self._watch()
            return True
        if number in _NO_MEMORY:
            self.drop(Drop.TARGET_FULL)
            return True
        return self.failed(number, data)

    def _wait(self, data: bytes | memoryview) -> int:
        """`send` while the target is full: keep `data` until it is not, within bounds."""
        if self._waiting is None:
            self._waiting = Waiting()
        if not self._waiting.put(data):
            self.drop(Drop.TARGET_FULL)
        return len(data)

    def _send_waiting(self) -> None:
        waiting, send = self._waiting, self._sock.send
        while waiting:
            try:
                send(waiting.first)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EMSGSIZE and error.errno not in _NO_MEMORY:
                    self.failed(error.errno or errno.EIO)
                    return
                self.drop(Drop.TOO_LARGE if error.errno == errno.EMSGSIZE else Drop.TARGET_FULL)
            waiting.pop()
        self.send = send
        self._watch()

    # the target fails -------------------------------------------------------------------------------------------

    def failed(self, number: int, unsent: bytes | memoryview | None = None) -> bool:
        """The target cannot be reached, with errno `number`, which was about an earlier datagram than `unsent`.
        True: the session has moved on, and taken along what nobody has answered, what waits, and `unsent`. False: it
        has ended, and `unsent` is still to be sent.
        """
        self.errno = number
        self._failed(self.choice)
        moving = self._unanswered()
        # UDP has told of a datagram that is gone, if only by its ICMP message; a Unix socket refuses at once.
        lost = len(moving) or self.choice.af != socket.AF_UNIX
        if self.service.datagram.on_target_error is OnTargetError.MOVE and self._move(moving, unsent):
            self.drop(Drop.TARGET_FAILED, 0 if moving else lost)
            return True
        self.drop(Drop.TARGET_FAILED, lost)
        self._waiting = None
        if self.errno in OUT_OF_RESOURCES or self.errno in _NO_PORT:
            self.end(Outcome.RESOURCE_EXHAUSTED)
        else:
            self.end(Outcome.TARGET_REFUSED if self.errno in REFUSED else Outcome.TARGET_UNREACHABLE)
        return False

    def move_on(self) -> None:
        """Its target is down by its checks: to another one, unless none is up, or `on_target_error` has it stay."""
        group, waiting = self.receiver.group, self._waiting
        group.look(self._loop.now)
        stays = self.service.datagram.on_target_error is OnTargetError.CLOSE or group.failing_open
        if self.phase is not _CLOSED and not stays:
            self._tried, self._tried_at = (self.choice,), self.datagrams_out
            if not self._move(self._unanswered(), None):
                self._waiting = waiting

    def _unanswered(self) -> list[bytes]:
        kept = [] if self.kept is None else [self.kept]
        return kept if self._waiting is None else [*kept, *self._waiting.all()]

    def _move(self, moving: list[bytes], unsent: bytes | memoryview | None) -> bool:
        """To the next target that takes all of `moving`, then `unsent`."""
        going = moving if unsent is None else [*moving, unsent]
        while True:
            self._waiting = None  # or the new socket would be watched for more than it was opened with, in vain perhaps
            if self.dial() is not None:
                return False
            try:
                for data in going:
                    self._send_first(data)
            except OSError as error:
                self.errno = error.errno or errno.EIO
                self._failed(self.choice)
                continue
            self.errno = 0
            self._watch()
            return True

    def _send_first(self, data: bytes | memoryview) -> None:
        """Send to a new target. Raises OSError where that is the target's fault."""
        try:
            self.send(data)
        except BlockingIOError:
            self.send = self._wait
            self._wait(data)
        except OSError as error:
            if error.errno != errno.EMSGSIZE and error.errno not in _NO_MEMORY:
                raise
            self.drop(Drop.TOO_LARGE if error.errno == errno.EMSGSIZE else Drop.TARGET_FULL)
        else:
            if self.keeps:
                self.kept = bytes(data)

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count datagrams of this session that are not passed on."""
        self.dropped += count
        self.service.drop(reason, count)

    # the loop ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Watch the socket for what the session can do something about, and say which way an event has to take."""
        # A Unix datagram may be too large; a client without a name gets no answers.
        unusual = self.choice.af == socket.AF_UNIX or not self.key
        self._careful = unusual or self._joined or self._read_most > 1 or bool(self._waiting)
        wanted = (IN if self.phase is _RELAYING else 0) | (OUT if self._waiting else 0)
        if wanted == self._watched:
            return
        selector = self._loop.selector
        if self._watched:
            selector.unregister(self._sock)
        self._watched = 0
        if wanted:
            try:
                selector.register(self._sock, wanted, self.on_event)
            except OSError as error:
                self.errno = error.errno or errno.EIO
                self.end(Outcome.RESOURCE_EXHAUSTED)
            else:
                self._watched = wanted

    def _let_go(self) -> None:
        """Forget the socket in the loop, which closes it when its turn ends. Once for each `_take`."""
        self._group.ended(self.choice)
        self._loop.selector.forget(self._sock.fileno())
        self._loop.closing.append(self._sock)

    def _enter(self, phase: Phase) -> None:
        if phase not in LEGAL[self.phase]:
            raise RuntimeError(f"no move from {self.phase} to {phase}")
        self.phase = phase

    # the one way out --------------------------------------------------------------------------------------------

    def crashed(self, error: Exception) -> None:
        """A bug: this session ends, with the traceback in the log, and nothing else does (F3)."""
        self.service.report_crash(error)
        try:
            self.end(Outcome.INTERNAL_ERROR)
        except Exception as second:
            self.service.report_crash(second)  # its line is lost, but it is closed, and the loop goes on

    def end(self, outcome: Outcome) -> None:
        """Out of the table, count, log, forget and close the socket. Idempotent.

        Answers that are in the outbox are still sent.
        """
        if self.phase is _CLOSED:
            return
        self._enter(_CLOSED)
        service = self.service
        if self._waiting is not None:
            self.drop(Drop.TARGET_FULL, len(self._waiting))
        if self._late is not None:
            self._late.give_up()
        self._waiting = self._late = None
        self.drop(Drop.RELAY_FULL, lost_in_kernel(self._sock))
        service.ended(self, outcome)
        try:
            if service.log.access_enabled:
                service.log.access(session_record(self, outcome, self._loop.now))
        finally:  # a bug in logging must not keep descriptors
            self._let_go()
            self.send = self._sock.send  # not a method of ours: nobody goes round in circles

    def leave(self) -> None:
        """CLOSED, here: another process has its socket, and goes on with it (`handover`). It stays in our epoll set."""
        self._enter(_CLOSED)
        if self._late is not None:
            self._late.cancel()
        self._waiting = self._late = None
        self.service.left(self)
        self._let_go()
        self.send = self._sock.send
