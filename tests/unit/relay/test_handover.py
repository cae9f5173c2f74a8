"""All that a worker has, into parcels and out of them (R4, R5)."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from relayd.address import UnixAddress
from relayd.channel import parcel
from relayd.channel.codec import plain
from relayd.channel.parcel import BATCH_FDS, LABEL_VERSION, Label
from relayd.log.events import Event
from relayd.outcomes import Outcome
from relayd.relay.handover import Packer
from relayd.relay.stream import handover as stream
from relayd.relay.stream.connection import Connection, Phase
from relayd.relay.stream.pump import Flow
from relayd.spec import OnChange, StreamTimeouts, Target
from tests.unit.relay.lives import (
    DRAIN_TIMEOUT_S,
    Batch,
    Life,
    Targets,
    as_version_1,
    batches,
    with_timeouts,
)

#: Of a target that nobody has.
UNIX = UnixAddress("/nowhere")


@pytest.fixture
def targets() -> Iterator[Targets]:
    with Targets() as targets:
        yield targets


@pytest.fixture
def receiving() -> Iterator[socket.socket]:
    """Where clients of the listener "dns" send their datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def old(targets: Targets, receiving: socket.socket) -> Iterator[Life]:
    with Life(targets.streams(), targets.datagrams(), receiving={"dns": receiving}) as life:
        yield life


@pytest.fixture
def new(targets: Targets, receiving: socket.socket) -> Iterator[Life]:
    """The configuration has not changed."""
    with Life(targets.streams(), targets.datagrams(), receiving={"dns": receiving}) as life:
        yield life


def begin_sessions(
    life: Life, receiving: socket.socket, targets: Targets, count: int
) -> list[tuple[socket.socket, object]]:
    """So many sessions: their clients, and the address of each session, as the target has it."""
    found: list[tuple[socket.socket, object]] = []
    for _ in range(count):
        client = life.udp_client()
        life.session(client, receiving)
        found.append((client, targets.receiving.recvfrom(99)[1]))
    return found


class CrowdedSocket(socket.socket):
    """A parcel's end that takes `room` batches."""

    room = 0

    def sendmsg(self, *arguments: Any) -> int:
        if not self.room:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        self.room -= 1
        return super().sendmsg(*arguments)


def parcel_with_room(batches: int) -> tuple[socket.socket, socket.socket]:
    """The end that is kept, and one that takes so many batches."""
    kept, sending = parcel.pair()
    crowded = CrowdedSocket(fileno=sending.detach())
    crowded.room = batches
    return kept, crowded


# away ---------------------------------------------------------------------------------------------------------------


def test_three_hundred_connections_are_batches_with_room_for_each(old: Life, new: Life, targets: Targets) -> None:
    # R4
    ends = [old.relaying(targets) for _ in range(300)]
    found = old.packed()
    assert (old.streams.active, old.closed(), old.log.records) == (0, {}, [])
    assert all(len(batch.fds) == batch.label.size <= BATCH_FDS for batch in found)
    assert len(found) == -(-300 // ((BATCH_FDS - stream.FDS_MAX) // 2 + 1))
    assert sum(batch.label.count for batch in found) == 300
    assert {(batch.label.listener, batch.label.datagram, batch.label.socket) for batch in found} == {("web", False, 0)}
    new.take(*found)
    for client, far, _ in ends:
        client.send(b"?")
        far.send(b"!")
    new.turn_until(lambda: all(moved(connection) for connection in new.connections()))
    assert [(far.recv(9), client.recv(9)) for client, far, _ in ends] == [(b"?", b"!")] * 300
    assert new.streams.active == 300


def moved(connection: Any) -> bool:
    """One byte each way."""
    return bool(connection._pump_in.moved and connection._pump_out.moved)


def test_three_hundred_sessions_too(old: Life, new: Life, targets: Targets, receiving: socket.socket) -> None:
    # R4
    begun = begin_sessions(old, receiving, targets, 300)
    found = old.packed()
    assert (old.datagrams.active, old.closed("dns", datagram=True), old.log.records) == (0, {}, [])
    assert sorted(batch.label.count for batch in found) == [300 - BATCH_FDS, BATCH_FDS]
    inode = os.fstat(receiving.fileno()).st_ino
    assert {(batch.label.listener, batch.label.datagram, batch.label.socket) for batch in found} == {
        ("dns", True, inode)
    }
    new.take(*found)
    for _, session in begun:
        answer(targets, session)
    new.turn_until(lambda: new.datagrams.services["dns"].counters.datagrams_out == 300)
    assert [client.recv(99) for client, _ in begun] == [b"answer"] * 300


def answer(targets: Targets, session: object) -> None:
    targets.receiving.sendto(b"answer", session)  # type: ignore[call-overload]  # as recvfrom gave it


def test_what_no_parcel_takes_stays_and_several_are_filled_one_after_the_other(old: Life, targets: Targets) -> None:
    # R4
    for _ in range(300):
        old.relaying(targets)
    ends = [parcel_with_room(room) for room in (1, 0, 1)]
    packer = Packer(sending for _, sending in ends)
    ((listener, connections),) = old.streams.live()
    packer.pack_streams(listener, connections)
    packer.close()
    counts = []
    for kept, sending in ends:
        assert sending.fileno() == -1
        with kept:
            found = batches(kept)
        counts.append(sum(batch.label.count for batch in found))
        for batch in found:
            batch.close()
    assert counts[1] == 0
    assert sum(map(bool, counts)) == 2
    assert packer.connections == sum(counts) < 300
    left = old.connections()
    assert old.streams.active == len(left) == 300 - packer.connections
    assert {connection.phase for connection in left} == {Phase.RELAYING}
    assert old.closed() == {}


def test_sessions_that_no_parcel_takes_stay(old: Life, targets: Targets, receiving: socket.socket) -> None:
    # R4
    *_, (client, last) = begin_sessions(old, receiving, targets, BATCH_FDS + 3)
    kept, sending = parcel_with_room(1)
    packer = Packer([sending])
    ((listener, sock, sessions),) = old.datagrams.live()
    packer.pack_sessions(listener, sock, sessions)
    packer.close()
    with kept:
        for batch in batches(kept):
            batch.close()
    assert (packer.sessions, old.datagrams.active) == (BATCH_FDS, 3)
    answer(targets, last)  # which lives
    old.turn_until(lambda: old.datagrams.services["dns"].counters.datagrams_out == 1)
    assert client.recv(99) == b"answer"


def test_out_of_descriptors_nothing_is_packed_and_nothing_lost(
    old: Life, targets: Targets, receiving: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F1
    old.relaying(targets)
    begin_sessions(old, receiving, targets, 1)

    def failing(*arguments: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    kept, sending = parcel.pair()
    packer = Packer([sending])
    monkeypatch.setattr(os, "memfd_create", failing)
    old.pack(packer)
    with kept:
        assert batches(kept) == []
    assert (packer.connections, packer.sessions) == (0, 0)
    assert (old.streams.active, old.datagrams.active) == (1, 1)


def test_without_a_parcel_everything_stays(old: Life, targets: Targets, receiving: socket.socket) -> None:
    old.relaying(targets)
    begin_sessions(old, receiving, targets, 1)
    old.pack(Packer([]))
    assert (old.streams.active, old.datagrams.active) == (1, 1)


# back: what is not understood ---------------------------------------------------------------------------------------


@pytest.fixture
def web(old: Life, targets: Targets) -> Batch:
    """Two connections, on their way."""
    for _ in range(2):
        old.relaying(targets)
    (batch,) = old.packed()
    return batch


@pytest.fixture
def dns(old: Life, receiving: socket.socket, targets: Targets) -> Batch:
    """Two sessions, on their way."""
    begin_sessions(old, receiving, targets, 2)
    (batch,) = old.packed()
    return batch


@pytest.fixture(params=["web", "dns"])
def batch(request: pytest.FixtureRequest) -> Batch:
    """Either."""
    found: Batch = request.getfixturevalue(request.param)
    return found


def assert_not_taken_over(life: Life, label: Label, count: int, why: str) -> None:
    """So many are counted, and a line says so and `why`; nothing else has happened."""
    assert life.closed(label.listener, datagram=label.datagram) == {Outcome.NOT_TAKEN_OVER: count}
    ((event, message, fields),) = life.log.events
    what = "sessions" if label.datagram else "connections"
    assert event is Event.NOT_TAKEN_OVER
    assert message == f"{count} {what} of listener {label.listener} were not taken over: {why}"
    assert fields == {"listener": label.listener, "count": count}


def test_sessions_of_version_1_are_taken_over(new: Life, dns: Batch) -> None:
    # R4. They are written down as they were.
    new.take(replace(dns, label=replace(dns.label, version=1)))
    assert new.datagrams.active == 2
    assert new.log.events == []


def test_connections_of_version_1_are_taken_over(old: Life, new: Life, targets: Targets) -> None:
    # R4
    *_, connection = old.relaying(targets)
    (batch,) = old.packed()
    (record,) = stream.read(batch.values["records"], batch.tail)
    values = batch.values | {"records": [as_version_1(record)]}
    new.take(replace(batch, label=replace(batch.label, version=1), values=values, tail=b""))
    assert [each.conn_id for each in new.connections()] == [connection.conn_id]
    assert new.log.events == []


def test_records_of_another_version_are_counted_and_told(new: Life, batch: Batch) -> None:
    # R5
    new.take(replace(batch, label=replace(batch.label, version=LABEL_VERSION + 1)))
    why = f"they are written down as of version {LABEL_VERSION + 1}, and this one knows {LABEL_VERSION}"
    assert_not_taken_over(new, batch.label, 2, why)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ValueError: no content of a parcel: "),
        (b"\x02" + bytes(7) + b"{]", "JSONDecodeError: "),
        (b"\x02" + bytes(7) + b"{}", "KeyError: 'listener'"),
        (b"\x02" + bytes(7) + b"[]", "TypeError: "),
        (b"\x01" + bytes(7) + b"7", "TypeError: "),
    ],
)
def test_what_is_no_content_is_counted_and_told(data: bytes, why: str, new: Life, batch: Batch) -> None:
    # R5
    memfd = os.memfd_create("garbage")
    os.write(memfd, data)
    new.take_raw(batch.label, [memfd, *batch.fds])
    ((_, message, _),) = new.log.events
    assert_not_taken_over(new, batch.label, 2, message.partition("over: ")[2])
    assert message.partition("over: ")[2].startswith(why)


@pytest.mark.parametrize("missing", ["listener", "choices", "records"])
def test_what_lacks_a_part_is_counted_and_told(missing: str, new: Life, batch: Batch) -> None:
    # R5
    del batch.values[missing]
    new.take(batch)
    assert_not_taken_over(new, batch.label, 2, f"KeyError: {missing!r}")


def test_what_control_had_no_room_for_comes_without_descriptors(new: Life, batch: Batch) -> None:
    # F2
    batch.close()
    new.take_raw(batch.label, [])
    assert_not_taken_over(
        new, batch.label, 2, "workers may not have so many, or nobody listens at their address any more"
    )
    assert new.arrivals.went_on == {False: 0, True: 0}
    assert new.arrivals.told == {batch.label.datagram: 2, not batch.label.datagram: 0}


def test_those_whose_descriptors_are_there_are_taken_over(new: Life, batch: Batch) -> None:
    os.close(batch.fds.pop())
    new.take(batch)
    assert new.streams.active + new.datagrams.active == 1
    assert_not_taken_over(new, batch.label, 1, "ValueError: descriptors are missing")
    assert new.arrivals.went_on == new.arrivals.told == {batch.label.datagram: 1, not batch.label.datagram: 0}


def test_a_label_that_counts_more_than_there_are_is_believed(new: Life, batch: Batch) -> None:
    new.take(replace(batch, label=replace(batch.label, count=5)))
    assert new.streams.active + new.datagrams.active == 2
    assert_not_taken_over(new, batch.label, 3, "nothing is written down of them")


def test_one_that_makes_no_sense_ends_and_the_others_live(new: Life, web: Batch) -> None:
    # R5
    size = stream.table_size(2)
    first, second = stream.read(web.values["records"], web.tail[:size])
    web.values["records"], table = stream.written([first._replace(phase="waiting"), second])
    new.take(replace(web, tail=table + web.tail[size:]))
    assert new.streams.active == 1
    assert new.connections()[0].conn_id == second.conn_id
    assert [(record.conn_id, record.outcome) for record in new.log.records] == [(first.conn_id, Outcome.NOT_TAKEN_OVER)]
    assert new.closed() == {Outcome.NOT_TAKEN_OVER: 1}
    assert new.log.events == []


def test_a_batch_that_is_understood_makes_up_for_no_other(new: Life, old: Life, targets: Targets, web: Batch) -> None:
    for _ in range(3):
        old.relaying(targets)
    (more,) = old.packed()
    more.values.clear()
    new.take(web, more)
    assert new.streams.active == 2
    assert_not_taken_over(new, more.label, 3, "KeyError: 'listener'")


def test_connections_of_what_serves_no_streams_are_counted_and_told(new: Life, web: Batch, targets: Targets) -> None:
    web.values["listener"] = plain(targets.datagrams("no streams"))
    new.take(web)
    assert_not_taken_over(new, web.label, 2, "ValueError: no streams has no streams")


def test_each_connection_gets_its_own_bytes(new: Life, targets: Targets) -> None:
    # S1
    with Life(targets.streams(), splices=False) as old:
        ends = [old.relaying(targets) for _ in range(3)]
        for number, (client, _, connection) in enumerate(ends):
            client.setblocking(False)
            pump = connection._pump_in
            while pump is not None and pump.flow is not Flow.BLOCKED:
                with contextlib.suppress(BlockingIOError):
                    client.send(b"%d" % number * 65536)
                old.loop.turn()
        held = {connection.conn_id: pending(connection) for _, _, connection in ends}
        assert len(set(held.values())) == 3
        new.take(*old.packed())
        assert {connection.conn_id: pending(connection) for connection in new.connections()} == held


def pending(connection: Connection) -> bytes:
    assert connection._pump_in is not None
    return bytes(connection._pump_in._pending)


def test_each_session_gets_its_own_bytes(targets: Targets, receiving: socket.socket) -> None:
    # D5
    listener = targets.datagrams()
    listener = replace(listener, targets=(*listener.targets, Target(UNIX)))
    with (
        Life(listener, receiving={"dns": receiving}) as old,
        Life(listener, receiving={"dns": receiving}) as new,
    ):
        kept = {}
        for data in (b"one", b"another", b"and a third"):
            session = old.session(old.udp_client(), receiving, data)
            session.kept = data
            kept[session.conn_id] = data
        new.take(*old.packed())
        assert {session.conn_id: session.kept for session in new.sessions()} == kept


@pytest.mark.parametrize("records", [[7, 7], ["x", "x"], [[], []], [None, None], [{}, {}]])
def test_what_is_no_record_is_counted_and_told(records: list[object], new: Life, batch: Batch) -> None:
    batch.values["records"] = records
    new.take(batch)
    ((_, message, _),) = new.log.events
    assert_not_taken_over(new, batch.label, 2, message.partition("over: ")[2])


# back: what is not wanted any more ----------------------------------------------------------------------------------


def test_connections_of_a_listener_that_is_gone_live_on(web: Batch, targets: Targets) -> None:
    # R3: they drain.
    with Life() as new:
        new.take(web)
        assert new.streams.active == 2
        assert new.streams.services == {}
        assert len(list(new.streams.live())) == 1  # one service for both
        new.pass_to(new.loop.now + DRAIN_TIMEOUT_S - 1.0)
        assert new.streams.active == 2
        new.pass_to(new.loop.now + DRAIN_TIMEOUT_S + 1.0)
        assert new.closed() == {Outcome.REMOVED: 2}


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize(
    ("policy", "at_once", "later"), [(OnChange.KEEP, 0, 0), (OnChange.DRAIN, 0, 2), (OnChange.CLOSE, 2, 2)]
)
def test_on_change_decides_about_connections_of_a_listener_that_changed(
    policy: OnChange, at_once: int, later: int, gone: bool, targets: Targets
) -> None:
    # R3: what the listener says now, or said, where it is gone.
    listener = targets.streams()
    before = replace(listener, on_change=policy) if gone else listener
    after = () if gone else (replace(listener, targets=(Target(UNIX),), on_change=policy),)
    with Life(before) as old, Life(*after) as new:
        for _ in range(2):
            old.relaying(targets)
        new.take(*old.packed())
        assert new.closed() == ({Outcome.REMOVED: at_once} if at_once else {})
        new.pass_to(new.loop.now + DRAIN_TIMEOUT_S + 1.0)
        assert new.closed() == ({Outcome.REMOVED: later} if later else {})
        assert new.streams.active == 2 - later


def test_connections_of_a_listener_that_serves_datagrams_now_are_those_of_one_that_is_gone(
    web: Batch, targets: Targets
) -> None:
    # R3: whatever stays as it was, they drain.
    with Life(replace(targets.datagrams("web"), targets=targets.streams().targets)) as new:
        new.take(web)
        assert new.streams.active == 2
        new.pass_to(new.loop.now + DRAIN_TIMEOUT_S + 1.0)
        assert new.closed() == {Outcome.REMOVED: 2}


def test_sessions_whose_socket_nobody_has_are_counted_and_told(dns: Batch, targets: Targets) -> None:
    # R5
    with Life(targets.datagrams()) as new:
        new.take(dns)
        assert_not_taken_over(new, dns.label, 2, "ValueError: nobody listens at their address any more")


@pytest.mark.parametrize(
    ("policy", "at_once", "later"), [(OnChange.KEEP, 0, 0), (OnChange.DRAIN, 0, 2), (OnChange.CLOSE, 2, 2)]
)
def test_on_change_decides_about_sessions_of_a_listener_that_changed(
    policy: OnChange, at_once: int, later: int, dns: Batch, targets: Targets, receiving: socket.socket
) -> None:
    # R3
    listener = replace(targets.datagrams(), targets=(Target(UNIX),), on_change=policy)
    with Life(listener, receiving={"dns": receiving}) as new:
        new.take(dns)
        assert new.closed("dns", datagram=True) == ({Outcome.REMOVED: at_once} if at_once else {})
        new.pass_to(new.loop.now + DRAIN_TIMEOUT_S + 1.0)
        assert new.closed("dns", datagram=True) == ({Outcome.REMOVED: later} if later else {})
        assert new.datagrams.active == 2 - later


def test_sessions_go_with_their_socket_to_the_listener_that_has_it_now(
    dns: Batch, targets: Targets, receiving: socket.socket
) -> None:
    listener = targets.datagrams("renamed")
    with Life(listener, receiving={"renamed": receiving}) as new:
        new.take(dns)
        assert [session.service.spec.name for session in new.sessions()] == ["renamed"] * 2


def test_a_timeout_that_is_shorter_now_ends_what_is_over_by_it(targets: Targets) -> None:
    # R3, S7
    listener = targets.streams()
    shorter = with_timeouts(listener, StreamTimeouts(10.0, 20.0, 20.0, None))
    with Life(listener) as old, Life(shorter) as new:
        for _ in range(3):
            old.relaying(targets)
        silent, half_closed, busy = old.connections()
        now = old.loop.now
        silent.active_at = now - 21.0
        half_closed.active_at, half_closed._first_fin = now - 21.0, None
        busy.active_at = now - 1.0
        new.take(*old.packed())
        new.pass_to(new.loop.now + 0.3)
        assert new.closed() == {Outcome.IDLE_TIMEOUT: 2}
        new.pass_to(now + 18.0)
        assert new.streams.active == 1
        new.pass_to(now + 20.0)
        assert new.streams.active == 0


def test_a_session_timeout_that_is_shorter_now_ends_what_is_over_by_it(
    old: Life, targets: Targets, receiving: socket.socket
) -> None:
    # R3, D3
    begin_sessions(old, receiving, targets, 2)
    old.sessions()[0].noted_until -= 30.0
    listener = targets.datagrams()
    assert listener.datagram is not None
    shorter = replace(listener, datagram=replace(listener.datagram, session_timeout_s=20.0))
    with Life(shorter, receiving={"dns": receiving}) as new:
        new.take(*old.packed())
        assert new.closed("dns", datagram=True) == {Outcome.SESSION_TIMEOUT: 1}
        assert new.datagrams.active == 1


def test_what_has_not_changed_is_not_looked_at(web: Batch, new: Life) -> None:
    new.take(web)
    assert all(connection._timer_at > new.loop.now + 5.0 for connection in new.connections())
    new.pass_to(new.loop.now + DRAIN_TIMEOUT_S + 1.0)
    assert new.streams.active == 2


def test_batches_of_several_listeners_each_to_its_own(targets: Targets) -> None:
    one, other = targets.streams("one"), targets.streams("other")
    with Life(one, other) as old, Life(other, one) as new:
        for name in ("one", "other", "one"):
            old.relaying(targets, name)
        new.take(*old.packed())
        assert {name: len(service.connections) for name, service in new.streams.services.items()} == {
            "one": 2,
            "other": 1,
        }


def test_a_group_that_has_turns_goes_on_with_what_a_dial_needs(targets: Targets) -> None:
    """A client that nobody had dialled for goes to a target of now, not to one of then."""
    listener = targets.streams()
    with Life(replace(listener, targets=())) as old, Life(listener) as new:
        client, _ = old.connect()
        client.send(b"early")
        new.take(*old.packed())
        (connection,) = new.connections()
        new.turn_until(lambda: connection.phase is Phase.RELAYING)
        far = targets.accept()
        new.turn_until(lambda: connection._pump_in is not None and connection._pump_in.moved)
        assert far.recv(99) == b"early"
