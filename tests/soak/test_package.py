"""The Debian package on clean systems, of debootstrap: built there, installed, upgraded, removed. Needs the network.

The tests are those of tests/systemd/test_package.py.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import systems
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


@pytest.fixture(scope="module")
def deb(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy of the system, which stays as clean as it is."""
    folder = tmp_path_factory.mktemp("deb")
    with systems.copy_of(system, folder) as root, systems.entered(root):
        shutil.copytree(CHECKOUT, root / "src", ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
        systems.inside(root, "/src/packaging/build deb /out")
        (built,) = (root / "out").glob("*.deb")
        return Path(shutil.copy(built, folder))


@pytest.fixture(scope="module")
def later(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.later(deb, tmp_path_factory.mktemp("later"))


@pytest.fixture
def bare(system: Path) -> Iterator[Box]:
    with package.bare_box(system) as box:
        yield box
