"""System calls of a worker that fail: rule F1. The whole table is in tests/soak; this is what can really happen."""

from pathlib import Path

import pytest

from tests import installed
from tests.integration.injecting import Victim, needs_strace

#: One plausible error for every call that has one.
LIKELY = (
    ("pipe2", "EMFILE"),  # first: a pipe is made once and kept
    ("accept4", "EMFILE"),
    ("accept4", "ECONNABORTED"),
    ("socket", "EMFILE"),
    ("connect", "EADDRNOTAVAIL"),
    ("setsockopt", "ENOBUFS"),
    ("getsockopt", "ENOBUFS"),
    ("recvfrom", "ENOMEM"),
    ("sendto", "ENOBUFS"),
    ("splice", "ENOMEM"),
    ("epoll_ctl", "ENOMEM"),
    ("epoll_wait", "EINTR"),
)


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    """What is run here is made before the test counts descriptors."""
    installed.environment()


@needs_strace
def test_a_call_that_fails_is_survived(tmp_path: Path) -> None:
    # F1, F3, F4
    with Victim(tmp_path) as victim:
        for call, error in LIKELY:
            assert victim.injected(call, error) > 0, call
