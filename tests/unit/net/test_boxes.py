"""Batches of datagrams on real sockets: the same with one system call for a batch, and with one for each datagram."""

import errno
import itertools
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from relayd.address import from_sockaddr
from relayd.net.batches import Batches
from relayd.net.boxes import Inbox, Outbox
from relayd.net.datagrams import (
    BATCH,
    SEGMENTS_MAX,
    SLOT_BYTES,
    SOL_UDP,
    UDP_SEGMENT,
    Layout,
    ask_for_local_address,
    join_segments,
    open_session_socket,
    prepare_to_receive,
)

DEADLINE_S = 10.0
#: bind address, address that clients send to, and how that is shown.
PLACES = {
    "inet": (socket.AF_INET, "127.0.0.1", "127.0.0.1", None),
    "inet wildcard": (socket.AF_INET, "0.0.0.0", "127.0.0.5", "127.0.0.5"),
    "inet6": (socket.AF_INET6, "::1", "::1", None),
    "inet6 wildcard": (socket.AF_INET6, "::", "::1", "::1"),
    "mapped": (socket.AF_INET6, "::", "127.0.0.5", "::ffff:127.0.0.5"),
}


@dataclass(eq=False)
class Receiver:
    """A receiving socket with its boxes."""

    sock: socket.socket
    layout: Layout
    inbox: Inbox
    outbox: Outbox
    datagrams: int = 0
    size: int = 0

    def replied(self, datagrams: int, size: int) -> None:
        """Count."""
        self.datagrams += datagrams
        self.size += size

    def receive(self) -> int:
        """What waits, once something does."""
        self.sock.setblocking(True)
        self.sock.settimeout(DEADLINE_S)
        self.sock.recv(1, socket.MSG_PEEK)
        self.sock.setblocking(False)
        return self.inbox.receive(self.sock)

    def taken(self, count: int) -> list[tuple[bytes, bytes]]:
        """Keys and datagrams of the batch, joined ones split."""
        found = []
        for at in range(count):
            data = bytes(self.inbox.views[at][: self.inbox.sizes[at]])
            step = self.inbox.segments.get(at, max(len(data), 1))
            pieces = [data[start : start + step] for start in range(0, len(data), step)] or [b""]
            found += [(self.inbox.keys[at], piece) for piece in pieces]
        return found


@dataclass
class Owner:
    """A session."""

    receiver: Receiver
    key: bytes
    gso: bool = True
    held_up: bool = False
    failed: list[tuple[int, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reply_to = self.receiver.outbox.reply_to(self.key)

    def undelivered(self, number: int, data: memoryview) -> None:
        """Remember."""
        self.failed.append((number, bytes(data)))


@pytest.fixture(params=["fast", "plain"])
def batches(request: pytest.FixtureRequest) -> Batches:
    """Both kinds."""
    made = Batches(fast=request.param == "fast")
    assert made.fast == (request.param == "fast")
    return made


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """Where clients come to."""
    return str(request.param)


def open_receiver(batches: Batches, place: str) -> Receiver:
    af, bind, _, _ = PLACES[place]
    sock = socket.socket(af, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    if af == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if place.endswith("wildcard") or place == "mapped":
        ask_for_local_address(sock, af)
    sock.bind((bind, 0))
    layout = prepare_to_receive(sock)
    receiver = Receiver(sock, layout, batches.inbox(layout), batches.outbox(layout))
    receiver.outbox.attach(receiver)
    return receiver


@pytest.fixture
def receiver(batches: Batches, place: str) -> Iterator[Receiver]:
    """A receiving socket of the place."""
    made = open_receiver(batches, place)
    yield made
    made.sock.close()


@pytest.fixture
def clients(receiver: Receiver, place: str) -> Iterator[list[socket.socket]]:
    """Three clients, connected to the address of the place: they take replies from there only."""
    made = [client_of(receiver, place) for _ in range(3)]
    yield made
    for client in made:
        client.close()


def client_of(receiver: Receiver, place: str) -> socket.socket:
    asked = PLACES[place][2]
    client = socket.socket(socket.AF_INET6 if ":" in asked else socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(DEADLINE_S)
    client.connect((asked, receiver.sock.getsockname()[1]))
    return client


def send_run(sock: socket.socket, data: bytes, segment: int) -> None:
    """One send that is several datagrams."""
    sock.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, struct.pack("H", segment))])


def test_a_batch_has_every_datagram_with_who_sent_it_and_to_where(
    receiver: Receiver, clients: list[socket.socket], place: str
) -> None:
    sent = [(client, b"%d" % at * size) for at, client in enumerate(clients) for size in (1, 0, 1472, 9000)]
    for client, data in sent:
        client.send(data)
    taken = receiver.taken(receiver.receive())
    assert [data for _, data in taken] == [data for _, data in sent]
    assert receiver.inbox.receive(receiver.sock) == 0
    shown = PLACES[place][3]
    for (key, _), (client, _) in zip(taken, sent, strict=True):
        found = from_sockaddr(receiver.layout.af, receiver.layout.client(key))
        assert found == from_sockaddr(client.family, client.getsockname())
        assert receiver.layout.local(key) == shown
    assert len({key for key, _ in taken}) == len(clients)


def test_the_same_client_has_the_same_key_whatever_it_sends(receiver: Receiver, clients: list[socket.socket]) -> None:
    """Joined datagrams come with another control message in front; the key is none the wiser."""
    client = clients[0]
    keys = set()
    for _ in range(3):
        client.send(b"single")
        send_run(client, bytes(3000), 1000)
        client.send(b"")
        keys |= {key for key, _ in receiver.taken(receiver.receive())}
    assert len(keys) == 1


def test_joined_datagrams_are_told_apart(receiver: Receiver, clients: list[socket.socket]) -> None:
    # D6
    data = bytes(range(256)) * 100
    clients[0].send(b"before")
    send_run(clients[0], data, 1400)
    clients[1].send(b"between")
    send_run(clients[0], data[:2800], 1400)
    taken = receiver.taken(receiver.receive())
    pieces = [data[at : at + 1400] for at in range(0, len(data), 1400)]
    assert [data for _, data in taken] == [b"before", *pieces, b"between", *pieces[:2]]
    assert taken[0][0] == taken[1][0] != taken[-3][0]


def test_a_full_batch_leaves_the_rest_for_the_next_one(receiver: Receiver, clients: list[socket.socket]) -> None:
    sent = [b"%d" % number for number in range(BATCH + 5)]
    for data in sent:
        clients[0].send(data)
    taken = receiver.taken(receiver.receive())
    assert len(taken) == BATCH
    taken += receiver.taken(receiver.receive())
    assert [data for _, data in taken] == sent


def test_replies_leave_from_where_the_client_sent_to_in_order(receiver: Receiver, clients: list[socket.socket]) -> None:
    # D2: the clients are connected, and would not see others
    owners = []
    for client in clients:
        client.send(b"hello")
        owners.append(Owner(receiver, receiver.taken(receiver.receive())[0][0]))
    expected: list[list[bytes]] = [[] for _ in clients]
    outbox = receiver.outbox
    for number in range(2 * BATCH + 3):
        data = b"%d" % number * (number % 7)
        outbox.views[len(outbox.sizes)][: len(data)] = data
        outbox.put(owners[number % 3], len(data))
        expected[number % 3].append(data)
    outbox.flush()
    outbox.flush()
    for client, datagrams in zip(clients, expected, strict=True):
        assert [client.recv(65536) for _ in datagrams] == datagrams
    total = sum(len(data) for datagrams in expected for data in datagrams)
    assert (receiver.datagrams, receiver.size) == (2 * BATCH + 3, total)
    assert not any(owner.failed for owner in owners)


def test_a_reply_of_any_size_is_whole(receiver: Receiver, clients: list[socket.socket]) -> None:
    # D4
    clients[0].send(b"hello")
    owner = Owner(receiver, receiver.taken(receiver.receive())[0][0])
    data = bytes(range(256)) * 256
    for size in (0, 1, 1472, 9000, 65507):
        receiver.outbox.views[0][:size] = data[:size]
        receiver.outbox.put(owner, size)
        receiver.outbox.flush()
        assert clients[0].recv(65536) == data[:size]


def test_what_is_read_in_bulk_arrives_as_it_was_sent(receiver: Receiver, clients: list[socket.socket]) -> None:
    # D6: from a target that joins and from one that does not, with and without UDP_SEGMENT on the way out
    clients[0].send(b"hello")
    key = receiver.taken(receiver.receive())[0][0]
    for joined, gso in itertools.product((True, False), repeat=2):
        receiver.datagrams = receiver.size = 0
        owner = Owner(receiver, key, gso=gso)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
            target.bind(("127.0.0.1", 0))
            session = open_session_socket(socket.AF_INET, target.getsockname(), None)
            assert join_segments(session)
            sent = send_much(target, session.getsockname(), joined=joined)
            datagrams = total = number = 0
            while number != errno.EAGAIN:
                count, size, number = receiver.outbox.fill(owner, session, 32)
                assert number in (0, errno.EAGAIN)
                datagrams += count
                total += size
            session.close()
        receiver.outbox.flush()
        assert (datagrams, total) == (len(sent), sum(map(len, sent))) == (receiver.datagrams, receiver.size)
        assert [clients[0].recv(65536) for _ in sent] == sent
        assert not owner.failed
        assert owner.gso == gso


def send_much(target: socket.socket, to: object, *, joined: bool) -> list[bytes]:
    """Send runs of every kind, and what breaks them; what was sent."""
    sizes = [1200] * 5 + [700, 0, 0, 33, 33, 33, 33, 34, 1400] + [1000] * (SEGMENTS_MAX + 2)
    sent = [bytes([at]) * size for at, size in enumerate(sizes)]
    for data in sent:
        target.sendto(data, to)  # type: ignore[call-overload]  # as getsockname gave it
    if joined:
        run = bytes(range(250)) * 20
        cut = (SOL_UDP, UDP_SEGMENT, struct.pack("H", 600))
        target.sendmsg([run], [cut], 0, to)  # type: ignore[arg-type]  # as getsockname gave it
        sent += [run[at : at + 600] for at in range(0, len(run), 600)]
        target.sendto(b"last", to)  # type: ignore[call-overload]  # as getsockname gave it
        sent.append(b"last")
    return sent


def test_two_receiving_sockets_share_an_outbox(batches: Batches, place: str) -> None:
    receivers = [open_receiver(batches, place) for _ in range(2)]
    clients = [client_of(receiver, place) for receiver in receivers for _ in range(2)]
    owners = []
    for at, client in enumerate(clients):
        client.send(b"hello")
        receiver = receivers[at // 2]
        owners.append(Owner(receiver, receiver.taken(receiver.receive())[0][0]))
    outbox = receivers[0].outbox
    assert outbox is receivers[1].outbox
    for number in range(20):
        outbox.views[len(outbox.sizes)][:2] = b"%02d" % number
        outbox.put(owners[number % 4], 2)
    outbox.flush()
    for at, client in enumerate(clients):
        assert [client.recv(9) for _ in range(5)] == [b"%02d" % number for number in range(at, 20, 4)]
    assert [receiver.datagrams for receiver in receivers] == [10, 10]
    # And one alone again, with nothing left over from the sorting.
    outbox.views[0][:1] = b"x"
    outbox.put(owners[3], 1)
    outbox.flush()
    assert clients[3].recv(9) == b"x"
    for sock in (*clients, *(receiver.sock for receiver in receivers)):
        sock.close()


def test_one_that_cannot_be_sent_is_told_and_the_others_go(
    receiver: Receiver, clients: list[socket.socket], place: str
) -> None:
    clients[0].send(b"hello")
    key = receiver.taken(receiver.receive())[0][0]
    good = Owner(receiver, key)
    # Port 0, which a client can forge and nobody can send to.
    name = bytearray(receiver.layout.name(key))
    name[2:4] = b"\0\0"
    bad = Owner(receiver, key.replace(receiver.layout.name(key), bytes(name)))
    outbox = receiver.outbox
    for number, owner in enumerate([bad, good, bad, bad, good, bad]):
        outbox.views[len(outbox.sizes)][:1] = b"%d" % number
        outbox.put(owner, 1)
    outbox.flush()
    assert [clients[0].recv(9) for _ in range(2)] == [b"1", b"4"]
    assert bad.failed == [(errno.EINVAL, data) for data in (b"0", b"2", b"3", b"5")]
    assert not good.failed


def test_a_run_that_the_kernel_refuses_goes_one_by_one_and_is_not_tried_again(
    receiver: Receiver, clients: list[socket.socket]
) -> None:
    # D6: segments larger than the MTU of the way to the client are fragmented without UDP_SEGMENT, and refused with it
    clients[0].send(b"hello")
    owner = Owner(receiver, receiver.taken(receiver.receive())[0][0])
    outbox = receiver.outbox
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
        target.bind(("127.0.0.1", 0))
        session = open_session_socket(socket.AF_INET, target.getsockname(), None)
        join_segments(session)
        sent = [bytes([at]) * 1000 for at in range(4)]
        for data in sent:
            target.sendto(data, session.getsockname())
        refused = outbox._sendmsg
        calls = []

        def sendmsg(owner: Owner, views: list[memoryview], segment: int) -> int:
            calls.append(segment)
            return errno.EIO if segment else refused(owner, views, segment)

        outbox._sendmsg = sendmsg  # type: ignore[method-assign, assignment]  # a fake
        for _ in range(2):
            outbox.fill(owner, session, 2)
            outbox.flush()
        session.close()
    assert [clients[0].recv(65536) for _ in sent] == sent
    assert not owner.gso
    assert calls[0] == 1000
    assert not any(calls[1:])


@pytest.mark.parametrize("abstract", [True, False])
def test_unix_clients_have_keys_too(batches: Batches, tmp_path: object, *, abstract: bool) -> None:
    name = f"\0relayd-test-{id(batches)}" if abstract else f"{tmp_path}/r"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(name)
    layout = prepare_to_receive(sock)
    receiver = Receiver(sock, layout, batches.inbox(layout), batches.outbox(layout))
    receiver.outbox.attach(receiver)
    named, autobound, unnamed = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3))
    named.bind(f"{tmp_path}/c")
    autobound.bind("")
    for client in (named, autobound, unnamed):
        client.settimeout(DEADLINE_S)
        client.connect(name)
        client.send(b"x")
    keys = [key for key, _ in receiver.taken(receiver.receive())]
    assert [layout.client(key) for key in keys] == [named.getsockname(), autobound.getsockname(), ""]
    assert keys[2] == b""
    for key in keys[:2]:
        receiver.outbox.views[len(receiver.outbox.sizes)][:2] = b"re"
        receiver.outbox.put(Owner(receiver, key), 2)
    receiver.outbox.flush()
    assert [named.recv(9), autobound.recv(9)] == [b"re", b"re"]
    # Larger than a slot: counted, not cut. Descriptors that come along are closed.
    named.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    named.send(bytes(SLOT_BYTES + 1))
    socket.send_fds(named, [b"fds"], [0, 1])
    assert [data for _, data in receiver.taken(receiver.receive())] == [b"fds"]
    assert receiver.inbox.truncated == 1
    for each in (sock, named, autobound, unnamed):
        each.close()


def test_an_empty_receiving_socket_is_no_error(receiver: Receiver) -> None:
    assert receiver.inbox.receive(receiver.sock) == 0


def test_what_is_wrong_with_the_socket_is_raised(receiver: Receiver) -> None:
    receiver.sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        receiver.inbox.receive(receiver.sock)


def test_memory_is_given_back_but_not_while_something_waits(receiver: Receiver, clients: list[socket.socket]) -> None:
    clients[0].send(b"hello")
    owner = Owner(receiver, receiver.taken(receiver.receive())[0][0])
    outbox = receiver.outbox
    outbox.views[0][:4] = b"keep"
    outbox.put(owner, 4)
    outbox.trim()
    outbox.flush()
    assert clients[0].recv(10) == b"keep"
    outbox.trim()
    assert bytes(outbox.views[0][:4]) == bytes(4)
