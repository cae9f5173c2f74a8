"""The rpm: unpacked onto a system without relayd, and run there. No test installs it: Debian has no rpm database."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import box as boxes
from tests.systemd import package
from tests.systemd.box import Box, Service, echo_target
from tests.systemd.conftest import TARGET_PORT

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def rpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = boxes.missing_capability() or next((each for each in ("rpm2cpio", "cpio") if not shutil.which(each)), "")
    if missing:
        pytest.skip(f"no rpm: missing {missing}")
    umask = os.umask(0o077)  # of a builder who keeps things to himself
    try:
        return package.build("rpm", tmp_path_factory.mktemp("rpm"))
    finally:
        os.umask(umask)


@pytest.fixture
def bare() -> Iterator[Box]:
    with package.bare_box() as box:
        yield box


def asked(rpm: Path, *what: str) -> list[str]:
    done = subprocess.run(["rpm", "-q", "--package", *what, str(rpm)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_it_says_what_it_needs_and_which_file_is_the_operators(rpm: Path) -> None:
    assert {"python(abi) = 3.11", "python3-systemd", "systemd"} <= set(asked(rpm, "--requires"))
    assert asked(rpm, "--configfiles") == ["/etc/relayd/relay.toml"]
    assert {"/etc/relayd/conf.d", "/usr/share/zsh/site-functions/_relayd"} <= set(asked(rpm, "--list"))


def test_everybody_may_read_it(rpm: Path) -> None:
    modes = set(asked(rpm, "--queryformat", "[%{FILEMODES:perms}\n]"))
    assert modes == {"drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"}


def test_unpacked_it_runs(rpm: Path, bare: Box) -> None:
    with subprocess.Popen(["rpm2cpio", str(rpm)], stdout=subprocess.PIPE) as reading:
        unpacking = ["cpio", "--extract", "--make-directories", "--quiet"]
        subprocess.run(unpacking, stdin=reading.stdout, cwd=bare.root, check=True)
    assert reading.returncode == 0
    (bare.root / "etc/relayd/relay.toml").write_text(
        f'[listeners.web]\nbind = "0.0.0.0:80"\ntargets = ["127.0.0.1:{TARGET_PORT}"]\n'
    )
    bare.run("systemctl", "daemon-reload")
    assert bare.run("systemd-analyze", "verify", "relayd.service", "relayd.socket") == ""
    bare.run("systemctl", "start", "relayd")
    assert Service(bare).show("SubState") == "running"
    with echo_target(bare, TARGET_PORT), bare.connect(80) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
    assert "web" in bare.run("relayd", "status")
