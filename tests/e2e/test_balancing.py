"""Who gets the next client: T1, as an installed daemon does it."""

import contextlib
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import Again

EchoStart = Callable[[str], SocketAddress]


def config(targets: str, balance: str = "round_robin", workers: int = 1, more: str = "") -> str:
    return (
        f'[daemon]\nworkers = {workers}\ndrain_timeout = "1s"\n'
        f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = [{targets}]\nbalance = "{balance}"\n{more}'
    )


def connect(daemon: Daemon, source: str = "127.0.0.1") -> socket.socket:
    """A connection that has been relayed."""
    client = socket.socket()
    client.settimeout(DEADLINE_S)
    client.bind((source, 0))
    client.connect(daemon.address("web").sockaddr)
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"
    return client


def served(daemon: Daemon, count: int) -> Counter[str]:
    """How many of the first `count` connections each target has had. Waits until so many have ended."""

    def lines() -> list[str]:
        return [line["target"] for line in daemon.lines if line.get("event") in ("connection", "session")]

    daemon.wait_for(lambda: len(lines()) >= count, f"{count} lines of the log")
    return Counter(lines()[:count])


def reload(daemon: Daemon) -> None:
    """SIGHUP, and done."""
    count = len(daemon.events("reloaded"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("reloaded", count + 1)


def unused() -> str:
    """An address that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


def test_weights(tmp_path: Path, echo: EchoStart) -> None:
    heavy, light = echo("inet"), echo("unix")
    with Daemon(config(f'{{ address = "{heavy}", weight = 3 }}, "{light}"'), tmp_path) as daemon:
        for _ in range(40):
            connect(daemon).close()
        assert served(daemon, 40) == {str(heavy): 30, str(light): 10}
        daemon.configure(config(f'"{heavy}", {{ address = "{light}", weight = 3 }}'))
        reload(daemon)
        assert [line["message"] for line in daemon.events("reload_change")] == [
            f"~ listener web: target {heavy} weight 3 -> 1",
            f"~ listener web: target {light} weight 1 -> 3",
        ]
        for _ in range(40):
            connect(daemon).close()
        assert served(daemon, 80) == {str(heavy): 40, str(light): 40}


def test_a_backup_is_for_bad_times(tmp_path: Path, echo: EchoStart) -> None:
    backup, nobody = echo("inet"), unused()
    with Daemon(config(f'{{ address = "{backup}", backup = true }}, "{nobody}"'), tmp_path) as daemon:
        for _ in range(3):
            connect(daemon).close()
        assert served(daemon, 3) == {str(backup): 3}
        assert {line["attempts"] for line in daemon.lines if line.get("event") == "connection"} == {2}
        host, port = nobody.split(":")
        with socket.create_server((host, int(port))) as primary:
            with daemon.connect("web"):
                accepted, _ = primary.accept()
                accepted.close()
            assert served(daemon, 4) == {str(backup): 3, nobody: 1}


def test_least_connections_are_known_after_a_restart(tmp_path: Path, echo: EchoStart, again: Again) -> None:
    busy, idle = echo("inet"), echo("inet")
    targets = f'"{busy}", "{idle}"'
    with Daemon(config(f'"{busy}"'), tmp_path) as daemon, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(daemon))
        daemon.configure(config(targets, "least_connections"))
        reload(daemon)
        for _ in range(2):  # the first of these are those that the other one lacks
            stack.enter_context(connect(daemon))
        again(daemon)
        connect(daemon).close()
        assert served(daemon, 1) == {str(idle): 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_has_its_target_whichever_worker_and_daemon(tmp_path: Path, echo: EchoStart, workers: int) -> None:
    targets = ", ".join(f'"{echo("inet")}"' for _ in range(3))
    of: dict[str, set[str]] = {}
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        with Daemon(config(targets, "source_hash", workers), tmp_path / name) as daemon:
            for number in range(1, 21):
                for _ in range(2):
                    connect(daemon, f"127.0.0.{number}").close()
            served(daemon, 40)
            for line in daemon.lines:
                if line.get("event") == "connection":
                    of.setdefault(line["client"], set()).add(line["target"])
    assert {len(seen) for seen in of.values()} == {1}
    assert len(of) == 20
    assert len(set.union(*of.values())) == 3


def test_sessions_of_a_client_have_its_target(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(3)]
        for target in targets:
            target.bind(("127.0.0.1", 0))
            target.setblocking(False)
        texts = ", ".join(f'"127.0.0.1:{target.getsockname()[1]}"' for target in targets)
        daemon = stack.enter_context(Daemon(config(texts, "source_hash", 2, 'type = "dgram"\n'), tmp_path))
        address = daemon.address("web", kind="dgram")
        for number in range(1, 16):
            for _ in range(3):
                client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                client.bind((f"127.0.0.{number}", 0))
                client.sendto(bytes([number]), address.sockaddr)
        came: list[tuple[int, int]] = []

        def all_came() -> bool:
            for at, target in enumerate(targets):
                with contextlib.suppress(BlockingIOError):
                    while True:
                        came.append((target.recv(10)[0], at))
            return len(came) == 45

        daemon.wait_for(all_came, "45 datagrams")
        assert len(set(came)) == 15  # each client, and one target
        assert len({at for _, at in came}) > 1
