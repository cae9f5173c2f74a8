"""Requests of the admin API, over aiohttp: HTTP/1.1, JSON in and out but for metrics, one request for a connection.

    POST /v1/reload   {"confirm_s": 60} or {}     a verdict (`verdict.Verdict`): 200, or 409 when the answer is no
    POST /v1/confirm  {}                          a verdict
    POST /v1/plan     {"file": "/path"} or {}     a verdict
    POST /v1/target   {"pool": "app", "target": "10.0.0.1:80", "ordered": "drained"}, or "weight": 3   a verdict
    GET  /v1/status                               200
    GET  /v1/targets                              200
    POST /v1/explain  {"listener": "web", "client": "192.0.2.7"}, perhaps "port": 80   200, 409 where it cannot be said
    GET  /metrics                                 200, and the text of Prometheus or of OpenMetrics
    GET  /healthz                                 200, while the loop of the control process turns
    GET  /readyz                                  200, or 503 while a worker does not accept

Everything else is {"error": "..."} with the status that HTTP has for it. Each wait for a client is bounded, and so is
what clients can make the daemon hold; nothing that they send raises anything.
"""

import asyncio
import ipaddress
import json
import logging
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import ClientError, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from relayd.choosing.group import client_key
from relayd.control.admin import Operator
from relayd.control.verdict import Verdict
from relayd.spec import Ordered

__all__ = ["BODY_BYTES_MAX", "CONNECTIONS_MAX", "AdminHttp"]

Result = TypeVar("Result")

_JSON = "application/json; charset=utf-8"
#: The largest request is the path of a file.
BODY_BYTES_MAX = 64 * 1024
#: Connections at once. Each is one request; a few people and programs look after one relay. Part of the reserve of
#: file descriptors (`spec.budget`).
CONNECTIONS_MAX = 8
#: A client has sent its request within this, and has read its answer within this.
CLIENT_S = 10.0
#: "reload --confirm" of more than a day is a mistake.
CONFIRM_S_MAX = 86_400.0
#: What a stop waits for at most, so that those whose request it ends are told; without requests it does not wait.
_GOODBYE_S = 0.03


_FULL_BODY = json.dumps({"error": f"the admin API has {CONNECTIONS_MAX} connections already: try again"})
_FULL = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
    f"Content-Length: {len(_FULL_BODY)}\r\nConnection: close\r\n\r\n{_FULL_BODY}"
).encode()
#: aiohttp tells of what clients do wrong; they are told themselves, and our own bugs go to `report`.
_QUIET = logging.getLogger("relayd.admin")
_QUIET.disabled = True


class _Answer(Exception):
    """What a client is told instead of a result."""

    def __init__(self, status: int, error: str, allow: str = "") -> None:
        super().__init__(error)
        self.status = status
        self.allow = allow


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_FULL)
        transport.close()


class AdminHttp:
    """Answers every connection that `accept` is called for. `report` is given exceptions that only a bug can raise."""

    def __init__(self, operator: Operator, report: Callable[[BaseException], None]) -> None:
        self._operator = operator
        self._report = report
        self._running: set[asyncio.Task[Any]] = set()
        #: Of connections that wait for their client: when that has taken long enough.
        self._deadlines: dict[RequestHandler, asyncio.TimerHandle] = {}
        self._closing = False
        self._server = web.Server(
            self._answer,
            request_factory=_request,
            access_log=None,
            logger=_QUIET,
            tcp_keepalive=False,
            auto_decompress=False,  # a small body would become a large one
        )

    def accept(self) -> asyncio.BaseProtocol:
        """The protocol of one more connection, for `loop.create_server`."""
        if len(self._server.connections) >= CONNECTIONS_MAX or self._closing:
            return _Full()
        protocol = self._server()
        self._wait_for(protocol)
        return protocol

    async def close(self) -> None:
        """End what is under way, tell its clients so, and close every connection. Takes at most 2 _GOODBYE_S."""
        self._closing = True
        for task in self._running:
            task.cancel()
        for protocol, timer in list(self._deadlines.items()):
            timer.cancel()
            self._give_up(protocol)
        await self._server.shutdown(_GOODBYE_S)

    def _wait_for(self, protocol: RequestHandler) -> None:
        """The client has CLIENT_S from now on."""
        timer = asyncio.get_running_loop().call_later(CLIENT_S, self._give_up, protocol)
        self._deadlines[protocol] = timer

    def _give_up(self, protocol: RequestHandler) -> None:
        self._deadlines.pop(protocol, None)
        transport = protocol.transport
        protocol.force_close()
        if transport is not None:
            transport.abort()  # a close would wait until the client has read all

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        protocol = request.protocol
        timer = self._deadlines.pop(protocol, None)
        if timer is not None:
            timer.cancel()
        headers = {"Server": "relayd", "Content-Type": _JSON}
        try:
            status, body = await self._result(request, headers)
        except _Answer as answer:
            status, body = answer.status, json.dumps({"error": str(answer)}).encode()
            if answer.allow:
                headers["Allow"] = answer.allow
        except Exception as error:
            self._report(error)
            status, body = 500, json.dumps({"error": "a bug in relayd; its log has the traceback"}).encode()
        response = web.Response(body=body, status=status, headers=headers)
        response.force_close()
        if not self._closing:
            self._wait_for(protocol)
        return response

    async def _result(self, request: web.BaseRequest, headers: dict[str, str]) -> tuple[int, bytes]:
        """Status and body; what is not JSON is said in `headers`. Raises _Answer."""
        if "Origin" in request.headers:
            # A browser says so, for a page of somebody else that would have us reload. No scraper does.
            raise _Answer(403, "requests of web pages are not answered")
        if request.path == "/metrics":
            _allow(request, "GET")
            accept = ",".join(request.headers.getall("Accept", ()))
            headers["Content-Type"], text = await self._run(self._operator.metrics(accept))
            return 200, text
        status, answer = await self._json(request)
        return status, json.dumps(answer).encode()

    async def _json(self, request: web.BaseRequest) -> tuple[int, dict[str, Any]]:
        """Status and body. Raises _Answer."""
        tells = {"/healthz": dict[str, Any], "/readyz": self._ready, "/v1/status": self._operator.status}
        tell = tells.get(request.path)
        if tell is not None:
            _allow(request, "GET")
            return 200, tell()
        if request.path == "/v1/targets":
            _allow(request, "GET")
            return 200, await self._run(self._operator.targets())
        if request.path == "/v1/explain":
            _allow(request, "POST")
            return await self._explain(await _members(request))
        asks = {
            "/v1/reload": self._reload,
            "/v1/confirm": self._confirm,
            "/v1/plan": self._plan,
            "/v1/target": self._target,
        }
        ask = asks.get(request.path)
        if ask is None:
            raise _Answer(404, f"there is no {request.path:.80}")
        _allow(request, "POST")
        members = await _members(request)
        if members.get("file") is not None and not _by_unix_socket(request):
            # What is wrong with a file is shown with its lines, and anybody on the machine can come by TCP.
            raise _Answer(403, "by TCP, nobody may name a file: ask by a Unix socket, or for the file in force")
        verdict = await self._run(ask(members))
        return 200 if verdict.ok else 409, verdict.as_json()

    def _ready(self) -> dict[str, Any]:
        reason = self._operator.not_ready()
        if reason:
            raise _Answer(503, reason)
        return {}

    def _reload(self, members: dict[str, Any]) -> Coroutine[Any, Any, Verdict]:
        confirm_s = _only(members, "confirm_s")
        if confirm_s is not None:
            number = isinstance(confirm_s, int | float) and not isinstance(confirm_s, bool)
            if not number or not 0 < confirm_s <= CONFIRM_S_MAX:  # NaN is not
                raise _Answer(400, f"confirm_s is a number of seconds, more than 0 and at most {CONFIRM_S_MAX:g}")
        return self._operator.reload(confirm_s)

    def _confirm(self, members: dict[str, Any]) -> Coroutine[Any, Any, Verdict]:
        _only(members)
        return self._operator.confirm()

    def _plan(self, members: dict[str, Any]) -> Coroutine[Any, Any, Verdict]:
        file = _only(members, "file")
        if file is None:
            return self._operator.plan(None)
        if not isinstance(file, str) or not file.startswith("/") or "\0" in file:
            raise _Answer(400, "file is an absolute path")
        return self._operator.plan(Path(file))

    async def _explain(self, members: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        _only(members, "listener", "client", "port")
        listener, client, port = (members.get(name) for name in ("listener", "client", "port"))
        if not isinstance(listener, str) or not isinstance(client, str):
            raise _Answer(400, "listener and client are strings")
        if port is not None and (not isinstance(port, int) or isinstance(port, bool)):
            raise _Answer(400, "port is an integer")
        try:
            key = client_key((str(ipaddress.ip_address(client)), 0)) if client else client_key("")
        except ValueError:
            raise _Answer(400, "client is an IP address, or empty for one of a Unix socket") from None
        found = await self._run(self._operator.explain(listener, key, port))
        return (409, {"error": found}) if isinstance(found, str) else (200, found)

    def _target(self, members: dict[str, Any]) -> Coroutine[Any, Any, Verdict]:
        _only(members, "pool", "target", "ordered", "weight")
        pool, target, ordered, weight = (members.get(name) for name in ("pool", "target", "ordered", "weight"))
        if not isinstance(pool, str) or not isinstance(target, str):
            raise _Answer(400, "pool and target are strings")
        if (ordered is None) == (weight is None):
            raise _Answer(400, "either ordered or weight says what becomes of the target")
        if weight is not None and (not isinstance(weight, int) or isinstance(weight, bool)):
            raise _Answer(400, "weight is an integer; 0 is that of the file")
        try:
            order = None if ordered is None else Ordered(ordered)
        except ValueError:
            raise _Answer(400, f"ordered is one of {', '.join(each.value for each in Ordered)}") from None
        return self._operator.order(pool, target, order, weight)

    async def _run(self, wanted: Coroutine[Any, Any, Result]) -> Result:
        """What `wanted` returns. A task of its own: only `close` cancels it."""
        task = asyncio.ensure_future(wanted)
        self._running.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._running.discard(task)
            task.cancel()
        if task.cancelled():
            raise _Answer(503, "relayd is stopping")
        return task.result()


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX)


def _allow(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise _Answer(405, f"{request.path} takes {method}", allow=method)


def _by_unix_socket(request: web.BaseRequest) -> bool:
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    return sock is not None and sock.family == socket.AF_UNIX


async def _members(request: web.BaseRequest) -> dict[str, Any]:
    """The object that the body is; nothing is {}. Raises _Answer."""
    try:
        body = await asyncio.wait_for(request.read(), CLIENT_S)
    except web.HTTPRequestEntityTooLarge:
        raise _Answer(413, f"a request has at most {BODY_BYTES_MAX} bytes") from None
    except asyncio.TimeoutError:
        raise _Answer(408, "the request did not come") from None
    except (ClientError, HttpProcessingError, OSError):
        raise _Answer(400, "the request did not come whole") from None
    try:
        found = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise _Answer(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise _Answer(400, "the body is not a JSON object")
    return found


def _only(members: dict[str, Any], *names: str) -> Any:
    """The first of the members `names`, None where there is none. Raises _Answer when there are others."""
    unknown = next((other for other in members if other not in names), None)
    if unknown is not None:
        takes = f"only {', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'}" if names else "none is"
        raise _Answer(400, f"unknown member {unknown[:80]!r}: {takes} taken here")
    return members.get(names[0]) if names else None
