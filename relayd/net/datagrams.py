"""Datagram sockets: options, how they are opened, and how a client is known by the bytes that the kernel gives.

A client is a key: its sockaddr as recvmsg(2) wrote it and, where the receiving socket has a wildcard address, the
address that the client sent to. Keys are compared, and copied into replies, and not looked into: text is made of them
for the log only.
"""

import errno
import functools
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

from relayd.address import Sockaddr, SocketAddress
from relayd.values import dataclass

#: Not named by the socket module, or only from Python 3.12 on: linux/in.h, linux/in6.h, linux/udp.h.
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
UDP_SEGMENT = 103  # Linux 4.18
UDP_GRO = 104  # Linux 5.0
SOL_UDP = 17
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_MEMINFO = 55  # asm-generic/socket.h, Linux 4.12
SO_TIMESTAMP = 29
SO_TIMESTAMPNS = 35

#: A slot takes every datagram of inet and inet6 (65,507 and 65,527 bytes), and what UDP_GRO joins (one IP packet). A
#: Unix datagram that fills a slot may have been larger: it is counted as too large, never passed on cut (D4).
SLOT_BYTES = 65536
#: Datagrams that one system call takes or sends. At 64 the cost of a call is a tenth of a datagram's.
BATCH = 64
#: UDP_MAX_SEGMENTS of the kernel until 6.9, and the most that UDP takes in one call, headers included (udp(7), ip(7)).
SEGMENTS_MAX = 64
RUN_BYTES_MAX = 65507
#: A send with UDP_SEGMENT that fails like this may work without: the segment is larger than the MTU allows (EINVAL,
#: EMSGSIZE), or the device cannot do checksums (EIO); kernels before 4.18 do not know it.
GSO_REFUSED = frozenset({errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
#: Asked for a receiving socket's buffer, of which net.core.rmem_max may leave less: a burst of 5,000 small datagrams
#: waits for a busy worker rather than being lost.
_RECEIVE_BUFFER_BYTES = 4 << 20

#: What makes control messages come with datagrams, by family. What else does, nobody but ourselves asks for.
_TIMES = ((socket.SOL_SOCKET, SO_TIMESTAMP), (socket.SOL_SOCKET, SO_TIMESTAMPNS))
_CONTROL_MESSAGES: dict[int, tuple[tuple[int, int], ...]] = {
    socket.AF_INET: (*_TIMES, (socket.IPPROTO_IP, IP_PKTINFO)),
    socket.AF_INET6: (*_TIMES, (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO)),
    socket.AF_UNIX: (*_TIMES, (socket.SOL_SOCKET, socket.SO_PASSCRED), (socket.SOL_SOCKET, socket.SO_PASSSEC)),
}

Ancillary: TypeAlias = list[tuple[int, int, bytes]]

_CMSG_HEADER_BYTES = socket.CMSG_LEN(0)
_SEGMENT_ROOM = socket.CMSG_SPACE(4)
_U16 = struct.Struct("=H")
_MEMINFO = struct.Struct("=32xI")  # SK_MEMINFO_DROPS of linux/sock_diag.h is the ninth number
_INT = struct.Struct("=i")
_SOCKADDR_IN = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6 = struct.Struct("=H2s4s16sI")
#: ::ffff:0.0.0.0
_V4_MAPPED_ANY = b"\0" * 10 + b"\xff\xff" + b"\0" * 4
#: struct in_pktinfo: interface index, the address for replies, the address in the packet. struct in6_pktinfo: the
#: address in the packet, interface index (ip(7), ipv6(7)).
_PKTINFO4_BYTES, _PKTINFO6_BYTES = 12, 20
#: In a key of inet: from `ipi_spec_dst` to the end of the control messages' room, then the sockaddr. In one of inet6:
#: the sockaddr with its padding, the header of the one control message, the address asked.
_INET_CONTROL_BYTES = socket.CMSG_SPACE(_PKTINFO4_BYTES) + _SEGMENT_ROOM
_INET_KEY_AT = _CMSG_HEADER_BYTES + 4
_INET_KEY_NAME_AT = _INET_CONTROL_BYTES - _INET_KEY_AT
_INET6_NAME_ROOM = 32
_INET6_HEADER = struct.pack("@Nii", socket.CMSG_LEN(_PKTINFO6_BYTES), socket.IPPROTO_IPV6, IPV6_PKTINFO)
_INET6_KEY_ASKED_AT = _INET6_NAME_ROOM + len(_INET6_HEADER)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a record of one receiving socket's datagrams what stands. A record is the kernel's sockaddr and its
    control messages (cmsg(3)), side by side, so that the key is one slice of it.

    For inet the control messages come first and the interface index stays outside of the key: a client whose packets
    begin to come another way is the same client. Without `pktinfo`, the key is the sockaddr.
    """

    af: int
    #: The bind is a wildcard: datagrams say which address they were sent to, and replies from where they go (D2).
    pktinfo: bool
    record_bytes: int
    name_at: int
    name_bytes: int
    control_at: int
    #: Room for what the kernel says, and what it says of a datagram that UDP_GRO has not joined with others.
    control_bytes: int
    plain_control_bytes: int
    key_at: int
    key_bytes: int

    def key(self, name: bytes, asked: bytes) -> bytes:
        """The key of a client at the sockaddr `name` that sent to the address `asked`, which is ignored without
        `pktinfo`: for inet `ipi_spec_dst` and `ipi_addr`, 8 bytes, else `ipi6_addr`; zeros where it is not known.
        """
        if not self.pktinfo:
            return name
        if self.af == socket.AF_INET:
            return asked.ljust(_INET_KEY_NAME_AT, b"\0") + name
        return name.ljust(_INET6_NAME_ROOM, b"\0") + _INET6_HEADER + asked

    def name(self, key: bytes) -> bytes:
        """The sockaddr in `key`."""
        if self.pktinfo and self.af == socket.AF_INET:
            return key[_INET_KEY_NAME_AT:]
        return key[: self.name_bytes] if self.pktinfo else key

    def asked(self, key: bytes) -> bytes:
        """The address in `key` that the client sent to; empty where that is not known or is the address of the bind."""
        if not self.pktinfo:
            return b""
        found = key[:4] if self.af == socket.AF_INET else key[_INET6_KEY_ASKED_AT:]
        return found if any(found) else b""

    def client(self, key: bytes) -> Sockaddr:
        """The client's address as the socket module has it. A Unix client without a name is an empty string."""
        name = self.name(key)
        if self.af == socket.AF_INET:
            _, port, host = _SOCKADDR_IN.unpack(name)
            return (socket.inet_ntop(socket.AF_INET, host), int.from_bytes(port, "big"))
        if self.af == socket.AF_INET6:
            _, port, flow, host, scope = _SOCKADDR_IN6.unpack(name)
            text = socket.inet_ntop(socket.AF_INET6, host)
            return (text, int.from_bytes(port, "big"), int.from_bytes(flow, "big"), scope)
        if name[:1] == b"\0":
            return name
        return name.decode(errors="surrogateescape")

    def local(self, key: bytes) -> str | None:
        """The address that the client sent to, as text; None where `asked` is empty."""
        asked = self.asked(key)
        return socket.inet_ntop(self.af, asked) if asked else None

    def reply_control(self, key: bytes) -> Ancillary:
        """What makes a reply leave from the address that the client sent to; empty where that is no question."""
        if not self.pktinfo:
            return []
        if self.af == socket.AF_INET:
            return [(socket.IPPROTO_IP, IP_PKTINFO, _INT.pack(0) + key[:8])]
        asked = key[_INET6_KEY_ASKED_AT:]
        if asked[0] == 0xFF or not any(asked):  # a group, or not known: the kernel chooses one of our addresses
            asked = _V4_MAPPED_ANY if key[8:20] == _V4_MAPPED_ANY[:12] else bytes(16)
        return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, asked + _INT.pack(0))]

    def name_of(self, sockaddr: object) -> bytes:
        """The bytes of what `socket.recvmsg` gives as an address; empty for a Unix client without a name."""
        if self.af == socket.AF_UNIX:
            # A path ends with its NUL in the kernel; without it, it still cannot be taken for an abstract name.
            return sockaddr if isinstance(sockaddr, bytes) else str(sockaddr or "").encode(errors="surrogateescape")
        if not isinstance(sockaddr, tuple):
            raise TypeError(f"not an internet socket address: {sockaddr!r}")
        port = sockaddr[1].to_bytes(2, "big")
        if self.af == socket.AF_INET:
            return _SOCKADDR_IN.pack(self.af, port, socket.inet_pton(self.af, sockaddr[0]))
        host = socket.inet_pton(self.af, sockaddr[0].partition("%")[0])
        return _SOCKADDR_IN6.pack(self.af, port, sockaddr[2].to_bytes(4, "big"), host, sockaddr[3])


#: Of a connected socket's reads: no sockaddr, and room for what UDP_GRO says.
CONNECTED = Layout(socket.AF_UNSPEC, False, _SEGMENT_ROOM, 0, 0, 0, _SEGMENT_ROOM, 0, 0, 0)


def _inet(*, pktinfo: bool) -> Layout:
    name_at, plain = _INET_CONTROL_BYTES, socket.CMSG_SPACE(_PKTINFO4_BYTES) if pktinfo else 0
    key_at = _INET_KEY_AT if pktinfo else name_at
    end = name_at + _SOCKADDR_IN.size
    room = _INET_CONTROL_BYTES
    return Layout(socket.AF_INET, pktinfo, end, name_at, _SOCKADDR_IN.size, 0, room, plain, key_at, end - key_at)


def _inet6(*, pktinfo: bool) -> Layout:
    control_at, plain = _INET6_NAME_ROOM, socket.CMSG_SPACE(_PKTINFO6_BYTES) if pktinfo else 0
    room = socket.CMSG_SPACE(_PKTINFO6_BYTES) + _SEGMENT_ROOM
    key_bytes = _INET6_KEY_ASKED_AT + 16 if pktinfo else _SOCKADDR_IN6.size
    return Layout(
        socket.AF_INET6, pktinfo, control_at + room, 0, _SOCKADDR_IN6.size, control_at, room, plain, 0, key_bytes
    )


_LAYOUTS = {
    (layout.af, layout.pktinfo): layout
    for layout in (
        _inet(pktinfo=False),
        _inet(pktinfo=True),
        _inet6(pktinfo=False),
        _inet6(pktinfo=True),
        Layout(socket.AF_UNIX, False, 0, 0, 0, 0, 0, 0, 0, 0),
    )
}


def ask_for_local_address(sock: socket.SocketType, af: int) -> None:
    """Have datagrams say which address they were sent to. For wildcard binds, before bind(2): what has arrived before
    does not say it, and its replies leave from an address that the kernel chooses.
    """
    if af == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    elif af == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)


def ask_for_nothing(sock: socket.SocketType) -> None:
    """Have datagrams come with nothing beside them, whatever whoever has made `sock` has asked for (Timestamping=,
    PassCredentials=, PassSecurity= and PassPacketInfo= of systemd.socket(5)): a `Layout` has room for its own alone.
    """
    for level, option in _CONTROL_MESSAGES[sock.family]:
        sock.setsockopt(level, option, 0)


def prepare_to_receive(sock: socket.SocketType) -> Layout:
    """Make a bound datagram socket ready for `batches`, which join and split datagrams; the layout of what it gives."""
    af = sock.family
    if af == socket.AF_UNIX:
        return _LAYOUTS[af, False]
    wildcard = not any(socket.inet_pton(af, sock.getsockname()[0].partition("%")[0]))
    if wildcard:
        ask_for_local_address(sock, af)
    widen(sock)
    join_segments(sock)
    return _LAYOUTS[af, wildcard]


def join_segments(sock: socket.SocketType) -> bool:
    """UDP_GRO: one read may give several datagrams of one size, and says so. From now on every read has to look. False
    where the kernel cannot (before 5.0, or no UDP).
    """
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def widen(sock: socket.SocketType) -> None:
    """Let bursts wait in `sock`: as much as net.core.rmem_max allows, up to 4 MiB, or as much as already may: systemd
    may go above (ReceiveBuffer=). The memory is taken as it is used.
    """
    with suppress(OSError):  # what there is has to do
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) < _widest():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)


@functools.cache
def _widest() -> int:
    """What SO_RCVBUF is afterwards, which is twice what it was set to (socket(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as fresh:
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        return fresh.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def lost_in_kernel(sock: socket.SocketType) -> int:
    """Datagrams that came to `sock` since it was opened and found its buffer full, or were broken; 0 where not
    known.
    """
    try:
        return int(_MEMINFO.unpack(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size))[0])
    except (OSError, struct.error):
        return 0


def segment_control(size: int) -> tuple[int, int, bytes]:
    """UDP_SEGMENT: what is sent is datagrams of `size` bytes each, the last one perhaps less (udp(7))."""
    return (SOL_UDP, UDP_SEGMENT, _U16.pack(size))


def segment_size(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """What UDP_GRO says of a read: the size of each datagram in it; 0 when it is one datagram."""
    for level, kind, data in ancillary:
        if level == SOL_UDP and kind == UDP_GRO:
            return int(_INT.unpack_from(data)[0])
    return 0


def asked_address(ancillary: Sequence[tuple[int, int, bytes]], af: int) -> bytes:
    """What `Layout.key` wants to know of a read."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO and af == socket.AF_INET:
            return data[4:12]
        if level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO:
            return data[:16]
    return bytes(8 if af == socket.AF_INET else 16)


def open_session_socket(af: int, target: Sockaddr, source: SocketAddress | None) -> socket.SocketType:
    """A non-blocking socket connected to `target`, so that it gets the target's datagrams and errors and no others. The
    caller owns it. Raises OSError and has then left nothing open.

    The kernel tells all errors, by ICMP and of its own queues, and not only that a port is closed (IP_RECVERR, ip(7)):
    whoever goes on with the socket after one calls `forget_errors`.

    `source` is bound first where it has the family of the socket. A Unix socket gets an abstract name of the kernel's
    choice (autobind, unix(7)): without one, nobody could answer.
    """
    sock = socket.SocketType(af, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if af == socket.AF_UNIX:
            sock.bind("")
        elif af == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        if af != socket.AF_UNIX and source is not None and source.family.af == af:
            sock.bind(source.sockaddr)
        sock.connect(target)
    except OSError:
        sock.close()
        raise
    return sock


def forget_errors(sock: socket.SocketType) -> None:
    """Empty the queue of errors, which have been told: a selector would go on telling of them."""
    with suppress(OSError):
        while True:
            sock.recvmsg(1, 0, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
