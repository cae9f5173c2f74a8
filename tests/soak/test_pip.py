"""docs/how-to/pip.md, typed from its top to its end on clean systems, in both of its ways.

tests/soak/test_wheel.py is the wheel on each Python.
"""

import re
import shutil
from pathlib import Path

import pytest

import relayd
from tests import installed
from tests.soak import systems
from tests.systemd import package
from tests.systemd.box import Service, echo_target
from tests.systemd.conftest import TARGET_PORT
from tests.systemd.test_package import WEB
from tests.typed import lines_for

pytestmark = pytest.mark.soak

_LINES = lines_for("tests/soak/test_pip.py")
_SPOKEN = [line.text for line in _LINES if line.spoken]
_SHOWN = [line.text for line in _LINES if not line.spoken]
_VENVS = [number for number, line in enumerate(_SHOWN) if line.startswith("python3 -m venv")]
#: With what has to be compiled.
COMPILED = [*_SPOKEN[:2], *_SHOWN[: _VENVS[0] + 3]]
#: systemd-python alone, after that.
(MISSING,) = _SPOKEN[2:]
#: With what the distribution has compiled.
PACKAGED = _SHOWN[_VENVS[1] - 1 : _VENVS[1] + 2]
SERVICE = _SHOWN[_VENVS[1] + 2 : -2]
UPGRADE = _SHOWN[-2:]
#: Where the wheel of this checkout is, and not on an index.
_WHEELS = "wheels"
_CHECK = "/opt/relayd/bin/relayd check -c /opt/relayd/share/relayd/examples/tcp-forward.toml"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed.build(tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a later version."""
    source = tmp_path_factory.mktemp("later") / "source"
    for name in installed.SOURCES:
        path = installed.CHECKOUT / name
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    versioned = source / "relayd/__init__.py"
    versioned.write_text(re.sub(r'(?m)^__version__ = ".+"$', f'__version__ = "{package.LATER}"', versioned.read_text()))
    return installed.build(source.parent, "wheel", source)


def given(root: Path, wheel: Path) -> dict[str, str]:
    """Have pip find `wheel` by the name that is typed; what it needs of the environment."""
    folder = root / _WHEELS
    folder.mkdir(exist_ok=True)
    shutil.copy(wheel, folder)
    (folder / "constraint").write_text(f"relayd @ file:///{_WHEELS}/{wheel.name}\n")
    return {"PIP_CONSTRAINT": f"/{_WHEELS}/constraint"}


def test_every_line_is_typed_below() -> None:
    assert [*COMPILED[2:], *PACKAGED, *SERVICE, *UPGRADE] == _SHOWN
    assert PACKAGED[0].startswith("apt-get")
    assert SERVICE[0].startswith("mkdir")
    assert "--upgrade" in UPGRADE[0]


@pytest.mark.parametrize("way", [COMPILED, PACKAGED], ids=["compiled", "packaged"])
def test_the_page(way: list[str], system: Path, wheel: Path, later: Path, tmp_path: Path) -> None:
    with systems.copy_of(system, tmp_path) as root:
        with systems.entered(root):
            environ = given(root, wheel)
            said = [systems.inside(root, line, more=environ) for line in way]
            if way is COMPILED:
                assert said[-1].startswith(f"relayd {relayd.__version__}\n")
                systems.inside(root, "/opt/relayd/bin/pip uninstall --yes systemd-python")
                missing = systems.inside(root, _CHECK, check=False)
                assert "systemd-python cannot be imported (No module named 'systemd')" in missing
                systems.inside(root, f". /opt/relayd/bin/activate && {MISSING}")
                systems.inside(root, _CHECK)
            else:
                assert "Building wheel" not in said[-1]
            given(root, later)
        with package.bare_box(root) as box, echo_target(box, TARGET_PORT):
            (box.root / "root/relay.toml").write_text(WEB.partition("\n")[2])
            for line in SERVICE:
                box.run("sh", "-c", f"cd /root && {line}")
            service = Service(box)
            before = service.main_pid()
            with box.connect(80) as client:
                for line in UPGRADE:
                    box.run("sh", "-c", f"export PIP_NO_INDEX=1 PIP_CONSTRAINT=/{_WHEELS}/constraint; {line}")
                client.sendall(b"hello")
                assert client.recv(100) == b"hello"
            assert service.main_pid() != before
            assert package.LATER in box.run("/opt/relayd/bin/relayd", "status")
