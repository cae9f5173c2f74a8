"""From accept to a connected target: rule S6, and what the access record says of it."""

import contextlib
import errno
import random
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, NameAddress, SocketAddress, UnixAddress
from relayd.net.dialing import open_dial_socket
from relayd.net.options import Setting
from relayd.net.poller import OUT
from relayd.outcomes import Outcome, Side
from relayd.relay.stream import connection as connection_module
from relayd.relay.stream.connection import Connection
from relayd.spec import SocketOptions, StreamTimeouts
from tests.integration.relaying import (
    OPTIONS,
    TIMEOUTS,
    Relay,
    Target,
    free_address,
    parse_inet,
    receive,
    receive_all,
    reset,
)

QUICK = StreamTimeouts(connect_s=0.4, idle_s=None, half_close_s=60.0, max_lifetime_s=None)
NAME = NameAddress("app.example.com", 80)


def closed_address(kind: str, directory: Path) -> SocketAddress:
    """An address where nobody listens any more."""
    with Target(kind, directory) as target:
        return target.address


@pytest.mark.parametrize("kind", ["inet", "inet6", "unix", "abstract"])
def test_a_refused_dial_goes_to_the_next_target(kind: str, tmp_path: Path) -> None:
    # S6
    dead = closed_address(kind, tmp_path)
    with Target("inet", tmp_path) as target, Relay([dead, target.address]) as relay:
        client = relay.connect()
        client.sendall(b"early")
        far = target.accept()
        assert receive(far, 5) == b"early"
        far.close()
        client.close()
        record = relay.ended()
        assert (record.outcome, record.attempts, record.target) == (Outcome.NORMAL, 2, str(target.address))
        assert relay.service.counters.dial_failures == 1
        assert record.connect_ms is not None


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_a_dial_that_times_out_goes_to_the_next_target(kind: str, tmp_path: Path) -> None:
    # S6; a Unix socket with a full backlog says EAGAIN and never tells when it has room
    with (
        Target(kind, tmp_path, backlog=0) as full,
        Target("inet", tmp_path) as target,
        Relay([full.address, target.address], timeouts=QUICK) as relay,
    ):
        full.fill_backlog()
        began = time.monotonic()
        client = relay.connect()
        client.sendall(b"early")
        client.shutdown(socket.SHUT_WR)
        far = target.accept()
        assert 0.35 <= time.monotonic() - began < 1.4
        assert receive_all(far) == (b"early", 0)
        far.close()
        assert receive_all(client) == (b"", 0)
        record = relay.ended()
        assert (record.outcome, record.side, record.attempts) == (Outcome.NORMAL, Side.CLIENT, 2)


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_no_target_in_time_resets_the_client(kind: str, tmp_path: Path) -> None:
    # S6
    with Target(kind, tmp_path, backlog=0) as full, Relay([full.address], timeouts=QUICK) as relay:
        full.fill_backlog()
        assert relay.turned_away()
        record = relay.ended()
        assert (record.outcome, record.side, record.attempts) == (Outcome.CONNECT_TIMEOUT, Side.TARGET, 1)
        assert record.errno == (errno.ETIMEDOUT if kind == "inet" else errno.EAGAIN)
        assert 400 <= record.duration_ms < 1400
        assert (record.connect_ms, record.first_byte_ms) == (None, None)
        assert record.target == str(full.address)


def test_a_full_unix_backlog_is_dialled_again(tmp_path: Path) -> None:
    # S6
    with Target("unix", tmp_path, backlog=0) as full, Relay([full.address]) as relay:
        full.fill_backlog()
        client = relay.connect()
        client.sendall(b"early")
        accepted = [full.accept()]
        while (first := receive_all_or_nothing(accepted[-1])) != b"early":
            assert first == b""
            accepted.append(full.accept())
        assert relay.service.counters.dial_failures == 0


def receive_all_or_nothing(sock: socket.socket) -> bytes:
    """What has come within a moment."""
    sock.settimeout(0.3)
    try:
        return sock.recv(100)
    except TimeoutError:
        return b""


@pytest.mark.parametrize("kind", ["inet", "inet6", "unix", "abstract"])
def test_nobody_listening_is_told_by_a_reset(kind: str, tmp_path: Path) -> None:
    dead = closed_address(kind, tmp_path)
    with Relay([dead]) as relay:
        for _ in range(10):
            assert relay.turned_away()
            record = relay.ended()
            assert (record.outcome, record.attempts, record.target) == (Outcome.TARGET_REFUSED, 1, str(dead))
            assert record.errno == errno.ECONNREFUSED


def test_a_missing_unix_path_is_refused_too(tmp_path: Path) -> None:
    with Relay([UnixAddress(f"{tmp_path}/never.sock")]) as relay:
        assert relay.turned_away()
        record = relay.ended()
        assert (record.outcome, record.errno) == (Outcome.TARGET_REFUSED, errno.ENOENT)


def test_dial_attempts_bounds_the_targets_that_are_tried(tmp_path: Path) -> None:
    dead = [closed_address("inet", tmp_path) for _ in range(3)]
    with Target("inet", tmp_path) as target, Relay([*dead, target.address], dial_attempts=3) as relay:
        assert relay.turned_away()
        record = relay.ended()
        assert (record.outcome, record.attempts, record.target) == (Outcome.TARGET_REFUSED, 3, str(dead[2]))


def test_an_interface_that_is_not_there_makes_a_target_unreachable(tmp_path: Path) -> None:
    gone = InetAddress(Family.INET6, "fe80::1", 80, "nosuchif0")
    with Relay([gone]) as relay:
        assert relay.turned_away()
        assert relay.ended().outcome is Outcome.TARGET_UNREACHABLE


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("inet", InetAddress(Family.INET, "192.0.2.1", 0)),
        ("inet6", InetAddress(Family.INET6, "2001:db8::5", 0)),
        ("inet6", InetAddress(Family.INET6, "fe80::1", 0, "nosuchif0")),
    ],
)
def test_a_source_that_is_not_ours_is_no_source(kind: str, source: InetAddress, tmp_path: Path) -> None:
    with Target(kind, tmp_path) as target, Relay([target.address], source=source) as relay:
        assert relay.turned_away()
        record = relay.ended()
        assert (record.outcome, record.errno) == (Outcome.NO_SOURCE, errno.EADDRNOTAVAIL)


class Portless(socket.SocketType):
    """A socket for which connect(2) finds no local port."""

    def connect_ex(self, address: object) -> int:
        return errno.EADDRNOTAVAIL


def test_without_a_local_port_left_a_resource_is_exhausted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_portless(af: int, *_: object) -> Portless:
        return Portless(af, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)

    monkeypatch.setattr(connection_module, "open_dial_socket", open_portless)
    with Relay([parse_inet("127.0.0.1:9")]) as relay:
        assert relay.turned_away()
        record = relay.ended()
        assert (record.outcome, record.errno) == (Outcome.RESOURCE_EXHAUSTED, errno.EADDRNOTAVAIL)


def test_without_its_source_a_target_of_another_family_is_dialled(tmp_path: Path) -> None:
    source = parse_inet("192.0.2.1:0")
    with (
        Target("inet", tmp_path) as beyond,
        Target("inet6", tmp_path) as target,
        Relay([beyond.address, target.address], source=source) as relay,
    ):
        relay.pair(target)


@pytest.mark.parametrize(("kind", "source"), [("inet", "127.0.0.7:0"), ("inet6", "[::1]:0")])
def test_the_target_sees_the_source_address(kind: str, source: str, tmp_path: Path) -> None:
    with Target(kind, tmp_path) as target, Relay([target.address], source=parse_inet(source)) as relay:
        _, far = relay.pair(target)
        assert far.getpeername()[0] == parse_inet(source).host


def test_a_source_of_another_family_is_left_out(tmp_path: Path) -> None:
    with Target("inet6", tmp_path) as target, Relay([target.address], source=parse_inet("127.0.0.7:0")) as relay:
        _, far = relay.pair(target)
        assert far.getpeername()[0] == "::1"


def test_a_name_without_an_answer_is_no_target_until_it_has_one(tmp_path: Path) -> None:
    # T3
    with Target("inet", tmp_path) as target, Relay([NAME]) as relay:
        assert relay.turned_away()
        record = relay.ended()
        assert (record.outcome, record.attempts, record.target) == (Outcome.NO_TARGET, 0, "")
        assert isinstance(target.address, InetAddress)
        address = target.address
        relay.call(lambda: relay.group.resolved(NAME, (address,)))
        client, far = relay.pair(target)
        client.sendall(b"hello")
        assert receive(far, 5) == b"hello"


@pytest.mark.parametrize("bind_kind", ["inet", "unix"])
@pytest.mark.alone
def test_a_client_that_leaves_while_dialling_frees_everything(bind_kind: str, tmp_path: Path) -> None:
    # S6
    bind = free_address(bind_kind, tmp_path)
    with Target("inet", tmp_path, backlog=0) as full, Relay([full.address], bind=bind) as relay:
        full.fill_backlog()
        clients = [relay.connect() for _ in range(10)]
        relay.wait_active(10)
        began = time.monotonic()
        for client in clients:
            reset(client)
        assert relay.outcomes(10) == {Outcome.CLIENT_ABORTED_CONNECTING}
        assert time.monotonic() - began < 0.5


def test_a_tcp_client_that_half_closes_while_dialling_is_served(tmp_path: Path) -> None:
    # S6
    with (
        Target("inet", tmp_path, backlog=0) as full,
        Target("inet", tmp_path) as target,
        Relay([full.address, target.address], timeouts=QUICK) as relay,
    ):
        full.fill_backlog()
        client = relay.connect()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        far = target.accept()
        assert receive_all(far) == (b"question", 0)
        far.sendall(b"answer")
        far.close()
        assert receive_all(client) == (b"answer", 0)


@pytest.mark.parametrize("kind", ["unix", "abstract"])
def test_what_a_unix_client_sent_before_it_left_is_delivered(kind: str, tmp_path: Path) -> None:
    # S6: connect, send, close, all before the dial is done; logger(1) works like that
    text = random.Random(9).randbytes(100_000)
    with (
        Target("inet", tmp_path, backlog=0) as full,
        Target("inet", tmp_path) as target,
        Relay([full.address, target.address], bind=free_address(kind, tmp_path), timeouts=QUICK) as relay,
    ):
        full.fill_backlog()
        client = relay.connect()
        client.sendall(text)
        client.close()
        far = target.accept()
        assert receive_all(far) == (text, 0)
        far.close()
        record = relay.ended()
        assert (record.outcome, record.bytes_in, record.client, record.type) == (
            Outcome.NORMAL,
            len(text),
            "unix:",
            "unix",
        )


@pytest.mark.parametrize("ends", ["fin", "reset"])
def test_a_target_that_closes_as_soon_as_it_has_accepted(ends: str, tmp_path: Path) -> None:
    # F3: question and FIN wait already when the dial succeeds, and the target is gone by then
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        for _ in range(50):
            client = relay.connect()
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            far = target.accept()
            if ends == "reset":
                reset(far)
            else:
                far.close()
            assert receive_all(client)[0] == b""
            record = relay.ended()
            assert record.outcome in (Outcome.NORMAL, Outcome.TARGET_RESET, Outcome.TARGET_REFUSED)
        assert relay.log.events == []


@pytest.mark.parametrize("early", [b"", b"question"])
@pytest.mark.parametrize("client_ends", [False, True])
def test_a_target_that_is_gone_when_the_loop_sees_it_connected(early: bytes, client_ends: bool, tmp_path: Path) -> None:
    # F3: as above, with the loop held still until everything has happened
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:

        def all_at_once() -> None:
            client = relay.connect()
            client.sendall(early)
            if client_ends:
                client.shutdown(socket.SHUT_WR)
            relay.acceptor.on_readable(0)
            (connection,) = relay.service.connections
            assert isinstance(connection, Connection)
            connection.client_event(OUT)  # dials, and knows of nothing early
            target.accept().close()

        for _ in range(20):
            relay.call(all_at_once)
            if not client_ends:
                with contextlib.suppress(OSError):  # reset by now, when the target was gone before the question
                    relay._clients[-1].shutdown(socket.SHUT_WR)
            assert receive_all(relay._clients[-1])[0] == b""
            relay.ended()
        assert relay.log.events == []


def test_a_dead_port_that_answers_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 9293 3.5: the kernel may choose the dialled port as the port to dial from
    dead = closed_address("inet", tmp_path)

    def open_on_that_port(af: int, settings: Sequence[Setting], source: SocketAddress | None) -> socket.SocketType:
        sock = open_dial_socket(af, settings, source)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(dead.sockaddr)
        return sock

    monkeypatch.setattr(connection_module, "open_dial_socket", open_on_that_port)
    with Relay([dead]) as relay:
        for _ in range(20):
            assert relay.turned_away()
            record = relay.ended()
            assert (record.outcome, record.connect_ms) == (Outcome.TARGET_REFUSED, None)


def test_targets_take_turns(tmp_path: Path) -> None:
    # T1
    with Target("inet", tmp_path) as a, Target("unix", tmp_path) as b, Relay([a.address, b.address]) as relay:
        for target in (a, b, a, b):
            client, far = relay.pair(target)
            far.close()
            client.close()
            assert relay.ended().target == str(target.address)


def test_a_v4_client_of_a_v6_socket_is_shown_as_v4(tmp_path: Path) -> None:
    # S10
    with Target("inet", tmp_path) as target, Relay([target.address], bind=parse_inet("[::]:0")) as relay:
        assert isinstance(relay.address, InetAddress)
        port = relay.address.port
        with socket.create_connection(("127.0.0.1", port)) as client:
            target.accept().close()
            client_port = client.getsockname()[1]
        record = relay.ended()
        assert (record.client, record.client_port, record.local) == ("127.0.0.1", client_port, f"127.0.0.1:{port}")
        with socket.create_connection(("::1", port)):
            target.accept().close()
        record = relay.ended()
        assert (record.client, record.local) == ("::1", f"[::1]:{port}")


def test_a_unix_client_with_a_name_is_shown_with_it(tmp_path: Path) -> None:
    with Target("inet", tmp_path) as target, Relay([target.address], bind=free_address("unix", tmp_path)) as relay:
        for name in (f"{tmp_path}/client.sock", "@relayd-test-client"):
            client = relay.connect(bind=UnixAddress(name))
            target.accept().close()
            client.close()
            record = relay.ended()
            assert (record.client, record.client_port, record.local) == (f"unix:{name}", 0, str(relay.address))
            assert (record.rtt_ms, record.retrans) == (None, None)


@pytest.mark.alone
def test_the_record_of_an_ordinary_connection(tmp_path: Path) -> None:
    # O1
    with Target("inet", tmp_path) as target, Relay([target.address], timeouts=TIMEOUTS) as relay:
        began = time.time()
        client, far = relay.pair(target)
        name = client.getsockname()
        client.sendall(b"question")
        receive(far, 8)
        time.sleep(0.05)  # so that the times can be told apart
        far.sendall(b"the answer")
        receive(client, 10)
        time.sleep(0.05)  # see above
        client.close()
        far.close()
        record = relay.ended()
        assert (record.client, record.client_port) == name
        assert (record.conn_id, record.listener, record.type) == ("t-1", "web", "tcp")
        assert (record.local, record.target) == (str(relay.address), str(target.address))
        assert (record.bytes_in, record.bytes_out) == (8, 10)
        assert (record.outcome, record.side, record.errno, record.attempts) == (Outcome.NORMAL, Side.CLIENT, 0, 1)
        assert record.connect_ms is not None
        assert record.first_byte_ms is not None
        assert 0 <= record.connect_ms < 50 <= record.first_byte_ms
        assert record.first_byte_ms + 50 <= record.duration_ms < 5000
        assert began - 0.05 <= record.start_time < began + 1
        assert record.rtt_ms is not None
        assert 0 < record.rtt_ms < 100
        assert record.retrans == 0


@pytest.mark.parametrize("stalled", [Side.CLIENT, Side.TARGET])
def test_a_side_that_takes_nothing_ends_at_tcp_user_timeout(stalled: Side, tmp_path: Path) -> None:
    options = SocketOptions(nodelay=True, keepalive=None, user_timeout_ms=500, congestion=None)
    with Target("inet", tmp_path) as target, Relay([target.address], options=options) as relay:
        client, far = relay.pair(target)
        sender = far if stalled is Side.CLIENT else client
        sender.settimeout(0.5)
        with pytest.raises((TimeoutError, ConnectionError)):
            sender.sendall(bytes(64 << 20))
        record = relay.ended()
        assert record.outcome is (Outcome.CLIENT_TIMEOUT if stalled is Side.CLIENT else Outcome.TARGET_TIMEOUT)
        assert record.errno == errno.ETIMEDOUT


def test_options_are_set_on_both_sides(tmp_path: Path) -> None:
    # S9
    with Target("inet", tmp_path) as target, Relay([target.address], options=OPTIONS) as relay:
        relay.pair(target)

        def nodelay() -> list[int]:
            return [
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                for connection in relay.service.connections
                for sock in (connection._client, connection._target)  # type: ignore[attr-defined]  # an Endable
            ]

        assert relay.call(nodelay) == [1, 1]


def test_linger_is_off_for_a_proper_end(tmp_path: Path) -> None:
    """A target that is slow to read gets everything although the relay has closed long before."""
    data = random.Random(10).randbytes(1 << 20)
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        target.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client, far = relay.pair(target)
        far.shutdown(socket.SHUT_WR)
        client.settimeout(1)
        assert client.recv(1) == b""
        client.sendall(data)
        client.close()
        assert receive_all(far) == (data, 0)
        assert relay.ended().bytes_in == len(data)
        assert far.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 0, 0)
