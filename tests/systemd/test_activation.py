"""relayd.service started by sockets that systemd holds: systemd/relayd.socket, and what docs/systemd.md adds to it."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.box import CHECKOUT, UNIT, Box, Service, eventually, udp_echo_target
from tests.systemd.conftest import TARGET_PORT
from tests.systemd.test_service import exchange
from tests.typed import lines_for

pytestmark = pytest.mark.systemd

SOCKET_UNIT = CHECKOUT / "systemd" / "relayd.socket"
_DOCUMENT = (CHECKOUT / "docs" / "systemd.md").read_text()
WEB = f'[listeners.web]\nbind = "systemd:web"\ntargets = ["127.0.0.1:{TARGET_PORT}"]\n'
DNS = f'[listeners.dns]\ntype = "dgram"\nbind = "systemd:dns"\ntargets = ["127.0.0.1:{TARGET_PORT}"]\n'
HEAD = "[daemon]\nworkers = 2\n"


def shown(title: str) -> str:
    """The file that docs/systemd.md shows under this first line."""
    found = re.search(rf"^```ini\n(# {re.escape(title)}\n.*?)^```$", _DOCUMENT, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


@pytest.fixture
def sockets(box: Box, service: Service) -> Iterator[Service]:
    """Both socket units, which systemd listens on. The service is configured for them, and does not run."""
    service.configure(HEAD + WEB + DNS)
    box.install("relayd.socket", SOCKET_UNIT.read_text())
    box.install("relayd-dns.socket", shown("/etc/systemd/system/relayd-dns.socket"))
    box.run("systemctl", "start", "relayd.socket", "relayd-dns.socket")
    assert service.show("ActiveState") == "inactive"
    with udp_echo_target(box, TARGET_PORT):
        yield service
        box.uninstall("relayd.socket", "relayd-dns.socket")
        service.clean_up()


def ask_web(box: Box) -> None:
    with box.connect(80) as client:
        exchange(client)


def ask_dns(box: Box) -> None:
    with box.connect(53, socket.SOCK_DGRAM) as client:
        exchange(client)


def test_systemd_has_nothing_to_say_about_the_units(box: Box, sockets: Service) -> None:
    assert box.run("systemd-analyze", "verify", "relayd.socket", "relayd-dns.socket") == ""


def test_the_first_connection_starts_the_service(box: Box, sockets: Service) -> None:
    ask_web(box)
    assert sockets.show("ActiveState") == "active"
    assert sockets.show("StatusText").startswith("2 listeners")
    ask_dns(box)
    listening = sockets.journal("EVENT=listening", output="cat")
    assert "web listens on [::]:80, passed as systemd:web" in listening
    assert "dns listens on [::]:53 for datagrams, passed as systemd:dns" in listening


def test_the_first_datagram_starts_the_service(box: Box, sockets: Service) -> None:
    ask_dns(box)
    assert sockets.show("ActiveState") == "active"
    ask_web(box)


def test_a_restart_refuses_nobody(box: Box, sockets: Service) -> None:
    ask_web(box)
    before = sockets.main_pid()
    over = threading.Event()
    failed: list[Exception] = []
    served = 0

    def restart() -> None:
        try:
            box.run("systemctl", "restart", "relayd.service")
        except Exception as error:
            failed.append(error)
        finally:
            over.set()

    thread = threading.Thread(target=restart)
    thread.start()
    while not over.is_set():
        ask_web(box)  # ConnectionRefusedError, and no answer within the timeout, fail the test
        served += 1
    thread.join()
    assert failed == []
    assert served > 0
    assert sockets.main_pid() != before
    ask_web(box)
    ask_dns(box)


def test_a_stop_is_over_with_the_next_connection(box: Box, sockets: Service) -> None:
    ask_web(box)
    box.run("systemctl", "stop", "relayd.service")
    assert sockets.show("Result") == "success"
    ask_web(box)
    eventually(lambda: sockets.show("ActiveState") == "active", "the service back")


def test_a_reload_lets_go_of_a_socket_and_comes_back_to_it(box: Box, sockets: Service) -> None:
    # R2
    ask_dns(box)
    pid = sockets.main_pid()
    with box.connect(80) as live:
        exchange(live)
        sockets.configure(HEAD + DNS)
        box.run("systemctl", "reload", "relayd")
        exchange(live)
        with box.connect(80) as waiting:  # in the backlog
            waiting.sendall(b"hello")
            sockets.configure(HEAD + WEB.replace("listeners.web", "listeners.other") + DNS)
            box.run("systemctl", "reload", "relayd")
            assert waiting.recv(5, socket.MSG_WAITALL) == b"hello"
        exchange(live)
        sockets.configure(HEAD + WEB.replace("systemd:web", "systemd:wed"))
        with pytest.raises(AssertionError, match=r"(?i)job for relayd\.service failed"):
            box.run("systemctl", "reload", "relayd")
        said = sockets.journal()
        assert '/etc/relayd/relay.toml:4:8: listeners.web.bind: "systemd:wed": there is no socket of this name' in said
        assert "systemd passed: " in said
        assert "web (stream, [::]:80)" in said
        exchange(live)
        ask_dns(box)
    assert sockets.main_pid() == pid


def test_low_ports_without_a_capability(box: Box, sockets: Service, tmp_path: Path) -> None:
    """The drop-in that docs/systemd.md shows: it works, and it is worth something."""
    drop_in = shown("/etc/systemd/system/relayd.service.d/activated.conf")
    place = box.root / "etc/systemd/system/relayd.service.d/activated.conf"
    place.write_text(drop_in)
    try:
        box.run("systemctl", "daemon-reload")
        ask_web(box)
        ask_dns(box)
        status = (box.root / f"proc/{sockets.main_pid()}/status").read_text()
        assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
        assert box.run("systemctl", "show", "--value", "--property=PrivateUsers", "relayd").strip() == "yes"
    finally:
        sockets.clean_up()
        place.unlink()
        box.run("systemctl", "daemon-reload")
    unit = tmp_path / "relayd.service"
    shutil.copy(UNIT, unit)
    with unit.open("a") as file:
        file.write(drop_in)
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=12", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_without_systemd_its_tool_does_the_same(box: Box, service: Service) -> None:
    (line,) = lines_for("tests/systemd/test_activation.py")
    (box.root / "root/relay.toml").write_text(HEAD + WEB)

    def connected() -> socket.socket | None:
        try:
            return box.connect(8080)
        except ConnectionRefusedError:  # the tool does not listen yet
            return None

    box.run("systemd-run", "--unit=activate", "--working-directory=/root", "sh", "-c", f"exec {line.text}")
    try:
        client = eventually(connected, line.text)
        assert client is not None
        with client:
            exchange(client)
    finally:
        box.uninstall("activate.service")
