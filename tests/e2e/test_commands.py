"""The commands that talk to a running daemon, as an operator types them."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relayd.address import SocketAddress
from tests import installed
from tests.e2e.daemon import DEADLINE_S, Daemon

HEAD = '[daemon]\nworkers = 2\n[log]\nformat = "json"\n'


def stream(name: str, target: object, bind: str = "127.0.0.1:0", more: str = "") -> str:
    return f'[listeners.{name}]\nbind = "{bind}"\ntargets = ["{target}"]\n{more}\n'


@pytest.fixture
def target(echo: Callable[[str], SocketAddress]) -> SocketAddress:
    """An echo over IPv4."""
    return echo("inet")


def relayd(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command against `daemon`."""
    command = installed.relayd(*arguments, "--admin", str(daemon.admin))
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def as_json(daemon: Daemon, *arguments: str) -> Any:
    return json.loads(relayd(daemon, *arguments, "--json").stdout)


def test_plan_says_what_reload_then_does(tmp_path: Path, target: SocketAddress) -> None:
    web = stream("web", target)
    with Daemon(HEAD + web, tmp_path) as daemon, daemon.connect("web") as live:
        live.sendall(b"x")
        assert live.recv(1) == b"x"
        same = relayd(daemon, "plan")
        assert (same.returncode, same.stdout) == (0, "nothing to change\n")
        daemon.configure(HEAD + stream("web", "127.0.0.1:9") + stream("new", target))
        planned = relayd(daemon, "plan")
        assert planned.returncode == 10
        assert planned.stdout.splitlines() == [
            f"~ listener web: target {target} removed (1 connection: drain 30s)",
            "~ listener web: target 127.0.0.1:9 added",
            "+ listener new",
        ]
        assert as_json(daemon, "plan")["changes"][2] == {"sign": "+", "listener": "new", "text": "", "effect": ""}
        done = relayd(daemon, "reload")
        assert (done.returncode, done.stdout, done.stderr) == (0, planned.stdout, "")
        with daemon.connect("new") as client:
            client.sendall(b"y")
            assert client.recv(1) == b"y"
        assert relayd(daemon, "plan").returncode == 0


def test_a_bad_file_is_shown_as_check_shows_it(tmp_path: Path, target: SocketAddress) -> None:
    # R1
    with Daemon(HEAD + stream("web", target), tmp_path) as daemon:
        daemon.configure(HEAD + stream("web", target, more="idle_timeout = 30"))
        check = installed.relayd("check", "-c", str(daemon.config_path))
        checked = subprocess.run(check, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        for verb in ("plan", "reload"):
            refused = relayd(daemon, verb)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr == checked.stderr
        found = as_json(daemon, "status")["config"]["last_reload"]
        assert found["ok"] is False
        assert "a duration is a string with a unit" in found["errors"][0]
        with socket.create_server(("127.0.0.1", 0)) as taken:
            daemon.configure(HEAD + stream("web", target, f"127.0.0.1:{taken.getsockname()[1]}"))
            refused = relayd(daemon, "reload")
        assert refused.returncode == 1
        assert "address already in use" in refused.stderr
        with daemon.connect("web") as client:
            client.sendall(b"y")
            assert client.recv(1) == b"y"


def test_a_reload_that_nobody_confirms_goes_back(tmp_path: Path, target: SocketAddress) -> None:
    before, after = HEAD + stream("old", target), HEAD + stream("new", target)
    with Daemon(before, tmp_path) as daemon:
        daemon.configure(after)
        assert relayd(daemon, "reload", "--confirm", "1s").returncode == 0
        line = daemon.wait_for_log(lambda line: "gone back" in line.get("message", ""))
        assert line["event"] == "reloaded"
        names = [each["name"] for each in as_json(daemon, "status")["listeners"]]
        assert names == ["old"]
        assert relayd(daemon, "confirm").returncode == 1


def test_a_reload_that_is_confirmed_stays(tmp_path: Path, target: SocketAddress) -> None:
    with Daemon(HEAD + stream("old", target), tmp_path) as daemon:
        daemon.configure(HEAD + stream("new", target))
        assert relayd(daemon, "reload", "--confirm", "60s").returncode == 0
        assert as_json(daemon, "status")["config"]["confirm_until"] is not None
        assert relayd(daemon, "confirm").returncode == 0
        found = as_json(daemon, "status")["config"]
        assert (found["confirm_until"], found["number"]) == (None, 1)
        assert relayd(daemon, "confirm").returncode == 1


def test_only_a_reload_that_has_changed_something_waits_for_a_confirmation(
    tmp_path: Path, target: SocketAddress
) -> None:
    with Daemon(HEAD + stream("old", target), tmp_path) as daemon:
        daemon.configure(HEAD + stream("new", target))
        assert relayd(daemon, "reload").returncode == 0
        daemon.configure("nonsense")
        assert relayd(daemon, "reload", "--confirm", "60s").returncode == 1
        assert as_json(daemon, "status")["config"]["confirm_until"] is None
        daemon.configure(HEAD.replace("workers = 2", "workers = 1") + stream("new", target))
        restart = relayd(daemon, "reload", "--confirm", "60s")
        assert (restart.returncode, restart.stdout) == (0, "~ daemon.workers 2 -> 1: needs a restart\n")
        assert as_json(daemon, "status")["config"]["confirm_until"] is None
        # Two in a row: what comes back is what was there before the first.
        for name in ("newer", "newest"):
            daemon.configure(HEAD + stream(name, target))
            assert relayd(daemon, "reload", "--confirm", "1s" if name == "newest" else "60s").returncode == 0
        daemon.wait_for_log(lambda line: "gone back" in line.get("message", ""))
        assert [each["name"] for each in as_json(daemon, "status")["listeners"]] == ["new"]


def test_status_counts_what_has_been(tmp_path: Path, target: SocketAddress) -> None:
    web = stream("web", target)
    with Daemon(HEAD + web, tmp_path) as daemon:
        for _ in range(3):
            with daemon.connect("web") as client:
                client.sendall(b"12345")
                assert client.recv(5, socket.MSG_WAITALL) == b"12345"
        daemon.wait_for_event("connection", 3)
        # A listener that goes, and comes again, counts on: counters never go backwards (R3).
        for text in (HEAD + stream("other", target), HEAD + web):
            daemon.configure(text)
            assert relayd(daemon, "reload").returncode == 0

        def web_counts() -> Any:
            return next(each for each in as_json(daemon, "status")["listeners"] if each["name"] == "web")

        for _ in range(20):  # reports come once a second
            counts = web_counts()
            if counts["accepted"] == 3:
                break
        assert counts.pop("rate").keys() == {"accepted", "bytes_in", "bytes_out"}
        assert counts == {
            "name": "web",
            "type": "stream",
            "active": 0,
            "accepted": 3,
            "bytes_in": 15,
            "bytes_out": 15,
        }
        text = relayd(daemon, "status").stdout
        assert str(daemon.config_path) in text
        assert "web" in text


def test_nobody_there(tmp_path: Path) -> None:
    command = installed.relayd("reload", "--admin", f"unix:{tmp_path}/nobody.sock")
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 3
    assert "nobody.sock" in done.stderr


def test_a_second_daemon_on_the_same_admin_socket_is_refused(tmp_path: Path, target: SocketAddress) -> None:
    with Daemon(HEAD + stream("web", target), tmp_path) as daemon:
        other = tmp_path / "other.toml"
        other.write_text(HEAD + stream("web", target) + f'[admin]\nlisten = "{daemon.admin}"\n')
        command = installed.relayd("run", "-c", str(other))
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert done.returncode == 4
        assert f"admin.listen: {daemon.admin}: address already in use" in done.stderr
        assert relayd(daemon, "status").returncode == 0
