"""session = "datagram" (D7): each datagram to the next target. No sessions, and no way back.

There is one connected socket per target, opened with the first datagram to it. A target that cannot be reached is told
by ICMP, after the fact: the last datagram to it then goes to another one (`on_target_error = "move"`).
"""

import errno
import socket

from relayd.choosing.group import Choice, Group, client_key
from relayd.errors import spoken
from relayd.net.boxes import Inbox
from relayd.net.datagrams import forget_errors, open_session_socket
from relayd.net.dialing import met_itself
from relayd.net.poller import IN
from relayd.outcomes import Drop
from relayd.relay.datagram.listener import Receiver
from relayd.relay.datagram.service import DatagramService
from relayd.spec import OnTargetError

_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})
_DISCARDED_PER_TURN = 16
#: Batches that are read from a socket before it is closed for good: a stop loses little that has arrived.
LAST_BATCHES = 64


class Way:
    """A socket to one target. Owns it."""

    __slots__ = ("_spreader", "choice", "kept", "kept_key", "kept_tried", "sock")

    def __init__(self, spreader: "Spreader", choice: Choice, sock: socket.SocketType) -> None:
        self._spreader = spreader
        self.choice = choice
        self.sock = sock
        #: The last datagram that went this way, which an error is about, whose it is, and where it has been in vain.
        self.kept: bytes | None = None
        self.kept_key = b""
        self.kept_tried: tuple[Choice, ...] = ()

    def on_event(self, mask: int) -> None:  # noqa: ARG002  # a handler takes the event bits
        """Handler of the socket: an answer, which nobody is there to get, or an error."""
        for _ in range(_DISCARDED_PER_TURN):
            try:
                self.sock.recv(1)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # the kernel knows now, and fragments
                    forget_errors(self.sock)
                    self._spreader.service.drop(Drop.TOO_LARGE)
                else:
                    self._spreader.failed(self, error.errno or errno.EIO)
                return
            self._spreader.service.counters.datagrams_out += 1
            self._spreader.service.drop(Drop.NO_REPLY_PATH)

    def expire(self) -> None:
        """It has no timer."""

    def crashed(self, error: Exception) -> None:
        """A bug: the way is closed, and opened anew for the next datagram."""
        self._spreader.service.report_crash(error)
        self._spreader.close_way(self)


class Spreader:
    """The ways to the targets of one group."""

    def __init__(self, service: DatagramService, group: Group) -> None:
        self.service = service
        self._group = group
        # By the identity of the choice, which a group keeps until its targets change.
        self._ways: dict[int, Way] = {}

    @property
    def _moves(self) -> bool:
        return self.service.datagram.on_target_error is OnTargetError.MOVE

    def send(self, data: memoryview | bytes, key: bytes, tried: tuple[Choice, ...] = ()) -> None:
        """Send `data` to the next target, but for those `tried`; counted by reason when none takes it. `key` as of
        `Group.pick`.
        """
        reason = Drop.TARGET_FAILED if tried else Drop.NO_TARGET
        loop = self.service.loop
        while (choice := self._group.pick(tried, key, loop.now)) is not None:
            tried = (*tried, choice)
            number = self._send_to(choice, data, key, tried)
            if not number:
                return
            if number in _FULL:
                reason = Drop.TARGET_FULL
            elif number == errno.EMSGSIZE:
                reason = Drop.TOO_LARGE
            else:
                reason = Drop.TARGET_FAILED
                self._group.failed(choice, spoken(number), loop.now)
        self.service.drop(reason)

    def _send_to(self, choice: Choice, data: memoryview | bytes, key: bytes, tried: tuple[Choice, ...]) -> int:
        """The errno of sending `data` to `choice`, 0 when it is sent. The first error may be about an earlier one."""
        number = errno.EIO
        for _ in range(2):
            way = self._ways.get(id(choice))
            try:
                if way is None:
                    way = self._open(choice)
                way.sock.send(data)
            except OSError as error:
                number = error.errno or errno.EIO
                if number in _FULL:
                    break
                if number == errno.EMSGSIZE and way is not None:
                    forget_errors(way.sock)
                elif way is not None:
                    self.failed(way, number)
            else:
                if self._moves and choice.af != socket.AF_UNIX:
                    way.kept, way.kept_key, way.kept_tried = bytes(data), key, tried
                return 0
        return number

    def failed(self, way: Way, number: int) -> None:
        """The target cannot be reached, with errno `number`: the last datagram that went there goes elsewhere, or is
        lost.
        """
        self.service.counters.target_errors += 1
        if way.choice.af == socket.AF_UNIX:
            # It says so at once, so nothing is lost; and when somebody is there again, that is another socket.
            self.close_way(way)
            return
        forget_errors(way.sock)
        self._group.failed(way.choice, spoken(number), self.service.loop.now)
        kept, way.kept = way.kept, None
        if kept is not None:
            self.send(kept, way.kept_key, way.kept_tried)
        elif not self._moves:
            self.service.drop(Drop.TARGET_FAILED)

    def prune(self) -> None:
        """The targets of the group have changed: close the ways to those that are gone."""
        if self._ways:
            there = {id(choice) for choice in self._group}
            for way in [way for number, way in self._ways.items() if number not in there]:
                self.close_way(way)

    def close_way(self, way: Way) -> None:
        """Forget and close one way. Idempotent."""
        if self._ways.pop(id(way.choice), None) is not None:
            self.service.loop.selector.forget(way.sock.fileno())
            self.service.loop.closing.append(way.sock)

    def close(self) -> None:
        """Close every way."""
        for way in list(self._ways.values()):
            self.close_way(way)

    def _open(self, choice: Choice) -> Way:
        sock = open_session_socket(choice.af, choice.sockaddr or choice.address.sockaddr, self.service.spec.source)
        try:
            if choice.may_meet_itself and met_itself(sock, choice.port):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody is there but ourselves")
            way = Way(self, choice, sock)
            self.service.loop.selector.register(sock, IN, way.on_event)
        except OSError:
            sock.close()
            raise
        self._ways[id(choice)] = way
        return way


class SpreadingReceiver(Receiver):
    """Hands each datagram to the next target."""

    def __init__(self, service: DatagramService, sock: socket.socket, group: Group, spreader: Spreader) -> None:
        super().__init__(service, sock, group)
        self.spreader = spreader

    def _take(self, inbox: Inbox, count: int) -> None:
        send, keyed, client = self.spreader.send, self.reception.group.keyed, self.reception.layout.client
        for at in range(count):
            key = client_key(client(inbox.keys[at])) if keyed else b""
            data = inbox.views[at][: inbox.sizes[at]]
            segment = inbox.segments.get(at)
            if segment is None:
                send(data, key)
                continue
            for start in range(0, len(data), segment):
                send(data[start : start + segment], key)

    def finish(self) -> None:
        """Pass on what has arrived already, and close: nobody waits for an answer."""
        for _ in range(LAST_BATCHES):
            if not self.receive():
                break
        self.close()
