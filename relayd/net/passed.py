"""What a descriptor is that systemd has passed: a socket that clients can come to, or something else."""

import os
import socket
import stat

from relayd.address import from_sockaddr
from relayd.spec.passed import Passed, Unusable

__all__ = ["describe"]

_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISCHR, "a device"),
)
#: IFNAMSIZ, the NUL included.
_INTERFACE_BYTES = 16


def describe(fd: int) -> Passed | Unusable:
    """Look at `fd`, which stays the caller's and as it is. OSError when it is not open."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISSOCK(mode):
        return Unusable(next((what for test, what in _KINDS if test(mode)), "no socket"))
    sock = socket.socket(fileno=fd)
    try:
        return _socket(sock)
    finally:
        sock.detach()


def _socket(sock: socket.socket) -> Passed | Unusable:
    if sock.family not in _FAMILIES:
        return Unusable(f"a socket of address family {int(sock.family)}")
    if sock.type == socket.SOCK_SEQPACKET:
        return Unusable("a SEQPACKET socket")
    if sock.type not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        return Unusable(f"a socket of type {int(sock.type)}")
    if _is_connected(sock):
        return Unusable("a connection: the unit has Accept=yes")
    if sock.type == socket.SOCK_STREAM and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return Unusable("a stream socket that does not listen")
    return Passed(
        sock.type == socket.SOCK_DGRAM,
        from_sockaddr(sock.family, sock.getsockname()),
        sock.family == socket.AF_INET6 and bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)),
        _interface(sock),
    )


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:  # ENOTCONN
        return False
    return True


def _interface(sock: socket.socket) -> str | None:
    """What SO_BINDTODEVICE says (socket(7)); a Unix socket has nothing of the kind."""
    if sock.family == socket.AF_UNIX:
        return None
    name = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _INTERFACE_BYTES)
    return name.partition(b"\0")[0].decode(errors="backslashreplace") or None
