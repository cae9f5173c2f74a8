"""Batches of datagrams: in from many clients by one system call, and out to many by one. These are the plain ones, in
which a datagram costs a call of its own; those of `mmsg` behave the same.

    count = inbox.receive(sock)                  # then, for each of `count` positions:
    inbox.keys[at], inbox.sizes[at], inbox.views[at][:size] inbox.segments.get(at)                       # not None:
    several datagrams of that size, joined by the kernel (UDP_GRO)

    size = recv_into(outbox.views[len(outbox.sizes)]) # straight into the place from where it is sent
    outbox.put(session, size)
    outbox.flush()                               # before the turn of the loop ends

One inbox serves all receiving sockets of a layout, for what it holds is dealt with before the next read. One outbox
serves them as well: it holds what is to be sent in this turn, and sends it when it is full or the turn ends.
"""

import errno
import mmap
import socket
from collections.abc import Sequence
from typing import Protocol

from relayd.net.datagrams import (
    BATCH,
    GSO_REFUSED,
    RUN_BYTES_MAX,
    SEGMENTS_MAX,
    SLOT_BYTES,
    Layout,
    asked_address,
    segment_control,
    segment_size,
)

CONTROL_ROOM = 128  # pktinfo, UDP_GRO, and an option or two that whoever passed the socket had set


class ReplySocket(Protocol):
    """The socket that replies leave from."""

    sock: socket.socket
    layout: Layout

    def replied(self, datagrams: int, size: int) -> None:
        """So many datagrams, of so many bytes together, have been given to the kernel, or reported as undelivered."""


class Addressee(Protocol):
    """To whom a datagram in an outbox goes: a session, for its client."""

    @property
    def receiver(self) -> ReplySocket:
        """Where its datagrams come from and replies leave."""

    key: bytes
    #: What `Outbox.reply_to` made of the key.
    reply_to: bytes
    #: False for a Unix client, and once UDP_SEGMENT was refused on the way to this one.
    gso: bool

    @property
    def held_up(self) -> bool:
        """True while a Unix client has not taken an earlier datagram: order is kept, and nothing is sent to it."""

    def undelivered(self, number: int, data: memoryview) -> None:
        """The kernel did not take `data`, one datagram for the client, with errno `number`. The buffer is used
        again.
        """


class Slots:
    """Room for a batch. Memory that no datagram has reached is not there: anonymous pages come with the first byte.

    Private, for a shared mapping keeps its pages through MADV_DONTNEED (madvise(2)).
    """

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, BATCH * SLOT_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = memoryview(self.memory)
        self.views = tuple(whole[at : at + SLOT_BYTES] for at in range(0, BATCH * SLOT_BYTES, SLOT_BYTES))

    def trim(self) -> None:
        """Give the memory back to the system. What was in the slots is gone."""
        self.memory.madvise(mmap.MADV_DONTNEED)


class Inbox:
    """Reads batches from receiving sockets."""

    def __init__(self, layout: Layout, slots: Slots) -> None:
        self.views = slots.views
        self.keys: Sequence[bytes] = ()
        self.sizes: Sequence[int] = ()
        self.segments: dict[int, int] = {}
        #: Datagrams that did not fit a slot and were dropped; whoever counts them sets this to 0.
        self.truncated = 0
        self._layout = layout

    def receive(self, sock: socket.socket) -> int:
        """How many slots hold something new: 0 when nothing waits, BATCH when more may wait. Raises OSError as
        recvmsg(2), but for EAGAIN.
        """
        layout = self._layout
        room = (
            CONTROL_ROOM if layout.af != socket.AF_UNIX else 0
        )  # without room, the kernel drops descriptors sent along
        keys: list[bytes] = []
        sizes: list[int] = []
        self.segments.clear()
        self.keys, self.sizes = keys, sizes
        while (at := len(sizes)) < BATCH:
            try:
                size, ancillary, _, name = sock.recvmsg_into([self.views[at]], room, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                if at:
                    break  # the kernel tells it again, or it is over
                raise
            if size == SLOT_BYTES:
                self.truncated += 1
                continue
            if 0 < (segment := segment_size(ancillary)) < size:
                self.segments[at] = segment
            keys.append(layout.key(layout.name_of(name), asked_address(ancillary, layout.af)))
            sizes.append(size)
        return len(sizes)


class Outbox:
    """Holds and sends replies. Order is kept for each addressee."""

    def __init__(self, layout: Layout, slots: Slots) -> None:
        self.views = slots.views
        #: What waits, slot by slot. The next datagram goes to `views[len(sizes)]`; there is always room for one.
        self.sizes: list[int] = []
        self.owners: list[Addressee] = []
        self._layout = layout
        self._slots = slots
        #: By slot, what UDP_GRO has joined: the size of each datagram in it.
        self._segments: dict[int, int] = {}
        #: True when runs of one size are to be looked for.
        self._bulk = False
        #: The receiving socket of all owners, as long as there is only one.
        self._only: ReplySocket | None = None
        self._attached: list[ReplySocket] = []

    def attach(self, receiver: ReplySocket) -> None:
        """Replies may leave from `receiver` from now on."""
        self._attached.append(receiver)
        self._only = receiver if len(self._attached) == 1 else None

    def detach(self, receiver: ReplySocket) -> None:
        """No more replies leave from `receiver`; those that wait are to be sent before. Idempotent."""
        if receiver in self._attached:
            self._attached.remove(receiver)
        self._only = self._attached[0] if len(self._attached) == 1 else None

    def reply_to(self, key: bytes) -> bytes:
        """What a session keeps, so that `put` need not work it out."""
        return key

    def put(self, owner: Addressee, size: int) -> None:
        """The next slot holds a datagram of `size` bytes for `owner`. Sends all when that was the last slot."""
        self.sizes.append(size)
        self.owners.append(owner)
        if len(self.sizes) == BATCH:
            self.flush()

    def fill(self, owner: Addressee, sock: socket.SocketType, most: int) -> tuple[int, int, int]:
        """Read at most `most` datagrams from `sock` for `owner`, joined ones counting as one.

        Returns datagrams, bytes, and why it has stopped: an errno, EAGAIN when nothing more waits; 0: more may wait.
        """
        datagrams = total = 0
        room = CONTROL_ROOM if sock.family != socket.AF_UNIX else 0
        for _ in range(most):
            at = len(self.sizes)
            try:
                size, ancillary, _, _ = sock.recvmsg_into([self.views[at]], room)
            except OSError as error:
                return datagrams, total, error.errno or errno.EIO
            segment = segment_size(ancillary)
            if 0 < segment < size:
                self._segments[at] = segment
                datagrams += -(-size // segment)
            else:
                datagrams += 1
            total += size
            self._bulk = self._bulk or datagrams > 1
            if size == SLOT_BYTES:
                owner.receiver.replied(1, size)
                owner.undelivered(errno.EMSGSIZE, self.views[at])
            else:
                self.put(owner, size)
        return datagrams, total, 0

    def flush(self) -> None:
        """Send everything. What the kernel does not take is told to its owner; nothing is raised for it."""
        if not self.sizes:
            return
        try:
            self._send_by_receiver()
        finally:
            self._clear()

    def trim(self) -> None:
        """Give memory back, when nothing waits."""
        if not self.sizes:
            self._slots.trim()

    def _clear(self) -> None:
        self.sizes.clear()
        self.owners.clear()
        self._segments.clear()
        self._bulk = False

    def _send_by_receiver(self) -> None:
        """The general way: several receiving sockets, runs, joined datagrams."""
        slots_of: dict[ReplySocket, list[int]] = {}
        for at, owner in enumerate(self.owners):
            slots_of.setdefault(owner.receiver, []).append(at)
        sizes, segments = self.sizes, self._segments
        for receiver, slots in slots_of.items():
            datagrams = sum(-(-sizes[at] // segments[at]) if at in segments else 1 for at in slots)
            receiver.replied(datagrams, sum(sizes[at] for at in slots))
            self._send_in_order(receiver, slots)

    def _send_in_order(self, receiver: ReplySocket, slots: list[int]) -> None:
        singles: list[int] = []
        at = 0
        while at < len(slots):
            length = self._run_length(slots, at)
            if length:
                self._send_singles(receiver, singles)
                singles = []
                self._send_run(slots[at : at + length])
                at += length
            else:
                singles.append(slots[at])
                at += 1
        self._send_singles(receiver, singles)

    def _run_length(self, slots: list[int], first: int) -> int:
        """How many of `slots` from `first` on are one run: same owner, same size, but for the last, which may be less.
        0: it is a single datagram.
        """
        if slots[first] in self._segments:
            return 1
        owner, size = self.owners[slots[first]], self.sizes[slots[first]]
        if not self._bulk or not owner.gso or not size:
            return 0
        last = min(len(slots), first + min(SEGMENTS_MAX, RUN_BYTES_MAX // size))
        at = first + 1
        while at < last and self.owners[slots[at]] is owner and slots[at] not in self._segments:
            if self.sizes[slots[at]] != size:
                at += 0 < self.sizes[slots[at]] < size
                break
            at += 1
        return at - first if at - first > 1 else 0

    def _send_run(self, slots: list[int]) -> None:
        """Slots that are one run, or one slot that holds several datagrams."""
        owner = self.owners[slots[0]]
        views = [self.views[at][: self.sizes[at]] for at in slots]
        segment = self._segments.get(slots[0]) or len(views[0])
        if owner.gso:
            number = self._sendmsg(owner, views, segment)
            if not number:
                return
            if number in GSO_REFUSED:
                owner.gso = False
        for view in views:
            for start in range(0, len(view), segment):
                piece = view[start : start + segment]
                if number := self._sendmsg(owner, [piece], 0):
                    owner.undelivered(number, piece)

    def _send_singles(self, receiver: ReplySocket, slots: list[int]) -> None:
        """Datagrams of one receiving socket, each by itself."""
        del receiver
        for at in slots:
            view = self.views[at][: self.sizes[at]]
            if number := self._sendmsg(self.owners[at], [view], 0):
                self.owners[at].undelivered(number, view)

    def _sendmsg(self, owner: Addressee, views: list[memoryview], segment: int) -> int:
        """sendmsg(2); its errno, 0 when the kernel took it all."""
        if owner.held_up:
            return errno.EAGAIN
        layout = self._layout
        control = layout.reply_control(owner.key)
        if segment:
            control.append(segment_control(segment))
        try:
            owner.receiver.sock.sendmsg(views, control, socket.MSG_DONTWAIT, layout.client(owner.key))
        except OSError as error:
            return error.errno or errno.EIO
        return 0
