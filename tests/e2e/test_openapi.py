"""What a running daemon answers is what docs/openapi.yaml says."""

import contextlib
import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relayd.address import SocketAddress
from relayd.control.admin_routes import ROUTES
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.openapi import check_answer

EchoStart = Callable[[str], SocketAddress]


def ask(daemon: Daemon, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and answer, which is one of the file."""
    connection = http.client.HTTPConnection("localhost", timeout=DEADLINE_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(DEADLINE_S)
        connection.sock.connect(daemon.admin.sockaddr)
        connection.request(method, path, body)
        response = connection.getresponse()
        data, content_type = response.read().decode(), response.headers["Content-Type"]
    finally:
        connection.close()
    value = json.loads(data) if content_type.startswith("application/json") else data
    check_answer(method, path.partition("?")[0], response.status, content_type, value)
    return response.status, value


#: What each request is asked, and the statuses that come of it.
ASKED: dict[tuple[str, str], list[tuple[bytes | None, set[int]]]] = {
    ("POST", "/v1/reload"): [(b"{}", {200}), (b'{"confirm_s": 60}', {200}), (b'{"confirm_s": 0}', {400})],
    ("POST", "/v1/confirm"): [(None, {200, 409}), (b'{"x": 1}', {400})],
    ("POST", "/v1/plan"): [(b"null", {400}), (b"{}", {200}), (b'{"file": "/nosuch"}', {409}), (b" " * 70_000, {413})],
    ("POST", "/v1/target"): [
        (b'{"pool": "web", "target": "db.invalid:80", "weight": 2}', {200, 409}),
        (b'{"pool": "web", "target": "x", "ordered": "drained"}', {409}),
        (b"{}", {400}),
    ],
    ("POST", "/v1/log"): [(b'{"level": "warning"}', {200}), (b'{"level": "info"}', {200}), (b"{}", {400})],
    ("POST", "/v1/kill"): [(b'{"id": "nosuch"}', {409}), (b"{}", {400}), (b'{"client": "x"}', {400})],
    ("POST", "/v1/explain"): [
        (b'{"listener": "web", "client": "192.0.2.7"}', {200}),
        (b'{"listener": "nosuch", "client": ""}', {409}),
        (b"[]", {400}),
    ],
}


@pytest.mark.parametrize("traffic", [False, True])
def test_answers_of_a_daemon(tmp_path: Path, echo: EchoStart, traffic: bool) -> None:
    target = str(echo("inet"))
    check = 'health_check = { type = "tcp", interval = "100ms" }'
    config = (
        f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["{target}", "127.0.0.1:1", "db.invalid:80"]\n{check}\n'
        f'[listeners.dns]\nbind = "127.0.0.1:0"\ntype = "dgram"\ntargets = ["127.0.0.1:1"]\nbalance = "source_hash"\n'
    )
    with Daemon(config, tmp_path) as daemon:
        if traffic:
            daemon.wait_for_event("target_down")
            with daemon.connect("web") as client:
                client.sendall(b"hello")
                assert client.recv(5) == b"hello"
            daemon.config_path.write_text(daemon.config_path.read_text().replace('"dgram"', '"nosuch"'))
            assert ask(daemon, "POST", "/v1/reload")[0] == 409
            daemon.config_path.write_text(daemon.config_path.read_text().replace('"nosuch"', '"dgram"'))
        held = contextlib.ExitStack()
        if traffic:
            held.enter_context(daemon.connect("web")).sendall(b"hello")
            sender = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sender.sendto(b"hello", daemon.address("dns", kind="dgram").sockaddr)
        seen = set()
        for route in ROUTES:
            for body, statuses in ASKED.get((route.method, route.path), [(None, {200, 503})]):
                status, _ = ask(daemon, route.method, route.path, body)
                assert status in statuses, (route.path, body)
                seen.add(status)
            ask(daemon, route.method, f"{route.path}?nosuch=1")
            ask(daemon, "DELETE", route.path)
        ask(daemon, "GET", "/v1/nosuch")
        assert ask(daemon, "GET", "/v1/status?history=yes")[0] == 200
        for tcp_info in ("yes", "no"):
            status, found = ask(daemon, "GET", f"/v1/connections?tcp_info={tcp_info}&sort=rate&limit=10")
            assert status == 200
            assert not traffic or {one["type"] for one in found["connections"]} >= {"tcp"}
        assert ask(daemon, "POST", "/v1/kill", b'{"listener": "web"}')[0] == (200 if traffic else 409)
        held.close()
        assert seen == {200, 400, 409, 413}
