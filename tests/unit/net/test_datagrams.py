"""Keys: what they say about a client, and how a reply goes back."""

import contextlib
import errno
import os
import select
import socket
import struct

import pytest

from relayd.net.datagrams import (
    IP_PKTINFO,
    IP_RECVERR,
    IPV6_PKTINFO,
    IPV6_RECVERR,
    Layout,
    asked_address,
    forget_errors,
    join_segments,
    lost_in_kernel,
    open_session_socket,
    prepare_to_receive,
    segment_size,
    widen,
)


def layout_of(af: int, host: str) -> Layout:
    with socket.socket(af, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return prepare_to_receive(sock)


def pktinfo4(asked: str, reply_from: str | None = None) -> list[tuple[int, int, bytes]]:
    data = struct.pack("=i", 2) + socket.inet_aton(reply_from or asked) + socket.inet_aton(asked)
    return [(socket.IPPROTO_IP, IP_PKTINFO, data)]


def pktinfo6(asked: str) -> list[tuple[int, int, bytes]]:
    return [(socket.IPPROTO_IPV6, IPV6_PKTINFO, socket.inet_pton(socket.AF_INET6, asked) + struct.pack("=i", 2))]


def test_a_key_of_inet_says_who_sent_and_to_where() -> None:
    layout = layout_of(socket.AF_INET, "0.0.0.0")
    name = layout.name_of(("192.0.2.1", 51234))
    key = layout.key(name, asked_address(pktinfo4("127.0.0.5"), socket.AF_INET))
    assert layout.client(key) == ("192.0.2.1", 51234)
    assert layout.local(key) == "127.0.0.5"
    assert len(key) == layout.key_bytes
    ((level, kind, data),) = layout.reply_control(key)
    assert (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO)
    # No interface, the address to reply from.
    assert data[:8] == struct.pack("=i", 0) + socket.inet_aton("127.0.0.5")


def test_a_reply_to_a_broadcast_leaves_from_the_address_that_the_kernel_says() -> None:
    layout = layout_of(socket.AF_INET, "0.0.0.0")
    key = layout.key(
        layout.name_of(("192.0.2.1", 9)), asked_address(pktinfo4("192.0.2.255", "192.0.2.7"), socket.AF_INET)
    )
    assert layout.reply_control(key)[0][2][4:8] == socket.inet_aton("192.0.2.7")


def test_a_key_of_inet6_says_who_sent_and_to_where() -> None:
    layout = layout_of(socket.AF_INET6, "::")
    name = layout.name_of(("fe80::1", 51234, 0, 3))
    key = layout.key(name, asked_address(pktinfo6("2001:db8::5"), socket.AF_INET6))
    assert layout.client(key) == ("fe80::1", 51234, 0, 3)
    assert layout.local(key) == "2001:db8::5"
    assert len(key) == layout.key_bytes
    ((level, kind, data),) = layout.reply_control(key)
    assert (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO)
    assert data == socket.inet_pton(socket.AF_INET6, "2001:db8::5") + struct.pack("=i", 0)


@pytest.mark.parametrize(
    ("client", "asked", "reply_from"),
    [
        ("2001:db8::1", "ff02::1", "::"),
        ("2001:db8::1", None, "::"),
        ("::ffff:192.0.2.1", None, "::ffff:0.0.0.0"),
        ("::ffff:192.0.2.1", "::ffff:127.0.0.5", "::ffff:127.0.0.5"),
    ],
)
def test_where_no_reply_can_leave_from_the_address_asked_the_kernel_chooses(
    client: str, asked: str | None, reply_from: str
) -> None:
    layout = layout_of(socket.AF_INET6, "::")
    ancillary = pktinfo6(asked) if asked is not None else []
    key = layout.key(layout.name_of((client, 9, 0, 0)), asked_address(ancillary, socket.AF_INET6))
    assert layout.reply_control(key)[0][2][:16] == socket.inet_pton(socket.AF_INET6, reply_from)
    assert layout.local(key) == asked


def test_without_a_wildcard_the_key_is_the_client() -> None:
    layout = layout_of(socket.AF_INET, "127.0.0.1")
    key = layout.key(layout.name_of(("192.0.2.1", 51234)), b"")
    assert layout.client(key) == ("192.0.2.1", 51234)
    assert layout.local(key) is None
    assert layout.reply_control(key) == []


def test_what_is_not_known_of_the_address_asked_is_not_made_up() -> None:
    layout = layout_of(socket.AF_INET, "0.0.0.0")
    key = layout.key(layout.name_of(("192.0.2.1", 9)), asked_address([], socket.AF_INET))
    assert layout.local(key) is None
    assert layout.reply_control(key)[0][2] == bytes(12)


def test_a_read_that_is_one_datagram_has_no_segment_size() -> None:
    assert segment_size([]) == 0
    assert segment_size([*pktinfo4("127.0.0.1"), (17, 104, struct.pack("=i", 1400))]) == 1400


def test_only_udp_joins_segments() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        assert not join_segments(sock)


def test_what_the_kernel_has_lost_is_known() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
        sock.bind(("127.0.0.1", 0))
        assert lost_in_kernel(sock) == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(50):
                sender.sendto(bytes(1000), sock.getsockname())
        read = 0
        sock.setblocking(False)
        lost = lost_in_kernel(sock)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.recv(2000)
                read += 1
        assert read + lost == 50
        before = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        widen(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > before
    assert lost_in_kernel(sock) == 0  # closed


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: SO_RCVBUFFORCE")
def test_what_systemd_has_made_wider_stays_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE: ReceiveBuffer=16M
        widen(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 32 << 20


def test_a_session_socket_of_unix_can_be_answered() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as target:
        target.bind("")
        sock = open_session_socket(socket.AF_UNIX, target.getsockname(), None)
        sock.send(b"question")
        data, sender = target.recvfrom(100)
        assert data == b"question"
        target.sendto(b"answer", sender)
        assert sock.recv(100) == b"answer"
        sock.close()


def test_a_session_socket_tells_all_errors_and_forgets_them_when_told_to() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead:
        dead.bind(("127.0.0.1", 0))
        sock = open_session_socket(socket.AF_INET, dead.getsockname(), None)
    assert sock.getsockopt(socket.IPPROTO_IP, IP_RECVERR)
    sock.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        sock.recv(1)
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(0) == [(sock.fileno(), select.POLLERR)]
    forget_errors(sock)
    assert poll.poll(0) == []
    sock.close()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as target:
        target.bind(("::1", 0))
        sock = open_session_socket(socket.AF_INET6, target.getsockname(), None)
        assert sock.getsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR)
        sock.close()


def test_a_session_socket_that_cannot_be_connected_leaves_nothing_open() -> None:
    with pytest.raises(FileNotFoundError) as raised:
        open_session_socket(socket.AF_UNIX, "/nowhere/at/all", None)
    assert raised.value.errno == errno.ENOENT
