"""What a datagram relay promises, rules D1 to D6: the same with batched system calls and without."""

import contextlib
import dataclasses
import errno
import os
import resource
import select
import socket
import struct
import time
from pathlib import Path

import pytest

from relayd.address import InetAddress, NameAddress, parse
from relayd.log.events import Event
from relayd.net.boxes import Inbox
from relayd.net.datagrams import IP_PKTINFO, SOL_UDP, UDP_SEGMENT
from relayd.outcomes import Drop, Outcome, Side
from relayd.relay.datagram.session import Session
from relayd.relay.datagram.waiting import WAITING_MAX
from relayd.spec import OnTargetError
from tests.integration.datagram_relaying import DatagramRelay, DatagramTarget, dead_address
from tests.integration.loop_thread import DEADLINE_S
from tests.integration.restarting import restart_datagrams
from tests.specs import DATAGRAM, TRUSTING

KINDS = ("inet", "inet6", "unix", "abstract")
BINDS = {"inet": "127.0.0.1:0", "inet6": "[::1]:0"}
#: D4: what has to pass whole, and 65,507 is the most that UDP over IPv4 carries.
SIZES = (0, 1, 512, 1472, 9000, 65507)


@pytest.fixture(params=["fast", "plain", "restarting"])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Batches by one system call, or datagrams one by one; and batches while every session goes into a parcel and comes
    out of it every few milliseconds, as in a restart.
    """
    if request.param == "restarting":
        monkeypatch.setattr(DatagramRelay, "_flush", restart_datagrams)
    return bool(request.param != "plain")


@pytest.fixture(params=["fast", "plain"])
def undisturbed(request: pytest.FixtureRequest) -> bool:
    """As `fast`, without restarts, which need descriptors themselves, and change counters in the middle of a turn."""
    return bool(request.param == "fast")


def pattern(number: int, size: int) -> bytes:
    """A datagram that is known by its number, where its size leaves room for one."""
    return (struct.pack("!I", number) * (size // 4 + 1))[:size]


def send_run(sock: socket.socket, datagrams: list[bytes], to: object = None) -> None:
    """Datagrams of one size, the last perhaps less, by one send."""
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", len(datagrams[0])))]
    sock.sendmsg([b"".join(datagrams)], control, 0, to)  # type: ignore[arg-type]  # an address, as recvfrom gave it


# D1, D4: whole, in order, one port per client ---------------------------------------------------------------------


@pytest.mark.parametrize("target_kind", KINDS)
@pytest.mark.parametrize("bind_kind", KINDS)
def test_any_family_to_any_family(fast: bool, bind_kind: str, target_kind: str, tmp_path: Path) -> None:
    # D1, D4, S10
    binds = {**BINDS, "unix": f"unix:{tmp_path}/r", "abstract": f"unix:@relayd-test-{tmp_path.name}"}
    with (
        DatagramTarget(target_kind, tmp_path) as target,
        DatagramRelay([target.address], bind=binds[bind_kind], fast=fast) as relay,
    ):
        client = relay.client()
        for data in (b"question", b"", b"x" * 9000):
            client.send(data)
            received = target.receive()
            assert received.data == data
            received.reply(data + b"answer")
            assert client.recv(70_000) == data + b"answer"


@pytest.mark.parametrize("kind", BINDS)
def test_every_size_arrives_whole_both_ways(fast: bool, kind: str, tmp_path: Path) -> None:
    # D4
    with (
        DatagramTarget(kind, tmp_path) as target,
        DatagramRelay([target.address], bind=BINDS[kind], fast=fast) as relay,
    ):
        client = relay.client()
        for _ in range(2):
            for number, size in enumerate(SIZES):
                client.send(pattern(number, size))
                received = target.receive()
                assert received.data == pattern(number, size)
                received.reply(pattern(number + 100, size))
                assert client.recv(70_000) == pattern(number + 100, size)


@pytest.mark.parametrize("kind", BINDS)
@pytest.mark.parametrize("joined", [False, True])
def test_bursts_arrive_whole_and_in_order_both_ways(fast: bool, kind: str, joined: bool, tmp_path: Path) -> None:
    # D4, D6: three clients at once, with sizes that make runs and sizes that break them
    sizes = [1200] * 20 + [0, 0, 7, 7, 7, 3, 1472, 9000, 0] + [100] * 8
    with (
        DatagramTarget(kind, tmp_path) as target,
        DatagramRelay([target.address], bind=BINDS[kind], fast=fast) as relay,
    ):
        clients = [relay.client() for _ in range(3)]
        for each in clients:
            each.send(b"hello")
        sessions = {target.receive().sender: client for client in clients}
        assert len(sessions) == 3
        for turn in range(4):
            for at, client in enumerate(clients):
                for number, size in enumerate(sizes):
                    client.send(pattern(number + 1000 * at, size))
                if joined:
                    send_run(client, [pattern(5000 + at, 500)] * 7 + [b"end"])
            expected = [[pattern(number + 1000 * at, size) for number, size in enumerate(sizes)] for at in range(3)]
            if joined:
                for at in range(3):
                    expected[at] += [pattern(5000 + at, 500)] * 7 + [b"end"]
            found: dict[object, list[bytes]] = {sender: [] for sender in sessions}
            for _ in range(sum(map(len, expected))):
                received = target.receive()
                found[received.sender].append(received.data)
            assert list(found.values()) == expected, turn
            for sender, client in sessions.items():
                for data in found[sender]:
                    target.sock.sendto(data, sender)  # type: ignore[call-overload]  # as recvfrom gave it
                if joined:
                    send_run(target.sock, [pattern(7000, 500)] * 7 + [b"end"], sender)
                more = [pattern(7000, 500)] * 7 + [b"end"] if joined else []
                assert [client.recv(70_000) for _ in found[sender] + more] == found[sender] + more
        assert not any(relay.counters.dropped.values())


def test_a_client_keeps_its_port_towards_the_target_and_has_it_for_itself(fast: bool, tmp_path: Path) -> None:
    # D1
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        first, second = relay.client(), relay.client()
        senders = []
        for client in (first, second, first, second, first):
            client.send(b"x")
            senders.append(target.receive().sender)
        assert senders[0] == senders[2] == senders[4] != senders[1] == senders[3]
        assert relay.counters.accepted == 2


def test_a_client_that_asks_another_address_of_ours_is_another_session(fast: bool, tmp_path: Path) -> None:
    # D1, D2
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], bind="0.0.0.0:0", fast=fast) as relay,
    ):
        assert isinstance(relay.address, InetAddress)
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(10)
        with client:
            for host in ("127.0.0.1", "127.0.0.2"):
                client.sendto(host.encode(), (host, relay.address.port))
            for _ in range(2):
                received = target.receive()
                received.reply(received.data)
            answers = dict(client.recvfrom(100) for _ in range(2))
        assert answers == {host.encode(): (host, relay.address.port) for host in ("127.0.0.1", "127.0.0.2")}


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_replies_come_from_the_address_asked(fast: bool, bind: str, tmp_path: Path) -> None:
    # D2: 1,000 of 1,000. The clients are connected, and take replies from there only.
    hosts = [f"127.0.0.{last}" for last in range(1, 10)]
    if bind.startswith("["):
        hosts.append("::1")
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], bind=bind, fast=fast) as relay:
        clients = [relay.client(host) for host in hosts]
        for number in range(1000):
            client = clients[number % len(clients)]
            client.send(b"%d" % number)
            received = target.receive()
            received.reply(received.data)
            assert client.recv(100) == b"%d" % number
        for client in clients:
            client.close()
        relay.call(lambda: relay.services.end_all(Outcome.SHUTDOWN))
        port = relay.address.port if isinstance(relay.address, InetAddress) else 0
        shown = {f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in hosts}
        assert {relay.ended().local for _ in hosts} == shown


def test_a_listener_of_several_sockets_answers_from_each(fast: bool, tmp_path: Path) -> None:
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], ports=3, fast=fast) as relay:
        clients = [relay.client(port=port) for port in (0, 1, 2, 0)]
        for turn in range(3):
            for number, client in enumerate(clients):
                client.send(b"%d" % number)
            for _ in clients:
                received = target.receive()
                received.reply(received.data * 2)
            assert [client.recv(9) for client in clients] == [b"00", b"11", b"22", b"33"], turn
        assert relay.counters.accepted == 4


def test_the_source_address_is_used(fast: bool, tmp_path: Path) -> None:
    source = parse("127.0.0.7:0")
    assert isinstance(source, InetAddress)
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, source=source) as relay,
    ):
        client = relay.client()
        client.send(b"x")
        sender = target.receive().sender
        assert isinstance(sender, tuple)
        assert sender[0] == "127.0.0.7"


# D3: life ---------------------------------------------------------------------------------------------------------


def test_a_session_ends_by_its_timeout_and_its_line_tells_all(fast: bool, tmp_path: Path) -> None:
    # D3, O1
    datagram = dataclasses.replace(DATAGRAM, session_timeout_s=0.1)
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=datagram) as relay,
    ):
        client = relay.client()
        client.send(b"question")
        first = target.receive()
        client.send(b"")
        target.receive()
        first.reply(b"answer")
        assert client.recv(100) == b"answer"
        record = relay.ended()
        assert record.outcome is Outcome.SESSION_TIMEOUT
        assert (record.datagrams_in, record.datagrams_out, record.datagrams_dropped) == (2, 1, 0)
        assert (record.bytes_in, record.bytes_out) == (8, 6)
        assert (record.client, record.client_port) == client.getsockname()
        assert (record.type, record.local, record.target) == ("udp", str(relay.address), str(target.address))
        assert (record.attempts, record.errno, record.side) == (1, 0, Side.RELAY)
        assert record.first_byte_ms is not None
        assert record.first_byte_ms <= record.duration_ms
        assert 100 <= record.duration_ms < 1000
        client.send(b"again")
        assert target.receive().sender != first.sender
        assert relay.ended().first_byte_ms is None


def test_datagrams_in_either_direction_keep_a_session(fast: bool, tmp_path: Path) -> None:
    # D3: four times a good half of the timeout, only answers at last
    datagram = dataclasses.replace(DATAGRAM, session_timeout_s=0.3)
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=datagram) as relay,
    ):
        client = relay.client()
        client.send(b"x")
        received = target.receive()
        client.settimeout(0.2)
        for step in range(4):
            with pytest.raises(TimeoutError):
                client.recv(10)
            if step % 2:
                client.send(b"y")
                assert target.receive().sender == received.sender
            else:
                received.reply(b"z")
                client.settimeout(10)
                assert client.recv(10) == b"z"
                client.settimeout(0.2)
        record = relay.ended()
        assert record.outcome is Outcome.SESSION_TIMEOUT
        assert record.duration_ms > 1000
        assert relay.counters.accepted == 1


@pytest.mark.parametrize("most", [1, 3])
def test_a_session_ends_with_the_last_response_allowed(fast: bool, most: int, tmp_path: Path) -> None:
    # D3
    datagram = dataclasses.replace(DATAGRAM, max_responses=most)
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=datagram) as relay,
    ):
        client = relay.client()
        for _ in range(2):
            client.send(b"x")
            received = target.receive()
            for number in range(most + 2):
                received.reply(b"%d" % number)
            assert [client.recv(10) for _ in range(most)] == [b"%d" % number for number in range(most)]
            record = relay.ended()
            assert (record.outcome, record.datagrams_out) == (Outcome.MAX_RESPONSES, most)


@pytest.mark.parametrize("most", [1, 3])
def test_every_question_that_is_under_way_is_answered(fast: bool, most: int, tmp_path: Path) -> None:
    # D3: a resolver asks many questions from one port before the first answer comes
    datagram = dataclasses.replace(DATAGRAM, max_responses=most)
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=datagram) as relay,
    ):
        client = relay.client()
        for number in range(100):
            client.send(b"%d" % number)
        for received in [target.receive() for _ in range(100)]:
            received.reply(received.data)
        assert [client.recv(10) for _ in range(100)] == [b"%d" % number for number in range(100)]
        record = relay.ended()
        assert (record.outcome, record.datagrams_in, record.datagrams_out) == (Outcome.MAX_RESPONSES, 100, 100)


def test_the_session_unused_for_longest_makes_room(fast: bool, tmp_path: Path) -> None:
    # D3
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast, share=2) as relay:
        clients = [relay.client() for _ in range(3)]
        senders = []
        for number in (0, 1):
            clients[number].send(b"x")
            senders.append(target.receive().sender)
        relay.pass_step()
        clients[0].send(b"x")
        assert target.receive().sender == senders[0]
        relay.pass_step()
        clients[2].send(b"x")
        target.receive()
        record = relay.ended()
        assert (record.outcome, record.client_port) == (Outcome.EVICTED, clients[1].getsockname()[1])
        clients[0].send(b"x")
        assert target.receive().sender == senders[0]
        assert relay.counters.active == 2


def test_the_descriptors_of_a_worker_bound_all_listeners_together(fast: bool, tmp_path: Path) -> None:
    # F2
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast, limit=3) as relay:
        for _ in range(10):
            relay.client().send(b"x")
            target.receive()
        assert relay.call(lambda: relay.counters.active) == 3
        assert relay.outcomes(7) == {Outcome.EVICTED}


# D5: errors of targets --------------------------------------------------------------------------------------------


def test_a_target_that_is_down_and_comes_up_again_loses_one_datagram_at_most(fast: bool, tmp_path: Path) -> None:
    # D5
    with dead_address() as address, DatagramRelay([address], fast=fast) as relay:
        client = relay.client()
        for number in range(20):
            client.send(b"%d" % number)
        relay.until(lambda: relay.counters.datagrams_in == 20 and not relay.counters.active, "20 came and went")
        assert relay.counters.dropped == {Drop.TARGET_FAILED: 20}
        with DatagramTarget("inet", tmp_path, address=address) as target:
            for number in range(20, 30):
                client.send(b"%d" % number)
            got = [target.receive().data for _ in range(9)]
            assert got[-1] in (b"28", b"29")
            received = DatagramTarget.receive(target) if got[-1] == b"28" else None
            assert received is None or received.data == b"29"
        relay.until(lambda: relay.counters.datagrams_in == 30, "30 came")
        assert relay.outcomes(relay.counters.accepted - 1) == {Outcome.TARGET_REFUSED}


def test_a_refused_session_is_told_with_its_errno(fast: bool) -> None:
    # D5, O1
    with dead_address() as address, DatagramRelay([address], fast=fast) as relay:
        relay.client().send(b"x")
        record = relay.ended()
        assert (record.outcome, record.errno, record.side) == (Outcome.TARGET_REFUSED, 111, Side.TARGET)
        assert (record.datagrams_in, record.datagrams_dropped) == (1, 1)
        message, fields = relay.dropped_line()
        assert "no target can be reached" in message
        assert fields == {"listener": "web", "reason": "target_failed", "count": 1}


def test_a_session_moves_with_the_datagram_that_failed(fast: bool, tmp_path: Path) -> None:
    # D5
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast, health=TRUSTING) as relay,
    ):
        for _ in range(6):
            client = relay.client()
            for data in (b"first", b"second", b"third"):
                client.send(data)
            for data in (b"first", b"second", b"third"):
                received = target.receive()
                assert received.data == data
            received.reply(b"answer")
            assert client.recv(100) == b"answer"
        assert not relay.counters.dropped
        assert relay.counters.target_errors == 6
        relay.call(lambda: relay.services.end_all(Outcome.SHUTDOWN))
        assert {relay.ended().attempts for _ in range(6)} == {2}


def test_a_target_that_has_failed_gets_no_session_for_a_while(fast: bool, tmp_path: Path) -> None:
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast) as relay,
    ):
        for _ in range(6):
            client = relay.client()
            client.send(b"question")
            target.receive().reply(b"answer")
            assert client.recv(100) == b"answer"
        assert relay.counters.target_errors == 1
        with DatagramTarget("inet", tmp_path, address=dead) as again:
            deadline = time.monotonic() + DEADLINE_S
            while not _asked(relay, again, target):
                assert time.monotonic() < deadline, "no session at the target that is back"


def _asked(relay: DatagramRelay, again: DatagramTarget, target: DatagramTarget) -> list[bytes]:
    """Ask as a new client; what the target that was dead has got."""
    relay.client().send(b"question")
    readable, _, _ = select.select([again.sock, target.sock], [], [], 5)
    return again.waiting() if again.sock in readable else target.waiting() and []


def test_sessions_of_a_target_that_dies_move_on(fast: bool, tmp_path: Path) -> None:
    # D5: the datagram that failed arrives at the other
    with (
        DatagramTarget("inet", tmp_path) as first,
        DatagramTarget("inet", tmp_path) as second,
        DatagramRelay([first.address, second.address], fast=fast) as relay,
    ):
        clients = [relay.client() for _ in range(8)]
        for number, client in enumerate(clients):
            client.send(b"%d" % number)
            received = (first, second)[number % 2].receive()
            received.reply(received.data)
            assert client.recv(10) == b"%d" % number
        first.close()
        for turn in range(2):
            for number, client in enumerate(clients):
                client.send(b"%d%d" % (turn, number))
                received = second.receive()
                assert received.data == b"%d%d" % (turn, number)
                received.reply(received.data)
                assert client.recv(10) == b"%d%d" % (turn, number)
        assert relay.counters.accepted == relay.counters.active == 8
        assert not relay.counters.dropped


def test_with_no_target_left_a_session_ends_and_the_next_datagram_tries_all_again(fast: bool, tmp_path: Path) -> None:
    # D5
    with (
        dead_address() as one,
        dead_address() as two,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([one, two], fast=fast) as relay,
    ):
        client = relay.client()
        for count in (1, 2):
            client.send(b"x")
            record = relay.ended()
            assert (record.outcome, record.attempts) == (Outcome.TARGET_REFUSED, 2)
            relay.until_dropped(Drop.TARGET_FAILED, count)
        target.close()


def test_close_ends_the_session_and_the_next_one_goes_to_the_next_target(fast: bool, tmp_path: Path) -> None:
    # D5
    datagram = dataclasses.replace(DATAGRAM, on_target_error=OnTargetError.CLOSE)
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast, datagram=datagram) as relay,
    ):
        client = relay.client()
        client.send(b"lost")
        record = relay.ended()
        assert (record.outcome, record.attempts) == (Outcome.TARGET_REFUSED, 1)
        client.send(b"found")
        assert target.receive().data == b"found"
        relay.until_dropped(Drop.TARGET_FAILED, 1)


def test_what_comes_behind_a_datagram_that_ends_the_last_session_is_whole(fast: bool, tmp_path: Path) -> None:
    # D4, D5: all in one batch, whose memory is not to be touched before it has been dealt with
    datagram = dataclasses.replace(DATAGRAM, on_target_error=OnTargetError.CLOSE)
    with (
        dead_address() as dead,
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([dead, target.address], fast=fast, datagram=datagram) as relay,
    ):
        client = relay.client()
        sent = [pattern(number, 3000) for number in range(10)]

        def send_all() -> None:
            for data in sent:
                client.send(data)

        relay.call(send_all)
        assert [target.receive().data for _ in sent[1:]] == sent[1:]
        relay.until_dropped(Drop.TARGET_FAILED, 1)
        relay.call(lambda: relay.services.end_all(Outcome.SHUTDOWN))
        relay.call(relay.services.look)  # now it is given back


def test_an_address_that_cannot_be_connected_to_is_passed_over(fast: bool, tmp_path: Path) -> None:
    # D5: connect(2) itself fails, with EACCES, before there is a session
    broadcast = parse("255.255.255.255:9")
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([broadcast, target.address], fast=fast) as relay,
    ):
        for _ in range(3):
            client = relay.client()
            client.send(b"x")
            assert target.receive().data == b"x"
    with DatagramRelay([broadcast], fast=fast) as relay:
        client = relay.client()
        client.send(b"x")
        relay.until_dropped(Drop.TARGET_FAILED, 1)


def test_a_name_is_a_target_once_it_is_resolved_and_sessions_stay_when_it_changes(fast: bool, tmp_path: Path) -> None:
    # T3
    with DatagramTarget("inet", tmp_path) as one:
        assert isinstance(one.address, InetAddress)
        addresses = [one.address, dataclasses.replace(one.address, host="127.0.0.2")]
        name = NameAddress("app.example.com", one.address.port)
        with (
            DatagramTarget("inet", tmp_path, address=addresses[1]) as two,
            DatagramRelay([name], fast=fast) as relay,
        ):
            first, second = relay.client(), relay.client()
            first.send(b"lost")
            relay.until_dropped(Drop.NO_TARGET, 1)
            relay.call(lambda: relay.resolved(name, (addresses[0],)))
            first.send(b"one")
            assert one.receive().data == b"one"
            relay.call(lambda: relay.resolved(name, (addresses[1],)))
            second.send(b"two")
            assert two.receive().data == b"two"
            first.send(b"one again")
            assert one.receive().data == b"one again"


# D4: what cannot be sent --------------------------------------------------------------------------------------------


def test_a_unix_target_that_is_gone_and_back(fast: bool, tmp_path: Path) -> None:
    # D5: a Unix socket says at once that nobody is there, so nothing is lost when it is back
    with DatagramTarget("unix", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        client = relay.client()
        client.send(b"one")
        assert target.receive().data == b"one"
        target.close()
        client.send(b"lost")
        relay.until_dropped(Drop.TARGET_FAILED, 1)
        assert relay.ended().outcome in (Outcome.TARGET_REFUSED, Outcome.TARGET_UNREACHABLE)
        with DatagramTarget("unix", tmp_path, address=target.address) as again:
            client.send(b"two")
            assert again.receive().data == b"two"


def test_a_unix_client_without_a_name_is_relayed_and_gets_no_answer(fast: bool, tmp_path: Path) -> None:
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], bind=f"unix:{tmp_path}/r", fast=fast) as relay,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        client.connect(f"{tmp_path}/r")
        for data in (b"one", b"two"):
            client.send(data)
            received = target.receive()
            assert received.data == data
            received.reply(b"answer")
        relay.until_dropped(Drop.NO_REPLY_PATH, 2)
        relay.call(lambda: relay.services.end_all(Outcome.SHUTDOWN))
        record = relay.ended()
        assert (record.type, record.client, record.client_port) == ("unix_dgram", "unix:", 0)
        assert (record.datagrams_in, record.datagrams_out, record.datagrams_dropped) == (2, 2, 2)


def test_a_full_unix_target_gets_all_in_order_and_holds_nobody_up(fast: bool, tmp_path: Path) -> None:
    # D4: beyond the bound of the queue, lost datagrams are counted
    with (
        DatagramTarget("unix", tmp_path) as full,
        DatagramTarget("inet", tmp_path) as other,
        DatagramRelay([full.address, other.address], fast=fast) as relay,
    ):
        slow, quick = relay.client(), relay.client()
        slow.send(b"0")
        relay.until(lambda: relay.counters.active == 1, "the session of the full target")
        for number in range(1, 60):
            slow.send(b"%d" % number)
            quick.send(b"%d" % number)
            received = other.receive()
            received.reply(received.data)
            assert quick.recv(10) == b"%d" % number
        before = relay.cpu_s()
        assert [full.receive().data for _ in range(60)] == [b"%d" % number for number in range(60)]
        for number in range(WAITING_MAX + 100):
            slow.send(b"%d" % number)
        relay.until(lambda: relay.counters.datagrams_in == 60 + 59 + WAITING_MAX + 100, "all have come")
        got = [full.receive().data]
        while len(got) + relay.counters.dropped[Drop.TARGET_FULL] < WAITING_MAX + 100:
            got.append(full.receive().data)
        assert got == [b"%d" % number for number in range(len(got))]
        assert relay.counters.dropped[Drop.TARGET_FULL] > 0
        # Waiting for room takes no time.
        assert relay.cpu_s() - before < 0.5
        slow.send(b"last")
        assert full.receive().data == b"last"


def test_a_full_unix_client_gets_all_in_order_and_holds_nobody_up(fast: bool, tmp_path: Path) -> None:
    # D4: the target, of Unix as well, waits
    with (
        DatagramTarget("unix", tmp_path) as target,
        DatagramRelay([target.address], bind=f"unix:{tmp_path}/r", fast=fast) as relay,
    ):
        slow, quick = relay.client(), relay.client()
        slow.send(b"slow")
        to_slow = target.receive()
        quick.send(b"quick")
        to_quick = target.receive()
        for number in range(40):
            to_slow.reply(b"%d" % number)
            if number < 15:
                to_quick.reply(b"%d" % number)
                assert quick.recv(10) == b"%d" % number
            if number > 18:
                assert slow.recv(10) == b"%d" % (number - 19)
        assert [slow.recv(10) for _ in range(19)] == [b"%d" % number for number in range(21, 40)]
        assert not relay.counters.dropped
        to_slow.reply(b"last")
        assert slow.recv(10) == b"last"


def test_what_the_other_side_cannot_take_is_counted(fast: bool, tmp_path: Path) -> None:
    # D4: over IPv6 UDP carries 20 bytes more than over IPv4
    with DatagramTarget("inet6", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        client = relay.client()
        client.send(b"question")
        received = target.receive()
        received.reply(bytes(65_527))
        relay.until_dropped(Drop.TOO_LARGE, 1)
        received.reply(b"answer")
        assert client.recv(100) == b"answer"
    with (
        DatagramTarget("unix", tmp_path) as target,
        DatagramRelay([target.address], bind=f"unix:{tmp_path}/r", fast=fast) as relay,
    ):
        client = relay.client()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        client.send(bytes(100_000))
        client.send(b"question")
        received = target.receive()
        assert received.data == b"question"
        target.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
        received.reply(bytes(100_000))
        received.reply(b"answer")
        assert client.recv(100) == b"answer"
        relay.until_dropped(Drop.TOO_LARGE, 2)


def test_a_client_that_left_is_no_trouble(fast: bool, tmp_path: Path) -> None:
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], bind=f"unix:{tmp_path}/r", fast=fast) as relay,
    ):
        client = relay.client()
        client.send(b"x")
        received = target.receive()
        client.close()
        received.reply(b"answer")
        relay.until_dropped(Drop.CLIENT_FAILED, 1)
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        client = relay.client()
        client.send(b"x")
        received = target.receive()
        client.close()
        for _ in range(3):
            received.reply(b"answer")  # UDP does not say that nobody is there
        relay.until(lambda: relay.counters.datagrams_out == 3, "three answers")
        assert not relay.counters.dropped


# F1, F3, S5, R6: under load and faults ------------------------------------------------------------------------------


def test_out_of_descriptors_a_new_session_takes_that_of_another(undisturbed: bool, tmp_path: Path) -> None:
    # F1
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=undisturbed) as relay:
        clients = [relay.client() for _ in range(4)]
        clients[0].send(b"x")
        target.receive()
        spare, soft_and_hard = os.dup(0), resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, soft_and_hard[1]))
        try:
            for client in clients[1:]:
                client.send(b"x")
                assert target.receive().data == b"x"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
        assert relay.outcomes(3) == {Outcome.EVICTED}
        assert not relay.counters.dropped


def test_out_of_descriptors_without_a_session_a_datagram_is_counted(undisturbed: bool, tmp_path: Path) -> None:
    # F1
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=undisturbed) as relay:
        client = relay.client()
        spare, soft_and_hard = os.dup(0), resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, soft_and_hard[1]))
        try:
            client.send(b"lost")
            relay.until_dropped(Drop.RESOURCE_EXHAUSTED, 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, soft_and_hard)
        client.send(b"found")
        assert target.receive().data == b"found"


def test_a_bug_ends_the_session_that_met_it_and_no_other(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F3
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        good, bad = relay.client(), relay.client()
        good.send(b"good")
        to_good = target.receive()
        bad.send(b"bad")
        to_bad = target.receive()

        def look(self: Session) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(Session, "_look", look)
        to_bad.reply(b"answer")
        record = relay.ended()
        assert (record.outcome, record.client_port) == (Outcome.INTERNAL_ERROR, bad.getsockname()[1])
        monkeypatch.undo()
        to_good.reply(b"answer")
        assert good.recv(100) == b"answer"
        assert "ZeroDivisionError" in str(relay.wait_event(Event.INTERNAL_ERROR)[1]["traceback"])
        monkeypatch.setattr(Session, "dial", look)
        relay.client().send(b"no session")
        relay.until_dropped(Drop.INTERNAL_ERROR, 1)
        monkeypatch.undo()
        good.send(b"still")
        assert target.receive().data == b"still"
        relay.log.events.clear()  # or the end of the relay takes them for bugs of its own


def test_two_relays_pointed_at_each_other_stay_bounded(fast: bool) -> None:
    # F2: one datagram goes round and round, a session for each hop, and never more than there may be
    with dead_address() as first_address, dead_address() as second_address:
        first_bind, second_bind = str(first_address), str(second_address)
        with (
            DatagramRelay([second_address], bind=first_bind, fast=fast, share=8) as first,
            DatagramRelay([first_address], bind=second_bind, fast=fast, share=8) as second,
        ):
            client = first.client()
            client.send(b"round")
            first.until(lambda: first.counters.datagrams_in > 200, "200 rounds")
            for relay in (first, second):
                assert relay.call(lambda relay=relay: relay.counters.active) <= 8  # type: ignore[misc]  # bound now


def test_a_drain_ends_what_is_silent_and_lets_what_is_not_go_on(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # R6
    monkeypatch.setattr("relayd.relay.datagram.service.DRAIN_SILENCE_S", 1.0)
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        silent, busy = relay.client(), relay.client()
        silent.send(b"silent")
        target.receive()
        busy.send(b"busy")
        received = target.receive()
        relay.call(relay.services.drain)
        relay.client().send(b"late")
        relay.until_dropped(Drop.DRAINING, 1)
        while relay.counters.active == 2:
            received.reply(b"answer")
            assert busy.recv(100) == b"answer"
        record = relay.ended()
        assert (record.outcome, record.client_port) == (Outcome.SHUTDOWN, silent.getsockname()[1])
        received.reply(b"answer")
        assert busy.recv(100) == b"answer"
        assert relay.ended().outcome is Outcome.SHUTDOWN
        assert relay.services.active == 0


def test_sessions_without_an_end_are_ended_in_portions(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # S5: a thousand sessions that expire at once are no reason to keep the others waiting
    monkeypatch.setattr("relayd.relay.datagram.service.EXPIRED_PER_TURN", 3)
    datagram = dataclasses.replace(DATAGRAM, session_timeout_s=0.1)
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=fast, datagram=datagram) as relay,
    ):
        for _ in range(10):
            relay.client().send(b"x")
        for _ in range(10):
            target.receive()
        assert relay.outcomes(10) == {Outcome.SESSION_TIMEOUT}


@pytest.mark.alone
def test_an_idle_relay_with_sessions_uses_no_time(fast: bool, tmp_path: Path) -> None:
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        for _ in range(20):
            relay.client().send(b"x")
            target.receive().reply(b"y")
        relay.until(lambda: relay.counters.datagrams_out == 20, "20 answers")
        before = relay.cpu_s()
        target.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            target.receive()
        assert relay.cpu_s() - before < 0.005


def flood(port: int, count: int, first: int = 0) -> None:
    """Datagrams to 127.0.0.1, each from another address of 127.0.0.0/8."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        for number in range(first, first + count):
            source = struct.pack("!BBH", 127, 1 + (number >> 16), number & 0xFFFF)
            pktinfo = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, source))
            forger.sendmsg([b"forged"], [pktinfo], 0, ("127.0.0.1", port))


def test_a_flood_of_forged_clients_does_not_push_a_busy_one_aside(
    undisturbed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # D3, F2: nothing of the busy client's is lost, sessions and descriptors stay within their bound. Between two of its
    # datagrams at most 300 forged clients begin a session, so that it is never the one unused for longest.
    monkeypatch.setattr("relayd.relay.datagram.newcomers.WAITING_MAX", 100)
    share = 400
    with (
        DatagramTarget("inet", tmp_path) as target,
        DatagramRelay([target.address], fast=undisturbed, share=share) as relay,
    ):
        assert isinstance(relay.address, InetAddress)
        busy = relay.client()
        busy.send(b"busy")
        target.receive().reply(b"busy")
        assert busy.recv(100) == b"busy"
        target.sock.settimeout(0)
        fds_before = relay.call(lambda: len(os.listdir("/proc/self/fd")))
        sent = answered = 0
        for turn in range(40):
            flood(relay.address.port, 200, first=200 * turn)
            for _ in range(5):
                busy.send(b"busy")
                sent += 1
            deadline = time.monotonic() + DEADLINE_S
            while answered < sent:
                assert time.monotonic() < deadline, f"{sent - answered} lost"
                with contextlib.suppress(BlockingIOError):
                    received = target.receive()
                    if received.data == b"busy":
                        received.reply(received.data)
                        answered += 1
            assert [busy.recv(100) for _ in range(5)] == [b"busy"] * 5
            assert relay.call(lambda: len(os.listdir("/proc/self/fd"))) <= fds_before + share + 64
        counters = relay.counters
        relay.until(lambda: counters.datagrams_in == 40 * 200 + sent + 1, "all have been read")
        relay.until(lambda: not relay.loop._again, "nobody waits")
        assert counters.active <= share
        assert counters.closed[Outcome.EVICTED] == counters.accepted - counters.active > 0
        assert counters.accepted + counters.dropped[Drop.OVERLOADED] == 40 * 200 + 1
        assert counters.closed.keys() == {Outcome.EVICTED}


def test_new_clients_that_have_to_wait_keep_the_order_of_their_datagrams(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # D4, S5
    monkeypatch.setattr("relayd.relay.datagram.listener.BEGUN_PER_TURN", 1)
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        clients = [relay.client() for _ in range(10)]

        def send_all() -> None:
            for number in range(20):
                for client in clients:
                    client.send(b"%d" % number)

        relay.call(send_all)
        found: dict[object, list[bytes]] = {}
        for _ in range(200):
            received = target.receive()
            found.setdefault(received.sender, []).append(received.data)
        assert list(found.values()) == [[b"%d" % number for number in range(20)]] * 10


def test_what_the_kernel_had_to_drop_is_counted(fast: bool, tmp_path: Path) -> None:
    # D4: the loop does not turn while more comes than its socket can hold
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        client = relay.client()
        room = relay.call(lambda: relay._sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
        count = room // 60_000 + 20

        def overrun() -> None:
            for _ in range(count):
                client.send(bytes(60_000))

        relay.call(overrun)
        relay.until(lambda: relay.loop.selector.select(0) == [], "all is read")
        relay.call(relay.services.look)
        counters = relay.counters
        assert counters.dropped[Drop.RELAY_FULL] > 0
        assert counters.datagrams_in + counters.dropped[Drop.RELAY_FULL] == count
        assert len(target.waiting()) <= counters.datagrams_in


def test_a_socket_that_cannot_be_read_pauses_and_goes_on(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # F1
    with DatagramTarget("inet", tmp_path) as target, DatagramRelay([target.address], fast=fast) as relay:
        client = relay.client()
        client.send(b"one")
        assert target.receive().data == b"one"
        calls = []

        def fail_once(self: Inbox, sock: socket.socket) -> int:
            calls.append(sock)
            if len(calls) < 3:
                raise OSError(errno.ENOBUFS, "No buffer space available")
            return receive(self, sock)

        kind = type(relay.services.batches.inbox(next(iter(relay.services._receivers.values())).reception.layout))
        receive = kind.receive
        monkeypatch.setattr(kind, "receive", fail_once)
        client.send(b"two")
        assert target.receive().data == b"two"
        assert len(calls) >= 3
        assert "ENOBUFS" in relay.wait_event(Event.ACCEPT_PAUSED)[0]
