"""The data plane in this process, with the garbage collector off: connections are freed by reference counting."""

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from relayd.relay.stream import pump as pump_module
from relayd.relay.stream.connection import LEGAL as PHASES
from relayd.relay.stream.connection import Connection
from relayd.relay.stream.pump import LEGAL as FLOWS
from relayd.relay.stream.pump import Pump
from tests.integration.relaying import Relay
from tests.integration.restarting import restart_streams

#: How bytes move: never by splice, by splice from the first byte on, as the pump decides; and as it decides while every
#: connection goes into a parcel and comes out of it every few milliseconds, as in a restart.
MODES = ("copying", "splicing", "adaptive", "restarting")


@pytest.fixture(autouse=True)
def _without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _legal_moves_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every phase of every connection, and every flow of every pump, follows from the one before it."""
    wrong: list[str] = []
    for owner, name, legal in ((Connection, "phase", PHASES), (Pump, "flow", FLOWS)):
        monkeypatch.setattr(owner, name, _checked(owner.__dict__[name], legal, wrong))
    yield
    assert wrong == []


def _checked(slot: Any, legal: Mapping[Any, frozenset[Any]], wrong: list[str]) -> property:
    def before(self: object) -> Any:
        try:
            return slot.__get__(self)
        except AttributeError:
            return None  # there was none yet

    def move(self: object, new: object) -> None:
        old = before(self)
        if old is not None and new is not old and new not in legal[old]:
            wrong.append(f"{old} to {new}")
        slot.__set__(self, new)

    return property(slot.__get__, move)


@pytest.fixture(params=MODES)
def splice(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """The `splice` of a Relay, for each mode; the contract suite runs with all three."""
    if request.param == "splicing":
        init = Pump.__init__

        def init_splicing(self: Pump, *arguments: object) -> None:
            init(self, *arguments)  # type: ignore[arg-type]  # handed through
            self._splicing = True

        monkeypatch.setattr(Pump, "__init__", init_splicing)
        monkeypatch.setattr(pump_module, "_SMALL_BURST_BYTES", 0)
    if request.param == "restarting":
        monkeypatch.setattr(Relay, "_flush", restart_streams)
    return bool(request.param != "copying")
