"""Restart and upgrade in place where something is in the way: what lives lives on (R4, R5)."""

import contextlib
import signal
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


@pytest.mark.parametrize("moment", ["at once", "handing_over", "handed_over"])
def test_a_stop_that_comes_during_an_upgrade_is_a_stop(moment: str, tmp_path: Path, echo: Echo) -> None:
    # R5, R6: or systemd would wait for it, and kill everything in the end
    with Daemon(config(stream("web", echo("inet")), more='drain_timeout = "20s"'), tmp_path) as daemon:
        with daemon.connect("web") as live:
            assert echoed(live)
            daemon.signal(signal.SIGUSR2)
            if moment != "at once":
                daemon.wait_for_event(moment)
            daemon.terminate()
            daemon.wait_for_event("stopping")
            assert echoed(live)
        assert daemon.wait() == 0
        nothing_went_wrong(daemon)


@pytest.mark.parametrize("moment", ["at once", "handing_over", "handed_over"])
def test_a_restart_that_comes_during_an_upgrade_is_a_restart(moment: str, tmp_path: Path, echo: Echo) -> None:
    # R4, R5
    with Daemon(config(stream("web", echo("inet"))), tmp_path) as daemon, daemon.connect("web") as live:
        assert echoed(live)
        daemon.signal(signal.SIGUSR2)
        if moment != "at once":
            daemon.wait_for_event(moment)
        daemon.restart()
        assert echoed(live)
        nothing_went_wrong(daemon)


def test_a_stop_that_comes_during_the_next_start_drains(tmp_path: Path, echo: Echo) -> None:
    # R4, R6
    with Daemon(config(stream("web", echo("inet")), more='drain_timeout = "20s"'), tmp_path) as daemon:
        with daemon.connect("web") as live:
            assert echoed(live)
            daemon.signal(signal.SIGUSR2)
            daemon.wait_for_event("handed_over")
            daemon.wait_for(lambda: len(daemon.events("worker_started")) > 2, "a worker of the next life")
            daemon.terminate()
            daemon.wait_for_event("stopping")
            assert echoed(live)
        assert daemon.wait() == 0
