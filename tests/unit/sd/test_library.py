"""Without systemd-python, or without its library: one line that says what to install, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = '[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:8081"]\n'
#: relayd, with `systemd` as the test has it in front of the real one.
_RELAYD = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from relayd.cli.main import main
main()
"""
NOT_INSTALLED = "raise ModuleNotFoundError(\"No module named 'systemd'\")\n"
NO_LIBRARY = "raise ImportError('libsystemd.so.0: cannot open shared object file: No such file or directory')\n"


def relayd(systemd: str, tmp_path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run relayd where importing the package `systemd` does this."""
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / "__init__.py").write_text(systemd)
    file = tmp_path / "relay.toml"
    file.write_text(CONFIG)
    command = [sys.executable, "-c", _RELAYD, str(tmp_path), *arguments, "-c", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(("verb", "code"), [("run", 4), ("check", 1)])
@pytest.mark.parametrize(
    ("systemd", "said"),
    [
        (
            NOT_INSTALLED,
            "relayd: systemd-python cannot be imported (No module named 'systemd'): apt-get install gcc libc6-dev"
            " pkg-config libsystemd-dev python3-dev, then pip install systemd-python; or, for the distribution's own"
            " Python, apt-get install python3-systemd\n",
        ),
        (
            NO_LIBRARY,
            "relayd: systemd-python cannot be imported (libsystemd.so.0: cannot open shared object file: No such file"
            " or directory): apt-get install libsystemd0\n",
        ),
    ],
    ids=["not installed", "no library"],
)
def test_one_line_says_what_to_install(verb: str, code: int, systemd: str, said: str, tmp_path: Path) -> None:
    done = relayd(systemd, tmp_path, verb)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


def test_what_does_without_is_not_in_the_way(tmp_path: Path) -> None:
    done = relayd(NOT_INSTALLED, tmp_path, "show-config")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_document_on_pip_has_the_same_packages() -> None:
    text = (Path(__file__).parents[3] / "docs" / "how-to" / "pip.md").read_text()
    assert "apt-get install gcc libc6-dev pkg-config libsystemd-dev python3-dev" in text
    assert "relayd: systemd-python cannot be imported (No module named 'systemd')" in text
    assert "relayd: systemd-python cannot be imported (libsystemd.so.0: " in text
