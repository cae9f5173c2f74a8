"""What is open on a real daemon: listed, filtered, ended (O3), and counted while it lives."""

import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from relayd.address import SocketAddress
from relayd.cli import client
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import BY_RESTART, Again, answered
from tests.e2e.test_balancing import connect, reload
from tests.e2e.test_metrics import scrape, value

EchoStart = Callable[[str], SocketAddress]
#: Reports of workers come once a second, and nothing says so.
_LOOK_S = 0.05


def config(target: SocketAddress, udp_echo: socket.socket, more: str = "") -> str:
    host, port = udp_echo.getsockname()
    return (
        '[daemon]\nworkers = 2\ndrain_timeout = "1s"\n'
        f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["{target}"]\n{more}'
        f'[listeners.dns]\nbind = "127.0.0.1:0"\ntype = "dgram"\ntargets = ["{host}:{port}"]\n'
    )


def ask(daemon: Daemon, path: str, **query: object) -> dict[str, Any]:
    return client.ask(client.Place((daemon.admin,)), "GET", f"{path}?{urlencode(query)}" if query else path)


def connections(daemon: Daemon, **query: object) -> list[dict[str, Any]]:
    """Those that are open, of both workers."""
    found = ask(daemon, "/v1/connections", **query)
    assert found["complete"]
    assert found["total"] >= len(found["connections"])
    listed: list[dict[str, Any]] = found["connections"]
    return listed


def kill(daemon: Daemon, **members: object) -> dict[str, Any]:
    return client.ask(client.Place((daemon.admin,)), "POST", "/v1/kill", members)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not seen: {what}"
        time.sleep(_LOOK_S)


def test_what_is_open_is_listed_and_ended_by_name(tmp_path: Path, echo: EchoStart, udp_echo: socket.socket) -> None:
    target = echo("inet")
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Daemon(config(target, udp_echo), tmp_path))
        clients = [stack.enter_context(contextlib.closing(connect(daemon))) for _ in range(20)]
        asking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        asking.settimeout(DEADLINE_S)
        asking.connect(daemon.address("dns", kind="dgram").sockaddr)
        answered(asking, udp_echo, b"question")

        listed = connections(daemon, tcp_info="yes")
        assert [one["listener"] for one in listed].count("web") == len(clients)
        [session] = [one for one in listed if one["listener"] == "dns"]
        assert (session["type"], session["datagrams_in"], session["rtt_ms"]) == ("udp", 1, None)
        first = listed[0]
        assert (first["target"], first["state"], first["in"], first["bytes_in"]) == (str(target), "relaying", "open", 5)
        assert first["rtt_ms"] is not None
        assert len({one["id"] for one in listed}) == len(listed) == 21

        local = clients[3].getsockname()
        [one] = connections(daemon, client=f"{local[0]}:{local[1]}")
        assert kill(daemon, id=one["id"]) == {"killed": 1, "complete": True}
        line = daemon.wait_for_log(lambda line: line.get("outcome") == "killed")
        assert (line["conn_id"], line["client_port"], line["code"]) == (one["id"], local[1], "KD")
        with pytest.raises(ConnectionResetError):
            clients[3].recv(1)
        assert connections(daemon, id=one["id"]) == []
        assert kill(daemon, id=one["id"]) == {"error": "no connection or session is like that"}

        assert len(connections(daemon, limit=4)) == 4
        assert len(connections(daemon, listener="web", client="127.0.0.0/8")) == 19
        assert kill(daemon, client="127.0.0.1", listener="web") == {"killed": 19, "complete": True}
        assert [one["id"] for one in connections(daemon)] == [session["id"]]
        with pytest.raises(client.Refused, match="not ended by accident"):
            kill(daemon)
        with pytest.raises(client.Refused, match="client is an IP address"):
            kill(daemon, client="nonsense")


@BY_RESTART
def test_bytes_are_counted_while_a_connection_lives_and_over_a_restart(
    tmp_path: Path, echo: EchoStart, udp_echo: socket.socket, again: Again
) -> None:
    text = config(echo("inet"), udp_echo)
    with Daemon(text, tmp_path) as daemon, contextlib.closing(connect(daemon)) as conn:
        labels = {"listener": "web", "type": "stream"}

        def counted() -> tuple[float, float]:
            found = scrape(daemon)
            return tuple(value(found, "relayd_bytes_total", **labels, direction=each) for each in ("in", "out"))  # type: ignore[return-value]  # two

        def listener() -> dict[str, Any]:
            found: list[dict[str, Any]] = ask(daemon, "/v1/status", history="yes")["listeners"]
            return next(one for one in found if one["name"] == "web")

        until(lambda: counted() == (5, 5), "the bytes of a connection that lives")
        assert (listener()["bytes_in"], listener()["active"]) == (5, 1)
        until(lambda: any(step[1] for step in listener()["history"]), "a step in which something happened")
        assert sum(step[0] for step in listener()["history"]) * 2 == 1
        again(daemon)
        conn.sendall(b"again")
        assert conn.recv(100) == b"again"
        until(lambda: counted() == (10, 10), "what was moved before, and since")
        assert connections(daemon, listener="web")[0]["bytes_in"] == 10
        conn.close()
        daemon.wait_for_log(lambda line: line.get("listener") == "web" and "outcome" in line)
        until(lambda: listener()["active"] == 0, "the end")
        assert counted() == (10, 10)


def test_those_of_a_listener_that_is_gone_are_seen_and_ended(
    tmp_path: Path, echo: EchoStart, udp_echo: socket.socket
) -> None:
    text = config(echo("inet"), udp_echo, 'on_change = "keep"\n')
    with Daemon(text, tmp_path) as daemon, contextlib.closing(connect(daemon)):
        text = daemon.config_path.read_text().replace("[listeners.web]", "[listeners.other]")
        daemon.configure(text)
        reload(daemon)
        assert [one["listener"] for one in connections(daemon)] == ["web"]
        assert kill(daemon, listener="web")["killed"] == 1
