"""The admin API over aiohttp: HTTP/1.1, one request for a connection.

What requests there are, and what they answer, is in `admin_routes`; who may ask is in `admin_access`. Here is how long
a client may take, and how much it may send: each wait for one is bounded, and so is what clients can make the daemon
hold; nothing that they send raises anything.
"""

import asyncio
import json
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import ClientError, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpProcessingError, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from relayd.address import from_sockaddr
from relayd.control.admin import Operator
from relayd.control.admin_access import Access, Asking, Refusal
from relayd.control.admin_routes import JSON, Answer, Asked, find, is_open, members_of, query_of

__all__ = ["BODY_BYTES_MAX", "CONNECTIONS_MAX", "AdminHttp"]

#: The largest request is the path of a file.
BODY_BYTES_MAX = 64 * 1024
#: Connections at once. Each is one request; a few people and programs look after one relay. Part of the reserve of
#: file descriptors (`spec.budget`).
CONNECTIONS_MAX = 8
#: A client has sent its request within this, and has read its answer within this.
CLIENT_S = 10.0
#: What a stop waits for at most, so that those whose request it ends are told; without requests it does not wait.
_GOODBYE_S = 0.03


#: struct ucred of unix(7): pid, uid, gid.
_CREDENTIALS = struct.Struct("iII")

_FULL_BODY = json.dumps({"error": f"the admin API has {CONNECTIONS_MAX} connections already: try again"})
_FULL = (
    f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {JSON}\r\n"
    f"Content-Length: {len(_FULL_BODY)}\r\nConnection: close\r\n\r\n{_FULL_BODY}"
).encode()
#: What is said to browsers is for those that are led here by a page of another site: nothing of this is a script, a
#: style or a picture of theirs, and nothing is kept.
_ALWAYS = {
    "Server": "relayd",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
#: aiohttp tells of what clients do wrong; they are told themselves, and our own bugs go to `report`.
_QUIET = logging.getLogger("relayd.admin")
_QUIET.disabled = True


class _Full(asyncio.Protocol):
    """A connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(_FULL)
        transport.close()


class AdminHttp:
    """Answers every connection that `accept` is called for. `report` is given exceptions that only a bug can raise."""

    def __init__(self, operator: Operator, access: Access, report: Callable[[BaseException], None]) -> None:
        #: Who may ask; to be set at any time.
        self.access = access
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
        try:
            answer = await self._result(request)
        except Refusal as refusal:
            answer = _error(refusal.status, str(refusal), refusal.headers)
        except Exception as error:
            self._report(error)
            answer = _error(500, "a bug in relayd; its log has the traceback")
        headers = {**_ALWAYS, "Content-Type": answer.content_type}
        response = web.Response(body=answer.body, status=answer.status, headers=headers)
        for name, value in answer.headers:
            response.headers.add(name, value)
        response.force_close()
        if not self._closing:
            self._wait_for(protocol)
        return response

    async def _result(self, request: web.BaseRequest) -> Answer:
        """Raises Refusal."""
        if not request.raw_path.startswith("/"):  # a URL there would go before Host (RFC 9112, section 3.2.2)
            raise Refusal(400, "a request names a path")
        asking, access = _asking(request), self.access
        access.admit(asking, open_to_all=is_open(request.path))
        route = find(request.method, request.path)
        access.permit(asking, changes=route.changes, private=route.private)
        given: dict[str, Any] = dict(query_of(_query(request)))
        if route.method == "POST":
            if given:
                raise Refusal(400, f"{route.path} takes no query: what it is to do is said by the members of its body")
            given = members_of(await _body(request))
        values = route.read(given, by_unix_socket=asking.by_unix_socket)
        accept = ",".join(request.headers.getall("Accept", ()))
        asked = Asked(self._operator, values, accept, _who(request), private_told=access.tells_private(asking))
        return await self._run(route.handler(asked))

    async def _run(self, wanted: Awaitable[Answer]) -> Answer:
        """What `wanted` returns. A task of its own: only `close` cancels it."""
        task = asyncio.ensure_future(wanted)
        self._running.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._running.discard(task)
            task.cancel()
        if task.cancelled():
            raise Refusal(503, "relayd is stopping")
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


def _error(status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    return Answer(status, json.dumps({"error": text}).encode(), headers=headers)


def _query(request: web.BaseRequest) -> str:
    """As the client has sent it: what aiohttp makes of it hides what is wrong with it."""
    return request.raw_path.partition("#")[0].partition("?")[2]


def _socket(request: web.BaseRequest) -> socket.socket | None:
    """That of the client, None when it has gone."""
    return request.transport.get_extra_info("socket") if request.transport is not None else None


def _who(request: web.BaseRequest) -> str:
    """Where the client is, for the log. No name of a user: to look that up may take a while."""
    sock = _socket(request)
    try:
        if sock is None:
            return "somebody who has gone"
        if sock.family == socket.AF_UNIX:
            pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
            return f"uid {uid}, pid {pid}"
        return str(from_sockaddr(sock.family, sock.getpeername()))
    except OSError:
        return "somebody who has gone"


def _asking(request: web.BaseRequest) -> Asking:
    sock = _socket(request)
    hosts, origins, authorizations = (
        tuple(request.headers.getall(name, ())) for name in ("Host", "Origin", "Authorization")
    )
    by_unix_socket = sock is not None and sock.family == socket.AF_UNIX
    return Asking(request.method, by_unix_socket, hosts, origins, authorizations)


async def _body(request: web.BaseRequest) -> bytes:
    """Raises Refusal."""
    try:
        return await asyncio.wait_for(request.read(), CLIENT_S)
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(413, f"a request has at most {BODY_BYTES_MAX} bytes") from None
    except asyncio.TimeoutError:
        raise Refusal(408, "the request did not come") from None
    except (ClientError, HttpProcessingError, OSError):
        raise Refusal(400, "the request did not come whole") from None
