"""Start, serve, stop: rules R6 and S10, exit codes, and what systemd is told."""

import os
import resource
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.address import InetAddress, SocketAddress
from tests.e2e.daemon import Daemon

EchoStart = Callable[[str], SocketAddress]
KINDS = ["inet", "inet6", "unix", "abstract"]


def config(target: object, workers: int = 2, drain: str = "10s", bind: str = "127.0.0.1:0") -> str:
    return (
        f'[daemon]\nworkers = {workers}\ndrain_timeout = "{drain}"\n'
        f'[listeners.web]\nbind = "{bind}"\ntargets = ["{target}"]\n'
    )


def ask(client: socket.socket, text: bytes = b"hello") -> bytes:
    """Send `text` and return as many bytes."""
    client.sendall(text)
    answer = b""
    while len(answer) < len(text) and (data := client.recv(65536)):
        answer += data
    return answer


def ended_on(listener: str) -> Callable[[dict[str, Any]], bool]:
    """For `wait_for_log`: the line of a connection of this listener."""
    return lambda line: line.get("event") == "connection" and line["listener"] == listener


def refused(address: SocketAddress) -> bool:
    with socket.socket(address.family.af) as client:
        client.settimeout(5)
        try:
            client.connect(address.sockaddr)
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except ConnectionResetError:
            return False  # in the very moment of the close: the handshake was done, and nobody accepts any more
        return False


@pytest.fixture
def daemon(tmp_path: Path, echo: EchoStart) -> Iterator[Daemon]:
    with Daemon(config(echo("inet")), tmp_path) as running:
        yield running


def test_any_family_forwards_to_any_family(tmp_path: Path, echo: EchoStart) -> None:  # S10
    binds = {
        "inet": "127.0.0.1:0",
        "inet6": "[::1]:0",
        "unix": f"unix:{tmp_path}/KIND.sock",
        "abstract": f"unix:@relayd-test-{os.getpid()}-KIND",
    }
    targets = {kind: echo(kind) for kind in KINDS}
    text = "[daemon]\nworkers = 1\n"
    for here in KINDS:
        for there in KINDS:
            bind = binds[here].replace("KIND", f"{here}-{there}")
            text += f'[listeners.{here}-{there}]\nbind = "{bind}"\ntargets = ["{targets[there]}"]\n'
    with Daemon(text, tmp_path) as daemon:
        assert daemon.status() == "16 listeners, 0 connections"
        for here in KINDS:
            for there in KINDS:
                with daemon.connect(f"{here}-{there}") as client:
                    assert ask(client) == b"hello"
                    client.shutdown(socket.SHUT_WR)
                    assert client.recv(1) == b""
                line = daemon.wait_for_log(ended_on(f"{here}-{there}"))
                assert (line["outcome"], line["bytes_in"], line["bytes_out"]) == ("normal", 5, 5)
        assert daemon.stop() == 0
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith("unix-")) == []


def test_unix_socket_files_come_with_their_mode_and_go(tmp_path: Path, echo: EchoStart) -> None:  # S10
    path = tmp_path / "in.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    text = config(echo("inet"), bind=f"unix:{path}") + 'mode = "0606"\n'
    with Daemon(text, tmp_path) as daemon:
        assert stat.S_IMODE(path.stat().st_mode) == 0o606
        with daemon.connect("web") as client:
            assert ask(client) == b"hello"
        assert daemon.stop() == 0
        assert not path.exists()


def test_systemd_is_told(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet")), tmp_path, watchdog_s=0.4) as daemon:
        first = daemon.wait_for_notification(lambda told: "STATUS" in told)
        assert first == {"READY": "1", "STATUS": "1 listener, 0 connections"}
        daemon.wait_for(
            lambda: sum("WATCHDOG" in told for told in daemon.notifications) >= 3, "three signs of life", 5.0
        )
        with daemon.connect("web") as client:
            assert ask(client) == b"hello"
            daemon.wait_for_status(lambda status: status == "1 listener, 1 connection")
        assert daemon.stop() == 0
        assert any("STOPPING" in told for told in daemon.notifications)


@pytest.mark.alone
def test_an_idle_stop_takes_200_ms(daemon: Daemon) -> None:  # R6
    address = daemon.address("web")
    with daemon.connect("web") as client:
        assert ask(client) == b"hello"
    daemon.wait_for_event("connection")
    before = time.monotonic()
    status = daemon.stop()
    took = time.monotonic() - before
    assert status == 0
    assert refused(address)
    assert took <= 0.2
    assert [line["event"] for line in daemon.lines[-2:]] == ["stopping", "stopped"]


def test_a_stop_waits_for_connections_and_takes_no_more(daemon: Daemon) -> None:  # R6
    address = daemon.address("web")
    with daemon.connect("web") as client:
        assert ask(client) == b"hello"
        daemon.wait_for_status(lambda status: status == "1 listener, 1 connection")
        daemon.terminate()
        told = daemon.wait_for_notification(lambda told: "STOPPING" in told)
        assert told["STATUS"] == "stopping: 1 connection left"
        told = daemon.wait_for_notification(lambda told: "EXTEND_TIMEOUT_USEC" in told)
        assert int(told["EXTEND_TIMEOUT_USEC"]) >= 10_000_000
        deadline = time.monotonic() + 5
        while not refused(address):  # until both workers have read the message
            assert time.monotonic() < deadline
        assert ask(client, b"still here") == b"still here"
    assert daemon.wait() == 0
    assert daemon.wait_for_event("connection")["outcome"] == "normal"


def test_a_drain_ends_at_its_timeout(tmp_path: Path, echo: EchoStart) -> None:  # R6
    with Daemon(config(echo("inet"), drain="300ms"), tmp_path) as daemon, daemon.connect("web") as client:
        assert ask(client) == b"hello"
        before = time.monotonic()
        assert daemon.stop() == 0
        assert 0.3 <= time.monotonic() - before <= 1.3
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert daemon.wait_for_event("connection")["outcome"] == "shutdown"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.alone
def test_a_second_signal_stops_now(daemon: Daemon, number: signal.Signals) -> None:  # R6
    with daemon.connect("web") as client:
        assert ask(client) == b"hello"
        daemon.signal(number)
        daemon.wait_for_notification(lambda told: "STOPPING" in told)
        before = time.monotonic()
        daemon.signal(number)
        assert daemon.wait() == 0
        assert time.monotonic() - before <= 0.5
        assert daemon.wait_for_event("connection")["outcome"] == "shutdown"


def ended(text: str, directory: Path) -> tuple[int, Daemon]:
    """The exit status of a daemon that does not come up, and what it said."""
    daemon = Daemon(text, directory)
    daemon.start()
    try:
        return daemon.wait(), daemon
    finally:
        daemon.close()


def test_a_refused_file_exits_1(tmp_path: Path) -> None:
    status, daemon = ended('[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["nonsense"]\n', tmp_path)
    assert status == 1
    assert f"{tmp_path}/relay.toml:3:" in daemon.stderr
    assert "Traceback" not in daemon.stderr


def test_addresses_in_use_exit_4_and_are_told_all_at_once(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        text = config("127.0.0.1:9", bind=used) + f'[listeners.pg]\nbind = "unix:{plain}"\ntargets = ["127.0.0.1:9"]\n'
        status, daemon = ended(text, tmp_path)
    assert status == 4
    assert [line["event"] for line in daemon.lines] == ["bind_failed", "bind_failed"]
    assert f"listeners.web: {used}: address already in use" in daemon.stderr
    assert f"listeners.pg: unix:{plain}: a file that is not a socket is in the way" in daemon.stderr
    assert plain.exists()
    assert not any("READY" in told for told in daemon.notifications)


@pytest.mark.parametrize(
    ("workers", "limit", "why"),
    [(1, 33, "too few file descriptors for a single connection"), (10, 62, "for the control process: it may open 62")],
)
def test_too_few_descriptors_exit_4(tmp_path: Path, workers: int, limit: int, why: str) -> None:  # F2
    daemon = Daemon(config("127.0.0.1:9", workers), tmp_path, prefix=["prlimit", f"--nofile={limit}:{limit}"])
    daemon.start()
    try:
        assert daemon.wait() == 4
        assert why in daemon.stderr
        assert [line["event"] for line in daemon.lines] == ["start_failed"]
    finally:
        daemon.close()


def test_as_many_descriptors_as_needed_are_enough(tmp_path: Path, echo: EchoStart) -> None:  # F2
    with Daemon(config(echo("inet"), workers=10), tmp_path, prefix=["prlimit", "--nofile=63:63"]) as daemon:
        with daemon.connect("web") as client:
            assert ask(client) == b"hello"
        os.kill(daemon.workers()[0], signal.SIGKILL)
        daemon.wait_for_event("worker_started", 11)  # starting another takes some more for a moment
        assert daemon.stop() == 0


def test_names_resolve_and_unknown_ones_delay_the_start_no_longer_than_they_may(
    tmp_path: Path, echo: EchoStart
) -> None:
    target = echo("inet")
    assert isinstance(target, InetAddress)
    text = config(f"localhost:{target.port}") + (
        '[listeners.lost]\nbind = "127.0.0.1:0"\ntargets = ["nosuch.invalid:80"]\n'
    )
    with Daemon(text, tmp_path) as daemon:
        assert daemon.ready_after_s <= 4.0
        assert daemon.wait_for_event("target_resolved")["target"] == f"localhost:{target.port}"
        with daemon.connect("web") as client:
            assert ask(client) == b"hello"
        with pytest.raises(ConnectionResetError), daemon.connect("lost") as client:  # the reset may overtake connect
            client.recv(1)
        line = daemon.wait_for_log(ended_on("lost"))
        assert line["outcome"] == "no_target"
        assert daemon.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives the daemon a network and a resolv.conf of its own")
@pytest.mark.alone
def test_a_name_server_that_never_answers_delays_nothing(tmp_path: Path) -> None:
    """Queries leave by a veth pair for a neighbour that does not exist."""
    (tmp_path / "resolv.conf").write_text("nameserver 198.51.100.53\noptions timeout:30\n")
    script = (
        "ip link set lo up; ip link add out type veth peer name nowhere; ip link set out up; ip link set nowhere up;"
        "ip address add 198.51.100.1/24 dev out; ip neigh add 198.51.100.53 lladdr 02:00:00:00:00:01 dev out;"
        f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf; exec "$@"'
    )
    text = (
        config("app.example.com:80")
        + f'[listeners.local]\nbind = "unix:{tmp_path}/in.sock"\ntargets = ["127.0.0.1:9"]\n'
    )
    with Daemon(text, tmp_path, prefix=["unshare", "--net", "--mount", "sh", "-ec", script, "sh"]) as daemon:
        assert 3.0 <= daemon.ready_after_s <= 8.0  # the name server may take 30 s
        with daemon.connect("local") as client:
            assert client.recv(1) == b""  # nobody listens at the target; a Unix socket has no reset
        before = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - before <= 0.2
        assert daemon.stderr == ""


def test_workers_may_open_as_many_files_as_the_hard_limit_says(tmp_path: Path, echo: EchoStart) -> None:
    # F2: those that are started before the file is read as well, and one more than those.
    prefix = ["prlimit", "--nofile=1024:4000"]
    with Daemon(config(echo("inet"), workers=3), tmp_path, prefix=prefix) as daemon:
        assert {resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in daemon.workers()} == {(4000, 4000)}
