"""What the daemon says of each listener: levels, access lines, lines about connections and sessions that live."""

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import BY_RESTART, Again, answered

EchoStart = Callable[[str], SocketAddress]


def config(*listeners: str, log: str = "") -> str:
    """Listeners of this test, and `[log]` with `log` in it."""
    head = f"""
[daemon]
workers = 1
drain_timeout = "1s"
[log]
format = "json"
{log}
"""
    return head + "".join(listeners)


def listener(name: str, target: object, log: str = "", kind: str = "stream") -> str:
    return f"""
[listeners.{name}]
type = "{kind}"
bind = "127.0.0.1:0"
targets = ["{target}"]
{f"log = {{ {log} }}" if log else ""}
"""


def exchange(client: socket.socket) -> None:
    client.sendall(b"hello")
    assert client.recv(100) == b"hello"


def of(daemon: Daemon, event: str, name: str) -> list[dict[str, object]]:
    return [line for line in daemon.events(event) if line["listener"] == name]


def test_each_listener_says_what_it_is_told_to(tmp_path: Path, echo: EchoStart) -> None:
    target = echo("inet")
    text = config(
        listener("plain", target),
        listener("silent", target, 'access = false, level = "error"'),
        listener("told", target, "start = true"),
        listener("loud", target, 'access = true, level = "debug", start = true'),
    )
    with Daemon(text, tmp_path) as daemon:
        listening = {line["listener"] for line in daemon.events("listening")}
        assert listening == {"plain", "told", "loud"}
        for name in ("told", "loud", "plain"):
            with daemon.connect(name) as client:
                exchange(client)
        daemon.wait_for_event("connection", 3)
        started = daemon.events("connection_started")
        assert [line["listener"] for line in started] == ["told", "loud"]
        ended = {line["conn_id"]: line for line in daemon.events("connection")}
        for line in started:
            end = ended[str(line["conn_id"])]
            assert set(end) - set(line) == {"outcome", "code", "side", "errno"}
            assert (line["bytes_in"], line["bytes_out"], line["target"]) == (0, 0, str(target))
            assert (line["client_port"], line["connect_ms"]) == (end["client_port"], end["connect_ms"])
        # By a reload, for connections that are there too; [log] counts where a listener says nothing.
        with daemon.connect("plain") as plain, daemon.connect("loud") as loud:
            exchange(plain)
            exchange(loud)
            text = config(
                listener("plain", target),
                listener("told", target, "start = true"),
                listener("loud", target, "access = false"),
                log="access = false",
            )
            daemon.configure(text)
            daemon.signal(signal.SIGHUP)
            daemon.wait_for_event("reloaded")
            exchange(plain)
            exchange(loud)
        with daemon.connect("told") as client:
            exchange(client)
        daemon.wait_for_event("connection_started", 4)
        assert daemon.stop() == 0
        assert len(daemon.events("connection")) == 3


@BY_RESTART
@pytest.mark.alone
def test_what_lives_long_is_told_of_again_and_again(
    tmp_path: Path, echo: EchoStart, udp_echo: socket.socket, again: Again
) -> None:
    host, port = udp_echo.getsockname()
    text = config(
        listener("web", echo("inet"), 'start = true, progress = "1s"'),
        listener("dns", f"{host}:{port}", 'start = true, progress = "1s"', "dgram"),
        listener("other", echo("inet")),
    )
    with (
        Daemon(text, tmp_path) as daemon,
        daemon.connect("web") as client,
        daemon.connect("other") as other,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking,
    ):
        asking.settimeout(DEADLINE_S)
        asking.connect(daemon.address("dns", kind="dgram").sockaddr)
        exchange(client)
        exchange(other)
        answered(asking, udp_echo, b"question")
        begun = time.monotonic()
        daemon.wait_for_event("connection_progress", 2)
        daemon.wait_for_event("session_progress", 2)
        again(daemon)
        exchange(client)
        answered(asking, udp_echo, b"another")
        count = len(daemon.events("connection_progress"))
        daemon.wait_for_event("connection_progress", count + 2)
        daemon.wait_for_log(lambda line: line["event"] == "session_progress" and line["restarts_survived"] == 1, 2)
        lived_s = time.monotonic() - begun
        for event, began in (("connection", "web"), ("session", "dns")):
            (start,) = daemon.events(f"{event}_started")
            lines = daemon.events(f"{event}_progress")
            assert {line["listener"] for line in lines} == {began}
            assert {line["conn_id"] for line in lines} == {start["conn_id"]}
            ages_ms = [line["duration_ms"] for line in lines]
            assert ages_ms == sorted(ages_ms)
            assert len({age_ms // 1000 for age_ms in ages_ms}) >= len(ages_ms) - 1  # late ones may share a second
            assert ages_ms[0] >= 1000
            assert len(ages_ms) <= lived_s + 1
            assert lines[0]["restarts_survived"] == 0
            assert lines[-1]["restarts_survived"] == 1
            assert lines[-1]["bytes_in"] > lines[0]["bytes_in"] > 0
        assert daemon.stop() == 0
