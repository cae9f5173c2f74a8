"""The level of a running daemon, in the control process and in every worker, until the next reload."""

import contextlib
import json
import os
import select
import signal
from pathlib import Path
from typing import Any

from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_openapi import ask

#: A worker says so at the level warning, of a target where nobody listens.
FAILING = "target_suspect"


def set_level(daemon: Daemon, level: str) -> Any:
    return ask(daemon, "POST", "/v1/log", json.dumps({"level": level}).encode())


def connect(daemon: Daemon) -> None:
    """A client whom the target fails."""
    before = len(daemon.events("connection"))
    with contextlib.suppress(ConnectionResetError):  # which may be there before connect(2) returns
        daemon.connect("web").close()
    daemon.wait_for_event("connection", before + 1)


def kill_worker(daemon: Daemon) -> None:
    """Its end, so that who comes now is the next one's."""
    (worker,) = daemon.workers()
    pidfd = os.pidfd_open(worker)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        assert poll.poll(DEADLINE_S * 1000)
    finally:
        os.close(pidfd)


def test_a_level_of_all_processes_until_a_reload(tmp_path: Path) -> None:
    text = '[daemon]\nworkers = 1\n[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:1"]\n'
    with Daemon(text, tmp_path) as daemon:
        assert set_level(daemon, "error") == (200, {"level": "error", "file": "info"})
        line = daemon.wait_for_event("log_level")
        assert (line["wanted"], line["before"], line["by"].partition(",")[0]) == ("error", "info", f"uid {os.getuid()}")
        connect(daemon)
        assert daemon.events(FAILING) == []

        kill_worker(daemon)
        connect(daemon)  # by one that has begun later
        assert daemon.events(FAILING) == []
        assert daemon.events("worker_exited") == []  # nor does the control process say anything below error

        assert set_level(daemon, "warning") == (200, {"level": "warning", "file": "info"})
        kill_worker(daemon)
        daemon.wait_for_event("worker_exited")
        connect(daemon)
        daemon.wait_for_event(FAILING)

        # A reload that changes nothing, and one that does.
        assert ask(daemon, "POST", "/v1/reload")[0] == 200
        assert ask(daemon, "GET", "/v1/log") == (200, {"level": "info", "file": "info"})
        assert set_level(daemon, "error")[0] == 200
        daemon.configure(text + '[log]\nlevel = "warning"\n')
        assert ask(daemon, "POST", "/v1/reload")[0] == 200
        assert ask(daemon, "GET", "/v1/log") == (200, {"level": "warning", "file": "warning"})
        kill_worker(daemon)
        daemon.wait_for_event("worker_exited", 2)
        assert daemon.stop() == 0
