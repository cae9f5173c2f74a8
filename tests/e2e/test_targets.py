"""Targets that come and go: what clients notice, what is said, and what an operator can do (T2, T4)."""

import contextlib
import json
import select
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.address import Family, InetAddress, SocketAddress
from tests import installed
from tests.e2e.conftest import Echo
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import BY_RESTART, Again
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
def nobody() -> Iterator[tuple[str, Callable[[], object]]]:
    """An address where nobody listens, and what makes an echo there."""
    address = InetAddress(Family.INET, "127.0.0.1", int(unused().rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        yield str(address), lambda: stack.enter_context(contextlib.closing(Echo(address)))


def test_a_target_that_is_down_gets_no_clients_until_it_is_up(tmp_path: Path, echo: EchoStart) -> None:
    up = str(echo("inet"))
    with nobody() as (down, come), Daemon(config(up, down), tmp_path) as daemon:
        line = daemon.wait_for_event("target_down")
        assert line["message"] == f"web: {down} is down: connection refused"
        for _ in range(20):  # the line may be there before the workers know
            assert clients(daemon, 12) == {up: 12}
            lines = [one for one in daemon.lines if one.get("event") == "connection"]
            if {one["attempts"] for one in lines[-12:]} == {1}:
                break
        else:
            pytest.fail("clients are still sent to the target that is down")
        assert states(daemon) == {up: "up", down: "down"}
        assert f"    web: {down} is down for " in relayd(daemon, "status")[1]
        come()
        daemon.wait_for_event("target_up")
        for _ in range(99):  # the line may be there before the workers know
            if clients(daemon, 4)[down]:  # of two workers, one has two of these, and each target its turn
                break
        else:
            raise AssertionError(f"{down} is up, and gets no clients\n{daemon.report()}")


def test_with_all_of_them_down_clients_are_refused_or_not(tmp_path: Path, echo: EchoStart) -> None:
    with nobody() as (down, _), Daemon(config(down, more=f"{CHECK}fail_open = false\n"), tmp_path) as daemon:
        daemon.wait_for_event("target_down")
        for number in range(1, 99):  # the line may be there before the workers know
            with contextlib.suppress(ConnectionResetError), daemon.connect("web") as client:
                assert client.recv(1) == b""
            line = daemon.wait_for_log(lambda one: one.get("event") == "connection", number)
            if (line["outcome"], line["attempts"]) == ("no_target", 0):
                break
        else:
            raise AssertionError(f"it is tried all the same\n{daemon.report()}")
        daemon.configure(config(down, str(echo("inet")), more=f"{CHECK}fail_open = false\n"))
        reload(daemon)
        connect(daemon).close()


@BY_RESTART
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


@BY_RESTART
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


def test_who_finds_every_target_full_waits_for_a_place_in_whatever_worker(tmp_path: Path, echo: EchoStart) -> None:
    target = str(echo("inet"))
    text = (
        '[daemon]\nworkers = 4\n[listeners.web]\nbind = "127.0.0.1:0"\n'
        f'targets = [{{ address = "{target}", max_connections = 8 }}]\n'
    )
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        live = [stack.enter_context(connect(daemon)) for _ in range(8)]
        waiting = stack.enter_context(daemon.connect("web"))
        waiting.sendall(b"patient")
        daemon.wait_for_event("accept_paused")
        assert select.select([waiting], [], [], 0.3)[0] == []
        live[3].close()
        assert waiting.recv(100) == b"patient"
        for client in live:
            client.close()
        waiting.close()
        assert served(daemon, 9) == {target: 9}


@contextlib.contextmanager
def answering() -> Iterator[tuple[str, threading.Event]]:
    """Who answers each datagram with its own address, until it is to be silent."""
    silent, over = threading.Event(), threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(0.05)
        address = f"127.0.0.1:{sock.getsockname()[1]}"

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    _, sender = sock.recvfrom(100)
                    if not silent.is_set():
                        sock.sendto(address.encode(), sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield address, silent
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("stays", [False, True], ids=["move", "close"])
def test_sessions_leave_a_target_that_checks_find_down(tmp_path: Path, stays: bool) -> None:
    check = 'health_check = { type = "udp", send = "are you there", interval = "100ms", fall = 2 }\n'
    with contextlib.ExitStack() as stack:
        targets = dict(stack.enter_context(answering()) for _ in range(2))
        text = (
            '[daemon]\nworkers = 1\n[listeners.web]\ntype = "dgram"\nbind = "127.0.0.1:0"\n'
            f"targets = {json.dumps(list(targets))}\n{check}"
            f'on_target_error = "{"close" if stays else "move"}"\n'
        )
        with Daemon(text, tmp_path) as daemon, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(daemon.address("web", kind="dgram").sockaddr)
            home = _answer(client)
            targets[home].set()
            client.send(b"unanswered")
            assert daemon.wait_for_event("target_down")["target"] == home
            if stays:
                targets[home].clear()
                daemon.wait_for_event("target_up")
            assert (_answer(client) == home) is stays


def _answer(client: socket.socket) -> str:
    """Ask until there is one."""
    client.settimeout(0.2)
    for _ in range(int(DEADLINE_S / 0.2)):
        client.send(b"hello")
        with contextlib.suppress(TimeoutError):
            return client.recv(100).decode()
    raise AssertionError("no answer")


def test_a_pattern_that_never_ends_does_not_hold_up_the_control_process(tmp_path: Path, echo: EchoStart) -> None:
    check = "type = 'tcp', interval = '100ms', send = '" + "a" * 48 + "', expect = { regex = '(a+)+$b' }"
    target = str(echo("inet"))
    with Daemon(config(target, more=f"health_check = {{ {check} }}\n"), tmp_path) as daemon:
        line = daemon.wait_for_event("target_down")
        assert line["message"] == f"web: {target} is down: its pattern takes too long for this answer"
        assert "repeats what repeats" in daemon.wait_for_event("configuration_warning")["message"]
        assert states(daemon) == {target: "down"}
        daemon.configure(config(target))
        reload(daemon)
        daemon.wait_for_event("target_up")
        connect(daemon).close()
        assert daemon.stop() == 0
