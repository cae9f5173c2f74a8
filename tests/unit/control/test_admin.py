"""The admin API on real sockets, for a stand-in of what it is for: where it listens, what it answers, how it ends."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import os
import re
import select
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, SocketAddress, UnixAddress
from relayd.channel.messages import Selection, Sort
from relayd.control import admin, admin_http, page
from relayd.control.admin import AdminServer
from relayd.control.admin_routes import ROUTES
from relayd.control.listeners import BindFailed
from relayd.spec import Admin, Ordered
from tests.unit.control.operating import CONFIG, METRICS, NO, STATUS, TARGETS, YES, FakeOperator, Said, serving

DEADLINE_S = 10.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, DEADLINE_S))


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UnixAddress:
    """Where an API is; relative, for a test's directory may be too long for a socket address."""
    monkeypatch.chdir(tmp_path)
    return UnixAddress("./admin.sock")


async def connect(address: SocketAddress) -> socket.socket:
    """A connection; the caller closes it."""
    sock = socket.socket(address.family.af)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def rest(sock: socket.socket) -> bytes:
    """All that comes until the connection ends, in whatever way."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
            received += data
    return received


async def send(address: SocketAddress, data: bytes) -> bytes:
    """All that comes back for `data`, until the connection ends."""
    with await connect(address) as sock:
        with contextlib.suppress(BrokenPipeError):
            await asyncio.get_running_loop().sock_sendall(sock, data)
        return await rest(sock)


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    host = () if any(header.startswith("Host:") for header in headers) else ("Host: localhost",)
    lines = [f"{method} {path} HTTP/1.1", *host, f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode(errors="surrogateescape") + b"\r\n\r\n" + body


def parts(answer: bytes) -> tuple[int, str, Any]:
    """Status, head and JSON of an answer."""
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), head, json.loads(body)


async def ask(address: SocketAddress, *what: Any) -> tuple[int, Any]:
    status, _, body = parts(await send(address, request(*what)))
    return status, body


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/v1/reload", b"", ("reload", None)),
        ("/v1/reload", b" {} ", ("reload", None)),
        ("/v1/reload", b'{"confirm_s": null}', ("reload", None)),
        ("/v1/reload", b'{"confirm_s": 60}', ("reload", 60)),
        ("/v1/reload", b'{"confirm_s": 0.5}', ("reload", 0.5)),
        ("/v1/confirm", b"{}", "confirm"),
        ("/v1/plan", b"{}", ("plan", None)),
        ("/v1/plan", b'{"file": null}', ("plan", None)),
        (
            "/v1/target",
            b'{"pool": "web", "target": "a:80", "ordered": "drained"}',
            ("order", "web", "a:80", Ordered.DRAINED, None),
        ),
        ("/v1/target", b'{"pool": "web", "target": "a:80", "weight": 0}', ("order", "web", "a:80", None, 0)),
        ("/v1/plan", b'{"file": "/etc/relayd/\\u00e9\\udcff"}', ("plan", Path("/etc/relayd/é\udcff"))),
    ],
)
def test_what_is_answered_with_a_verdict(address: UnixAddress, path: str, body: bytes, asked: object) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            assert await ask(address, "POST", path, body) == (200, YES.as_json())
            operator.verdict = NO
            assert await ask(address, "POST", path, body) == (409, NO.as_json())
            assert operator.asked == [asked, asked]

    run(scenario())


def test_targets_are_told(address: UnixAddress) -> None:
    async def scenario() -> None:
        async with serving(FakeOperator(), address):
            assert await ask(address, "GET", "/v1/targets") == (200, {"targets": TARGETS})

    run(scenario())


def test_the_configuration_is_for_who_may_read_it(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, LOOPBACK, address) as server:
            tcp, unix = server.addresses
            assert await ask(unix, "GET", "/v1/config") == (200, CONFIG)
            status, answer = await ask(tcp, "GET", "/v1/config")
            assert (status, operator.asked) == (403, ["config"])
            assert "only where a token is asked for" in answer["error"]
            server.change(GUARDED)
            assert (await ask(tcp, "GET", "/v1/config"))[0] == 401
            assert await ask(tcp, "GET", "/v1/config", b"", f"Authorization: Bearer {TOKEN}") == (200, CONFIG)

    run(scenario())


def test_who_changes_the_level_is_told(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, LOOPBACK, address) as server:
            tcp, unix = server.addresses
            assert await ask(unix, "GET", "/v1/log") == (200, {"level": "info", "file": "info"})
            for where in (unix, tcp):
                said = await ask(where, "POST", "/v1/log", b'{"level": "debug"}')
                assert said == (200, {"level": "debug", "file": "info"})
            local, remote = (each[2] for each in operator.asked[1:])  # type: ignore[index]  # tuples
            assert local == f"uid {os.getuid()}, pid {os.getpid()}"
            assert re.fullmatch(r"127\.0\.0\.1:\d+", remote)

    run(scenario())


def test_metrics_as_the_operator_has_them(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            answer = await send(address, request("GET", "/metrics", b"", "Accept: text/plain", "Accept: */*;q=0.1"))
            head, _, body = answer.decode().partition("\r\n\r\n")
            assert head.splitlines()[0] == "HTTP/1.1 200 OK"
            assert [line for line in head.splitlines() if line.startswith("Content-Type")] == [
                f"Content-Type: {METRICS[0]}"
            ]
            assert body.encode() == METRICS[1]
            assert operator.asked == [("metrics", "text/plain,*/*;q=0.1")]

    run(scenario())


def test_a_scrape_that_a_stop_ends(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        operator.stuck = True
        async with serving(operator, address) as server:
            asking = asyncio.ensure_future(ask(address, "GET", "/metrics"))
            await operator.busy.wait()
            await server.close()
            assert await asking == (503, {"error": "relayd is stopping"})

    run(scenario())


def test_healthy_and_ready_are_two_things(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            assert await ask(address, "GET", "/healthz") == (200, {})
            assert await ask(address, "GET", "/readyz") == (200, {})
            operator.unready = "1 of 2 workers do not accept"
            assert await ask(address, "GET", "/healthz") == (200, {})
            assert await ask(address, "GET", "/readyz") == (503, {"error": operator.unready})

    run(scenario())


def test_status_and_the_form_of_an_answer(address: UnixAddress) -> None:
    async def scenario() -> None:
        async with serving(FakeOperator(), address):
            status, head, body = parts(await send(address, request("GET", "/v1/status")))
            assert (status, body) == (200, STATUS)
            lines = head.splitlines()
            assert "Content-Type: application/json; charset=utf-8" in lines
            assert "Connection: close" in lines
            assert "Server: relayd" in lines

    run(scenario())


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("", (Selection(None, None, None, None, None), Sort.AGE)),
        ("?q=&sort=rate", (Selection(None, None, None, None, None), Sort.RATE)),
        ("?q=+web+", (Selection(None, "web", None, None, None), Sort.AGE)),
        ("?q=10.0.0.0/8", (Selection(None, None, "10.0.0.0/8", None, None), Sort.AGE)),
        ("?q=%3Cb%3E", None),
    ],
)
def test_the_page(address: UnixAddress, query: str, asked: tuple[Selection, Sort] | None) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            head, _, body = (await send(address, request("GET", f"/{query}"))).decode().partition("\r\n\r\n")
            lines = head.splitlines()
            assert lines[0] == "HTTP/1.1 200 OK"
            assert {f"{name}: {value}" for name, value in page.HEADERS} <= set(lines)
            assert {"Cache-Control: no-store", "X-Content-Type-Options: nosniff"} <= set(lines)
            assert f"Content-Type: {page.CONTENT_TYPE}" in lines
            assert body.startswith("<!DOCTYPE html>")
            assert ("is no listener, client, target or id" in body) is (asked is None)
            listed = [] if asked is None else [("connections", *asked, page.CONNECTIONS_SHOWN, False)]
            assert operator.asked == [("status", page.LISTENERS_SHOWN), *listed]

    run(scenario())


@pytest.mark.parametrize(
    ("query", "asked"), [("", "status"), ("?history=no", "status"), ("?history=yes", ("status", 500))]
)
def test_the_history_is_of_so_many_listeners(address: UnixAddress, query: str, asked: object) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            assert await ask(address, "GET", f"/v1/status{query}") == (200, STATUS)
            assert operator.asked == [asked]

    run(scenario())


BAD = [
    ("POST", "/", b"", 405, "takes GET"),
    ("GET", "/?q=" + "x" * 121, b"", 400, "q is a text of at most 120 characters"),
    ("GET", "/?sort=name", b"", 400, "sort is one of age"),
    ("GET", "/index.html", b"", 404, "there is no /index.html"),
    ("GET", "/v1/status/", b"", 404, "there is no /v1/status/"),
    ("POST", "/v1/" + "a" * 200, b"", 404, "there is no /v1/aaa"),
    ("GET", "/v1/reload", b"", 405, "takes POST"),
    ("PUT", "/v1/plan", b"", 405, "takes POST"),
    ("POST", "/v1/status", b"{}", 405, "takes GET"),
    ("POST", "/v1/reload", b"{", 400, "not JSON"),
    ("POST", "/v1/reload", b"\xff", 400, "not JSON"),
    ("POST", "/v1/reload", b"[" * 60_000, 400, "not JSON"),
    ("POST", "/v1/reload", b"[]", 400, "not a JSON object"),
    ("POST", "/v1/reload", b'{"confirm": 5}', 400, "unknown member 'confirm': only 'confirm_s'"),
    ("POST", "/v1/reload", b'{"confirm_s": "60s"}', 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": true}', 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": 0}', 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": -1}', 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": NaN}', 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": 1e999}', 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": 1' + b"0" * 400 + b"}", 400, "a number of seconds"),
    ("POST", "/v1/reload", b'{"confirm_s": 86401}', 400, "at most 86400"),
    ("POST", "/v1/confirm", b'{"\\u001b": 1}', 400, "unknown member '\\x1b': none is"),
    ("POST", "/v1/plan", b'{"file": 5}', 400, "an absolute path"),
    ("POST", "/v1/targets", b"", 405, "takes GET"),
    ("POST", "/metrics", b"", 405, "takes GET"),
    ("POST", "/readyz", b"", 405, "takes GET"),
    ("GET", "/metrics/", b"", 404, "there is no /metrics/"),
    ("GET", "/v1/explain", b"", 405, "takes POST"),
    ("POST", "/v1/explain", b"{}", 400, "listener is missing: it is a string"),
    ("POST", "/v1/explain", b'{"listener": "web", "client": 5}', 400, "client is an IP address"),
    ("POST", "/v1/plan?x=y", b"", 400, "takes no query"),
    ("GET", "/v1/targets?x=y", b"", 400, "unknown parameter 'x': none is"),
    ("GET", "/v1/status?x", b"", 400, "not NAME=VALUE"),
    ("GET", "/v1/status?x=%z1", b"", 400, "without two hexadecimal digits"),
    ("GET", "/v1/status?x=%ff", b"", 400, "not NAME=VALUE"),
    ("GET", "/v1/status?x=1&x=2", b"", 400, "parameter 'x' stands twice"),
    ("GET", "/v1/status?" + "&".join(f"x{n}=" for n in range(40)), b"", 400, "not NAME=VALUE"),
    ("POST", "/v1/explain", b'{"listener": "web", "client": "x"}', 400, "client is an IP address"),
    ("POST", "/v1/explain", b'{"listener": "web", "client": "", "port": "80"}', 400, "port is an integer"),
    ("POST", "/v1/target", b"{}", 400, "pool is missing: it is a string"),
    ("POST", "/v1/target", b'{"pool": "a", "target": ["b"], "weight": 1}', 400, "target is a string"),
    ("POST", "/v1/target", b'{"pool": "a", "target": "b"}', 400, "either ordered or weight"),
    (
        "POST",
        "/v1/target",
        b'{"pool": "a", "target": "b", "ordered": "drained", "weight": 1}',
        400,
        "either ordered or",
    ),
    ("POST", "/v1/target", b'{"pool": "a", "target": "b", "ordered": ["drained"]}', 400, "enabled, drained, disabled"),
    ("POST", "/v1/target", b'{"pool": "a", "target": "b", "weight": true}', 400, "weight is an integer"),
    ("POST", "/v1/target", b'{"pool": "a", "target": "b", "weight": 1, "x": 1}', 400, "only 'pool', 'target', "),
    ("POST", "/v1/plan", b'{"file": "relay.toml"}', 400, "an absolute path"),
    ("POST", "/v1/plan", b'{"file": "/a\\u0000"}', 400, "an absolute path"),
    ("DELETE", "/v1/log", b"", 405, "takes GET, POST"),
    ("POST", "/v1/log", b"{}", 400, "level is missing: it is one of debug, info, warning, error"),
    ("POST", "/v1/log", b'{"level": "trace"}', 400, "level is one of debug, info, warning, error"),
    ("POST", "/v1/log", b'{"level": ["debug"]}', 400, "level is one of debug, info, warning, error"),
    ("POST", "/v1/plan", b" " * (admin_http.BODY_BYTES_MAX + 1), 413, "at most 65536 bytes"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "error"), BAD)
def test_what_is_not_answered(
    address: UnixAddress, method: str, path: str, body: bytes, status: int, error: str
) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            found, answer = await ask(address, method, path, body)
            assert found == status
            assert error in answer["error"]
            assert operator.asked == []

    run(scenario())


def test_the_method_that_would_be_right(address: UnixAddress) -> None:
    async def scenario() -> None:
        async with serving(FakeOperator(), address):
            _, head, _ = parts(await send(address, request("DELETE", "/v1/plan")))
            assert "Allow: POST" in head.splitlines()

    run(scenario())


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/reload"), ("GET", "/v1/status"), ("GET", "/metrics")])
def test_a_web_page_is_not_answered(address: UnixAddress, method: str, path: str) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            status, answer = await ask(address, method, path, b"", "Origin: http://127.0.0.1:9600")
            assert (status, operator.asked) == (403, [])
            assert "web pages" in answer["error"]

    run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
        b"GET /v1/status HTTP/1.1\r\nHost: " + b"a" * 100_000,
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    ],
)
def test_what_is_no_request_harms_nobody(address: UnixAddress, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            with await connect(address) as client:
                with contextlib.suppress(BrokenPipeError):
                    await asyncio.get_running_loop().sock_sendall(client, data)
                    client.shutdown(socket.SHUT_WR)
                answer = await rest(client)
            assert not answer or answer.startswith(b"HTTP/")  # aiohttp answers what it cannot read as HTTP/0.9
            assert await ask(address, "GET", "/v1/status") == (200, STATUS)
            assert ("reload", None) not in operator.asked

    run(scenario())
    assert not caplog.records


def test_a_body_is_taken_as_it_comes(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            body = gzip.compress(b" " * 1_000_000 + b"{}")
            status, answer = await ask(address, "POST", "/v1/reload", body, "Content-Encoding: gzip")
            assert (status, answer, operator.asked) == (400, {"error": "the body is not JSON"}, [])

    run(scenario())


def test_requests_that_follow_are_not_answered(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            answer = await send(address, request("POST", "/v1/confirm") * 3)
            assert answer.count(b"HTTP/1.1 ") == 1
            assert operator.asked == ["confirm"]

    run(scenario())


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"", b""),
        (b"GET /v1/status HTTP/1.1\r\n", b""),
        (b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{", b"HTTP/1.1 408 "),
    ],
)
def test_who_does_not_send_is_given_up(
    address: UnixAddress, monkeypatch: pytest.MonkeyPatch, data: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(admin_http, "CLIENT_S", 0.05)

    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, address):
            found = await send(address, data)
            assert found.startswith(answer)
            assert bool(found) == bool(answer)
            assert operator.asked == []

    run(scenario())


def test_who_does_not_read_is_given_up(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_http, "CLIENT_S", 0.05)
    monkeypatch.setitem(STATUS, "much", "x" * 4_000_000)

    async def scenario() -> None:
        async with serving(FakeOperator(), address):
            with await connect(address) as client:
                client.send(request("GET", "/v1/status"))
                # Until there is nothing more to come: it hangs up before all is sent.
                poll = select.poll()
                poll.register(client, select.POLLHUP)
                while not any(events & select.POLLHUP for _, events in poll.poll(0)):
                    await asyncio.sleep(0.01)
                assert 0 < len(await rest(client)) < 4_000_000

    run(scenario())


def test_one_connection_too_many_is_told_so(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        operator.stuck = True
        async with serving(operator, address):
            waiting = [await connect(address) for _ in range(admin_http.CONNECTIONS_MAX)]
            for client in waiting:
                client.send(request("POST", "/v1/reload"))
            while len(operator.asked) < len(waiting):
                await asyncio.sleep(0.01)
            status, answer = await ask(address, "GET", "/v1/status")
            assert (status, answer) == (503, {"error": "the admin API has 8 connections already: try again"})
            for client in waiting:
                client.close()

    run(scenario())


def test_a_client_that_goes_away_ends_nothing(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        operator.stuck = True
        async with serving(operator, address):
            with await connect(address) as client:
                client.send(request("POST", "/v1/reload"))
                await operator.busy.wait()
            assert await ask(address, "GET", "/v1/status") == (200, STATUS)
            assert operator.cancelled == 0
        assert operator.cancelled == 1

    run(scenario())


def test_a_stop_ends_what_is_under_way_and_says_so(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        operator.stuck = True
        async with serving(operator, address) as server:
            silent, asking, half = [await connect(address) for _ in range(3)]
            asking.send(request("POST", "/v1/reload"))
            half.send(request("POST", "/v1/reload", b"{}")[:-1])
            await operator.busy.wait()
            before = time.monotonic()
            await server.close()
            assert time.monotonic() - before < 1.0
            assert parts(await rest(asking))[::2] == (503, {"error": "relayd is stopping"})
            assert await rest(silent) == b""
            await rest(half)
            assert operator.cancelled == 1
            assert not Path("admin.sock").exists()
            with pytest.raises(FileNotFoundError):
                await connect(address)
            for client in (silent, asking, half):
                client.close()
            await server.close()  # once is enough

    run(scenario())


def test_a_stop_waits_for_nobody_who_asks_nothing(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_http, "_GOODBYE_S", DEADLINE_S)

    async def scenario() -> None:
        async with serving(FakeOperator(), address) as server:
            with await connect(address) as silent:
                assert (await ask(address, "GET", "/v1/status"))[0] == 200
                before = time.monotonic()
                await server.close()
                assert time.monotonic() - before < 1.0
                assert await rest(silent) == b""

    run(scenario())


def test_a_bug_is_reported_and_the_next_is_answered(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator, said = FakeOperator(), Said()
        operator.broken = ZeroDivisionError("oh")
        async with serving(operator, address, said=said):
            status, answer = await ask(address, "POST", "/v1/reload")
            assert (status, answer) == (500, {"error": "a bug in relayd; its log has the traceback"})
            assert said == ["ZeroDivisionError('oh')"]
            assert (await ask(address, "GET", "/v1/status"))[0] == 200

    run(scenario())


def test_a_status_that_is_no_json_is_a_bug(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STATUS, "wrong", object())

    async def scenario() -> None:
        said = Said()
        async with serving(FakeOperator(), address, said=said):
            assert (await ask(address, "GET", "/v1/status"))[0] == 500
        assert len(said) == 1

    run(scenario())


def test_by_tcp_nobody_names_a_file() -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, InetAddress(Family.INET, "127.0.0.1", 0), UnixAddress("@")) as server:
            tcp = server.addresses[0]
            assert await ask(tcp, "POST", "/v1/plan", b'{"file": null}') == (200, YES.as_json())
            status, answer = await ask(tcp, "POST", "/v1/plan", b'{"file": "/etc/shadow"}')
            assert status == 403
            assert "by TCP" in answer["error"]
            assert operator.asked == [("plan", None)]

    run(scenario())


TOKEN = "correct-horse-battery"
LOOPBACK = InetAddress(Family.INET, "127.0.0.1", 0)
GUARDED = Admin(token_file="/token", token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest())


def test_by_tcp_who_has_the_token_is_answered(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, LOOPBACK, address, who=GUARDED) as server:
            tcp, unix = server.addresses
            status, head, answer = parts(await send(tcp, request("POST", "/v1/reload")))
            assert (status, operator.asked) == (401, [])
            assert "a token is needed" in answer["error"]
            assert [line for line in head.splitlines() if line.startswith("WWW-Authenticate: ")] == [
                'WWW-Authenticate: Basic realm="relayd", charset="UTF-8"',
                'WWW-Authenticate: Bearer realm="relayd"',
            ]
            # Not even whether there is such a request is told.
            assert (await ask(tcp, "GET", "/v1/nosuch"))[0] == 401
            assert await ask(tcp, "GET", "/healthz") == (200, {})
            assert (await ask(tcp, "GET", "/readyz"))[0] == 401
            bearer = f"Authorization: Bearer {TOKEN}"
            assert await ask(tcp, "POST", "/v1/reload", b"", bearer) == (200, YES.as_json())
            assert (await ask(tcp, "POST", "/v1/reload", b"", bearer, bearer))[0] == 401
            assert (await ask(tcp, "GET", "/v1/status", b"", "Authorization: Bearer é\udcff"))[0] == 401
            assert await ask(unix, "GET", "/v1/status") == (200, STATUS)

    run(scenario())


def test_who_may_ask_changes_while_it_runs(address: UnixAddress) -> None:
    async def scenario() -> None:
        async with serving(FakeOperator(), LOOPBACK) as server:
            (tcp,) = server.addresses
            server.change(GUARDED)  # before it has begun
            assert (await ask(tcp, "GET", "/v1/status"))[0] == 401
            server.change(Admin())
            assert (await ask(tcp, "GET", "/v1/status"))[0] == 200
            server.change(GUARDED)
            assert (await ask(tcp, "GET", "/v1/status"))[0] == 401

    run(scenario())


def test_read_only_by_tcp(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, LOOPBACK, address, who=Admin(read_only=True)) as server:
            tcp, unix = server.addresses
            for route in ROUTES:
                answer = await send(tcp, request(route.method, route.path))
                assert answer.startswith(b"HTTP/1.1 403 ") == (route.changes or route.private), route.path
            assert not {"confirm", ("reload", None)} & set(operator.asked)
            assert (await ask(unix, "POST", "/v1/reload"))[0] == 200

    run(scenario())


def test_a_name_that_somebody_else_has_led_here(address: UnixAddress) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, LOOPBACK, address, who=Admin(hosts=("relay.example.com",))) as server:
            tcp, unix = server.addresses
            assert (await ask(tcp, "GET", "/v1/status", b"", "Host: evil.example:9600"))[0] == 421
            assert operator.asked == []
            assert (await ask(tcp, "GET", "/healthz", b"", "Host: evil.example:9600"))[0] == 200
            assert (await ask(tcp, "GET", "/v1/status", b"", "Host: relay.example.com:9600"))[0] == 200
            assert (await ask(unix, "GET", "/v1/status", b"", "Host: evil.example"))[0] == 200
            url = b"GET http://127.0.0.1/v1/status HTTP/1.1\r\nHost: evil.example\r\n\r\n"
            assert parts(await send(tcp, url))[0] == 400
            twice = ("Host: 127.0.0.1", "Host: evil.example")
            answer = await send(tcp, request("GET", "/v1/status", b"", *twice))
            assert answer.startswith(b"HTTP/1.0 400 ")  # by aiohttp, and not as JSON
            none = b"GET /v1/status HTTP/1.0\r\n\r\n"
            assert parts(await send(tcp, none))[0] == 400

    run(scenario())


def test_what_browsers_are_told(address: UnixAddress) -> None:
    async def scenario() -> None:
        async with serving(FakeOperator(), LOOPBACK) as server:
            own = f"http://127.0.0.1:{server.addresses[0].port}"  # type: ignore[union-attr]  # by TCP
            host = f"Host: {own.removeprefix('http://')}"
            for headers, status in (((host, f"Origin: {own}"), 200), ((host, "Origin: http://evil.example"), 403)):
                answer = await send(server.addresses[0], request("GET", "/v1/status", b"", *headers))
                found, head, _ = parts(answer)
                assert found == status
                lines = head.splitlines()
                assert "X-Content-Type-Options: nosniff" in lines
                assert "Cross-Origin-Resource-Policy: same-origin" in lines
                assert "Cache-Control: no-store" in lines
                assert "Access-Control-" not in head
            assert (await ask(server.addresses[0], "POST", "/v1/plan", b"", host, f"Origin: {own}"))[0] == 403

    run(scenario())


# Where it listens, and when it begins.


def open_at(said: Said, *listen: SocketAddress) -> AdminServer:
    return AdminServer.open(Admin(listen), said.say, said.report)


def test_the_file_is_for_owner_and_group_and_goes(address: UnixAddress) -> None:
    server = open_at(Said(), address)
    assert stat.S_IMODE(Path("admin.sock").stat().st_mode) == 0o660
    server.release()
    assert not Path("admin.sock").exists()
    server.release()


def test_a_second_daemon_is_refused(address: UnixAddress) -> None:
    said = Said()
    first = open_at(said, address)
    other = UnixAddress("./other.sock")
    with pytest.raises(BindFailed) as caught:
        open_at(said, other, address, UnixAddress("./no/admin.sock"))
    assert caught.value.problems == [
        "admin.listen: unix:./admin.sock: address already in use: another process listens on this path",
        "admin.listen: unix:./no/admin.sock: the directory ./no does not exist: create it, or choose another path",
    ]
    assert [path.name for path in Path().iterdir()] == ["admin.sock"]
    first.release()
    open_at(said, address).release()
    assert said == []


@pytest.mark.parametrize("directory", ["nosuch", "file"])
def test_without_its_directory_the_default_socket_is_done_without(
    address: UnixAddress, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    default = UnixAddress(f"./{directory}/admin.sock")
    monkeypatch.setattr(admin, "ADMIN_SOCKET", default)
    Path("file").touch()
    said = Said()
    server = open_at(said, default, address)
    assert said == ["admin_unavailable"]
    assert server.addresses == (address,)
    server.release()
    # Nothing that a file names can be done without.
    with pytest.raises(BindFailed, match=directory):
        open_at(said, UnixAddress(f"./{directory}/other.sock"))


def test_the_default_socket_of_another_daemon_is_an_error(
    address: UnixAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "ADMIN_SOCKET", address)
    said = Said()
    first = open_at(said, address)
    with pytest.raises(BindFailed, match=r"already in use.*set \[admin\] listen to another address, or to \[\]"):
        open_at(said, address)
    first.release()
    assert said == []


def test_nowhere_is_fine() -> None:
    async def scenario() -> None:
        async with serving(FakeOperator()) as server:
            await server.started()
            assert server.addresses == ()

    run(scenario())


def test_a_client_that_came_before_the_start_is_answered(address: UnixAddress) -> None:
    async def scenario() -> None:
        said = Said()
        server = open_at(said, address)
        with await connect(address) as client:
            client.send(request("GET", "/v1/status"))
            server.start(FakeOperator())
            assert parts(await rest(client))[0] == 200
        await server.close()
        assert said == []

    run(scenario())


def test_it_is_loaded_without_a_client_too(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_LOAD_AFTER_S", 0.01)

    async def scenario() -> None:
        async with serving(FakeOperator(), address) as server:
            await server.started()
            assert (await ask(address, "GET", "/v1/status"))[0] == 200

    run(scenario())


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_a_stop_during_the_start(address: UnixAddress, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    monkeypatch.setattr(admin, "_LOAD_AFTER_S", 0)

    async def scenario() -> None:
        async with serving(FakeOperator(), address) as server:
            for _ in range(turns):
                await asyncio.sleep(0)
            before = time.monotonic()
            await server.close()
            assert time.monotonic() - before < 1.0
            assert not Path("admin.sock").exists()

    run(scenario())


def test_what_cannot_be_loaded_is_said(address: UnixAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "_LOAD_AFTER_S", 0)
    monkeypatch.setitem(sys.modules, "relayd.control.admin_http", None)

    async def scenario() -> None:
        said = Said()
        async with serving(FakeOperator(), address, said=said) as server:
            await server.started()
            assert said == ["admin_unavailable"]
            assert not Path("admin.sock").exists()

    run(scenario())


def test_a_start_does_not_wait_for_aiohttp() -> None:
    script = "import sys, relayd.control.main, relayd.control.admin; assert 'aiohttp' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)


# Whatever anybody sends.

#: What a line of a header may be made of: its own syntax, what it is about, and what nobody expects.
PIECES = st.sampled_from(
    [
        *("Host", "Origin", "Authorization", "Accept", "Content-Length", "Transfer-Encoding", "X"),
        *(": ", ":", " ", "\t", ",", ";", "=", "\r\n", "\n", "\r", "\r\n\r\n", "[", "]", "@", "%", "\0", "\xff"),
        *("127.0.0.1", "localhost", "::1", "[::1]:80", "evil.example", "http://127.0.0.1", "null"),
        *("Bearer ", "Basic ", "Og==", "2", "chunked", "text/plain", "é"),
    ]
)
LINES = st.lists(st.lists(PIECES, max_size=6).map("".join), max_size=5).map("\r\n".join)
_PATHS = ["/v1/status", "/v1/status?history=yes", "/v1/reload", "/v1/log", "/v1/connections?limit=1", "/healthz"]
_PARTS = ["/", "v1", "status", "?", "=", "&", "%", "%2", "%ff", "..", "#", "http:", "é"]
TARGETS_OF_REQUESTS = st.sampled_from(_PATHS) | st.lists(st.sampled_from(_PARTS)).map("".join)
REQUESTS = st.builds(
    lambda method, target, version, host, lines: f"{method} {target} HTTP/{version}\r\n{host}{lines}\r\n\r\n".encode(
        "latin-1", "replace"
    ),
    st.sampled_from(["GET", "POST", "HEAD", "OPTIONS", "get", "CONNECT"]),
    TARGETS_OF_REQUESTS,
    st.sampled_from(["1.1", "1.0", "2.0", ""]),
    st.sampled_from(["Host: 127.0.0.1\r\n", "Host: [::1]:9600\r\n", ""]),
    LINES,
)


@given(st.lists(REQUESTS | st.binary(max_size=60), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_whatever_is_sent_changes_nothing_without_the_token(requests: list[bytes]) -> None:
    async def scenario() -> None:
        operator = FakeOperator()
        async with serving(operator, LOOPBACK, who=GUARDED) as server:
            (tcp,) = server.addresses
            for data in requests:
                with await connect(tcp) as client:
                    with contextlib.suppress(ConnectionError):
                        await asyncio.get_running_loop().sock_sendall(client, data)
                        client.shutdown(socket.SHUT_WR)
                    answer = await rest(client)
                assert not answer or answer.startswith(b"HTTP/")  # aiohttp answers what it cannot read as HTTP/0.9
                healthy = data.split(b"\r\n")[0].split(b"?")[0].split(b" ")[1:2] == [b"/healthz"]
                assert not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) or healthy
                assert not answer.startswith((b"HTTP/1.1 500", b"HTTP/1.0 500"))
            bearer = f"Authorization: Bearer {TOKEN}"
            assert await ask(tcp, "GET", "/v1/status", b"", bearer) == (200, STATUS)
            assert operator.asked == ["status"]

    run(scenario())
