"""The wheel as pip installs it: on each Python that relayd supports, from nothing but the file; and where what
systemd-python is compiled with is missing.

pip takes dependencies from the index, as an operator's would: the newest that there are, not those that are locked.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import relayd
from relayd.address import SocketAddress
from tests import installed
from tests.e2e.conftest import echo
from tests.e2e.daemon import Daemon
from tests.e2e.lives import upgrade
from tests.e2e.test_distributions import unpacked
from tests.e2e.test_installed import environ_of
from tests.e2e.test_reload import config, echoed, stream

__all__ = ["echo"]  # a fixture

pytestmark = pytest.mark.soak

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
#: Installing compiles systemd-python, and takes some 20 MB from the index.
_INSTALL_S = 300.0
#: Hides what libsystemd-dev brings, in a mount namespace of the command's own.
_WITHOUT_HEADERS = 'mount --bind "$0" /usr/include/systemd && PKG_CONFIG_LIBDIR=$0 exec "$@"'


def interpreter(version: str) -> str:
    """A Python of this version: on the PATH, or one of pyenv. Skips where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python3"))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", "import ensurepip"], capture_output=True).returncode == 0:
            return str(candidate)
    pytest.skip(f"missing Python {version}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    return unpacked(installed.build(folder, "sdist"), folder / "source")


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the source distribution makes: what a release is."""
    return installed.build(tmp_path_factory.mktemp("wheel"), "wheel", source)


def with_pip(python: str, folder: Path, *options: str) -> Path:
    """A virtual environment with pip and nothing else; returns its folder for programs."""
    subprocess.run([python, "-m", "venv", *options, str(folder)], check=True, timeout=_INSTALL_S)
    return folder / "bin"


def run(*command: str | Path, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*prefix, *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_INSTALL_S,
        check=False,
        cwd="/",
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_pip_installs_a_relayd_that_relays(
    version: str, wheel: Path, tmp_path: Path, echo: Callable[[str], SocketAddress]
) -> None:
    programs = with_pip(interpreter(version), tmp_path / "environment")
    done = run(programs / "pip", "install", wheel)
    assert done.returncode == 0, done.stdout
    said = run(programs / "relayd", "version").stdout.splitlines()
    assert said[0] == f"relayd {relayd.__version__}"
    assert said[1].startswith(f"CPython {version}.")
    example = tmp_path / "environment" / "share" / "relayd" / "examples" / "tcp-forward.toml"
    done = run(programs / "relayd", "check", "-c", example)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"{example}: ok")
    command = (str(programs / "relayd"), "run")
    with Daemon(config(stream("web", echo("inet"))), tmp_path, command=command) as daemon:
        with daemon.connect("web") as client:
            assert echoed(client)
            for pid in daemon.workers():
                packages = tmp_path / "environment" / "lib" / f"python{version}" / "site-packages"
                assert environ_of(pid)["PYTHONPATH"] == str(packages)
            upgrade(daemon)
            assert echoed(client)
        assert daemon.stop() == 0
    assert run(programs / "pip", "check").returncode == 0


@pytest.fixture
def without_headers(tmp_path: Path) -> tuple[str, ...]:
    """What to put before a command, for a machine without libsystemd-dev."""
    if os.geteuid() != 0:
        pytest.skip("missing root")
    if shutil.which("unshare") is None:
        pytest.skip("missing unshare")
    if not Path("/usr/include/systemd").is_dir():
        pytest.skip("missing /usr/include/systemd")
    empty = tmp_path / "empty"
    empty.mkdir()
    return ("unshare", "--mount", "sh", "-c", _WITHOUT_HEADERS, str(empty))


def test_what_pip_says_where_headers_are_missing_is_in_the_document(
    wheel: Path, tmp_path: Path, without_headers: tuple[str, ...]
) -> None:
    programs = with_pip(sys.executable, tmp_path / "environment")
    done = run(programs / "pip", "install", "--no-cache-dir", wheel, prefix=without_headers)
    assert done.returncode != 0
    said = re.search(r"Cannot find libsystemd or libsystemd-journal", done.stdout)
    assert said, done.stdout
    assert f"| pip ends with `{said[0]}` |" in (installed.CHECKOUT / "docs" / "how-to" / "pip.md").read_text()
    assert not (programs / "relayd").exists()  # all or nothing


def test_systemd_python_of_the_distribution_will_do(
    wheel: Path, tmp_path: Path, without_headers: tuple[str, ...]
) -> None:
    python = "/usr/bin/python3"
    needs = "import sys, ensurepip, systemd.daemon; sys.exit(sys.version_info < (3, 10))"
    if subprocess.run([python, "-c", needs], capture_output=True).returncode != 0:
        pytest.skip("missing python3-venv, python3-systemd or a distribution's Python 3.10 or later")
    programs = with_pip(python, tmp_path / "environment", "--system-site-packages")
    done = run(programs / "pip", "install", "--no-cache-dir", wheel, prefix=without_headers)
    assert done.returncode == 0, done.stdout
    assert "systemd-python 2" in run(programs / "relayd", "version").stdout
    done = run(programs / "relayd", "check", "-c", installed.CHECKOUT / "configs/examples/tcp-forward.toml")
    assert done.returncode == 0, done.stdout


def test_the_source_distribution_passes_its_unit_tests(source: Path) -> None:
    installed.synchronize(source)
    done = run(source / ".venv/bin/python", "-m", "pytest", "-q", "--rootdir", source, source / "tests/unit")
    assert done.returncode == 0, done.stdout[-8000:]
    assert (source / ".venv/bin/relayd").exists()
