"""The benchmark's pure half: the order of samples, the configurations, the tables and the verdicts."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import tomli

from bench.budget import BUDGETS, Budget, Verdict, judge
from bench.cases import CASES
from bench.plot import plot
from bench.relays import OBSERVED, RELAYS, Relay, Setup
from bench.report import table, tables
from bench.rounds import Plan, Sample

_BY_NAME = {case.name: case for case in CASES}


def _sample(number: int, relay: str, case: str = "request", mode: str = "quiet", **figures: float) -> Sample:
    return Sample(number, mode, case, relay, figures)


def _order(plan: Plan) -> list[tuple[int, str, str, str]]:
    return [
        (number, mode, case.name, relay.name if relay else "none") for number, mode, case, relay, _ in plan.samples()
    ]


def test_every_round_runs_every_relay_once_and_turns_the_order() -> None:
    relays = [(relay, relay.name) for relay in RELAYS if not relay.only]
    order = _order(Plan(relays, [_BY_NAME["request"]], ["quiet"], 3, 1.0))
    rows = len(relays) + 1
    assert len(order) == 3 * rows
    for number in range(3):
        ran = [name for at, _, _, name in order if at == number]
        assert sorted(ran) == sorted([relay.name for relay, _ in relays] + ["none"])
    assert len({order[number * rows][3] for number in range(3)}) == 3


def test_only_relays_that_log_run_with_logs() -> None:
    plan = Plan([(relay, relay.name) for relay in RELAYS], [_BY_NAME["connect"]], ["logs"], 1, 1.0)
    assert {name for _, _, _, name in _order(plan)} == {"relayd", "haproxy", "nginx", "rinetd", "none"}


def test_a_relay_may_be_there_for_some_cases_only() -> None:
    plan = Plan([(relay, relay.name) for relay in RELAYS], CASES, ["quiet"], 1, 1.0)
    assert {case for _, _, case, name in _order(plan) if name == "haproxy-splice"} == {"bulk1", "bulk4"}
    assert Counter(case for _, _, case, name in _order(plan) if name == "none").keys() == {
        "request",
        "connect",
        "bulk1",
        "bulk4",
        "latency",
        *(case.name for case in CASES if case.datagrams and case.name != "udp-memory"),
    }


def test_only_relays_of_datagrams_run_their_cases_and_those_with_few_processes_the_large_ones() -> None:
    plan = Plan([(relay, relay.name) for relay in RELAYS], CASES, ["quiet"], 1, 1.0)
    ran = {(case, name) for _, _, case, name in _order(plan)}
    for case in CASES:
        if case.datagrams:
            large = case.name.startswith("udp500-")
            relays = {"relayd", "nginx"} if large else {"relayd", "nginx", "socat"}
            assert {name for at, name in ran if at == case.name} - {"none"} == relays


@pytest.mark.parametrize("relay", [relay for relay in RELAYS if relay.datagrams], ids=lambda relay: relay.name)
def test_a_configuration_for_datagrams_says_so(relay: Relay, tmp_path: Path) -> None:
    argv = relay.command("/bin/program", Setup(1111, 2222, False, tmp_path, datagrams=True))
    text = "\n".join([*argv, *(path.read_text() for path in tmp_path.iterdir())])
    assert "1111" in text
    assert "2222" in text
    assert any(word in text for word in ('type = "dgram"', "listen 127.0.0.1:1111 udp", "UDP4-LISTEN:1111"))
    assert "TCP4" not in text


@pytest.mark.parametrize("relay", RELAYS, ids=lambda relay: relay.name)
@pytest.mark.parametrize("logs", [False, True])
def test_a_configuration_names_both_ports_and_logs_only_when_asked(relay: Relay, logs: bool, tmp_path: Path) -> None:
    argv = relay.command("/bin/program", Setup(1111, 2222, logs, tmp_path))
    text = "\n".join([*argv, *(path.read_text() for path in tmp_path.iterdir())])
    assert "1111" in text
    assert "2222" in text
    says_log = any(word in text for word in ("tcplog", "access.log bench", "logfile", "access = true"))
    assert says_log == (logs and relay.log is not None)


def test_relayd_gets_one_worker_and_valid_toml(tmp_path: Path) -> None:
    RELAYS[0].command("relayd", Setup(1111, 2222, True, tmp_path))
    document = tomli.loads((tmp_path / "relay.toml").read_text())
    assert document["daemon"] == {"workers": 1}
    assert document["log"] == {"level": "info", "format": "json", "access": True}
    assert document["listeners"]["bench"] == {"bind": "127.0.0.1:1111", "targets": ["127.0.0.1:2222"]}


def test_a_table_shows_median_and_range_with_relayd_first_and_no_relay_last() -> None:
    samples = [
        _sample(0, "none", per_s=9.0),
        _sample(0, "haproxy", cpu_us=5.0),
        *(_sample(number, "relayd", cpu_us=value) for number, value in enumerate((3.0, 1.0, 8.0))),
    ]
    lines = table(samples, "quiet", _BY_NAME["request"]).splitlines()
    assert lines[2] == "| relay | CPU µs | per second |"  # columns without any figure are left out
    assert lines[4:] == ["| relayd | 3.0 (1.0–8.0) |  |", "| haproxy | 5.0 |  |", "| none |  | 9 |"]


def test_what_failed_is_said_once() -> None:
    failed = [Sample(number, "quiet", "request", "socat", {}, error="RelayError: gone") for number in range(2)]
    text = tables(failed, ["quiet"], [_BY_NAME["request"]])
    assert text.count("- socat, request, quiet: RelayError: gone") == 1


def test_a_ratio_is_taken_within_each_round() -> None:
    samples = [
        *(_sample(number, "haproxy", cpu_us=value) for number, value in enumerate((10.0, 20.0, 30.0))),
        *(_sample(number, "relayd", cpu_us=value) for number, value in enumerate((9.0, 22.0, 24.0))),
    ]
    (verdict,) = judge(samples, ["quiet"], ["request"], ["relayd", "haproxy"])
    assert verdict.found == pytest.approx(0.9)
    assert verdict.held
    assert str(verdict) == "PASS  quiet  request cpu_us <= 1 x haproxy: 0.9 x"


def test_a_budget_without_figures_is_not_held() -> None:
    verdicts = judge([_sample(0, "relayd", cpu_us=1.0)], ["quiet", "logs"], ["request"], ["relayd", "haproxy"])
    assert [(verdict.mode, verdict.held) for verdict in verdicts] == [("quiet", False), ("logs", False)]
    assert str(verdicts[0]).startswith("FAIL")


def test_a_peer_that_was_not_asked_for_is_not_judged() -> None:
    assert judge([], ["quiet"], ["request"], ["relayd"]) == []


@pytest.mark.parametrize(("found", "held"), [(1.19, False), (1.2, True), (1.3, True)])
def test_bulk_must_reach_its_bound(found: float, held: bool) -> None:
    assert Verdict(Budget("bulk1", "gbit_s", 1.2, "haproxy", at_least=True), "quiet", found).held == held


@pytest.mark.parametrize(("found", "held"), [(1.0, True), (1.01, False)])
def test_cost_must_stay_within_its_bound(found: float, held: bool) -> None:
    assert Verdict(Budget("request", "cpu_us", 1.0, "haproxy"), "quiet", found).held == held


def _lost(case: str, relay: str, *percents: float) -> list[Sample]:
    return [_sample(number, relay, case, lost_percent=percent) for number, percent in enumerate(percents)]


@pytest.mark.parametrize(
    ("ours", "theirs", "found", "held"),
    [
        ((0.0, 0.0), (0.0, 0.0), 0.0, True),
        ((0.0, 0.2, 0.0), (0.0, 0.0, 0.0), 0.2, False),  # the worst round counts, not the median
        ((0.0, 0.2), (0.0, 0.1), 0.0, True),  # where nginx loses, so may relayd
        ((), (0.0, 0.0), None, False),
    ],
)
def test_nothing_is_lost_where_nginx_loses_nothing(
    ours: tuple[float, ...], theirs: tuple[float, ...], found: float | None, held: bool
) -> None:
    samples = [*_lost("udp-bulk", "relayd", *ours), *_lost("udp-bulk", "nginx", *theirs)]
    (verdict,) = judge(samples, ["quiet"], ["udp-bulk"], ["relayd", "nginx"])
    assert (verdict.found, verdict.held) == (found, held)
    assert "udp-bulk lost_percent <= 0 where nginx is: " in str(verdict)


def test_loss_is_not_judged_where_nginx_always_loses_and_fails_without_its_figures() -> None:
    ours = _lost("udp-bulk", "relayd", 0.2)
    assert judge([*ours, *_lost("udp-bulk", "nginx", 0.1)], ["quiet"], ["udp-bulk"], ["relayd", "nginx"]) == []
    (verdict,) = judge(ours, ["quiet"], ["udp-bulk"], ["relayd", "nginx"])
    assert not verdict.held


def test_a_ratio_may_be_to_another_case_of_the_same_round() -> None:
    samples = [
        *(_sample(number, "relayd", "udp-bulk", gbit_s=value) for number, value in enumerate((1.0, 2.0, 3.0))),
        *(_sample(number, "relayd", "udp-bulk-gso", gbit_s=value) for number, value in enumerate((4.0, 6.0, 6.0))),
    ]
    (verdict,) = judge(samples, ["quiet"], ["udp-bulk", "udp-bulk-gso"], ["relayd"])
    assert str(verdict) == "PASS  quiet  udp-bulk-gso gbit_s >= 3 x relayd udp-bulk: 3 x"
    assert judge(samples, ["quiet"], ["udp-bulk-gso"], ["relayd"]) == []


def test_every_budget_is_of_a_figure_and_a_relay_that_exist() -> None:
    relays = {relay.name: relay for relay in (*RELAYS, *OBSERVED)}
    for budget in BUDGETS:
        assert relays[budget.subject].runs(budget.case, datagrams=_BY_NAME[budget.case].datagrams)
        for name in (budget.case, budget.peer_case or budget.case):
            assert budget.key in {column.key for column in _BY_NAME[name].columns}
        if budget.peer is not None:
            assert relays[budget.peer].runs(budget.case, datagrams=_BY_NAME[budget.case].datagrams)


def test_what_is_seen_is_held_against_what_is_not_and_only_where_both_were_asked_for() -> None:
    figures = {"relayd-seen": (10.2, 102.0), "relayd-unseen": (10.0, 100.0)}
    samples = [
        _sample(0, relay, case, "logs", cpu_us=cpu_us)
        for relay, values in figures.items()
        for case, cpu_us in zip(("request", "connect"), values, strict=True)
    ]
    verdicts = judge(samples, ["logs"], ["request", "connect"], list(figures))
    assert [str(verdict) for verdict in verdicts] == [
        "PASS  logs   relayd-seen request cpu_us <= 1.03 x relayd-unseen: 1.02 x",
        "PASS  logs   relayd-seen connect cpu_us <= 1.08 x relayd-unseen: 1.02 x",
    ]
    assert judge(samples, ["logs"], ["request", "connect"], ["relayd-seen"]) == []


@pytest.mark.parametrize(("relay", "told"), [(OBSERVED[0], True), (OBSERVED[1], False)], ids=["seen", "unseen"])
def test_relayd_with_and_without_what_is_seen_of_it(relay: Relay, told: bool, tmp_path: Path) -> None:
    relay.command("relayd", Setup(1111, 2222, True, tmp_path))
    written = tomli.loads((tmp_path / "relay.toml").read_text())
    assert written["log"] == ({} if told else {"access": False})
    assert bool(written["admin"]["listen"]) is told


def test_without_matplotlib_there_is_no_plot_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = tmp_path / "plot.png"
    assert not plot([_sample(0, "relayd", cpu_us=1.0)], ["quiet"], [_BY_NAME["request"]], path, "")
    assert not path.exists()
