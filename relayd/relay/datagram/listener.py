"""Receiving: one receiver per datagram socket.

It reads batches and hands each datagram to its client's session, or to a new one. The socket is level-triggered: one
batch in one turn, and what is left comes in the next (S5). Nothing that a client or a target does ends it; when reading
itself fails, it pauses on a timer (F1).
"""

import abc
import errno
import socket
from collections import deque
from collections.abc import Collection

from relayd import address, errors
from relayd.choosing.group import Group
from relayd.errors import TRANSIENT
from relayd.log.access import LIVING
from relayd.log.events import Event
from relayd.net.boxes import Inbox
from relayd.net.datagrams import BATCH, RUN_BYTES_MAX, SEGMENTS_MAX, lost_in_kernel, prepare_to_receive
from relayd.net.poller import IN
from relayd.outcomes import Drop
from relayd.relay.datagram.newcomers import Newcomers
from relayd.relay.datagram.reception import Reception
from relayd.relay.datagram.record import session_record
from relayd.relay.datagram.service import DatagramService
from relayd.relay.datagram.session import Session

#: Seconds until a socket whose reading failed is read again.
RECEIVE_PAUSE_S = 0.1
#: Sessions that begin in one turn: a millisecond's work, then the others have their turn (S5). Batches that are read in
#: one turn while most of what they hold is from clients that have to wait.
BEGUN_PER_TURN = 16
BATCHES_PER_TURN = 16
#: A batch whose first so many datagrams come from so few clients is worth looking for runs in.
_BULK_SAMPLE, _BULK_CLIENTS = 8, 3


class Receiver(abc.ABC):
    """Reads one datagram socket, and owns it. What becomes of a batch is the subclass's."""

    def __init__(self, service: DatagramService, sock: socket.socket, group: Group) -> None:
        """Takes `sock`, which is bound. `open` begins to receive."""
        sock.setblocking(False)
        layout = prepare_to_receive(sock)
        outbox = service.batches.outbox(layout)
        bound = address.from_sockaddr(layout.af, sock.getsockname())
        wildcard = isinstance(bound, address.InetAddress) and bound.wildcard
        port = bound.port if isinstance(bound, address.InetAddress) else 0
        #: What it is bound to.
        self.address = bound
        self.reception = Reception(service, sock, layout, outbox, group, None if wildcard else str(bound), port)
        self._service = service
        self._sock = sock
        self._inbox: Inbox = service.batches.inbox(layout)
        self._open = False
        self._receiving = False
        self._detached = False
        #: Something was read since the kernel was asked what it has lost, and what it had lost by then.
        self._asked = False
        self._lost = lost_in_kernel(sock)
        outbox.attach(self.reception)

    def open(self) -> None:
        """Begin to receive. Idempotent."""
        if not self._open:
            self._open = True
            self._resume()

    def close(self) -> None:
        """Receive no more, and close this worker's copy of the socket. Sessions have ended before. Idempotent."""
        if self._open:
            self._open = False
            self._suspend()
        outbox = self.reception.outbox
        outbox.flush()
        outbox.detach(self.reception)
        if not self._detached:
            self._service.loop.closing.append(self._sock)

    def suspend(self) -> None:
        """Receive no more, for another process will; what has been read is passed on. Sessions stay as they are."""
        self._suspend()

    def detach(self) -> socket.socket:
        """Close all but the socket, which is the caller's from now on."""
        self._detached = True
        self.close()
        return self._sock

    def serve(self, service: DatagramService, group: Group) -> None:
        """From now on clients without a session are those of `service`, and go to `group`."""
        self._service = self.reception.service = service
        self.reception.group = group

    def on_readable(self, mask: int) -> None:  # noqa: ARG002  # a handler takes the event bits
        """Handler of the socket: one batch."""
        if self._receiving:
            self.receive()

    def receive(self) -> int:
        """Read one batch, and deal with it; how many datagrams it had, joined ones counted as one."""
        inbox, service = self._inbox, self._service
        try:
            count = inbox.receive(self._sock)
        except OSError as error:
            if error.errno not in TRANSIENT:
                self._pause(error)
            return 0
        counters = service.counters
        if inbox.truncated:
            counters.datagrams_in += inbox.truncated
            service.drop(Drop.TOO_LARGE, inbox.truncated)
            inbox.truncated = 0
        if count:
            self._asked = False
            counters.datagrams_in += count
            counters.bytes_in += sum(inbox.sizes)
            if inbox.segments:
                sizes = inbox.sizes
                counters.datagrams_in += sum(-(-sizes[at] // size) - 1 for at, size in inbox.segments.items())
            self._take(inbox, count)
        return count

    @abc.abstractmethod
    def _take(self, inbox: Inbox, count: int) -> None:
        """Pass on what is in the first `count` slots."""

    def expire(self) -> None:
        """The pause is over: try again."""
        if self._open and not self._receiving:
            self._resume()

    def crashed(self, error: Exception) -> None:
        """A bug: logged, the rest of the batch is lost, and receiving goes on."""
        self._service.report_crash(error)
        self._service.drop(Drop.INTERNAL_ERROR)

    def count_lost(self) -> None:
        """Count what the kernel had to drop. Once a second; a socket from which nothing was read is not asked again."""
        if not self._asked:
            self._asked = True
            lost = lost_in_kernel(self._sock)
            self._service.drop(Drop.RELAY_FULL, lost - self._lost)
            self._lost = lost

    def _pause(self, error: OSError) -> None:
        service = self._service
        self._suspend()
        service.loop.call_at(self, service.loop.now + RECEIVE_PAUSE_S)
        reason = errors.name(error.errno or 0) + (": " + (error.strerror or ""))
        service.log.event(
            Event.ACCEPT_PAUSED,
            f"receiving pauses: {reason}; datagrams wait in the socket",
            listener=service.spec.name,
            reason=reason,
            active=service.counters.active,
        )

    def _suspend(self) -> None:
        if self._receiving:
            self._receiving = False
            self._service.loop.selector.unregister(self._sock)

    def _resume(self) -> None:
        try:
            self._service.loop.selector.register(self._sock, IN, self.on_readable)
        except OSError as error:
            self._pause(error)
        else:
            self._receiving = True


class SessionReceiver(Receiver):
    """Hands datagrams to sessions (D1), and begins so many sessions in a turn; further clients wait for the next
    one.
    """

    def __init__(self, service: DatagramService, sock: socket.socket, group: Group) -> None:
        super().__init__(service, sock, group)
        self._newcomers = Newcomers()
        #: How many sessions may still begin in the turn of this time, and datagrams of this batch whose clients have
        #: none.
        self._may_begin = 0
        self._turn = -1.0
        self._strangers = 0
        self._admitting = False
        #: The socket is here for the sessions that it has, and for no others.
        self.retired = False

    def on_readable(self, mask: int) -> None:  # noqa: ARG002  # a handler takes the event bits
        """Handler of the socket: one batch; under a flood of new clients more, for they cost little."""
        self._strangers = 0
        if self._receiving and self.receive() == BATCH:
            for _ in range(1, BATCHES_PER_TURN):
                if 2 * self._strangers < BATCH or not self._receiving:
                    break
                self._strangers = 0
                if self.receive() < BATCH:
                    break

    @property
    def sessions(self) -> Collection[Session]:
        """Those that are there now, of whatever listener they are."""
        return self.reception.home.values()

    def suspend(self) -> None:
        """See `Receiver`. Nobody waits any more."""
        super().suspend()
        while self._newcomers:
            self._admit()

    def close(self) -> None:
        """See `Receiver`."""
        self._service.drop(Drop.DRAINING, len(self._newcomers))
        self._newcomers = Newcomers()
        super().close()

    def _take(self, inbox: Inbox, count: int) -> None:
        keys, sizes = inbox.keys, inbox.sizes
        if inbox.segments or (count >= _BULK_SAMPLE and len(set(keys[:_BULK_SAMPLE])) <= _BULK_CLIENTS):
            self._take_runs(inbox, count)
            return
        service = self._service
        find, now = self.reception.home.get, service.loop.now
        for key, size, view in zip(keys, sizes, inbox.views, strict=False):
            session = find(key)
            data = view[:size]
            if session is None:
                self._meet(key, data)
                continue
            send = session.send  # read before it is called, as in `Session.on_event`
            try:
                send(data)
            except OSError as error:
                self._deliver(key, data, session, error.errno or errno.EIO)
                continue
            if now >= session.noted_until:
                session.service.table.used(session, now)  # which may be that of a listener that is gone
            session.datagrams_in += 1
            session.bytes_in += size
            if session.keeps:
                session.kept = bytes(data)

    def _meet(self, key: bytes, data: memoryview) -> None:
        """A datagram of a client without a session: begin one, or let it wait."""
        self._strangers += 1
        now = self._service.loop.now
        if self._turn != now:
            self._turn, self._may_begin = now, BEGUN_PER_TURN
        if self._may_begin > 0 and not self._newcomers:
            self._may_begin -= 1
            self._deliver(key, data)
        elif not self._newcomers.put(key, data):
            self._service.drop(Drop.OVERLOADED)
        elif not self._admitting:
            self._admitting = True
            self._service.loop.again(self._admit)

    def _admit(self) -> None:
        """Once in a turn, while clients wait."""
        self._admitting = False
        self._turn, self._may_begin = self._service.loop.now, BEGUN_PER_TURN
        newcomers = self._newcomers
        while newcomers and self._may_begin > 0:
            self._may_begin -= 1
            key, datagrams = newcomers.take()
            for data in datagrams:
                self._deliver(key, data)
        if newcomers and not self._admitting:
            self._admitting = True
            self._service.loop.again(self._admit)

    def _deliver(self, key: bytes, data: memoryview | bytes, session: Session | None = None, number: int = 0) -> None:
        """Pass on one datagram, the careful way: to `session`, whose socket has said `number`, or to that of `key`, or
        to a new one. A session that ends over it leaves it to a new one, once.
        """
        session = session or self.reception.home.get(key)
        try:
            if session is not None and self._sent(session, data, number):
                return
            session = self._begin(key)
            if session is not None and not self._sent(session, data):
                self._service.drop(Drop.TARGET_FAILED)
        except Exception as bug:
            self._service.drop(Drop.INTERNAL_ERROR)
            if session is not None:
                session.crashed(bug)
            else:
                self._service.report_crash(bug)

    def _sent(self, session: Session, data: memoryview | bytes, number: int = 0) -> bool:
        """Send, unless that was tried and gave `number`. False: the session has ended without having sent it."""
        if not number:
            try:
                session.send(data)
            except OSError as error:
                number = error.errno or errno.EIO
            else:
                if session.keeps:
                    session.kept = bytes(data)
        if number and not session.not_sent(number, data):
            return False
        session.service.table.used(session, self._service.loop.now)
        session.datagrams_in += 1
        session.bytes_in += len(data)
        return True

    def _begin(self, key: bytes) -> Session | None:
        """A new session; None when there is none to be had, and then the datagram is counted as lost."""
        service = self._service
        if service.draining or self.retired:
            service.drop(Drop.DRAINING)
            return None
        service.make_room()
        session = Session(self.reception, key)
        reason = session.dial()
        if reason is not None:
            service.drop(reason)
            return None
        try:
            session.begin()
        except BaseException:
            session.abandon()
            raise
        if service.log.start:
            service.log.living(Event.SESSION_STARTED, session_record(session, LIVING, service.loop.now))
        return session

    def _take_runs(self, inbox: Inbox, count: int) -> None:
        """A batch with many datagrams of one client: sent by as few calls as the kernel allows (D6)."""
        slots_of: dict[bytes, deque[int]] = {}
        for at in range(count):
            slots_of.setdefault(inbox.keys[at], deque()).append(at)
        home = self.reception.home
        for key, slots in slots_of.items():
            while slots:
                views, segment = _next_run(inbox, slots)
                datagrams = sum(-(-len(view) // segment) if segment else 1 for view in views)
                session = home.get(key)
                if session is not None and datagrams > 1 and session.send_run(views, segment, datagrams):
                    continue
                for view in views:
                    for start in range(0, len(view), segment) if segment else (0,):
                        piece = view[start : start + segment]
                        if key in home:
                            self._deliver(key, piece)
                        else:
                            self._meet(key, piece)


def _next_run(inbox: Inbox, slots: deque[int]) -> tuple[list[memoryview], int]:
    """Take from the front of `slots`, which are one client's, what can be one send, and the size of each datagram in
    it: a slot of joined datagrams, or slots of one size, the last perhaps smaller. Empty datagrams go alone.
    """
    first = slots.popleft()
    size = inbox.sizes[first]
    views = [inbox.views[first][:size]]
    if first in inbox.segments:
        return views, inbox.segments[first]
    total = size
    while size and slots and len(views) < SEGMENTS_MAX and slots[0] not in inbox.segments:
        more = inbox.sizes[slots[0]]
        if not 0 < more <= size or total + more > RUN_BYTES_MAX:
            break
        views.append(inbox.views[slots.popleft()][:more])
        total += more
        if more < size:
            break
    return views, size
