"""What is told of a descriptor that systemd may pass."""

import contextlib
import os
import socket
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, UnixAddress
from relayd.net.passed import describe
from relayd.spec.passed import Passed, Unusable

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: SO_BINDTODEVICE before Linux 5.7")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
@pytest.mark.parametrize(
    ("family", "host", "is_host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
def test_an_inet_socket(kind: int, family: int, host: str, is_host: str) -> None:
    with socket.socket(family, kind) as sock:
        sock.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        of = Family.INET6 if is_host == "::1" else Family.INET
        address = InetAddress(of, is_host, sock.getsockname()[1])
        ipv6_only = is_host == "::1"  # the kernel says so of one that is bound to an address of IPv6 alone
        assert describe(sock.fileno()) == Passed(kind == socket.SOCK_DGRAM, address, ipv6_only)
        sock.getsockname()  # it is open still


def test_an_ipv6_socket_that_leaves_ipv4_alone() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::", 0))
        sock.listen()
        found = describe(sock.fileno())
    assert isinstance(found, Passed)
    assert found.ipv6_only


@needs_root
def test_a_socket_of_one_interface() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        sock.bind(("0.0.0.0", 0))
        found = describe(sock.fileno())
    assert isinstance(found, Passed)
    assert found.interface == "lo"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_unix_socket(kind: int, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(tmp_path / "a.sock"))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        assert describe(sock.fileno()) == Passed(kind == socket.SOCK_DGRAM, UnixAddress(f"{tmp_path}/a.sock"))


def test_what_nobody_can_listen_on(tmp_path: Path) -> None:
    with contextlib.ExitStack() as cleanup:
        fifo = os.pipe()
        for end in fifo:
            cleanup.callback(os.close, end)
        listening = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = cleanup.enter_context(socket.create_connection(listening.getsockname()))
        accepted, _ = listening.accept()
        cleanup.enter_context(accepted)
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for each in pair:
            cleanup.enter_context(each)
        seqpacket = cleanup.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        deaf = cleanup.enter_context(socket.socket())
        netlink = cleanup.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        file = cleanup.enter_context((tmp_path / "file").open("w"))
        null = cleanup.enter_context(open(os.devnull))
        eventfd = os.eventfd(0)
        cleanup.callback(os.close, eventfd)
        connection = Unusable("a connection: the unit has Accept=yes")
        wanted = [
            (fifo[0], Unusable("a FIFO")),
            (client.fileno(), connection),
            (accepted.fileno(), connection),
            (pair[0].fileno(), connection),
            (seqpacket.fileno(), Unusable("a SEQPACKET socket")),
            (deaf.fileno(), Unusable("a stream socket that does not listen")),
            (netlink.fileno(), Unusable("a socket of address family 16")),
            (file.fileno(), Unusable("a file")),
            (null.fileno(), Unusable("a device")),
            (eventfd, Unusable("no socket")),
        ]
        assert [describe(fd) for fd, _ in wanted] == [what for _, what in wanted]


def test_a_socket_of_another_type() -> None:
    try:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with raw:
        assert describe(raw.fileno()) == Unusable("a socket of type 3")


def test_a_descriptor_that_is_not_open() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        describe(987_654)
