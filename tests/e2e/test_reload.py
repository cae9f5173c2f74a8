"""SIGHUP to the real daemon: what changes, what does not notice, what is refused (R1 to R3)."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relayd.address import Family, InetAddress, SocketAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import answered
from tests.ports import free_range

HEAD = '[daemon]\nworkers = 2\ndrain_timeout = "{drain}"\n[log]\nformat = "json"\n'


def config(*listeners: str, drain: str = "30s") -> str:
    return HEAD.format(drain=drain) + "\n".join(listeners)


def stream(name: str, target: object, bind: str = "127.0.0.1:0", more: str = "") -> str:
    return f'[listeners.{name}]\nbind = "{bind}"\ntargets = ["{target}"]\n{more}\n'


def dgram(name: str, target: object, bind: str = "127.0.0.1:0", more: str = "") -> str:
    return stream(name, target, bind, f'type = "dgram"\n{more}')


def reload(daemon: Daemon, text: str) -> dict[str, Any]:
    """Put `text` into the file, send SIGHUP; the line that says what has become of it."""
    daemon.configure(text)
    said = ("reloaded", "reload_failed")
    before = sum(line["event"] in said for line in list(daemon.lines))
    daemon.signal(signal.SIGHUP)
    return daemon.wait_for_log(lambda line: line["event"] in said, before + 1)


def changes(daemon: Daemon) -> list[str]:
    return [line["message"] for line in daemon.events("reload_change")]


def echoed(sock: socket.socket, data: bytes = b"hello") -> bool:
    sock.sendall(data)
    return sock.recv(len(data), socket.MSG_WAITALL) == data


def fds(pid: int) -> list[str]:
    """What the descriptors of a process lead to."""
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(entry.path))
    return sorted(found)


def all_there(daemon: Daemon) -> None:
    """Wait until the admin API answers, which is loaded last and has descriptors of its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(daemon.admin.sockaddr)
        sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: relayd\r\n\r\n")
        while sock.recv(65536):
            pass


def fds_become(pid: int, wanted: list[str]) -> None:
    """A reload is told to systemd at last, through a socket that is closed again."""
    deadline = time.monotonic() + DEADLINE_S
    while fds(pid) != wanted:
        assert time.monotonic() < deadline, (fds(pid), wanted)


@pytest.fixture
def target(echo: Callable[[str], SocketAddress]) -> SocketAddress:
    """An echo over IPv4."""
    return echo("inet")


def test_what_has_not_changed_does_not_notice(tmp_path: Path, target: SocketAddress) -> None:
    # R2
    text = config(stream("web", target), stream("pg", target, f"unix:{tmp_path}/pg.sock"))
    with Daemon(text, tmp_path) as daemon, daemon.connect("web") as live, daemon.connect("pg") as unix:
        inode = os.stat(tmp_path / "pg.sock").st_ino
        assert echoed(live)
        assert echoed(unix)
        all_there(daemon)
        pids, open_before = daemon.workers(), fds(daemon.pid)
        for _ in range(5):
            assert reload(daemon, text)["event"] == "reloaded"
        assert changes(daemon) == []
        assert daemon.workers() == pids
        fds_become(daemon.pid, open_before)
        assert os.stat(tmp_path / "pg.sock").st_ino == inode
        assert echoed(live)
        assert echoed(unix)
        with daemon.connect("web") as other:
            assert echoed(other)


def test_listeners_come_and_go(tmp_path: Path, target: SocketAddress) -> None:
    with Daemon(config(stream("a", target)), tmp_path) as daemon, daemon.connect("a") as old:
        assert echoed(old)
        line = reload(daemon, config(stream("b", target)))
        assert line["event"] == "reloaded"
        assert changes(daemon) == ["+ listener b", "- listener a (1 connection: drain 30s)"]
        with daemon.connect("b") as new:
            assert echoed(new)
        assert echoed(old)
        with pytest.raises(ConnectionRefusedError):
            daemon.connect("a")
        old.close()
        ended = daemon.wait_for_log(lambda line: line["event"] == "connection" and line["listener"] == "a")
        assert ended["outcome"] == "normal"


@pytest.mark.parametrize("policy", ["keep", "drain", "close"])
def test_what_becomes_of_connections_is_what_on_change_says(policy: str, tmp_path: Path, target: SocketAddress) -> None:
    # R3
    more = f'on_change = "{policy}"'
    text = config(stream("a", target, more=more), stream("b", target), drain="1s")
    with Daemon(text, tmp_path) as daemon, daemon.connect("a") as old:
        assert echoed(old)
        reload(daemon, config(stream("b", target), drain="1s"))
        if policy == "keep":
            assert echoed(old)
            assert changes(daemon) == ["- listener a"]
            return
        if policy == "drain":
            assert echoed(old)
        ended = daemon.wait_for_event("connection")
        assert ended["outcome"] == "removed"
        assert (ended["duration_ms"] > 1000) is (policy == "drain")
        with pytest.raises(ConnectionResetError):
            old.recv(1)


def test_a_bad_file_changes_nothing_and_is_told(tmp_path: Path, target: SocketAddress) -> None:
    # R1
    text = config(stream("web", target))
    with Daemon(text, tmp_path) as daemon, daemon.connect("web") as live:
        assert echoed(live)
        line = reload(daemon, text + "idle_timeot = 5\n")
        assert line["event"] == "reload_failed"
        assert "relay.toml:10:1: listeners.web.idle_timeot: unknown key" in line["message"]
        daemon.wait_for_status(lambda status: "the last reload was refused" in status)
        assert echoed(live)
        with daemon.connect("web") as other:
            assert echoed(other)
        assert reload(daemon, text)["event"] == "reloaded"
        daemon.wait_for_status(lambda status: status.endswith("connections"))


def test_one_address_in_use_of_three_opens_none(tmp_path: Path, target: SocketAddress) -> None:
    # R1
    text = config(stream("web", target))
    with socket.create_server(("127.0.0.1", 0)) as taken, Daemon(text, tmp_path) as daemon:
        all_there(daemon)
        open_before = fds(daemon.pid)
        port = taken.getsockname()[1]
        more = [
            stream("one", target, f"unix:{tmp_path}/one.sock"),
            stream("two", target, f"127.0.0.1:{port}"),
            dgram("three", target),
        ]
        line = reload(daemon, text + "\n".join(more))
        assert line["event"] == "reload_failed"
        assert f"listeners.two: 127.0.0.1:{port}: address already in use" in line["message"]
        fds_become(daemon.pid, open_before)
        assert not (tmp_path / "one.sock").exists()
        with daemon.connect("web") as client:
            assert echoed(client)


def test_targets_change_for_new_connections(tmp_path: Path, target: SocketAddress) -> None:
    # R3
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        other.settimeout(DEADLINE_S)
        daemon = stack.enter_context(Daemon(config(stream("web", target)), tmp_path))
        live = stack.enter_context(daemon.connect("web"))
        assert echoed(live)
        host, port = other.getsockname()
        reload(daemon, config(stream("web", f"{host}:{port}")))
        assert changes(daemon) == [
            f"~ listener web: target {target} removed (1 connection: drain 30s)",
            f"~ listener web: target {host}:{port} added",
        ]
        new = stack.enter_context(daemon.connect("web"))
        accepted, _ = other.accept()
        stack.enter_context(accepted)
        new.sendall(b"to the new one")
        assert accepted.recv(100) == b"to the new one"
        assert echoed(live)
        for sock in (new, accepted, live):
            sock.close()


def test_sessions_stay_where_they_are(tmp_path: Path, udp_echo: socket.socket, target: SocketAddress) -> None:
    # R2: the same session, the same source port
    host, port = udp_echo.getsockname()
    text = config(dgram("dns", f"{host}:{port}"))
    with Daemon(text, tmp_path) as daemon, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        address = daemon.address("dns", kind="dgram")
        assert isinstance(address, InetAddress)
        client.settimeout(DEADLINE_S)
        client.connect(address.sockaddr)
        senders = set()
        for round_ in range(4):
            client.send(b"%d" % round_)
            data, sender = udp_echo.recvfrom(100)
            senders.add(sender)
            udp_echo.sendto(data, sender)
            assert client.recv(100) == b"%d" % round_
            more = f'session_timeout = "{100 + round_}s"'
            assert reload(daemon, config(dgram("dns", f"{host}:{port}", more=more)))["event"] == "reloaded"
        assert len(senders) == 1


def test_a_removed_datagram_listener_answers_its_sessions_until_they_fall_silent(
    tmp_path: Path, udp_echo: socket.socket, target: SocketAddress
) -> None:
    # R3, R6
    host, port = udp_echo.getsockname()
    keep = stream("web", target)
    with (
        Daemon(config(keep, dgram("dns", f"{host}:{port}")), tmp_path) as daemon,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        address = daemon.address("dns", kind="dgram")
        assert isinstance(address, InetAddress)
        client.settimeout(DEADLINE_S)
        client.connect(address.sockaddr)
        client.send(b"question")
        _, sender = udp_echo.recvfrom(100)
        reload(daemon, config(keep))
        udp_echo.sendto(b"answer", sender)
        assert client.recv(100) == b"answer"
        ended = daemon.wait_for_event("session")
        assert ended["outcome"] == "removed"
        # The very address can be had again.
        bind = f"{address.host}:{address.port}"
        assert reload(daemon, config(keep, dgram("dns", f"{host}:{port}", bind)))["event"] == "reloaded"
        client.send(b"again")
        assert udp_echo.recvfrom(100)[0] == b"again"


def test_a_wildcard_may_become_one_of_its_addresses_and_back(tmp_path: Path, target: SocketAddress) -> None:
    with Daemon(config(stream("web", target, "0.0.0.0:0")), tmp_path) as daemon, daemon.connect("web") as live:
        assert echoed(live)
        address = daemon.address("web")
        assert isinstance(address, InetAddress)
        for host in ("0.0.0.0", "127.0.0.1", "0.0.0.0", "127.0.0.2"):
            assert reload(daemon, config(stream("web", target, f"{host}:{address.port}")))["event"] == "reloaded"
            shown = "127.0.0.1" if host == "0.0.0.0" else host
            with socket.create_connection((shown, address.port), DEADLINE_S) as client:
                assert echoed(client)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", address.port), DEADLINE_S)
        assert echoed(live)


def test_what_needs_a_restart_is_named_and_the_rest_is_done(tmp_path: Path, target: SocketAddress) -> None:
    text = config(stream("web", target))
    with Daemon(text, tmp_path) as daemon:
        reload(daemon, text.replace("workers = 2", "workers = 3") + 'idle_timeout = "7s"\n')
        assert changes(daemon) == [
            "~ daemon.workers 2 -> 3: needs a restart",
            '~ listener web: idle_timeout "1h" -> "7s"',
        ]
        assert len(daemon.workers()) == 2


def test_a_worker_that_is_replaced_does_what_the_file_says_now(tmp_path: Path, target: SocketAddress) -> None:
    with Daemon(config(stream("a", target)), tmp_path) as daemon:
        reload(daemon, config(stream("b", target)))
        for pid in daemon.workers():
            os.kill(pid, signal.SIGKILL)
        daemon.wait_for_event("worker_started", 4)
        for _ in range(8):
            with daemon.connect("b") as client:
                assert echoed(client)


def test_systemd_is_told_of_a_reload(tmp_path: Path, target: SocketAddress) -> None:
    # R1
    text = config(stream("web", target))
    with Daemon(text, tmp_path) as daemon:
        reload(daemon, text)
        told = daemon.wait_for_notification(lambda told: "RELOADING" in told)
        assert int(told["MONOTONIC_USEC"]) > 0
        daemon.wait_for(lambda: sum("READY" in told for told in daemon.notifications) == 2, "READY after the reload")


# What a review and a stranger found, in the order of the harm.


def udp_client(address: object) -> socket.socket:
    """A client with a timeout."""
    assert isinstance(address, InetAddress)
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(DEADLINE_S)
    client.connect(address.sockaddr)
    return client


def no_bugs(daemon: Daemon) -> None:
    bad = [line for line in daemon.lines if line["event"] in ("internal_error", "worker_exited", "control_lost")]
    assert not bad, "\n".join(str(line.get("traceback", line)) for line in bad)


def test_a_session_goes_on_when_its_listener_gets_another_name(tmp_path: Path, udp_echo: socket.socket) -> None:
    # R2
    target = f"127.0.0.1:{udp_echo.getsockname()[1]}"
    with Daemon(config(dgram("one", target, f"127.0.0.1:{free_range(1)}")), tmp_path) as daemon:
        address = daemon.address("one", kind="dgram")
        with udp_client(address) as client:
            before = answered(client, udp_echo, b"1")
            reload(daemon, config(dgram("two", target, str(address), 'on_change = "keep"')))
            assert [answered(client, udp_echo, b"%d" % number) for number in range(20)] == [before] * 20
        with udp_client(address) as other:
            answered(other, udp_echo, b"new")
        no_bugs(daemon)


@pytest.mark.parametrize("policy", ["keep", "drain"])
def test_a_listener_that_comes_back_finds_its_sessions(policy: str, tmp_path: Path, udp_echo: socket.socket) -> None:
    # R2, R3
    target = f"127.0.0.1:{udp_echo.getsockname()[1]}"
    rest = dgram("rest", target)
    text = dgram("dns", target, f"127.0.0.1:{free_range(1)}", f'on_change = "{policy}"')
    with Daemon(config(rest, text), tmp_path) as daemon:
        with udp_client(daemon.address("dns", kind="dgram")) as client:
            port = answered(client, udp_echo, b"before")
            reload(daemon, config(rest))
            reload(daemon, config(rest, text))
            assert answered(client, udp_echo, b"after") == port
        no_bugs(daemon)


def test_one_way_datagrams_give_their_address_back(tmp_path: Path, udp_echo: socket.socket) -> None:
    target = f"127.0.0.1:{udp_echo.getsockname()[1]}"
    rest = dgram("rest", target)
    with Daemon(config(rest, dgram("log", target, more='session = "datagram"')), tmp_path) as daemon:
        address = daemon.address("log", kind="dgram")
        assert isinstance(address, InetAddress)
        reload(daemon, config(rest))
        deadline = time.monotonic() + DEADLINE_S
        while True:  # the workers have let go of it; control does, when they have said so
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other, contextlib.suppress(OSError):
                other.bind(address.sockaddr)
                break
            assert time.monotonic() < deadline


@pytest.mark.parametrize("wider", ["wildcard", "range"])
def test_new_clients_are_served_while_an_address_gives_way(wider: str, tmp_path: Path, udp_echo: socket.socket) -> None:
    # R2: no socket that is there for old sessions takes the datagrams of new clients
    target = f"127.0.0.1:{udp_echo.getsockname()[1]}"
    port = free_range(2)
    new = f"0.0.0.0:{port}" if wider == "wildcard" else f"127.0.0.1:{port}-{port + 1}"
    address = InetAddress(Family.INET, "127.0.0.1", port)
    with Daemon(config(dgram("dns", target, str(address), 'on_change = "keep"')), tmp_path) as daemon:
        with contextlib.ExitStack() as stack:
            olds = [stack.enter_context(udp_client(address)) for _ in range(8)]
            for number, old in enumerate(olds):
                answered(old, udp_echo, b"old %d" % number)
            assert reload(daemon, config(dgram("dns", target, new, 'on_change = "keep"')))["event"] == "reloaded"
            for number in range(20):
                client = stack.enter_context(udp_client(address))
                answered(client, udp_echo, b"new %d" % number)
            for number, old in enumerate(olds):
                answered(old, udp_echo, b"again %d" % number)
        no_bugs(daemon)


def test_a_socket_that_waits_for_its_sessions_gives_way_to_a_later_reload(
    tmp_path: Path, udp_echo: socket.socket
) -> None:
    # R2
    target = f"127.0.0.1:{udp_echo.getsockname()[1]}"
    port = free_range(1)
    address = InetAddress(Family.INET, "127.0.0.1", port)
    rest = dgram("rest", target)
    old = dgram("dns", target, str(address), 'on_change = "keep"')
    with Daemon(config(rest, old), tmp_path) as daemon, contextlib.ExitStack() as stack:
        for number in range(8):
            answered(stack.enter_context(udp_client(address)), udp_echo, b"old %d" % number)
        reload(daemon, config(rest))
        assert reload(daemon, config(rest, dgram("dns", target, f"[::]:{port}")))["event"] == "reloaded"
        for number in range(20):
            answered(stack.enter_context(udp_client(address)), udp_echo, b"new %d" % number)
        no_bugs(daemon)


def test_what_comes_back_in_time_is_spared(tmp_path: Path, target: SocketAddress) -> None:
    # R3
    one, two = (config(stream("web", each), drain="1s") for each in (target, "127.0.0.1:9"))
    with Daemon(one, tmp_path) as daemon, daemon.connect("web") as live:
        assert echoed(live)
        reload(daemon, two)
        reload(daemon, one)
        with daemon.connect("web") as other:
            other.settimeout(1.5)
            assert echoed(other)
            with pytest.raises(TimeoutError):  # longer than the drain was
                other.recv(1)
        assert echoed(live)


def test_our_own_socket_in_the_way_is_called_ours(tmp_path: Path, target: SocketAddress) -> None:
    port = free_range(1)
    six = stream("six", target, f"[::]:{port}")
    with Daemon(config(six), tmp_path) as daemon:
        line = reload(daemon, config(six + "ipv6_only = true\n", stream("four", target, f"0.0.0.0:{port}")))
        assert line["event"] == "reload_failed"
        assert f"relayd itself has [::]:{port} for listener six" in line["message"]


def test_a_reload_during_a_stop_opens_nothing(tmp_path: Path, target: SocketAddress) -> None:
    # R6
    with Daemon(config(stream("a", target)), tmp_path) as daemon, daemon.connect("a") as live:
        assert echoed(live)
        daemon.terminate()
        daemon.wait_for_event("stopping")
        daemon.configure(config(stream("a", target), stream("b", target)))
        daemon.signal(signal.SIGHUP)
        live.close()
        assert daemon.wait() == 0
        assert len(daemon.events("listening")) == 1


def test_a_worker_that_starts_during_a_reload_gets_every_socket(tmp_path: Path, target: SocketAddress) -> None:
    # R7
    variants = [config(stream("a", target), *(stream(f"b{number}", target) for number in range(n))) for n in (1, 3)]
    with Daemon(variants[0], tmp_path) as daemon:
        for round_ in range(3):
            for pid in daemon.workers():
                os.kill(pid, signal.SIGKILL)
            daemon.wait_for_event("worker_exited", 2 * round_ + 2)
            assert reload(daemon, variants[(round_ + 1) % 2])["event"] == "reloaded"
            daemon.wait_for_event("worker_started", 2 * round_ + 4)
        assert {line["status"] for line in daemon.events("worker_exited")} == {-signal.SIGKILL}
        with daemon.connect("a") as client:
            assert echoed(client)
