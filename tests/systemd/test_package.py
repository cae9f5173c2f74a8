"""The Debian package in a real systemd: installed, configured, upgraded, removed (on an overlay of this machine).

tests/soak/test_package.py does the same on clean systems.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress
from tests.soak.storm import Storm, Targets, listeners
from tests.systemd import package
from tests.systemd.box import Box, Service, echo_target
from tests.systemd.conftest import TARGET_PORT

WEB = f'include = ["conf.d/*.toml"]\n[listeners.web]\nbind = "0.0.0.0:80"\ntargets = ["127.0.0.1:{TARGET_PORT}"]\n'


@pytest.fixture(scope="module")
def later(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.later(deb, tmp_path_factory.mktemp("later"))


@pytest.fixture
def bare() -> Iterator[Box]:
    with package.bare_box() as box:
        yield box


def configured(box: Box, text: str) -> Service:
    (box.root / "etc/relayd/relay.toml").write_text(text)
    return Service(box)


def at(port: int) -> InetAddress:
    return InetAddress(Family.INET, "127.0.0.1", port)


def answered(box: Box) -> bool:
    with box.connect(80) as client:
        client.sendall(b"hello")
        return client.recv(100) == b"hello"


def test_installed_it_runs_and_says_what_it_does(bare: Box, deb: Path) -> None:
    package.install(bare, deb)
    service = Service(bare)
    assert service.show("UnitFileState") == "enabled"
    assert service.show("SubState") == "running"
    assert bare.run("systemctl", "is-enabled", "relayd.socket", check=False).strip() == "disabled"
    assert "man:relay.toml(5)" in bare.run("systemctl", "status", "--no-pager", "relayd")
    assert "1 listener, 0 connections" in bare.run("systemctl", "status", "--no-pager", "relayd")
    assert "/run/relayd/example.sock" in bare.run("relayd", "check")
    assert "example" in bare.run("relayd", "status")
    assert bare.run("systemd-analyze", "verify", "relayd.service", "relayd.socket") == ""
    assert bare.run("dpkg", "--verify", "relayd") == ""
    assert (bare.root / "etc/relayd/conf.d").is_dir()
    # Compiled at installation: every start would do it otherwise, and throw it away.
    assert list((bare.root / "usr/lib/relayd/relayd/__pycache__").glob("address.*.pyc"))


def test_edit_reload_traffic_and_a_journal_that_explains(bare: Box, deb: Path) -> None:
    package.install(bare, deb)
    service = configured(bare, WEB)
    bare.run("systemctl", "reload", "relayd")
    with echo_target(bare, TARGET_PORT):
        assert answered(bare)
        (bare.root / "etc/relayd/conf.d/more.toml").write_text(
            f'[listeners.more]\nbind = "0.0.0.0:81"\ntargets = ["127.0.0.1:{TARGET_PORT}"]\n'
        )
        bare.run("systemctl", "reload", "relayd")
        with bare.connect(81) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
    assert service.show("StatusText").startswith("2 listeners")
    bare.run("journalctl", "--sync")
    lines = bare.run("journalctl", "--no-pager", "--output=cat", "LISTENER=web", "OUTCOME=normal")
    assert f"-> 127.0.0.1:{TARGET_PORT} normal" in lines
    explained = bare.run("journalctl", "--no-pager", "-x", "LISTENER=web")
    assert "Subject: relayd: connection" in explained
    assert "relayd(8)" in explained


def test_an_upgrade_under_load_breaks_nothing(bare: Box, deb: Path, later: Path) -> None:
    package.install(bare, deb)
    service = Service(bare)

    async def scenario() -> None:
        async with Targets() as targets:
            configured(bare, listeners(targets))
            await asyncio.to_thread(bare.run, "systemctl", "reload", "relayd")
            storm = Storm(targets, at(80), at(81), at(53))
            await storm.begin()
            before = service.main_pid()
            await asyncio.to_thread(package.install, bare, later)
            storm.look()
            assert service.main_pid() != before
            assert package.LATER in bare.run("relayd", "status")
            await storm.end()
            assert storm.new > 50

    bare.inside(lambda: asyncio.run(scenario()))
    said = bare.run("journalctl", "--no-pager", "--unit=relayd", "--output=cat")
    assert "taken over: " in said
    assert "not taken over" not in said
    assert "Traceback" not in said


def test_a_file_that_the_new_version_refuses_leaves_the_old_one_running(bare: Box, deb: Path, later: Path) -> None:
    package.install(bare, deb)
    service = configured(bare, WEB)
    bare.run("systemctl", "reload", "relayd")
    configured(bare, WEB + "future = 1\n")
    before = service.main_pid()
    said = package.install(bare, later)
    assert "relay.toml:5:1: listeners.web.future: unknown key" in said
    assert "relayd was not restarted: this version refuses /etc/relayd/relay.toml" in said
    assert service.main_pid() == before
    with echo_target(bare, TARGET_PORT):
        assert answered(bare)
    # What was missed is made up for as the message says.
    configured(bare, WEB)
    bare.run("systemctl", "restart", "relayd")
    assert package.LATER in bare.run("relayd", "status")


@pytest.mark.soak  # with those of tests/soak, to keep the usual run short
def test_the_file_of_a_drop_in_is_the_one_that_is_asked_for(bare: Box, deb: Path, later: Path) -> None:
    package.install(bare, deb)
    (bare.root / "etc/relayd/relay.toml").rename(bare.root / "etc/relayd/my own.toml")
    drop_ins = bare.root / "etc/systemd/system/relayd.service.d"
    drop_ins.mkdir()
    (drop_ins / "file.conf").write_text(
        '[Service]\nExecStart=\nExecStart=/usr/bin/relayd run -c "/etc/relayd/my own.toml"\n'
    )
    bare.run("systemctl", "daemon-reload")
    bare.run("systemctl", "restart", "relayd")
    said = package.install(bare, later)
    assert "refuses" not in said
    status = bare.run("relayd", "status")
    assert package.LATER in status
    assert "/etc/relayd/my own.toml" in status


@pytest.mark.soak  # with those of tests/soak, to keep the usual run short
def test_stopped_it_stays_stopped_over_an_upgrade(bare: Box, deb: Path, later: Path) -> None:
    package.install(bare, deb)
    bare.run("systemctl", "stop", "relayd")
    package.install(bare, later)
    assert Service(bare).show("ActiveState") == "inactive"


@pytest.mark.soak  # as those before
def test_removed_and_purged_it_leaves_nothing(bare: Box, deb: Path) -> None:
    # What it depends on is apt's to remove (autoremove), and is there before and after.
    bare.run("apt-get", "install", "-y", "--no-install-recommends", "python3-systemd")
    before = package.files(bare)
    package.install(bare, deb)
    service = configured(bare, WEB)
    bare.run("systemctl", "reload", "relayd")
    bare.run("relayd", "check")  # as root, who could write what dpkg does not know
    package.remove(bare)
    assert service.show("ActiveState") == "inactive"
    assert service.show("LoadState") == "not-found"
    kept = {path for path in package.files(bare) - before if path.startswith(("/etc/relayd", "/run", "/usr"))}
    assert kept == {"/etc/relayd", "/etc/relayd/relay.toml"}
    # With what was kept it is there again.
    package.install(bare, deb)
    assert service.show("ActiveState") == "active"
    assert "web" in bare.run("relayd", "status")
    package.purge(bare)
    assert package.files(bare) - before == set()
    assert before - package.files(bare) == set()


def test_lintian_finds_no_error(deb: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("missing lintian")
    done = subprocess.run(["lintian", "--allow-root", str(deb)], capture_output=True, text=True, check=False)
    assert not [line for line in done.stdout.splitlines() if line.startswith("E:")], done.stdout
