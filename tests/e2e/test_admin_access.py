"""Who may ask a running daemon by TCP: by a token that a reload changes, and that is nowhere to be read."""

import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import SocketAddress, UnixAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_balancing import unused

EchoStart = Callable[[str], SocketAddress]

FIRST, SECOND = "first-token-0123456789", "second-token-0123456789"


class Api:
    """The daemon's API, by TCP unless there is a Unix socket."""

    def __init__(self, address: str, unix: UnixAddress | None = None) -> None:
        self.address = address
        self._unix = unix

    def ask(self, path: str, token: str = "", method: str = "GET") -> int:
        """The status of the answer."""
        return self.exchange(method, path, token)[0]

    def exchange(self, method: str, path: str, token: str = "") -> tuple[int, str]:
        """The status of the answer, and its body."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        try:
            if self._unix is not None:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(DEADLINE_S)
                connection.sock.connect(self._unix.sockaddr)
            connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def everything_said(daemon: Daemon) -> str:
    """All that anybody can read of it: lines, notifications, answers, and what it keeps in the FD store."""
    answers = [daemon.command(verb, "--json") for verb in ("status", "plan")]
    kept = []
    for _, file in daemon.stored:
        try:
            kept.append(os.pread(file.fileno(), 1 << 20, 0))
        except OSError:  # a socket
            continue
    return f"{daemon.report()} {answers} {kept!r}"


def test_a_token_that_a_reload_changes(tmp_path: Path, echo: EchoStart) -> None:
    token, api = tmp_path / "token", Api(unused())
    token.touch(0o600)
    token.write_text(FIRST + "\n")
    text = f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["{echo("inet")}"]\n'
    with Daemon(text, tmp_path) as daemon:
        guard = f'[admin]\nlisten = ["{daemon.admin}", "{api.address}"]\ntoken_file = "{token}"\n'
        daemon.configure(text + guard)
        daemon.restart()
        assert (api.ask("/v1/status"), api.ask("/v1/status", SECOND), api.ask("/healthz")) == (401, 401, 200)
        assert api.ask("/v1/status", FIRST) == 200

        token.write_text(SECOND)
        assert api.ask("/v1/status", FIRST) == 200  # a file that changes does nothing by itself
        assert api.ask("/v1/reload", FIRST, "POST") == 200
        assert daemon.wait_for_log(lambda line: "another token" in line["message"])
        assert (api.ask("/v1/status", FIRST), api.ask("/v1/status", SECOND)) == (401, 200)

        token.chmod(0o644)
        assert api.ask("/v1/reload", SECOND, "POST") == 409
        refused = daemon.wait_for_event("reload_failed")
        assert "admin.token_file: " in refused["message"]
        assert "open to every user" in refused["message"]
        assert api.ask("/v1/status", SECOND) == 200
        token.chmod(0o600)

        said = everything_said(daemon)
        assert FIRST not in said
        assert SECOND not in said

        daemon.restart()
        assert (api.ask("/v1/status"), api.ask("/v1/status", SECOND)) == (401, 200)

        daemon.configure(text + guard + "read_only = true\n")
        assert api.ask("/v1/reload", SECOND, "POST") == 200
        assert (api.ask("/v1/status", SECOND), api.ask("/v1/reload", SECOND, "POST")) == (200, 403)
        assert daemon.stop() == 0


#: A health check with a secret in it, and what everybody is told of a reload to it.
CHECKS = {
    '{ type = "tcp", send = "hunter2" }': "health_check changed",
    '{ type = "exec", command = ["/nosuch/hunter2"] }': "health_check.command: is not as it should be",
    '{ type = "http", path = "hunter2" }': "health_check.path: is not as it should be",
    '{ type = "tcp", send = "hunter2", nosuch = 1 }': "health_check.nosuch: is not as it should be",
}


@pytest.mark.parametrize("more", ["", "read_only = true\n", "token_file = TOKEN\n"])
def test_what_health_checks_send_is_not_for_everybody(tmp_path: Path, echo: EchoStart, more: str) -> None:
    """But for who has the token, and who may open the Unix socket."""
    token, port = tmp_path / "token", unused()
    token.touch(0o600)
    token.write_text(FIRST)
    text = f'[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["{echo("inet")}"]\n'
    with Daemon(text, tmp_path) as daemon:
        guard = f'[admin]\nlisten = ["{daemon.admin}", "{port}"]\n{more}'.replace("TOKEN", f'"{token}"')
        daemon.configure(text + guard)
        daemon.restart()
        by_tcp, by_unix = Api(port), Api(port, daemon.admin)
        private, given = "token_file" in more, FIRST if "token_file" in more else ""

        def check(method: str, path: str, told: str) -> None:
            assert "hunter2" in by_unix.exchange(method, path)[1]
            answer = by_tcp.exchange(method, path, given)[1]
            assert ("hunter2" in answer, told in answer) == (private, not private)

        for each, told in CHECKS.items():
            daemon.configure(f"{text}health_check = {each}\n{guard}")
            check("POST", "/v1/plan", told)
        # The last one, once it was refused.
        assert by_unix.ask("/v1/reload", method="POST") == 409
        check("GET", "/v1/status", told)
        if "read_only" not in more:
            check("POST", "/v1/reload", told)
        status, shown = by_tcp.exchange("GET", "/", given)
        assert (status, "hunter2" in shown, "The reload of " in shown) == (200, False, True)
        assert (told in shown) == (not private)
        assert daemon.stop() == 0
