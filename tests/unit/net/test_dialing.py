import contextlib
import errno
import os
import socket
from collections.abc import Iterator

import pytest

from relayd.address import Family, InetAddress, UnixAddress
from relayd.net import dialing
from relayd.net.dialing import (
    NoSource,
    ephemeral_ports,
    is_here,
    may_meet_itself,
    met_itself,
    open_dial_socket,
    pending_error,
)
from relayd.net.options import tcp_settings
from relayd.spec import SocketOptions

SETTINGS = tcp_settings(SocketOptions(nodelay=True, keepalive=None, user_timeout_ms=1234, congestion=None))


@pytest.fixture(autouse=True)
def _fresh_ports() -> Iterator[None]:
    ephemeral_ports.cache_clear()
    yield
    ephemeral_ports.cache_clear()


@pytest.mark.parametrize("af", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_dial_socket_does_not_block_and_is_not_inherited(af: int) -> None:
    with contextlib.closing(open_dial_socket(af, SETTINGS, None)) as sock:
        assert (sock.family, sock.type) == (af, socket.SOCK_STREAM)
        assert not os.get_blocking(sock.fileno())
        assert not os.get_inheritable(sock.fileno())
        if af != socket.AF_UNIX:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1234


@pytest.mark.parametrize("host", ["127.0.0.9", "::1"])
def test_the_source_is_bound_without_a_port(host: str) -> None:
    family = Family.INET6 if ":" in host else Family.INET
    with contextlib.closing(open_dial_socket(family.af, SETTINGS, InetAddress(family, host, 0))) as sock:
        assert sock.getsockname()[:2] == (host, 0)  # IP_BIND_ADDRESS_NO_PORT: the port is chosen by connect


def test_a_source_of_another_family_is_not_bound() -> None:
    source = InetAddress(Family.INET, "127.0.0.9", 0)
    with contextlib.closing(open_dial_socket(socket.AF_INET6, SETTINGS, source)) as sock:
        assert sock.getsockname()[0] == "::"
    open_dial_socket(socket.AF_UNIX, SETTINGS, source).close()
    with contextlib.closing(open_dial_socket(socket.AF_INET, SETTINGS, UnixAddress("@x"))) as sock:
        assert sock.getsockname() == ("0.0.0.0", 0)


@pytest.mark.parametrize(
    "source",
    [
        InetAddress(Family.INET, "192.0.2.1", 0),
        InetAddress(Family.INET6, "2001:db8::1", 0),
        InetAddress(Family.INET6, "fe80::1", 0, "nosuchif0"),
        InetAddress(Family.INET6, "fe80::1", 0, "2147483647"),
    ],
)
def test_a_source_that_is_not_ours_is_an_error_of_its_own_and_leaves_nothing_open(source: InetAddress) -> None:
    with pytest.raises(NoSource) as raised:
        open_dial_socket(source.family.af, SETTINGS, source)
    assert raised.value.errno == errno.EADDRNOTAVAIL
    assert not is_here(source)


def test_another_error_of_the_source_is_no_such_one(monkeypatch: pytest.MonkeyPatch) -> None:
    source = InetAddress(Family.INET, "127.0.0.9", 0)
    with monkeypatch.context() as patch:
        patch.setattr(dialing, "_IP_BIND_ADDRESS_NO_PORT", 9999)  # ENOPROTOOPT
        with pytest.raises(OSError, match="available") as raised:
            open_dial_socket(socket.AF_INET, SETTINGS, source)
        assert not isinstance(raised.value, NoSource)
        assert is_here(source)  # nobody knows: no reason to say that it is not
    assert is_here(source)


def test_without_ipv6_no_address_of_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert not is_here(InetAddress(Family.INET6, "::1", 0))


def test_an_option_that_is_refused_leaves_nothing_open() -> None:
    options = SocketOptions(nodelay=True, keepalive=None, user_timeout_ms=None, congestion="nosuch")
    with pytest.raises(FileNotFoundError):
        open_dial_socket(socket.AF_INET, tcp_settings(options), None)


def test_an_error_waits_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        dead = listening.getsockname()
    with contextlib.closing(open_dial_socket(socket.AF_INET, SETTINGS, None)) as sock:
        assert sock.connect_ex(dead) == errno.EINPROGRESS
        assert pending_error(sock) == errno.ECONNREFUSED
        assert pending_error(sock) == 0


@pytest.mark.parametrize(("af", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_socket_that_met_itself(af: int, host: str) -> None:
    # RFC 9293 3.5: a simultaneous open with oneself
    with socket.socket(af) as sock:
        sock.bind((host, 0))
        name = sock.getsockname()
        sock.connect(name)
        assert sock.getpeername() == name
        assert met_itself(sock, name[1])


def test_a_socket_that_met_somebody_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        name = listening.getsockname()
        with socket.create_connection(name) as sock:
            assert not met_itself(sock, name[1])


def test_a_socket_that_is_not_connected_any_more_met_nobody() -> None:
    with socket.socket() as sock:
        assert not met_itself(sock, 0)


def test_only_a_port_that_the_kernel_gives_out_is_doubted() -> None:
    first, last = ephemeral_ports()
    ports = (first - 1, first, last)
    assert [may_meet_itself(InetAddress(Family.INET, "127.0.0.1", port)) for port in ports] == [False, True, True]
    assert not may_meet_itself(UnixAddress("@app"))


def test_the_range_of_ports_is_the_kernels() -> None:
    first, last = ephemeral_ports()
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        assert f"{first}\t{last}\n" == file.read()


def test_without_proc_sys_every_port_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "_PORT_RANGE", "/proc/nonexistent")
    assert ephemeral_ports() == (1024, 65535)
