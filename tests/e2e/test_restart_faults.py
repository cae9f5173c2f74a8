"""Restart and upgrade in place where something is in the way: what lives lives on (R4, R5)."""

import contextlib
import socket
from pathlib import Path

import pytest

from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_restart import (
    WAYS,
    Again,
    Echo,
    config,
    echoed,
    nothing_went_wrong,
    stream,
)


@pytest.fixture(params=WAYS)
def again(request: pytest.FixtureRequest) -> Again:
    """Both ways: by the FD store, and by execve(2)."""
    return WAYS[request.param]


def test_what_systemd_has_passed_stays_open(tmp_path: Path, echo: Echo, again: Again) -> None:
    # R4, R5: it is not ours to close, and an upgrade takes it along
    target = echo("inet")
    with socket.create_server(("127.0.0.1", 0)) as made:
        text = config(stream("web", target, "systemd:web"), stream("own", target))
        with Daemon(text, tmp_path, passing=[("web", made)]) as daemon, contextlib.ExitStack() as stack:
            clients = [stack.enter_context(daemon.connect(name)) for name in ("web", "own")]
            assert all(map(echoed, clients))
            for _ in range(2):
                again(daemon)
                assert all(map(echoed, clients))
                with socket.create_connection(made.getsockname(), DEADLINE_S) as new:
                    assert echoed(new)
            nothing_went_wrong(daemon)
            assert daemon.stderr == ""
            assert daemon.stop() == 0
