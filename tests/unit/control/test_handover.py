"""What one life leaves to the next: kept in a store that this test plays, found, and dealt (R4, R5)."""

import asyncio
import contextlib
import os
import secrets
import select
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress, UnixAddress
from relayd.channel import parcel
from relayd.channel.messages import Adopt, Resolved
from relayd.channel.parcel import Content, Label
from relayd.control import handover
from relayd.control.adopting import Adopted, Shared
from relayd.control.answers import Known
from relayd.control.handover import MANIFEST_VERSION, SOCKETS_STORED_MAX, Dealer, Found, Store, find
from relayd.control.listeners import ListeningSockets
from relayd.counters import DatagramCounters, ListenerCounters
from relayd.outcomes import Drop, Outcome
from relayd.sd.activation import Inherited
from relayd.sd.notify import Notifier
from relayd.spec import Bind, Listener, Log, Resolve, Share, SocketOptions, Spec, Stream, StreamTimeouts
from relayd.spec.budget import Budget
from relayd.spec.plan import Plan, plan
from relayd.spec.sockets import SocketKey, endpoints
from tests.ports import free_range
from tests.specs import BINDING, DATAGRAM
from tests.unit.control.test_passed import Unit

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))
ANY_PORT = Bind(InetAddress(Family.INET, "127.0.0.1", 0))
TOTALS = (
    ListenerCounters(accepted=7, active=2, bytes_in=70, closed={Outcome.NORMAL: 5}).snapshot("web"),  # type: ignore[arg-type]  # as one
    DatagramCounters(accepted=3, dropped={Drop.TARGET_FULL: 1}).snapshot("dns"),  # type: ignore[arg-type]  # as one
)


def port(number: int, ports: int = 1) -> Bind:
    return Bind(InetAddress(Family.INET, "127.0.0.1", number), ports)


def listener(name: str, *binds: Bind, streams: bool = True, datagrams: bool = False) -> Listener:
    return Listener(name, binds, BINDING, (), None, STREAM if streams else None, DATAGRAM if datagrams else None)


def spec(*listeners: Listener, workers: int = 2) -> Spec:
    return Spec(workers, 30.0, Log("info", "auto", access=False), listeners)


class Crash(Exception):
    """The process has died."""


class FakeSystemd(Notifier):
    """The FD store of a service, as far as it is told of it: duplicates, by name. Owns them."""

    def __init__(self) -> None:
        super().__init__(enabled=True, watchdog_interval_s=None)
        self.kept: list[tuple[str, int]] = []
        self.said: list[str] = []
        #: The process dies before it says any more than this.
        self.lives_for: int | None = None

    def store(self, name: str, fds: Sequence[int], *, watched: bool = True) -> None:
        self._hear(f"+{name}")
        have = {os.fstat(fd).st_ino for _, fd in self.kept}
        for fd in fds:
            assert not (watched and hung_up(fd)), f"the other end of {name} is closed"  # it would let go of it
            assert os.fstat(fd).st_ino not in have, (
                f"{name} is there already"
            )  # systemd would close it, and say nothing
            self.kept.append((name, os.dup(fd)))

    def unstore(self, name: str) -> None:
        self._hear(f"-{name}")
        gone = [(each, fd) for each, fd in self.kept if each == name]
        self.kept = [(each, fd) for each, fd in self.kept if each != name]
        close(fd for _, fd in gone)

    def _hear(self, message: str) -> None:
        if self.lives_for is not None and len(self.said) >= self.lives_for:
            raise Crash
        self.said.append(message)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.kept]

    def passed(self) -> list[Inherited]:
        """What the next process is started with."""
        return [Inherited(name, os.dup(fd)) for name, fd in self.kept]

    def close(self) -> None:
        close(fd for _, fd in self.kept)


def hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, 0)
    return any(mask & select.POLLHUP and stat.S_ISSOCK(os.fstat(fd).st_mode) for _, mask in poll.poll(0))


def nobody() -> Notifier:
    """Without systemd."""
    return Notifier(enabled=False, watchdog_interval_s=None)


def close(fds: Any) -> None:
    for fd in fds:
        os.close(fd)


@pytest.fixture
def systemd() -> Iterator[FakeSystemd]:
    systemd = FakeSystemd()
    yield systemd
    systemd.close()


class Life:
    """What the control process does about sockets, in one life. Those that are left stay open when it dies."""

    def __init__(self, systemd: Notifier, in_force: Spec, own: Sequence[Inherited] = ()) -> None:
        self.found = find(own)
        self.store = Store(systemd, self.found)
        wanted = {endpoint.legacy for endpoint in endpoints(in_force)}
        self.store.forget(self.found.in_the_way(wanted))
        self.found.close_others(wanted)
        self.sockets = ListeningSockets.open(in_force, None, self.found.sockets)

    def keep(self) -> None:
        self.store.keep(self.sockets.bound, TOTALS)

    def inodes(self) -> list[int]:
        return [bound.socket.inode for bound in self.sockets.bound]

    def by_address(self) -> dict[str, int]:
        """Which socket each has, streams and datagrams apart."""
        return {
            f"{bound.socket.address} {bound.endpoint.datagram} {bound.endpoint.copy}": bound.socket.inode
            for bound in self.sockets.bound
        }

    def die(self) -> None:
        """As by SIGKILL."""
        self.found.close()
        self.sockets.let_go()
        self.store.release()


@pytest.fixture
def lives() -> Iterator[list[Life]]:
    """Whatever is in it is closed."""
    made: list[Life] = []
    yield made
    for life in made:
        life.sockets.close()
        life.die()


def everything(tmp_path: Path) -> Spec:
    """One of each kind of listening socket."""
    first = free_range(3)
    return spec(
        listener("web", port(first), Bind(UnixAddress(str(tmp_path / "web.sock")))),
        listener("abstract", Bind(UnixAddress(f"@relayd-test-{secrets.token_hex(4)}"))),
        listener("dns", port(first), streams=False, datagrams=True),
        listener("both", ANY_PORT, Bind(UnixAddress(str(tmp_path / "both"))), streams=False, datagrams=True),
        listener("six", Bind(InetAddress(Family.INET6, "::1", first)), datagrams=True),
        listener("range", port(first + 1, 2), streams=False, datagrams=True),
    )


KNOWN = (
    Known(
        Resolved(
            ServiceAddress("_http._tcp.test"),
            (InetAddress(Family.INET, "192.0.2.1", 80),),
            (Share(7),),
            Resolve(Family.INET, 2.0, 3.0),
        ),
        1234.5,
        2.0,
    ),
    Known(Resolved(NameAddress("a.test", 80), (InetAddress(Family.INET6, "2001:db8::1", 80),)), 1.0, 300.0),
)


# what is packed is found --------------------------------------------------------------------------------------------


def test_what_is_packed_is_found(tmp_path: Path, lives: list[Life]) -> None:
    # R5: execve(2), without systemd.
    wanted = everything(tmp_path)
    lives.append(Life(nobody(), wanted))
    (before,) = lives
    before.keep()
    before.store.remember(wanted, "0123", alone=True, known=KNOWN)
    before.store.counted = lambda: {"totals": 7}
    before.store.begin(before.sockets.bound, (), 0)
    for number in range(2):
        (sending,) = before.store.parcels(1)
        with sending:
            put(sending, Label(False, f"listener {number}", 1, 0))
    before.store.finish(TOTALS, 12, 34)
    inodes, taken = before.inodes(), before.store.take()
    before.die()
    lives.append(Life(nobody(), wanted, taken))
    found = lives[1].found
    assert lives[1].inodes() == inodes
    assert (found.totals, found.sessions, found.problem) == (TOTALS, 12, "")
    assert (found.spec, found.sha256, found.alone, found.known) == (wanted, "0123", True, KNOWN)
    assert found.counted == {"totals": 7}
    assert [label.listener if label else None for label in labels(found)] == ["listener 0", "listener 1"]
    assert found.connections == 34
    for path in ("web.sock", "both"):
        assert (tmp_path / path).is_socket()
    lives[1].sockets.close()
    assert list(tmp_path.iterdir()) == []  # it knows which files are its own


def put(sending: socket.socket, label: Label, *fds: int) -> None:
    """With an empty memfd in front; closes them all."""
    all_of_them = [os.memfd_create("records"), *fds]
    parcel.put(sending, label, all_of_them)
    close(all_of_them)


def labels(found: Found) -> list[Label | None]:
    """Of all batches, whose descriptors are closed."""
    labels = []
    for label, fds in found.batches():
        labels.append(label)
        close(fds)
    return labels


def test_more_sockets_than_the_store_has_room_for_come_in_a_parcel(systemd: FakeSystemd, lives: list[Life]) -> None:
    # R4
    count = SOCKETS_STORED_MAX + 300
    wanted = spec(listener("range", port(free_range(count), count), streams=False, datagrams=True))
    lives.append(Life(systemd, wanted))
    (before,) = lives
    before.keep()
    assert len(systemd.kept) == SOCKETS_STORED_MAX + 1
    before.store.begin(before.sockets.bound, (), 0)
    before.store.put()
    before.store.release()
    assert [name for name in systemd.names if "manifest" in name] == ["relayd-manifest-2"]
    assert systemd.names.count("relayd-more") == 1
    inodes = before.inodes()
    before.die()
    lives.append(Life(systemd, wanted, systemd.passed()))
    assert lives[1].inodes() == inodes
    lives[1].keep()
    assert len(systemd.kept) == SOCKETS_STORED_MAX + 1


def test_after_a_crash_those_that_are_in_no_store_are_bound_anew(
    systemd: FakeSystemd, lives: list[Life], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "SOCKETS_STORED_MAX", 2)
    wanted = spec(listener("range", port(free_range(4), 4)))
    lives.append(Life(systemd, wanted))
    lives[0].keep()
    before = lives[0].inodes()
    lives[0].die()
    lives.append(Life(systemd, wanted, systemd.passed()))
    after = lives[1].inodes()
    assert after[:2] == before[:2]
    assert not set(after[2:]) & set(before)


def test_the_next_life_removes_what_a_restart_has_put_there(
    systemd: FakeSystemd, tmp_path: Path, lives: list[Life]
) -> None:
    # R5: nothing stale is left in the store.
    wanted, seen = everything(tmp_path), []
    for _ in range(3):
        lives.append(Life(systemd, wanted, systemd.passed()))
        lives[-1].keep()
        seen.append(lives[-1].inodes())
        sockets = len(lives[-1].sockets.bound)
        assert len(systemd.kept) == sockets + 1
        assert len(set(systemd.names)) == sockets + 1
        lives[-1].store.begin(lives[-1].sockets.bound, (), 0)
        (sending,) = lives[-1].store.parcels(1)
        lives[-1].store.put()
        sending.close()
        lives[-1].store.release()
        assert len(systemd.kept) == sockets + 2  # a parcel, too
        lives[-1].die()
    assert seen[0] == seen[1] == seen[2]


# what is kept at any time -------------------------------------------------------------------------------------------


def test_each_socket_is_stored_once_and_what_is_gone_is_removed(systemd: FakeSystemd, lives: list[Life]) -> None:
    # R4
    first = free_range(3)
    lives.append(Life(systemd, spec(listener("a", port(first), port(first + 1)))))
    (life,) = lives
    life.keep()
    assert systemd.said == ["+relayd-socket-1", "+relayd-socket-2", "+relayd-manifest-1"]
    systemd.said.clear()
    life.keep()
    assert systemd.said == ["+relayd-manifest-2", "-relayd-manifest-1"]
    systemd.said.clear()
    life.sockets.prepare(change(life, spec(listener("a", port(first + 1), port(first + 2))))).commit()
    life.keep()
    assert systemd.said == ["+relayd-socket-3", "+relayd-manifest-3", "-relayd-manifest-2", "-relayd-socket-1"]
    life.sockets.retire()


def change(life: Life, new: Spec) -> Plan:
    in_force = spec(*dict.fromkeys(bound.endpoint.listener for bound in life.sockets.bound))
    return plan(in_force, new)


@pytest.mark.parametrize("understood", [True, False])
def test_what_is_in_the_way_goes_out_of_the_store_first(
    understood: bool, systemd: FakeSystemd, lives: list[Life]
) -> None:
    """As long as systemd has a socket, its address is taken: 127.0.0.1 is a part of 0.0.0.0."""
    number = free_range(1)
    lives.append(Life(systemd, spec(listener("a", port(number)))))
    lives[0].keep()
    lives[0].die()
    if not understood:  # it had died before there was a manifest
        systemd.unstore("relayd-manifest-1")
    wanted = spec(listener("a", Bind(InetAddress(Family.INET, "0.0.0.0", number))))
    lives.append(Life(systemd, wanted, systemd.passed()))
    lives[1].keep()
    assert len(systemd.kept) == 2


def test_without_systemd_nothing_is_kept(lives: list[Life]) -> None:
    class Deaf(FakeSystemd):
        enabled = False

    deaf = Deaf()
    lives.append(Life(deaf, spec(listener("a", ANY_PORT))))
    lives[0].keep()
    assert deaf.said == []


def test_what_systemd_has_passed_is_not_stored(systemd: FakeSystemd) -> None:
    unit = Unit()
    try:
        wanted = spec(listener("a", unit.bind(), ANY_PORT))
        sockets = ListeningSockets.open(wanted, unit.passed)
        store = Store(systemd, Found())
        store.keep(sockets.bound)
        assert systemd.names == ["relayd-socket-1", "relayd-manifest-1"]
        store.begin(sockets.bound, (), 0)
        taken = store.take()
        assert [one.name for one in taken] == ["relayd-manifest-2", "relayd-socket-1"]
        close(one.fd for one in taken)
        sockets.close()
    finally:
        unit.passed.close()
        unit.close()


@pytest.mark.parametrize("in_the_file", ["old", "new"])
def test_whenever_it_dies_what_is_in_the_store_makes_sense(in_the_file: str, tmp_path: Path, lives: list[Life]) -> None:
    # R4: at each message of a start and of a reload.
    first = free_range(4)
    path = Bind(UnixAddress(str(tmp_path / "a.sock")))
    old = spec(listener("a", port(first), path), listener("b", port(first + 1), streams=False, datagrams=True))
    new = spec(listener("a", port(first)), listener("c", port(first + 2), path), listener("d", port(first + 3)))
    assert dies_at(None, old, new, old if in_the_file == "old" else new, lives) == 11
    for message in range(11):
        assert dies_at(message, old, new, old if in_the_file == "old" else new, lives) == message


def dies_at(message: int | None, old: Spec, new: Spec, file: Spec, lives: list[Life]) -> int:
    """One life that does `old`, then `new`, and dies when it has said so much; the next does what the file says. How
    much was said.
    """
    systemd = FakeSystemd()
    systemd.lives_for = message
    life = Life(systemd, old)
    lives.append(life)
    kept = [life.by_address()]
    with contextlib.suppress(Crash):
        life.keep()
        life.sockets.prepare(change(life, new)).commit()
        kept.append(life.by_address())
        life.keep()
    said = len(systemd.said)
    known = any("manifest" in each for each in systemd.said)
    life.die()
    systemd.lives_for = None
    after = Life(systemd, file, systemd.passed())
    lives.append(after)
    assert after.found.problem == ""
    for address, inode in after.by_address().items():
        was = {each[address] for each in kept if address in each}
        if known and all(address in each for each in kept):  # it was there all the time, and is the same
            assert was == {inode}
    after.keep()
    assert len(systemd.kept) == len(set(systemd.names)) == len(after.sockets.bound) + 1
    after.sockets.close()
    systemd.close()
    return said


# what is not understood ---------------------------------------------------------------------------------------------


def with_manifest(life: Life, values: object) -> list[Inherited]:
    """What `life` would leave, with another manifest; it dies."""
    life.store.begin(life.sockets.bound, TOTALS, 3)
    life.store.put()
    taken = life.store.take()
    for one in taken:
        if one.name.startswith("relayd-manifest-"):
            parcel.rewrite(one.fd, Content(values))
    life.die()
    return taken


def manifest_of(systemd: FakeSystemd) -> Any:
    """What the manifest in the store says."""
    (memfd,) = (fd for name, fd in systemd.kept if name.startswith("relayd-manifest-"))
    return parcel.unpack(memfd).values


@pytest.mark.parametrize(
    "wrong",
    [
        {"version": MANIFEST_VERSION + 1},
        {"version": None},
        {"sessions": "many"},
        {"sessions": float("inf")},
        {"totals": [{"": "Popen"}]},
        {"totals": 7},
        {"sockets": None},
        {"sockets": [{"inode": 1}, 7]},
    ],
)
def test_a_manifest_that_is_not_understood_is_told_and_everything_is_bound_anew(
    wrong: dict[str, object], systemd: FakeSystemd, tmp_path: Path, lives: list[Life]
) -> None:
    # R5
    wanted = everything(tmp_path)
    lives.append(Life(systemd, wanted))
    lives[0].keep()
    before = lives[0].inodes()
    values = manifest_of(systemd) | wrong
    own = with_manifest(lives[0], values)
    lives.append(Life(systemd, wanted, own))
    assert lives[1].found.problem
    assert not set(lives[1].inodes()) & set(before)
    lives[1].keep()
    assert len(systemd.kept) == len(lives[1].sockets.bound) + 1


def test_a_later_version_is_named(lives: list[Life], systemd: FakeSystemd) -> None:
    lives.append(Life(systemd, spec(listener("a", ANY_PORT))))
    own = with_manifest(lives[0], {"version": MANIFEST_VERSION + 1})
    found = find(own)
    assert (
        found.problem
        == f"ValueError: it is of version {MANIFEST_VERSION + 1}, and this relayd knows {MANIFEST_VERSION}"
    )
    assert (found.sockets, found.totals, found.sessions) == ({}, (), 0)


@pytest.mark.parametrize("field", ["key", "address", "file"])
@pytest.mark.parametrize("value", [None, 7, "x", [], [1], {}, {"": "InetAddress"}])
def test_a_socket_that_is_not_understood_is_closed(
    field: str, value: object, lives: list[Life], systemd: FakeSystemd, tmp_path: Path
) -> None:
    wanted = spec(listener("a", Bind(UnixAddress(str(tmp_path / "a"))), ANY_PORT))
    lives.append(Life(systemd, wanted))
    lives[0].keep()
    values = manifest_of(systemd)
    values["sockets"][0][field] = value
    found = find(with_manifest(lives[0], values))
    assert bool(found.problem) is not (field == "file" and value is None)
    found.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["", "version", "sessions", "spec", "totals", "sockets", "inode", "key"]), inner
        )
    ),
    max_leaves=12,
)


#: What is read of a manifest of this version.
parts = st.dictionaries(st.sampled_from(["spec", "totals", "sockets"]), json_values)


@settings(max_examples=200)
@given(json_values | parts.map(lambda more: {"version": MANIFEST_VERSION, "sessions": 0, "spec": None, **more}))
def test_no_manifest_raises_or_leaves_anything_open(values: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        own = [
            Inherited("relayd-manifest-3", parcel.pack(Content(values))),
            Inherited("relayd-socket-2", os.dup(sock.fileno())),
        ]
        found = find(own)
    assert found.generation == 3
    assert found.stale == {"relayd-manifest-3", "relayd-socket-2"}
    assert found.last_socket == 2
    found.close()


@pytest.mark.parametrize("field", ["spec", "totals", "sockets"])
def test_a_manifest_may_be_nested_deeper_than_python_counts(field: str) -> None:
    nested: object = 7
    for _ in range(600):
        nested = {"": "Ready", "pid": nested}  # which json reads, and whoever asks what it is goes twice as deep
    values: dict[str, object] = {"version": MANIFEST_VERSION, "sessions": 0, "spec": None, "totals": [], "sockets": []}
    found = find([Inherited("relayd-manifest-1", parcel.pack(Content(values | {field: nested})))])
    assert bool(found.problem) is (field != "spec")


def test_names_of_others_are_closed_and_not_removed() -> None:
    """Not ours to remove, if ours at all."""
    names = ["relayd-other", "relayd-manifest-", "relayd-manifest-0", "relayd-socket-x", "relayd-socket-²"]
    with socket.socket() as sock:
        found = find([Inherited(name, os.dup(sock.fileno())) for name in names])
    assert found.generation == found.last_socket == 0
    assert found.sockets == {}


def test_of_several_manifests_the_last_is_read() -> None:
    manifests = [
        Inherited(f"relayd-manifest-{number}", parcel.pack(Content({"version": number}))) for number in (9, 10, 8)
    ]
    found = find(manifests)
    assert found.generation == 10
    assert "version 10" in found.problem


def test_what_nobody_takes_is_let_go_of(lives: list[Life], tmp_path: Path) -> None:
    path = tmp_path / "a"
    lives.append(Life(nobody(), spec(listener("a", Bind(UnixAddress(str(path)))))))
    lives[0].store.begin(lives[0].sockets.bound, (), 0)
    close(end.detach() for end in lives[0].store.parcels(1))
    packed = lives[0].store.take()
    lives[0].die()
    found = find(packed)
    assert len(found.sockets) == len(found.parcels) == 1
    found.close()
    found.close()
    assert path.is_socket()
    path.unlink()


@pytest.mark.parametrize(
    ("copies", "sessions", "workers", "expected"),
    [
        (0, 0, 3, None),
        (0, 9, 3, None),
        (1, 0, 3, None),  # two more may join
        (1, 9, 3, 1),
        (3, 0, 3, None),
        (3, 9, 3, 3),
        (3, 0, 1, 3),  # each may have datagrams waiting
        (3, 9, 1, 3),
    ],
)
def test_how_many_copies_an_address_is_to_have(copies: int, sessions: int, workers: int, expected: int | None) -> None:
    # R4: the kernel goes on giving each client to the same socket.
    address = InetAddress(Family.INET, "127.0.0.1", 53)
    keys = [SocketKey(address, True, None, number) for number in range(copies)]
    others = [SocketKey(address, False, None, 7), SocketKey(UnixAddress("/a"), True, None, 8)]
    found = Found(dict.fromkeys([*keys, *others]), sessions=sessions)  # type: ignore[arg-type]  # the keys alone count
    assert found.copies_for(workers) == expected


# dealing ------------------------------------------------------------------------------------------------------------


class FakeSockets:
    """Which worker has which receiving socket."""

    def __init__(self, owners: dict[int, int]) -> None:
        self._owners = owners

    def worker_of(self, inode: int) -> int | None:
        return self._owners.get(inode)


def dealt(
    *batches: Label | None, workers: int = 3, connections: int = 100, sessions: int = 100
) -> tuple[list[tuple[int, Label, int]], Dealer]:
    """What comes out of a dealer: worker, label, how many descriptors; and the dealer."""
    parcels = [parcel.pair() for _ in range(2)]
    for number, label in enumerate(batches):  # in the first parcel, and the second
        sending = parcels[number * 2 // len(batches)][1]
        if label is None:
            fd = os.memfd_create("garbage")
            socket.send_fds(sending, [b"garbage"], [fd])
            os.close(fd)
        else:
            put(sending, label, *(os.memfd_create("one") for _ in range(label.size)))
    for _, sending in parcels:
        sending.close()
    dealer = dealer_of(Found(parcels=[kept for kept, _ in parcels]), workers, connections, sessions)

    async def deal() -> list[tuple[int, Label, int]]:
        got = []
        async for worker, message, fds in dealer.batches():
            assert isinstance(message, Adopt)
            got.append((worker, message.label, len(fds)))
            close(fds)
        return got

    got = asyncio.run(deal())
    dealer.close()
    return got, dealer


def dealer_of(found: Found, workers: int = 2, connections: int = 100, sessions: int = 100) -> Dealer:
    budget = Budget(1024, 1, True, True, 0, connections, sessions)
    return Dealer(found, FakeSockets({71: 1, 72: 2, 73: 3}), budget, workers)  # type: ignore[arg-type]  # all that is asked


def connections(count: int) -> Label:
    return Label(False, "web", count, 2)


def sessions(count: int, inode: int) -> Label:
    return Label(True, "dns", count, 1, inode)


def test_connections_go_to_the_worker_with_the_fewest() -> None:
    batches = [connections(count) for count in (50, 20, 10, 10, 10, 5)]
    got, dealer = dealt(*batches)
    assert [worker for worker, _, _ in got] == [1, 2, 3, 3, 2, 3]
    assert [label for _, label, _ in got] == batches
    assert {count for _, _, count in got} == {3}
    assert dealer.lost == 0
    assert dealer.missing(Adopted()) == (105, 0)


def test_sessions_go_with_their_socket() -> None:
    # R4
    got, dealer = dealt(sessions(1, 73), sessions(9, 72), sessions(1, 73), sessions(1, 71))
    assert [worker for worker, _, _ in got] == [3, 2, 3, 1]
    assert dealer.missing(Adopted()) == (0, 12)


def test_sessions_whose_socket_nobody_has_go_to_the_first_to_be_counted() -> None:
    got, _ = dealt(sessions(2, 99))
    assert got == [(1, sessions(2, 99), 2)]


def test_what_finds_no_room_comes_without_its_descriptors() -> None:
    # F2
    got, dealer = dealt(*[connections(60)] * 4, *[sessions(60, 72)] * 2, sessions(40, 72))
    assert [(worker, count) for worker, _, count in got] == [(1, 3), (2, 3), (3, 3), (1, 0), (2, 2), (1, 0), (2, 2)]
    # Whoever gets those without descriptors tells of them.
    assert dealer.missing(Adopted(180, 100, 60, 60)) == (0, 0)
    assert dealer.missing(Adopted(120, 99, 60, 60)) == (60, 1)
    assert dealer.missing(Adopted(120, 99, 0, 0)) == (120, 61)


def test_what_has_no_label_is_counted_and_closed() -> None:
    # R5
    got, dealer = dealt(None, connections(1), None)
    assert [worker for worker, _, _ in got] == [1]
    assert dealer.lost == 2
    assert dealer.missing(Adopted()) == (1, 0)


@pytest.mark.parametrize(
    ("connections", "sessions", "shares"), [(100, 0, True), (101, 0, False), (1, 1, False), (None, 0, False)]
)
def test_workers_take_what_any_of_them_may_have_as_a_whole(
    connections: int | None, sessions: int, shares: bool
) -> None:
    kept, sending = parcel.pair()
    sending.close()
    found = Found(parcels=[kept], connections=connections, sessions=sessions)
    # Of two workers.
    expected = Shared([kept.fileno()], -(-connections // 2)) if shares and connections is not None else None
    assert dealer_of(found, connections=101).shared() == expected  # and a descriptor for the parcel
    found.close()


def test_what_workers_leave_is_missing_and_closed() -> None:
    kept, sending = parcel.pair()
    with sending:
        put(sending, connections(1), os.memfd_create("one"), os.memfd_create("other"))
    dealer = dealer_of(Found(parcels=[kept], connections=3))
    assert dealer.shared() is not None
    dealer.close()
    assert (dealer.lost, kept.fileno()) == (0, -1)
    assert dealer.missing(Adopted(2)) == (1, 0)
    assert dealer.missing(Adopted(1, told_connections=2)) == (0, 0)


def test_without_parcels_nobody_had_what_the_manifest_says() -> None:
    dealer = dealer_of(Found(connections=300))
    assert dealer.shared() is None
    dealer.close()
    assert dealer.missing(Adopted()) == (0, 0)


def test_garbage_that_workers_leave_is_counted() -> None:
    kept, sending = parcel.pair()
    with sending:
        fd = os.memfd_create("garbage")
        socket.send_fds(sending, [b"garbage"], [fd])
        os.close(fd)
    dealer = dealer_of(Found(parcels=[kept], connections=0))
    dealer.close()
    assert dealer.lost == 1
