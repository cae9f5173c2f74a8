"""Listening sockets: one call that makes a socket ready to accept, or to receive, or says what is in the way.

Options that accepted connections inherit (tcp(7); the kernel copies them at the handshake) are set here
once, so that a worker spends no system call on them: TCP_NODELAY, keepalive, TCP_USER_TIMEOUT, TCP_CONGESTION.

A Unix path (S10) goes through a temporary name in the same directory, and is renamed over the final one when mode,
owner and backlog are as they shall be: a client sees the old file or the finished new one, nothing between. Not so for
datagrams: the kernel takes the sender of a reply from bind(2), and a renamed socket would reply from a name that nobody
has asked and that is gone. There the file is under its own name from the beginning, its creator's alone until it is
ready.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping
from dataclasses import replace

from relayd.address import UNIX_PATH_BYTES_MAX, Family, InetAddress, SocketAddress, UnixAddress, from_sockaddr
from relayd.errors import RelaydError, name
from relayd.net.datagrams import ask_for_nothing
from relayd.net.options import apply_tcp, reset_tcp
from relayd.spec import Binding, SocketOptions
from relayd.values import dataclass

__all__ = ["ListenFailed", "ListeningSocket", "listen", "listen_datagrams", "listen_on_passed"]

#: Not named by the socket module: linux/in.h, linux/in6.h (Linux 4.15).
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
#: A new Unix socket file is its creator's alone until chown and chmod have been done.
_UMASK_PRIVATE = 0o177
_MODE_PRIVATE = 0o600
#: Below this a bind needs CAP_NET_BIND_SERVICE, unless net.ipv4.ip_unprivileged_port_start says otherwise (ip(7)).
_FREE_PORTS_FROM = 1024
_ABSTRACT_ADVICE = {errno.EADDRINUSE: "address already in use: another process has this abstract name"}
_PATH_IN_USE = "address already in use: another process listens on this path"


class ListenFailed(RelaydError):
    """The address cannot be listened on. `str(error)` is `address: what: what to do`."""

    def __init__(self, address: SocketAddress, reason: str, number: int = 0) -> None:
        super().__init__(f"{address}: {reason}")
        #: The errno behind it; 0 where there is none.
        self.errno = number


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells our socket file from one that somebody put in its place."""

    device: int
    inode: int


class ListeningSocket:
    """A bound, non-blocking, close-on-exec socket, a listening one for streams, and its file where it has one. Owns
    both, unless it is `passed`: then somebody else has made the socket and its file, and keeps the descriptor.
    """

    def __init__(
        self, sock: socket.socket, address: SocketAddress, identity: Identity | None = None, *, passed: bool = False
    ) -> None:
        self._sock = sock
        self._identity = identity
        self._passed = passed
        #: What it is bound to, with the port that the kernel picked where 0 was asked for.
        self.address = address

    @classmethod
    def taken_over(cls, fd: int, address: SocketAddress, identity: Identity | None) -> "ListeningSocket":
        """`fd`, which another process has bound to `address` and this object owns from now on."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        return cls(sock, address, identity)

    def fileno(self) -> int:
        """The descriptor, still owned by this object. -1 once closed."""
        return self._sock.fileno()

    @property
    def passed(self) -> bool:
        """True when somebody else has made it, and passes it to the next process as well."""
        return self._passed

    @property
    def identity(self) -> Identity | None:
        """That of its socket file, where it has one."""
        return self._identity

    @property
    def inode(self) -> int:
        """What tells this socket from all others of this machine, whatever process has it and by whatever
        descriptor.
        """
        return os.fstat(self._sock.fileno()).st_ino

    def file_is_there(self) -> bool:
        """False for a Unix socket whose file is gone, or is another's."""
        if not isinstance(self.address, UnixAddress) or self._identity is None:
            return True
        try:
            return _identity(os.lstat(self.address.path)) == self._identity
        except OSError:
            return False

    def let_go(self) -> None:
        """Close the descriptor and leave the socket file: another process goes on with both. One that was passed is
        left as it is. Idempotent.
        """
        if self._passed:
            self._sock.detach()
        else:
            self._sock.close()

    def hand_on(self) -> int:
        """The descriptor, which is the caller's from now on; the socket file stays. -1 once closed."""
        return self._sock.detach()

    def let_others_bind(self, *, enabled: bool) -> bool:
        """Let sockets of this user that say so as well (`beside`) bind the same address, or a part of it; or not.
        Returns how it was before.
        """
        before = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, enabled)
        return bool(before)

    def adjust(self, binding: Binding, options: SocketOptions | None) -> None:
        """Set what can be set on a socket that is bound already: all but `interface` and `ipv6_only`. `options` are
        those of streams. Raises ListenFailed, and may then have set a part.
        """
        if isinstance(self.address, UnixAddress):
            self._adjust_unix(self.address, binding)
        else:
            if not self._passed:
                with _explained(self.address):
                    _set_freebind(self._sock, self.address, enabled=binding.freebind)
            if options is not None:
                with _explained(self.address, _congestion_advice(options.congestion)):
                    reset_tcp(self._sock, options)
                _set_accepting(self._sock, self.address, binding)
        if options is not None:
            with _explained(self.address):
                self._sock.listen(binding.backlog)

    def _adjust_unix(self, address: UnixAddress, binding: Binding) -> None:
        if self._identity is None:
            return
        gone = "the socket file is gone, which a restart makes anew: something has removed it"
        with _explained(address, {errno.ENOENT: gone}):
            now = os.lstat(address.path)
        if _identity(now) != self._identity:
            raise ListenFailed(address, "the socket file is not ours any more: something has replaced it")
        # Where the file names nobody, the owner is to be as it would have been from the beginning.
        user = binding.user_id if binding.user_id is not None or now.st_uid == os.geteuid() else os.geteuid()
        group = binding.group_id if binding.group_id is not None or now.st_gid == os.getegid() else os.getegid()
        binding = replace(binding, user_id=user, group_id=group)
        directory, final = os.path.split(address.path)
        with _explained(address, _directory_advice(directory)):
            directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _finish_file(address, binding, directory_fd, final)
        finally:
            os.close(directory_fd)

    def close(self) -> None:
        """Remove the socket file if it is still this socket's, and close the socket. One that was passed is left as it
        is. Idempotent.

        Copies of the descriptor in other processes go on listening.
        """
        if self._sock.fileno() == -1:
            return
        if self._passed:
            self._sock.detach()
            return
        if isinstance(self.address, UnixAddress) and self._identity is not None:
            # Gone, replaced, or in a directory that has become read-only: a stop goes on all the same, and the next
            # start treats what is left as stale.
            with contextlib.suppress(OSError):
                if _identity(os.lstat(self.address.path)) == self._identity:
                    os.unlink(self.address.path)
        self._sock.close()


def listen(
    address: SocketAddress, binding: Binding, options: SocketOptions, *, beside: bool = False
) -> ListeningSocket:
    """A socket that listens on `address`; the caller owns it. Raises ListenFailed, and has then left nothing behind.

    `beside`: others of ours have a part of the address, and let it be shared (`ListeningSocket.let_others_bind`).
    """
    with _explained(address):
        sock = socket.socket(address.family.af, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if isinstance(address, InetAddress):
            return _listen_inet(sock, address, binding, options, beside=beside)
        if address.abstract:
            return _listen_abstract(sock, address, binding)
        return _listen_path(sock, address, binding)
    except BaseException:
        sock.close()
        raise


def listen_datagrams(
    address: SocketAddress, binding: Binding, copies: int = 1, *, beside: bool = False
) -> list[ListeningSocket]:
    """`copies` sockets that receive datagrams at `address`; the caller owns them. Raises ListenFailed, and has then
    left nothing behind.

    More than one only for inet and inet6: there the kernel gives each datagram to one of them, by a hash of both
    addresses, and always to the same one as long as all of them are open. `beside` as for `listen`.
    """
    opened: list[ListeningSocket] = []
    try:
        while len(opened) < copies:
            first = not opened and not beside
            opened.append(_listen_datagrams(opened[0].address if opened else address, binding, copies, first=first))
    except BaseException:
        for listening in opened:
            listening.close()
        raise
    return opened


def listen_on_passed(fd: int, binding: Binding, options: SocketOptions | None) -> ListeningSocket:
    """The socket `fd`, which is bound, and listens where it is for streams: with those options that can be set on it,
    `options` being those of streams. `fd` stays the caller's, and has to stay open for as long as this is used. Raises
    ListenFailed.
    """
    sock = socket.socket(fileno=fd)
    listening = ListeningSocket(sock, from_sockaddr(sock.family, sock.getsockname()), passed=True)
    try:
        sock.setblocking(False)
        if options is None:
            with _explained(listening.address):
                ask_for_nothing(sock)
        listening.adjust(binding, options)
    except BaseException:
        listening.close()
        raise
    return listening


def _listen_datagrams(address: SocketAddress, binding: Binding, copies: int, *, first: bool) -> ListeningSocket:
    with _explained(address):
        sock = socket.socket(address.family.af, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if isinstance(address, InetAddress):
            return _receive_inet(sock, address, binding, copies, first=first)
        if address.abstract:
            with _explained(address, _ABSTRACT_ADVICE):
                sock.bind(address.sockaddr)
            return ListeningSocket(sock, address)
        return _receive_path(sock, address, binding)
    except BaseException:
        sock.close()
        raise


def _receive_inet(
    sock: socket.socket, address: InetAddress, binding: Binding, copies: int, *, first: bool
) -> ListeningSocket:
    # Never SO_REUSEADDR: for UDP it lets others bind the same address, and the last one gets everything.
    _set_binding(sock, address, binding)
    with _explained(address, _bind_advice(address, datagram=True)):
        # The first copy is bound without SO_REUSEPORT, which finds every other holder of the address, a second daemon
        # too. Set after the bind (Linux 4.5), it lets the others in.
        if not first:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address.sockaddr)
        if first and copies > 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return ListeningSocket(sock, _with_port(sock, address))


def _receive_path(sock: socket.socket, address: UnixAddress, binding: Binding) -> ListeningSocket:
    directory, final = os.path.split(address.path)
    advice = _directory_advice(directory)
    with _explained(address, advice):
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stale = _refuse_unless_stale(address)
        with _explained(address, {errno.EADDRINUSE: _PATH_IN_USE, **advice}):
            if stale:
                os.unlink(final, dir_fd=directory_fd)
            os.fchmod(sock.fileno(), _MODE_PRIVATE)  # bind(2) gives it to the file, less the umask
            sock.bind(address.path)
        try:
            return ListeningSocket(sock, address, _finish_file(address, binding, directory_fd, final))
        except BaseException:
            os.unlink(final, dir_fd=directory_fd)
            raise
    finally:
        os.close(directory_fd)


def _set_binding(sock: socket.socket, address: InetAddress, binding: Binding) -> None:
    """What streams and datagrams have in common, before bind(2)."""
    with _explained(address):
        if address.family is Family.INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, binding.ipv6_only)
        if binding.freebind:
            _set_freebind(sock, address, enabled=True)
    if binding.interface is not None:
        with _explained(address, _interface_advice(binding.interface)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, binding.interface.encode() + b"\0")


def _set_freebind(sock: socket.socket, address: InetAddress, *, enabled: bool) -> None:
    if address.family is Family.INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, enabled)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, enabled)


def _with_port(sock: socket.socket, address: InetAddress) -> InetAddress:
    """`address` with the port that the kernel picked where 0 was asked for."""
    if address.port:
        return address
    return InetAddress(address.family, address.host, int(sock.getsockname()[1]), address.scope)


def _listen_inet(
    sock: socket.socket, address: InetAddress, binding: Binding, options: SocketOptions, *, beside: bool
) -> ListeningSocket:
    if address.port:
        with _explained(address):
            _allow_restart(sock)
            if beside:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    _set_binding(sock, address, binding)
    with _explained(address, _congestion_advice(options.congestion)):
        apply_tcp(sock, options)
    with _explained(address, _bind_advice(address)):
        sock.bind(address.sockaddr)
        if not address.port:
            # Not before: where reuse is allowed, bind(2) looks for a free port in the lower half of the range first,
            # all of it (inet_csk_find_open_port), which takes milliseconds a socket once some 7,000 are bound.
            _allow_restart(sock)
    _set_accepting(sock, address, binding)
    with _explained(address, _bind_advice(address)):
        sock.listen(binding.backlog)
    return ListeningSocket(sock, _with_port(sock, address))


def _set_accepting(sock: socket.socket, address: InetAddress, binding: Binding) -> None:
    """What a listening socket does before accept(2)."""
    with _explained(address):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, binding.defer_accept_s or 0)
        # The value is the number of handshakes that may wait for their last ACK; RFC 7413, section 5.1.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, binding.backlog if binding.fast_open else 0)


def _allow_restart(sock: socket.socket) -> None:
    """A restart shall not wait for connections in TIME_WAIT (socket(7)). Never SO_REUSEPORT: it would let a second
    daemon take over part of the connections unseen.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _listen_abstract(sock: socket.socket, address: UnixAddress, binding: Binding) -> ListeningSocket:
    with _explained(address, _ABSTRACT_ADVICE):
        sock.bind(address.sockaddr)
        sock.listen(binding.backlog)
    return ListeningSocket(sock, address)


def _listen_path(sock: socket.socket, address: UnixAddress, binding: Binding) -> ListeningSocket:
    directory, final = os.path.split(address.path)
    with _explained(address, _directory_advice(directory)):
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _refuse_unless_stale(address)
        temporary = f"{final}.{os.urandom(4).hex()}"
        if len(os.fsencode(temporary)) > _name_bytes_max(directory_fd):
            temporary = f".relayd-{os.urandom(4).hex()}"
        with _explained(address, _directory_advice(directory)):
            _bind_private(sock, directory, directory_fd, temporary)
        try:
            return _publish(sock, address, binding, directory_fd, temporary)
        except BaseException:
            os.unlink(temporary, dir_fd=directory_fd)
            raise
    finally:
        os.close(directory_fd)


def _bind_private(sock: socket.socket, directory: str, directory_fd: int, temporary: str) -> None:
    """Bind to `temporary` with mode 0600. A path that a socket address cannot hold is reached through /proc."""
    path = os.path.join(directory, temporary)
    if len(os.fsencode(path)) > UNIX_PATH_BYTES_MAX:
        path = f"/proc/self/fd/{directory_fd}/{temporary}"
    before = os.umask(_UMASK_PRIVATE)  # of the whole process: nothing else runs in it while listeners are opened
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _publish(
    sock: socket.socket, address: UnixAddress, binding: Binding, directory_fd: int, temporary: str
) -> ListeningSocket:
    """Owner, mode and backlog, then the final name."""
    with _explained(address):
        sock.listen(binding.backlog)
        identity = _finish_file(address, binding, directory_fd, temporary)
        os.rename(temporary, os.path.basename(address.path), src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    return ListeningSocket(sock, address, identity)


def _finish_file(address: UnixAddress, binding: Binding, directory_fd: int, file: str) -> Identity:
    """Give a socket file its owner and its mode. The owner first: the mode is for them."""
    user = -1 if binding.user_id is None else binding.user_id
    group = -1 if binding.group_id is None else binding.group_id
    if (user, group) != (-1, -1):
        advice = {
            errno.EPERM: "operation not permitted: user and group of a socket are changed by root only (CAP_CHOWN)"
        }
        with _explained(address, advice):
            os.chown(file, user, group, dir_fd=directory_fd, follow_symlinks=False)
    with _explained(address):
        os.chmod(file, binding.mode, dir_fd=directory_fd)
        return _identity(os.stat(file, dir_fd=directory_fd, follow_symlinks=False))


def _refuse_unless_stale(address: UnixAddress) -> bool:
    """True when a stale socket is at the path, False when nothing is. Raises ListenFailed when something is worth
    keeping: any file that is no socket, any live socket.
    """
    with _explained(address, _directory_advice(os.path.dirname(address.path))):
        try:
            status = os.lstat(address.path)
        except FileNotFoundError:
            return False
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenFailed(address, "a file that is not a socket is in the way: move it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(address.path)
    # Nobody has the socket open any more, or the file went away meanwhile.
    if answer in (errno.ECONNREFUSED, errno.ENOENT):
        return answer == errno.ECONNREFUSED
    # Accepted, backlog full, or a socket of another type: somebody is there.
    if answer in (0, errno.EAGAIN, errno.EPROTOTYPE):
        raise ListenFailed(address, _PATH_IN_USE, errno.EADDRINUSE)
    raise ListenFailed(address, f"cannot tell whether the socket at this path is in use: {os.strerror(answer)}")


class _explained:  # noqa: N801  # reads as a verb: with _explained(address)
    """Turn an OSError into a ListenFailed, in the words of `advice` where it has some for this errno.

    A class, for a range has thousands of ports: a generator takes three times as long.
    """

    __slots__ = ("_address", "_advice")

    def __init__(self, address: SocketAddress, advice: Mapping[int, str] | None = None) -> None:
        self._address = address
        self._advice = advice

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            number = error.errno or 0
            usual = f"{os.strerror(number)} ({name(number)})" if number else str(error)
            raise ListenFailed(self._address, (self._advice or {}).get(number, usual), number) from error


def _bind_advice(address: InetAddress, *, datagram: bool = False) -> dict[int, str]:
    low = address.port and address.port < _FREE_PORTS_FROM
    low_port = f"permission denied: ports below {_FREE_PORTS_FROM} need CAP_NET_BIND_SERVICE"
    return {
        errno.EADDRINUSE: (
            f"address already in use: another process listens there "
            f"(ss -l{'u' if datagram else 't'}np 'sport = :{address.port}' names it)"
        ),
        errno.EACCES: low_port if low else "permission denied: a security policy of this machine forbids it",
        errno.EADDRNOTAVAIL: (
            "no interface of this machine has this address: correct it, or set freebind = true to bind it all the same"
        ),
    }


def _interface_advice(interface: str) -> dict[int, str]:
    return {
        errno.ENODEV: f"this machine has no interface {interface!r} (ip link lists them)",
        errno.EPERM: f"binding to interface {interface!r} is not permitted: it needs CAP_NET_RAW",
    }


def _congestion_advice(congestion: str | None) -> dict[int, str]:
    if congestion is None:
        return {}
    return {
        errno.ENOENT: (
            f"congestion control {congestion!r} is not available "
            "(sysctl net.ipv4.tcp_available_congestion_control lists what is)"
        ),
        errno.EPERM: (
            f"congestion control {congestion!r} is not allowed to this user "
            "(sysctl net.ipv4.tcp_allowed_congestion_control)"
        ),
    }


def _directory_advice(directory: str) -> dict[int, str]:
    denied = f"the socket cannot be created: no permission to write in the directory {directory}"
    return {
        errno.ENOENT: f"the directory {directory} does not exist: create it, or choose another path",
        errno.ENOTDIR: f"{directory} is not a directory",
        errno.EACCES: denied,
        errno.EPERM: denied,
        errno.EROFS: f"the socket cannot be created: the file system of {directory} is read-only",
        errno.ENOSPC: f"the socket cannot be created: no space left in {directory}",
    }


def _name_bytes_max(directory_fd: int) -> int:
    """NAME_MAX where the directory is: 255 nearly everywhere, 143 on eCryptfs."""
    return os.statvfs(directory_fd).f_namemax


def _identity(status: os.stat_result) -> Identity:
    return Identity(status.st_dev, status.st_ino)
