"""Listening sockets that another process has left: gone on with, as far as the file says so (R4, R5)."""

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, UnixAddress
from relayd.control import listeners as module
from relayd.control.handover import Found
from relayd.control.listeners import BindFailed, ListeningSockets
from relayd.net.listening import ListeningSocket
from relayd.spec import Bind, Listener, Log, SocketOptions, Spec, Stream, StreamTimeouts
from relayd.spec.plan import plan
from relayd.spec.sockets import SocketKey, endpoints
from tests.ports import free_range
from tests.specs import BINDING, DATAGRAM

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))
ANY_PORT = Bind(InetAddress(Family.INET, "127.0.0.1", 0))

Opened = list[ListeningSockets]


def port(number: int, host: str = "127.0.0.1", ports: int = 1) -> Bind:
    return Bind(InetAddress(Family.INET, host, number), ports)


def path(file: Path) -> Bind:
    return Bind(UnixAddress(str(file)))


def listener(name: str, *binds: Bind, streams: bool = True, datagrams: bool = False) -> Listener:
    return Listener(name, binds, BINDING, (), None, STREAM if streams else None, DATAGRAM if datagrams else None)


def spec(*listeners: Listener, workers: int = 2, copies: int | None = None) -> Spec:
    return Spec(workers, 30.0, Log("info", "auto", access=False), listeners, copies=copies)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Whatever is in it is closed, with its files."""
    made: Opened = []
    yield made
    for sockets in made:
        sockets.close()


def left_by(sockets: ListeningSockets) -> dict[SocketKey, ListeningSocket]:
    """What the next process gets of these, which are let go of."""
    left = {
        bound.endpoint.legacy: ListeningSocket.taken_over(
            os.dup(bound.socket.fileno()), bound.socket.address, bound.socket.identity
        )
        for bound in sockets.bound
    }
    sockets.let_go()
    return left


def inodes(sockets: ListeningSockets) -> list[int]:
    return [bound.socket.inode for bound in sockets.bound]


def restarted(opened: Opened, before: Spec, after: Spec) -> tuple[list[int], list[int]]:
    """The sockets of both lives."""
    opened.append(ListeningSockets.open(before))
    was = inodes(opened[-1])
    found = Found(sockets=left_by(opened[-1]))
    found.close_others({endpoint.legacy for endpoint in endpoints(after)})
    opened.append(ListeningSockets.open(after, None, found.sockets))
    assert found.sockets == {}
    return was, inodes(opened[-1])


def everything(tmp_path: Path) -> Spec:
    first = free_range(3)
    return spec(
        listener("web", port(first), path(tmp_path / "web")),
        listener("dns", port(first), path(tmp_path / "dns"), streams=False, datagrams=True),
        listener("any", ANY_PORT, datagrams=True),
        listener("range", port(first + 1, ports=2), streams=False, datagrams=True),
    )


def test_every_socket_is_gone_on_with(opened: Opened, tmp_path: Path) -> None:
    # R4: no connection is refused in between.
    wanted = everything(tmp_path)
    before, after = restarted(opened, wanted, wanted)
    assert before == after
    assert opened[1].filenos(1) != [-1] * len(after)
    assert [str(each.address) for each in opened[1].opened()] == [str(each.address) for each in opened[0].opened()]
    opened[1].close()
    assert list(tmp_path.iterdir()) == []


def test_options_are_those_of_now(opened: Opened, tmp_path: Path) -> None:
    first = listener("a", port(free_range(1)), path(tmp_path / "a"))
    other = replace(
        first,
        binding=replace(BINDING, defer_accept_s=1, mode=0o600),
        stream=replace(STREAM, options=SocketOptions(False, None, 1000, None)),
    )
    before, after = restarted(opened, spec(first), spec(other))
    assert before == after
    with socket.socket(fileno=os.dup(opened[1].bound[0].socket.fileno())) as sock:
        assert not os.get_blocking(sock.fileno())
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize(("old", "new"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1")])
def test_what_nobody_wants_is_closed_before_anything_is_bound(
    old: str, new: str, datagrams: bool, opened: Opened
) -> None:
    """Or it would be in the way: one address is a part of the other."""
    number = free_range(1)
    before, after = restarted(
        opened,
        spec(listener("a", port(number, old), streams=not datagrams, datagrams=datagrams)),
        spec(listener("a", port(number, new), streams=not datagrams, datagrams=datagrams)),
    )
    assert not set(before) & set(after)
    assert str(opened[1].bound[0].socket.address) == f"{new}:{number}"


def test_the_file_of_what_nobody_wants_is_removed(opened: Opened, tmp_path: Path) -> None:
    restarted(opened, spec(listener("a", path(tmp_path / "a"), ANY_PORT)), spec(listener("a", ANY_PORT)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_socket_whose_file_is_gone_is_made_anew(
    replaced: bool, datagrams: bool, opened: Opened, tmp_path: Path
) -> None:
    """Nobody can come to it."""
    file = tmp_path / "a"
    wanted = spec(listener("a", path(file), streams=not datagrams, datagrams=datagrams), workers=1)
    opened.append(ListeningSockets.open(wanted))
    was = inodes(opened[0])
    left = left_by(opened[0])
    file.unlink()
    if replaced:  # by a stale one
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(file))
    opened.append(ListeningSockets.open(wanted, None, left))
    assert inodes(opened[1]) != was
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM) as client:
        client.connect(str(file))


def test_more_workers_join_the_socket_that_is_there(opened: Opened) -> None:
    # R4: 1 → 3 workers, and nobody has a session.
    number = free_range(1)
    one = spec(listener("dns", port(number), streams=False, datagrams=True), workers=1)
    before, after = restarted(opened, one, replace(one, workers=3))
    assert len(after) == len(set(after)) == 3
    assert after[0] == before[0]
    assert [opened[1].worker_of(inode) for inode in after] == [1, 2, 3]
    found = set()
    for _ in range(200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", ("127.0.0.1", number))
    for bound in opened[1].bound:
        with socket.socket(fileno=os.dup(bound.socket.fileno())) as sock:
            if sock.recv(9):
                found.add(bound.socket.inode)
    assert found == set(after)  # the kernel gives each of them some clients


def test_more_workers_join_a_port_that_the_kernel_has_picked(opened: Opened) -> None:
    one = spec(listener("dns", ANY_PORT, streams=False, datagrams=True), workers=1)
    before, after = restarted(opened, one, replace(one, workers=2))
    assert after[0] == before[0]
    assert len({str(bound.socket.address) for bound in opened[1].bound}) == 1


def test_fewer_workers_than_copies_have_them_in_turn(opened: Opened) -> None:
    # R4: the kernel goes on giving each client to the same socket.
    three = spec(listener("dns", port(free_range(1)), streams=False, datagrams=True), workers=3)
    before, after = restarted(opened, three, replace(three, workers=2, copies=3))
    assert before == after
    assert [opened[1].worker_of(inode) for inode in after] == [1, 2, 1]
    assert [len(opened[1].filenos(worker)) for worker in (1, 2)] == [2, 1]


def test_another_number_of_workers_changes_nothing_for_streams_and_ranges(opened: Opened) -> None:
    first = free_range(4)
    wanted = spec(listener("a", port(first)), listener("b", port(first + 1, ports=3), streams=False, datagrams=True))
    before, after = restarted(opened, wanted, replace(wanted, workers=5))
    assert before == after


def test_a_start_that_fails_leaves_everything_to_the_next_one(opened: Opened, tmp_path: Path) -> None:
    # R1: what was left, and its files, are not ours to take away.
    wanted = everything(tmp_path)
    opened.append(ListeningSockets.open(wanted))
    left = left_by(opened[0])
    before = dict(left)
    expected = [left[bound.endpoint.legacy].inode for bound in opened[0].bound]
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = port(other.getsockname()[1])
        failing = replace(wanted, listeners=(*wanted.listeners, listener("taken", taken)))
        with pytest.raises(BindFailed) as failure:
            ListeningSockets.open(failing, None, left)
    (problem,) = failure.value.problems
    assert problem.startswith(f"listeners.taken: {taken}")
    assert left == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dns", "web"]
    opened.append(ListeningSockets.open(wanted, None, left))
    assert inodes(opened[1]) == expected


def test_what_the_new_file_forbids_leaves_everything_too(opened: Opened, tmp_path: Path) -> None:
    """An option that cannot be set, on a socket that was left."""
    before = listener("a", path(tmp_path / "a"), port(free_range(1)))
    opened.append(ListeningSockets.open(spec(before)))
    left = left_by(opened[0])
    options = SocketOptions(True, None, None, "no-such-congestion-control")
    with pytest.raises(BindFailed, match="no-such-congestion"):
        ListeningSockets.open(spec(replace(before, stream=replace(STREAM, options=options))), None, left)
    assert (tmp_path / "a").is_socket()
    assert len(left) == 2
    opened.append(ListeningSockets.open(spec(before), None, left))


def test_a_bug_leaves_everything_too(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = spec(listener("a", path(tmp_path / "a"), path(tmp_path / "b")))
    opened.append(ListeningSockets.open(wanted))
    left = left_by(opened[0])
    monkeypatch.setattr(module, "_set_options", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ListeningSockets.open(wanted, None, left)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b"]
    assert len(left) == 2
    monkeypatch.undo()
    opened.append(ListeningSockets.open(wanted, None, left))


def test_letting_go_closes_everything_and_leaves_the_files(opened: Opened, tmp_path: Path) -> None:
    # R4
    opened.append(ListeningSockets.open(everything(tmp_path)))
    opened[0].let_go()
    opened[0].let_go()
    opened[0].close()
    assert {bound.socket.fileno() for bound in opened[0].bound} == {-1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dns", "web"]


def test_letting_go_removes_the_file_of_what_a_reload_has_closed(opened: Opened, tmp_path: Path) -> None:
    old = spec(listener("a", path(tmp_path / "gone"), path(tmp_path / "stays")))
    opened.append(ListeningSockets.open(old))
    opened[0].prepare(plan(old, spec(listener("a", path(tmp_path / "stays"))))).commit()
    opened[0].let_go()
    assert [file.name for file in tmp_path.iterdir()] == ["stays"]


def test_who_has_a_socket_is_known_after_a_reload_as_well(opened: Opened) -> None:
    number = free_range(2)
    old = spec(listener("a", port(number), streams=False, datagrams=True))
    new = spec(listener("a", port(number + 1), datagrams=True))
    opened.append(ListeningSockets.open(old))
    before = inodes(opened[0])
    assert [opened[0].worker_of(inode) for inode in before] == [1, 2]
    opened[0].prepare(plan(old, new)).commit()
    assert [opened[0].worker_of(inode) for inode in before] == [None, None]
    assert [opened[0].worker_of(inode) for inode in inodes(opened[0])] == [None, 1, 2]  # all have that of streams
