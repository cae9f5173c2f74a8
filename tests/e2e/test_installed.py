"""What these tests run is relayd as it is installed from its wheel, and cannot silently be the checkout again."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli

from relayd.address import SocketAddress
from tests import installed
from tests.e2e.daemon import Daemon
from tests.e2e.lives import upgrade
from tests.e2e.test_reload import config, echoed, stream

#: What the environment has, as its own interpreter finds it.
_SHOW = """
import importlib.metadata, json, relayd
found = {each.name: each.version for each in importlib.metadata.distributions()}
print(json.dumps([relayd.__file__, found, importlib.metadata.distribution("relayd").read_text("direct_url.json")]))
"""


def environ_of(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(each.partition("=")[::2] for each in text.split("\0") if each)


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]


def is_installed(daemon: Daemon) -> bool:
    """The control process was started by the command in the environment, and has imported relayd from there: it tells
    its workers where they find the package that it runs itself.
    """
    here = installed.environment()
    python, program, *_ = command_of(daemon.pid)
    assert Path(python).parent == here.folder / "bin"
    assert Path(program) == here.relayd
    for pid in daemon.workers():
        assert Path(command_of(pid)[0]).parent == here.folder / "bin"
        assert environ_of(pid)["PYTHONPATH"] == str(here.packages)
    return len(daemon.workers()) > 0


def test_the_daemon_and_its_workers_run_what_the_wheel_has_brought(
    tmp_path: Path, echo: Callable[[str], SocketAddress]
) -> None:
    with Daemon(config(stream("web", echo("inet"))), tmp_path) as daemon, daemon.connect("web") as client:
        assert is_installed(daemon)
        upgrade(daemon)
        assert is_installed(daemon)
        assert echoed(client)


def test_the_environment_has_the_wheel_and_the_locked_dependencies_alone() -> None:
    here = installed.environment()
    file, found, url = shown(here)
    assert Path(file) == here.packages / "relayd" / "__init__.py"
    assert "editable" not in json.loads(url).get("dir_info", {})
    assert json.loads(url)["url"].endswith(".whl")
    locked = {
        (normal(package["name"]), package["version"])
        for package in tomli.loads((installed.CHECKOUT / "uv.lock").read_text())["package"]
        if "version" in package  # relayd's own is in its source
    }
    del found["relayd"]
    assert {(normal(name), version) for name, version in found.items()} <= locked
    assert not {"pytest", "hatchling", "mypy", "PyYAML"} & set(found)


def test_what_is_relayed_is_this_checkout() -> None:
    # The environment is that of the files as they are: a state of yesterday has another name.
    package = installed.environment().packages / "relayd"
    ours = installed.CHECKOUT / "relayd"
    names = {path.relative_to(ours) for path in ours.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert names == {
        path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    for name in names:
        assert (package / name).read_bytes() == (ours / name).read_bytes(), name


def shown(environment: installed.Environment) -> Any:
    command = [str(environment.python), "-I", "-c", _SHOW]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd="/").stdout)


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()
