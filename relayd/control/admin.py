"""The admin API: what `relayd reload`, `confirm`, `plan` and `status` talk to. Its sockets, and when it comes and goes.

    admin = AdminServer.open(spec.admin, say, report)   listens; what fails, fails here
    admin.start(operator)                               once READY; clients have waited in the backlog
    await admin.close()                                 first thing in a stop: the next daemon can have the addresses

What a request is, and how it is answered, is in `admin_routes`; `admin_http` serves it. That imports aiohttp, which
takes nearly as long as all the rest of a start (0.4 s) and a third more memory. So that is left until a start is over,
and done in a thread.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from relayd.address import SocketAddress
from relayd.channel.messages import Selection, Sort
from relayd.control.admin_access import Access
from relayd.control.listeners import BindFailed
from relayd.control.threads import aside
from relayd.control.verdict import Verdict
from relayd.log.events import Event
from relayd.net.listening import ListenFailed, ListeningSocket, listen
from relayd.spec import ADMIN_SOCKET, Admin, Binding, Ordered, SocketOptions

if TYPE_CHECKING:
    from relayd.control.admin_http import AdminHttp

__all__ = ["AdminServer", "Operator"]

#: Connections that wait to be accepted: many may come while aiohttp is loaded.
_BACKLOG = 64
#: Of these, asyncio takes so many and one more in one turn of the loop, which with `admin_http.CONNECTIONS_MAX` is
#: within the reserve of `spec.budget`.
_ACCEPTS_PER_TURN = 4
#: From `start` until aiohttp is loaded, unless a client comes first: after a restart, processors have better to do. Not
#: left to the first client: it would wait, and find what an upgrade has installed meanwhile.
_LOAD_AFTER_S = 2.0
#: The file is for its owner and its group: who can open it can reload, and learn lines of files that the daemon reads.
_BINDING = Binding(
    backlog=_BACKLOG,
    ipv6_only=True,
    interface=None,
    freebind=False,
    fast_open=False,
    defer_accept_s=None,
    mode=0o660,
    user_id=None,
    group_id=None,
)
_OPTIONS = SocketOptions(nodelay=True, keepalive=None, user_timeout_ms=None, congestion=None)


class Operator(Protocol):
    """What the admin API can have done. Each answers what is known to go wrong by a Verdict; what it raises is a bug.

    A call is cancelled when the daemon stops, and by nothing else: a client that goes away does not end it.
    """

    async def reload(self, confirm_s: float | None) -> Verdict:
        """Read the file again. With `confirm_s`, go back after so many seconds unless `confirm` comes."""

    async def confirm(self) -> Verdict:
        """Stay with what the last reload has done. No when nothing waits for it."""

    async def plan(self, file: Path | None) -> Verdict:
        """What a reload of `file`, an absolute path, would do. None is the file that the daemon runs on."""

    def status(self, *, history: int = 0) -> dict[str, Any]:
        """For `json.dumps`; docs/admin.md says what is in it. `history`: of how many listeners, the first ones, with
        what happened lately, which takes 0.1 ms for each.
        """

    async def connections(self, selection: Selection, sort: Sort, limit: int, *, tcp_info: bool) -> bytes:
        """The first `limit` connections and sessions of `selection`, as JSON; docs/admin.md says what is in it."""

    async def kill(self, selection: Selection) -> tuple[int, bool]:
        """End those of `selection`: how many there were, and whether every worker has answered."""

    async def targets(self) -> dict[str, Any]:
        """For `json.dumps`; docs/admin.md says what is in it."""

    async def explain(self, listener: str, client: bytes, port: int | None) -> dict[str, Any] | str:
        """Which target of `listener` a client of this key (`choosing.group.client_key`) would get that comes to `port`;
        None is the first one. For `json.dumps`; a string says why that cannot be said.
        """

    async def config(self) -> dict[str, Any]:
        """What is in force, for `json.dumps`; docs/admin.md says what is in it. No secret is."""

    def log(self) -> dict[str, Any]:
        """From which level on lines are logged, for `json.dumps`; docs/admin.md says what is in it."""

    def set_log_level(self, level: str, who: str) -> dict[str, Any]:
        """Have all processes log from `level` on until the next reload; `who` wants that. As `log` afterwards."""

    def not_ready(self) -> str:
        """Why clients should not come just now; empty: they may."""

    async def metrics(self, accept: str) -> tuple[str, bytes]:
        """Content type and text of all metrics, for a client that sends this Accept."""

    async def order(self, pool: str, target: str, ordered: Ordered | None, weight: int | None) -> Verdict:
        """Have a target of a pool be `ordered`, or, where that is None, have `weight`; 0 is that of the file."""


class AdminServer:
    """The listening sockets of the admin API, and what answers there. Owns both.

    `say(event, message, **fields)` writes a log line; `report` is given exceptions that only a bug can raise.
    """

    def __init__(
        self,
        admin: Admin,
        sockets: list[ListeningSocket],
        say: Callable[..., None],
        report: Callable[[BaseException], None],
    ) -> None:
        self._access = Access(admin)
        self._sockets = sockets
        self._say = say
        self._report = report
        self._starting: asyncio.Task[None] | None = None
        self._servers: list[asyncio.Server] = []
        self._http: AdminHttp | None = None

    @classmethod
    def open(cls, admin: Admin, say: Callable[..., None], report: Callable[[BaseException], None]) -> "AdminServer":
        """Listen at every address. Raises BindFailed with every problem at once, and has then left nothing behind.

        No problem but one line in the log: the default socket, where its directory is missing or cannot be written to.
        Whoever runs a relay as themselves should not have to set it up first.
        """
        opened: list[ListeningSocket] = []
        problems = []
        for address in admin.listen:
            try:
                opened.append(listen(address, _BINDING, _OPTIONS))
            except ListenFailed as failure:
                if address != ADMIN_SOCKET:
                    problems.append(f"admin.listen: {failure}")
                elif _directory_is_there():
                    problems.append(f"admin.listen: {failure}; set [admin] listen to another address, or to []")
                else:
                    text = f"no admin API, so no reload by command and no status: {failure}"
                    say(Event.ADMIN_UNAVAILABLE, text, address=str(address))
        if problems:
            for listening in opened:
                listening.close()
            raise BindFailed(problems)
        return cls(admin, opened, say, report)

    @property
    def addresses(self) -> tuple[SocketAddress, ...]:
        """Where it is."""
        return tuple(listening.address for listening in self._sockets)

    def change(self, admin: Admin) -> None:
        """From the next request on, those may ask who may by `admin`. Where it listens stays as it is."""
        self._access = Access(admin)
        if self._http is not None:
            self._http.access = self._access

    def start(self, operator: Operator) -> None:
        """Begin to answer, as soon as what that takes is loaded. Returns at once; to be called in the event loop."""
        if self._sockets:
            self._starting = asyncio.ensure_future(self._start(operator))

    async def started(self) -> None:
        """Wait until clients are answered, or never will be."""
        if self._starting is not None:
            await asyncio.wait({self._starting})

    async def close(self) -> None:
        """Listen no more, remove the socket files, and end what is under way: its clients are told so. Idempotent."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
            self._starting = None
        self.release()
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._http is not None:
            await self._http.close()
            self._http = None

    def release(self) -> None:
        """Listen no more, and remove the socket files: for a start that fails before `start`. Idempotent."""
        for listening in self._sockets:
            listening.close()
        self._sockets = []

    async def _start(self, operator: Operator) -> None:
        try:
            await self._first_client(_LOAD_AFTER_S)
            await aside(_load, "load the admin API")
            await self._serve(operator)
        except (ImportError, OSError) as error:  # not installed as it should be; no descriptors left
            self._say(Event.ADMIN_UNAVAILABLE, f"no admin API: {error}")
            self.release()
        except Exception as error:
            self._report(error)
            self.release()

    async def _first_client(self, timeout_s: float) -> None:
        """Wait until somebody has connected, or `timeout_s` is over."""
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        filenos = [listening.fileno() for listening in self._sockets]
        for fileno in filenos:
            loop.add_reader(fileno, came.set)
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(came.wait(), timeout_s)
        finally:
            for fileno in filenos:
                loop.remove_reader(fileno)

    async def _serve(self, operator: Operator) -> None:
        from relayd.control.admin_http import AdminHttp

        loop = asyncio.get_running_loop()
        self._http = AdminHttp(operator, self._access, self._report)
        for listening in self._sockets:
            # A copy: asyncio closes what it is given, and the file is to be removed by whoever made it.
            copy = socket.socket(fileno=os.dup(listening.fileno()))
            try:
                server = await loop.create_server(self._http.accept, sock=copy, backlog=_ACCEPTS_PER_TURN)
                self._servers.append(server)
                copy.listen(_BACKLOG)  # asyncio has listened with its own
            except BaseException:
                copy.close()
                raise


def _directory_is_there() -> bool:
    return os.access(os.path.dirname(ADMIN_SOCKET.path), os.W_OK | os.X_OK, effective_ids=True)


def _load() -> None:
    # Only to have them loaded, while the loop goes on.
    import relayd.control.admin_http
    import relayd.control.exposition
    import relayd.control.metrics  # noqa: F401  # see above
