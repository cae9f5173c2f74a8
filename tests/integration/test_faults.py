"""Running out, bugs, and clients that do unusual things: rules F1 to F4."""

import array
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.log.events import Event
from relayd.log.formats import JournalFormat, JsonFormat, TextFormat
from relayd.net.poller import IN
from relayd.outcomes import Outcome, Side
from relayd.relay.stream import connection as connection_module
from relayd.relay.stream.connection import Connection
from relayd.relay.stream.listener import AcceptingSocket
from relayd.relay.stream.pump import Pump
from tests.integration.relaying import (
    Relay,
    Target,
    free_address,
    parse_inet,
    receive,
    receive_all,
    reset,
    was_reset,
)

KINDS = ["inet", "unix"]


def works(relay: Relay, target: Target) -> None:
    """A new connection works, to its proper end."""
    client = relay.connect()
    client.sendall(b"a good question")
    while receive_all_but_fin(far := target.accept()) != b"a good question":
        far.close()  # of an earlier connection, that the relay has given up
    far.sendall(b"answer")
    far.close()
    assert receive_all(client) == (b"answer", 0)
    client.close()
    assert relay.ended().outcome is Outcome.NORMAL


def receive_all_but_fin(far: socket.socket) -> bytes:
    """What waits on a connection, or nothing when it was reset."""
    try:
        return far.recv(100)
    except ConnectionError:
        return b""


@pytest.mark.alone
def test_at_the_limit_new_connections_wait_and_are_taken_within_a_second(tmp_path: Path) -> None:
    # F1, F2
    with Target("inet", tmp_path) as target, Relay([target.address], limit=3) as relay:
        pairs = [relay.pair(target) for _ in range(3)]
        waiting = [relay.connect() for _ in range(5)]
        for client in waiting:
            client.sendall(b"waiting")
        message, fields = relay.wait_event(Event.ACCEPT_PAUSED)
        assert "all 3 connections" in message
        assert fields["active"] == 3
        before = relay.cpu_s()
        time.sleep(0.5)  # nothing much shall happen in it
        assert relay.cpu_s() - before < 0.02
        for client, far in pairs:
            client.sendall(b"still here")
            assert receive(far, 10) == b"still here"
        began = time.monotonic()
        pairs[0][0].close()
        pairs[0][1].close()
        far = target.accept()
        assert time.monotonic() - began < 1
        assert receive(far, 7) == b"waiting"
        assert [event for event, _, _ in relay.log.events] == [Event.ACCEPT_PAUSED]
        assert relay.service.counters.accepted == 4


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_accept_that_runs_out_pauses_and_resumes(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # F1
    left = [3]
    accept_from = AcceptingSocket.accept_from

    def fails(self: AcceptingSocket, af: int) -> tuple[socket.SocketType, object]:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return accept_from(self, af)

    monkeypatch.setattr(AcceptingSocket, "accept_from", fails)
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        works(relay, target)
        assert relay.service.counters.accept_pauses == 3
        assert [event for event, _, _ in relay.log.events] == [Event.ACCEPT_PAUSED]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN])
def test_an_error_of_one_connection_does_not_pause_the_listener(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F1
    left = [20]
    accept_from = AcceptingSocket.accept_from

    def fails(self: AcceptingSocket, af: int) -> tuple[socket.SocketType, object]:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return accept_from(self, af)

    monkeypatch.setattr(AcceptingSocket, "accept_from", fails)
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        works(relay, target)
        assert relay.log.events == []


def test_an_event_for_a_listener_that_was_closed_in_the_same_turn_is_nothing(tmp_path: Path) -> None:
    # A Drain and a new connection in one batch: the loop has looked up the handler already
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        relay.connect()

        def close_and_event() -> None:
            relay.acceptor.close()
            relay.acceptor.on_readable(IN)
            relay.acceptor.expire()

        relay.call(close_and_event)
        relay.settled()
        assert relay.log.events == []


class Bug(Exception):
    """What no code expects."""


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Connection, "start"),
        (Connection, "_dial"),
        (Connection, "_connected"),
        (connection_module, "connection_record"),
        (Connection, "finished"),
        (Pump, "_copy"),
        (Pump, "__init__"),
        (connection_module, "met_itself"),
    ],
)
def test_a_bug_ends_its_connection_only(
    owner: object, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F3
    original: Callable[..., object] = getattr(owner, method)
    bugs = [0]

    def buggy(*arguments: object, **named: object) -> object:
        if bugs[0]:
            bugs[0] -= 1
            raise Bug(method)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, method, buggy)
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        neighbour, next_door = relay.pair(target)
        bugs[0] = 1
        with contextlib.suppress(OSError):  # it may be over before connect(2) has returned
            client = relay.connect()
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
        if method == "connection_record":  # it runs at the end
            target.accept().close()
        message, fields = relay.wait_event(Event.INTERNAL_ERROR)
        assert "listener web" in message
        assert "Bug" in str(fields["traceback"])
        assert "in buggy" in str(fields["traceback"])
        relay.wait_active(1)
        assert bugs == [0]
        if method == "connection_record":
            relay.unlogged += 1
        else:
            assert relay.ended().outcome is Outcome.INTERNAL_ERROR
        neighbour.sendall(b"still here")
        assert receive(next_door, 10) == b"still here"
        assert len(relay.log.events) == 1
        works(relay, target)


def test_a_bug_on_the_way_out_of_a_bug_ends_its_connection_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F3
    def buggy(*arguments: object) -> None:
        raise Bug

    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        neighbour, next_door = relay.pair(target)
        client, far = relay.pair(target)
        with monkeypatch.context() as patch:
            patch.setattr(Pump, "_copy", buggy)
            patch.setattr(connection_module, "connection_record", buggy)
            client.sendall(b"question")
            assert receive_all(far)[0] == b""
            relay.wait_active(1)
        relay.unlogged += 1
        assert [event for event, _, _ in relay.log.events] == [Event.INTERNAL_ERROR] * 2
        neighbour.sendall(b"still here")
        assert receive(next_door, 10) == b"still here"


@pytest.mark.parametrize("splice", [False, True])
def test_urgent_data_does_not_stop_the_stream(splice: bool, tmp_path: Path) -> None:
    # S1: tcp(7): recv stops at the urgent mark, with more behind it; the byte itself stays in line
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        client, far = relay.pair(target)

        def all_at_once() -> None:
            client.sendall(b"before")
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"behind")

        for _ in range(10):
            relay.call(all_at_once)
            assert receive(far, 13) == b"before!behind"
        client.shutdown(socket.SHUT_WR)
        assert receive_all(far) == (b"", 0)


def test_urgent_data_in_bulk_loses_nothing_behind_it(tmp_path: Path) -> None:
    # S1, S8: splice(2) takes the urgent mark for the end when a FIN has come as well
    bulk = bytes(range(256)) * 1024
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        client, far = relay.pair(target)

        def all_at_once() -> None:
            client.setblocking(False)
            client.send(bulk)
            client.send(b"!", socket.MSG_OOB)
            client.send(b"behind")
            client.shutdown(socket.SHUT_WR)

        relay.call(all_at_once)
        received, number = receive_all(far)
        assert number == 0
        assert received == bulk + b"!behind"


@pytest.mark.parametrize("splice", [False, True])
def test_a_unix_client_that_passes_descriptors_is_relayed_without_them(splice: bool, tmp_path: Path) -> None:
    # S1: unix(7): recv stops after a message with descriptors, with more behind it
    bind = free_address("unix", tmp_path)
    with Target("inet", tmp_path) as target, Relay([target.address], bind=bind, splice=splice) as relay:
        client, far = relay.pair(target)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [client.fileno()]))]

        def all_at_once() -> None:
            client.sendall(b"one")
            client.sendmsg([b"two"], rights)
            client.sendmsg([b"three"], rights)
            client.sendall(b"four")

        for _ in range(10):
            relay.call(all_at_once)
            assert receive(far, 15) == b"onetwothreefour"


def test_a_client_with_a_name_that_is_no_text_is_logged(tmp_path: Path) -> None:
    # F3: nothing from the network raises, whatever the log is
    bind = free_address("unix", tmp_path)
    with Target("inet", tmp_path) as target, Relay([target.address], bind=bind) as relay:
        for name in (os.fsencode(tmp_path) + b"/\xff\xfe\n", b"\0\xff\xfe\n"):
            with socket.socket(socket.AF_UNIX) as client:
                client.bind(name)
                client.connect(relay.address.sockaddr)
                target.accept().close()
                assert client.recv(1) == b""
            record = relay.ended()
            assert record.outcome is Outcome.NORMAL
            for log_format in (TextFormat(0), JsonFormat(0), JournalFormat(0)):
                assert b"web" in log_format.access(record)


def test_a_storm_leaves_nothing(tmp_path: Path) -> None:
    # F4
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        for number in range(300):
            client = relay.connect()
            far = target.accept()
            client.sendall(b"x" * (number * 700))
            if number % 3 == 0:
                reset(client)
            elif number % 3 == 1:
                reset(far)
            else:
                client.close()
            far.close()
        for _ in range(300):
            relay.ended()
        assert relay.log.events == []
        assert relay.call(lambda: len(relay.loop.timers._slots)) < 50
        works(relay, target)


def test_a_client_that_is_gone_before_it_is_accepted(tmp_path: Path) -> None:
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:

        def come_and_go() -> None:
            for _ in range(20):
                reset(relay.connect())

        relay.call(come_and_go)
        for _ in range(20):
            assert relay.ended().outcome in (Outcome.CLIENT_ABORTED_CONNECTING, Outcome.CLIENT_RESET)
        assert relay.log.events == []


def test_shutdown_resets_whoever_is_left(tmp_path: Path) -> None:
    # R6
    with Target("inet", tmp_path) as target, Relay([target.address], bind=parse_inet("[::1]:0")) as relay:
        client, far = relay.pair(target)
        relay.call(lambda: relay.service.end_all(Outcome.SHUTDOWN))
        assert was_reset(client)
        assert was_reset(far)
        assert relay.ended().outcome is Outcome.SHUTDOWN


def test_an_operator_resets_both_sides(tmp_path: Path) -> None:
    # O3
    with Target("inet", tmp_path) as target, Relay([target.address]) as relay:
        client, far = relay.pair(target)
        relay.call(lambda: relay.service.end_all(Outcome.KILLED))
        assert was_reset(client)
        assert was_reset(far)
        record = relay.ended()
        assert (record.outcome, record.outcome.code, record.side) == (Outcome.KILLED, "KD", Side.RELAY)


def test_every_outcome_is_in_some_test() -> None:
    """An outcome that nothing leads to would be dead; so the tests of this folder name each of them."""
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert [outcome for outcome in Outcome if f"Outcome.{outcome.name}" not in text] == []
