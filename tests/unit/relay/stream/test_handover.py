"""What is written down of a connection, and what is made of it (R4, R5)."""

import contextlib
import json
import math
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relayd.address import UnixAddress
from relayd.channel.parcel import BROKEN_RECORD
from relayd.choosing.group import Choice
from relayd.outcomes import Outcome, Side
from relayd.relay.batch import Choices
from relayd.relay.stream.connection import Connection, Phase
from relayd.relay.stream.handover import (
    FDS_MAX,
    PumpRecord,
    StreamRecord,
    freeze,
    read,
    read_version_1,
    table_size,
    written,
)
from relayd.relay.stream.pump import Flow
from relayd.spec import Target
from tests.integration.loop_thread import DEADLINE_S
from tests.unit.relay.lives import Batch, Life, Targets, address_of, as_version_1


@pytest.fixture
def targets() -> Iterator[Targets]:
    with Targets() as targets:
        yield targets


@pytest.fixture(params=["splicing", "copying"])
def old(request: pytest.FixtureRequest, targets: Targets) -> Iterator[Life]:
    with Life(targets.streams(), splices=request.param == "splicing") as life:
        yield life


@pytest.fixture
def new(targets: Targets) -> Iterator[Life]:
    with Life(targets.streams()) as life:
        yield life


# states -------------------------------------------------------------------------------------------------------------


def not_dialled_yet(life: Life, targets: Targets) -> Connection:
    return life.connect()[1]


def dialling(life: Life, targets: Targets) -> Connection:
    """Nobody answers: the backlog is full."""
    targets.fill_backlog()
    client, connection = life.connect()
    client.send(b"early")
    life.turn_until(lambda: connection._target is not None and connection._early & 1)
    assert connection.phase is Phase.DIALING
    return connection


def idle(life: Life, targets: Targets) -> Connection:
    client, far, connection = life.relaying(targets)
    client.send(b"question")
    life.turn_until(lambda: connection._pump_in is not None and connection._pump_in.moved == 8)
    assert far.recv(99) == b"question"
    return connection


def idle_unix(life: Life, targets: Targets) -> Connection:
    _, connection = life.connect(af=socket.AF_UNIX)
    life.turn_until(lambda: connection.phase is Phase.RELAYING)
    return connection


def idle_inet6(life: Life, targets: Targets) -> Connection:
    _, connection = life.connect(af=socket.AF_INET6)
    life.turn_until(lambda: connection.phase is Phase.RELAYING)
    return connection


def blocked(life: Life, targets: Targets) -> Connection:
    """Neither side reads, and both have sent more than there is room for."""
    client, far, connection = life.relaying(targets)
    for sock in (client, far):
        sock.setblocking(False)
    pumps = connection._pump_in, connection._pump_out
    while not all(pump is not None and pump.flow is Flow.BLOCKED for pump in pumps):
        for sock in (client, far):
            send_what_goes(sock)
        life.loop.turn()
    assert all(pump is not None and pump.holding for pump in pumps)
    return connection


def half_closed(life: Life, targets: Targets) -> Connection:
    _, far, connection = life.relaying(targets)
    far.shutdown(socket.SHUT_WR)
    life.turn_until(lambda: connection._first_fin is Side.TARGET)
    return connection


def resetting(life: Life, targets: Targets) -> Connection:
    """The client has sent more than the target takes, and has reset."""
    client, _, connection = life.relaying(targets)
    client.setblocking(False)
    pump = connection._pump_in
    while pump is not None and pump.flow is not Flow.BLOCKED:
        send_what_goes(client)
        life.loop.turn()
    reset(client)
    life.turn_until(lambda: connection.phase is Phase.RESETTING)
    return connection


def send_what_goes(sock: socket.socket) -> None:
    try:
        while sock.send(bytes(65536)):
            pass
    except BlockingIOError:
        return


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


def looked_at(life: Life, targets: Targets) -> Connection:
    """No timeout will ever be over."""
    connection = idle(life, targets)
    life.pass_to(connection._timer_at + 0.3)
    assert connection._timer_at == math.inf
    return connection


State = Callable[[Life, Targets], Connection]
STATES: list[State] = [
    not_dialled_yet,
    dialling,
    idle,
    idle_unix,
    idle_inet6,
    looked_at,
    blocked,
    half_closed,
    resetting,
]


def frozen(connection: Connection) -> tuple[StreamRecord, list[Choice], int, bytes]:
    """Its record, the choices that it speaks of, how many descriptors it has, and its part of the tail."""
    choices = Choices()
    record, fds, tail = freeze(connection, choices)
    return record, choices.every, len(fds), tail


@pytest.mark.parametrize("state", STATES)
def test_a_record_is_the_same_when_it_was_written(state: State, old: Life, targets: Targets) -> None:
    record, choices, fds, tail = frozen(state(old, targets))
    texts, table = written([record, record])
    again, other = read(json.loads(json.dumps(texts)), table)
    assert other == again
    assert json.dumps(again) == json.dumps(record)
    assert type(again) is type(record)
    assert [type(pump) for pump in again.pumps] == [type(pump) for pump in record.pumps]
    assert (again.fds, again.tail) == (fds, len(tail))
    assert fds <= FDS_MAX
    assert len(choices) == (record.choice >= 0)


@pytest.mark.parametrize("state", STATES)
def test_the_next_life_goes_on_where_this_one_was(state: State, old: Life, new: Life, targets: Targets) -> None:
    # R4: what it writes down in its turn says the same, but for the number of restarts.
    connection = state(old, targets)
    record, choices, fds, tail = frozen(connection)
    target = connection.target
    new.take(*old.packed())
    assert (old.streams.active, new.streams.active) == (0, 1)
    (connection,) = new.connections()
    again, choices_again, fds_again, tail_again = frozen(connection)
    expected = record._replace(restarts=1, client=list(record.client), tried=list(record.tried))
    if record.phase == "resetting":  # looked at soon
        again = again._replace(timer_at=record.timer_at)
    if record.phase == "dialing" and not record.dialled:
        again = again._replace(timer_at=record.timer_at)
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(expected))
    assert (choices_again, fds_again, tail_again) == (choices, fds, tail)
    assert connection.target == target


# records that no version has written --------------------------------------------------------------------------------


def changed(batch: Batch, **fields: Any) -> Batch:
    """With other values in its first record."""
    size = table_size(len(batch.values["records"]))
    first, *more = read(batch.values["records"], batch.tail[:size])
    texts, table = written([first._replace(**fields), *more])
    return replace(batch, values=batch.values | {"records": texts}, tail=table + batch.tail[size:])


def not_taken_over(life: Life, count: int = 1) -> bool:
    """Whether that is all that has happened, counted and told."""
    assert life.connections() == []
    assert life.closed() == {Outcome.NOT_TAKEN_OVER: count}
    assert len(life.log.records) + sum(int(message.split()[0]) for message in life.told()) == count
    return {record.outcome for record in life.log.records} <= {Outcome.NOT_TAKEN_OVER}


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        (idle, {"choice": 1}),
        (idle, {"choice": -2}),
        (idle, {"tried": [5]}),
        (idle, {"phase": "waiting"}),
        (idle, {"phase": "closed"}),
        (idle, {"phase": "dialing"}),
        (idle, {"pumps": []}),
        (idle, {"dialled": False}),
        (idle, {"choice": -1}),
        (idle, {"first_fin": "nobody"}),
        (idle, {"outcome": "no such outcome"}),
        (idle, {"phase": "resetting"}),  # and how does it end?
        (blocked, {"choice": 1}),
        (blocked, {"tried": [5]}),
        (blocked, {"phase": "waiting"}),
        (half_closed, {"first_fin": "relay?"}),
        (resetting, {"outcome": None}),
        (resetting, {"outcome": "no such outcome"}),
        (dialling, {"choice": 1}),
        (dialling, {"choice": -1}),
        (not_dialled_yet, {"phase": "closed"}),
        (dialling, {"phase": "relaying"}),
        (not_dialled_yet, {"phase": "relaying"}),
        (not_dialled_yet, {"outcome": "no such outcome"}),
    ],
)
def test_what_is_not_understood_ends_by_its_name_and_leaves_nothing(
    state: State, fields: dict[str, Any], old: Life, new: Life, targets: Targets
) -> None:
    # R5
    state(old, targets)
    (batch,) = old.packed()
    new.take(changed(batch, **fields))
    assert not_taken_over(new)


@pytest.mark.parametrize("state", [idle, blocked])
@pytest.mark.parametrize("at", [0, 1])
def test_a_descriptor_that_is_no_socket_ends_the_connection(
    state: State, at: int, old: Life, new: Life, targets: Targets
) -> None:
    state(old, targets)
    (batch,) = old.packed()
    os.close(batch.fds[at])
    batch.fds[at] = os.memfd_create("no socket")
    new.take(batch)
    assert not_taken_over(new)


def test_a_dial_goes_on_and_its_deadline_counts(old: Life, new: Life, targets: Targets) -> None:
    # S6
    deadline = dialling(old, targets)._deadline
    new.take(*old.packed())
    (connection,) = new.connections()
    new.pass_to(deadline - 0.3)
    assert connection.phase is Phase.DIALING
    new.pass_to(deadline + 0.3)
    assert new.closed() == {Outcome.CONNECT_TIMEOUT: 1}


def test_a_target_that_was_tried_is_not_tried_again(targets: Targets) -> None:
    # S6
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # and does not listen
        listener = targets.streams()
        listener = replace(listener, targets=(Target(address_of(refusing)), *listener.targets))
        targets.fill_backlog()
        with Life(listener) as old, Life(replace(listener, targets=listener.targets[:1])) as new:
            _, connection = old.connect()
            old.turn_until(lambda: connection._attempts == 2)
            assert len(connection._tried) == 1
            record, *_ = frozen(connection)
            new.take(*old.packed())
            (connection,) = new.connections()
            assert frozen(connection)[0].tried == record.tried
            new.pass_to(connection._deadline + 0.3)
            assert new.closed() == {Outcome.CONNECT_TIMEOUT: 1}
            assert new.log.records[0].attempts == 2


def test_a_dial_that_waits_for_its_next_attempt_makes_it(targets: Targets, tmp_path: Path) -> None:
    # S6
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as waits:
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        waits.connect(full.getsockname())
        listener = replace(targets.streams(), targets=(Target(UnixAddress(full.getsockname())),))
        with Life(listener) as old, Life(listener) as new:
            client, connection = old.connect()
            client.send(b"early")
            old.turn_until(lambda: connection._attempts == 1 and connection._target is None)
            new.take(*old.packed())
            (connection,) = new.connections()
            full.accept()[0].close()
            new.turn_until(lambda: connection.phase is Phase.RELAYING)
            far, _ = full.accept()
            with far:
                new.turn_until(lambda: connection._pump_in is not None and connection._pump_in.moved)
                assert far.recv(99) == b"early"


def test_many_restarts_are_counted_and_reloads_before_them(old: Life, new: Life, targets: Targets) -> None:
    # O1
    conn_id = idle(old, targets).conn_id
    old.loop.reloads += 2
    with contextlib.ExitStack() as stack:
        last = old
        for _ in range(3):
            between = stack.enter_context(Life(targets.streams()))
            between.take(*last.packed())
            last = between
        new.loop.reloads = 70
        new.take(*last.packed())
    new.loop.reloads += 1
    new.streams.end_all(Outcome.SHUTDOWN)
    (record,) = new.log.records
    assert (record.conn_id, record.bytes_in) == (conn_id, 8)
    assert (record.restarts_survived, record.reloads_survived) == (4, 3)
    assert (old.closed(), new.closed()) == ({}, {Outcome.SHUTDOWN: 1})
    assert [life.streams.services["web"].counters.accepted for life in (old, new)] == [1, 0]


# what goes on -------------------------------------------------------------------------------------------------------


def test_bytes_go_both_ways_and_a_proper_end_is_one(old: Life, new: Life, targets: Targets) -> None:
    # R4, S2
    client, far, _ = old.relaying(targets)
    new.take(*old.packed())
    (connection,) = new.connections()
    for sender, receiver in ((client, far), (far, client)):
        sender.send(b"after the restart")
        assert arrived(new, receiver, 17) == b"after the restart"
    client.shutdown(socket.SHUT_WR)
    new.turn_until(lambda: connection._first_fin)
    assert far.recv(99) == b""
    far.close()
    new.turn_until(new.closed)
    assert client.recv(99) == b""
    assert new.closed() == {Outcome.NORMAL: 1}


def test_no_byte_of_those_on_their_way_is_lost_or_has_another_place(old: Life, new: Life, targets: Targets) -> None:
    # R4, S1
    pattern = bytes(range(251)) * 40_000
    client, far, connection = old.relaying(targets)
    sent = {client: 0, far: 0}
    pumps = connection._pump_in, connection._pump_out
    for sock in sent:
        sock.setblocking(False)
    while not all(pump is not None and pump.flow is Flow.BLOCKED for pump in pumps):
        for sock in sent:
            with contextlib.suppress(BlockingIOError):
                sent[sock] += sock.send(pattern[sent[sock] : sent[sock] + 65536])
        old.loop.turn()
    new.take(*old.packed())
    for sender, receiver in ((client, far), (far, client)):
        assert arrived(new, receiver, sent[sender]) == pattern[: sent[sender]]


def arrived(life: Life, sock: socket.socket, count: int) -> bytes:
    """So many bytes, and what has come with them."""
    received = bytearray()
    sock.setblocking(False)

    def enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            while data := sock.recv(1 << 20):
                received.extend(data)
        return len(received) >= count

    life.turn_until(enough)
    sock.settimeout(DEADLINE_S)
    return bytes(received)


def test_a_reset_is_passed_on_after_what_came_before_it(old: Life, new: Life, targets: Targets) -> None:
    # S3
    resetting(old, targets)
    far = targets.accepted[-1]
    far.setblocking(False)
    new.take(*old.packed())
    (connection,) = new.connections()
    survivor = connection._survivor
    assert survivor is not None
    assert survivor.flags_at_end == 0  # no FIN follows
    received = 0

    def reset_arrived() -> bool:
        nonlocal received
        try:
            while data := far.recv(1 << 20):
                received += len(data)
            raise AssertionError("a FIN: this is no complete stream")
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    new.turn_until(reset_arrived)
    assert new.closed() == {Outcome.CLIENT_RESET: 1}
    assert new.log.records[0].bytes_in == received


def test_a_reset_that_nobody_makes_way_for_is_passed_on_all_the_same(old: Life, new: Life, targets: Targets) -> None:
    # S3
    deadline = resetting(old, targets)._deadline
    new.take(*old.packed())
    new.pass_to(deadline - 0.1)
    assert new.closed() == {}
    new.pass_to(deadline + 0.1)
    assert new.closed() == {Outcome.CLIENT_RESET: 1}


def test_until_somebody_has_it_a_sudden_end_would_be_a_reset(old: Life, targets: Targets) -> None:
    # S3: half of a file is not to be taken for all of it.
    connection = idle(old, targets)
    frozen(connection)
    assert connection._target is not None
    for sock in (connection._client, connection._target):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)


def test_one_that_has_left_does_nothing_any_more(old: Life, targets: Targets) -> None:
    connection = idle(old, targets)
    connection.leave()
    connection.leave()
    old.loop.close_ended()
    assert connection not in connection._timer
    assert (old.streams.active, old.closed(), old.log.records) == (0, {}, [])


@pytest.mark.parametrize("wrong", [7, None, {}, [], "text", ["id", "relaying"], [1] * 6, [1] * 8])
def test_what_is_no_record(wrong: Any, old: Life, targets: Targets) -> None:
    (text,), table = written([frozen(not_dialled_yet(old, targets))[0]])
    assert len(list(read([text], table))) == 1
    with pytest.raises(BROKEN_RECORD):
        list(read([wrong], table))
    for texts in ([], [text, text], wrong):
        with pytest.raises(BROKEN_RECORD):
            list(read(texts, table))
    for short in (b"", table[:-1], table + b"7"):
        with pytest.raises(ValueError, match="not as many"):
            list(read([text], short))


@pytest.mark.parametrize("fields", [{"af": 0}, {"af": int(socket.AF_NETLINK)}, {"client": []}])
def test_what_is_no_record_of_a_client(fields: dict[str, Any], old: Life, targets: Targets) -> None:
    record, *_ = frozen(not_dialled_yet(old, targets))
    with pytest.raises(ValueError, match="no client"):
        list(read(*written([record._replace(**fields)])))


# what version 1 of parcels has written -------------------------------------------------------------------------------

#: As it stood in a batch of that version, with another id and other ports.
VERSION_1 = """
["8f76d9-1", "relaying", 2, ["127.0.0.1", 57070], "127.0.0.1:8080", 0, 0, 0, [], true, 4, 1, 75072.413685764,
 75072.420505819, 75072.420505819, null, true, true, null, 0, 75082.420257101, 75082.420257101, 0, 3,
 [[false, 17, 75072.5, false, 0, 0], [true, 19, 75072.6, true, 2, 0]]]
"""


def test_a_record_of_version_1_is_read() -> None:
    (record,) = read_version_1([json.loads(VERSION_1)])
    assert record == StreamRecord(
        conn_id="8f76d9-1",
        phase="relaying",
        client=["127.0.0.1", 57070],
        local="127.0.0.1:8080",
        tried=[],
        first_fin=None,
        outcome=None,
        af=2,
        bind_port=0,
        bind_index=0,
        choice=0,
        dialled=True,
        early=4,
        attempts=1,
        started_at=75072.413685764,
        connected_at=75072.420505819,
        active_at=75072.420505819,
        guarded=True,
        keepalive_pending=True,
        errno=0,
        deadline=75082.420257101,
        timer_at=75082.420257101,
        reloads=0,
        restarts=3,
        pumps=(PumpRecord(False, 17, 75072.5, False, 0, 0), PumpRecord(True, 19, 75072.6, True, 2, 0)),
    )


@pytest.mark.parametrize("state", STATES)
def test_every_record_of_version_1_is_read(state: State, old: Life, targets: Targets) -> None:
    # R4: an upgrade from there keeps connections as well.
    record, *_ = frozen(state(old, targets))
    (again,) = read_version_1([as_version_1(record)])
    texts, table = written([record])
    (expected,) = read(json.loads(json.dumps(texts)), table)
    assert again == expected


@pytest.mark.parametrize(
    ("at", "wrong"),
    [(2, 0), (2, None), (2, "x"), (3, []), (5, 2**31), (10, -1), (12, None), (13, "x")]
    + [(-1, pumps) for pumps in (7, None, [7], [[False, 0, 0.0, False, 0, 0]], [[False, -1, 0.0, False, 0, 0]] * 2)],
)
def test_what_is_no_record_of_version_1(at: int, wrong: object) -> None:
    value = json.loads(VERSION_1)
    value[at] = wrong
    with pytest.raises(BROKEN_RECORD):
        list(read_version_1([value]))


@pytest.mark.parametrize("wrong", [7, None, {}, [], [1] * 24, [1] * 25, "text"])
def test_what_is_no_record_of_version_1_at_all(wrong: Any) -> None:
    with pytest.raises(BROKEN_RECORD):
        list(read_version_1([wrong]))
    with pytest.raises(BROKEN_RECORD):
        list(read_version_1([json.loads(VERSION_1)[1:]]))


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1])
def test_numbers_have_room(value: int, old: Life, targets: Targets) -> None:
    record, *_ = frozen(idle(old, targets))
    fields: dict[str, Any] = {"choice": value, "errno": value, "reloads": value << 32, "timer_at": math.inf}
    pumps = [pump._replace(moved=2**64 - 1, pending=2**32, piped=2**32) for pump in record.pumps]
    extreme = record._replace(**fields, early=2**32 - 1, pumps=tuple(pumps))
    assert list(read(*written([extreme]))) == [extreme]
