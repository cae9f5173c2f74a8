"""`listen_datagrams` with real sockets: who gets what, what is refused, and the files of Unix sockets."""

import errno
import fcntl
import os
import secrets
import socket
import stat
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.net.listening import ListenFailed, ListeningSocket, listen, listen_datagrams
from relayd.spec import Binding, SocketOptions
from tests.specs import BINDING

V4 = InetAddress(Family.INET, "127.0.0.1", 0)
V6 = InetAddress(Family.INET6, "::1", 0)
ANY6 = InetAddress(Family.INET6, "::", 0)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a file away")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory that shall be empty afterwards."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    """Closes what a test opened."""
    with ExitStack() as stack:
        yield stack


def opened(
    closing: ExitStack, address: SocketAddress, binding: Binding = BINDING, copies: int = 1
) -> list[ListeningSocket]:
    found = listen_datagrams(address, binding, copies)
    for listening in found:
        closing.callback(listening.close)
    return found


def borrowed(closing: ExitStack, listening: ListeningSocket) -> socket.socket:
    """Another socket object for the same socket."""
    return closing.enter_context(socket.socket(fileno=os.dup(listening.fileno())))


def client(closing: ExitStack, family: Family) -> socket.socket:
    """A bound socket to send from."""
    sock = closing.enter_context(socket.socket(family.af, socket.SOCK_DGRAM))
    if family is not Family.UNIX:
        sock.bind(("127.0.0.1" if family is Family.INET else "::1", 0))
    return sock


def received(sock: socket.socket) -> list[bytes]:
    """Everything that waits."""
    found = []
    while True:
        try:
            found.append(sock.recv(99))
        except BlockingIOError:
            return found


@pytest.mark.parametrize("address", [V4, V6])
def test_one_socket_receives_and_knows_its_port(closing: ExitStack, address: InetAddress) -> None:
    (listening,) = opened(closing, address)
    bound = listening.address
    assert isinstance(bound, InetAddress)
    assert bound == replace(address, port=bound.port)
    assert bound.port > 0
    assert not os.get_inheritable(listening.fileno())
    assert fcntl.fcntl(listening.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    sock = borrowed(closing, listening)
    client(closing, address.family).sendto(b"", bound.sockaddr)
    client(closing, address.family).sendto(b"x", bound.sockaddr)
    assert received(sock) == [b"", b"x"]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


@pytest.mark.parametrize("address", [V4, V6, ANY6])
@pytest.mark.parametrize("copies", [2, 5])
def test_a_client_always_meets_the_same_copy(closing: ExitStack, address: InetAddress, copies: int) -> None:
    # D1
    listening = opened(closing, address, copies=copies)
    bound = listening[0].address
    assert isinstance(bound, InetAddress)
    assert {one.address for one in listening} == {bound}
    socks = [borrowed(closing, one) for one in listening]
    to = ("::1" if bound.family is Family.INET6 else "127.0.0.1", bound.port)
    met: dict[bytes, set[int]] = defaultdict(set)
    clients = [client(closing, address.family) for _ in range(100)]
    for _ in range(3):
        for number, sock in enumerate(clients):
            sock.sendto(str(number).encode(), to)
        for copy, sock in enumerate(socks):
            for data in received(sock):
                met[data].add(copy)
    assert len(met) == 100
    assert {len(copies_met) for copies_met in met.values()} == {1}
    assert {copy for copies_met in met.values() for copy in copies_met} == set(range(copies))


@pytest.mark.parametrize("address", [V4, ANY6])
@pytest.mark.parametrize("theirs", [1, 2])
@pytest.mark.parametrize("ours", [1, 2])
def test_a_second_holder_is_found(closing: ExitStack, address: InetAddress, theirs: int, ours: int) -> None:
    """Another daemon of the same kind, with as many workers or with one: nothing is shared with it unseen."""
    first = opened(closing, address, copies=theirs)[0].address
    assert isinstance(first, InetAddress)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ListenFailed) as failure:
        listen_datagrams(first, BINDING, ours)
    assert str(failure.value) == (
        f"{first}: address already in use: another process listens there (ss -lunp 'sport = :{first.port}' names it)"
    )
    if address is ANY6:
        with pytest.raises(ListenFailed, match="already in use"):
            listen_datagrams(replace(V4, port=first.port), BINDING, ours)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_holder_that_reuses_ports_is_found_as_well(closing: ExitStack) -> None:
    other = client(closing, Family.INET)
    other.close()
    other = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(("127.0.0.1", 0))
    with pytest.raises(ListenFailed, match="already in use"):
        listen_datagrams(replace(V4, port=other.getsockname()[1]), BINDING, 2)


def test_one_that_comes_between_the_copies_fails_them_all(closing: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's socket on the port, or the like: the copies so far are closed."""
    before = set(os.listdir("/proc/self/fd"))
    real_bind = socket.socket.bind
    bound = []

    def bind(sock: socket.socket, address: object) -> None:
        bound.append(address)
        if len(bound) == 3:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        real_bind(sock, address)  # type: ignore[arg-type]  # what relayd gave

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ListenFailed, match="already in use"):
        listen_datagrams(V4, BINDING, 4)
    assert set(os.listdir("/proc/self/fd")) == before


def test_streams_and_datagrams_share_a_port(closing: ExitStack) -> None:
    streams = listen(V4, BINDING, SocketOptions(True, None, None, None))
    closing.callback(streams.close)
    (datagrams,) = opened(closing, streams.address)
    assert datagrams.address == streams.address


def test_options_of_the_binding(closing: ExitStack) -> None:
    (listening,) = opened(closing, V4, replace(BINDING, freebind=True, interface="lo"))
    sock = borrowed(closing, listening)
    assert sock.getsockopt(socket.IPPROTO_IP, 15) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
    with pytest.raises(ListenFailed, match="no interface 'nosuch0'"):
        listen_datagrams(V4, replace(BINDING, interface="nosuch0"))


@pytest.mark.parametrize("only", [False, True])
def test_ipv6_only_decides_whether_a_wildcard_takes_ipv4(closing: ExitStack, only: bool) -> None:
    (listening,) = opened(closing, ANY6, replace(BINDING, ipv6_only=only))
    bound = listening.address
    assert isinstance(bound, InetAddress)
    client(closing, Family.INET).sendto(b"x", ("127.0.0.1", bound.port))
    assert received(borrowed(closing, listening)) == ([] if only else [b"x"])


@pytest.mark.parametrize("address", ["203.0.113.77", "2001:db8::77"])
def test_freebind(closing: ExitStack, address: str) -> None:
    missing = InetAddress(Family.INET6 if ":" in address else Family.INET, address, 0)
    with pytest.raises(ListenFailed, match=r"no interface of this machine has this address.*freebind"):
        listen_datagrams(missing, BINDING)
    assert opened(closing, missing, replace(BINDING, freebind=True), 2)


# Unix sockets.


def test_a_reply_comes_from_the_path_that_was_asked(folder: Path, closing: ExitStack) -> None:
    # D2: the kernel takes the sender of a datagram from bind(2), so the file is not renamed into its place.
    path = folder / "a.sock"
    (listening,) = opened(closing, UnixAddress(str(path)))
    sock, asking = borrowed(closing, listening), client(closing, Family.UNIX)
    asking.bind("")  # an abstract name of the kernel's choice
    asking.sendto(b"x", str(path))
    data, sender = sock.recvfrom(9)
    sock.sendto(data, sender)
    assert asking.recvfrom(9) == (b"x", str(path))


def test_a_path_gets_its_mode_and_is_removed(folder: Path) -> None:
    path = folder / "a.sock"
    before = os.umask(0o027)
    try:
        (listening,) = listen_datagrams(UnixAddress(str(path)), replace(BINDING, mode=0o606))
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert stat.S_IMODE(path.stat().st_mode) == 0o606
    listening.close()
    listening.close()
    assert not path.exists()


@needs_root
def test_a_path_gets_its_owner(folder: Path, closing: ExitStack) -> None:
    path = folder / "a.sock"
    opened(closing, UnixAddress(str(path)), replace(BINDING, user_id=12345, group_id=54321))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_the_file_is_private_until_it_is_ready(
    folder: Path, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a.sock"
    modes: list[int] = []
    real_chmod = os.chmod

    def chmod(name: str, mode: int, *, dir_fd: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        real_chmod(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "chmod", chmod)
    before = os.umask(0)
    try:
        opened(closing, UnixAddress(str(path)), replace(BINDING, mode=0o666))
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


@needs_root
def test_a_failure_after_the_bind_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ListenFailed, match="CAP_CHOWN"):
        listen_datagrams(UnixAddress(str(folder / "a.sock")), replace(BINDING, user_id=1))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_stale_socket_is_replaced(folder: Path, closing: ExitStack, kind: int) -> None:
    path = folder / "a.sock"
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))
    stale = path.stat().st_ctime_ns
    (listening,) = opened(closing, UnixAddress(str(path)))
    assert path.stat().st_ctime_ns != stale
    client(closing, Family.UNIX).sendto(b"x", str(path))
    assert received(borrowed(closing, listening)) == [b"x"]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_live_socket_is_left_alone(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, kind) as alive:
        alive.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            alive.listen(0)
        inode = path.stat().st_ino
        with pytest.raises(ListenFailed, match="another process listens on this path"):
            listen_datagrams(UnixAddress(str(path)), BINDING)
        assert path.stat().st_ino == inode


def test_of_two_that_start_at_once_one_has_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found the path free; bind(2) itself decides, and neither removes what the other has bound."""
    path = tmp_path / "a.sock"
    both_looked = threading.Barrier(2, timeout=10)
    real_fchmod = os.fchmod

    def fchmod(fd: int, mode: int) -> None:
        both_looked.wait()
        real_fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    results: list[ListeningSocket | ListenFailed] = []

    def start() -> None:
        try:
            results.extend(listen_datagrams(UnixAddress(str(path)), BINDING))
        except ListenFailed as failure:
            results.append(failure)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (failed,) = [one for one in results if isinstance(one, ListenFailed)]
    assert "another process listens on this path" in str(failed)
    assert path.exists()
    for one in results:
        if isinstance(one, ListeningSocket):
            one.close()
    assert not path.exists()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/run/other.sock")])
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, make: object) -> None:
    path = tmp_path / "a.sock"
    assert callable(make)
    make(path)
    before = path.lstat()
    with pytest.raises(ListenFailed, match="a file that is not a socket is in the way"):
        listen_datagrams(UnixAddress(str(path)), BINDING)
    assert path.lstat() == before


def test_a_file_that_took_our_name_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    (listening,) = listen_datagrams(UnixAddress(str(path)), BINDING)
    path.unlink()
    path.touch()
    listening.close()
    assert path.exists()


def test_a_path_as_long_as_an_address_can_be(closing: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / ("n" * (107 - len(str(tmp_path)) - 1))
    (listening,) = opened(closing, UnixAddress(str(path)))
    client(closing, Family.UNIX).sendto(b"x", str(path))
    assert received(borrowed(closing, listening)) == [b"x"]


def test_a_missing_directory_is_told(folder: Path) -> None:
    with pytest.raises(ListenFailed, match=r"the directory .*/gone does not exist"):
        listen_datagrams(UnixAddress(str(folder / "gone" / "a.sock")), BINDING)


def test_an_abstract_name(closing: ExitStack) -> None:
    address = UnixAddress(f"@relayd-test-{secrets.token_hex(8)}")
    streams = listen(address, BINDING, SocketOptions(True, None, None, None))
    closing.callback(streams.close)
    (listening,) = opened(closing, address)
    client(closing, Family.UNIX).sendto(b"x", address.sockaddr)
    assert received(borrowed(closing, listening)) == [b"x"]
    with pytest.raises(ListenFailed, match="another process has this abstract name"):
        listen_datagrams(address, BINDING)
