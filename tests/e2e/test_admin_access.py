"""Who may ask a running daemon by TCP: by a token that a reload changes, and that is nowhere to be read."""

import http.client
import os
from collections.abc import Callable
from pathlib import Path

from relayd.address import SocketAddress
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_balancing import unused

EchoStart = Callable[[str], SocketAddress]

FIRST, SECOND = "first-token-0123456789", "second-token-0123456789"


class Api:
    """The daemon's API by TCP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, token: str = "", method: str = "GET") -> int:
        """The status of the answer."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        try:
            connection.request(method, path, headers={"Authorization": f"Bearer {token}"} if token else {})
            return connection.getresponse().status
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
