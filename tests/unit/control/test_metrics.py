"""What metrics say of what is known; and what the document says of the metrics."""

import dataclasses
import re
from pathlib import Path

import pytest

from relayd.control.metrics import (
    METRICS,
    PROCESS,
    Facts,
    Kind,
    Metric,
    NameFacts,
    TargetFacts,
    WorkerFacts,
    families,
)
from relayd.counters import (
    CONNECT_BOUNDS_S,
    LAG_BOUNDS_S,
    ControlTotals,
    DatagramCounters,
    Durations,
    Histogram,
    ListenerCounters,
    WorkerTotals,
)
from relayd.outcomes import Drop, Outcome

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
NOTHING = Facts(
    version="1.2.3",
    python="3.11.7",
    streams=(),
    datagrams=(),
    workers=(),
    counted=(),
    control=ControlTotals(),
    lines_lost=0,
    reload_ok=True,
    loaded_at=1.5,
    targets=(),
    names=(),
)


def some_facts() -> Facts:
    """With something of everything."""
    web = ListenerCounters(accepted=7, active=2, bytes_in=10, bytes_out=20, dial_failures=3, accept_pauses=4)
    web.closed[Outcome.NORMAL] = 4
    web.closed[Outcome.TARGET_REFUSED] = 1
    web.connects.add(0.0005)
    web.connects.add(0.2)
    web.connects.add(60.0)
    dns = DatagramCounters(5, 1, 11, 12, 100, 200, 6)
    dns.closed[Outcome.SESSION_TIMEOUT] = 4
    dns.dropped[Drop.TOO_LARGE] = 2
    lag = Durations(LAG_BOUNDS_S)
    lag.add(0.0001)
    return dataclasses.replace(
        NOTHING,
        streams=(ListenerCounters().snapshot('a"b\\c'), web.snapshot("web")),
        datagrams=(dns.snapshot("web"),),
        workers=(
            WorkerFacts(1, accepts=True, resident_bytes=9_000_000),
            WorkerFacts(2, accepts=False, resident_bytes=None),
        ),
        counted=((1, WorkerTotals(lag.snapshot(), 2, 1.5)), (2, WorkerTotals(lag.snapshot(), 3, 0.5))),
        control=ControlTotals(1, 2, 3, 4),
        lines_lost=5,
        reload_ok=False,
        targets=(
            TargetFacts("web", "10.0.0.1:80", "down", up=False, failures=8, since=1e9, cause="status"),
            TargetFacts("web", "10.0.0.2:80", "drained", up=True, failures=0, since=2e9, cause=""),
            TargetFacts("log", "10.0.0.1:80", "unchecked", up=None, failures=0, since=None, cause=""),
        ),
        names=(NameFacts("a:80", 4.0, ok=True), NameFacts("a:80", 9.0, ok=False), NameFacts("b", None, ok=False)),
    )


def shown(facts: Facts) -> dict[str, dict[tuple[str, ...], float | Histogram]]:
    found = {}
    for metric, samples in families(facts):
        listed = list(samples)
        assert metric.name not in found
        found[metric.name] = {sample.labels: sample.value for sample in listed}
        assert len(found[metric.name]) == len(listed)
        assert all(len(sample.labels) == len(metric.labels) for sample in listed)
        assert all(isinstance(sample.value, Histogram) == (metric.kind is Kind.HISTOGRAM) for sample in listed)
    return found


@pytest.mark.parametrize("facts", [NOTHING, some_facts()])
def test_every_metric_is_told_once_and_in_order(facts: Facts) -> None:
    assert [metric for metric, _ in families(facts)] == list(METRICS)
    shown(facts)


def test_streams_and_datagrams_are_told_apart_by_type() -> None:
    found = shown(some_facts())
    stream, dgram = ("web", "stream"), ("web", "dgram")
    assert found["relayd_connections_total"] == {('a"b\\c', "stream"): 0, stream: 7, dgram: 5}
    assert found["relayd_connections_active"][dgram] == 1
    assert found["relayd_connections_closed_total"] == {
        (*stream, "normal"): 4,
        (*stream, "target_refused"): 1,
        (*dgram, "session_timeout"): 4,
    }
    assert found["relayd_bytes_total"]["web", "stream", "in"] == 10
    assert found["relayd_bytes_total"]["web", "dgram", "out"] == 200
    assert found["relayd_datagrams_total"] == {("web", "in"): 11, ("web", "out"): 12}
    assert found["relayd_datagrams_dropped_total"] == {("web", "too_large"): 2}
    assert found["relayd_datagram_target_errors_total"] == {("web",): 6}
    assert found["relayd_dial_failures_total"]["web",] == 3
    assert found["relayd_accept_pauses_total"]["web",] == 4


def test_targets_have_a_state_and_those_that_are_checked_are_up_or_not() -> None:
    found = shown(some_facts())
    assert found["relayd_target_up"] == {("web", "10.0.0.1:80"): 0, ("web", "10.0.0.2:80"): 1}
    assert set(found["relayd_target_state"]) == {
        ("web", "10.0.0.1:80", "down"),
        ("web", "10.0.0.2:80", "drained"),
        ("log", "10.0.0.1:80", "unchecked"),
    }
    assert found["relayd_target_failures_total"]["web", "10.0.0.1:80"] == 8
    assert found["relayd_target_state_change_timestamp_seconds"] == {
        ("web", "10.0.0.1:80"): 1e9,
        ("web", "10.0.0.2:80"): 2e9,
    }
    assert found["relayd_target_down_info"] == {("web", "10.0.0.1:80", "status"): 1}


def test_two_targets_that_are_called_the_same_are_one() -> None:
    first = TargetFacts("web", "a:80", "up", up=True, failures=1, since=1e9, cause="")
    facts = dataclasses.replace(NOTHING, targets=(first, dataclasses.replace(first, failures=2, state="down")))
    found = shown(facts)
    assert found["relayd_target_failures_total"] == {("web", "a:80"): 1}
    assert found["relayd_target_state"] == {("web", "a:80", "up"): 1}


def test_workers_and_reloads() -> None:
    found = shown(some_facts())
    assert found["relayd_workers"] == {(): 2}
    assert found["relayd_workers_accepting"] == {(): 1}
    assert found["relayd_worker_restarts_total"] == {(): 1}
    assert found["relayd_worker_cpu_seconds_total"] == {("1",): 1.5, ("2",): 0.5}
    assert found["relayd_worker_resident_memory_bytes"] == {("1",): 9_000_000}
    assert found["relayd_config_reloads_total"] == {("ok",): 2, ("refused",): 3}
    assert found["relayd_config_last_reload_successful"] == {(): False}
    assert found["relayd_config_last_reload_success_timestamp_seconds"] == {(): 1.5}
    assert found["relayd_log_lines_lost_total"] == {(): 4 + 5 + 2 + 3}


def test_a_name_that_is_resolved_in_two_ways_is_as_the_worse_of_them() -> None:
    found = shown(some_facts())
    assert found["relayd_name_answer_age_seconds"] == {("a:80",): 9.0}
    assert found["relayd_name_last_lookup_successful"] == {("a:80",): False, ("b",): False}


def test_lag_is_that_of_all_workers() -> None:
    lag = shown(some_facts())["relayd_event_loop_lag_seconds"][()]
    assert isinstance(lag, Histogram)
    assert lag.counts[0] == 2
    assert sum(lag.counts) == 2


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_are_as_prometheus_wants_them(metric: Metric) -> None:
    assert re.fullmatch(r"relayd_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not set(metric.labels) & {"client", "conn_id", "connection", "le", "quantile"}
    assert metric.meaning.endswith(".")
    assert bool(metric.bounds_s) == (metric.kind is Kind.HISTOGRAM)
    assert list(metric.bounds_s) == sorted(set(metric.bounds_s))


def test_the_document_has_a_line_for_each_and_for_nothing_else() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| `(relayd|process)_", line)]
    labels = {each: ", ".join(f"`{label}`" for label in each.labels) for each in (*METRICS, *PROCESS)}
    assert rows == [
        f"| `{each.name}` | {each.kind.value} | {labels[each]} | {each.meaning} |" for each in (*METRICS, *PROCESS)
    ]


@pytest.mark.parametrize("bounds", [CONNECT_BOUNDS_S, LAG_BOUNDS_S])
def test_the_document_has_the_buckets(bounds: tuple[float, ...]) -> None:
    assert ", ".join(f"{bound:g}" for bound in bounds) in PAGE.read_text()
