"""Every test leaves the process as it found it: the same open descriptors, no child process. And who runs which tests,
where there is more than one process (pytest -n).
"""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from relayd.log.access import AccessRecord
from relayd.outcomes import Outcome, Side
from tests import ports

# No test of ours is about how long an example takes, and by the clock that is what others do on this machine.
settings.register_profile("relayd", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("relayd")


class _Shares(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """What runs in one process, one after the other: a module, for the sake of what is made once for all of it, and all
    that needs the Debian package. Modules of tests/integration have nothing of the kind, and are long: each of their
    tests goes to who is free.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module in ("tests/systemd/test_documents.py", "tests/systemd/test_package.py"):
            return "the package"
        return nodeid if module.startswith("tests/integration/") else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _Shares:
    """Called by pytest-xdist, in the process that hands out tests."""
    config.option.loadscopereorder = False  # not by the number of tests: what takes longest comes first, see below
    return _Shares(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One of several processes: begin with the longest share, so that nobody has to be waited for at the end."""
    if hasattr(config, "workerinput"):  # of pytest-xdist
        items.sort(key=lambda item: (item.path.parent.name != "systemd", item.path.name != "test_package.py"))


def _open_fds() -> dict[int, str]:
    fds = {}
    for entry in os.scandir("/proc/self/fd"):
        try:
            fds[int(entry.name)] = os.readlink(entry.path)
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return fds


def _children() -> set[int]:
    """Direct children of any thread of this process, zombies included."""
    children = set()
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            children |= {int(pid) for pid in listing.read_text().split()}
    return children


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a descriptor open, or closes one that it did not open, or leaves a child process."""
    fds_before, children_before = _open_fds(), _children()
    yield
    ports.give_back()
    gc.collect()  # what only a cycle keeps open is closed now, with a ResourceWarning, which is an error
    gc.freeze()  # what is left stays: to look at it again after each test would take half of the whole run
    fds_after = _open_fds()
    left = {fd: path for fd, path in fds_after.items() if fd not in fds_before}
    gone = {fd: path for fd, path in fds_before.items() if fd not in fds_after}
    assert not left, f"descriptors left open: {left}"
    assert not gone, f"descriptors closed that were open before: {gone}"
    assert _children() <= children_before, "child processes left"


@pytest.fixture
def access_record() -> AccessRecord:
    """A connection that went well, and ended at 2026-11-22T12:01:02.125Z."""
    return AccessRecord(
        conn_id="a1b2c3-42",
        listener="web",
        type="tcp",
        client="127.0.0.1",
        client_port=51234,
        local="127.0.0.1:8080",
        target="127.0.0.1:8081",
        pool="app",
        attempts=1,
        start_time=1795348862.1216,
        connect_ms=0.2,
        first_byte_ms=0.4,
        duration_ms=3.4004,
        bytes_in=78,
        bytes_out=1234,
        outcome=Outcome.NORMAL,
        side=Side.CLIENT,
        errno=0,
        rtt_ms=None,
        retrans=None,
        reloads_survived=0,
        restarts_survived=0,
    )
