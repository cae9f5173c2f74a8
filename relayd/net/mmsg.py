"""recvmmsg(2) and sendmmsg(2) through ctypes, for inet and inet6: the fast half of `boxes`.

Python has neither call, and `socket.recvfrom` makes an address of text for each datagram. Here the kernel writes into,
and reads from, arrays that are laid out once; what Python touches of a datagram is its size, its key, and the place to
where it goes. Importing this fails where a C library lacks the calls.

ctypes.PyDLL keeps the interpreter lock during a call: the sockets do not block, and giving it up costs as much as the
call.
"""

import ctypes
import errno
import mmap
import os
import socket
import struct
from array import array
from collections.abc import Callable, Sequence
from typing import Literal

from relayd.net.boxes import Addressee, Inbox, Outbox, ReplySocket, Slots
from relayd.net.datagrams import BATCH, CONNECTED, SLOT_BYTES, Layout, asked_address, segment_size

_libc = ctypes.PyDLL(None, use_errno=True)
_recvmmsg: Callable[..., int] = _libc.recvmmsg
_sendmmsg: Callable[..., int] = _libc.sendmmsg
_get_errno = ctypes.get_errno


def usable() -> bool:
    """True when the kernel, and a filter of system calls if there is one, knows both calls."""
    for call in (_recvmmsg, _sendmmsg):
        arguments = (-1, None, ctypes.c_uint(0), 0) + ((None,) if call is _recvmmsg else ())
        call(*arguments)
        if _get_errno() != errno.EBADF:
            return False
    return True


class _Iovec(ctypes.Structure):
    """struct iovec of readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr of recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr of recvmmsg(2): the header, and the size of the datagram."""

    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


_MESSAGE_BYTES = ctypes.sizeof(_Message)
#: size_t and pointers are unsigned longs wherever Linux runs: "L" below.
_WORD = ctypes.sizeof(ctypes.c_ulong)
#: Slots that one read uses while they hold joined datagrams: 512 KiB at most.
_FEW = 8
_COUNTS = tuple(ctypes.c_uint(count) for count in range(BATCH + 1))
_DONTWAIT = ctypes.c_int(socket.MSG_DONTWAIT)
_CMSG = struct.Struct("@Nii")


class _Array:
    """One array in memory that the kernel is given the address of."""

    def __init__(self, stride: int) -> None:
        self.memory = mmap.mmap(-1, BATCH * stride)
        self.address = _address(self.memory)
        self.stride = stride

    def column(self, offset: int, code: Literal["I", "L"]) -> "memoryview[int]":
        """The number at `offset` of each element, `code` being its format for `memoryview.cast`."""
        size = struct.calcsize(code)
        return memoryview(self.memory).cast("B").cast(code)[offset // size :: self.stride // size]


class _Messages:
    """BATCH messages of one slot each, and a record beside each, as `Layout` says."""

    def __init__(self, layout: Layout, slots: Slots, *, named: bool, control_bytes: int) -> None:
        record_bytes = -(-(layout.record_bytes) // _WORD) * _WORD
        self.records = _Array(record_bytes)
        self.iovecs = _Array(ctypes.sizeof(_Iovec))
        self.headers = _Array(_MESSAGE_BYTES)
        data = _address(slots.memory)
        for at in range(BATCH):
            record = self.records.address + at * record_bytes
            iovec = _Iovec.from_buffer(self.iovecs.memory, at * self.iovecs.stride)
            iovec.base, iovec.length = data + at * SLOT_BYTES, SLOT_BYTES
            header = _Header.from_buffer(self.headers.memory, at * _MESSAGE_BYTES)
            if named:
                header.name, header.name_length = record + layout.name_at, layout.name_bytes
            header.iov, header.iov_length = self.iovecs.address + at * self.iovecs.stride, 1
            if control_bytes:
                header.control, header.control_length = record + layout.control_at, control_bytes
            del iovec, header  # they keep the memory from being closed
        #: The headers before the kernel has written sizes into them.
        self.template = self.headers.memory[:]
        self.lengths = self.headers.column(_Message.length.offset, "I")
        self.controls = self.headers.column(_Header.control_length.offset, "L")
        #: To the kernel a batch begins at one of these.
        self.addresses = tuple(ctypes.c_void_p(self.headers.address + at * _MESSAGE_BYTES) for at in range(BATCH))


class MmsgInbox(Inbox):
    """`Inbox` by recvmmsg(2)."""

    def __init__(self, layout: Layout, slots: Slots) -> None:
        super().__init__(layout, slots)
        messages = self._messages = _Messages(layout, slots, named=True, control_bytes=layout.control_bytes)
        self._records = messages.records.memory
        self._headers = messages.headers.memory
        stride = messages.records.stride
        padding = stride - layout.key_bytes
        field = f"{layout.key_bytes}s{padding}x"
        # One call takes the keys of a batch out of their records. The last record has no room for its padding.
        self._unpack = tuple(
            struct.Struct(field * (count - 1) + f"{layout.key_bytes}s" if count else "").unpack_from
            for count in range(BATCH + 1)
        )
        self._key_at = layout.key_at
        self._first_key = slice(layout.key_at, layout.key_at + layout.key_bytes)
        self._control_bytes = layout.control_bytes
        self._most = BATCH
        self._plain = layout.plain_control_bytes

    def receive(self, sock: socket.socket) -> int:
        """See `Inbox`."""
        messages = self._messages
        count = _recvmmsg(sock.fileno(), messages.addresses[0], _COUNTS[self._most], _DONTWAIT, None)
        if count < 0:
            number = _get_errno()
            if number == errno.EAGAIN:
                return 0
            raise OSError(number, os.strerror(number))
        if self.segments:
            self.segments.clear()
        controls = messages.controls
        if count == 1 and controls[0] == self._plain:  # without load, nearly always
            self.sizes = (messages.lengths[0],)
            self.keys = (self._records[self._first_key],)
            controls[0] = self._control_bytes
            return 1
        self.sizes = messages.lengths[:count].tolist()
        self.keys = self._unpack[count](self._records, self._key_at)
        used = controls[:count].tolist()
        if used.count(self._plain) != count:
            self._look_closer(used)
            # Joined datagrams fill their slots: with fewer of them, what is copied stays in the cache.
            self._most = _FEW if self.segments else BATCH
        elif self._most != BATCH:
            self._most = BATCH
        self._headers[: count * _MESSAGE_BYTES] = messages.template[: count * _MESSAGE_BYTES]
        return count

    def _look_closer(self, controls: list[int]) -> None:
        """Some records have more to say, or less, than the address asked: joined datagrams, most likely."""
        layout, records = self._layout, self._messages.records
        keys = list(self.keys)
        for at, used in enumerate(controls):
            if used == self._plain:
                continue
            start = at * records.stride
            ancillary = _control_messages(records.memory, start + layout.control_at, used)
            name = records.memory[start + layout.name_at : start + layout.name_at + layout.name_bytes]
            keys[at] = layout.key(name, asked_address(ancillary, layout.af))
            if 0 < (segment := segment_size(ancillary)) < self.sizes[at]:
                self.segments[at] = segment
            # What follows the address asked is part of the keys of inet, and of no interest to them.
            end = start + layout.control_at + layout.control_bytes
            records.memory[start + layout.control_at : end] = bytes(layout.control_bytes)
        self.keys = keys


class MmsgOutbox(Outbox):
    """`Outbox` by sendmmsg(2)."""

    def __init__(self, layout: Layout, slots: Slots) -> None:
        super().__init__(layout, slots)
        self._messages = _Messages(layout, slots, named=True, control_bytes=layout.plain_control_bytes)
        self._reading = _Messages(CONNECTED, slots, named=False, control_bytes=CONNECTED.control_bytes)
        headers, iovecs = self._messages.headers, self._messages.iovecs
        self._stride = self._messages.records.stride
        self._records = self._messages.records.memory
        self._first_record = slice(0, self._stride)
        self._lengths = iovecs.column(_Iovec.length.offset, "L")
        self._iovs = headers.column(_Header.iov.offset, "L")
        self._own_iovs = array("L", self._iovs.tolist())

    def reply_to(self, key: bytes) -> bytes:
        """The record that says where to send, and from where."""
        layout = self._layout
        key = super().reply_to(key)
        record = bytearray(self._stride)
        record[layout.key_at : layout.key_at + layout.key_bytes] = key
        if layout.pktinfo:
            ((level, kind, data),) = layout.reply_control(key)
            header = _CMSG.pack(socket.CMSG_LEN(len(data)), level, kind)
            record[layout.control_at : layout.control_at + len(header) + len(data)] = header + data
        return bytes(record)

    def fill(self, owner: Addressee, sock: socket.SocketType, most: int) -> tuple[int, int, int]:
        """See `Outbox`."""
        if sock.family == socket.AF_UNIX:
            return super().fill(owner, sock, most)
        reading, first = self._reading, len(self.sizes)
        most = min(most, BATCH - first)
        count = _recvmmsg(sock.fileno(), reading.addresses[first], _COUNTS[most], _DONTWAIT, None)
        if count < 0:
            return 0, 0, _get_errno()
        last = first + count
        sizes = reading.lengths[first:last].tolist()
        controls = reading.controls[first:last].tolist()
        reading.headers.memory[first * _MESSAGE_BYTES : last * _MESSAGE_BYTES] = reading.template[
            first * _MESSAGE_BYTES : last * _MESSAGE_BYTES
        ]
        datagrams = count
        if any(controls):
            for at, used in enumerate(controls):
                start = (first + at) * reading.records.stride
                segment = segment_size(_control_messages(reading.records.memory, start, used))
                if 0 < segment < sizes[at]:
                    self._segments[first + at] = segment
                    datagrams += -(-sizes[at] // segment) - 1
        self._bulk = self._bulk or datagrams > 1
        self.sizes += sizes
        self.owners += [owner] * count
        if last == BATCH:
            self.flush()
        return datagrams, sum(sizes), errno.EAGAIN if count < most else 0

    def flush(self) -> None:
        """See `Outbox`."""
        count, receiver = len(self.sizes), self._only
        if not count:
            return
        if self._bulk or receiver is None:
            super().flush()
            return
        sizes, owners = self.sizes, self.owners
        try:
            if count == 1:  # without load, nearly always
                receiver.replied(1, sizes[0])
                self._lengths[0] = sizes[0]
                self._records[self._first_record] = owners[0].reply_to
                if _sendmmsg(receiver.sock.fileno(), self._messages.addresses[0], _COUNTS[1], _DONTWAIT) != 1:
                    owners[0].undelivered(_get_errno(), self.views[0][: sizes[0]])
                return
            receiver.replied(count, sum(sizes))
            self._lengths[:count] = array("L", sizes)
            self._send(receiver, owners, self.views, sizes)
        finally:
            sizes.clear()
            owners.clear()

    def _send_by_receiver(self) -> None:
        self._lengths[: len(self.sizes)] = array("L", self.sizes)
        super()._send_by_receiver()

    def _send_singles(self, receiver: ReplySocket, slots: list[int]) -> None:
        if not slots:
            return
        base, stride = self._messages.iovecs.address, self._messages.iovecs.stride
        self._iovs[: len(slots)] = array("L", [base + at * stride for at in slots])
        try:
            views, sizes = [self.views[at] for at in slots], [self.sizes[at] for at in slots]
            self._send(receiver, [self.owners[at] for at in slots], views, sizes)
        finally:
            self._iovs[: len(slots)] = self._own_iovs[: len(slots)]

    def _send(
        self, receiver: ReplySocket, owners: list[Addressee], views: Sequence[memoryview], sizes: list[int]
    ) -> None:
        """sendmmsg(2): the headers from the first on, one for each owner."""
        count = len(owners)
        self._records[: count * self._stride] = b"".join([owner.reply_to for owner in owners])
        fd, addresses = receiver.sock.fileno(), self._messages.addresses
        at = 0
        while at < count:
            sent = _sendmmsg(fd, addresses[at], _COUNTS[count - at], _DONTWAIT)
            if sent > 0:
                at += sent
            elif (number := _get_errno()) != errno.EINTR:
                owners[at].undelivered(number, views[at][: sizes[at]])
                at += 1


def _control_messages(memory: mmap.mmap, start: int, used: int) -> list[tuple[int, int, bytes]]:
    """The control messages in `used` bytes at `start` (cmsg(3))."""
    found = []
    end = start + used
    while start + _CMSG.size <= end:
        length, level, kind = _CMSG.unpack_from(memory, start)
        if length < _CMSG.size:
            break
        found.append((level, kind, memory[start + _CMSG.size : min(start + length, end)]))
        start += socket.CMSG_SPACE(length - _CMSG.size)
    return found


def _address(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
