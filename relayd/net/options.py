"""Socket options by the names of the configuration, for listening and for dialled sockets alike (S9)."""

import socket
from typing import TypeAlias

from relayd.spec import Keepalive, SocketOptions

#: Arguments of setsockopt(2): level, name, value.
Setting: TypeAlias = tuple[int, int, int | bytes]


def tcp_settings(options: SocketOptions) -> tuple[Setting, ...]:
    """What matters on a TCP socket from the first segment on. Keepalive does not: `apply_keepalive` can follow later.

    Setting them can fail with ENOENT or EPERM: a congestion control that the kernel does not have or does not allow us.
    """
    # An urgent byte (tcp(7)) stays in line with the others: by default, reading drops it from the stream (S1).
    settings: list[Setting] = [(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)]
    if options.nodelay:
        settings.append((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1))
    if options.user_timeout_ms is not None:
        settings.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, options.user_timeout_ms))
    if options.congestion is not None:
        settings.append((socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode()))
    return tuple(settings)


def apply_tcp(sock: socket.SocketType, options: SocketOptions) -> None:
    """Set every option of `options` on a TCP socket. Accepted sockets inherit them from the listening one (tcp(7)).

    Raises OSError as `tcp_settings` says.
    """
    for level, name, value in tcp_settings(options):
        sock.setsockopt(level, name, value)
    if options.keepalive is not None:
        apply_keepalive(sock, options.keepalive)


def reset_tcp(sock: socket.SocketType, options: SocketOptions) -> None:
    """As `apply_tcp`, on a socket that may have other options already: those that `options` leaves to the kernel are
    set to what it would have chosen.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)
    if options.congestion is None:
        with socket.socket(sock.family, socket.SOCK_STREAM) as fresh:
            usual = fresh.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, usual.rstrip(b"\0"))
    apply_tcp(sock, options)


def apply_keepalive(sock: socket.SocketType, keepalive: Keepalive) -> None:
    """Turn keepalive on. SO_KEEPALIVE first: setting TCP_KEEPIDLE then counts the silence so far
    (tcp_sock_set_keepidle).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive.interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, keepalive.probes)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive.idle_s)
