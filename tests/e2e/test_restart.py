"""Restart and upgrade in place: what lives outlives the process that relays it (R4, R5)."""

import contextlib
import hashlib
import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayd.address import InetAddress, SocketAddress, UnixAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import BY_RESTART, Again, answered, upgrade
from tests.ports import free_range

Echo = Callable[[str], SocketAddress]


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    """A TCP socket that the test accepts from."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE_S)
        yield server


def config(*listeners: str, workers: int = 2, more: str = 'drain_timeout = "200ms"') -> str:
    return f'[daemon]\nworkers = {workers}\n{more}\n[log]\nformat = "json"\n' + "".join(listeners)


def stream(name: str, target: SocketAddress | str, bind: str = "127.0.0.1:0", more: str = "") -> str:
    return f'[listeners.{name}]\nbind = "{bind}"\ntargets = ["{target}"]\n{more}\n'


def dgram(name: str, target: str, bind: str = "127.0.0.1:0", more: str = "") -> str:
    return f'[listeners.{name}]\ntype = "dgram"\nbind = "{bind}"\ntargets = ["{target}"]\n{more}\n'


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()
    return f"{host}:{port}"


def echoed(client: socket.socket, data: bytes = b"hello") -> bool:
    client.sendall(data)
    received = b""
    while len(received) < len(data):
        part = client.recv(65536)
        if not part:
            return False
        received += part
    return received == data


def udp_client(daemon: Daemon, listener: str = "dns") -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(DEADLINE_S)
    client.connect(daemon.address(listener, kind="dgram").sockaddr)
    return client


def nothing_went_wrong(daemon: Daemon) -> None:
    bad = [line for line in daemon.lines if line["level"] in ("error", "warning")]
    assert not bad, "\n".join(str(line.get("traceback", line)) for line in bad)


def test_connections_and_sessions_go_on(
    tmp_path: Path, echo: Echo, udp_echo: socket.socket, sink: socket.socket, again: Again
) -> None:
    # R4, R5
    text = config(
        stream("web", echo("inet")),
        stream("six", echo("unix"), "[::1]:0"),
        stream("local", echo("inet6"), f"unix:{tmp_path}/local.sock"),
        stream("half", address_of(sink)),
        dgram("dns", address_of(udp_echo)),
    )
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        clients = {name: stack.enter_context(daemon.connect(name)) for name in ("web", "six", "local", "half")}
        far = stack.enter_context(sink.accept()[0])
        for name in ("web", "six", "local"):
            assert echoed(clients[name])
        clients["half"].sendall(b"question")
        clients["half"].shutdown(socket.SHUT_WR)
        assert far.recv(100) == b"question"
        assert far.recv(100) == b""
        asking = [stack.enter_context(udp_client(daemon)) for _ in range(8)]
        ports = [answered(client, udp_echo, b"%d" % number) for number, client in enumerate(asking)]
        inode = os.stat(tmp_path / "local.sock").st_ino
        workers = set(daemon.workers())
        for _ in range(3):
            again(daemon)
            for name in ("web", "six", "local"):
                assert echoed(clients[name])
            far.sendall(b"tick")
            assert clients["half"].recv(100) == b"tick"
            assert [answered(client, udp_echo, b"%d" % number) for number, client in enumerate(asking)] == ports
            assert os.stat(tmp_path / "local.sock").st_ino == inode
            assert not workers & set(daemon.workers())
            with daemon.connect("web") as new, daemon.connect("local") as local:
                assert echoed(new)
                assert echoed(local)
        far.close()
        assert clients["half"].recv(100) == b""
        line = daemon.wait_for_log(lambda line: line["event"] == "connection" and line["listener"] == "half")
        assert (line["outcome"], line["side"], line["restarts_survived"]) == ("normal", "client", 3)
        assert (line["bytes_in"], line["bytes_out"]) == (8, 12)
        nothing_went_wrong(daemon)
        assert daemon.stop() == 0
        ended = [line for line in daemon.events("session") if line["restarts_survived"] == 3]
        assert len(ended) == len(asking)
        assert {line["datagrams_in"] for line in ended} == {4}
    assert not (tmp_path / "local.sock").exists()


def test_no_byte_of_a_transfer_is_lost_doubled_or_out_of_order(
    tmp_path: Path, sink: socket.socket, again: Again
) -> None:
    # R4, S1: with a reader that stalls, so that pipes and buffers hold bytes when the restart comes
    total = 24 << 20
    with Daemon(config(stream("bulk", address_of(sink))), tmp_path) as daemon, daemon.connect("bulk") as client:
        far, _ = sink.accept()
        far.settimeout(DEADLINE_S)
        client.settimeout(DEADLINE_S)
        with far:
            sent, received = {}, {}

            def send(name: str, sock: socket.socket) -> None:
                data = random.Random(name).randbytes(total)
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
                sent[name] = hashlib.blake2b(data).digest()

            def receive(name: str, sock: socket.socket, stalls: "list[threading.Event]") -> None:
                digest = hashlib.blake2b()
                for stall in stalls:
                    for _ in range(16):
                        digest.update(sock.recv(65536))
                    assert stall.wait(DEADLINE_S)
                while data := sock.recv(1 << 18):
                    digest.update(data)
                received[name] = digest.digest()

            stalls = [threading.Event() for _ in range(3)]
            threads = [
                threading.Thread(target=send, args=("in", client)),
                threading.Thread(target=send, args=("out", far)),
                threading.Thread(target=receive, args=("in", far, stalls)),
                threading.Thread(target=receive, args=("out", client, stalls)),
            ]
            for thread in threads:
                thread.start()
            for stall in stalls:
                again(daemon)
                stall.set()
            for thread in threads:
                thread.join(DEADLINE_S)
                assert not thread.is_alive()
        assert sent == received
        line = daemon.wait_for_event("connection")
        assert (line["outcome"], line["bytes_in"], line["bytes_out"]) == ("normal", total, total)
        nothing_went_wrong(daemon)


def test_nobody_is_refused_meanwhile(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4
    with Daemon(config(stream("web", echo("inet"))), tmp_path) as daemon:
        over = threading.Event()
        served = threading.Semaphore(0)
        errors: list[OSError] = []

        def connect() -> None:
            while not over.is_set():
                try:
                    with daemon.connect("web") as client:
                        assert echoed(client)
                    served.release()
                except OSError as error:
                    errors.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        try:
            for _ in range(3):
                again(daemon)
                for _ in range(3):
                    assert served.acquire(timeout=DEADLINE_S)
        finally:
            over.set()
            thread.join()
        assert errors == []
        nothing_went_wrong(daemon)


@BY_RESTART
@pytest.mark.parametrize("counts", [(1, 3, 2), (3, 1, 2)], ids=str)
def test_workers_may_be_others_afterwards(
    counts: tuple[int, ...], tmp_path: Path, echo: Echo, udp_echo: socket.socket, again: Again
) -> None:
    # R4: the kernel has to give the clients of sessions to the same sockets, whoever has them
    first = free_range(4)
    listeners = (
        stream("web", echo("inet")),
        dgram("dns", address_of(udp_echo)),
        dgram("game", f"{address_of(udp_echo)}", f"127.0.0.1:{first}-{first + 3}"),
    )
    with Daemon(config(*listeners, workers=counts[0]), tmp_path) as daemon, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.connect("web")) for _ in range(6)]
        asking = [stack.enter_context(udp_client(daemon)) for _ in range(12)]
        for port in range(first, first + 4):
            asking.append(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            asking[-1].settimeout(DEADLINE_S)
            asking[-1].connect(("127.0.0.1", port))
        assert all(map(echoed, clients))
        ports = [answered(client, udp_echo, b"%d" % number) for number, client in enumerate(asking)]
        for workers in (*counts[1:], *counts):
            daemon.configure(config(*listeners, workers=workers))
            again(daemon)
            assert len(daemon.workers()) == workers
            assert all(map(echoed, clients))
            assert [answered(client, udp_echo, b"%d" % number) for number, client in enumerate(asking)] == ports
            with udp_client(daemon) as new, daemon.connect("web") as new_stream:
                answered(new, udp_echo, b"new")
                assert echoed(new_stream)
        nothing_went_wrong(daemon)


@pytest.mark.parametrize("policy", ["keep", "close", "drain"])
def test_a_restart_on_another_file_treats_live_ones_as_a_reload_does(
    policy: str, tmp_path: Path, echo: Echo, again: Again
) -> None:
    # R3, R4
    more = f'on_change = "{policy}"'
    stays, goes = stream("web", echo("inet")), stream("old", echo("inet"), more=more)
    drain = 'drain_timeout = "200ms"'
    with Daemon(config(stays, goes, more=drain), tmp_path) as daemon:
        with daemon.connect("web") as web, daemon.connect("old") as old:
            address = daemon.address("old")
            assert echoed(web)
            assert echoed(old)
            daemon.configure(config(stays, more=drain))
            again(daemon)
            assert echoed(web)
            if policy == "keep":
                assert echoed(old)
            else:
                with pytest.raises(ConnectionError):
                    old.recv(1)
                line = daemon.wait_for_event("connection")
                assert (line["listener"], line["outcome"]) == ("old", "removed")
        with socket.socket() as late, pytest.raises(ConnectionRefusedError):
            late.connect(address.sockaddr)
        nothing_went_wrong(daemon)


@BY_RESTART
def test_what_only_a_restart_can_change_is_changed_by_one(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4
    target, port = echo("inet"), free_range(1)
    text = config(stream("web", target, f"[::]:{port}", "ipv6_only = true"))
    with Daemon(text, tmp_path) as daemon:
        with socket.create_connection(("::1", port), DEADLINE_S) as live:
            assert echoed(live)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), DEADLINE_S)
            daemon.configure(text.replace("ipv6_only = true", "ipv6_only = false"))
            again(daemon)
            with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as four:
                assert echoed(four)
            assert echoed(live)
        nothing_went_wrong(daemon)


def test_a_connection_that_still_dials_arrives(tmp_path: Path, again: Again) -> None:
    # R4, S6
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket(socket.AF_UNIX))
        full.bind(f"{tmp_path}/full.sock")
        full.listen(0)
        full.settimeout(DEADLINE_S)
        fill = stack.enter_context(socket.socket(socket.AF_UNIX))
        fill.connect(f"{tmp_path}/full.sock")
        text = config(stream("web", UnixAddress(f"{tmp_path}/full.sock")))
        with Daemon(text, tmp_path) as daemon, daemon.connect("web") as client:
            client.sendall(b"early")
            again(daemon)
            stack.enter_context(full.accept()[0])
            far = stack.enter_context(full.accept()[0])
            assert far.recv(100) == b"early"
            far.sendall(b"answer")
            assert client.recv(100) == b"answer"
            nothing_went_wrong(daemon)


@BY_RESTART
def test_more_sockets_than_the_store_takes_outlive_a_restart(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4: 300 ports, of which the store has 256
    first = free_range(300)
    text = config(stream("many", echo("inet"), f"127.0.0.1:{first}-{first + 299}"))
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        some = [("127.0.0.1", port) for port in (first, first + 255, first + 299)]
        clients = [stack.enter_context(socket.create_connection(each, DEADLINE_S)) for each in some]
        assert all(map(echoed, clients))
        for _ in range(2):
            again(daemon)
            assert all(map(echoed, clients))
            for each in some:
                with socket.create_connection(each, DEADLINE_S) as new:
                    assert echoed(new)
        # 256 sockets and one manifest: nothing is left behind.
        daemon.wait_for(lambda: len(daemon.stored) == 257, "an orderly store")
        nothing_went_wrong(daemon)


@BY_RESTART
def test_counts_go_on(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4
    with Daemon(config(stream("web", echo("inet"))), tmp_path) as daemon:
        for _ in range(3):
            with daemon.connect("web") as client:
                assert echoed(client)
        daemon.wait_for_event("connection", 3)
        with daemon.connect("web") as live:
            assert echoed(live)
            again(daemon)
            daemon.wait_for_status(lambda text: text.startswith("1 listener, 1 connection"))
            status = daemon.command("status", "--json")
            (web,) = status["listeners"]
            assert (web["accepted"], web["active"]) == (4, 1)


def test_the_store_has_what_is_in_force_and_nothing_else(tmp_path: Path, echo: Echo) -> None:
    # R2, R5
    target = echo("inet")
    one, two = config(stream("a", target), stream("b", target)), config(stream("b", target))
    with Daemon(one, tmp_path) as daemon:

        def kept() -> list[object]:
            found = []
            for name, file in list(daemon.stored):
                if name.startswith("relayd-socket-"):
                    with socket.socket(fileno=os.dup(file.fileno())) as sock:
                        found.append(sock.getsockname()[1])
            return sorted(found)

        ports = [daemon.address(name) for name in ("a", "b")]
        both = sorted(port.port for port in ports if isinstance(port, InetAddress))
        assert kept() == both
        daemon.configure(two)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reloaded")
        daemon.wait_for(lambda: len(kept()) == 1, "one socket is let go of")
        with socket.socket() as late, pytest.raises(ConnectionRefusedError):
            late.connect(ports[0].sockaddr)  # or systemd would hold it open, and nobody answer
        daemon.restart()
        daemon.wait_for(lambda: len(daemon.stored) == 2, "a socket and a manifest")


def test_a_killed_control_process_refuses_nobody(tmp_path: Path, echo: Echo, udp_echo: socket.socket) -> None:
    # R4: a crash, after which systemd kills the workers and starts the service again
    path = f"unix:{tmp_path}/local.sock"
    text = config(stream("web", echo("inet")), stream("local", echo("inet"), path), dgram("dns", address_of(udp_echo)))
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        workers = daemon.workers()
        os.kill(daemon.pid, signal.SIGSTOP)  # so that workers die before control can replace them
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        daemon.kill(keep_store=True)
        waiting = [stack.enter_context(daemon.connect(name)) for name in ("web", "local")]
        asking = stack.enter_context(udp_client(daemon))
        asking.send(b"question")
        for client in waiting:
            client.sendall(b"hello")
        daemon.start_again()
        for client in waiting:
            assert client.recv(100) == b"hello"
        assert udp_echo.recvfrom(100)[0] == b"question"
        nothing_went_wrong(daemon)


@BY_RESTART
def test_a_restart_on_a_bad_file_goes_on_with_what_was_in_force(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R1, R4. An upgrade looks at the file first; here it goes bad only then.
    text = config(stream("web", echo("inet")))
    with Daemon(text, tmp_path) as daemon, daemon.connect("web") as client:
        assert echoed(client)
        daemon.configure(text + "[listeners.web.typo]\nx = 1\n")
        if again is upgrade:
            daemon.signal(signal.SIGUSR2)
            daemon.wait_for_event("upgrade_refused")
        else:
            again(daemon)
            line = daemon.wait_for_event("reload_failed")
            assert "relay.toml:" in line["message"]
            daemon.wait_for_status(lambda text: "refused" in text)
            assert not daemon.command("status", "--json")["config"]["last_reload"]["ok"]
        assert echoed(client)
        with daemon.connect("web") as new:
            assert echoed(new)
        daemon.configure(text.replace("200ms", "300ms"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reloaded")
        again(daemon)
        assert echoed(client)
        # Where there is nothing to go on with, a bad file is none to start with.
        daemon.configure("[listeners.web]\nx = 1\n")
        client.close()
        assert daemon.stop() == 0
        with pytest.raises(AssertionError, match=r"relay\.toml:"):
            daemon.start_again()


def test_a_stop_is_no_restart(tmp_path: Path, echo: Echo) -> None:
    # R6
    with Daemon(config(stream("web", echo("inet")), more='drain_timeout = "100ms"'), tmp_path) as daemon:
        with daemon.connect("web") as client:
            assert echoed(client)
            assert daemon.stop() == 0
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert daemon.wait_for_event("connection")["outcome"] == "shutdown"


def test_without_preserve_connections_a_restart_drains_and_refuses_nobody(tmp_path: Path, echo: Echo) -> None:
    # R4
    more = 'preserve_connections = false\ndrain_timeout = "100ms"'
    text = config(stream("web", echo("inet")), stream("local", echo("inet"), f"unix:{tmp_path}/l.sock"), more=more)
    with Daemon(text, tmp_path) as daemon, contextlib.ExitStack() as stack:
        live = stack.enter_context(daemon.connect("web"))
        assert echoed(live)
        daemon.signal(signal.SIGUSR1)
        daemon.wait_for_event("stopping")
        daemon.wait_for_event("stopped")
        waiting = [stack.enter_context(daemon.connect(name)) for name in ("web", "local")]
        daemon.start_again()
        assert all(map(echoed, waiting))
        with pytest.raises(ConnectionResetError):
            live.recv(1)
        assert daemon.events("connection")[0]["outcome"] == "shutdown"


def test_an_upgrade_that_would_not_start_is_refused(tmp_path: Path, echo: Echo) -> None:
    # R5
    text = config(stream("web", echo("inet")))
    with Daemon(text, tmp_path) as daemon, daemon.connect("web") as client:
        assert echoed(client)
        workers = daemon.workers()
        daemon.configure(text + "[listeners.web.typo]\nx = 1\n")
        daemon.signal(signal.SIGUSR2)
        line = daemon.wait_for_event("upgrade_refused")
        assert "relay.toml:" in line["message"]
        assert daemon.workers() == workers
        assert echoed(client)
        daemon.configure(text.replace("workers = 2", "workers = 2\npreserve_connections = false"))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reloaded")
        daemon.signal(signal.SIGUSR2)
        assert "preserve_connections" in daemon.wait_for_event("upgrade_refused", 2)["message"]
        assert echoed(client)
        daemon.configure(text)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reloaded", 2)
        pid = daemon.pid
        upgrade(daemon)
        assert daemon.pid == pid
        assert echoed(client)


def test_signals_that_come_early_are_obeyed_when_it_is_ready(tmp_path: Path, echo: Echo) -> None:
    # R4: a second restart before the first one is over
    with Daemon(config(stream("web", echo("inet"))), tmp_path) as daemon, daemon.connect("web") as client:
        assert echoed(client)
        daemon.signal(signal.SIGUSR2)
        daemon.wait_for_event("handed_over")
        daemon.signal(signal.SIGUSR2)  # to the next relayd, wherever it is in its start
        daemon.wait_for_event("started", 2)
        assert echoed(client)
        nothing_went_wrong(daemon)
