"""The image of packaging/container/Containerfile and the pod of packaging/kubernetes/relayd.yaml, run in namespaces: as
user 65532, without a capability, on a root that nobody can write to, as the first process of its namespace.
"""

import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from relayd.address import InetAddress, parse
from tests.e2e import container
from tests.e2e.conftest import Echo
from tests.e2e.container import Container, Image, status_of
from tests.e2e.daemon import DEADLINE_S
from tests.e2e.test_reload import echoed
from tests.installed import CHECKOUT

MANIFEST = CHECKOUT / "packaging" / "kubernetes" / "relayd.yaml"
HOW_TO = CHECKOUT / "docs" / "how-to" / "containers.md"
#: Where the tests' target listens, in the network of the container.
TARGET = "127.0.0.1:9000"


def manifest() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


def config(more: str = "") -> str:
    """That of the manifest, with the target of the tests."""
    text: str = manifest()["ConfigMap"]["data"]["relay.toml"]
    changed, count = re.subn(r'targets = \[".*"\]', f'targets = ["{TARGET}"]', text)
    assert count == 1
    return changed + more


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    missing = container.missing_capability()
    if missing:
        pytest.skip(f"no container: missing {missing}")
    return container.build(tmp_path_factory.mktemp("image"))


@pytest.fixture
def running(image: Image, tmp_path: Path) -> Iterator[Container]:
    """A container that is ready, with a target to relay to."""
    with Container(image, tmp_path, config()) as started:
        started.wait_for("started")
        target = parse(TARGET)
        assert isinstance(target, InetAddress)
        echo = started.inside(lambda: Echo(target))
        yield started
        echo.close()


def connected(running: Container, port: int = 8080) -> socket.socket:
    return running.inside(lambda: socket.create_connection(("127.0.0.1", port), DEADLINE_S))


def probed(running: Container) -> "subprocess.CompletedProcess[str]":
    """HEALTHCHECK of the image, which is what the probes of the manifest are, too (tests/unit/test_manifests.py)."""
    return running.execute(*running.stage.healthcheck())


def test_it_relays_as_the_user_that_may_nothing(running: Container) -> None:
    with connected(running) as client:
        assert echoed(client)
        assert 1 in running.processes()
        running.eventually_alone()
    status = status_of(running.pid)
    assert status["Uid"].split() == status["Gid"].split() == ["65532"] * 4
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    for place in ("/etc/relayd", "/opt/relayd", "/tmp", "/dev/shm", "/"):
        assert running.execute("touch", f"{place}/x").returncode != 0, place
    assert running.execute("touch", "/run/relayd/x").returncode == 0


def test_probes_tell_life_from_death(running: Container) -> None:
    done = probed(running)
    assert done.returncode == 0, done.stdout
    assert "/etc/relayd/relay.toml" in done.stdout
    assert f"pid {status_of(running.pid)['NSpid'].split()[-1]}" in done.stdout
    running.send(signal.SIGSTOP)  # a control process that hangs
    assert running.execute("timeout", "2", *running.stage.healthcheck()).returncode == 124
    running.send(signal.SIGCONT)
    assert probed(running).returncode == 0


def test_a_stop_drains_and_leaves_nothing(running: Container) -> None:
    with connected(running) as client:
        assert echoed(client)
        running.send(signal.Signals[running.stage.last("STOPSIGNAL").text])
        running.wait_for("stopping")
        assert echoed(client)  # it drains
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert running.wait() == 0
    assert running.lines[-1]["event"] == "stopped"


def test_a_stop_during_the_start_is_not_lost(image: Image, tmp_path: Path) -> None:
    # The kernel drops it where the first process of a namespace has no handler for it.
    with Container(image, tmp_path, config()) as starting:
        starting.eventually_blocks(signal.SIGTERM)
        starting.send(signal.SIGTERM)
        assert starting.wait() == 0


def test_what_ends_is_reaped(running: Container) -> None:
    (worker,) = (pid for pid in running.processes() if pid != 1)
    assert running.execute("sh", "-c", f"kill -KILL {worker}").returncode == 0
    running.wait_for("worker_started", 2)
    running.eventually_alone()
    # What an exec leaves behind comes to the first process.
    done = running.execute("sh", "-c", "for each in 1 2 3; do sleep 0.2 >/dev/null 2>&1 & done")
    assert done.returncode == 0, done.stdout
    running.eventually_alone()
    with connected(running) as client:
        assert echoed(client)


def test_a_config_map_that_has_changed_is_taken_by_relayd_reload(running: Container) -> None:
    with connected(running) as client:
        running.config.write(config(f'\n[listeners.more]\nbind = ":8081"\ntargets = ["{TARGET}"]\n'))
        done = running.execute("relayd", "reload")
        assert (done.returncode, done.stdout) == (0, "+ listener more\n")
        with connected(running, 8081) as another:
            assert echoed(another)
        assert echoed(client)


def test_a_config_map_that_has_changed_is_taken_by_a_signal(running: Container) -> None:
    with connected(running) as client:
        running.config.write(config(f'\n[listeners.more]\nbind = ":8081"\ntargets = ["{TARGET}"]\n'))
        assert running.execute("sh", "-c", "kill -HUP 1").returncode == 0
        running.wait_for("reloaded")
        with connected(running, 8081) as another:
            assert echoed(another)
        running.config.write(config())  # and once more: the folder before is gone
        assert running.execute("sh", "-c", "kill -HUP 1").returncode == 0
        running.wait_for("reloaded", 2)
        with pytest.raises(ConnectionRefusedError):
            connected(running, 8081)
        assert echoed(client)


def test_a_config_map_that_is_wrong_changes_nothing(running: Container) -> None:
    running.config.write(config("\n[listeners.more]\n"))
    done = running.execute("relayd", "reload")
    assert done.returncode == 1
    assert "/etc/relayd/relay.toml:" in done.stdout
    with connected(running) as client:
        assert echoed(client)


def test_an_upgrade_in_place_keeps_the_process_and_its_connections(running: Container) -> None:
    with connected(running) as client:
        assert echoed(client)
        for life in (2, 3):
            assert running.execute("sh", "-c", "kill -USR2 1").returncode == 0
            running.wait_for("started", life)
            assert echoed(client)
            running.eventually_alone()
        assert probed(running).returncode == 0
    running.send(signal.SIGTERM)
    assert running.wait() == 0


def test_the_how_to_shows_commands_that_these_tests_run() -> None:
    text = HOW_TO.read_text()
    for command in (
        "relayd reload",
        "sh -c 'kill -HUP 1'",
        "sh -c 'kill -USR2 1'",
        "-f packaging/container/Containerfile",
    ):
        assert command in text
