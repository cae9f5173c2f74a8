import errno
import fcntl
import os
import secrets
import socket
import stat
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.net.dialing import ephemeral_ports
from relayd.net.listening import ListenFailed, ListeningSocket, listen, listen_on_passed
from relayd.spec import Binding, Keepalive, SocketOptions
from tests.specs import BINDING

OPTIONS = SocketOptions(nodelay=True, keepalive=Keepalive(61, 11, 7), user_timeout_ms=2500, congestion=None)
V4 = InetAddress(Family.INET, "127.0.0.1", 0)
V6 = InetAddress(Family.INET6, "::1", 0)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a file away, or drops to another user")


def opened(address: SocketAddress, binding: Binding = BINDING, options: SocketOptions = OPTIONS) -> ListeningSocket:
    return listen(address, binding, options)


def borrowed(listening: ListeningSocket) -> socket.socket:
    """Another socket object for the same socket."""
    return socket.socket(fileno=os.dup(listening.fileno()))


def option(listening: ListeningSocket, level: int, name: int) -> int:
    with borrowed(listening) as sock:
        return sock.getsockopt(level, name)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A directory that shall be empty afterwards: no temporary name is left."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", [V4, V6])
def test_an_inet_socket_accepts_and_knows_its_port(address: InetAddress) -> None:
    listening = opened(address)
    bound = listening.address
    assert isinstance(bound, InetAddress)
    assert bound == replace(address, port=bound.port)
    assert bound.port > 0
    assert not os.get_inheritable(listening.fileno())
    assert fcntl.fcntl(listening.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    with socket.socket(address.family.af) as client:
        client.connect(bound.sockaddr)
    listening.close()
    listening.close()
    assert listening.fileno() == -1


def test_accepted_sockets_inherit_the_options() -> None:
    listening = opened(V4, options=replace(OPTIONS, congestion="cubic"))
    with borrowed(listening) as sock, socket.socket() as client:
        client.connect(listening.address.sockaddr)
        sock.settimeout(5)
        accepted, _ = sock.accept()
        with accepted:
            tcp = socket.IPPROTO_TCP
            assert accepted.getsockopt(tcp, socket.TCP_NODELAY) == 1
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert accepted.getsockopt(tcp, socket.TCP_KEEPIDLE) == 61
            assert accepted.getsockopt(tcp, socket.TCP_KEEPINTVL) == 11
            assert accepted.getsockopt(tcp, socket.TCP_KEEPCNT) == 7
            assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 2500
            assert accepted.getsockopt(tcp, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"cubic"
    listening.close()


def test_options_that_are_off_are_not_set() -> None:
    off = SocketOptions(nodelay=False, keepalive=None, user_timeout_ms=None, congestion=None)
    listening = opened(V4, options=off)
    assert option(listening, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert option(listening, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert option(listening, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
    assert option(listening, socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 0
    assert option(listening, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 0
    listening.close()


def test_options_of_the_binding() -> None:
    listening = opened(V4, replace(BINDING, fast_open=True, defer_accept_s=1, freebind=True, interface="lo"))
    assert option(listening, socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == BINDING.backlog
    assert option(listening, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 1
    assert option(listening, socket.IPPROTO_IP, 15) == 1
    with borrowed(listening) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0") == b"lo"
    listening.close()


@pytest.mark.parametrize("only", [False, True])
def test_ipv6_only_decides_whether_a_wildcard_takes_ipv4(only: bool) -> None:
    listening = opened(InetAddress(Family.INET6, "::", 0), replace(BINDING, ipv6_only=only))
    bound = listening.address
    assert isinstance(bound, InetAddress)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", bound.port)) == (errno.ECONNREFUSED if only else 0)
    listening.close()


@pytest.mark.parametrize("address", ["203.0.113.77", "2001:db8::77"])
def test_freebind_listens_on_an_address_that_is_not_here(address: str) -> None:
    family = Family.INET6 if ":" in address else Family.INET
    missing = InetAddress(family, address, 0)
    with pytest.raises(ListenFailed, match=r"no interface of this machine has this address.*freebind"):
        opened(missing)
    opened(missing, replace(BINDING, freebind=True)).close()


def test_an_address_in_use_is_told() -> None:
    listening = opened(V4)
    with pytest.raises(ListenFailed) as failure:
        opened(listening.address)
    assert str(failure.value).startswith(f"{listening.address}: address already in use: another process")
    listening.close()


def test_an_address_whose_connections_are_in_time_wait_is_free() -> None:
    listening = opened(V4)
    address = listening.address
    with borrowed(listening) as sock, socket.socket() as client:
        client.connect(address.sockaddr)
        sock.settimeout(5)
        sock.accept()[0].close()  # our side closes first: TIME_WAIT is ours
        client.recv(1)
    listening.close()
    opened(address).close()


def test_a_port_of_the_kernels_choice_is_any_that_is_free() -> None:
    # With SO_REUSEADDR set before bind(2), the kernel looks in the lower half of the range first, and through all of it
    # for each socket once that is full: 8,000 listeners took 4 s for it.
    first, last = ephemeral_ports()
    many = [opened(V4) for _ in range(40)]
    ports = [bound.address.port for bound in many if isinstance(bound.address, InetAddress)]
    reuse = {option(bound, socket.SOL_SOCKET, socket.SO_REUSEADDR) for bound in many}
    for bound in many:
        bound.close()
    assert max(ports) > (first + last) // 2 + 1
    assert reuse == {1}  # for the connections, which inherit it: a later bind of this port shall not wait for them


def test_unknown_names_are_told() -> None:
    with pytest.raises(ListenFailed, match="no interface 'nosuch0'"):
        opened(V4, replace(BINDING, interface="nosuch0"))
    with pytest.raises(ListenFailed, match="congestion control 'nosuch' is not available"):
        opened(V4, options=replace(OPTIONS, congestion="nosuch"))


@needs_root
def test_a_low_port_without_the_capability_is_told() -> None:
    """In a child, which gives up its privileges for good. A port from another is taken only if this one is refused."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 81:
        pytest.skip("low ports are free for all here: net.ipv4.ip_unprivileged_port_start")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            opened(InetAddress(Family.INET, "127.0.0.1", 81))
        except ListenFailed as failure:
            os.write(write, str(failure).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    assert said == b"127.0.0.1:81: permission denied: ports below 1024 need CAP_NET_BIND_SERVICE"


def test_a_unix_path_gets_its_mode_and_is_removed(folder: Path) -> None:
    path = folder / "a.sock"
    before = os.umask(0o027)
    try:
        listening = opened(UnixAddress(str(path)), replace(BINDING, mode=0o606))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o606
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert [entry.name for entry in folder.iterdir()] == ["a.sock"]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listening.close()


@needs_root
def test_a_unix_path_gets_its_owner(folder: Path) -> None:
    path = folder / "a.sock"
    listening = opened(UnixAddress(str(path)), replace(BINDING, user_id=12345, group_id=54321))
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)
    listening.close()


def test_a_path_as_long_as_an_address_can_be(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    room = 107 - len(str(directory)) - 1
    path = directory / ("n" * room)
    listening = opened(UnixAddress(str(path)))
    assert [entry.name for entry in directory.iterdir()] == [path.name]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listening.close()
    assert list(directory.iterdir()) == []


def test_a_stale_socket_is_replaced(folder: Path) -> None:
    path = folder / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stale = path.stat().st_ino
    listening = opened(UnixAddress(str(path)))
    assert path.stat().st_ino != stale
    listening.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_live_socket_is_left_alone(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX, kind) as alive:
        alive.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            alive.listen(0)
        inode = path.stat().st_ino
        with pytest.raises(ListenFailed, match="another process listens on this path"):
            opened(UnixAddress(str(path)))
        assert path.stat().st_ino == inode
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.sock"]


def test_a_live_socket_with_a_full_backlog_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as waiting:
        alive.bind(str(path))
        alive.listen(0)
        waiting.connect(str(path))
        with pytest.raises(ListenFailed, match="another process listens on this path"):
            opened(UnixAddress(str(path)))


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/run/other.sock")])
def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path, make: object) -> None:
    path = tmp_path / "a.sock"
    assert callable(make)
    make(path)
    before = path.lstat()
    with pytest.raises(ListenFailed, match="a file that is not a socket is in the way"):
        opened(UnixAddress(str(path)))
    assert path.lstat() == before


def test_a_file_that_took_our_name_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listening = opened(UnixAddress(str(path)))
    path.unlink()
    path.touch()
    listening.close()
    assert path.exists()


def test_closing_after_the_file_has_gone(folder: Path) -> None:
    path = folder / "a.sock"
    listening = opened(UnixAddress(str(path)))
    path.unlink()
    listening.close()


def test_a_missing_directory_is_told(folder: Path) -> None:
    with pytest.raises(ListenFailed, match=r"the directory .*/gone does not exist"):
        opened(UnixAddress(str(folder / "gone" / "a.sock")))


@needs_root
def test_a_failure_after_the_bind_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(ListenFailed, match="CAP_CHOWN"):
        opened(UnixAddress(str(folder / "a.sock")), replace(BINDING, user_id=1))


def test_the_file_appears_only_when_it_is_ready(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the rename the temporary file has its final mode and takes connections; before chmod it is private."""
    path = folder / "a.sock"
    modes: list[int] = []
    real_chmod, real_rename = os.chmod, os.rename

    def chmod(name: str, mode: int, *, dir_fd: int) -> None:
        modes.append(stat.S_IMODE(os.stat(name, dir_fd=dir_fd).st_mode))
        assert not path.exists()
        real_chmod(name, mode, dir_fd=dir_fd)

    def rename(name: str, final: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        modes.append(stat.S_IMODE(os.stat(name, dir_fd=src_dir_fd).st_mode))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / name))
        real_rename(name, final, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "chmod", chmod)
    monkeypatch.setattr(os, "rename", rename)
    listening = opened(UnixAddress(str(path)), replace(BINDING, mode=0o666))
    assert modes == [0o600, 0o666]
    listening.close()


def test_an_abstract_name() -> None:
    address = UnixAddress(f"@relayd-test-{secrets.token_hex(8)}")
    listening = opened(address)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.sockaddr)
    with pytest.raises(ListenFailed, match="another process has this abstract name"):
        opened(address)
    listening.close()
    opened(address).close()


def test_linger_is_not_set_on_the_listening_socket() -> None:
    """It would be inherited, and every close would be a reset."""
    listening = opened(V4)
    with borrowed(listening) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 0, 0)
    listening.close()


# What systemd has bound, and passes.


def test_a_passed_socket_gets_what_can_be_set_on_it_and_is_not_closed() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as made:
        made.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: FreeBind=yes
        binding = replace(BINDING, backlog=7, fast_open=True, defer_accept_s=1)
        listening = listen_on_passed(made.fileno(), binding, OPTIONS)
        assert str(listening.address) == f"127.0.0.1:{made.getsockname()[1]}"
        assert listening.fileno() == made.fileno()
        assert fcntl.fcntl(made.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 61
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 7
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
        assert made.getsockopt(socket.IPPROTO_IP, 15) == 1  # systemd's to say
        listening.adjust(replace(binding, defer_accept_s=None), replace(OPTIONS, nodelay=False))
        assert not made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert not made.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
        listening.close()
        listening.close()
        assert listening.fileno() == -1
        with socket.create_connection(made.getsockname()):
            pass


def test_the_file_of_a_passed_socket_is_systemds(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_UNIX, kind) as made:
            made.bind(str(path))
            os.chmod(path, 0o604)
            if kind == socket.SOCK_STREAM:
                made.listen()
            listening = listen_on_passed(made.fileno(), BINDING, OPTIONS if kind == socket.SOCK_STREAM else None)
            assert listening.address == UnixAddress(str(path))
            listening.adjust(replace(BINDING, mode=0o600), OPTIONS if kind == socket.SOCK_STREAM else None)
            listening.close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
        path.unlink()


def test_an_option_that_cannot_be_set_on_a_passed_socket_is_told_and_it_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        with pytest.raises(ListenFailed, match="congestion control 'nosuch' is not available"):
            listen_on_passed(made.fileno(), BINDING, replace(OPTIONS, congestion="nosuch"))
        made.getsockname()


@pytest.mark.parametrize(
    ("family", "host", "level", "option"),
    [
        (socket.AF_INET, "127.0.0.1", socket.IPPROTO_IP, 8),  # IP_PKTINFO
        (socket.AF_INET6, "::1", socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
        (socket.AF_UNIX, None, socket.SOL_SOCKET, socket.SO_PASSCRED),
    ],
)
def test_datagrams_of_a_passed_socket_come_with_nothing_beside_them(
    family: int, host: str | None, level: int, option: int
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as made, socket.socket(family, socket.SOCK_DGRAM) as client:
        made.bind("" if host is None else (host, 0))
        for asked in ((level, option), (socket.SOL_SOCKET, 29)):  # SO_TIMESTAMP
            made.setsockopt(*asked, 1)
        client.sendto(b"before", made.getsockname())
        assert len(made.recvmsg(10, 200)[1]) >= 2
        listening = listen_on_passed(made.fileno(), BINDING, None)
        client.sendto(b"after", made.getsockname())
        data, beside, *_ = made.recvmsg(10, 200)
        assert (data, beside) == (b"after", [])
        listening.close()
