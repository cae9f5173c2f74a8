"""Which worker has which listening socket."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, SystemdAddress, UnixAddress
from relayd.spec import (
    Bind,
    Listener,
    Log,
    Passed,
    SocketOptions,
    Spec,
    Stream,
    StreamTimeouts,
)
from relayd.spec.budget import budget_of
from relayd.spec.sockets import (
    Covered,
    Endpoint,
    copies_of,
    endpoints,
    endpoints_of,
    session_share,
    socket_count,
    worker_socket_count,
)
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))
ONE = Bind(InetAddress(Family.INET, "127.0.0.1", 53))
RANGE = Bind(InetAddress(Family.INET6, "::1", 5000), 10)
UNIX = Bind(UnixAddress("@a"))
ANY_PORT = Bind(InetAddress(Family.INET, "127.0.0.1", 0))


def listener(name: str, *binds: Bind, streams: bool = False, max_sessions: int | None = None) -> Listener:
    return Listener(
        name, binds, BINDING, (), None, STREAM if streams else None, replace(DATAGRAM, max_sessions=max_sessions)
    )


def spec(workers: int, *listeners: Listener) -> Spec:
    return Spec(workers, 30.0, Log("info", "auto", access=True), listeners)


#: What systemd has passed under one name: at least one of each type, for both is what some listeners serve.
passed = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(
    lambda counts: tuple(
        Passed(datagram, InetAddress(Family.INET6, f"::{number}", 53), ipv6_only=True)
        for datagram, count in zip((False, True), counts, strict=True)
        for number in range(count)
    )
)
binds = st.one_of(
    st.builds(Bind, st.sampled_from([ONE.address, RANGE.address]), st.integers(1, 20)),
    st.just(UNIX),
    st.just(ANY_PORT),
    st.builds(Bind, st.builds(SystemdAddress, st.sampled_from(["a", "b"])), st.just(1), passed),
)
listeners = st.builds(
    Listener,
    st.uuids().map(str),
    st.lists(binds, min_size=1, max_size=4, unique=True).map(tuple),
    st.just(BINDING),
    st.just(()),
    st.none(),
    st.sampled_from([STREAM, None]),
    st.none() | st.builds(replace, st.just(DATAGRAM), max_sessions=st.none() | st.integers(1, 5000)),
)
specs = st.builds(
    Spec,
    st.integers(1, 9),
    st.just(30.0),
    st.just(Log("info", "auto", True)),
    st.lists(listeners, max_size=3).map(tuple),
    copies=st.none() | st.integers(1, 9),
)


def nobodys(endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, worker=None, copy=0, lap=0)


def shown(endpoint: Endpoint) -> str:
    return f"{endpoint.address} {'dgram' if endpoint.datagram else 'stream'} {endpoint.worker}"


def test_one_port_is_a_socket_for_each_worker() -> None:
    found = list(endpoints(spec(3, listener("a", ONE, streams=True))))
    assert list(map(shown, found)) == [
        "127.0.0.1:53 stream None",
        "127.0.0.1:53 dgram 1",
        "127.0.0.1:53 dgram 2",
        "127.0.0.1:53 dgram 3",
    ]
    assert list(map(shown, endpoints_of(spec(3, listener("a", ONE, streams=True)), 2))) == [
        "127.0.0.1:53 stream None",
        "127.0.0.1:53 dgram 2",
    ]


def test_with_one_worker_everything_is_its_own() -> None:
    alone = spec(1, listener("a", ONE, RANGE, UNIX, streams=True))
    found = list(endpoints(alone))
    assert list(endpoints_of(alone, 1)) == found
    assert len(found) == 24
    assert {endpoint.worker for endpoint in found if endpoint.datagram} == {1}


def test_ports_of_a_range_are_dealt_in_turn() -> None:
    workers = [endpoint.worker for endpoint in endpoints(spec(3, listener("a", RANGE)))]
    assert len(workers) == 10
    assert all(one is not None and other == one % 3 + 1 for one, other in pairwise(workers))


def test_the_deal_depends_on_nothing_else_in_the_file() -> None:
    mine = listener("mine", RANGE, UNIX)
    alone = list(endpoints(spec(4, mine)))
    among = spec(4, listener("x", UNIX), mine, listener("y", RANGE))
    assert [endpoint for endpoint in endpoints(among) if endpoint.listener is mine] == alone


def test_first_workers_differ_by_address() -> None:
    binds = [Bind(UnixAddress(f"@{number}")) for number in range(100)]
    binds += [Bind(InetAddress(Family.INET6, f"::{number}", 5000), 2) for number in range(100)]
    dealt = Counter(endpoint.worker for endpoint in endpoints(spec(4, listener("a", *binds))))
    assert set(dealt) == {1, 2, 3, 4}
    assert min(dealt.values()) > 20


def test_a_range_that_grows_at_either_end_moves_no_port_to_another_worker() -> None:
    longer = Bind(InetAddress(Family.INET6, "::1", 4990), 30)
    before, after = (
        {each.address: each.worker for each in endpoints(spec(3, listener("a", bind)))} for bind in (RANGE, longer)
    )
    assert len(before) == 10
    assert before.items() <= after.items()


@given(specs)
def test_every_socket_has_its_place(spec: Spec) -> None:
    """Streams belong to all, each datagram socket to one worker; control and workers count alike; order is kept."""
    everything = list(endpoints(spec))
    assert len(everything) == socket_count(spec)
    per_worker = [list(endpoints_of(spec, worker)) for worker in range(1, spec.workers + 1)]
    for worker, owned in enumerate(per_worker, 1):
        assert owned == [one for one in everything if one.worker in (None, worker)]
    assert sum(one.datagram for one in everything) == sum(one.datagram for owned in per_worker for one in owned)
    assert worker_socket_count(spec) == max(map(len, per_worker))
    assert budget_of(spec, 20_000).listening == max(map(len, per_worker))
    for one in everything:
        addresses = list(one.bind.addresses())
        if one.from_systemd:
            addresses = [each.address for each in one.bind.passed_for(datagrams=one.datagram)]
        assert addresses[one.index] == one.address
        if one.datagram:
            copied = one.bind.ports == 1 and isinstance(one.bind.address, InetAddress)
            copies = (spec.copies or spec.workers) if copied else 1
            assert copies_of(one.bind, spec) == copies
            same = [other for other in everything if nobodys(other) == nobodys(one)]
            assert [other.copy for other in same] == list(range(copies))
            # Each worker has as many as any other, or one more; and what it has, it counts.
            owners = Counter(other.worker for other in same)
            assert len(owners) == min(copies, spec.workers)
            assert max(owners.values()) - min(owners.values()) <= 1
            for owner, count in owners.items():
                assert [each.lap for each in same if each.worker == owner] == list(range(count))
            assert one.worker in range(1, spec.workers + 1)
        else:
            assert one.worker is None


@given(specs)
def test_shares_of_sessions_add_up(spec: Spec) -> None:
    for one in spec.listeners:
        shares = [session_share(one, spec, worker) for worker in range(1, spec.workers + 1)]
        limit = one.datagram.max_sessions if one.datagram else None
        if limit is None:
            assert set(shares) == {None}
            continue
        counts = [share for share in shares if share is not None]
        assert len(counts) == spec.workers
        assert limit <= sum(counts) < limit + spec.workers
        alone = replace(spec, listeners=(one,))
        for worker, share in enumerate(counts, 1):
            assert (share > 0) == any(endpoint.datagram for endpoint in endpoints_of(alone, worker))


def apart(spec: Spec) -> Spec:
    """No two listeners have an address in common, as in any file that is taken."""
    taken: set[object] = set()
    listeners = []
    for one in spec.listeners:
        binds = []
        for bind in one.binds:
            addresses: set[object] = set(bind.addresses()) or {bind.address}
            if bind == ANY_PORT or not addresses & taken:
                taken |= addresses
                binds.append(bind)
        listeners.append(replace(one, binds=tuple(binds)))
    return replace(spec, listeners=tuple(listeners))


@given(specs.map(apart), st.integers(1, 9))
def test_a_key_is_of_one_socket_and_outlives_another_number_of_workers(one: Spec, workers: int) -> None:
    # R2, R4
    everything = list(endpoints(one))
    assert len({endpoint.key for endpoint in everything}) == len(everything)
    assert len({endpoint.legacy for endpoint in everything}) == len(everything)
    # With as many copies, whoever has them.
    copies = one.copies or one.workers
    other = replace(one, workers=workers, copies=copies)
    assert [endpoint.legacy for endpoint in endpoints(other)] == [endpoint.legacy for endpoint in everything]


def test_copies_are_dealt_in_turn() -> None:
    # R4: a restart with other workers.
    def owners(workers: int, copies: int | None) -> list[tuple[int | None, int, int]]:
        one = replace(spec(workers, listener("a", ONE)), copies=copies)
        return [(endpoint.worker, endpoint.copy, endpoint.lap) for endpoint in endpoints(one)]

    assert owners(2, None) == [(1, 0, 0), (2, 1, 0)]
    assert owners(2, 5) == [(1, 0, 0), (2, 1, 0), (1, 2, 1), (2, 3, 1), (1, 4, 2)]
    assert owners(3, 2) == [(1, 0, 0), (2, 1, 0)]
    assert len(owners(3, 1)) == 1


def test_shares_of_sessions_follow_the_copies() -> None:
    one = listener("a", ONE, max_sessions=100)
    uneven = replace(spec(2, one), copies=5)
    assert [session_share(one, uneven, worker) for worker in (1, 2)] == [60, 40]
    assert worker_socket_count(uneven) == 3
    few = replace(spec(3, one), copies=2)
    assert [session_share(one, few, worker) for worker in (1, 2, 3)] == [50, 50, 0]


def test_shares_of_sessions() -> None:
    def shares(workers: int, *binds: Bind) -> list[int | None]:
        one = listener("a", *binds, max_sessions=4096)
        return [session_share(one, spec(workers, one), worker) for worker in range(1, workers + 1)]

    assert shares(1, ONE) == [4096]
    assert shares(2, ONE) == [2048, 2048]
    assert sorted(share or 0 for share in shares(2, UNIX)) == [0, 4096]
    assert shares(2, RANGE) == [2048, 2048]
    assert session_share(listener("a", ONE), spec(2), 1) is None


def test_what_a_wildcard_covers() -> None:
    def covered(host: str, ipv6_only: bool = False) -> Covered:
        family = Family.INET6 if ":" in host else Family.INET
        bound = replace(
            listener("a", Bind(InetAddress(family, host, 53))), binding=replace(BINDING, ipv6_only=ipv6_only)
        )
        return Covered(endpoints(spec(2, bound)))

    four, six = InetAddress(Family.INET, "127.0.0.1", 53), InetAddress(Family.INET6, "::1", 53)
    assert four in covered("127.0.0.1")
    assert four in covered("0.0.0.0")
    assert four in covered("::")
    assert four not in covered("::", ipv6_only=True)
    assert four not in covered("127.0.0.2")
    assert six in covered("::")
    assert six not in covered("0.0.0.0")
    assert InetAddress(Family.INET, "127.0.0.1", 54) not in covered("0.0.0.0")
    assert UnixAddress("@a") not in covered("0.0.0.0")


SYSTEMD = Bind(
    SystemdAddress("dns"),
    passed=(
        Passed(True, InetAddress(Family.INET, "0.0.0.0", 53)),
        Passed(False, InetAddress(Family.INET, "0.0.0.0", 53)),
        Passed(True, InetAddress(Family.INET6, "::", 53), ipv6_only=True),
    ),
)


def test_what_systemd_passes_is_one_socket_each_of_the_types_that_are_served() -> None:
    found = list(endpoints(spec(3, listener("a", SYSTEMD, streams=True))))
    assert [(str(one.address), one.datagram, one.index) for one in found] == [
        ("0.0.0.0:53", False, 0),
        ("0.0.0.0:53", True, 0),
        ("[::]:53", True, 1),
    ]
    assert found[0].worker is None
    assert all(one.worker in (1, 2, 3) for one in found[1:])
    assert len(list(endpoints(spec(3, listener("a", SYSTEMD))))) == 2


def test_a_socket_of_systemd_is_told_by_its_name() -> None:
    """Whatever else its listener says, and whatever it is called."""
    other = replace(listener("b", SYSTEMD), binding=replace(BINDING, interface="lo", ipv6_only=True))
    first, second = ([one.key for one in endpoints(spec(3, each))] for each in (listener("a", SYSTEMD), other))
    assert first == second
    assert len(set(first)) == 2
    own = listener("c", Bind(InetAddress(Family.INET, "0.0.0.0", 53)))
    assert not set(first) & {one.key for one in endpoints(spec(3, own))}


def test_where_it_is_not_known_what_systemd_passes_one_of_each_type_is_counted() -> None:
    unknown = spec(3, listener("a", Bind(SystemdAddress("dns")), streams=True, max_sessions=30))
    assert list(endpoints(unknown)) == []
    assert socket_count(unknown) == 2
    assert worker_socket_count(unknown) == 2
    assert [session_share(unknown.listeners[0], unknown, worker) for worker in (1, 2, 3)] == [30, 0, 0]


def test_what_a_wildcard_of_systemd_covers() -> None:
    four, six = (
        Bind(SystemdAddress("a"), passed=SYSTEMD.passed[:1]),
        Bind(SystemdAddress("a"), passed=SYSTEMD.passed[2:]),
    )
    loopback = InetAddress(Family.INET, "127.0.0.1", 53)
    assert loopback in Covered(endpoints(spec(2, listener("a", four))))
    assert loopback not in Covered(endpoints(spec(2, listener("a", six))))  # whatever the listener says of ipv6_only
    assert InetAddress(Family.INET6, "::1", 53) in Covered(endpoints(spec(2, listener("a", six))))
