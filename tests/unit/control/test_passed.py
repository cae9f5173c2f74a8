"""What systemd has passed, through starts and reloads: it is never closed, and never bound again."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SystemdAddress
from relayd.control.listeners import BindFailed, ListeningSockets
from relayd.control.passed import PassedSockets
from relayd.sd.activation import Inherited
from relayd.spec import Bind, Listener, Log, SocketOptions, Spec, Stream, StreamTimeouts
from relayd.spec.passed import Passed
from relayd.spec.plan import plan
from tests.ports import free_range
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))


class Unit:
    """The sockets of one .socket unit on each of some loopback addresses, and those that were passed of them."""

    def __init__(self, hosts: tuple[str, ...] = ("127.0.0.1",)) -> None:
        port = free_range(1)
        self.made: list[socket.socket] = []
        for host in hosts:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sock = socket.socket(socket.AF_INET, kind)
                self.made.append(sock)
                sock.bind((host, port))
                if kind == socket.SOCK_STREAM:
                    sock.listen()
        self.port = port
        self.passed = PassedSockets(Inherited("dns", os.dup(sock.fileno())) for sock in self.made)

    def bind(self) -> Bind:
        found = self.passed.inventory["dns"]
        return Bind(SystemdAddress("dns"), passed=tuple(one for one in found if isinstance(one, Passed)))

    def close(self) -> None:
        for sock in self.made:
            sock.close()


@pytest.fixture
def unit() -> Iterator[Unit]:
    unit = Unit(("127.0.0.1", "127.0.0.2"))
    yield unit
    unit.passed.close()
    unit.close()


def listener(name: str, *binds: Bind, streams: bool = True, datagrams: bool = True) -> Listener:
    return Listener(name, binds, BINDING, (), None, STREAM if streams else None, DATAGRAM if datagrams else None)


def spec(*listeners: Listener) -> Spec:
    return Spec(3, 30.0, Log("info", "auto", access=False), listeners)


def inodes(sockets: ListeningSockets) -> list[int]:
    """Which socket each endpoint has."""
    return [os.fstat(bound.socket.fileno()).st_ino for bound in sockets.bound]


def reload(sockets: ListeningSockets, old: Spec, new: Spec) -> None:
    sockets.prepare(plan(old, new)).commit()
    sockets.retire()


def test_the_inventory(unit: Unit) -> None:
    hosts = [InetAddress(Family.INET, host, unit.port) for host in ("127.0.0.1", "127.0.0.2")]
    assert unit.passed.inventory == {
        "dns": tuple(Passed(datagram, host) for host in hosts for datagram in (False, True))
    }
    assert PassedSockets().inventory == {}


def test_each_endpoint_has_its_socket(unit: Unit) -> None:
    sockets = ListeningSockets.open(spec(listener("a", unit.bind())), unit.passed)
    made = [os.fstat(sock.fileno()).st_ino for sock in unit.made]
    assert inodes(sockets) == [made[0], made[2], made[1], made[3]]  # streams first
    told = [(str(each.address), each.datagram, str(each.passed_as)) for each in sockets.opened()]
    assert told == [
        (f"{host}:{unit.port}", datagram, "systemd:dns")
        for datagram in (False, True)
        for host in ("127.0.0.1", "127.0.0.2")
    ]
    assert len(sockets.filenos(1)) + len(sockets.filenos(2)) + len(sockets.filenos(3)) == 3 * 2 + 2
    sockets.close()
    sockets.close()
    socket.create_connection(("127.0.0.1", unit.port)).close()


def test_reloads_let_go_of_a_name_and_come_back_to_it(unit: Unit) -> None:
    # R2
    with_it, other = (
        spec(listener("a", unit.bind())),
        spec(listener("c", Bind(InetAddress(Family.INET, "127.0.0.3", 0)))),
    )
    sockets = ListeningSockets.open(with_it, unit.passed)
    with contextlib.closing(sockets):
        before = inodes(sockets)
        renamed = spec(listener("b", unit.bind()))
        kept = [bound.socket for bound in sockets.bound]
        reload(sockets, with_it, renamed)
        assert [bound.socket for bound in sockets.bound] == kept
        reload(sockets, renamed, other)
        reload(sockets, other, with_it)  # before the workers have let go of the datagram sockets
        assert inodes(sockets) == before
        reload(sockets, with_it, other)
        for worker in (1, 2, 3):
            sockets.release(worker, None)
        socket.create_connection(("127.0.0.1", unit.port)).close()  # it waits in the backlog
        reload(sockets, other, with_it)
        assert inodes(sockets) == before
        reload(sockets, with_it, spec(listener("a", unit.bind(), datagrams=False)))
        assert inodes(sockets) == before[:2]


def test_a_refused_reload_leaves_it_as_it_was(unit: Unit, tmp_path: Path) -> None:
    # R1
    old = spec(listener("a", unit.bind(), datagrams=False))
    sockets = ListeningSockets.open(old, unit.passed)
    with contextlib.closing(sockets):
        slow = replace(STREAM, options=replace(STREAM.options, nodelay=False))
        changed = replace(listener("a", unit.bind()), stream=slow)
        file = Bind(InetAddress(Family.INET, "192.0.2.1", 1))  # not here
        before = inodes(sockets)
        with pytest.raises(BindFailed, match=r"^listeners\.b: 192\.0\.2\.1:1: "):
            sockets.prepare(plan(old, spec(changed, listener("b", file, datagrams=False))))
        assert inodes(sockets) == before
        assert unit.made[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        options = replace(STREAM.options, congestion="nosuch")
        wrong = plan(None, spec(replace(listener("a", unit.bind()), stream=replace(STREAM, options=options))))
        with pytest.raises(BindFailed, match=rf"^listeners\.a: 127\.0\.0\.1:{unit.port}: congestion control 'nosuch'"):
            sockets.prepare(wrong)
        assert inodes(sockets) == before


def test_what_nobody_uses_is_told(unit: Unit) -> None:
    everything = (
        f"dns (stream, 127.0.0.1:{unit.port}), dns (dgram, 127.0.0.1:{unit.port}), "
        f"dns (stream, 127.0.0.2:{unit.port}), dns (dgram, 127.0.0.2:{unit.port})"
    )
    assert unit.passed.unused(spec()) == everything
    assert unit.passed.unused(spec(listener("a", Bind(SystemdAddress("web"))))) == everything
    datagrams = f"dns (dgram, 127.0.0.1:{unit.port}), dns (dgram, 127.0.0.2:{unit.port})"
    assert unit.passed.unused(spec(listener("a", unit.bind(), datagrams=False))) == datagrams
    assert unit.passed.unused(spec(listener("a", unit.bind()))) == ""


def test_what_cannot_be_used_is_owned_all_the_same() -> None:
    read, write = os.pipe()
    passed = PassedSockets([Inherited("odd", read), Inherited("odd", write)])
    assert passed.unused(spec()) == "odd (a FIFO), odd (a FIFO)"
    passed.close()
    passed.close()
