"""Targets that come and go: what clients notice, what is said, and what an operator can do (T2, T4)."""

import contextlib
import json
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.address import SocketAddress
from tests import installed
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import Again
from tests.e2e.test_balancing import connect, reload, served, unused

EchoStart = Callable[[str], SocketAddress]

CHECK = 'health_check = { type = "tcp", interval = "100ms", rise = 2, fall = 2 }\n'


def config(*targets: str, more: str = CHECK, workers: int = 2) -> str:
    listed = ", ".join(f'"{target}"' for target in targets)
    return (
        f'[daemon]\nworkers = {workers}\ndrain_timeout = "1s"\n'
        f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = [{listed}]\n{more}'
    )


def relayd(daemon: Daemon, *arguments: str) -> tuple[int, str, str]:
    """What a command says of the daemon."""
    done = subprocess.run(
        [*installed.relayd(*arguments), "--admin", str(daemon.admin)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def states(daemon: Daemon) -> dict[str, str]:
    """By target."""
    code, out, err = relayd(daemon, "target", "list", "web", "--json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)["targets"]
    return {one["target"]: one["state"] for one in found}


def clients(daemon: Daemon, count: int) -> Counter[str]:
    """How many of so many clients each target has had."""
    before = len([line for line in daemon.lines if line.get("event") == "connection"])
    for _ in range(count):
        connect(daemon).close()
    return served(daemon, before + count) - served(daemon, before)


@contextlib.contextmanager
def nobody() -> Iterator[tuple[str, Callable[[], socket.socket]]]:
    """An address where nobody listens, and what makes somebody."""
    address = unused()
    host, port = address.split(":")
    with contextlib.ExitStack() as stack:
        yield address, lambda: stack.enter_context(socket.create_server((host, int(port))))


def test_a_target_that_is_down_gets_no_clients_until_it_is_up(tmp_path: Path, echo: EchoStart) -> None:
    up = str(echo("inet"))
    with nobody() as (down, come), Daemon(config(up, down), tmp_path) as daemon:
        line = daemon.wait_for_event("target_down")
        assert line["message"] == f"web: {down} is down: connection refused"
        assert clients(daemon, 12) == {up: 12}
        assert {one["attempts"] for one in daemon.lines if one.get("event") == "connection"} == {1}
        assert states(daemon) == {up: "up", down: "down"}
        assert f"    web: {down} is down for " in relayd(daemon, "status")[1]
        listening = come()
        daemon.wait_for_event("target_up")
        with contextlib.ExitStack() as stack:
            listening.settimeout(DEADLINE_S)
            for _ in range(2):
                stack.enter_context(daemon.connect("web")).sendall(b"hello")
            assert b"hello" in (_first_bytes(stack.enter_context(listening.accept()[0])) for _ in range(99))


def _first_bytes(accepted: socket.socket) -> bytes:
    """Nothing from a check, which goes at once."""
    accepted.settimeout(DEADLINE_S)
    with contextlib.suppress(ConnectionResetError):
        return accepted.recv(5)
    return b""


def test_with_all_of_them_down_clients_are_refused_or_not(tmp_path: Path, echo: EchoStart) -> None:
    with nobody() as (down, _), Daemon(config(down, more=f"{CHECK}fail_open = false\n"), tmp_path) as daemon:
        daemon.wait_for_event("target_down")
        with daemon.connect("web") as client, contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
        line = daemon.wait_for_log(lambda one: one.get("event") == "connection")
        assert (line["outcome"], line["attempts"]) == ("no_target", 0)
        daemon.configure(config(down, str(echo("inet")), more=f"{CHECK}fail_open = false\n"))
        reload(daemon)
        connect(daemon).close()


def test_what_is_known_of_targets_outlives_a_restart(tmp_path: Path, echo: EchoStart, again: Again) -> None:
    up = str(echo("inet"))
    slow = 'health_check = { type = "tcp", interval = "60s", timeout = "1s", fall = 2 }\n'
    with nobody() as (down, _), Daemon(config(up, down, more=slow), tmp_path) as daemon:
        clients(daemon, 4)  # who meets it makes it be asked
        daemon.wait_for_event("target_down")
        with connect(daemon) as client:
            again(daemon)
            client.sendall(b"still")
            assert client.recv(100) == b"still"
        assert states(daemon) == {up: "up", down: "down"}
        before = len([line for line in daemon.lines if line.get("event") == "connection"])
        assert clients(daemon, 8) == {up: 8}
        later = [line for line in daemon.lines if line.get("event") == "connection"][before:]
        assert {line["attempts"] for line in later} == {1}
        assert len(daemon.events("target_down")) == 1


def test_an_operator_drains_disables_and_enables(tmp_path: Path, echo: EchoStart) -> None:
    one, other = str(echo("inet")), str(echo("inet"))
    with Daemon(config(one, other, more="", workers=1), tmp_path) as daemon:
        with connect(daemon) as first, connect(daemon) as second:
            assert relayd(daemon, "target", "drain", "web", one) == (0, f"~ target {one} of web: drained\n", "")
            assert clients(daemon, 6) == {other: 6}
            assert relayd(daemon, "target", "disable", "web", one)[0] == 0
            ended = daemon.wait_for_log(lambda line: line.get("outcome") == "removed")
            assert ended["target"] == one
            reload(daemon)
            assert states(daemon) == {one: "disabled", other: "unchecked"}
            with contextlib.suppress(ConnectionResetError):
                assert first.recv(1) == b""
            second.sendall(b"here")
            assert second.recv(100) == b"here"
        assert relayd(daemon, "target", "enable", "web", one)[0] == 0
        assert clients(daemon, 6)[one] == 3
        assert relayd(daemon, "target", "weight", "web", one, "2")[0] == 0
        assert clients(daemon, 6)[one] == 4
        code, out, err = relayd(daemon, "target", "drain", "web", "192.0.2.1:80")
        assert (code, out) == (1, "")
        assert "pool web has no target '192.0.2.1:80'" in err
        assert len(daemon.events("target_ordered")) == 4


def test_the_next_life_says_which_orders_are_lost(tmp_path: Path, echo: EchoStart, again: Again) -> None:
    one, other = str(echo("inet")), str(echo("inet"))
    with Daemon(config(one, other, more=""), tmp_path) as daemon:
        assert relayd(daemon, "target", "disable", "web", one)[0] == 0
        again(daemon)
        line = daemon.wait_for_event("target_order_lost")
        assert line["message"] == (
            f"target {one} of web: the order on it (disabled) does not hold any more: relayd was restarted"
        )
        assert states(daemon) == {one: "unchecked", other: "unchecked"}
        again(daemon)
        assert len(daemon.events("target_order_lost")) == 1


def test_whether_a_drained_target_is_empty_can_be_seen(tmp_path: Path, echo: EchoStart) -> None:
    one, other = str(echo("inet")), str(echo("inet"))
    text = config(other, more="").replace("targets = [", f'targets = [{{ address = "{one}", max_connections = 50 }}, ')
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(connect(daemon))
        assert sum(active(daemon).values()) == 6
        relayd(daemon, "target", "drain", "web", one)
        before = active(daemon)
        stack.enter_context(connect(daemon))
        assert active(daemon) == {one: before[one], other: before[other] + 1}
        row = next(line for line in relayd(daemon, "target", "list")[1].splitlines() if one in line)
        assert row.split()[:5] == ["web", one, "drained", "1", f"{before[one]}/50"]


def test_sessions_are_counted_too(tmp_path: Path, udp_echo: socket.socket) -> None:
    target = "{}:{}".format(*udp_echo.getsockname())
    with (
        Daemon(config(target, more='type = "udp"\n'), tmp_path) as daemon,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        assert active(daemon) == {target: 0}
        client.sendto(b"hello", daemon.address("web", kind="dgram").sockaddr)
        assert udp_echo.recv(100) == b"hello"
        assert active(daemon) == {target: 1}


def active(daemon: Daemon) -> dict[str, int]:
    """How many connections and sessions each target has."""
    return {
        one["target"]: one["active"] for one in json.loads(relayd(daemon, "target", "list", "--json")[1])["targets"]
    }


def test_a_target_has_no_more_connections_than_it_may(tmp_path: Path, echo: EchoStart) -> None:
    one, other = str(echo("inet")), str(echo("inet"))
    text = (
        '[daemon]\nworkers = 2\n[listeners.web]\nbind = "127.0.0.1:0"\n'
        f'targets = [{{ address = "{one}", max_connections = 4 }}, "{other}"]\nbalance = "first"\n'
    )
    with Daemon(text, tmp_path) as daemon:
        live = [connect(daemon) for _ in range(20)]
        for client in live:
            client.close()
        counts = served(daemon, 20)
        assert counts[one] <= 4
        assert counts[other] >= 16


@pytest.mark.parametrize("kind", ["dgram", "stream"])
def test_clients_take_a_target_down_between_checks(tmp_path: Path, echo: EchoStart, kind: str) -> None:
    up = str(echo("inet"))
    with nobody() as (down, _):
        slow = 'health_check = { type = "tcp", interval = "60s", timeout = "1s", fall = 3 }\n'
        # The first check is spread over the interval: it comes as soon as a client has met the target.
        with Daemon(
            config(up, down, more=f"{slow}type = {json.dumps([kind, 'stream'])}\n", workers=1), tmp_path
        ) as daemon:
            connect(daemon).close()
            connect(daemon).close()
            line = daemon.wait_for_event("target_down")
            assert line["message"].startswith(f"web: {down} is down: connection refused")
            assert daemon.events("target_suspect")[0]["target"] == down


def test_what_is_explained_is_what_happens(tmp_path: Path, echo: EchoStart) -> None:
    targets = [str(echo("inet")) for _ in range(4)]
    with Daemon(config(*targets, more='balance = "source_hash"\n'), tmp_path) as daemon:
        for number in range(1, 9):
            code, out, err = relayd(daemon, "explain", "web", "--client", f"127.0.0.{number}", "--json")
            assert (code, err) == (0, "")
            connect(daemon, f"127.0.0.{number}").close()
            line = daemon.wait_for_log(lambda one: one.get("event") == "connection", number)
            assert line["target"] == json.loads(out)["candidates"][0]["target"]
