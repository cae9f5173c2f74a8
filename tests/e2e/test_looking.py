"""The commands that look at a daemon, and end what should not go on, on a real one."""

import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from relayd.address import SocketAddress
from tests import installed
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.test_balancing import connect
from tests.terminal import on_terminal

EchoStart = Callable[[str], SocketAddress]


def config(target: SocketAddress) -> str:
    return f'[daemon]\nworkers = 2\n[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["{target}"]\n'


def relayd(daemon: Daemon, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = installed.relayd(*arguments, "--admin", str(daemon.admin))
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd="/")


def test_what_is_listed_is_ended(tmp_path: Path, echo: EchoStart) -> None:
    target = echo("inet")
    with Daemon(config(target), tmp_path) as daemon, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(daemon)) for _ in range(3)]  # with 5 bytes each way
        listed = relayd(daemon, "connections", "--tcp-info", "--target", str(target))
        assert (listed.returncode, listed.stderr) == (0, "")
        rows = {line.split()[3]: line.split() for line in listed.stdout.splitlines()[1:]}
        assert rows.keys() == {"{}:{}".format(*client.getsockname()) for client in clients}
        assert {(row[1], row[4], row[7]) for row in rows.values()} == {("web", str(target), "5")}
        assert all("open/open" in row and "ms" in row for row in rows.values())

        one = rows["{}:{}".format(*clients[0].getsockname())][0]
        assert relayd(daemon, "kill", one).stdout == "1 connection ended\n"
        line = daemon.wait_for_log(lambda line: line.get("outcome") == "killed")
        assert line["conn_id"] == one
        assert relayd(daemon, "kill", one).returncode == 1
        done = relayd(daemon, "kill", "--client", "127.0.0.0/8", "--json", "--yes")
        assert json.loads(done.stdout) == {"killed": 2, "complete": True}
        assert len(relayd(daemon, "connections").stdout.splitlines()) == 1
        assert relayd(daemon, "kill", "--client", "nonsense", "--yes").returncode == 1
        assert daemon.stop() == 0


def test_top(tmp_path: Path, echo: EchoStart) -> None:
    with Daemon(config(echo("inet")), tmp_path) as daemon, contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(daemon))
        command = installed.relayd("top", "--interval", "0.2", "--admin", str(daemon.admin))
        with on_terminal(command, columns=150) as terminal:
            terminal.wait_for_text("1 connection, by rate")
            client.sendall(b"hello")
            terminal.wait_for(lambda lines: any("open/open" in line and " 10 B" in line for line in lines))
            client.close()
            daemon.terminate()
            terminal.wait_for_text("no daemon listens at")
            daemon.start_again()
            terminal.wait_for_text("0 connections, by rate")
            terminal.type("q")
            assert terminal.wait() == 0
