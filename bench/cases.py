"""What is measured: each case is one sample of one freshly started relay.

A case warms the relay up, reads its CPU, runs a load for some seconds and reads its CPU again. All work between the two
readings is in the sum, and all of it is divided by: there is nothing to line up in time.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bench.process import RunningRelay
from bench.relays import Relay

Figures = dict[str, float]

CONNECTIONS = 50
"""Open connections of the request case, and connections at a time of the connect case."""
IDLE_CONNECTIONS = 2000
"""Idle connections of the memory case, and sessions of that for datagrams."""
TRIP_CLIENTS = (1, 50, 500)
TRIP_BYTES = (64, 1200)
BURST_FLOWS = 4
WARM_UP_S = 0.3
_HASHED_BLOCKS = 256
"""The bulk warm-up: 64 MiB whose SHA-256 is compared."""


class LoadError(Exception):
    """The load did not come through: a refused or reset connection, or wrong bytes."""


class Load:
    """The load generator's process, one command at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def run(self, load: str, **options: float) -> Figures:
        """Run one load of `bench.load` and return its figures. LoadError when it failed."""
        if self._process.stdin is None or self._process.stdout is None:
            raise LoadError("the load generator has no pipes")
        self._process.stdin.write(json.dumps({"load": load, **options}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, float | str] = json.loads(line) if line else {"error": "the load generator ended"}
        if "error" in answer:
            raise LoadError(str(answer["error"]))
        return {key: float(value) for key, value in answer.items()}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a sample is taken of: a running relay, or no relay at all (then `port` is the target's own)."""

    load: Load
    target_pid: int
    port: int
    seconds: float
    relay: Relay | None = None
    running: RunningRelay | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a case: its key in the sample, its heading, and how many digits to print."""

    key: str
    heading: str
    digits: int


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure. `target` is a kind of `bench.target`; `worth` is the column that a plot shows."""

    name: str
    title: str
    target: str
    columns: tuple[Column, ...]
    measure: Callable[[Subject], Figures]
    worth: str

    @property
    def datagrams(self) -> bool:
        """Whether relays are to relay datagrams for it."""
        return self.target.startswith("udp-")


def _loaded(subject: Subject, load: Callable[[], Figures]) -> tuple[Figures, float, float]:
    """Run `load`; its figures with the relay's `busy` share of one core, and user and system CPU seconds it used."""
    if subject.running is None or subject.relay is None:
        return load(), 0.0, 0.0
    subject.running.settle(subject.relay.processes)
    before = subject.running.cpu()
    figures = load()
    # A relay that forks has its connections' CPU in processes that end with them.
    subject.running.settle(subject.relay.processes)
    used = subject.running.cpu() - before
    user, system = used.split()
    return figures | {"busy": used.total / figures["seconds"]}, user, system


def _lost_percent(figures: Figures) -> Figures:
    """The share of what was sent that did not come through, for loads that can lose."""
    if "lost" not in figures:
        return {}
    return {"lost_percent": figures["lost"] / (figures["count"] + figures["lost"]) * 100}


def _each(subject: Subject, load: str, **options: float) -> Figures:
    """A load counted in requests, connections or round trips: CPU microseconds of each, and how many a second."""

    def run(seconds: float) -> Figures:
        return subject.load.run(load, port=subject.port, seconds=seconds, **options)

    warm_up = run(WARM_UP_S)
    figures, user, system = _loaded(subject, lambda: run(subject.seconds))
    count = figures["count"]
    sample = {"per_s": count / figures["seconds"], "count": count, "with_warm_up": count + warm_up["count"]}
    sample |= _lost_percent(figures)
    if subject.running is None:
        return sample
    user_us, system_us = user / count * 1e6, system / count * 1e6
    return sample | {"user_us": user_us, "system_us": system_us, "cpu_us": user_us + system_us, "busy": figures["busy"]}


def _request(subject: Subject) -> Figures:
    return _each(subject, "request", connections=CONNECTIONS)


def _connect(subject: Subject) -> Figures:
    return _each(subject, "connect", connections=CONNECTIONS)


def _bulk(streams: int) -> Callable[[Subject], Figures]:
    def measure(subject: Subject) -> Figures:
        def run(seconds: float, blocks: int) -> Figures:
            options = {"streams": streams, "seconds": seconds, "blocks": blocks, "hashed": blocks > 0}
            return subject.load.run("bulk", port=subject.port, **options)

        run(0.0, _HASHED_BLOCKS)
        figures, user, system = _loaded(subject, lambda: run(subject.seconds, 0))
        return _moved(subject, figures, user, system)

    return measure


def _moved(subject: Subject, figures: Figures, user: float, system: float) -> Figures:
    """A load counted in bytes: gigabits a second, and the CPU seconds of each gigabyte."""
    gigabytes = figures["bytes"] / 1e9
    sample = {"gbit_s": gigabytes * 8 / figures["seconds"], "bytes": figures["bytes"]} | _lost_percent(figures)
    if subject.running is None:
        return sample
    user_s, system_s = user / gigabytes, system / gigabytes
    cpu = {"user_s_per_gb": user_s, "system_s_per_gb": system_s, "cpu_s_per_gb": user_s + system_s}
    return sample | cpu | {"busy": figures["busy"]}


def _trips(clients: int, size: int) -> Callable[[Subject], Figures]:
    def measure(subject: Subject) -> Figures:
        return _each(subject, "udp-trips", clients=clients, size=size)

    return measure


def _bursts(*, segmented: bool) -> Callable[[Subject], Figures]:
    def measure(subject: Subject) -> Figures:
        def run(seconds: float, *, checked: bool) -> Figures:
            options = {"flows": BURST_FLOWS, "seconds": seconds, "segmented": segmented, "checked": checked}
            return subject.load.run("udp-bursts", port=subject.port, **options)

        run(WARM_UP_S, checked=True)
        return _moved(subject, *_loaded(subject, lambda: run(subject.seconds, checked=False)))

    return measure


@contextmanager
def _on_one_core(pids: list[int]) -> Iterator[None]:
    """Keep `pids` on one core meanwhile."""
    cores = os.sched_getaffinity(0)
    try:
        for pid in pids:
            os.sched_setaffinity(pid, {max(cores)})
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # a relay that forks or has ended: nothing to give back
                os.sched_setaffinity(pid, cores)


def _latency(subject: Subject) -> Figures:
    # One core for all: where the scheduler puts three processes that take turns would else be half of the figure.
    relay = subject.running.pids() if subject.running is not None else []
    with _on_one_core([subject.load.pid, subject.target_pid, *relay]):
        subject.load.run("latency", port=subject.port, seconds=WARM_UP_S)
        return subject.load.run("latency", port=subject.port, seconds=subject.seconds)


def _held(subject: Subject, hold: str, drop: str, counted: str) -> Figures:
    """The relay's memory with none and with many connections or sessions that have exchanged one request."""
    if subject.running is None or subject.relay is None:
        return {}
    connections = min(IDLE_CONNECTIONS, subject.relay.most_idle)
    subject.load.run(hold, port=subject.port, **{counted: 1})
    subject.load.run(drop)
    subject.running.settle(subject.relay.processes)
    before = subject.running.memory()
    subject.load.run(hold, port=subject.port, **{counted: connections})
    after = subject.running.memory()
    subject.load.run(drop)
    return {
        "idle_mb": before.total_kib * 1024 / 1e6,
        "worker_idle_mb": before.largest_child_kib * 1024 / 1e6,
        "kib_each": (after.dirty_kib - before.dirty_kib) / connections,
        counted: connections,
    }


def _memory(subject: Subject) -> Figures:
    return _held(subject, "hold", "drop", "connections")


def _sessions(subject: Subject) -> Figures:
    return _held(subject, "udp-hold", "udp-drop", "sessions")


def _start(subject: Subject) -> Figures:
    if subject.running is None:
        return {}
    subject.load.run("hold", port=subject.port, connections=1)
    subject.load.run("drop")
    return {"ready_ms": subject.running.ready_s * 1e3}


_EACH = (
    Column("cpu_us", "CPU µs", 1),
    Column("user_us", "user µs", 1),
    Column("system_us", "system µs", 1),
    Column("per_s", "per second", 0),
    Column("busy", "of one core", 2),
)
_BULK = (
    Column("gbit_s", "Gbit/s", 1),
    Column("cpu_s_per_gb", "CPU s/GB", 3),
    Column("user_s_per_gb", "user s/GB", 3),
    Column("system_s_per_gb", "system s/GB", 3),
    Column("busy", "of one core", 2),
)

_LOST = Column("lost_percent", "lost %", 3)
_LINES = Column("lines_each", "log lines each", 2)

CASES: tuple[Case, ...] = (
    Case("request", f"Request and answer on {CONNECTIONS} open connections", "exchange", _EACH, _request, "cpu_us"),
    Case(
        "connect",
        f"A new connection for each request, {CONNECTIONS} at a time",
        "once",
        (*_EACH, _LINES),
        _connect,
        "cpu_us",
    ),
    Case("bulk1", "Bulk, one stream", "bulk", _BULK, _bulk(1), "gbit_s"),
    Case("bulk4", "Bulk, four streams", "bulk", _BULK, _bulk(4), "gbit_s"),
    Case(
        "latency",
        "Round trip of one connection, all on one core",
        "exchange",
        (Column("p50_us", "p50 µs", 1), Column("p99_us", "p99 µs", 1)),
        _latency,
        "p50_us",
    ),
    Case(
        "memory",
        "Private memory",
        "exchange",
        (
            Column("kib_each", "KiB per idle connection", 2),
            Column("idle_mb", "idle MB", 1),
            Column("worker_idle_mb", "largest child, idle MB", 1),
            Column("connections", "connections", 0),
        ),
        _memory,
        "kib_each",
    ),
    Case("start", "Start to ready", "exchange", (Column("ready_ms", "ms", 0),), _start, "ready_ms"),
    *(
        Case(
            f"udp{clients}-{size}",
            f"UDP round trips of {size:,} bytes, {clients} client{'s' if clients > 1 else ''}",
            "udp-echo",
            (*_EACH, _LOST),
            _trips(clients, size),
            "cpu_us",
        )
        for size in TRIP_BYTES
        for clients in TRIP_CLIENTS
    ),
    Case(
        "udp-bulk",
        "UDP bulk, four flows, a send for each 1,200 bytes",
        "udp-sink",
        (*_BULK, _LOST),
        _bursts(segmented=False),
        "gbit_s",
    ),
    Case(
        "udp-bulk-gso",
        "UDP bulk, four flows, a send for 50 times 1,200 bytes (GSO)",
        "udp-sink",
        (*_BULK, _LOST),
        _bursts(segmented=True),
        "gbit_s",
    ),
    Case(
        "udp-memory",
        "Private memory of UDP sessions",
        "udp-echo",
        (
            Column("kib_each", "KiB per session", 2),
            Column("idle_mb", "idle MB", 1),
            Column("worker_idle_mb", "largest child, idle MB", 1),
            Column("sessions", "sessions", 0),
        ),
        _sessions,
        "kib_each",
    ),
)
