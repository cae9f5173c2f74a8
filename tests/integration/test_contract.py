"""What a stream relay promises, the same however its bytes move: rules S1 to S4 of the behaviour, and S8.

Every test runs three times: copying only, splicing from the first byte, and as the pump decides by itself.
"""

import contextlib
import errno
import hashlib
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from relayd.outcomes import Outcome, Side
from relayd.relay.stream.connection import Connection
from relayd.spec import StreamTimeouts
from tests.integration.relaying import (
    TIMEOUTS,
    Relay,
    Target,
    fill,
    free_address,
    receive,
    receive_all,
    reset,
    wait_sent,
    was_reset,
)

REPEATS = 20
#: S2, S3: a FIN or a reset is passed on within this.
PASS_ON_S = 0.05
SIDES = [Side.CLIENT, Side.TARGET]
#: Fits in what relay and kernel hold for a reader that does not read.
PENDING_BYTES = 150_000


def sides(first: Side, client: socket.socket, far: socket.socket) -> tuple[socket.socket, socket.socket]:
    """The socket of `first`, and the other one."""
    return (client, far) if first is Side.CLIENT else (far, client)


def held_bytes(relay: Relay, from_side: Side) -> int:
    """Bytes from one side that the relay holds in all connections. For the loop's thread."""
    held = 0
    for connection in relay.service.connections:
        assert isinstance(connection, Connection)
        pump = connection._pump_in if from_side is Side.CLIENT else connection._pump_out
        if pump is not None:
            held += len(pump._pending) + (pump._pipe.held if pump._pipe is not None else 0)
    return held


class Sender(threading.Thread):
    """Sends seeded random bytes in pieces of mixed sizes, with stalls, then a FIN. Keeps the digest."""

    def __init__(self, sock: socket.socket, seed: int, total: int) -> None:
        super().__init__(daemon=True)
        self.sock, self.random, self.total = sock, random.Random(seed), total
        self.hash = hashlib.blake2b()

    def run(self) -> None:
        left = self.total
        while left:
            size = min(left, self.random.choice((1, 1, 7, 1400, 16384, 65535, 65536, 65537, 300_000, 1 << 20)))
            piece = self.random.randbytes(size)
            self.hash.update(piece)
            self.sock.sendall(piece)
            left -= size
            if self.random.random() < 0.1:
                time.sleep(self.random.random() * 0.005)  # the stall is what is tested, not a way to wait
        self.sock.shutdown(socket.SHUT_WR)


class Receiver(threading.Thread):
    """Receives until the FIN, with stalls. Keeps the digest."""

    def __init__(self, sock: socket.socket, seed: int) -> None:
        super().__init__(daemon=True)
        self.sock, self.random = sock, random.Random(seed)
        self.hash = hashlib.blake2b()
        self.total = 0

    def run(self) -> None:
        while data := self.sock.recv(self.random.choice((1, 100, 4096, 65536, 1 << 18))):
            self.hash.update(data)
            self.total += len(data)
            if self.random.random() < 0.02:
                time.sleep(self.random.random() * 0.005)  # see Sender


@pytest.mark.parametrize("kind", ["inet", "unix"])
@pytest.mark.parametrize("seed", range(2))
def test_random_bytes_both_ways_at_once_arrive_whole(splice: bool, kind: str, seed: int, tmp_path: Path) -> None:
    # S1
    total = 8 << 20
    bind = free_address(kind, tmp_path)
    with Target(kind, tmp_path) as target, Relay([target.address], bind=bind, splice=splice) as relay:
        client, far = relay.pair(target)
        there, here = Sender(client, seed, total), Sender(far, seed + 100, total + 1)
        receivers = Receiver(far, seed), Receiver(client, seed)
        for thread in (there, here, *receivers):
            thread.start()
        for thread in (there, here, *receivers):
            thread.join(60)
            assert not thread.is_alive()
        assert [(each.total, each.hash.digest()) for each in receivers] == [
            (total, there.hash.digest()),
            (total + 1, here.hash.digest()),
        ]
        record = relay.ended()
        assert (record.outcome, record.bytes_in, record.bytes_out) == (Outcome.NORMAL, total, total + 1)


@pytest.mark.parametrize("kind", ["inet", "unix"])
def test_every_size_around_the_buffer_comes_whole(splice: bool, kind: str, tmp_path: Path) -> None:
    # S1: a piece that exactly fills the buffer looks like bulk and is not followed by anything
    with Target(kind, tmp_path) as target, Relay([target.address], splice=splice) as relay:
        client, far = relay.pair(target)
        data = random.Random(1).randbytes(1 << 18)
        for size in (1, 2, 4095, 65535, 65536, 65537, 131071, 131072, 131073, 196608, 1, 1 << 18, 1):
            client.sendall(data[:size])
            assert receive(far, size) == data[:size]
            far.sendall(data[:size])
            assert receive(client, size) == data[:size]


@pytest.mark.parametrize("first", SIDES)
@pytest.mark.parametrize("pending", [pytest.param(0, marks=pytest.mark.alone), PENDING_BYTES])
def test_a_fin_is_passed_on_after_all_bytes_and_the_other_direction_goes_on(
    splice: bool, first: Side, pending: int, tmp_path: Path
) -> None:
    # S2
    data = random.Random(2).randbytes(pending)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        slowest_s = 0.0
        for _ in range(REPEATS):
            one, other = sides(first, *relay.pair(target))
            one.sendall(data)
            wait_sent(one)
            began = time.monotonic()
            one.shutdown(socket.SHUT_WR)
            assert receive_all(other) == (data, 0)
            slowest_s = max(slowest_s, time.monotonic() - began)
            other.sendall(b"the answer")
            assert receive(one, 10) == b"the answer"
            other.sendall(data)
            other.close()
            assert receive_all(one) == (data, 0)
            one.close()
            record = relay.ended()
            assert (record.outcome, record.side, record.errno) == (Outcome.NORMAL, first, 0)
        assert pending or slowest_s <= PASS_ON_S
        assert relay.service.counters.closed == {Outcome.NORMAL: REPEATS}


@pytest.mark.parametrize("first", SIDES)
@pytest.mark.parametrize("pending", [pytest.param(0, marks=pytest.mark.alone), PENDING_BYTES])
def test_a_reset_is_passed_on_after_all_bytes(splice: bool, first: Side, pending: int, tmp_path: Path) -> None:
    # S3
    data = random.Random(3).randbytes(pending)
    outcome = Outcome.CLIENT_RESET if first is Side.CLIENT else Outcome.TARGET_RESET
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        slowest_s = 0.0
        for _ in range(REPEATS):
            one, other = sides(first, *relay.pair(target))
            one.sendall(data)
            wait_sent(one)
            began = time.monotonic()
            reset(one)
            assert receive_all(other) == (data, errno.ECONNRESET)
            slowest_s = max(slowest_s, time.monotonic() - began)
            other.close()
            record = relay.ended()
            assert (record.outcome, record.side) == (outcome, first)
            assert record.errno in (errno.ECONNRESET, errno.EPIPE)
        assert pending or slowest_s <= PASS_ON_S


@pytest.mark.parametrize("first", SIDES)
def test_bytes_that_wait_for_a_stalled_reader_arrive_before_the_reset(
    splice: bool, first: Side, tmp_path: Path
) -> None:
    # S3: the relay holds bytes of a side that is gone, and the other side begins to read only then
    data = random.Random(4).randbytes(20 << 20)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        one, other = sides(first, *relay.pair(target))
        fill(one, data)
        relay.settled()
        assert relay.call(lambda: held_bytes(relay, first)) > 0
        reset(one)
        received, number = receive_all(other)
        assert number == errno.ECONNRESET
        assert data.startswith(received)
        assert len(received) > 1 << 18
        assert relay.ended().bytes_in + relay.log.records[0].bytes_out == len(received)


@pytest.mark.parametrize("first", SIDES)
@pytest.mark.alone
def test_when_both_sides_have_reset_it_is_over(splice: bool, first: Side, tmp_path: Path) -> None:
    # S3: the bytes that wait for the second are not waited for any longer
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        one, other = sides(first, *relay.pair(target))
        fill(one, bytes(20 << 20))
        reset(one)
        relay.settled()
        began = time.monotonic()
        reset(other)
        assert relay.ended().outcome is (Outcome.CLIENT_RESET if first is Side.CLIENT else Outcome.TARGET_RESET)
        assert time.monotonic() - began < 0.5


@pytest.mark.parametrize("first", SIDES)
def test_a_reset_after_the_other_sides_fin_is_passed_on(splice: bool, first: Side, tmp_path: Path) -> None:
    # S3: a half-closed side that resets ends the connection
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        for _ in range(REPEATS):
            one, other = sides(first, *relay.pair(target))
            one.sendall(b"question")
            one.shutdown(socket.SHUT_WR)
            assert receive_all(other) == (b"question", 0)
            reset(one)
            # The other side has read a FIN before, so the kernel says EPIPE to its writes and EOF to its reads.
            deadline = time.monotonic() + 5
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < deadline:
                    other.sendall(b"answer")
            assert time.monotonic() < deadline
            other.close()
            assert relay.ended().outcome is (Outcome.CLIENT_RESET if first is Side.CLIENT else Outcome.TARGET_RESET)


@pytest.mark.parametrize("first", SIDES)
def test_a_reset_after_ones_own_fin_is_seen_at_the_other(splice: bool, first: Side, tmp_path: Path) -> None:
    # S3: the side that is still sending resets; the half-closed one sees ECONNRESET and not an end of file
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        for _ in range(REPEATS):
            one, other = sides(first, *relay.pair(target))
            one.shutdown(socket.SHUT_WR)
            assert receive_all(other) == (b"", 0)
            other.sendall(b"half an ans")
            wait_sent(other)
            reset(other)
            assert receive_all(one) == (b"half an ans", errno.ECONNRESET)
            one.close()
            outcome = relay.ended().outcome
            assert outcome is (Outcome.TARGET_RESET if first is Side.CLIENT else Outcome.CLIENT_RESET)


@pytest.mark.parametrize("silent", SIDES)
@pytest.mark.parametrize("pending", [0, PENDING_BYTES])
def test_silence_ends_at_idle_timeout(splice: bool, silent: Side, pending: int, tmp_path: Path) -> None:
    # S7, and the "silent" row of S2: `silent` says and reads nothing, whatever waits for it
    timeouts = StreamTimeouts(connect_s=10.0, idle_s=0.3, half_close_s=60.0, max_lifetime_s=None)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice, timeouts=timeouts) as relay:
        pairs = [relay.pair(target) for _ in range(REPEATS)]
        for pair in pairs:
            _, talks = sides(silent, *pair)
            talks.sendall(b"x" * pending)
        for pair in pairs:
            _, talks = sides(silent, *pair)
            assert receive_all(talks) == (b"", errno.ECONNRESET)
        for _ in range(REPEATS):
            record = relay.ended()
            assert (record.outcome, record.side) == (Outcome.IDLE_TIMEOUT, Side.RELAY)
            assert 300 <= record.duration_ms < 1300


@pytest.mark.parametrize("first", SIDES)
@pytest.mark.alone
def test_a_half_closed_connection_ends_at_half_close_timeout(splice: bool, first: Side, tmp_path: Path) -> None:
    # S2: counted from the last byte moved
    timeouts = StreamTimeouts(connect_s=10.0, idle_s=None, half_close_s=0.3, max_lifetime_s=None)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice, timeouts=timeouts) as relay:
        pairs = [sides(first, *relay.pair(target)) for _ in range(REPEATS)]
        for one, other in pairs:
            one.sendall(b"question")
            one.shutdown(socket.SHUT_WR)
            assert receive_all(other) == (b"question", 0)
        began = time.monotonic()
        for each in range(6):  # 0.6 s of life, although the timeout is 0.3 s
            last = time.monotonic()
            for one, other in pairs:
                other.sendall(b"tick")
                assert receive(one, 4) == b"tick", each
            while time.monotonic() < began + each * 0.1:
                time.sleep(0.01)  # the passing of time is the subject
        for one, _ in pairs:
            assert was_reset(one)
        assert 0.3 <= time.monotonic() - last < 1.4
        for _ in range(REPEATS):
            record = relay.ended()
            assert (record.outcome, record.side) == (Outcome.HALF_CLOSE_TIMEOUT, Side.RELAY)


def test_the_answer_of_a_target_that_closes_early_arrives_whole(splice: bool, tmp_path: Path) -> None:
    # S2, S3: "413 too large" and a close, while the client still uploads
    answer = random.Random(5).randbytes(200_000)
    upload = b"u" * (1 << 20)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        for _ in range(REPEATS):
            client, far = relay.pair(target)

            def send(client: socket.socket = client) -> None:
                with contextlib.suppress(ConnectionError):
                    while True:
                        client.sendall(upload)

            uploading = threading.Thread(target=send, daemon=True)
            uploading.start()
            receive(far, 100_000)
            far.sendall(answer)
            far.shutdown(socket.SHUT_WR)
            wait_sent(far)
            far.close()  # with unread data: the kernel sends a reset
            received, number = receive_all(client)
            assert received == answer
            assert number in (0, errno.ECONNRESET)
            uploading.join(5)
            assert not uploading.is_alive()
            client.close()
            assert relay.ended().outcome is Outcome.TARGET_RESET


@pytest.mark.alone
def test_a_stalled_reader_costs_one_bounded_buffer_and_no_cpu(splice: bool, tmp_path: Path) -> None:
    # S4
    data = random.Random(6).randbytes(24 << 20)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        far_sockets = []
        for _ in range(4):
            client, far = relay.pair(target)
            far_sockets.append((client, far, fill(client, data)))
        relay.settled()
        before = relay.cpu_s()
        assert 0 < relay.call(lambda: held_bytes(relay, Side.CLIENT)) <= 4 << 20
        time.sleep(0.3)  # nothing shall happen in it
        assert relay.cpu_s() - before < 0.005
        for client, far, sent in far_sockets:
            client.shutdown(socket.SHUT_WR)
            assert receive_all(far) == (data[:sent], 0)


@pytest.mark.alone
def test_mice_get_their_turn_beside_an_elephant(splice: bool, tmp_path: Path) -> None:
    # S5
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice) as relay:
        elephant, trunk = relay.pair(target)
        mouse, hole = relay.pair(target)
        stop = threading.Event()

        def push() -> None:
            with contextlib.suppress(ConnectionError):
                while not stop.is_set():
                    elephant.sendall(b"e" * (1 << 20))

        def pull() -> None:
            while trunk.recv(1 << 20):
                pass

        threads = [threading.Thread(target=each, daemon=True) for each in (push, pull)]
        for thread in threads:
            thread.start()
        trips = []
        for _ in range(200):
            began = time.monotonic()
            mouse.sendall(b"squeak")
            assert receive(hole, 6) == b"squeak"
            hole.sendall(b"squeak")
            assert receive(mouse, 6) == b"squeak"
            trips.append(time.monotonic() - began)
        stop.set()
        threads[0].join(10)
        elephant.shutdown(socket.SHUT_WR)
        threads[1].join(10)
        assert not any(thread.is_alive() for thread in threads)
        assert sorted(trips)[100] < 0.05  # this process has one interpreter lock for all of it


@pytest.mark.parametrize("from_kind", ["inet", "inet6", "unix", "abstract"])
@pytest.mark.parametrize("to_kind", ["inet", "inet6", "unix", "abstract"])
def test_every_family_to_every_family(splice: bool, from_kind: str, to_kind: str, tmp_path: Path) -> None:
    # S10
    data = random.Random(7).randbytes(300_000)
    bind = free_address(from_kind, tmp_path)
    with Target(to_kind, tmp_path) as target, Relay([target.address], bind=bind, splice=splice) as relay:
        client, far = relay.pair(target)
        sending = threading.Thread(target=client.sendall, args=(data,), daemon=True)
        sending.start()
        assert receive(far, len(data)) == data
        sending.join(5)
        far.sendall(data[:1000])
        far.close()
        assert receive_all(client) == (data[:1000], 0)
        client.close()
        record = relay.ended()
        assert (record.outcome, record.side) == (Outcome.NORMAL, Side.TARGET)
        assert (record.bytes_in, record.bytes_out) == (len(data), 1000)
        assert record.target == str(target.address)
        assert record.local == str(relay.address)
        assert record.type == ("tcp" if "inet" in from_kind else "unix")


def test_max_lifetime_ends_a_busy_connection(splice: bool, tmp_path: Path) -> None:
    # S7
    timeouts = StreamTimeouts(connect_s=10.0, idle_s=None, half_close_s=None, max_lifetime_s=0.3)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice, timeouts=timeouts) as relay:
        client, far = relay.pair(target)
        with contextlib.suppress(ConnectionError):
            while True:
                client.sendall(b"tick")
                receive(far, 4)
        record = relay.ended()
        assert record.outcome is Outcome.MAX_LIFETIME
        assert 300 <= record.duration_ms < 1300


def test_an_idle_connection_holds_no_pipe(splice: bool, tmp_path: Path) -> None:
    # S8, F2
    data = random.Random(8).randbytes(2 << 20)
    with Target("inet", tmp_path) as target, Relay([target.address], splice=splice, timeouts=TIMEOUTS) as relay:
        client, far = relay.pair(target)
        sending = threading.Thread(target=client.sendall, args=(data,), daemon=True)
        sending.start()
        assert receive(far, len(data)) == data
        sending.join(5)
        relay.settled()
        assert relay.pipes.lent == 0
