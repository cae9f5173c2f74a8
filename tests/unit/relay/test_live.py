"""What a worker tells of what lives, and how it is ended."""

import contextlib
import errno
import gc
import json
import socket
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from relayd.channel.live import unpack_rows
from relayd.channel.messages import Kill, Killed, Look, Message, Seen, Selection, Sort
from relayd.log.events import Event
from relayd.outcomes import Outcome
from relayd.relay import live as live_module
from relayd.relay.datagram.view import SessionView
from relayd.relay.live import RATE_LEAST_S, Lives
from relayd.relay.stream.connection import Connection
from relayd.relay.stream.view import ConnectionView
from tests.integration.loop_thread import DEADLINE_S
from tests.unit.relay.lives import Life, Targets

ALL = Selection()


class Bench:
    """A worker's connections and sessions, and whoever asks about them."""

    def __init__(self) -> None:
        self.targets = Targets()
        self.receiving = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiving.bind(("127.0.0.1", 0))
        listeners = self.targets.streams(), self.targets.streams("api"), self.targets.datagrams()
        self.life = Life(*listeners, receiving={"dns": self.receiving})
        self.sent: list[Message] = []
        self.lives = Lives(self.life.loop, self.life.log, self.sent.append)
        self.lives.views += [ConnectionView(self.life.streams, 7), SessionView(self.life.datagrams, 7)]

    def look(
        self, selection: Selection = ALL, sort: Sort = Sort.AGE, limit: int = 100, *, tcp_info: bool = False
    ) -> list[SimpleNamespace]:
        self.lives.look(Look(1, selection, sort, limit, tcp_info))
        return self.rows()

    def rows(self) -> list[SimpleNamespace]:
        """Of the answer that comes now."""
        self.life.turn_until(lambda: any(isinstance(each, Seen) and each.last for each in self.sent), "the last rows")
        seen = [each for each in self.sent if isinstance(each, Seen)]
        self.sent.clear()
        assert [each.last for each in seen] == [False] * (len(seen) - 1) + [True]
        self.matched = seen[-1].matched
        lines = [line for each in seen for _, line in unpack_rows(each.rows, each.count)]
        found = [json.loads(line) for line in lines]
        return [SimpleNamespace(**row, flow_in=row["in"], flow_out=row["out"]) for row in found]

    def kill(self, selection: Selection) -> int:
        self.lives.kill(Kill(2, selection))
        self.life.turn_until(lambda: self.sent, "how many were killed")
        [killed] = self.sent
        self.sent.clear()
        assert isinstance(killed, Killed)
        return killed.count

    def idle(self, count: int, listener: str = "web") -> list[Connection]:
        """Connections that have not dialled."""
        return [self.life.connect(listener)[1] for _ in range(count)]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.targets, bench.receiving, bench.life:
        yield bench


def exchange(bench: Bench, listener: str = "web") -> tuple[Connection, socket.socket, socket.socket]:
    """One that has moved 5 bytes in and 7 out."""
    client, far, connection = bench.life.relaying(bench.targets, listener)
    client.sendall(b"hello")
    far.sendall(b"welcome")
    bench.life.turn_until(lambda: connection.moved == (5, 7), "the bytes")
    return connection, client, far


def test_a_connection_as_it_is(bench: Bench) -> None:
    connection, client, far = exchange(bench)
    [row] = bench.look()
    host, port = client.getsockname()
    assert (row.id, row.worker) == (connection.conn_id, 7)
    assert (row.listener, row.pool, row.type) == ("web", "web", "tcp")
    assert (row.client, row.client_port, row.local) == (host, port, "127.0.0.1:8080")
    assert row.target == f"127.0.0.1:{far.getsockname()[1]}"
    assert (row.state, row.flow_in, row.flow_out, row.attempts) == ("relaying", "open", "open", 1)
    assert (row.bytes_in, row.bytes_out) == (5, 7)
    assert (row.rate_in, row.rate_out) == (0, 0), "nothing has moved between the two looks"
    assert 0 <= row.idle_s <= row.age_s < DEADLINE_S
    assert (row.rtt_ms, row.retrans, row.datagrams_in) == (None, None, None)


def test_the_kernel_is_asked_where_that_is_wanted(bench: Bench) -> None:
    exchange(bench)
    [row] = bench.look(tcp_info=True)
    assert row.rtt_ms is not None
    assert row.target_rtt_ms is not None
    assert (row.retrans, row.target_retrans) == (0, 0)


def test_directions_that_have_ended_and_that_are_full(bench: Bench) -> None:
    _, client, far = exchange(bench)
    client.shutdown(socket.SHUT_WR)
    far.setblocking(False)
    bench.life.turn_until(lambda: bench.look()[0].flow_in == "ended", "the end from the client")
    while bench.look()[0].flow_out != "full":
        with contextlib.suppress(BlockingIOError):
            far.send(bytes(65536))
    assert bench.look()[0].flow_in == "ended"


def test_one_that_dials_has_no_directions_yet(bench: Bench) -> None:
    bench.targets.fill_backlog()
    _, connection = bench.life.connect()
    bench.life.turn_until(lambda: connection.choice, "the dial")
    [row] = bench.look()
    assert (row.state, row.flow_in, row.flow_out, row.bytes_in) == ("dialing", None, None, 0)
    assert row.target


def test_a_session_as_it_is(bench: Bench) -> None:
    client = bench.life.udp_client()
    session = bench.life.session(client, bench.receiving)
    [row] = bench.look()
    assert (row.id, row.listener, row.type) == (session.conn_id, "dns", "udp")
    assert (row.client, row.client_port) == client.getsockname()
    assert (row.datagrams_in, row.datagrams_out, row.bytes_in) == (1, 0, len(b"question"))
    assert (row.state, row.flow_in, row.flow_out) == ("relaying", None, None)
    assert 0 <= row.idle_s <= row.age_s


def test_a_rate_is_what_has_moved_since_the_look_before(bench: Bench) -> None:
    connection, client, _ = exchange(bench)
    bench.lives.look(Look(1, ALL, Sort.RATE, 10, tcp_info=False))
    bench.life.turn_until(lambda: bench.lives.seen, "the first look")
    client.sendall(bytes(1000))
    bench.life.turn_until(lambda: connection.moved[0] == 1005, "the bytes")
    [row] = bench.rows()
    assert row.rate_in is not None
    assert row.rate_out == 0
    assert 0 < row.rate_in <= 1000 / RATE_LEAST_S


def test_who_looks_again_soon_does_not_wait(bench: Bench) -> None:
    exchange(bench)
    bench.look()
    at = bench.lives.seen_at
    turns = bench.life.loop.turns
    bench.look()
    assert bench.lives.seen_at == at
    assert bench.life.loop.turns - turns < 5


def test_several_look_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one has seen is never of another time than it says, whatever the others are at."""
    monkeypatch.setattr(live_module, "SLICE_S", 0.0)
    connections = [exchange(bench)[0] for _ in range(5)]
    for _ in range(3):
        bench.life.loop.now += live_module._RENEW_S  # the look before has become old
        bench.lives.seen_at -= live_module._RENEW_S
        for number in range(4):
            selection = ALL if number % 2 else Selection(listener="web")
            bench.lives.look(Look(number, selection, Sort.AGE, 100, tcp_info=False))
        bench.life.turn_until(lambda: sum(isinstance(each, Seen) and each.last for each in bench.sent) == 4, "answers")
        rows = [
            json.loads(line)
            for each in bench.sent
            if isinstance(each, Seen)
            for _, line in unpack_rows(each.rows, each.count)
        ]
        bench.sent.clear()
        assert len(rows) == 4 * len(connections)
        assert {row["rate_in"] for row in rows} <= {0.0, None}


def test_whoever_takes_too_long_is_not_answered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "LOOK_MOST_S", 0.0)
    exchange(bench)
    bench.lives.look(Look(1, ALL, Sort.AGE, 100, tcp_info=False))
    [step] = bench.life.loop._aside
    looking = weakref.ref(step.__self__)  # type: ignore[attr-defined]  # a bound method
    del step
    gc.disable()  # it keeps what has ended meanwhile: nobody is to wait for a collection
    try:
        bench.life.turn_until(lambda: looking() is None, "the end of who looks")
    finally:
        gc.enable()
    assert not bench.sent
    monkeypatch.undo()
    assert len(bench.look()) == 1


def heads_made(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """From now on, those whose heads are made."""
    made: list[Connection] = []
    head = ConnectionView.head

    def noted(view: ConnectionView, live: Connection) -> str:
        made.append(live)
        return head(view, live)

    monkeypatch.setattr(ConnectionView, "head", noted)
    return made


def test_the_head_of_a_line_is_made_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = heads_made(monkeypatch)
    connection, *_ = exchange(bench)
    bench.look()
    assert made == [connection]
    for limit in (100, 100, 1):
        bench.life.loop.now += live_module._RENEW_S  # what was seen before has become old
        bench.lives.seen_at -= live_module._RENEW_S
        assert [row.id for row in bench.look(limit=limit)] == [connection.conn_id]
    assert made == [connection]


@pytest.mark.parametrize("limit", [100, 1])
def test_the_head_of_a_line_is_made_again_after_a_reload(bench: Bench, limit: int) -> None:
    connection, *_ = exchange(bench)
    other, *_ = exchange(bench)
    assert [row.pool for row in bench.look()] == ["web", "web"]
    service = connection._service
    bench.life.loop.reloads += 1
    service.change(replace(service.spec, pool="app"), service.stream)
    rows = bench.look(limit=limit)
    assert {row.pool for row in rows} == {"app"}
    assert {row.id for row in rows} <= {connection.conn_id, other.conn_id}


def test_no_head_of_before_a_reload_is_taken_for_a_new_one(bench: Bench) -> None:
    """Not even those of who does not fit into an answer."""
    connections = [exchange(bench)[0] for _ in range(3)]
    bench.look()
    service = connections[0]._service
    bench.life.loop.reloads += 1
    service.change(replace(service.spec, pool="app"), service.stream)
    for limit in (1, 2, 100):
        bench.life.loop.now += live_module._RENEW_S
        bench.lives.seen_at -= live_module._RENEW_S
        assert [row.pool for row in bench.look(limit=limit)] == ["app"] * min(limit, 3)


def test_who_looks_for_some_finds_their_heads_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = heads_made(monkeypatch)
    connection, *_ = exchange(bench)
    exchange(bench, "api")

    def sweep_after(at: float) -> None:
        bench.life.turn_until(lambda: bench.lives.seen_at > at, "the sweep behind it")

    for _ in range(3):
        assert [row.id for row in bench.look(Selection(listener="web"))] == [connection.conn_id]
        at = bench.lives.seen_at = bench.lives.seen_at - live_module._RENEW_S
        bench.lives.sweeping_since = at
        bench.look(Selection(listener="web"))
        sweep_after(at)
    assert made == [connection]


def test_a_row_is_of_one_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has moved between the gathering and the telling is in all of it."""
    client = bench.life.udp_client()
    session = bench.life.session(client, bench.receiving)
    bench.look()
    monkeypatch.setattr(live_module, "SLICE_S", 0.0)
    monkeypatch.setattr(live_module, "_STEP", 1)
    exchange(bench)
    tell = live_module._Looking._tell

    def later(looking: Any) -> Any:
        client.sendto(b"more", bench.receiving.getsockname())
        bench.life.turn_until(lambda: session.datagrams_in == 2, "another datagram")
        yield from tell(looking)

    monkeypatch.setattr(live_module._Looking, "_tell", later)
    [row] = bench.look(Selection(listener="dns"), limit=1)
    assert (row.datagrams_in, row.bytes_in) == (2, len(b"questionmore"))


def test_a_reload_while_somebody_looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what such a look has seen nothing is taken for new."""
    monkeypatch.setattr(live_module, "SLICE_S", 0.0)
    monkeypatch.setattr(live_module, "_STEP", 1)
    connections = [exchange(bench)[0] for _ in range(3)]
    bench.look()
    bench.lives.seen_at -= live_module._RENEW_S
    told: list[Connection] = []
    head = ConnectionView.line

    def first(view: ConnectionView, live: Connection, *others: Any, **named: Any) -> str:
        told.append(live)
        if len(told) == 2:
            bench.life.loop.reloads += 1
            live._service.change(replace(live._service.spec, pool="app"), live._service.stream)
        return head(view, live, *others, **named)

    monkeypatch.setattr(ConnectionView, "line", first)
    assert sorted(row.pool for row in bench.look()) == ["app", "web", "web"]
    assert [row.pool for row in bench.look()] == ["app"] * len(connections)


def test_what_was_seen_long_ago_is_forgotten(bench: Bench) -> None:
    exchange(bench)
    bench.look()
    bench.life.loop.now += live_module.RATE_MOST_S + 1
    bench.lives.forget()
    assert bench.lives.seen == {}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(listener="api"), {"api"}),
        (Selection(listener="nosuch"), set()),
        (Selection(client="127.0.0.1"), {"web", "api", "dns"}),
        (Selection(client="127.0.0.0/8"), {"web", "api", "dns"}),
        (Selection(client="10.0.0.0/8"), set()),
        (Selection(client="::/0"), set()),
        (Selection(client="127.0.0.2"), set()),
        (Selection(client="unix:/a/b"), set()),
        (Selection(target="192.0.2.1:1"), set()),
    ],
)
def test_a_selection(bench: Bench, selection: Selection, expected: set[str]) -> None:
    for listener in ("web", "api"):
        exchange(bench, listener)
    bench.life.session(bench.life.udp_client(), bench.receiving)
    assert {row.listener for row in bench.look(selection)} == expected
    assert bench.matched == len(expected)


def test_a_selection_by_id_target_and_port(bench: Bench) -> None:
    connection, client, _ = exchange(bench)
    other, _, _ = exchange(bench)
    label = bench.look()[0].target
    assert [row.id for row in bench.look(Selection(conn_id=other.conn_id))] == [other.conn_id]
    port = client.getsockname()[1]
    assert [row.id for row in bench.look(Selection(client="127.0.0.1", client_port=port))] == [connection.conn_id]
    assert len(bench.look(Selection(target=label))) == 2


def test_the_first_ones_by_what_is_asked_for(bench: Bench) -> None:
    old, young = (exchange(bench)[0] for _ in range(2))
    young._started_at += 1
    old.active_at, young.active_at = 1.0, 2.0
    first = {sort: bench.look(sort=sort, limit=1)[0].id for sort in (Sort.AGE, Sort.NEW, Sort.IDLE)}
    assert first == {Sort.AGE: old.conn_id, Sort.NEW: young.conn_id, Sort.IDLE: old.conn_id}
    assert bench.matched == 2


def test_the_one_that_has_moved_most(bench: Bench) -> None:
    exchange(bench)
    connection, client, _ = exchange(bench)
    client.sendall(b"more")
    bench.life.turn_until(lambda: connection.moved[0] == 9, "the bytes")
    assert [row.id for row in bench.look(sort=Sort.BYTES, limit=1)] == [connection.conn_id]


def test_many_come_in_several_messages_and_no_turn_takes_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "SLICE_S", 0.0)  # each step is a turn
    monkeypatch.setattr(live_module, "_STEP", 1)
    monkeypatch.setattr(live_module, "_ROWS_MAX", 4)
    bench.idle(9)
    turns = bench.life.loop.turns
    bench.lives.look(Look(1, ALL, Sort.AGE, 100, tcp_info=False))
    bench.life.turn_until(lambda: bench.sent, "the first rows")
    rows = bench.rows()
    assert len({row.id for row in rows}) == len(rows) == 9
    assert bench.life.loop.turns - turns > 9


def test_what_ends_while_somebody_looks_is_not_told(bench: Bench) -> None:
    connections = bench.idle(3)
    bench.lives.look(Look(1, ALL, Sort.AGE, 100, tcp_info=False))
    connections[0].end(Outcome.NORMAL)
    assert len(bench.rows()) == 2


def test_a_kill_ends_what_is_meant_and_nothing_else(bench: Bench) -> None:
    connection, client, far = exchange(bench)
    session = bench.life.session(bench.life.udp_client(), bench.receiving)
    others = bench.idle(2, "api")
    assert bench.kill(Selection(listener="web")) == 1
    assert bench.kill(Selection(conn_id=session.conn_id)) == 1
    assert bench.life.closed() == bench.life.closed("dns", datagram=True) == {Outcome.KILLED: 1}
    assert bench.life.closed("api") == {}
    bench.life.loop.turn()
    for sock in (client, far):
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
    assert bench.kill(Selection(client="127.0.0.0/8")) == len(others)
    assert bench.kill(ALL) == 0
    assert connection.conn_id not in [row.id for row in bench.look()]


def test_a_kill_of_many_takes_many_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "SLICE_S", 0.0)
    monkeypatch.setattr(live_module, "_STEP", 1)
    bench.idle(20)
    turns = bench.life.loop.turns
    assert bench.kill(ALL) == 20
    assert bench.life.loop.turns - turns > 20


def test_a_bug_is_told_and_ends_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, _, _ = exchange(bench)
    with monkeypatch.context() as patched:
        patched.setattr(ConnectionView, "line", lambda *_, **__: 1 / 0)
        bench.lives.look(Look(1, ALL, Sort.AGE, 100, tcp_info=False))
        bench.life.turn_until(lambda: bench.life.log.events, "the line")
    assert [event for event, *_ in bench.life.log.events] == [Event.INTERNAL_ERROR]
    bench.life.log.events.clear()
    assert not bench.sent
    assert [row.id for row in bench.look()] == [connection.conn_id]
