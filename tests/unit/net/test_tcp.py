import contextlib
import socket
from collections.abc import Iterator

import pytest

from relayd.net.tcp import path_info, reset_at_close, unacknowledged


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname(), timeout=5)
        other, _ = listening.accept()
        other.settimeout(5)
        with one, other:
            yield one, other


def test_a_path_has_a_round_trip_time(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"x")
    pair[1].recv(1)
    info = path_info(pair[0])
    assert info is not None
    assert 0 < info.rtt_ms < 1000
    assert info.retrans == 0


def test_a_unix_socket_and_a_closed_one_have_no_path() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert path_info(one) is None
    assert path_info(one) is None


def test_what_the_other_side_has_not_taken_is_counted(pair: tuple[socket.socket, socket.socket]) -> None:
    assert unacknowledged(pair[0]) == 0
    pair[0].setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += pair[0].send(bytes(1 << 20))
    assert 0 < unacknowledged(pair[0]) < sent


def test_of_a_unix_socket_what_is_not_read_is_counted() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.send(b"x" * 1000)
        assert unacknowledged(one) >= 1000
        other.recv(1000)
        assert unacknowledged(one) == 0


def test_closing_with_a_reset(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(b"x")
    reset_at_close(pair[0])
    pair[0].close()
    assert pair[1].recv(1) == b"x"
    with pytest.raises(ConnectionResetError):
        pair[1].recv(1)


def test_a_reset_of_what_is_closed_is_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    reset_at_close(pair[0])
