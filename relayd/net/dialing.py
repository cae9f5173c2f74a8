"""Dialled sockets: non-blocking connect(2), and how its answer is read."""

import errno
import functools
import socket
from collections.abc import Sequence

from relayd.address import InetAddress, SocketAddress
from relayd.net.options import Setting

#: Not named in the socket module before Python 3.11: choose the port at connect, so that a source address can be
#: shared by as many connections as there are (target, port) pairs (ip(7), Linux 4.2).
_IP_BIND_ADDRESS_NO_PORT = 24

# Worked out once: a dial is one of the few things that a connection cannot do without.
_NEW_STREAM = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
_AF_UNIX = int(socket.AF_UNIX)

_PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


#: bind(2) of an address that this machine lacks; of a link-local one whose interface it lacks, in ip(7)'s way and in
#: if_nametoindex(3)'s, for which Python before 3.12 has no number.
_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO, None})


class NoSource(OSError):
    """This machine does not have the source address, or not now. `errno` says EADDRNOTAVAIL, as bind(2) does.

    From connect(2) the same number means that local ports have run out: only there it is one of OUT_OF_RESOURCES.
    """


def open_dial_socket(af: int, settings: Sequence[Setting], source: SocketAddress | None) -> socket.SocketType:
    """A non-blocking stream socket of family `af`, ready to connect. The caller owns it.

    `settings` are for TCP sockets. `source` is bound first where it has the family of the socket. Raises NoSource when
    that address is not here, and OSError; nothing is left open then.
    """
    sock = socket.SocketType(af, _NEW_STREAM)
    try:
        if af != _AF_UNIX:
            for level, name, value in settings:
                sock.setsockopt(level, name, value)
            if source is not None and source.family.af == af:
                _bind_source(sock, source)
    except OSError:
        sock.close()
        raise
    return sock


def is_here(address: SocketAddress) -> bool:
    """True when this machine has `address` now, so that it can be bound. Tried with a socket that takes no port.

    True as well where that cannot be found out: a security policy, no descriptor left.
    """
    try:
        with socket.socket(address.family.af, socket.SOCK_STREAM) as sock:
            _bind_source(sock, address)
    except NoSource:
        return False
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT  # a kernel without IPv6 has none of its addresses
    return True


def _bind_source(sock: socket.SocketType, source: SocketAddress) -> None:
    sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        sock.bind(source.sockaddr)
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        raise NoSource(errno.EADDRNOTAVAIL, "this machine does not have the source address") from error


def pending_error(sock: socket.SocketType) -> int:
    """The errno that waits on `sock`, which this clears; 0 for none. Of a connect that is over: 0 when it is
    established.
    """
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@functools.cache
def ephemeral_ports() -> tuple[int, int]:
    """First and last of the ports that the kernel gives to sockets that did not ask for one (ip(7)).

    Read once. Where /proc/sys is hidden (ProcSubset=pid), every port that needs no privilege is taken for one of them.
    """
    try:
        with open(_PORT_RANGE) as file:
            first, last = file.read().split()
        return int(first), int(last)
    except (OSError, ValueError):
        return 1024, 65535


def may_meet_itself(address: SocketAddress) -> bool:
    """True when a socket that dials `address` could be given that very port as its own (see `met_itself`)."""
    first, last = ephemeral_ports()
    return isinstance(address, InetAddress) and first <= address.port <= last


def met_itself(sock: socket.SocketType, port: int) -> bool:
    """True when a TCP socket, connected to `port`, is its own peer (simultaneous open with oneself, RFC 9293 3.5).

    That happens when nobody listens on a port from which the kernel also takes local ones: a dead target must not be
    taken for one that echoes. A system call, so ask only where `may_meet_itself`.
    """
    try:
        ours = sock.getsockname()
        return bool(ours[1] == port and ours == sock.getpeername())
    except OSError:
        return False  # reset in the meantime: the first read will say so
