import socket
from dataclasses import replace
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.control.listeners import BindFailed, ListeningSockets
from relayd.spec import Binding, Listener, Log, SocketOptions, Spec, StreamTimeouts

BINDING = Binding(16, False, None, False, False, None, 0o660, None, None)
LISTENER = Listener(
    "web", (), BINDING, (), 3, None, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None)
)
ANY_PORT = InetAddress(Family.INET, "127.0.0.1", 0)


def spec_of(**binds: tuple[SocketAddress, ...]) -> Spec:
    listeners = tuple(replace(LISTENER, name=name, binds=addresses) for name, addresses in binds.items())
    return Spec(1, 30.0, Log("info", "auto", access=False), listeners)


def test_sockets_stand_in_the_order_of_the_spec(tmp_path: Path) -> None:
    path = UnixAddress(str(tmp_path / "a.sock"))
    sockets = ListeningSockets.open(spec_of(web=(ANY_PORT, path), other=(ANY_PORT,)))
    assert [bound.listener for bound in sockets.bound] == ["web", "web", "other"]
    assert sockets.bound[1].socket.address == path
    assert len(set(sockets.filenos())) == 3
    sockets.close()
    sockets.close()
    assert sockets.filenos() == [-1, -1, -1]
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
