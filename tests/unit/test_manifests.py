"""packaging/container and packaging/kubernetes: what they say agrees with itself, with relayd and with its documents.
That it runs, tests/e2e/test_container.py shows.
"""

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import relayd
from relayd.address import InetAddress
from relayd.cli.main import DEFAULT_FILE
from relayd.config import load
from relayd.spec import ADMIN_SOCKET, Spec
from tests.containerfile import Stage, read

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "packaging" / "container"
MANIFEST = ROOT / "packaging" / "kubernetes" / "relayd.yaml"
USER = 65532


@pytest.fixture
def stages() -> list[Stage]:
    return read(CONTAINER / "Containerfile")


@pytest.fixture
def documents() -> dict[str, Any]:
    """The manifest, by kind."""
    found = list(yaml.safe_load_all(MANIFEST.read_text()))
    kinds = {each["kind"]: each for each in found}
    assert set(kinds) == {"ConfigMap", "Deployment", "Service"}
    assert len(found) == len(kinds)
    return kinds


@pytest.fixture
def pod(documents: dict[str, Any]) -> Any:
    return documents["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Any) -> Any:
    (container,) = pod["containers"]
    return container


@pytest.fixture
def spec(documents: dict[str, Any], tmp_path: Path) -> Spec:
    """What relayd makes of the configuration in the manifest."""
    (tmp_path / "relay.toml").write_text(documents["ConfigMap"]["data"]["relay.toml"])
    loaded = load(tmp_path / "relay.toml")
    assert loaded.warnings == ()
    return loaded.spec


# the Containerfile --------------------------------------------------------------------------------------------------


def test_both_stages_run_on_the_same_python_which_is_one_that_relayd_supports(stages: list[Stage]) -> None:
    build, final = stages
    assert build.base == final.base
    minor = re.fullmatch(r"python:3\.([0-9]+)-slim-bookworm", final.base)
    assert minor
    assert int(minor[1]) in range(10, 14)


def test_compilers_stay_in_the_first_stage(stages: list[Stage]) -> None:
    build, final = stages
    needed = ("gcc", "libc6-dev", "libsystemd-dev", "pkg-config")
    first = build.all("RUN")[0].text
    assert all(package in first.split() for package in needed)
    assert not any(package in each.text for package in (*needed, "pip", "uv") for each in final.all("RUN"))
    assert "libsystemd0" in final.all("RUN")[0].text.split()


def test_what_is_copied_is_there_and_is_not_ignored(stages: list[Stage]) -> None:
    ignored = [
        line for line in (CONTAINER / "Containerfile.dockerignore").read_text().splitlines() if line and line[0] != "#"
    ]
    assert ignored[0] == "*"
    copied = [source for each in stages[0].all("COPY") for source in each.text.split()[:-1]]
    assert {f"!{source}" for source in copied} == {line for line in ignored if line[0] == "!"}
    assert all((ROOT / source).exists() for source in copied)
    assert not any(fnmatch.fnmatch(source, line) for source in copied for line in ignored[1:] if line[0] != "!")


def test_how_the_image_runs(stages: list[Stage]) -> None:
    build, final = stages
    assert final.last("ENTRYPOINT").exec_form() == ["relayd"]
    assert final.last("CMD").exec_form() == ["run", "-c", DEFAULT_FILE]
    assert final.last("USER").text == f"{USER}:{USER}"
    assert final.last("STOPSIGNAL").text == "SIGTERM"
    assert final.healthcheck() == ["relayd", "status"]
    (copied,) = final.all("COPY")
    assert copied.flags == {"from": "build"}
    environment = build.environment()["UV_PROJECT_ENVIRONMENT"]
    assert copied.text.split() == [environment, environment]
    assert final.environment()["PATH"].split(":")[0] == f"{environment}/bin"


def test_the_admin_api_has_a_place_that_the_user_may_write(stages: list[Stage]) -> None:
    folder = Path(str(ADMIN_SOCKET).removeprefix("unix:")).parent
    assert f"install -d -m 0755 -o {USER} -g {USER} {folder}" in stages[1].all("RUN")[0].text


# the manifest -------------------------------------------------------------------------------------------------------


def test_the_configuration_is_for_one_processor_and_for_the_ports_of_the_pod(
    spec: Spec, container: Any, documents: dict[str, Any]
) -> None:
    assert spec.workers == int(container["resources"]["limits"]["cpu"])
    bound = {
        bind.address.port
        for listener in spec.listeners
        for bind in listener.binds
        if isinstance(bind.address, InetAddress)
    }
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert set(ports.values()) == bound
    assert all(port >= 1024 for port in bound)  # it has no capability for others
    assert {each["targetPort"] for each in documents["Service"]["spec"]["ports"]} == set(ports)


def test_everything_that_selects_pods_selects_these(documents: dict[str, Any]) -> None:
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert documents["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert documents["Service"]["spec"]["selector"].items() <= labels.items()


def test_a_pod_may_drain_before_it_is_killed(spec: Spec, pod: Any, container: Any) -> None:
    program, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    # 2 s are what relayd gives workers on top, before it kills them (control/daemon.py).
    assert pod["terminationGracePeriodSeconds"] >= float(seconds) + spec.drain_timeout_s + 2


def test_the_pod_may_do_nothing_that_relayd_does_not_need(pod: Any, container: Any, stages: list[Stage]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    ids = {pod["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")}
    assert {f"{each}:{each}" for each in ids} == {stages[1].last("USER").text}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_files_are_where_relayd_looks_for_them(pod: Any, container: Any, documents: dict[str, Any]) -> None:
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert set(mounts) == set(volumes)
    assert mounts["config"]["mountPath"] == str(Path(DEFAULT_FILE).parent)
    assert "subPath" not in mounts["config"]  # such a file would never change
    assert volumes["config"]["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]
    assert set(documents["ConfigMap"]["data"]) == {Path(DEFAULT_FILE).name}
    assert f"unix:{mounts['run']['mountPath']}/admin.sock" == str(ADMIN_SOCKET)
    assert "command" not in container
    assert "args" not in container  # those of the image


def test_probes_ask_as_the_image_does(container: Any, stages: list[Stage]) -> None:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[name]["exec"]["command"] == stages[1].healthcheck()
        assert container[name]["timeoutSeconds"] > 1  # the default, in which Python may not have started


def test_the_image_is_of_this_version(container: Any) -> None:
    assert container["image"] == f"relayd:{relayd.__version__}"
