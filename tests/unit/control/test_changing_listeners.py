"""Listening sockets that change: all or nothing, and what stays is never closed (R1, R2)."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.control import listeners as module
from relayd.control.listeners import BindFailed, ListeningSockets, Prepared
from relayd.net.listening import ListenFailed, ListeningSocket
from relayd.spec import Bind, Keepalive, Listener, Log, SocketOptions, Spec, Stream, StreamTimeouts
from relayd.spec.plan import plan
from tests.ports import free_range
from tests.specs import BINDING, DATAGRAM

OPTIONS = SocketOptions(True, None, None, None)
STREAM = Stream(3, OPTIONS, StreamTimeouts(5.0, None, None, None))


def port(number: int, host: str = "127.0.0.1") -> Bind:
    return Bind(InetAddress(Family.INET, host, number))


def listener(name: str, *binds: Bind, streams: bool = True, datagrams: bool = False) -> Listener:
    return Listener(name, binds, BINDING, (), None, STREAM if streams else None, DATAGRAM if datagrams else None)


def spec(*listeners: Listener, workers: int = 2) -> Spec:
    return Spec(workers, 30.0, Log("info", "auto", access=False), listeners)


def open_files() -> dict[int, str]:
    """What each descriptor of this process leads to, but for that of this very listing."""
    found = {}
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found[int(entry.name)] = os.readlink(entry.path)
    return {fd: path for fd, path in found.items() if not path.startswith("/proc/")}


class Open:
    """The sockets of one spec, and what is in force."""

    def __init__(self, in_force: Spec) -> None:
        self.spec = in_force
        self.sockets = ListeningSockets.open(in_force)

    def prepare(self, new: Spec) -> Prepared:
        return self.sockets.prepare(plan(self.spec, new))

    def change(self, new: Spec) -> None:
        """All of a reload that concerns sockets."""
        change = plan(self.spec, new)
        self.sockets.prepare(change).commit()
        self.sockets.retire()
        assert change.spec is not None
        self.spec = change.spec

    def by_address(self) -> dict[tuple[SocketAddress, bool, int | None], int]:
        """The descriptor of each socket."""
        return {
            (bound.socket.address, bound.endpoint.datagram, bound.endpoint.worker): bound.socket.fileno()
            for bound in self.sockets.bound
        }


@pytest.fixture
def opened() -> Iterator[list[Open]]:
    """Whatever is in it is closed."""
    made: list[Open] = []
    yield made
    for each in made:
        each.sockets.close()


def test_what_stays_is_the_same_socket_and_what_goes_is_closed(opened: list[Open], tmp_path: Path) -> None:
    # R2
    first = free_range(4)
    path = Bind(UnixAddress(str(tmp_path / "a.sock")))
    opened.append(Open(spec(listener("a", port(first), datagrams=True), listener("b", port(first + 1), path))))
    before = opened[0].by_address()
    opened[0].change(spec(listener("c", port(first + 2)), listener("renamed", port(first), datagrams=True)))
    after = opened[0].by_address()
    assert [bound.endpoint.listener.name for bound in opened[0].sockets.bound] == ["c", *["renamed"] * 3]
    kept = before.keys() & after.keys()
    assert len(kept) == 3
    assert {key: before[key] for key in kept} == {key: after[key] for key in kept}
    assert not (tmp_path / "a.sock").exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", first + 1))
    assert opened[0].sockets.filenos(1) == [after[key] for key in after if key[2] in (None, 1)]


def test_a_failure_at_any_step_leaves_everything_as_it_was(
    opened: list[Open], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # R1
    first = free_range(6)
    address = UnixAddress(str(tmp_path / "a.sock"))
    path = Bind(address)
    old = spec(listener("a", port(first), path))
    opened.append(Open(old))
    changed = replace(listener("a", port(first), path), binding=replace(BINDING, backlog=5, mode=0o600))
    new = spec(
        changed,
        listener("b", port(first + 1), Bind(UnixAddress(str(tmp_path / "b.sock"))), datagrams=False),
        listener("c", Bind(InetAddress(Family.INET, "127.0.0.1", first + 2), 3), streams=False, datagrams=True),
        listener("d", port(first + 5), streams=False, datagrams=True),
    )
    steps = fail_at = 0

    def counting(name: str) -> None:
        real = getattr(module, name)

        def call(*arguments: object, **more: object) -> object:
            nonlocal steps
            steps += 1
            if steps == fail_at:
                raise ListenFailed(address, "injected")
            return real(*arguments, **more)

        monkeypatch.setattr(module, name, call)

    counting("_open")
    counting("_set_options")
    prepared = opened[0].prepare(new)
    count = steps
    prepared.undo()
    assert count == 8  # a changed port and path; a port, a path, three ports of a range, a port
    files, bound = open_files(), opened[0].by_address()
    for number in range(1, count + 1):
        steps, fail_at = 0, number
        with pytest.raises(BindFailed, match="injected"):
            opened[0].prepare(new)
        assert open_files() == files
        assert opened[0].by_address() == bound
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.sock"]
        assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == BINDING.mode


def test_every_failure_is_told_at_once(opened: list[Open]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        opened.append(Open(spec(listener("a", port(0)))))
        ports = [sock.getsockname()[1] for sock in (one, two)]
        with pytest.raises(BindFailed) as failure:
            opened[0].prepare(spec(*(listener(f"l{number}", port(number)) for number in ports)))
        assert [problem.partition(":")[0] for problem in failure.value.problems] == [
            f"listeners.l{number}" for number in ports
        ]


def option(listening: ListeningSocket, level: int, name: int) -> int:
    with socket.socket(fileno=os.dup(listening.fileno())) as sock:
        return sock.getsockopt(level, name)


def test_options_change_on_the_open_socket_and_back(opened: list[Open], tmp_path: Path) -> None:
    path = Bind(UnixAddress(str(tmp_path / "a.sock")))
    plain = listener("a", port(free_range(1)), path)
    rich = replace(
        plain,
        binding=replace(BINDING, fast_open=True, defer_accept_s=1, freebind=True, mode=0o600),
        stream=replace(STREAM, options=SocketOptions(False, Keepalive(7, 8, 9), 1000, "reno")),
    )
    opened.append(Open(spec(plain)))
    inet = opened[0].sockets.bound[0].socket
    tcp, sol = socket.IPPROTO_TCP, socket.SOL_SOCKET
    names = [
        (tcp, socket.TCP_FASTOPEN),
        (tcp, socket.TCP_DEFER_ACCEPT),
        (socket.IPPROTO_IP, 15),
        (tcp, socket.TCP_NODELAY),
        (sol, socket.SO_KEEPALIVE),
        (tcp, socket.TCP_USER_TIMEOUT),
        (tcp, socket.TCP_CONGESTION),
    ]

    def options() -> list[int]:
        return [option(inet, *name) for name in names]

    def mode() -> int:
        return stat.S_IMODE((tmp_path / "a.sock").stat().st_mode)

    before = options()
    opened[0].change(spec(rich))
    assert options()[:6] == [BINDING.backlog, 1, 1, 0, 1, 1000]
    assert options()[6] != before[6]
    assert option(inet, tcp, socket.TCP_KEEPIDLE) == 7
    assert mode() == 0o600
    opened[0].change(spec(plain))
    assert options() == before
    assert mode() == BINDING.mode


@pytest.mark.parametrize("datagrams", [False, True])
@pytest.mark.parametrize(("old", "new"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_a_part_of_our_own_address_is_not_in_the_way(old: str, new: str, datagrams: bool, opened: list[Open]) -> None:
    number = free_range(1)
    kinds = {"streams": not datagrams, "datagrams": datagrams}
    opened.append(Open(spec(listener("a", port(number, old), **kinds))))
    opened[0].change(spec(listener("a", port(number, new), **kinds)))
    for worker in (1, 2):
        opened[0].sockets.release(worker, None)
    assert {str(address) for address, _, _ in opened[0].by_address()} == {f"{new}:{number}"}
    # A second daemon is refused all the same.
    kind = socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as other:
        if not datagrams:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", number))


def test_one_port_becomes_a_range_and_back(opened: list[Open]) -> None:
    first = free_range(3)
    one = spec(listener("a", port(first), streams=False, datagrams=True))
    many = spec(listener("a", Bind(port(first).address, 3), streams=False, datagrams=True))
    opened.append(Open(one))
    (kept,) = (fd for key, fd in opened[0].by_address().items() if key[2] == plan_owner(many, first))
    for wanted in (many, one, many, one):
        opened[0].change(wanted)
        for worker in (1, 2):
            opened[0].sockets.release(worker, None)
        assert kept in opened[0].by_address().values()
        assert len(opened[0].by_address()) == (3 if wanted is many else 2)


def plan_owner(wanted: Spec, number: int) -> int | None:
    """The worker that has a port of a range."""
    for step in plan(None, wanted).steps:
        endpoint = getattr(step, "endpoint", None)
        if endpoint is not None and endpoint.address.port == number:
            return int(endpoint.worker)
    return None


def test_a_datagram_socket_is_held_until_its_worker_has_let_go_and_can_be_had_again(opened: list[Open]) -> None:
    number = free_range(1)
    with_it = spec(listener("keep", port(0)), listener("dns", port(number), streams=False, datagrams=True))
    without = spec(listener("keep", port(0)))
    opened.append(Open(with_it))
    before = {key: fd for key, fd in opened[0].by_address().items() if key[1]}
    opened[0].change(without)
    opened[0].change(with_it)
    assert {key: fd for key, fd in opened[0].by_address().items() if key[1]} == before
    opened[0].change(without)
    address = InetAddress(Family.INET, "127.0.0.1", number)
    for worker in (1, 2):
        opened[0].sockets.release(worker, address)
        opened[0].sockets.release(worker, address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(address.sockaddr)
