"""Names as the installed daemon resolves them, in a network with a name server of its own (T3)."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import installed
from tests.dns_server import Answer, DnsServer
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.namespaces import in_network_of

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives the daemon a network and files of its own"),
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is missing")
        for program in ("unshare", "nsenter", "ip")
    ),
]

PORT = 8080


class Place:
    """A network with nothing in it but loopback, where /etc/hosts and /etc/resolv.conf are the test's own."""

    def __init__(self, directory: Path) -> None:
        self.hosts, self.resolv_conf = directory / "hosts", directory / "resolv.conf"
        self.hosts.write_text("127.0.0.3 hosts.test\n")
        self.resolv_conf.write_text("nameserver 127.0.0.1\nsearch test\n")
        script = f"ip link set lo up; mount --bind {self.hosts} /etc/hosts; "
        script += f"mount --bind {self.resolv_conf} /etc/resolv.conf; echo made; exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-ec", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"made\n"
        self.prefix = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--"]

    def close(self) -> None:
        """Those who are in it keep it."""
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe is not None
            pipe.close()
        self._holder.wait(DEADLINE_S)

    def dns(self) -> DnsServer:
        """One at 127.0.0.1, port 53, of it."""
        return in_network_of(self._holder.pid, lambda: DnsServer(53))

    @contextlib.contextmanager
    def target(self, host: str, port: int = PORT) -> Iterator[None]:
        """Says its address to whoever comes, and then what it is told."""

        def listen() -> socket.socket:
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)

        with in_network_of(self._holder.pid, listen) as listening:
            threads: list[threading.Thread] = []

            def serve(client: socket.socket) -> None:
                with client, contextlib.suppress(ConnectionResetError):
                    client.sendall(f"{host} {port}\n".encode())
                    while data := client.recv(100):
                        client.sendall(data)

            def accept() -> None:
                with contextlib.suppress(OSError):  # shut down
                    while True:
                        threads.append(threading.Thread(target=serve, args=(listening.accept()[0],)))
                        threads[-1].start()

            accepting = threading.Thread(target=accept)
            accepting.start()
            try:
                yield
            finally:
                listening.shutdown(socket.SHUT_RDWR)
                accepting.join()
                for thread in threads:
                    thread.join()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    try:
        yield made
    finally:
        made.close()


class Client:
    """A connection to a listener at a Unix socket, and who has answered."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE_S)
        self.socket.connect(str(path))
        self.target = self.socket.makefile().readline().strip()

    def lives(self) -> bool:
        """It goes on."""
        self.socket.sendall(b"x")
        return self.socket.recv(1) == b"x"

    def ends(self) -> bool:
        """It is over, within the time that anything takes here."""
        return self.socket.recv(1) == b""

    def close(self) -> None:
        self.socket.close()


def came_to(path: Path) -> str:
    """Where a new client comes to."""
    with contextlib.closing(Client(path)) as client:
        return client.target


def config(directory: Path, **listeners: str) -> str:
    text = '[daemon]\nworkers = 1\ndrain_timeout = "1s"\n[log]\nformat = "json"\n'
    for name, keys in listeners.items():
        text += f'[listeners.{name}]\nbind = "unix:{directory}/{name}.sock"\n{keys}\n'
    return text


def removed(daemon: Daemon) -> list[dict[str, Any]]:
    """Connections that have ended because their address has gone."""
    return [line for line in daemon.events("connection") if line["outcome"] == "removed"]


def test_records_change_and_nobody_who_is_there_is_moved(place: Place, tmp_path: Path) -> None:
    text = config(
        tmp_path,
        stay=f'targets = "web:{PORT}"',
        close=f'targets = "web.test:{PORT}"\non_change = "close"',
        drain=f'targets = "web.test:{PORT}"\non_change = "drain"',
    )
    stay, close, drain = (tmp_path / f"{name}.sock" for name in ("stay", "close", "drain"))
    with (
        place.dns() as dns,
        place.target("127.0.0.1"),
        place.target("127.0.0.2"),
        contextlib.ExitStack() as clients,
    ):
        dns.say("web.test", "A", "127.0.0.1")
        dns.say("web.test", "AAAA", "::1")  # where nobody listens: the other family is tried
        with Daemon(text, tmp_path, prefix=place.prefix) as daemon:
            assert daemon.ready_after_s < 3.0
            before = [clients.enter_context(contextlib.closing(Client(path))) for path in (stay, close, drain)]
            assert [client.target for client in before] == [f"127.0.0.1 {PORT}"] * 3
            dns.say("web.test", "A", "127.0.0.2")
            daemon.wait_for_log(
                lambda line: "127.0.0.2" in line.get("addresses", "") and line["target"].startswith("web:")
            )
            assert before[1].ends()
            assert before[2].ends()
            assert before[0].lives()
            assert [came_to(path) for path in (stay, close, drain)] == [f"127.0.0.2 {PORT}"] * 3
            daemon.wait_for(lambda: len(removed(daemon)) == 2, "two that were removed")
            assert {line["listener"] for line in removed(daemon)} == {"close", "drain"}
            assert {line["target"] for line in removed(daemon)} == {f"127.0.0.1:{PORT}"}
            assert daemon.stop() == 0


def test_an_order_on_a_name_holds_for_addresses_to_come(place: Place, tmp_path: Path) -> None:
    # T4
    text = config(tmp_path, web=f'targets = ["web.test:{PORT}", "127.0.0.9:{PORT}"]')
    with (
        place.dns() as dns,
        place.target("127.0.0.1"),
        place.target("127.0.0.2"),
        place.target("127.0.0.9"),
    ):
        dns.say("web.test", "A", "127.0.0.1", ttl=1)
        with Daemon(text, tmp_path, prefix=place.prefix) as daemon:
            order = installed.relayd("target", "disable", "web", f"web.test:{PORT}", "--admin", str(daemon.admin))
            said = subprocess.run(order, capture_output=True, check=True, cwd="/").stdout.decode()
            assert said == f"~ target web.test:{PORT} of web: disabled (1 address now, and those to come)\n"
            dns.say("web.test", "A", "127.0.0.2", ttl=1)
            daemon.wait_for_event("target_resolved", 2)
            assert {came_to(tmp_path / "web.sock") for _ in range(8)} == {f"127.0.0.9 {PORT}"}
            rows = {one["target"]: one["state"] for one in daemon.command("status", "--json")["targets"]}
            assert rows == {f"127.0.0.2:{PORT}": "disabled", f"127.0.0.9:{PORT}": "unchecked"}
            assert daemon.stop() == 0


def test_a_service_and_a_failing_name_server_as_status_shows_them(place: Place, tmp_path: Path) -> None:
    text = config(tmp_path, app='targets = "srv:_app._tcp.test"\nresolve = { max_ttl = "2s" }')
    with (
        place.dns() as dns,
        place.target("127.0.0.1", 9001),
        place.target("127.0.0.1", 9002),
        place.target("127.0.0.1", 9003),
    ):
        dns.say("_app._tcp.test", "SRV", "1 3 9001 one.test.", "1 1 9002 one.test.", "2 1 9003 one.test.", ttl=1)
        dns.say("one.test", "A", "127.0.0.1", ttl=60)
        with Daemon(text, tmp_path, prefix=place.prefix) as daemon:
            came = [came_to(tmp_path / "app.sock") for _ in range(8)]
            assert {target: came.count(target) for target in came} == {"127.0.0.1 9001": 6, "127.0.0.1 9002": 2}
            [row] = daemon.command("status", "--json")["names"]
            assert (row["name"], row["ttl_s"], row["error"]) == ("srv:_app._tcp.test", 1.0, None)
            assert row["addresses"][2] == "127.0.0.1:9003"
            dns.say("_app._tcp.test", "SRV", Answer.SERVFAIL)
            daemon.wait_for_event("target_unresolved")
            [row] = daemon.command("status", "--json")["names"]
            assert (row["error"], len(row["addresses"])) == ("127.0.0.1: SERVFAIL", 3)
            shown = subprocess.run(
                installed.relayd("status", "--admin", str(daemon.admin)), capture_output=True, check=True, cwd="/"
            ).stdout.decode()
            [line] = [line.strip() for line in shown.splitlines() if line.startswith("    name ")]
            assert line.startswith("name srv:_app._tcp.test has 3 addresses, ")
            assert line.endswith(" s old: 127.0.0.1: SERVFAIL")
            assert came_to(tmp_path / "app.sock").startswith("127.0.0.1 900")
            assert daemon.stop() == 0


def test_the_hosts_file_comes_first_and_is_read_again(place: Place, tmp_path: Path) -> None:
    with place.dns() as dns, place.target("127.0.0.3"), place.target("127.0.0.4"):
        dns.say("hosts.test", "A", "127.0.0.9")
        with Daemon(config(tmp_path, web=f'targets = "hosts.test:{PORT}"'), tmp_path, prefix=place.prefix) as daemon:
            assert came_to(tmp_path / "web.sock") == f"127.0.0.3 {PORT}"
            place.hosts.write_text("127.0.0.4 hosts.test\n")
            daemon.wait_for_event("target_resolved", 2)
            assert came_to(tmp_path / "web.sock") == f"127.0.0.4 {PORT}"
            assert dns.asked == []
            assert daemon.stop() == 0


def test_a_name_server_that_comes_late_is_found(place: Place, tmp_path: Path) -> None:
    text = config(tmp_path, web=f'targets = "web.test:{PORT}"')
    with place.target("127.0.0.1"), Daemon(text, tmp_path, prefix=place.prefix) as daemon:
        assert daemon.ready_after_s < 2.0  # nobody listens there, which is known at once
        assert "Connection refused" in daemon.wait_for_event("target_unresolved")["reason"]
        with place.dns() as dns:
            dns.say("web.test", "A", "127.0.0.1")
            daemon.wait_for_event("target_resolved")
            assert came_to(tmp_path / "web.sock") == f"127.0.0.1 {PORT}"
        assert daemon.stop() == 0


def test_a_reload_adds_a_name_and_a_restart_needs_no_name_server(place: Place, tmp_path: Path) -> None:
    # R3, R4
    one, two = (config(tmp_path, web=f'targets = "{name}.test:{PORT}"\non_change = "keep"') for name in ("one", "two"))
    with place.target("127.0.0.1"), place.target("127.0.0.2"), contextlib.ExitStack() as left:
        with place.dns() as dns:
            dns.say("one.test", "A", "127.0.0.1", ttl=60)
            dns.say("two.test", "A", "127.0.0.2", ttl=1)
            daemon = left.enter_context(Daemon(one, tmp_path, prefix=place.prefix))
            client = left.enter_context(contextlib.closing(Client(tmp_path / "web.sock")))
            assert client.target == f"127.0.0.1 {PORT}"
            daemon.configure(two)
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_event("reloaded")
            assert came_to(tmp_path / "web.sock") == f"127.0.0.2 {PORT}"
        daemon.restart()
        assert came_to(tmp_path / "web.sock") == f"127.0.0.2 {PORT}"
        daemon.wait_for_event("target_unresolved")
        assert came_to(tmp_path / "web.sock") == f"127.0.0.2 {PORT}"
        assert client.lives()
        assert daemon.stop() == 0
