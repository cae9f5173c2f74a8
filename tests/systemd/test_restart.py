"""`systemctl restart` with the shipped unit: connections and sessions outlive it (R4), and what systemd keeps."""

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import relayd
from tests.systemd.box import CHECKOUT, Box, Service, eventually, udp_echo_target
from tests.systemd.conftest import TARGET_PORT
from tests.systemd.test_service import exchange, relay_once

pytestmark = pytest.mark.systemd

RESTARTS = 5
LOCAL = "/run/relayd/local.sock"
TEXT = f"""
[daemon]
workers = 2
drain_timeout = "1s"
[listeners.web]
bind = "0.0.0.0:80"
targets = ["127.0.0.1:{TARGET_PORT}"]
[listeners.local]
bind = "unix:{LOCAL}"
mode = "0666"
targets = ["127.0.0.1:{TARGET_PORT}"]
[listeners.dns]
type = "dgram"
bind = "0.0.0.0:53"
targets = ["127.0.0.1:{TARGET_PORT}"]
"""


@pytest.fixture
def running(box: Box, service: Service) -> Iterator[Service]:
    """The service on TEXT, with both echoes."""
    with udp_echo_target(box, TARGET_PORT):
        service.configure(TEXT)
        service.start()
        yield service
        service.clean_up()


def local(box: Box) -> socket.socket:
    """A connection to the Unix socket in /run/relayd of the box."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    # The box's /run/relayd is a link to an absolute path; its own root is ours to enter by descriptor only.
    client.connect(str(box.root / "run/private/relayd/local.sock"))
    return client


def stored(service: Service) -> int:
    return int(service.show("NFileDescriptorStore"))


def test_connections_and_sessions_go_on(box: Box, running: Service) -> None:
    with contextlib.ExitStack() as stack:
        web = [stack.enter_context(box.connect(80)) for _ in range(10)]
        half = stack.enter_context(box.connect(80))
        asking = [stack.enter_context(box.connect(53, socket.SOCK_DGRAM)) for _ in range(10)]
        unix = stack.enter_context(local(box))
        for client in (*web, *asking, unix, half):
            exchange(client)
        for number in range(RESTARTS):
            before = running.main_pid()
            box.run("systemctl", "restart", "relayd")
            assert running.main_pid() != before
            for client in (*web, *asking, unix, half):
                exchange(client, b"after %d" % number)
            relay_once(box)
            with local(box) as late:
                exchange(late)
        half.shutdown(socket.SHUT_WR)
        assert half.recv(1) == b""
        line = eventually(
            lambda: running.journal("EVENT=connection", f"RESTARTS_SURVIVED={RESTARTS}", output="cat"), "its line"
        )
        assert f"restarts={RESTARTS}" in line
        # Three sockets for streams and datagrams' two copies are four; the manifest; and no parcel is left.
        assert stored(running) == 5
        assert running.show("NRestarts") == "0"
        assert running.show("Result") == "success"
        assert "not_taken_over" not in running.journal(output="json")
        box.run("systemctl", "stop", "relayd")


def test_nobody_is_refused_during_a_restart(box: Box, running: Service) -> None:
    over = threading.Event()
    failed: list[Exception] = []

    def restart() -> None:
        try:
            for _ in range(RESTARTS):
                box.run("systemctl", "restart", "relayd")
        except Exception as error:
            failed.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=restart)
    thread.start()
    served = 0
    while not over.is_set():
        relay_once(box)  # ConnectionRefusedError, a reset, and no answer within the timeout, fail the test
        served += 1
    thread.join()
    assert failed == []
    assert served > RESTARTS


def test_a_crash_of_the_control_process_refuses_nobody(box: Box, running: Service) -> None:
    with box.connect(80) as live:
        exchange(live)
        running.signal("KILL", running.main_pid())
        until = time.monotonic() + 10
        while running.show("NRestarts") == "0":  # a worker that has not heard of it yet may take it, and end with it
            assert time.monotonic() < until
            box.connect(80).close()  # ConnectionRefusedError fails the test
        for _ in range(20):
            relay_once(box)
        with local(box) as client:
            exchange(client)
        with box.connect(53, socket.SOCK_DGRAM) as asking:
            exchange(asking)
        with pytest.raises((ConnectionError, AssertionError)):  # nobody was there to hand it over
            exchange(live)
    assert running.show("NRestarts") == "1"
    assert stored(running) == 5


def test_a_stop_keeps_nothing(box: Box, running: Service) -> None:
    with box.connect(80) as live:
        exchange(live)
        box.run("systemctl", "kill", "--kill-who=main", "relayd")
        eventually(lambda: running.show("StatusText").startswith("stopping"), "stopping")
        eventually(lambda: stored(running) == 0, "an empty store")
        with pytest.raises(ConnectionRefusedError):
            box.connect(80)
        exchange(live)
    eventually(lambda: running.show("ActiveState") == "inactive", "stopped")


def test_a_restart_that_comes_while_another_one_is_under_way(box: Box, running: Service) -> None:
    with box.connect(80) as live:
        exchange(live)
        for _ in range(10):
            box.run("systemctl", "restart", "--no-block", "relayd")
        box.run("systemctl", "restart", "relayd")
        eventually(lambda: running.show("SubState") == "running", "running")
        exchange(live)
    relay_once(box)


def test_a_newer_version_takes_over(box: Box, service: Service) -> None:
    # Issue 4: its files are put in place of those of the old one, as a package does, and the service is restarted.
    installed = box.root / "opt/relayd"
    program = box.root / "usr/bin/relayd"
    ours = program.read_text()
    shutil.copytree(CHECKOUT / "relayd", installed / "relayd", ignore=shutil.ignore_patterns("__pycache__"))
    try:
        program.write_text(ours.replace("import sys\n", 'import sys\nsys.path.insert(0, "/opt/relayd")\n'))
        with udp_echo_target(box, TARGET_PORT):
            service.configure(TEXT)
            service.start()
            assert _version(box) == relayd.__version__
            with box.connect(80) as live, box.connect(53, socket.SOCK_DGRAM) as asking:
                exchange(live)
                exchange(asking)
                _replace(installed / "relayd" / "__init__.py", f'"{relayd.__version__}"', '"9.9.9"')
                box.run("systemctl", "restart", "relayd")
                assert _version(box) == "9.9.9"
                exchange(live)
                exchange(asking)
                # And in place, as a process that no systemd looks after would be upgraded.
                _replace(installed / "relayd" / "__init__.py", '"9.9.9"', '"9.9.10"')
                pid = service.main_pid()
                service.signal("USR2", pid)
                eventually(lambda: _version(box) == "9.9.10", "the newest version")
                assert service.main_pid() == pid
                exchange(live)
                exchange(asking)
            relay_once(box)
            service.clean_up()
    finally:
        program.write_text(ours)
        shutil.rmtree(installed)


def _version(box: Box) -> str:
    """What the daemon says that it is; "" while it does not answer."""
    said = box.run("relayd", "status", "--json", check=False)
    return said.partition('"version": "')[2].partition('"')[0]


def _replace(path: Path, old: str, new: str) -> None:
    """As a package manager does: by another file of that name."""
    text = path.read_text()
    assert old in text
    fresh = path.with_suffix(".new")
    fresh.write_text(text.replace(old, new))
    os.replace(fresh, path)
