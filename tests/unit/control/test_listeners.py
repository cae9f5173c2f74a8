import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.control.listeners import BindFailed, ListeningSockets
from relayd.spec import (
    Bind,
    Listener,
    Log,
    SocketOptions,
    Spec,
    Stream,
    StreamTimeouts,
)
from tests.ports import OWN_HOST, free_range
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))
LISTENER = Listener("web", (), BINDING, (), None, STREAM, None)
ANY_PORT = InetAddress(Family.INET, "127.0.0.1", 0)


def spec_of(**binds: tuple[SocketAddress, ...]) -> Spec:
    listeners = tuple(
        replace(LISTENER, name=name, binds=tuple(map(Bind, addresses))) for name, addresses in binds.items()
    )
    return Spec(1, 30.0, Log("info", "auto", access=False), listeners)


def test_sockets_stand_in_the_order_of_the_spec(tmp_path: Path) -> None:
    path = UnixAddress(str(tmp_path / "a.sock"))
    sockets = ListeningSockets.open(spec_of(web=(ANY_PORT, path), other=(ANY_PORT,)))
    assert [bound.endpoint.listener.name for bound in sockets.bound] == ["web", "web", "other"]
    assert sockets.bound[1].socket.address == path
    assert len(set(sockets.filenos(1))) == 3
    sockets.close()
    sockets.close()
    assert sockets.filenos(1) == [-1, -1, -1]
    assert list(tmp_path.iterdir()) == []


def test_every_problem_is_told_and_nothing_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = InetAddress(Family.INET, "127.0.0.1", taken.getsockname()[1])
        missing = UnixAddress("/nowhere/at/all.sock")
        with pytest.raises(BindFailed) as failure:
            ListeningSockets.open(spec_of(web=(used, UnixAddress(str(path))), pg=(missing,)))
    first, second = failure.value.problems
    assert first.startswith(f"listeners.web: {used}: address already in use: ")
    assert second.startswith("listeners.pg: unix:/nowhere/at/all.sock: the directory /nowhere/at does not exist")
    assert str(failure.value) == f"{first}\n{second}"
    assert not path.exists()


# Datagrams and ranges.


def datagram_spec(workers: int, *binds: Bind, stream: Stream | None = None) -> Spec:
    listener = Listener("game", binds, BINDING, (), None, stream, DATAGRAM)
    return Spec(workers, 30.0, Log("info", "auto", access=False), (listener,))


def ports_of(sockets: ListeningSockets) -> list[int]:
    found = []
    for bound in sockets.bound:
        assert isinstance(bound.socket.address, InetAddress)
        found.append(bound.socket.address.port)
    return found


def test_a_port_has_a_socket_for_streams_and_one_for_each_workers_datagrams() -> None:
    spec = datagram_spec(3, Bind(replace(ANY_PORT, port=free_range(1))), stream=STREAM)
    sockets = ListeningSockets.open(spec)
    try:
        shared, *owned = [bound.socket.fileno() for bound in sockets.bound]
        assert [sockets.filenos(worker) for worker in (1, 2, 3)] == [[shared, fd] for fd in owned]
        assert [str(each.address) for each in sockets.opened()] == [str(sockets.bound[0].socket.address)] * 2
        assert [each.datagram for each in sockets.opened()] == [False, True]
    finally:
        sockets.close()


def test_copies_of_a_port_of_the_kernels_choice_have_the_same_one() -> None:
    sockets = ListeningSockets.open(datagram_spec(3, Bind(ANY_PORT)))
    try:
        (port,) = set(ports_of(sockets))
        assert port > 0
        assert [str(each.address) for each in sockets.opened()] == [f"127.0.0.1:{port}"]
    finally:
        sockets.close()


@pytest.mark.parametrize(("theirs", "ours"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_a_second_daemon_is_refused(theirs: int, ours: int) -> None:
    first = ListeningSockets.open(datagram_spec(theirs, Bind(ANY_PORT)))
    try:
        address = first.bound[0].socket.address
        with pytest.raises(BindFailed, match="address already in use"):
            ListeningSockets.open(datagram_spec(ours, Bind(address)))
    finally:
        first.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.alone
def test_ten_thousand_ports(workers: int) -> None:
    """One socket for each, dealt to the workers; a second daemon has one line about those that it cannot have."""
    first = free_range(10_000, OWN_HOST)
    bind = Bind(replace(ANY_PORT, host=OWN_HOST, port=first), 10_000)
    spec = datagram_spec(workers, bind)
    before = time.process_time()
    sockets = ListeningSockets.open(spec)
    try:
        assert time.process_time() - before < 2.0
        assert ports_of(sockets) == list(range(first, first + 10_000))
        assert [len(sockets.filenos(worker)) for worker in range(1, workers + 1)] == [10_000 // workers] * workers
        assert [str(each.address) for each in sockets.opened()] == [str(bind)]
        few = Bind(replace(ANY_PORT, host=OWN_HOST, port=first + 5), 3)
        with pytest.raises(BindFailed) as failure:
            ListeningSockets.open(datagram_spec(workers, few))
        (problem,) = failure.value.problems
        assert problem.startswith(f"listeners.game: {OWN_HOST}:")
        assert problem.endswith(" (and 2 more of this bind)")
    finally:
        sockets.close()


def test_each_type_has_its_own_problem() -> None:
    both = ListeningSockets.open(datagram_spec(1, Bind(replace(ANY_PORT, port=free_range(1))), stream=STREAM))
    try:
        with pytest.raises(BindFailed) as failure:
            ListeningSockets.open(datagram_spec(1, Bind(both.bound[0].socket.address), stream=STREAM))
        streams, datagrams = failure.value.problems
        assert "(ss -ltnp " in streams
        assert "(ss -lunp " in datagrams
    finally:
        both.close()
