"""The channel: messages and file descriptors between the control process and one worker.

A SOCK_SEQPACKET socketpair: it keeps packet boundaries and order, and carries descriptors (SCM_RIGHTS, unix(7)). A
message larger than a packet is cut into several; the first byte of a packet says whether more follow. Neither end ever
blocks: `send` queues what the socket does not take, `flush` goes on when it is writable.
"""

import array
import contextlib
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence

from relayd.channel.codec import CodecError, decode, encode
from relayd.channel.messages import Message
from relayd.errors import OUT_OF_RESOURCES, TRANSIENT

__all__ = ["Channel", "ChannelClosed", "CodecError"]

#: Payload of one packet. A packet must fit the send buffer as a whole (EMSGSIZE), whose default is 208 KiB.
_PACKET_BYTES = 64 * 1024
#: SCM_MAX_FD of the kernel (unix(7)): descriptors in one packet.
_PACKET_FDS = 253
#: A message is at most this large: the spec of 65,535 listeners fits, a peer gone mad does not fill the memory.
_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
_MORE, _LAST = b"+", b"."


class ChannelClosed(Exception):
    """The other process has gone: nothing more will come."""


class Channel:
    """One end of a channel. Owns its socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._incoming = bytearray()
        self._incoming_fds: list[int] = []
        self._blocked = False

    @staticmethod
    def pair() -> tuple["Channel", socket.socket]:
        """This process's end, and the socket to hand to the other process (the caller closes its copy)."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Channel(ours), theirs

    def fileno(self) -> int:
        """For a selector: readable means `receive`, writable means `flush`. -1 once closed."""
        return self._sock.fileno()

    @property
    def backlog(self) -> int:
        """Packets queued and not yet sent: `flush` has to be called again."""
        return len(self._outgoing)

    @property
    def blocked(self) -> bool:
        """True when packets are queued because the socket is full: a selector tells when to `flush`.

        With `backlog` and not `blocked`, the kernel was out of memory, or this user has too many descriptors on their
        way; the socket may be writable all the same, so that waiting for it would spin: flush at the next timer.
        """
        return self._blocked

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send `message` with duplicates of `fds`, now or, where the socket is full, at a later `flush`.

        The caller keeps its descriptors and leaves them open until `backlog` is 0. Raises ChannelClosed.
        """
        data = encode(message)
        parts = [data[at : at + _PACKET_BYTES] for at in range(0, len(data), _PACKET_BYTES)]
        batches = [fds[at : at + _PACKET_FDS] for at in range(0, len(fds), _PACKET_FDS)]
        count = max(len(parts), len(batches))
        for at in range(count):
            mark = _LAST if at == count - 1 else _MORE
            part = parts[at] if at < len(parts) else b""
            self._outgoing.append((mark + part, batches[at] if at < len(batches) else ()))
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the socket and the kernel's memory take it. Raises ChannelClosed."""
        self._blocked = False
        while self._outgoing:
            packet, fds = self._outgoing[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                self._sock.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except OSError as error:
                if error.errno in TRANSIENT:
                    self._blocked = True
                    return
                if error.errno in OUT_OF_RESOURCES:
                    return
                raise ChannelClosed(f"sending failed: {error}") from error
            self._outgoing.popleft()

    def receive(self) -> Iterator[tuple[Message, list[int]]]:
        """Every whole message that has arrived, with its descriptors: close-on-exec, owned by the caller from now on.

        Raises ChannelClosed at the end, CodecError on a message that is none of this version's.
        """
        space = socket.CMSG_SPACE(_PACKET_FDS * array.array("i").itemsize)
        while True:
            try:
                packet, ancillary, flags, _ = self._sock.recvmsg(
                    _PACKET_BYTES + 1, space, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
                )
            except OSError as error:
                # Nothing was taken from the queue: the packet is there for the next call.
                if error.errno in TRANSIENT or error.errno in OUT_OF_RESOURCES:
                    return
                raise ChannelClosed(f"receiving failed: {error}") from error
            for level, kind, data in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    received = array.array("i")
                    received.frombytes(data[: len(data) - len(data) % received.itemsize])
                    self._incoming_fds.extend(received)
            if not packet:
                raise ChannelClosed("the other process closed the channel")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                # MSG_CTRUNC: at the limit of open files the kernel drops descriptors that do not fit.
                raise ChannelClosed("a packet was cut short: out of file descriptors?")
            mark = packet[:1]
            if mark not in (_MORE, _LAST):
                raise CodecError(f"not a packet of this version: {mark!r}")
            self._incoming += packet[1:]
            if len(self._incoming) > _MESSAGE_BYTES_MAX:
                raise CodecError(f"a message of more than {_MESSAGE_BYTES_MAX} bytes")
            if mark == _LAST:
                message = decode(self._incoming)  # on CodecError its descriptors stay here, for close()
                self._incoming.clear()
                fds, self._incoming_fds = self._incoming_fds, []
                yield message, fds

    def close(self) -> None:
        """Close the socket, and descriptors of a message that never became whole. Idempotent."""
        self._sock.close()
        self._outgoing.clear()
        for fd in self._incoming_fds:
            with contextlib.suppress(OSError):  # nothing can be done about a descriptor that does not close
                os.close(fd)
        self._incoming_fds.clear()
