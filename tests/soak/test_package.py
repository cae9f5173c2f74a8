"""The Debian package on clean systems, of debootstrap: built there, installed, upgraded, removed. Needs the network.

The tests are those of tests/systemd/test_package.py.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import box as boxes
from tests.systemd import package
from tests.systemd.box import CHECKOUT, Box
from tests.systemd.test_package import (
    test_a_file_that_the_new_version_refuses_leaves_the_old_one_running,
    test_an_upgrade_under_load_breaks_nothing,
    test_edit_reload_traffic_and_a_journal_that_explains,
    test_installed_it_runs_and_says_what_it_does,
    test_lintian_finds_no_error,
    test_removed_and_purged_it_leaves_nothing,
    test_stopped_it_stays_stopped_over_an_upgrade,
    test_the_file_of_a_drop_in_is_the_one_that_is_asked_for,
)

pytestmark = pytest.mark.soak
__all__ = [
    "test_a_file_that_the_new_version_refuses_leaves_the_old_one_running",
    "test_an_upgrade_under_load_breaks_nothing",
    "test_edit_reload_traffic_and_a_journal_that_explains",
    "test_installed_it_runs_and_says_what_it_does",
    "test_lintian_finds_no_error",
    "test_removed_and_purged_it_leaves_nothing",
    "test_stopped_it_stays_stopped_over_an_upgrade",
    "test_the_file_of_a_drop_in_is_the_one_that_is_asked_for",
]

SUITES = ("bookworm", "trixie")
#: What a system that runs services has.
_INCLUDED = "systemd,dbus,iproute2,python3,man-db,ca-certificates"
#: How this machine reaches the network.
_NETWORK = ("PIP_", "UV_", "SSL_", "HTTP", "HTTPS", "http", "https", "no_proxy", "NO_PROXY")


@pytest.fixture(scope="module", params=SUITES)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean system: its root."""
    missing = boxes.missing_capability() or ("" if shutil.which("debootstrap") else "debootstrap")
    if missing:
        pytest.skip(f"no clean system: missing {missing}")
    root = tmp_path_factory.mktemp(request.param) / "root"
    _run("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", request.param, str(root))
    with _entered(root):
        _inside(root, "apt-get", "update")
        # The box has no network; so apt finds it in its cache.
        _inside(root, "apt-get", "install", "-y", "--no-install-recommends", "--download-only", "python3-systemd")
    return root


@pytest.fixture(scope="module")
def deb(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy of the system, which stays as clean as it is."""
    folder = tmp_path_factory.mktemp("deb")
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for each in (upper, work, merged):
        each.mkdir()
    options = f"lowerdir={system},upperdir={upper},workdir={work}"
    _run("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    try:
        with _entered(merged):
            shutil.copytree(CHECKOUT, merged / "src", ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
            _inside(merged, "/src/packaging/build", "deb", "/out")
            (built,) = (merged / "out").glob("*.deb")
            return Path(shutil.copy(built, folder))
    finally:
        _run("umount", str(merged))


@pytest.fixture(scope="module")
def later(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.later(deb, tmp_path_factory.mktemp("later"))


@pytest.fixture
def bare(system: Path) -> Iterator[Box]:
    with package.bare_box(system) as box:
        yield box


@contextlib.contextmanager
def _entered(root: Path) -> Iterator[None]:
    """What programs in `root` need of this machine."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    _run("mount", "-t", "proc", "proc", str(root / "proc"))
    try:
        _run("mount", "--bind", "/dev", str(root / "dev"))
        try:
            yield
        finally:
            _run("umount", str(root / "dev"))
    finally:
        _run("umount", str(root / "proc"))


def _inside(root: Path, *command: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith(_NETWORK)}
    environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
    _run("chroot", str(root), *command, environment=environment)


def _run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}"
