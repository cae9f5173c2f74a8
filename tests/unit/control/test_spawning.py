"""Workers that are started early, and those that cannot be."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.channel import Channel
from relayd.channel.messages import Configure, Ready
from relayd.control import spawning
from relayd.control.spawning import Nursery, spawn
from relayd.spec import Log, Spec

FAKE = (sys.executable, "-S", str(Path(__file__).with_name("fake_worker.py")), "none")
DEADLINE_S = 10.0


@pytest.fixture
def nursery(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    """With two stand-ins."""
    monkeypatch.setattr(spawning, "WORKER_COMMAND", FAKE)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    nursery = Nursery()
    nursery.start()
    yield nursery
    nursery.close()


#: Says which descriptors it has, but for that of the listing.
_SHOW = """
import os
found = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(fd)
    except OSError:
        continue
    found.append(fd)
os.write(2, repr(sorted(found)).encode())
"""


def test_a_worker_has_its_channel_and_nothing_else_of_ours(tmp_path: Path) -> None:
    with open(tmp_path / "ours", "w") as ours:
        os.set_inheritable(ours.fileno(), True)
        spawned = spawn((sys.executable, "-S", "-c", _SHOW))
    try:
        spawned.process.wait()
        *_, channel = spawned.process.args  # type: ignore[misc]  # a list
        assert os.read(spawned.stderr, 4096).decode() == f"[0, 1, 2, {channel!s}]"
    finally:
        spawned.kill()


def test_a_worker_that_waits_takes_its_configuration(nursery: Nursery) -> None:
    spawned = nursery.take()
    assert spawned is not None
    try:
        channel = Channel(spawned.channel)
        channel.send(Configure(Spec(1, 1.0, Log("info", "auto", access=False), ()), 1))
        assert select.select([channel], [], [], DEADLINE_S)[0]
        assert next(channel.receive()) == (Ready(spawned.process.pid), [])
    finally:
        spawned.kill()


def test_each_is_given_out_once_and_the_others_end(nursery: Nursery) -> None:
    one, other = nursery.take(), nursery.take()
    assert one is not None
    assert other is not None
    assert one.process.pid != other.process.pid
    assert nursery.take() is None
    for spawned in (one, other):
        assert spawned.process.poll() is None
        spawned.kill()
    nursery.start()
    waiting = [spawned.process for spawned in nursery._waiting]
    nursery.close()
    assert [process.returncode for process in waiting] == [-9, -9]
    assert nursery.take() is None


def test_one_that_has_died_is_not_given_out(nursery: Nursery) -> None:
    # R7
    dead, alive = nursery._waiting
    dead.process.kill()
    os.waitid(os.P_PID, dead.process.pid, os.WEXITED | os.WNOWAIT)
    spawned = nursery.take()
    assert spawned is alive
    assert dead.channel.fileno() == -1
    spawned.kill()


def test_no_more_are_started_than_there_are_processors(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    nursery.close()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    nursery.start()
    assert len(nursery._waiting) == 1


def test_what_cannot_be_started_leaves_nothing() -> None:
    with pytest.raises(FileNotFoundError):
        spawn(("/nowhere/at/all",))


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_of_fork_leaves_nothing(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "Popen", failing)
    with pytest.raises(error):
        spawn(FAKE)


def test_out_of_descriptors_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # F1
    def failing(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", failing)
    with pytest.raises(OSError, match="Too many"):
        spawn(FAKE)


def test_a_nursery_that_cannot_start_any_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "WORKER_COMMAND", ("/nowhere/at/all",))
    nursery = Nursery()
    nursery.start()
    assert nursery.take() is None
