"""What the soaks run is installed from the wheel, as in tests/e2e."""

import shutil
from pathlib import Path

import pytest

from tests import installed
from tests.soak import systems
from tests.systemd import box as boxes


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    installed.environment()


@pytest.fixture(scope="session", params=systems.SUITES)
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean system: its root, which no test changes."""
    missing = boxes.missing_capability() or ("" if shutil.which("debootstrap") else "debootstrap")
    if missing:
        pytest.skip(f"no clean system: missing {missing}")
    root = tmp_path_factory.mktemp(request.param) / "root"
    systems.make(request.param, root)
    return root
