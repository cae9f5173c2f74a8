"""When what the file says is known from the life before."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

import relayd
from relayd.control.handover import Found
from relayd.control.life import _known
from relayd.control.passed import PassedSockets
from relayd.spec import Log, Spec

SPEC = Spec(2, 30.0, Log("info", "auto", access=True), ())
TEXT = b'[listeners.web]\nbind = "127.0.0.1:80"\ntargets = "10.0.0.1:80"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "relay.toml"
    path.write_bytes(TEXT)
    return path


def found() -> Found:
    """A manifest of this very relayd, on this machine, about TEXT."""
    return Found(
        spec=SPEC,
        sha256=hashlib.sha256(TEXT).hexdigest(),
        version=relayd.__version__,
        cores=len(os.sched_getaffinity(0)),
        alone=True,
    )


def test_what_has_not_changed_is_known(file: Path) -> None:
    known = _known(file, PassedSockets(), found())
    assert known is not None
    assert (known.spec, known.sha256, known.file) == (SPEC, found().sha256, file)
    assert known.unread  # and is read when the start is over


@pytest.mark.parametrize(
    "other",
    [
        replace(found(), spec=None),
        replace(found(), sha256=hashlib.sha256(TEXT + b"\n").hexdigest()),
        replace(found(), version="0.0.0"),
        replace(found(), cores=found().cores + 1),
        replace(found(), alone=False),
    ],
    ids=["nothing", "file", "version", "cores", "includes"],
)
def test_what_may_have_changed_is_read(other: Found, file: Path) -> None:
    assert _known(file, PassedSockets(), other) is None


def test_a_file_that_is_gone_is_for_whoever_reads_it(file: Path) -> None:
    file.unlink()
    assert _known(file, PassedSockets(), found()) is None


def test_what_systemd_passes_may_be_something_else(file: Path) -> None:
    passed = PassedSockets()
    passed.inventory = {"web": ()}
    assert _known(file, passed, found()) is None
