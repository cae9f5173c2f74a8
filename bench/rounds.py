"""Interleaved rounds: in each, every case runs on every relay, one after the other, in an order that turns.

A shared machine changes its speed from minute to minute. Relays that are compared are measured within seconds of each
other, and none is always first.
"""

import contextlib
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cases import Case, Figures, Load, LoadError, Subject
from bench.process import RelayError, RunningRelay, free_port, helper
from bench.relays import Relay, Setup

MODES = ("quiet", "logs")
"""Logs off everywhere; one log line for each connection in every relay that has it."""
NONE = "none"
"""The row without a relay."""
_STARTS = 3
_RELAYS_ALONE = ("memory", "start", "udp-memory")
"""Cases without the row without a relay."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one case gave for one relay in one round. `error` says why there are no figures."""

    round: int
    mode: str
    case: str
    relay: str
    figures: Figures
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run: every case, on every relay, in every mode, `rounds` times, `seconds` of load for each sample."""

    relays: Sequence[tuple[Relay, str]]
    cases: Sequence[Case]
    modes: Sequence[str]
    rounds: int
    seconds: float

    def samples(self) -> Iterator[tuple[int, str, Case, Relay | None, str]]:
        """Round, mode, case, relay (None for no relay) and its program, in the order to run them."""
        for number in range(self.rounds):
            for mode in self.modes:
                logging = [(relay, path) for relay, path in self.relays if mode == "quiet" or relay.log is not None]
                for position, case in enumerate(self.cases):
                    rows: list[tuple[Relay | None, str]] = [
                        (relay, path) for relay, path in logging if relay.runs(case.name, datagrams=case.datagrams)
                    ]
                    if case.name not in _RELAYS_ALONE:
                        rows.append((None, ""))
                    turn = (number + position) % len(rows) if rows else 0
                    for relay, path in rows[turn:] + rows[:turn]:
                        yield number, mode, case, relay, path


def _start(relay: Relay, path: str, target_port: int, directory: Path, *, logs: bool, datagrams: bool) -> RunningRelay:
    """Start a relay on a free port, again on another one when it ended: the port may have been taken meanwhile."""
    for attempt in range(_STARTS):
        home = directory / str(attempt)
        home.mkdir()
        port = free_port(socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)
        setup = Setup(port, target_port, logs, home, datagrams)
        command = relay.command(path, setup)
        try:
            running = RunningRelay(command, home, port, ready_by_notify=relay.ready_by_notify, datagrams=datagrams)
        except RelayError as error:
            if attempt == _STARTS - 1:
                raise
            print(f"{relay.name} {error}: again on another port", file=sys.stderr)
            continue
        if relay.settle is not None:
            relay.settle(home)
        return running
    raise AssertionError("unreachable: the last attempt returns or raises")


def _log_lines(log: Path) -> int:
    with log.open("rb") as lines:
        return sum(1 for _ in lines)


@dataclass(frozen=True, slots=True)
class _Target:
    """A running `bench.target`."""

    pid: int
    port: int


def _measure(load: Load, target: _Target, step: tuple[int, str, Case, Relay | None, str], seconds: float) -> Sample:
    number, mode, case, relay, path = step
    if relay is None:
        return Sample(number, mode, case.name, NONE, case.measure(Subject(load, target.pid, target.port, seconds)))
    with tempfile.TemporaryDirectory(prefix="relayd-bench-") as directory:
        logs = mode == "logs"
        with _start(relay, path, target.port, Path(directory), logs=logs, datagrams=case.datagrams) as running:
            figures = case.measure(Subject(load, target.pid, running.port, seconds, relay, running))
        if logs and "with_warm_up" in figures and case.name == "connect":  # did it write what we compare?
            lines = sum(_log_lines(log) for log in Path(directory).glob(f"*/{relay.log}"))
            figures = figures | {"lines_each": lines / figures["with_warm_up"]}
        return Sample(number, mode, case.name, relay.name, figures)


def run(plan: Plan) -> Iterator[Sample]:
    """Run the plan, a sample at a time. A relay that fails gives a sample that says why, and the run goes on."""
    with contextlib.ExitStack() as helpers:
        targets: dict[str, _Target] = {}
        for kind in dict.fromkeys(case.target for case in plan.cases):
            target = helpers.enter_context(helper(sys.executable, "-m", "bench.target", kind))
            if target.stdout is None:
                raise LoadError("the target has no pipe")
            targets[kind] = _Target(target.pid, int(target.stdout.readline()))
        load = Load(helpers.enter_context(helper(sys.executable, "-m", "bench.load")))
        for step in plan.samples():
            number, mode, case, relay, _ = step
            try:
                yield _measure(load, targets[case.target], step, plan.seconds)
            except (RelayError, LoadError, OSError) as error:
                name = relay.name if relay is not None else NONE
                yield Sample(number, mode, case.name, name, {}, error=f"{type(error).__name__}: {error}")
