"""What Prometheus is told of relayd: every metric by name, and its values from what is known (O2). Pure.

    Facts ──families()──▶ (Metric, samples) ... ──control.exposition──▶ text

No value is kept for a metric: what is counted is counted in `counters` and summed in `totals`, and looked at when
somebody asks. No label is made of a client or a connection. docs/metrics.md has a line for each of METRICS.
"""

import enum
from collections.abc import Iterable, Iterator

from relayd.counters import (
    CONNECT_BOUNDS_S,
    LAG_BOUNDS_S,
    ControlTotals,
    DatagramTotals,
    Histogram,
    ListenerTotals,
    WorkerTotals,
)
from relayd.values import dataclass

__all__ = [
    "METRICS",
    "PROCESS",
    "Facts",
    "Kind",
    "Metric",
    "NameFacts",
    "Sample",
    "TargetFacts",
    "WorkerFacts",
    "families",
]


class Kind(enum.Enum):
    """What Prometheus calls the type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One name. `bounds_s` are those of the buckets of a histogram."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    bounds_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """A value for these values of the labels, in the order of `Metric.labels`."""

    labels: tuple[str, ...]
    value: float | Histogram


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A target as commands call it. `up` by its health checks, None where there are none. In `state` since `since`,
    seconds since the epoch; None where nobody knows. `cause` is the kind of failure that took it down, "" while its
    checks find it up.
    """

    pool: str
    target: str
    state: str
    up: bool | None
    failures: int
    since: float | None
    cause: str


@dataclass(frozen=True, slots=True)
class NameFacts:
    """A name as a target is written. `age_s` of the answer in force, None before there is one."""

    name: str
    age_s: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker that there is to be. `resident_bytes` None: it has no process just now."""

    number: int
    accepts: bool
    resident_bytes: int | None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known at one moment. `loaded_at` is in seconds since the epoch, `lines_lost` of the control process
    in this life.
    """

    version: str
    python: str
    streams: tuple[ListenerTotals, ...]
    datagrams: tuple[DatagramTotals, ...]
    workers: tuple[WorkerFacts, ...]
    counted: tuple[tuple[int, WorkerTotals], ...]
    control: ControlTotals
    lines_lost: int
    reload_ok: bool
    loaded_at: float
    targets: tuple[TargetFacts, ...]
    names: tuple[NameFacts, ...]


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_LT = ("listener", "type")

BUILD = Metric("relayd_build_info", _G, ("version", "python"), "1; which relayd this is, on which Python.")
CONNECTIONS = Metric("relayd_connections_total", _C, _LT, "Connections accepted, or sessions begun.")
ACTIVE = Metric("relayd_connections_active", _G, _LT, "Connections, or sessions, that are open now.")
CLOSED = Metric(
    "relayd_connections_closed_total",
    _C,
    (*_LT, "outcome"),
    "Connections, or sessions, that have ended, by outcome; an outcome is there once it has happened.",
)
BYTES = Metric(
    "relayd_bytes_total",
    _C,
    (*_LT, "direction"),
    "Bytes relayed, in from clients and out from targets, while connections live as well.",
)
CONNECT = Metric(
    "relayd_connect_duration_seconds",
    _H,
    ("listener",),
    "From the accept of a connection until a target had answered, failed attempts included; of those that reached one.",
    CONNECT_BOUNDS_S,
)
DIAL_FAILURES = Metric("relayd_dial_failures_total", _C, ("listener",), "Dials that did not reach their target.")
ACCEPT_PAUSES = Metric(
    "relayd_accept_pauses_total",
    _C,
    ("listener",),
    "Times that accepting was paused: at the limit, or without descriptors or memory.",
)
DATAGRAMS = Metric(
    "relayd_datagrams_total",
    _C,
    ("listener", "direction"),
    "Datagrams that came, in from clients and out from targets, passed on or not.",
)
DROPPED = Metric(
    "relayd_datagrams_dropped_total",
    _C,
    ("listener", "reason"),
    "Datagrams that were not passed on, by reason; a reason is there once it has happened.",
)
TARGET_ERRORS = Metric(
    "relayd_datagram_target_errors_total",
    _C,
    ("listener",),
    "Targets that a session found unreachable, whether or not it could move to another.",
)
TARGET_UP = Metric(
    "relayd_target_up",
    _G,
    ("pool", "target"),
    "1 when the health check of a target is good, 0 when not; only for targets that are checked.",
)
TARGET_STATE = Metric(
    "relayd_target_state",
    _G,
    ("pool", "target", "state"),
    "1 for the state that a target is in, as relayd target list has it: up, down, unchecked, drained or disabled.",
)
TARGET_SINCE = Metric(
    "relayd_target_state_change_timestamp_seconds",
    _G,
    ("pool", "target"),
    "When a target came into the state that it is in; not for one that is unchecked.",
)
TARGET_DOWN = Metric(
    "relayd_target_down_info",
    _G,
    ("pool", "target", "cause"),
    "1, with what took it down, for a target that its health check finds down.",
)
TARGET_FAILURES = Metric(
    "relayd_target_failures_total", _C, ("pool", "target"), "Times that a client has met a target failing."
)
RELOADS = Metric("relayd_config_reloads_total", _C, ("result",), "Reloads that were asked for: ok, or refused.")
RELOAD_OK = Metric(
    "relayd_config_last_reload_successful",
    _G,
    (),
    "1 when the last reload was done, or there was none; 0 when it was refused.",
)
RELOADED_AT = Metric(
    "relayd_config_last_reload_success_timestamp_seconds",
    _G,
    (),
    "When what is in force was loaded, by a reload or at the start.",
)
LAG = Metric(
    "relayd_event_loop_lag_seconds",
    _H,
    (),
    "How late the loop of a worker came to a timer that was due, over all workers; at least once a second in each.",
    LAG_BOUNDS_S,
)
WORKERS = Metric("relayd_workers", _G, (), "Worker processes that there are to be.")
ACCEPTING = Metric("relayd_workers_accepting", _G, (), "Worker processes that accept connections.")
RESTARTS = Metric("relayd_worker_restarts_total", _C, (), "Workers that were replaced because they had died or hung.")
WORKER_CPU = Metric(
    "relayd_worker_cpu_seconds_total",
    _C,
    ("worker",),
    "Processor time of a worker and of those that had its number before.",
)
WORKER_MEMORY = Metric("relayd_worker_resident_memory_bytes", _G, ("worker",), "Memory of a worker that is in RAM.")
NAME_AGE = Metric(
    "relayd_name_answer_age_seconds",
    _G,
    ("name",),
    "Age of the answer in force for a name; where it is resolved in several ways, of the oldest.",
)
NAME_OK = Metric(
    "relayd_name_last_lookup_successful", _G, ("name",), "1 when the last lookup of a name was good, 0 when not."
)
LINES_LOST = Metric(
    "relayd_log_lines_lost_total", _C, (), "Log lines that were lost, for the log took nothing or not fast enough."
)

METRICS = (
    BUILD,
    CONNECTIONS,
    ACTIVE,
    CLOSED,
    BYTES,
    CONNECT,
    DIAL_FAILURES,
    ACCEPT_PAUSES,
    DATAGRAMS,
    DROPPED,
    TARGET_ERRORS,
    TARGET_UP,
    TARGET_STATE,
    TARGET_SINCE,
    TARGET_DOWN,
    TARGET_FAILURES,
    RELOADS,
    RELOAD_OK,
    RELOADED_AT,
    LAG,
    WORKERS,
    ACCEPTING,
    RESTARTS,
    WORKER_CPU,
    WORKER_MEMORY,
    LINES_LOST,
    NAME_AGE,
    NAME_OK,
)

#: Of the control process, from prometheus_client; the meanings are its own.
PROCESS = (
    Metric("process_cpu_seconds_total", _C, (), "Total user and system CPU time spent in seconds."),
    Metric("process_max_fds", _G, (), "Maximum number of open file descriptors."),
    Metric("process_open_fds", _G, (), "Number of open file descriptors."),
    Metric("process_resident_memory_bytes", _G, (), "Resident memory size in bytes."),
    Metric("process_start_time_seconds", _G, (), "Start time of the process since unix epoch in seconds."),
    Metric("process_virtual_memory_bytes", _G, (), "Virtual memory size in bytes."),
)


def families(facts: Facts) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """Every one of METRICS with its samples, once, in that order; no two samples of one have the same labels."""
    yield BUILD, _one(1, facts.version, facts.python)
    yield from _connections(facts)
    yield from _streams(facts.streams)
    yield from _datagrams(facts.datagrams)
    yield from _targets(facts.targets)
    yield from _reloads(facts)
    yield from _workers(facts)
    lost = facts.control.lines_lost + facts.lines_lost + sum(counted.lines_lost for _, counted in facts.counted)
    yield LINES_LOST, _one(lost)
    yield from _names(facts.names)


def _one(value: float | Histogram, *labels: str) -> tuple[Sample, ...]:
    return (Sample(labels, value),)


def _connections(facts: Facts) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    """What streams and datagrams have in common."""
    sums: list[tuple[tuple[str, str], ListenerTotals | DatagramTotals]] = []
    sums += [((each.listener, "stream"), each) for each in facts.streams]
    sums += [((each.listener, "dgram"), each) for each in facts.datagrams]
    yield CONNECTIONS, (Sample(labels, each.accepted) for labels, each in sums)
    yield ACTIVE, (Sample(labels, each.active) for labels, each in sums)
    yield CLOSED, (Sample((*labels, end.value), count) for labels, each in sums for end, count in each.closed)
    yield (
        BYTES,
        (
            Sample((*labels, direction), count)
            for labels, each in sums
            for direction, count in (("in", each.bytes_in), ("out", each.bytes_out))
        ),
    )


def _streams(sums: tuple[ListenerTotals, ...]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    yield CONNECT, (Sample((each.listener,), each.connects) for each in sums)
    yield DIAL_FAILURES, (Sample((each.listener,), each.dial_failures) for each in sums)
    yield ACCEPT_PAUSES, (Sample((each.listener,), each.accept_pauses) for each in sums)


def _datagrams(sums: tuple[DatagramTotals, ...]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    yield (
        DATAGRAMS,
        (
            Sample((each.listener, direction), count)
            for each in sums
            for direction, count in (("in", each.datagrams_in), ("out", each.datagrams_out))
        ),
    )
    yield DROPPED, (Sample((each.listener, why.value), count) for each in sums for why, count in each.dropped)
    yield TARGET_ERRORS, (Sample((each.listener,), each.target_errors) for each in sums)


def _targets(targets: tuple[TargetFacts, ...]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    # Two addresses may be called the same, as one with and without a port of its own: the first one speaks for both.
    distinct = {(each.pool, each.target): each for each in reversed(targets)}
    ordered = [each for each in targets if distinct[each.pool, each.target] is each]
    yield TARGET_UP, (Sample((each.pool, each.target), each.up) for each in ordered if each.up is not None)
    yield TARGET_STATE, (Sample((each.pool, each.target, each.state), 1) for each in ordered)
    yield TARGET_SINCE, (Sample((each.pool, each.target), each.since) for each in ordered if each.since is not None)
    yield TARGET_DOWN, (Sample((each.pool, each.target, each.cause), 1) for each in ordered if each.cause)
    yield TARGET_FAILURES, (Sample((each.pool, each.target), each.failures) for each in ordered)


def _reloads(facts: Facts) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    yield RELOADS, (*_one(facts.control.reloads, "ok"), *_one(facts.control.reloads_refused, "refused"))
    yield RELOAD_OK, _one(facts.reload_ok)
    yield RELOADED_AT, _one(facts.loaded_at)


def _workers(facts: Facts) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    lag = Histogram()
    for _, counted in facts.counted:
        lag += counted.lag
    yield LAG, _one(lag)
    yield WORKERS, _one(len(facts.workers))
    yield ACCEPTING, _one(sum(each.accepts for each in facts.workers))
    yield RESTARTS, _one(facts.control.worker_restarts)
    yield WORKER_CPU, (Sample((str(number),), counted.cpu_s) for number, counted in facts.counted)
    yield (
        WORKER_MEMORY,
        (Sample((str(each.number),), each.resident_bytes) for each in facts.workers if each.resident_bytes is not None),
    )


def _names(names: tuple[NameFacts, ...]) -> Iterator[tuple[Metric, Iterable[Sample]]]:
    ages: dict[str, float] = {}
    good: dict[str, bool] = {}
    for each in names:
        if each.age_s is not None:
            ages[each.name] = max(each.age_s, ages.get(each.name, 0.0))
        good[each.name] = each.ok and good.get(each.name, True)
    yield NAME_AGE, (Sample((name,), age_s) for name, age_s in ages.items())
    yield NAME_OK, (Sample((name,), ok) for name, ok in good.items())
