"""What is written down of a session, and what is made of it (R4, R5)."""

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relayd.address import from_sockaddr
from relayd.channel.parcel import BROKEN_RECORD
from relayd.choosing.group import Choice
from relayd.net.datagrams import join_segments
from relayd.outcomes import Outcome
from relayd.relay.batch import Choices
from relayd.relay.datagram.handover import SessionRecord, freeze
from relayd.relay.datagram.session import Phase, Session
from relayd.spec import Listener, Target
from tests.integration.loop_thread import DEADLINE_S
from tests.unit.relay.lives import Batch, Life, Targets, close

AF_UNIX, AF_INET, AF_INET6 = int(socket.AF_UNIX), int(socket.AF_INET), int(socket.AF_INET6)


class Bench:
    """A receiving socket of one family, a target of another, and two lives that have both."""

    def __init__(
        self, directory: Path, clients: int = AF_INET, target: int = AF_INET, *, wildcard: bool = False
    ) -> None:
        self.clients = clients
        self.receiving = bound(clients, directory / "receiving", "0.0.0.0" if wildcard else "127.0.0.1")
        self.target = bound(target, directory / "target", "127.0.0.1")
        with Targets() as targets:
            listener = targets.datagrams()
        # Twice: so that there is somewhere to move to, and what is not answered is kept.
        self.other = bound(target, directory / "other")
        to = tuple(Target(from_sockaddr(sock.family, sock.getsockname())) for sock in (self.target, self.other))
        self.listener: Listener = replace(listener, targets=to)
        self.old = Life(self.listener, receiving={"dns": self.receiving})
        self.new = Life(self.listener, receiving={"dns": self.receiving})
        self.client: socket.socket | None = None

    def __enter__(self) -> "Bench":
        self.old.__enter__()
        self.new.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self.old.__exit__(*raised)
        finally:
            self.new.__exit__(*raised)
            for sock in (self.receiving, self.target, self.other):
                sock.close()

    def begin(self, data: bytes = b"question") -> Session:
        """A session, of a client that is kept."""
        self.client = client = self.old.udp_client(self.clients)
        client.sendto(data, self.address)
        self.old.turn_until(self.old.sessions)
        (session,) = self.old.sessions()
        return session

    @property
    def address(self) -> Any:
        """Where clients send to."""
        if self.clients == AF_UNIX:
            return self.receiving.getsockname()
        return "::1" if self.clients == AF_INET6 else "127.0.0.1", self.receiving.getsockname()[1]


def bound(af: int, path: Path, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(af, socket.SOCK_DGRAM)
    sock.bind(str(path) if af == AF_UNIX else ("::1" if af == AF_INET6 else host, 0))
    sock.settimeout(DEADLINE_S)
    return sock


# states -------------------------------------------------------------------------------------------------------------


def unanswered(bench: Bench) -> Session:
    session = bench.begin()
    assert session.kept == b"question"
    return session


def answered(bench: Bench) -> Session:
    session = bench.begin()
    bench.target.sendto(b"answer", bench.target.recvfrom(99)[1])
    bench.old.turn_until(lambda: session.datagrams_out)
    return session


def empty_datagram(bench: Bench) -> Session:
    return bench.begin(b"")


def moved(bench: Bench) -> Session:
    """Its first target was refused, and took a datagram with it."""
    session = bench.begin()
    session.kept = None
    session.failed(errno.ECONNREFUSED)
    assert (session.attempts, session.dropped) == (2, 1)
    return session


def joined(bench: Bench) -> Session:
    """Answers have come in bursts."""
    session = bench.begin()
    session._joined = join_segments(session._sock)
    assert session._joined
    return session


def target_full(bench: Bench) -> Session:
    """It does not read, and datagrams wait."""
    session = bench.begin()
    assert bench.client is not None
    bench.client.setblocking(False)
    number = 0
    while not session._waiting or len(session._waiting) < 3:
        with contextlib.suppress(BlockingIOError):
            bench.client.sendto(b"%d" % number, bench.address)
            number += 1
        bench.old.loop.turn()
    return session


def client_full(bench: Bench) -> Session:
    """It does not read, and an answer waits."""
    session = bench.begin()
    sender = bench.target.recvfrom(99)[1]
    bench.target.setblocking(False)
    number = 0
    while session.phase is not Phase.HELD_UP:
        with contextlib.suppress(BlockingIOError):
            bench.target.sendto(b"%d" % number, sender)
            number += 1
        bench.old.loop.turn()
    assert session._late is not None
    assert session._late.all()
    return session


State = Callable[[Bench], Session]
#: With the families of clients and targets.
STATES: list[tuple[State, int, int]] = [
    (unanswered, AF_INET, AF_INET),
    (unanswered, AF_INET6, AF_INET),
    (unanswered, AF_INET, AF_UNIX),
    (answered, AF_INET, AF_INET),
    (answered, AF_UNIX, AF_INET),
    (empty_datagram, AF_INET, AF_INET),
    (moved, AF_INET, AF_INET),
    (joined, AF_INET, AF_INET),
    (target_full, AF_INET, AF_UNIX),
    (client_full, AF_UNIX, AF_INET),
]


@pytest.fixture
def in_state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench with one session in the state that the test says."""
    state, clients, target = request.param
    with Bench(tmp_path, clients, target) as bench:
        state(bench)
        yield bench


def frozen(session: Session) -> tuple[SessionRecord, list[Choice], bytes]:
    choices = Choices()
    record, _, tail = freeze(session, choices)
    return record, choices.every, tail


@pytest.mark.parametrize("in_state", STATES, indirect=True)
def test_a_record_is_the_same_after_json(in_state: Bench) -> None:
    (session,) = in_state.old.sessions()
    record, choices, tail = frozen(session)
    again = SessionRecord.of_json(json.loads(json.dumps(record)))
    assert again == record
    assert type(again) is type(record)
    assert again.tail == len(tail)
    assert again.kept == (len(session.kept) if session.kept is not None else None)
    assert choices == [session.choice]


@pytest.mark.parametrize("in_state", STATES, indirect=True)
def test_the_next_life_goes_on_where_this_one_was(in_state: Bench) -> None:
    # R4: what it writes down in its turn says the same, but for the number of restarts.
    old, new = in_state.old, in_state.new
    (session,) = old.sessions()
    record, choices, tail = frozen(session)
    attempts, phase = session.attempts, session.phase
    new.take(*old.packed())
    assert (old.datagrams.active, new.datagrams.active) == (0, 1)
    (session,) = new.sessions()
    assert frozen(session) == (record._replace(restarts=1), choices, tail)
    assert (session.attempts, session.phase) == (attempts, phase)
    assert new.datagrams.services["dns"].counters.accepted == 0


# what goes on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "wildcard"), [(AF_INET, False), (AF_INET, True), (AF_INET6, False), (AF_UNIX, False)]
)
def test_datagrams_go_both_ways_by_the_same_sockets(clients: int, wildcard: bool, tmp_path: Path) -> None:
    # R4, D1, D2
    with Bench(tmp_path, clients, wildcard=wildcard) as bench:
        bench.begin()
        client, new = bench.client, bench.new
        assert client is not None
        client.connect(bench.address)  # takes answers from there only
        _, session = bench.target.recvfrom(99)
        new.take(*bench.old.packed())
        bench.target.sendto(b"answer", session)
        new.turn_until(lambda: new.sessions()[0].datagrams_out)
        assert client.recv(99) == b"answer"
        client.send(b"another question")
        new.turn_until(lambda: new.sessions()[0].datagrams_in == 2)
        assert bench.target.recvfrom(99) == (b"another question", session)


def test_what_waits_for_the_target_goes_first(tmp_path: Path) -> None:
    # D4
    with Bench(tmp_path, AF_INET, AF_UNIX) as bench:
        waiting = target_full(bench)._waiting
        assert waiting is not None
        expected = waiting.all()
        new = bench.new
        new.take(*bench.old.packed())
        (session,) = new.sessions()
        got = []

        def all_there() -> bool:
            bench.target.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(bench.target.recv(99))
            return not session._waiting

        all_there()  # now it has room
        session.send(b"the last one")
        new.turn_until(all_there)
        all_there()
        assert got[-len(expected) - 1 :] == [*expected, b"the last one"]
        assert session.dropped == 0


def test_what_waits_for_the_client_goes_first_and_then_the_target_is_read_again(tmp_path: Path) -> None:
    # D4
    with Bench(tmp_path, AF_UNIX, AF_INET) as bench:
        late = client_full(bench)._late
        assert late is not None
        expected = late.all()
        client, new = bench.client, bench.new
        assert client is not None
        client.setblocking(False)
        new.take(*bench.old.packed())
        (session,) = new.sessions()
        got: list[bytes] = []

        def all_there() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(client.recv(99))
            return session.phase is Phase.RELAYING and got[-1] == b"the last one"

        sender = session._sock.getsockname()
        bench.target.sendto(b"the last one", sender)
        new.turn_until(all_there)
        at = got.index(expected[0])
        assert got[at : at + len(expected)] == expected
        assert got == [*sorted(got[:-1], key=int), b"the last one"]


def test_what_nobody_has_answered_moves_with_its_session(tmp_path: Path) -> None:
    # D5
    with Bench(tmp_path) as bench:
        unanswered(bench)
        bench.new.take(*bench.old.packed())
        (session,) = bench.new.sessions()
        session.failed(errno.ECONNREFUSED)
        assert bench.other.recv(99) == b"question"


def test_many_restarts_are_counted_and_reloads_before_them(tmp_path: Path) -> None:
    # O1
    with Bench(tmp_path) as bench:
        old, new = bench.old, bench.new
        conn_id = answered(bench).conn_id
        old.loop.reloads += 2
        with contextlib.ExitStack() as stack:
            last = old
            for _ in range(3):
                between = stack.enter_context(Life(bench.listener, receiving={"dns": bench.receiving}))
                between.take(*last.packed())
                last = between
            new.loop.reloads = 70
            new.take(*last.packed())
        new.loop.reloads += 1
        new.datagrams.end_all(Outcome.SHUTDOWN)
        (record,) = new.log.records
        assert (record.conn_id, record.bytes_in, record.bytes_out, record.attempts) == (conn_id, 8, 6, 1)
        assert (record.restarts_survived, record.reloads_survived) == (4, 3)
        assert record.first_byte_ms is not None


def test_one_that_has_left_does_nothing_any_more(tmp_path: Path) -> None:
    with Bench(tmp_path, AF_UNIX, AF_INET) as bench:
        session = client_full(bench)
        late = session._late
        session.leave()
        assert late is not None
        assert late not in late._timer
        assert session.phase is Phase.CLOSED
        assert (bench.old.datagrams.active, bench.old.log.records) == (0, [])


# records that no version has written --------------------------------------------------------------------------------


def changed(batch: Batch, **fields: Any) -> Batch:
    """With other values in its first record."""
    (value, *more) = batch.values["records"]
    record = SessionRecord.of_json(value)._replace(**fields)
    return replace(batch, values=batch.values | {"records": [record, *more]})


@pytest.mark.parametrize(
    "fields",
    [
        {"choice": 1},
        {"choice": "0"},
        {"key": "no key"},
        {"key": 7},
        {"waiting": ["x"]},
        {"waiting": 3},
        {"kept": "x"},
        {"late": [None]},
        {"datagrams_out": None},
        {"restarts": "x"},
        {"reloads": None},
    ],
)
@pytest.mark.parametrize("in_state", [STATES[0], STATES[-1]], indirect=True)
def test_what_is_not_understood_ends_by_its_name_and_leaves_nothing(fields: dict[str, Any], in_state: Bench) -> None:
    # R5
    (batch,) = in_state.old.packed()
    new = in_state.new
    new.take(changed(batch, **fields))
    assert new.sessions() == []
    assert new.closed("dns", datagram=True) == {Outcome.NOT_TAKEN_OVER: 1}
    assert len(new.log.records) + len(new.told()) == 1
    assert {record.outcome for record in new.log.records} <= {Outcome.NOT_TAKEN_OVER}


def test_a_descriptor_that_is_no_socket_is_closed(tmp_path: Path) -> None:
    # R5
    with Bench(tmp_path) as bench:
        bench.begin()
        (batch,) = bench.old.packed()
        close(batch.fds)
        batch.fds[:] = [os.memfd_create("no socket")]
        bench.new.take(batch)
        assert bench.new.sessions() == []
        assert bench.new.closed("dns", datagram=True) == {Outcome.NOT_TAKEN_OVER: 1}


def test_without_room_to_watch_it_a_session_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # F1: fs.epoll.max_user_watches
    with Bench(tmp_path) as bench:
        bench.begin()

        def failing(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(bench.new.loop.selector, "register", failing)
            bench.new.take(*bench.old.packed())
        assert bench.new.closed("dns", datagram=True) == {Outcome.NOT_TAKEN_OVER: 1}
        (said,) = bench.new.told()
        assert said.endswith("OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize("wrong", [[], [1], [1] * 18, [1] * 20, 7, None])
def test_what_is_no_record(wrong: Any) -> None:
    with pytest.raises(BROKEN_RECORD):
        SessionRecord.of_json(wrong)
