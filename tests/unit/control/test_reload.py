"""What a reloader says of itself. What it does is in tests/e2e/test_reload.py."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from relayd import clock
from relayd.config import load
from relayd.control.recent import Recent
from relayd.control.reload import Reloader, in_force

LISTENER = '[listeners.{}]\nbind = "unix:@{}"\ntype = ["stream", "dgram"]\ntargets = ["127.0.0.1:1"]\n'


@pytest.fixture
def reloader(tmp_path: Path) -> Reloader:
    file = tmp_path / "relay.toml"
    file.write_text("".join(LISTENER.format(name, name) for name in ("web", "dns", "old")))
    nothing: Any = None
    totals = SimpleNamespace(recent=Recent(clock.monotonic() - 10), listeners=list, datagrams=list)
    supervisor: Any = SimpleNamespace(totals=totals, workers=list)
    resolver: Any = SimpleNamespace(status=list)
    running = in_force(load(file), file)
    return Reloader(running, 1024, nothing, nothing, supervisor, resolver, lambda _: None)


@pytest.mark.parametrize("history", [0, 1, 3, 6, 500])
def test_so_many_listeners_have_a_history(reloader: Reloader, history: int) -> None:
    """The first ones, in the order of the file; each has a rate."""
    found = reloader.status(history=history)["listeners"]
    assert [one["name"] for one in found] == ["web", "web", "dns", "dns", "old", "old"]
    assert [len(one.get("history", ())) >= 5 for one in found] == [at < history for at in range(6)]
    assert all(one["rate"] == {"accepted": 0, "bytes_in": 0, "bytes_out": 0} for one in found)
    assert all("history" not in one for one in found[history:])
