"""One check over a socket: connect, send, read until there is a verdict, close.

    CONNECTING ──▶ SENDING ──▶ READING ──▶ OVER      (any phase goes to OVER: by a verdict, or by `close`)

A callback for each event of one edge-triggered socket, and nothing of asyncio: streams cost ten times as much, and
aiohttp a hundred times, of what a thousand targets every 2 s may take (5 % of a core: 100 µs a check).

**TCP is left by a reset.** A connection closed in the usual way stays in TIME_WAIT for a minute, and holds a local
port: 30 of them for each target. Where a connection is all that is asked for, the target's program does not even see
it: the last ACK of the handshake is held back (TCP_QUICKACK, as HAProxy does it), and the reset goes in its place. That
the target's kernel answers a SYN means that somebody listens, and has room in the backlog. After an answer the program
sees a reset, unless it has closed first, as an HTTP server does that is told `Connection: close`.
"""

import dataclasses
import enum
import errno
import os
import socket
from collections.abc import Callable

from relayd.address import InetAddress, SocketAddress
from relayd.control.checks.answers import ANSWER_BYTES_MAX, Script
from relayd.control.checks.subject import UP, Cause, Found, Subject
from relayd.errors import OUT_OF_RESOURCES, TRANSIENT
from relayd.net.dialing import NoSource, may_meet_itself, met_itself, open_dial_socket, pending_error
from relayd.net.options import Setting
from relayd.net.poller import ENDING, ERR, HUP, IN, RDHUP, EdgeSelector
from relayd.net.tcp import reset_at_close

__all__ = ["Probe", "seconds"]

#: Hold the last ACK of the handshake back, for it to go with what is sent, or never. Not where a target speaks first:
#: it would not begin before it has the ACK, which then comes up to 200 ms later (TCP_DELACK_MAX).
_NO_ACK_YET: Setting = (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
_SPEAKING_FIRST = (_NO_ACK_YET,)
_NEW_DATAGRAM = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_LOCAL = OUT_OF_RESOURCES - {errno.ENOSPC}


class _Phase(enum.Enum):
    CONNECTING = "connecting"
    SENDING = "sending"
    READING = "reading"
    OVER = "over"


class Probe:
    """Asks `subject` once. `done` is called once, with what has been found, when the socket is closed; not after
    `close`. Owns its socket.
    """

    __slots__ = (
        "_datagrams",
        "_done",
        "_fd",
        "_phase",
        "_port",
        "_received",
        "_script",
        "_selector",
        "_sock",
        "subject",
    )

    def __init__(self, selector: EdgeSelector, subject: Subject, script: Script, done: Callable[[Found], None]) -> None:
        self.subject = subject
        self._selector = selector
        self._script = script
        self._done = done
        self._datagrams = script.datagrams
        self._received = b""
        self._phase = _Phase.CONNECTING
        self._sock: socket.SocketType | None = None
        self._fd = -1
        #: Of a target that a socket of ours could be given as its own; 0: it cannot.
        self._port = 0

    def start(self) -> None:
        """Begin. `done` may be called before this returns. An OSError is no verdict, and told as such."""
        subject = self.subject
        address = subject.address
        try:
            self._sock = sock = self._open()
            self._fd = sock.fileno()
            sockaddr = address.sockaddr
            error = sock.connect_ex(sockaddr)
        except OSError as failure:  # also if_nametoindex(3): the interface of a link-local target is not there
            self._over(_local(failure, subject.source))
            return
        if isinstance(address, InetAddress) and not self._datagrams and may_meet_itself(address):
            self._port = address.port
        if error in (0, errno.EISCONN):
            self._connected(0)
        elif error != errno.EINPROGRESS:
            self._failed(error)
        if self._phase is not _Phase.OVER:
            try:
                self._selector.watch(self._fd, self._event)
            except OSError as failure:
                self._over(_local(failure, None))

    def late(self) -> None:
        """The check's timeout is over."""
        within = f"within {seconds(self.subject.check.timeout_s)}"
        if self._phase is _Phase.CONNECTING:
            self._over(Found(False, "connect timeout", Cause.CONNECT_TIMEOUT))
        elif self._script.judge is None:
            self._over(Found(False, f"nothing was taken {within}", Cause.TIMEOUT))
        else:
            found = self._script.judge(self._received, within) or Found(False, f"no answer {within}")
            self._over(dataclasses.replace(found, cause=Cause.TIMEOUT))

    def close(self) -> None:
        """Break off. Idempotent."""
        self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        self._phase = _Phase.OVER
        if self._sock is not None:
            if reset and not self._datagrams:
                reset_at_close(self._sock)
            self._selector.forget(self._fd)
            self._sock.close()
            self._sock = None

    def _open(self) -> socket.SocketType:
        """Raises OSError; nothing is left open then."""
        subject = self.subject
        family = subject.address.family.af
        if not self._datagrams:
            listening = self._script.judge is not None and not self._script.send
            return open_dial_socket(family, () if listening else _SPEAKING_FIRST, subject.source)
        sock = socket.SocketType(family, _NEW_DATAGRAM)
        try:
            if family == socket.AF_UNIX:
                sock.bind("")  # a name in the abstract namespace, so that it can be answered (unix(7), autobind)
            elif subject.source is not None and subject.source.family.af == family:
                sock.bind(subject.source.sockaddr)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL:
                raise NoSource(error.errno, "this machine does not have the source address") from error
            raise
        return sock

    def _event(self, mask: int) -> None:
        if self._phase is _Phase.CONNECTING:
            error = pending_error(self._require()) if mask & (ERR | HUP) else 0
            if error:
                self._failed(error)
            else:
                self._connected(mask)
        elif self._phase is _Phase.SENDING:
            self._send(mask)
        elif self._phase is _Phase.READING:
            self._read(mask)

    def _connected(self, mask: int) -> None:
        if self._port and met_itself(self._require(), self._port):
            self._over(Found(False, "nobody listens: the check met itself", Cause.CONNECT))
        elif self._script.judge is None and not self._script.send:
            self._over(UP)
        else:
            self._phase = _Phase.SENDING
            self._send(mask)

    def _send(self, mask: int) -> None:
        """All at once: what is sent is far smaller than any socket buffer, and a part of it is a failure."""
        data = self._script.send
        if data or self._datagrams:
            try:
                sent = self._require().send(data, socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno not in TRANSIENT:  # those: a Unix datagram socket whose queue is full, until an event
                    self._failed(error.errno or 0)
                return
            if sent < len(data):
                self._over(Found(False, "not all was taken", Cause.ANSWER))
                return
        self._phase = _Phase.READING
        if self._script.judge is None:
            self._over(UP)
        elif mask & (IN | ENDING):  # else an answer is an event of its own, also one that has come meanwhile
            self._read(mask)

    def _read(self, mask: int) -> None:
        """What is there, up to ANSWER_BYTES_MAX: it ends, whatever the target sends."""
        judge, sock = self._script.judge, self._require()
        if judge is None:
            return
        while self._phase is _Phase.READING:
            try:
                data = sock.recv(ANSWER_BYTES_MAX)
            except OSError as error:
                if error.errno not in TRANSIENT:
                    self._failed(error.errno or 0)
                return
            ended = not data and not self._datagrams
            self._received = data if self._datagrams else (self._received + data)[:ANSWER_BYTES_MAX]
            found = judge(self._received, "before it closed" if ended else "")
            if found is None and (ended or len(self._received) == ANSWER_BYTES_MAX):
                found = Found(False, "no answer that ends", Cause.ANSWER)
            if found is not None:
                # Closed by the target, with all read: then closing leaves nothing behind here, and needs no reset.
                self._over(found, ended=ended or bool(mask & RDHUP and len(data) < ANSWER_BYTES_MAX))

    def _failed(self, number: int) -> None:
        """By an errno of the socket."""
        connecting = self._phase is _Phase.CONNECTING
        if number in _LOCAL:
            self._over(_local(OSError(number, os.strerror(number)), None))
        elif number == errno.EAGAIN:  # connect(2) of a Unix stream socket
            self._over(Found(False, "its backlog is full", Cause.CONNECT))
        elif number == errno.ETIMEDOUT and connecting:
            self._over(Found(False, "connect timeout", Cause.CONNECT_TIMEOUT))
        else:
            # A datagram socket is told by ICMP that nobody is there, once it has sent.
            cause = Cause.CONNECT if connecting or self._datagrams else Cause.ANSWER
            self._over(Found(False, _words(number), cause))

    def _over(self, found: Found, *, ended: bool = False) -> None:
        self._close(reset=not ended)
        self._done(found)

    def _require(self) -> socket.SocketType:
        if self._sock is None:
            raise RuntimeError("an event of a probe that is over")
        return self._sock


def _words(number: int) -> str:
    """`connection refused` for ECONNREFUSED."""
    text = os.strerror(number)
    return text[:1].lower() + text[1:]


def _local(error: OSError, source: SocketAddress | None) -> Found:
    """No verdict."""
    if isinstance(error, NoSource) and isinstance(source, InetAddress):
        return Found(None, f"this machine does not have the source address {source.host}")
    return Found(None, _words(error.errno) if error.errno else str(error))


def seconds(value: float) -> str:
    """`1s`, `0.25s`."""
    return f"{value:g}s"
