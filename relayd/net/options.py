"""Socket options by the names of the configuration, for listening and for dialled sockets alike (S9)."""

import socket

from relayd.spec import Keepalive, SocketOptions


def apply_tcp(sock: socket.SocketType, options: SocketOptions) -> None:
    """Set every option of `options` on a TCP socket. Accepted sockets inherit them from the listening one (tcp(7)).

    Raises OSError: ENOENT or EPERM for a congestion control that the kernel does not have or does not allow us.
    """
    apply_before_dial(sock, options)
    if options.keepalive is not None:
        apply_keepalive(sock, options.keepalive)


def apply_before_dial(sock: socket.SocketType, options: SocketOptions) -> None:
    """Set what matters from the first segment on. Keepalive does not: `apply_keepalive` can follow later.

    An urgent byte (tcp(7)) stays in line with the others: by default, reading drops it from the stream (S1).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    if options.nodelay:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if options.user_timeout_ms is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, options.user_timeout_ms)
    if options.congestion is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, options.congestion.encode())


def apply_keepalive(sock: socket.SocketType, keepalive: Keepalive) -> None:
    """Turn keepalive on. SO_KEEPALIVE first: setting TCP_KEEPIDLE then counts the silence so far
    (tcp_sock_set_keepidle).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, keepalive.interval_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, keepalive.probes)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive.idle_s)
