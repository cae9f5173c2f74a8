"""What the kernel knows of a TCP connection."""

import contextlib
import fcntl
import socket
import struct
import termios
from typing import NamedTuple

#: Of struct tcp_info (linux/tcp.h, unchanged since 2.6): tcpi_rtt in microseconds at 68, tcpi_total_retrans at 100.
_TCP_INFO = struct.Struct("=68xI28xI")
_U32 = struct.Struct("=I")
_ZERO = bytes(_U32.size)
_LINGER_OFF, _LINGER_RESET = struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)


class PathInfo(NamedTuple):
    """Smoothed round trip time of the path in milliseconds, and segments sent again since the connection began."""

    rtt_ms: float
    retrans: int


def path_info(sock: socket.SocketType) -> PathInfo | None:
    """TCP_INFO of `sock`; None where the kernel does not tell (not TCP, or the socket is gone)."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return None
    if len(info) < _TCP_INFO.size:
        return None
    rtt_us, retrans = _TCP_INFO.unpack(info)
    return PathInfo(rtt_us / 1000, retrans)


def unacknowledged(sock: socket.SocketType) -> int:
    """Bytes written to `sock` that the peer has not acknowledged (SIOCOUTQ, tcp(7)); 0 when the socket is gone."""
    try:
        return int(_U32.unpack(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(_U32.size)))[0])
    except OSError:
        return 0


def nothing_unread(sock: socket.SocketType) -> bool:
    """True when a stream socket holds no byte to read (SIOCINQ, tcp(7)): where the other side has sent a FIN, only the
    end of file is left. Takes no error away from the socket, as a peek would. Raises OSError.
    """
    return fcntl.ioctl(sock.fileno(), termios.FIONREAD, _ZERO) == _ZERO


def reset_at_close(sock: socket.SocketType, *, reset: bool = True) -> None:
    """Have the close of `sock` send a reset and forget what is unsent (SO_LINGER 0, socket(7)), or not. Never raises.

    It holds for the close of a process that is killed as well. A Unix socket knows no reset: there the other side sees
    an end of file, or ECONNRESET where we leave bytes unread.
    """
    with contextlib.suppress(OSError):  # the socket is gone, or is closed as it is, which is all that can be done
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET if reset else _LINGER_OFF)
