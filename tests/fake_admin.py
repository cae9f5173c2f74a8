"""An admin API on a Unix socket, in a thread, that answers as docs/admin.md says for connections that it makes up.

For commands that are tested apart from a daemon: thousands of connections at once, names that no daemon would have,
and a daemon that goes and comes back.
"""

import contextlib
import http.server
import json
import socketserver
import threading
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from relayd.address import UnixAddress

_ORDERS: dict[str, tuple[str, bool]] = {
    "age": ("age_s", True),
    "new": ("age_s", False),
    "idle": ("idle_s", True),
    "bytes": ("bytes_out", True),
    "rate": ("rate_out", True),
}


def connection(number: int, **changed: Any) -> dict[str, Any]:
    """One, which differs from others by its number."""
    return {
        "id": f"8f76d9-0-{number}",
        "worker": 1 + number % 2,
        "listener": "web",
        "pool": "web",
        "type": "tcp",
        "client": f"10.0.{number // 250}.{1 + number % 250}",
        "client_port": 30_000 + number % 30_000,
        "local": "192.0.2.1:443",
        "target": f"10.1.0.{1 + number % 3}:8080",
        "state": "relaying",
        "in": "open",
        "out": "open",
        "age_s": 0.5 + number,
        "idle_s": 0.25,
        "bytes_in": 79 * number,
        "bytes_out": 2048 * number,
        "rate_in": 12.0 * number,
        "rate_out": 1024.0 * number,
        "datagrams_in": None,
        "datagrams_out": None,
        "attempts": 1,
        "rtt_ms": None,
        "retrans": None,
        "target_rtt_ms": None,
        "target_retrans": None,
        **changed,
    }


def status(**changed: Any) -> dict[str, Any]:
    """Of a daemon with one listener."""
    return {
        "version": "1.2.3",
        "pid": 7,
        "started_at": "2026-11-23T00:12:00Z",
        "config": {
            "file": "/etc/relayd/relay.toml",
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "loaded_at": "2026-11-23T00:14:10Z",
            "number": 3,
            "last_reload": None,
            "confirm_until": None,
        },
        "workers": [{"number": 1, "pid": 8, "phase": "running"}, {"number": 2, "pid": 9, "phase": "running"}],
        "names": [],
        "listeners": [
            {
                "name": "web",
                "type": "stream",
                "active": 12,
                "accepted": 3400,
                "bytes_in": 512,
                "bytes_out": 1_572_864,
                "rate": {"accepted": 12.0, "bytes_in": 1234.5, "bytes_out": 99_000.0},
            }
        ],
        "targets": [],
        **changed,
    }


class FakeAdmin:
    """What is to be answered, and what was asked for. Thread-safe as far as tests need it."""

    def __init__(self) -> None:
        self.connections = [connection(number) for number in range(3)]
        self.status = status()
        self.complete = True
        #: Whether a worker that is not complete ends connections in time all the same.
        self.has_time = True
        self.asked: list[str] = []
        self.killed: list[dict[str, Any]] = []
        self.changed = threading.Condition()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and document."""
        url = urlsplit(path)
        query = {key: values[0] for key, values in parse_qs(url.query, keep_blank_values=True).items()}
        with self.changed:
            self.asked.append(f"{method} {path}")
            self.changed.notify_all()
            match method, url.path:
                case "GET", "/v1/status":
                    return 200, self.status
                case "GET", "/v1/connections":
                    return self._list(query)
                case "POST", "/v1/kill":
                    return self._kill(json.loads(body))
        return 404, {"error": f"there is no {url.path}"}

    def wait_until_asked(self, part: str, count: int = 1) -> None:
        """Until so many requests have `part` in them."""
        with self.changed:
            done = self.changed.wait_for(lambda: sum(part in each for each in self.asked) >= count, 20.0)
        assert done, f"{part} was not asked for {count} times: {self.asked[-20:]}"

    def _matching(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        keys = ("id", "listener", "client", "target")
        return [one for one in self.connections if all(one[key] == query[key] for key in keys if key in query)]

    def _list(self, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if query.get("client") == "nonsense":
            return 400, {"error": "client is an address or a network, not 'nonsense'"}
        key, down = _ORDERS[query.get("sort", "age")]
        found = sorted(self._matching(query), key=lambda one: float(one[key] or 0), reverse=down)
        if query.get("tcp_info") == "yes":
            found = [{**one, "rtt_ms": 0.25, "retrans": 1234} for one in found]
        limit = int(query.get("limit", 1000))
        return 200, {"total": len(found), "complete": self.complete, "connections": found[:limit]}

    def _kill(self, members: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.killed.append(members)
        found = self._matching({key: value for key, value in members.items() if value is not None})
        if not self.complete and not self.has_time:
            return 200, {"killed": 0, "complete": False}
        if not found:
            return 409, {"error": "there is no such connection"}
        self.connections = [one for one in self.connections if one not in found]
        return 200, {"killed": len(found), "complete": self.complete}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False
    block_on_close = True


@contextlib.contextmanager
def serving(admin: FakeAdmin, address: UnixAddress | None = None) -> Iterator[UnixAddress]:
    """Where it is. Abstract: a test's directory may be too long for a path."""
    where = address or UnixAddress(f"@relayd-test-{uuid.uuid4().hex}")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._do()

        def do_POST(self) -> None:
            self._do()

        def log_message(self, *args: Any) -> None:
            pass

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            code, document = admin.answer(self.command, self.path, body)
            data = json.dumps(document).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who asked has gone
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    server = _Server("\0" + where.path[1:], Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield where
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
