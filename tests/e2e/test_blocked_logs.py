"""Nobody takes the lines of the log: relaying goes on as ever, lines are counted, and go again (F5)."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from tests.e2e.blocked import LONG_S, SINKS, Sink, relaying_does_not_wait

EchoStart = Callable[[str], SocketAddress]


def missing(sink: type[Sink]) -> str:
    """What this machine lacks for it."""
    if sink.needs_root and os.geteuid() != 0:
        return "root"
    return next((program for program in ("mount", "unshare") if shutil.which(program) is None), "")


@pytest.mark.alone
@pytest.mark.parametrize("sink", SINKS, ids=lambda sink: sink.__name__)
def test_relaying_does_not_wait_for_the_log(sink: type[Sink], tmp_path: Path, echo: EchoStart) -> None:
    if lacks := missing(sink):
        pytest.skip(f"missing {lacks}")
    with sink(tmp_path) as one:
        relaying_does_not_wait(one, echo("unix"), tmp_path, for_s=0.0)


@pytest.mark.soak
@pytest.mark.alone
@pytest.mark.parametrize("sink", SINKS, ids=lambda sink: sink.__name__)
def test_nor_does_it_for_ten_seconds(
    sink: type[Sink], tmp_path: Path, echo: EchoStart, capsys: pytest.CaptureFixture[str]
) -> None:
    if lacks := missing(sink):
        pytest.skip(f"missing {lacks}")
    with sink(tmp_path) as one:
        figures = relaying_does_not_wait(one, echo("unix"), tmp_path, for_s=LONG_S)
    with capsys.disabled():
        print(f"\n{sink.__name__}: {figures}")  # noqa: T201  # the figures
