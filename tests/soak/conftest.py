"""What the soaks run is installed from the wheel, as in tests/e2e."""

import pytest

from tests import installed


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    installed.environment()
