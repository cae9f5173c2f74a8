"""One direction, with sockets that answer what the test wrote down: every errno leads to one call of the owner."""

import errno
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from relayd.net.pipes import PipePool
from relayd.net.poller import ERR, HUP, IN, OUT, RDHUP
from relayd.net.tcp import nothing_unread
from relayd.relay.loop import Loop
from relayd.relay.stream import pump as pump_module
from relayd.relay.stream.pump import BUFFER_BYTES, Flow, Pump

Answer = bytes | int | OSError


def failing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class ScriptedSocket:
    """`recv` and `send` answer from lists. An empty list of `recv` is EAGAIN; one of `send` takes all."""

    def __init__(self) -> None:
        self.receives: list[Answer] = []
        self.sends: list[Answer] = []
        self.sent = b""
        #: Of each send.
        self.flags: list[int] = []

    def recv(self, size: int) -> bytes:
        answer = self.receives.pop(0) if self.receives else failing(errno.EAGAIN)
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, bytes)
        assert len(answer) <= size
        return answer

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        self.flags.append(flags)
        answer = self.sends.pop(0) if self.sends else len(data)
        if isinstance(answer, OSError):
            raise answer
        assert isinstance(answer, int)
        self.sent += bytes(data[:answer])
        return answer

    def fileno(self) -> int:
        return -1


class ListingOwner:
    """Keeps what the pump told it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.active_at = 0.0
        self.told: list[object] = []
        self.pumps: list[Pump] = []
        self.guarded = False

    def opposite(self, pump: Pump) -> Pump:
        return self.pumps[1] if pump is self.pumps[0] else self.pumps[0]

    def guard(self) -> None:
        self.guarded = True

    def finished(self, pump: Pump) -> None:
        self.told.append("finished")

    def source_failed(self, pump: Pump, number: int) -> None:
        self.told.append(("source_failed", number))

    def source_failing(self, pump: Pump) -> None:
        self.told.append("source_failing")

    def source_event_after_end(self, pump: Pump) -> None:
        self.told.append("source_event_after_end")

    def sink_failed(self, pump: Pump, number: int) -> None:
        self.told.append(("sink_failed", number))

    def crashed(self, error: Exception) -> None:
        raise error


class Bench:
    """A pump between two scripted sockets."""

    def __init__(self, loop: Loop, pipes: PipePool | None = None, af: int = socket.AF_INET) -> None:
        self.loop = loop
        self.owner = ListingOwner(loop)
        self.source, self.sink = ScriptedSocket(), ScriptedSocket()
        self.pump = Pump(self.owner, self.source, self.sink, pipes, af)  # type: ignore[arg-type]  # fakes
        self.opposite = Pump(self.owner, self.sink, self.source, None, af)  # type: ignore[arg-type]  # fakes
        self.owner.pumps = [self.pump, self.opposite]

    def sink_writable(self) -> None:
        """The sink's event goes to the pump that reads from it."""
        self.opposite.source_event(OUT)

    def turn(self) -> None:
        """Those who asked to be called again are."""
        self.loop.turn()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(lambda: None)
    yield loop
    loop.close()


@pytest.fixture(autouse=True)
def _scripted_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a scripted socket has not told yet is unread; of real ones the kernel is asked."""

    def unread(sock: object) -> bool:
        if isinstance(sock, ScriptedSocket):
            return not any(isinstance(answer, bytes) and answer for answer in sock.receives)
        assert isinstance(sock, socket.socket)
        return nothing_unread(sock)

    monkeypatch.setattr(pump_module, "nothing_unread", unread)


@pytest.fixture
def bench(loop: Loop) -> Bench:
    return Bench(loop)


def test_a_short_read_is_the_last_one(bench: Bench) -> None:
    bench.source.receives = [b"hello", b"not asked for"]
    bench.pump.source_event(IN)
    assert (bench.sink.sent, bench.pump.moved) == (b"hello", 5)
    assert len(bench.source.receives) == 1
    assert bench.pump.first_byte_at == bench.owner.active_at == bench.loop.now


@pytest.mark.parametrize("end", [RDHUP, HUP, ERR, RDHUP | HUP])
def test_with_an_end_behind_it_a_short_read_is_not_the_last_one(bench: Bench, end: int) -> None:
    bench.source.receives = [b"hello", b" world", b""]
    bench.pump.source_event(IN | end)
    assert bench.sink.sent == b"hello world"
    assert bench.owner.told == ["finished"]
    assert bench.pump.flow is Flow.FINISHED


def test_a_fin_rides_on_the_last_bytes(bench: Bench) -> None:
    # S2: the FIN that follows at once pushes what MSG_MORE holds back (send(2))
    bench.source.receives = [b"hello", b" world", b""]
    bench.pump.source_event(IN | RDHUP)
    assert bench.sink.flags == [0, socket.MSG_MORE]
    assert bench.source.receives == [b""]  # it is known without reading it
    assert bench.owner.told == ["finished"]


def test_without_a_fin_nothing_is_held_back(bench: Bench) -> None:
    # S3: what came before a reset goes out at once; so do bytes behind which nothing is known to come
    bench.source.receives = [b"hello", failing(errno.ECONNRESET)]
    bench.pump.source_event(IN | RDHUP | HUP | ERR)
    assert bench.sink.flags == [0]
    assert bench.owner.told == [("source_failed", errno.ECONNRESET)]


def test_whose_fin_nobody_passes_on_holds_nothing_back(bench: Bench) -> None:
    # S3: of a connection that is about to be reset
    bench.pump.flags_at_end = 0
    bench.source.receives = [b"hello", b""]
    bench.pump.source_event(IN | RDHUP)
    assert (bench.sink.flags, bench.owner.told) == ([0], ["finished"])


def test_last_bytes_that_do_not_fit_are_followed_by_the_fin(bench: Bench) -> None:
    # S2
    bench.source.receives = [b"hello", b""]
    bench.sink.sends = [2]
    bench.pump.source_event(IN | RDHUP)
    assert (bench.owner.told, bench.pump.flow) == ([], Flow.BLOCKED)
    bench.sink_writable()
    assert (bench.sink.sent, bench.sink.flags) == (b"hello", [socket.MSG_MORE, 0])
    assert bench.owner.told == ["finished"]


def test_from_a_unix_socket_a_short_read_is_not_the_last_one(loop: Loop) -> None:
    bench = Bench(loop, af=socket.AF_UNIX)
    bench.source.receives = [b"with a descriptor", b"behind"]
    bench.pump.source_event(IN)
    assert bench.sink.sent == b"with a descriptorbehind"


def test_a_short_write_blocks_and_the_rest_goes_first(bench: Bench) -> None:
    # S4
    bench.source.receives = [b"hello", b" world"]
    bench.sink.sends = [2, 1]
    bench.pump.source_event(IN)
    assert (bench.pump.flow, bench.pump.holding, bench.pump.moved) == (Flow.BLOCKED, True, 2)
    bench.pump.source_event(IN)
    assert len(bench.source.receives) == 1  # blocked: nothing is read that cannot be held
    bench.sink_writable()
    assert (bench.pump.flow, bench.sink.sent) == (Flow.BLOCKED, b"hel")
    bench.sink_writable()
    assert (bench.pump.flow, bench.sink.sent, bench.pump.holding) == (Flow.FLOWING, b"hello world", False)


def test_a_fin_waits_for_what_is_held(bench: Bench) -> None:
    # S2
    bench.source.receives = [b"hello", b""]
    bench.sink.sends = [0, failing(errno.EAGAIN)]
    bench.pump.source_event(IN | RDHUP)
    bench.sink_writable()
    assert bench.owner.told == []
    bench.sink_writable()
    assert (bench.sink.sent, bench.owner.told) == (b"hello", ["finished"])


def test_a_reset_behind_held_bytes_is_told_and_they_still_go(bench: Bench) -> None:
    # S3
    bench.source.receives = [b"hello", failing(errno.ECONNRESET)]
    bench.sink.sends = [1]
    bench.pump.source_event(IN)
    bench.pump.source_event(IN | ERR | HUP | RDHUP)
    assert bench.owner.told == ["source_failing"]
    bench.sink_writable()
    assert bench.sink.sent == b"hello"
    assert bench.owner.told == ["source_failing", ("source_failed", errno.ECONNRESET)]


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EIO])
def test_an_error_of_the_source_is_told(bench: Bench, number: int) -> None:
    bench.source.receives = [failing(number)]
    bench.pump.source_event(IN | ERR)
    assert bench.owner.told == [("source_failed", number)]


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT])
@pytest.mark.parametrize("later", [False, True])
def test_an_error_of_the_sink_is_told(bench: Bench, number: int, later: bool) -> None:
    bench.source.receives = [b"hello"]
    bench.sink.sends = [failing(errno.EAGAIN), failing(number)] if later else [failing(number)]
    bench.pump.source_event(IN)
    bench.sink_writable()
    assert bench.owner.told == [("sink_failed", number)]


@pytest.mark.parametrize("where", ["source", "sink", "pending"])
@pytest.mark.parametrize("number", [errno.EINTR, errno.ENOBUFS, errno.ENOMEM])
def test_what_passes_is_tried_again_and_nothing_is_lost(bench: Bench, where: str, number: int) -> None:
    # F1: EINTR in the next turn; out of memory after a while, because asking at once would spin
    error = failing(number)
    bench.source.receives = [error, b"hello"] if where == "source" else [b"hello"]
    sends: dict[str, list[Answer]] = {"source": [], "sink": [error], "pending": [1, error]}
    bench.sink.sends = sends[where]
    bench.pump.source_event(IN)
    if where == "pending":
        bench.sink_writable()
    began, turns = bench.loop.now, 0
    while bench.sink.sent != b"hello":
        bench.turn()
        turns += 1
    if number == errno.EINTR:
        assert turns == 1
    else:
        assert bench.loop.now - began >= 0.05
        assert turns <= 2
    assert (bench.owner.told, bench.pump.holding, bench.pump.moved) == ([], False, 5)


def test_a_step_ends_at_its_budget(bench: Bench) -> None:
    # S5
    bench.source.receives = [bytes(BUFFER_BYTES)] * 10
    bench.pump.source_event(IN)
    assert 0 < len(bench.source.receives) < 10
    turns = 0
    while bench.source.receives:
        bench.turn()
        turns += 1
    assert 1 <= turns <= 10
    assert bench.pump.moved == 10 * BUFFER_BYTES


def test_after_the_end_another_end_is_told(bench: Bench) -> None:
    bench.source.receives = [b""]
    bench.pump.source_event(IN | RDHUP)
    bench.pump.source_event(IN | OUT)
    bench.pump.source_event(IN | ERR | HUP)
    assert bench.owner.told == ["finished", "source_event_after_end"]


def test_released_it_does_nothing(bench: Bench) -> None:
    bench.source.receives = [b"hello"]
    bench.sink.sends = [1]
    bench.pump.source_event(IN)
    bench.pump.release()
    assert (bench.pump.flow, bench.pump.holding) == (Flow.RELEASED, False)
    for mask in (IN, OUT, IN | ERR | HUP | RDHUP):
        bench.pump.source_event(mask)
    bench.pump.run()
    bench.pump.expire()
    assert (bench.owner.told, bench.sink.sent) == ([], b"h")


class Pairs:
    """Real sockets: `far` → source, sink → `near`; for splice(2), which takes no fakes."""

    def __init__(self, loop: Loop, pipes: PipePool) -> None:
        self.far, self.source = socket.socketpair()
        self.sink, self.near = socket.socketpair()
        for sock in (self.far, self.source, self.sink, self.near):
            sock.setblocking(False)
        self.owner = ListingOwner(loop)
        self.pump = Pump(self.owner, self.source, self.sink, pipes, socket.AF_UNIX)
        self.opposite = Pump(self.owner, self.sink, self.source, pipes, socket.AF_UNIX)
        self.owner.pumps = [self.pump, self.opposite]
        self.pump._splicing = True

    def received(self) -> bytes:
        parts = []
        try:
            while data := self.near.recv(1 << 20):
                parts.append(data)
        except BlockingIOError:
            pass
        return b"".join(parts)

    def close(self) -> None:
        self.pump.release()
        self.opposite.release()
        for sock in (self.far, self.source, self.sink, self.near):
            sock.close()


@pytest.fixture
def pipes() -> Iterator[PipePool]:
    pool = PipePool(4)
    yield pool
    assert pool.lent == 0
    pool.close()


@pytest.fixture
def pairs(loop: Loop, pipes: PipePool) -> Iterator[Pairs]:
    pairs = Pairs(loop, pipes)
    yield pairs
    pairs.close()


def splice_that_fails(number: int, when: Callable[[int, int], bool]) -> Callable[..., int]:
    """os.splice, but for calls (source fd, sink fd) that `when` picks."""
    splice = os.splice

    def fails(source: int, sink: int, count: int, *, flags: int) -> int:
        if when(source, sink):
            raise failing(number)
        return splice(source, sink, count, flags=flags)

    return fails


def test_spliced_bytes_arrive_and_the_pipe_goes_back(pairs: Pairs, pipes: PipePool) -> None:
    # S8
    data = os.urandom(100_000)
    pairs.far.send(data)
    pairs.pump.source_event(IN)
    assert pairs.received() == data
    assert (pairs.pump.moved, pipes.lent) == (len(data), 0)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
@pytest.mark.parametrize("half", ["source", "sink"])
def test_where_splice_does_not_work_it_copies_what_is_in_the_pipe_first(
    pairs: Pairs, pipes: PipePool, loop: Loop, number: int, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # S8: decided per connection, never fatal
    fd = pairs.source.fileno() if half == "source" else pairs.sink.fileno()
    monkeypatch.setattr(os, "splice", splice_that_fails(number, lambda *fds: fd in fds))
    data = os.urandom(100_000)
    pairs.far.send(data)
    pairs.pump.source_event(IN)
    loop.turn()
    assert pairs.received() == data
    pairs.far.send(data)
    pairs.pump.source_event(IN)
    assert pairs.received() == data
    assert (pairs.pump.moved, pipes.lent, pairs.owner.told) == (2 * len(data), 0, [])


@pytest.mark.parametrize("half", ["source", "sink"])
@pytest.mark.parametrize("number", [errno.EINTR, errno.ENOMEM])
def test_a_splice_that_fails_for_now_is_tried_again(
    pairs: Pairs, loop: Loop, number: int, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F1
    fd = pairs.source.fileno() if half == "source" else pairs.sink.fileno()
    failures = [1]

    def once(*fds: int) -> bool:
        if fd in fds and failures:
            failures.pop()
            return True
        return False

    monkeypatch.setattr(os, "splice", splice_that_fails(number, once))
    data = os.urandom(100_000)
    pairs.far.send(data)
    pairs.pump.source_event(IN)
    assert not failures
    while pairs.pump.moved < len(data):
        loop.turn()
    assert pairs.received() == data
    assert pairs.owner.told == []


def test_a_pipe_that_holds_bytes_does_not_outlive_its_pump(pairs: Pairs, pipes: PipePool) -> None:
    pairs.far.send(bytes(100_000))
    while True:
        try:
            pairs.sink.send(bytes(1000))
        except BlockingIOError:
            break
    pairs.pump.source_event(IN)
    assert (pairs.pump.flow, pairs.pump.holding, pipes.lent) == (Flow.BLOCKED, True, 1)
    pairs.pump.stop()
    assert (pipes.lent, pipes._spare) == (0, [])


def test_without_a_pipe_it_copies(pairs: Pairs, pipes: PipePool, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    # F1
    monkeypatch.setattr(pipes, "limit", 0)
    data = os.urandom(150_000)
    pairs.far.send(data)
    pairs.pump.source_event(IN)
    received = pairs.received()
    while len(received) < len(data):
        loop.turn()
        pairs.opposite.source_event(OUT)
        received += pairs.received()
    assert received == data


def test_a_fin_behind_spliced_bytes(pairs: Pairs, loop: Loop) -> None:
    # S2
    pairs.far.send(b"x" * 100_000)
    pairs.far.shutdown(socket.SHUT_WR)
    pairs.pump.source_event(IN | RDHUP)
    loop.again(pairs.pump.run)
    loop.turn()
    assert pairs.received() == b"x" * 100_000
    assert pairs.owner.told == ["finished"]
