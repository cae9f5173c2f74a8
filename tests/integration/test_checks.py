"""Health checks over sockets, each against a server that behaves in one way (T2)."""

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.control.checks import probe
from relayd.control.checks.subject import UP, Cause, Found
from relayd.net import dialing
from relayd.spec import CheckKind
from tests.integration.asking import DEADLINE_S, address_of, ask, serving, subject

REFUSED = Found(False, "connection refused", Cause.CONNECT)
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def datagrams() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def closed_port(kind: int = socket.SOCK_STREAM) -> SocketAddress:
    """Where nobody listens. Of those that the kernel gives away, none is given again so soon."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return address_of(sock)


def answering(*pieces: bytes, reset: bool = False, heard: list[bytes] | None = None) -> Callable[[socket.socket], None]:
    """Reads once, sends `pieces`, and closes when the other side has."""

    def serve(listening: socket.socket) -> None:
        conn, _ = listening.accept()
        with conn:
            conn.settimeout(DEADLINE_S)
            data = conn.recv(65536)
            if heard is not None:
                heard.append(data)
            with contextlib.suppress(OSError):  # the check has its answer, and is gone
                conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    conn.sendall(piece)
                if reset:
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    return
                conn.shutdown(socket.SHUT_WR)
                conn.recv(1)

    return serve


# TCP


def test_a_port_where_somebody_listens(listening: socket.socket) -> None:
    assert ask(subject(address_of(listening), CheckKind.TCP)) == UP


def test_the_program_that_listens_does_not_see_a_connection_check(listening: socket.socket) -> None:
    for _ in range(5):
        assert ask(subject(address_of(listening), CheckKind.TCP)) == UP
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.accept()


def test_no_connection_is_left_in_time_wait(listening: socket.socket) -> None:
    address = address_of(listening)
    for _ in range(5):
        ask(subject(address, CheckKind.TCP))
    assert isinstance(address, InetAddress)
    remote = f"0100007F:{address.port:04X}"
    assert not [line for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[2] == remote]


def test_a_port_where_nobody_listens() -> None:
    assert ask(subject(closed_port(), CheckKind.TCP)) == REFUSED


def test_a_backlog_that_is_full() -> None:
    """The kernel drops the SYN, as a machine that is not there does."""
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        assert ask(subject(address_of(full), CheckKind.TCP, 0.05)) == Found(
            False, "connect timeout", Cause.CONNECT_TIMEOUT
        )


def test_a_target_that_the_check_would_be_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, and the kernel has given the socket that very port (`net.dialing.met_itself`)."""
    address = closed_port()
    real = dialing.open_dial_socket

    def unlucky(*arguments: object) -> socket.SocketType:
        sock = real(*arguments)  # type: ignore[arg-type]  # as they came
        sock.bind(address.sockaddr)
        return sock

    monkeypatch.setattr(probe, "open_dial_socket", unlucky)
    assert ask(subject(address, CheckKind.TCP)) == Found(False, "nobody listens: the check met itself", Cause.CONNECT)


def test_a_source_that_is_not_here() -> None:
    source = InetAddress(Family.INET, "192.0.2.77", 0)
    none = Found(None, "this machine does not have the source address 192.0.2.77")
    assert ask(subject(closed_port(), CheckKind.TCP, source=source)) == none
    assert ask(subject(closed_port(socket.SOCK_DGRAM), CheckKind.UDP, source=source, send="?")) == none


def test_a_source_that_is_here(listening: socket.socket) -> None:
    source = InetAddress(Family.INET, "127.0.0.2", 0)
    assert ask(subject(address_of(listening), CheckKind.TCP, source=source)) == UP


def test_the_interface_of_a_target_that_is_not_here() -> None:
    address = InetAddress(Family.INET6, "fe80::1", 80, "nowhere0")
    assert ask(subject(address, CheckKind.TCP)).up is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_this_machine_has_run_out(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> socket.SocketType:
        raise OSError(number, "out of it")

    monkeypatch.setattr(probe, "open_dial_socket", fail)
    assert ask(subject(closed_port(), CheckKind.TCP)).up is None


def test_no_local_port_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sock(socket.SocketType):
        def connect_ex(self, _: object) -> int:
            return errno.EADDRNOTAVAIL

    def open_dial_socket(af: int, *_: object) -> socket.SocketType:
        return Sock(af, socket.SOCK_STREAM)

    monkeypatch.setattr(probe, "open_dial_socket", open_dial_socket)
    assert ask(subject(closed_port(), CheckKind.TCP)) == Found(None, "cannot assign requested address")


# TCP: send and expect


def test_send_and_expect(listening: socket.socket) -> None:
    heard: list[bytes] = []
    with serving(listening, answering(b"+PO", b"NG\r\n", heard=heard)) as address:
        assert ask(subject(address, CheckKind.TCP, send="PING\r\n", expect="+PONG")) == UP
    assert heard == [b"PING\r\n"]


def test_a_banner_is_expected_without_a_word(listening: socket.socket) -> None:
    def serve(listening: socket.socket) -> None:
        conn, _ = listening.accept()
        with conn:
            conn.sendall(b"220 mail.test ESMTP\r\n")
            conn.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionResetError):
                conn.recv(1)

    with serving(listening, serve) as address:
        assert ask(subject(address, CheckKind.TCP, expect_pattern="^220 .*SMTP")) == UP


@pytest.mark.parametrize(
    ("keys", "held_back"), [({}, True), ({"send": "?", "expect": "yes"}, True), ({"expect": "220"}, False)]
)
def test_the_last_ack_is_held_back_unless_a_target_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, keys: dict[str, str], held_back: bool
) -> None:
    settings: list[object] = []

    def fail(_: int, wanted: Sequence[object], __: object) -> socket.SocketType:
        settings.extend(wanted)
        raise OSError(errno.EMFILE, "enough is known")

    monkeypatch.setattr(probe, "open_dial_socket", fail)
    ask(subject(closed_port(), CheckKind.TCP, DEADLINE_S, None, **keys))
    assert ((socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0) in settings) is held_back


def test_sending_is_enough_where_nothing_is_expected(listening: socket.socket) -> None:
    assert ask(subject(address_of(listening), CheckKind.TCP, send="hello")) == UP


def test_a_wrong_answer_that_ends(listening: socket.socket) -> None:
    with serving(listening, answering(b"-LOADING")) as address:
        found = ask(subject(address, CheckKind.TCP, send="PING\r\n", expect="+PONG"))
    assert found == Found(False, "wrong answer '-LOADING'", Cause.ANSWER)


def test_a_wrong_answer_that_does_not_end(listening: socket.socket) -> None:
    with serving(listening, answering(*[b"n" * 60_000] * 3)) as address:
        found = ask(subject(address, CheckKind.TCP, send="?", expect="yes"))
    assert found == Found(False, f"wrong answer '{'n' * 40}'...", Cause.ANSWER)


def test_an_answer_that_is_late(listening: socket.socket) -> None:
    with socket.create_connection(listening.getsockname()) as first:  # the check's is the second in the backlog
        assert first
        found = ask(subject(address_of(listening), CheckKind.TCP, 0.05, send="?", expect="yes"))
    assert found == Found(False, "no answer within 0.05s", Cause.TIMEOUT)


def test_half_an_answer_that_is_late(listening: socket.socket) -> None:
    def serve(listening: socket.socket) -> None:
        conn, _ = listening.accept()
        with conn:
            conn.sendall(b"ye")
            conn.settimeout(DEADLINE_S)
            with contextlib.suppress(ConnectionResetError):
                conn.recv(1)

    with serving(listening, serve) as address:
        assert ask(subject(address, CheckKind.TCP, 0.3, expect="yes")) == Found(
            False, "wrong answer 'ye'", Cause.TIMEOUT
        )


def test_closed_without_a_word(listening: socket.socket) -> None:
    with serving(listening, answering()) as address:
        found = ask(subject(address, CheckKind.TCP, send="?", expect="yes"))
    assert found == Found(False, "no answer before it closed", Cause.ANSWER)


def test_reset_instead_of_an_answer(listening: socket.socket) -> None:
    with serving(listening, answering(reset=True)) as address:
        found = ask(subject(address, CheckKind.TCP, send="?", expect="yes"))
    assert found == Found(False, "connection reset by peer", Cause.ANSWER)


def test_a_server_that_has_closed_sees_no_reset(listening: socket.socket) -> None:
    ends: list[bytes] = []

    def serve(listening: socket.socket) -> None:
        conn, _ = listening.accept()
        with conn:
            conn.settimeout(DEADLINE_S)
            conn.recv(100)
            with contextlib.suppress(OSError):
                conn.sendall(b"HTTP/1.1 200 OK\r\n")
                conn.shutdown(socket.SHUT_WR)
                ends.append(conn.recv(1))  # ConnectionResetError otherwise

    with serving(listening, serve) as address:
        found = ask(subject(address, CheckKind.TCP, send="GET / HTTP/1.0\r\n\r\n", expect="OK\r\n"))
    assert found == UP
    assert ends in ([b""], []), "a reset where the check was quicker than the server"


# HTTP


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",), UP),
        ((b"HTTP/1.0 204 No Content\r\n\r\n",), UP),
        ((b"HT", b"TP/1.", b"1 20", b"0 OK\r\n"), UP),
        ((b"HTTP/1.1 503 Service Unavailable\r\n\r\n",), Found(False, "status 503", Cause.STATUS)),
        ((b"HTTP/1.1 20",), Found(False, "no status before it closed", Cause.ANSWER)),
        ((b"SSH-2.0-OpenSSH_9.9\r\n",), Found(False, "wrong answer 'SSH-2.0-OpenSSH_9.9\\r\\n'", Cause.ANSWER)),
        ((), Found(False, "no status before it closed", Cause.ANSWER)),
    ],
)
def test_http(listening: socket.socket, pieces: tuple[bytes, ...], found: Found) -> None:
    heard: list[bytes] = []
    with serving(listening, answering(*pieces, heard=heard)) as address:
        assert ask(subject(address, CheckKind.HTTP, path="/health")) == found
    assert heard[0].startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:")


def test_http_that_does_not_answer(listening: socket.socket) -> None:
    assert ask(subject(address_of(listening), CheckKind.HTTP, 0.05)) == Found(
        False, "no status within 0.05s", Cause.TIMEOUT
    )


# UDP


def echoing(prefix: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        data, client = sock.recvfrom(65536)
        sock.sendto(prefix + data, client)

    return serve


def test_any_answer_of_udp_will_do(datagrams: socket.socket) -> None:
    with serving(datagrams, echoing(b"")) as address:
        assert ask(subject(address, CheckKind.UDP, send="?")) == UP


def test_an_empty_datagram_is_an_answer(datagrams: socket.socket) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendto(b"", sock.recvfrom(10)[1])

    with serving(datagrams, serve) as address:
        assert ask(subject(address, CheckKind.UDP, send="?")) == UP


def test_what_udp_expects(datagrams: socket.socket) -> None:
    with serving(datagrams, echoing(b"no")) as address:
        found = ask(subject(address, CheckKind.UDP, send="?", expect_pattern="^yes"))
    assert found == Found(False, "wrong answer 'no?'", Cause.ANSWER)


def test_udp_where_nobody_listens() -> None:
    assert ask(subject(closed_port(socket.SOCK_DGRAM), CheckKind.UDP, send="?")) == REFUSED


def test_udp_that_is_silent(datagrams: socket.socket) -> None:
    found = ask(subject(address_of(datagrams), CheckKind.UDP, 0.05, send="?"))
    assert found == Found(False, "no answer within 0.05s", Cause.TIMEOUT)
    assert datagrams.recv(10) == b"?"


# Unix sockets


def unix(path: Path, kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    return sock


def test_a_unix_stream_socket(tmp_path: Path) -> None:
    with unix(tmp_path / "a.sock", socket.SOCK_STREAM) as sock:
        sock.listen()
        with serving(sock, lambda listening: listening.accept()[0].close()) as address:
            assert ask(subject(address, CheckKind.TCP)) == UP
    assert ask(subject(address, CheckKind.TCP)) == REFUSED, "a file without a listener"
    missing = UnixAddress(str(tmp_path / "b.sock"))
    assert ask(subject(missing, CheckKind.TCP)) == Found(False, "no such file or directory", Cause.CONNECT)


def test_a_unix_backlog_that_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with unix(path, socket.SOCK_STREAM) as sock, socket.socket(socket.AF_UNIX) as first:
        sock.listen(0)
        first.connect(str(path))
        assert ask(subject(address_of(sock), CheckKind.TCP)) == Found(False, "its backlog is full", Cause.CONNECT)


def test_http_over_a_unix_socket() -> None:
    def serve(listening: socket.socket) -> None:
        conn, _ = listening.accept()
        with conn:
            conn.recv(1000)
            conn.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("")
        sock.listen()
        with serving(sock, serve) as address:
            assert ask(subject(address, CheckKind.HTTP)) == UP


def test_a_unix_datagram_socket_can_answer(tmp_path: Path) -> None:
    with unix(tmp_path / "a.sock", socket.SOCK_DGRAM) as sock, serving(sock, echoing(b"")) as address:
        assert ask(subject(address, CheckKind.UDP, send="ping", expect="ping")) == UP
    assert ask(subject(address, CheckKind.UDP, send="ping")) == REFUSED


def test_a_unix_datagram_socket_whose_queue_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with unix(path, socket.SOCK_DGRAM) as sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filling.sendto(b"x", str(path))
        found = ask(subject(address_of(sock), CheckKind.UDP, 0.05, send="?"))
    assert found == Found(False, "no answer within 0.05s", Cause.TIMEOUT)
