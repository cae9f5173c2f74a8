"""The dashboard and the rules in docs/: they ask for nothing but what relayd exposes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from relayd.control.metrics import METRICS, PROCESS, Kind, Metric
from relayd.outcomes import Drop, Outcome

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "docs" / "grafana" / "relayd.json"
RULES = ROOT / "docs" / "prometheus" / "alerts.yml"

#: What Prometheus adds to every sample.
_OF_THE_SCRAPE = {"job", "instance", "le"}
_NAME = re.compile(r"\b(?:relayd|process)_\w+")
_LABELS = re.compile(r"\b((?:relayd|process)_\w+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def exposed() -> dict[str, Metric]:
    """By the names that samples have."""
    found: dict[str, Metric] = {}
    for each in (*METRICS, *PROCESS):
        suffixes = ("_bucket", "_sum", "_count") if each.kind is Kind.HISTOGRAM else ("",)
        found |= {f"{each.name}{suffix}": each for suffix in suffixes}
    return found


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def texts(value: object, keys: tuple[str, ...]) -> Iterator[str]:
    """What stands under these keys, however deep."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in keys and isinstance(inner, str):
                yield inner
            yield from texts(inner, keys)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, keys)


EXPRESSIONS = [*texts(dashboard(), ("expr", "definition")), *texts(rules(), ("expr",))]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_what_is_asked_for_is_exposed(expression: str) -> None:
    metrics = exposed()
    assert set(_NAME.findall(expression)) <= set(metrics)
    for name, matchers in _LABELS.findall(expression):
        used = _MATCHER.findall(matchers)
        assert {label for label, _ in used} <= {*metrics[name].labels, *_OF_THE_SCRAPE}
        values = {label: set(value.split("|")) for label, value in used}
        assert values.get("outcome", set()) <= {each.value for each in Outcome}
        assert values.get("reason", set()) <= {each.value for each in Drop}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for text in texts(dashboard()["panels"], ("expr",)) for name in _NAME.findall(text)}
    metrics = exposed()
    missing = {each.name for each in METRICS} - {metrics[name].name for name in shown}
    assert missing == {"relayd_config_last_reload_success_timestamp_seconds"}  # which marks reloads on all of them


def test_panels_have_a_place_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for each in panels:
        place = each["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, each["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_every_alert_says_what_it_is_about() -> None:
    names = [each["alert"] for each in rules()]
    assert len(set(names)) == len(names)
    for each in rules():
        assert each["labels"]["severity"] in ("critical", "warning")
        assert set(each["annotations"]) == {"summary", "description"}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("missing promtool")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    where = 'instance="a:9600",job="relayd"'
    ended = f'relayd_connections_closed_total{{{where},listener="web",type="stream"'
    series = {
        f"relayd_workers{{{where}}}": "2x20",
        f"relayd_workers_accepting{{{where}}}": "2x5 1x14",
        f'relayd_target_up{{{where},pool="web",target="b:80"}}': "1x5 0x14",
        f'relayd_target_up{{{where},pool="web",target="c:80"}}': "1x20",
        f'relayd_target_down_info{{{where},pool="web",target="b:80",cause="status"}}': "_x5 1x14",
        f'{ended},outcome="normal"}}': "0+60x20",
        f'{ended},outcome="target_refused"}}': "0x5 10+10x14",
    }

    expected = [
        (4, "RelaydWorkersMissing", []),
        (10, "RelaydWorkersMissing", [{"severity": "critical"}]),
        (10, "RelaydPoolDown", []),
        (7, "RelaydTargetDown", []),
        (14, "RelaydTargetDown", [{"severity": "warning", "pool": "web", "target": "b:80", "cause": "status"}]),
        (5, "RelaydConnectionsFail", []),
        (18, "RelaydConnectionsFail", [{"severity": "critical", "listener": "web"}]),
    ]
    alerts = {each["alert"]: each for each in rules()}
    tests = []
    for minute, name, firing in expected:
        told = [{"exp_labels": {**labels, "instance": "a:9600", "job": "relayd"}} for labels in firing]
        tests.append({"eval_time": f"{minute}m", "alertname": name, "exp_alerts": told})
        assert name in alerts
    # Only whether they fire: what they say has numbers in it.
    bare = [{key: rule[key] for key in rule if key != "annotations"} for rule in rules()]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "relayd", "rules": bare}]}))
    (tmp_path / "test.yml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["rules.yml"],
                "evaluation_interval": "1m",
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": [{"series": name, "values": values} for name, values in series.items()],
                        "alert_rule_test": tests,
                    }
                ],
            }
        )
    )
    done = promtool("test", "rules", str(tmp_path / "test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
