"""Sockets that systemd has bound and passes (sd_listen_fds(3)): `bind = "systemd:NAME"`."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relayd.address import SocketAddress, from_sockaddr
from tests import installed
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_reload import changes, config, dgram, echoed, fds, fds_become, reload, stream
from tests.passing import Passing
from tests.ports import free_range


@pytest.fixture
def target(echo: Callable[[str], SocketAddress]) -> SocketAddress:
    """An echo over IPv4."""
    return echo("inet")


class UdpEcho:
    """Sends back what it gets."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.address = from_sockaddr(socket.AF_INET, self.sock.getsockname())
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", self.sock.getsockname())
        self._thread.join()
        self.sock.close()

    def _run(self) -> None:
        while True:
            data, client = self.sock.recvfrom(65536)
            if not data:
                return
            self.sock.sendto(data, client)


@pytest.fixture
def udp_target() -> Iterator[SocketAddress]:
    with contextlib.closing(UdpEcho()) as echo:
        yield echo.address


def listening(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """What systemd makes of ListenStream=."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, port))
    sock.listen(128)
    return sock


def receiving(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """What systemd makes of ListenDatagram=."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, port))
    return sock


def connected(made: socket.socket, host: str = "127.0.0.1") -> socket.socket:
    """A client of a passed socket."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, made.type)
    sock.settimeout(DEADLINE_S)
    sock.connect((host, made.getsockname()[1]))
    return sock


def text_of(made: socket.socket) -> str:
    return str(from_sockaddr(made.family, made.getsockname()))


def ended(daemon: Daemon, listener: str, event: str = "connection", count: int = 1) -> dict[str, object]:
    return daemon.wait_for_log(lambda line: line.get("event") == event and line.get("listener") == listener, count)


def test_streams_and_datagrams(tmp_path: Path, target: SocketAddress, udp_target: SocketAddress) -> None:
    text = config(stream("web", target, "systemd:web"), dgram("dns", udp_target, "systemd:dns"))
    with listening() as web, receiving() as dns:
        with connected(web) as early, connected(dns) as question:
            # What has started the service: they wait in the sockets until it is there.
            early.sendall(b"hello")
            question.send(b"hello")
            with Daemon(text, tmp_path, passing=[("web", web), ("dns", dns)]) as daemon:
                assert early.recv(5, socket.MSG_WAITALL) == b"hello"
                assert question.recv(100) == b"hello"
                told = {line["listener"]: line for line in daemon.events("listening")}
                assert (told["web"]["address"], told["dns"]["address"]) == (text_of(web), text_of(dns))
                assert told["web"]["message"] == f"web listens on {text_of(web)}, passed as systemd:web"
                assert told["dns"]["message"].endswith("for datagrams, passed as systemd:dns")
                early.close()
                assert ended(daemon, "web")["local"] == text_of(web)
                assert daemon.events("configuration_warning") == []
                assert daemon.stop() == 0
                assert ended(daemon, "dns", "session")["local"] == text_of(dns)
        # The sockets are systemd's: whoever comes now waits for the next start.
        with connected(web) as late, Daemon(text, tmp_path, passing=[("web", web), ("dns", dns)]) as daemon:
            assert echoed(late)


def test_several_sockets_of_one_name_and_of_both_types(
    tmp_path: Path, target: SocketAddress, udp_target: SocketAddress
) -> None:
    with contextlib.ExitStack() as made:
        streams = [made.enter_context(listening(host)) for host in ("127.0.0.1", "::1", "::ffff:127.0.0.3")]
        datagrams = [made.enter_context(receiving(host)) for host in ("127.0.0.1", "::ffff:127.0.0.2", "::1")]
        text = config(stream("web", target, "systemd:dns"), dgram("dns", udp_target, "systemd:dns"))
        with Daemon(text, tmp_path, passing=[("dns", sock) for sock in (*datagrams, *streams)]) as daemon:
            for sock in (*streams, *datagrams):
                with connected(sock, sock.getsockname()[0]) as client:
                    assert echoed(client)
            told = [line["address"] for line in daemon.events("listening")]
            assert told == list(map(text_of, (*streams, *datagrams)))
            daemon.wait_for_event("connection", 3)
            clients = {line["client"] for line in daemon.events("connection")}
            assert "::1" in clients
            assert not any("::ffff:" in client for client in clients)


@pytest.mark.parametrize(("host", "to"), [("0.0.0.0", "127.0.0.2"), ("::", "127.0.0.2"), ("::", "::1")])
def test_a_wildcard_answers_from_the_address_that_was_asked(
    host: str, to: str, tmp_path: Path, udp_target: SocketAddress
) -> None:
    # D2
    text = config(dgram("dns", udp_target, "systemd:dns"))
    with receiving(host) as made, Daemon(text, tmp_path, passing=[("dns", made)]) as daemon:
        with connected(made, to) as client:  # connected: an answer from elsewhere would not come
            assert echoed(client)
        daemon.stop()
        (line,) = daemon.events("session")
        port = made.getsockname()[1]
        assert line["local"] == (f"[{to}]:{port}" if ":" in to else f"{to}:{port}")


def test_unix_sockets_and_their_files_are_systemds(tmp_path: Path, target: SocketAddress) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        path.chmod(0o604)
        with Daemon(config(stream("web", target, "systemd:web")), tmp_path, passing=[("web", made)]) as daemon:
            with daemon.connect("web") as client:
                assert echoed(client)
            assert ended(daemon, "web")["local"] == f"unix:{path}"
            assert daemon.stop() == 0
        assert path.stat().st_mode & 0o777 == 0o604


def test_reloads_let_go_of_a_name_and_come_back_to_it(
    tmp_path: Path, target: SocketAddress, udp_target: SocketAddress
) -> None:
    # R2
    def both(name: str) -> tuple[str, str]:
        return stream(f"{name}-web", target, "systemd:web"), dgram(f"{name}-dns", udp_target, "systemd:dns")

    other = stream("other", target)
    with listening() as web, receiving() as dns:
        daemon = Daemon(config(*both("a"), other), tmp_path, passing=[("web", web), ("dns", dns)])
        with daemon, connected(web) as live, connected(dns) as session:
            assert echoed(live)
            assert echoed(session)
            # Nothing changes.
            open_before = fds(daemon.pid)
            assert reload(daemon, config(*both("a"), other))["changes"] == 0
            # Another name: the same sockets.
            reload(daemon, config(*both("b"), other))
            with connected(web) as client:
                assert echoed(client)
            # Gone, and back: whoever comes in between waits.
            reload(daemon, config(other))
            with connected(web) as waiting:
                waiting.sendall(b"hello")
                reload(daemon, config(*both("c"), other))
                assert waiting.recv(5, socket.MSG_WAITALL) == b"hello"
            with connected(dns) as client:
                assert echoed(client)
            assert ended(daemon, "c-web")["outcome"] == "normal"
            assert "+ listener c-web" in changes(daemon)
            assert echoed(live)
            live.close()
            fds_become(daemon.pid, open_before)
            assert daemon.stop() == 0


def test_a_name_that_was_not_passed_is_refused_with_its_place(tmp_path: Path, target: SocketAddress) -> None:
    # R1
    text = config(stream("web", target, "systemd:web"))
    with listening() as web, receiving() as dns:
        passing = [("web", web), ("dns", dns)]
        listed = f"systemd passed: web (stream, {text_of(web)}), dns (dgram, {text_of(dns)})"
        with Daemon(text, tmp_path, passing=passing) as daemon, connected(web) as live:
            assert echoed(live)
            assert reload(daemon, text.replace("systemd:web", "systemd:wev"))["event"] == "reload_failed"
            (line,) = daemon.events("reload_failed")
            assert (
                f'relay.toml:7:8: listeners.web.bind: "systemd:wev": there is no socket of this name; {listed}'
                in (line["message"])
            )
            assert 'did you mean "systemd:web"?' in line["message"]
            line = reload(daemon, text + dgram("more", target, "systemd:web"))
            assert "there is no dgram socket of this name" in line["message"]
            taken = reload(daemon, text + stream("more", target, f"127.0.0.1:{web.getsockname()[1]}"))
            assert f"systemd has {text_of(web)}, and passes it as web" in taken["message"]
            assert echoed(live)
        daemon = Daemon(text.replace("systemd:web", "systemd:wev"), tmp_path, passing=passing)
        with contextlib.closing(daemon):
            daemon.start()
            assert daemon.wait() == 1
            assert listed in daemon.stderr


def test_nothing_was_passed(tmp_path: Path, target: SocketAddress) -> None:
    daemon = Daemon(config(stream("web", target, "systemd:web")), tmp_path)
    with contextlib.closing(daemon):
        daemon.start()
        assert daemon.wait() == 1
        assert '"systemd:web": there is no socket of this name; systemd passed: none\n' in daemon.stderr


def test_what_makes_no_sense_ends_the_start(tmp_path: Path, target: SocketAddress) -> None:
    with listening() as web:
        daemon = Daemon(config(stream("web", target)), tmp_path, passing=[("web:more", web)])
        with contextlib.closing(daemon):
            daemon.start()
            assert daemon.wait() == 4
            assert daemon.stderr.startswith("cannot take the sockets that systemd has passed (LISTEN_PID=")


def test_what_nobody_uses_is_told_once_and_nobody_else_inherits_it(tmp_path: Path, target: SocketAddress) -> None:
    read, write = os.pipe()
    with listening() as web, receiving() as dns, open(read, "rb") as fifo, open(write, "wb"):
        passing: list[Passing] = [("web", web), ("dns", dns), ("odd", fifo)]
        with Daemon(config(stream("web", target, "systemd:web")), tmp_path, passing=passing) as daemon:
            (line,) = daemon.events("configuration_warning")
            left = f"dns (dgram, {text_of(dns)}), odd (a FIFO)"
            assert line["message"] == f"no listener uses what systemd has passed: {left}"
            inode = f"socket:[{os.fstat(dns.fileno()).st_ino}]"
            assert inode in fds(daemon.pid)
            for pid in daemon.workers():
                assert inode not in fds(pid)
                assert b"LISTEN_" not in Path(f"/proc/{pid}/environ").read_bytes()
            reload(daemon, config(stream("web", target, "systemd:web"), stream("b", target)))
            assert len(daemon.events("configuration_warning")) == 1


def test_a_worker_that_dies_is_replaced_by_one_with_the_same_sockets(
    tmp_path: Path, target: SocketAddress, udp_target: SocketAddress
) -> None:
    # R7
    text = config(stream("web", target, "systemd:dns"), dgram("dns", udp_target, "systemd:dns"))
    with (
        listening() as web,
        receiving() as dns,
        Daemon(text, tmp_path, passing=[("dns", web), ("dns", dns)]) as daemon,
    ):
        for number, pid in enumerate(daemon.workers(), 1):
            os.kill(pid, signal.SIGKILL)
            daemon.wait_for_event("worker_started", 2 + number)
        for sock in (web, dns):
            with connected(sock) as client:
                assert echoed(client)


def test_check_and_plan_know_what_they_can(tmp_path: Path, target: SocketAddress) -> None:
    """`check` and `show-config` take the name; the running daemon, asked for a plan, knows what was passed."""
    text = config(stream("web", target, "systemd:web"))
    with listening() as web, Daemon(text, tmp_path, passing=[("web", web)]) as daemon:
        file = tmp_path / "other.toml"
        file.write_text(text.replace("systemd:web", "systemd:other"))

        def relayd(*command: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(installed.relayd(*command), capture_output=True, text=True, check=False)

        checked = relayd("check", "-c", str(file))
        assert (checked.returncode, checked.stderr) == (0, "")
        assert "systemd:other: systemd makes the sockets" in checked.stdout
        planned = relayd("plan", "-c", str(file), "--admin", str(daemon.admin), "--json")
        assert planned.returncode == 1
        assert "there is no socket of this name; systemd passed: web" in json.loads(planned.stdout)["errors"][0]
        file.write_text(text + stream("more", target))
        planned = relayd("plan", "-c", str(file), "--admin", str(daemon.admin))
        assert planned.returncode == 10
        assert planned.stdout.splitlines()[-1] == "+ listener more"  # before it: the [admin] of the test's own


def test_a_range_beside_it(tmp_path: Path, target: SocketAddress) -> None:
    first = free_range(3)
    with listening() as web:
        text = config(stream("web", target, "systemd:web")).replace(
            '"systemd:web"', f'["systemd:web", "127.0.0.1:{first}-{first + 2}"]'
        )
        with Daemon(text, tmp_path, passing=[("web", web)]) as daemon:
            for port in (web.getsockname()[1], first, first + 2):
                with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as client:
                    assert echoed(client)
            assert [line["address"] for line in daemon.events("listening")] == [
                text_of(web),
                f"127.0.0.1:{first}-{first + 2}",
            ]
