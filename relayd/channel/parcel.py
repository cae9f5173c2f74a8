"""What a process leaves behind for the next one: connections and sessions on their way, in a parcel (R4, R5).

    old worker ──▶ parcel (in the kernel) ──▶ control process, old, then new ──▶ new worker

A parcel is a SOCK_SEQPACKET pair. A worker sends its sockets into one end (SCM_RIGHTS), and the kernel keeps them alive
there while no process has them: whoever holds the other end holds everything, by one descriptor. That end goes to
systemd's FD store, or through execve(2). Stored one by one, 8,000 connections would keep PID 1 busy for half a minute.

A packet is a batch, and each stands alone: of a worker that dies half-way, what it has sent arrives. In the packet is a
label, by which the control process deals it to a worker without looking inside; its first descriptor is a memfd with
the records, so that the packets themselves stay small: the queue is bounded by the sender's SO_SNDBUF.

Bounds: BATCH_FDS descriptors a packet (SCM_MAX_FD less the memfd); in flight, as many as the sender's RLIMIT_NOFILE
(ETOOMANYREFS, unix(7)); packets in a parcel, some 400 with the default net.core.wmem_max (`packets`).
"""

import array
import dataclasses
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from relayd.values import dataclass

__all__ = [
    "BATCH_FDS",
    "BROKEN_RECORD",
    "CONNECTIONS_AT_LEAST",
    "LABEL_VERSION",
    "VERSIONS_READ",
    "Content",
    "Label",
    "ParcelFull",
    "pack",
    "packets",
    "pair",
    "put",
    "read",
    "rewrite",
    "unpack",
]

#: Of labels and records both.
LABEL_VERSION = 2
#: What this one reads. In 1 a connection was JSON altogether (`stream.handover.read_version_1`).
VERSIONS_READ = frozenset({1, LABEL_VERSION})
_PACKET_FDS = 253
BATCH_FDS = _PACKET_FDS - 1
_LABEL_BYTES_MAX = 4096
#: So many connections fit a batch, whatever they are doing: each has at most 6 descriptors.
CONNECTIONS_AT_LEAST = BATCH_FDS // 6
#: What the kernel counts for a packet: measured are 770 bytes, and more where a label is long.
_PACKET_BYTES = 1024
#: Asked for; net.core.wmem_max may leave less.
_SEND_BUFFER_BYTES = 4 << 20
_LENGTH = struct.Struct("=Q")


#: What reading a record raises that this version has not written, or that has no room here (OSError).
BROKEN_RECORD = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError, OSError)


class ParcelFull(Exception):
    """The kernel takes no more: the queue is full, or this user has too many descriptors in flight."""


@dataclass(frozen=True, slots=True)
class Label:
    """What is in a batch: `count` connections (`datagram` False) or sessions of `listener`. `socket` is the inode of
    the receiving socket that the sessions belong to, 0 for connections. `size` is how many descriptors there are behind
    the first one.
    """

    datagram: bool
    listener: str
    count: int
    size: int
    socket: int = 0
    version: int = LABEL_VERSION


@dataclass(frozen=True, slots=True)
class Content:
    """The records of a batch: `values` is anything that JSON has, `tail` what belongs to them and is better kept as it
    is: a table of numbers, which as JSON would take three times as long (`stream.handover`), and then the bytes that
    records refer to by their lengths, in order.
    """

    values: Any
    tail: bytes = b""


def pair() -> tuple[socket.socket, socket.socket]:
    """A parcel: the end that is kept, and the end to send into. The caller owns both."""
    kept, sending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return kept, sending


def packets(sending: socket.socket) -> int:
    """How many packets this end takes, at least."""
    return sending.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // _PACKET_BYTES


def pack(content: Content) -> int:
    """A memfd with `content`; the caller owns it. Raises OSError."""
    memfd = os.memfd_create("relayd-parcel", os.MFD_CLOEXEC)
    try:
        rewrite(memfd, content)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def rewrite(memfd: int, content: Content) -> None:
    """Have `memfd`, of `pack`, hold this instead, for everybody who has it. Raises OSError."""
    values = json.dumps(content.values, separators=(",", ":")).encode()
    with open(memfd, "wb", closefd=False) as file:
        file.truncate(0)
        file.seek(0)
        file.writelines((_LENGTH.pack(len(values)), values, content.tail))


def unpack(memfd: int) -> Content:
    """What `pack` has put in. The descriptor stays the caller's. Raises ValueError for what is nothing of ours."""
    with open(memfd, "rb", closefd=False) as file:
        file.seek(0)
        data = file.read()
    try:
        (length,) = _LENGTH.unpack_from(data)
        return Content(json.loads(data[_LENGTH.size : _LENGTH.size + length]), data[_LENGTH.size + length :])
    except (struct.error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no content of a parcel: {error}") from error


def put(sending: socket.socket, label: Label, fds: Sequence[int]) -> None:
    """Send a batch: `fds` are the memfd and `label.size` more, which stay the caller's as well. Raises ParcelFull, and
    OSError where the other end is gone.
    """
    packet = json.dumps(dataclasses.asdict(label), separators=(",", ":")).encode()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    try:
        sending.sendmsg([packet], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except BlockingIOError as error:
        raise ParcelFull(str(error)) from error
    except OSError as error:
        # ETOOMANYREFS, ENOBUFS, ENOMEM. A closed end, which only a bug can bring about, is told as it is.
        if isinstance(error, ConnectionError):
            raise
        raise ParcelFull(str(error)) from error


def read(kept: socket.socket) -> Iterator[tuple[Label | None, list[int]]]:
    """Every batch of a parcel, in order, with its descriptors: close-on-exec, the caller's from now on. The label is
    None where it is none, or where the kernel has dropped descriptors for want of room; what is left of them is there
    all the same. Whether its `version` is ours is for the caller to look at.
    """
    space = socket.CMSG_SPACE(_PACKET_FDS * array.array("i").itemsize)
    while True:
        try:
            packet, ancillary, flags, _ = kept.recvmsg(
                _LABEL_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return  # the sending end is open still, and nothing more is there
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not packet and not fds:
            return
        label = None if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) else _label(packet)
        if label is not None and len(fds) != label.size + 1:
            label = None
        yield label, list(fds)


def _label(packet: bytes) -> Label | None:
    """Fields that this version does not know are left out: of a label of another version, the rest is still told."""
    try:
        found = json.loads(packet)
        label = Label(**{name: found[name] for name in Label.__slots__})
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    expected = {"datagram": bool, "listener": str}
    right = all(type(getattr(label, name)) is expected.get(name, int) for name in Label.__slots__)
    return label if right else None
