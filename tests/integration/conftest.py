"""The data plane in this process, with the garbage collector off: connections are freed by reference counting."""

import gc
from collections.abc import Iterator

import pytest

from relayd.relay.stream import pump as pump_module
from relayd.relay.stream.pump import Pump

#: How bytes move: never by splice, by splice from the first byte on, or as the pump decides.
MODES = ("copying", "splicing", "adaptive")


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=MODES)
def splice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The `splice` of a Relay, for each mode; the contract suite runs with all three."""
    if request.param == "splicing":
        begin = Pump.begin

        def begin_splicing(self: Pump, *arguments: object) -> None:
            begin(self, *arguments)  # type: ignore[arg-type]  # handed through
            self._splicing = True

        monkeypatch.setattr(Pump, "begin", begin_splicing)
        monkeypatch.setattr(pump_module, "_SMALL_BURST_BYTES", 0)
    return bool(request.param != "copying")
