"""One box for all tests of the session; the service is configured anew for each."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import installed
from tests.systemd import box as boxes
from tests.systemd import package
from tests.systemd.box import Box, Service, echo_target, missing_capability

#: Where the tests' target listens, in the network of the box.
TARGET_PORT = 9000


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    """What these tests run is made before the first of them."""
    installed.environment()


@pytest.fixture(scope="session")
def box(_installed: None) -> Iterator[Box]:
    missing = missing_capability()
    if missing:
        pytest.skip(f"no systemd box: missing {missing}")
    folder = Path(tempfile.mkdtemp(prefix="relayd-box-", dir="/tmp"))
    try:
        box = Box(folder / f"box-{folder.name}")
        try:
            yield box
        finally:
            box.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def service(box: Box) -> Iterator[Service]:
    """relayd.service, not yet configured, with an echo to relay to on port TARGET_PORT."""
    service = Service(box)
    with echo_target(box, TARGET_PORT):
        yield service
        service.clean_up()


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of this checkout."""
    missing = boxes.missing_capability() or package.missing_capability()
    if missing:
        pytest.skip(f"no package: missing {missing}")
    return package.build("deb", tmp_path_factory.mktemp("deb"))
