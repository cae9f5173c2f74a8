"""The text of metrics, read back by the parsers of prometheus_client."""

import shutil
import subprocess
import sys

import pytest
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from relayd.control.exposition import OPEN_METRICS, TEXT, render
from relayd.control.metrics import METRICS, PROCESS
from tests.unit.control.test_metrics import NOTHING, some_facts

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def parsed(accept: str) -> dict[str, Family]:
    content_type, body = render(some_facts(), accept)
    text = body.decode()
    if content_type == OPEN_METRICS:
        read = openmetrics.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # it has no types
        return {family.name: family for family in read}
    return {family.name: family for family in text_string_to_metric_families(text)}


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("text/plain;version=0.0.4", TEXT),
        (PROMETHEUS, OPEN_METRICS),
        ("application/openmetrics-text", OPEN_METRICS),
        ("Application/OpenMetrics-Text; version=1.0.0 ; q=0.5 , text/plain;q=0.5", OPEN_METRICS),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", TEXT),
        ("application/openmetrics-text;q=0", TEXT),
        ("application/openmetrics-text;q=nan", TEXT),
        ("application/openmetrics-text;q=.", TEXT),
        ("application/openmetrics-text;q=\u0663", TEXT),
        (";;,=,q=1,application/openmetrics-text;version=;;=", OPEN_METRICS),
    ],
)
def test_the_format_is_what_is_asked_for(accept: str, content_type: str) -> None:
    said, body = render(NOTHING, accept)
    assert said == content_type
    assert body.endswith(b"# EOF\n") == (content_type == OPEN_METRICS)


@pytest.mark.parametrize("accept", [TEXT, OPEN_METRICS])
def test_both_formats_are_read_back(accept: str) -> None:
    found = parsed(accept)
    expected = {metric.name.removesuffix("_total"): metric for metric in (*METRICS, *PROCESS)}
    assert set(found) == set(expected)
    for name, family in found.items():
        assert (family.type, family.documentation) == (expected[name].kind.value, expected[name].meaning)
        assert {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples} == {
            tuple(sorted(expected[name].labels))
        }


@pytest.mark.parametrize("accept", [TEXT, OPEN_METRICS])
def test_a_histogram_has_buckets_that_contain_those_before(accept: str) -> None:
    samples = [
        each for each in parsed(accept)["relayd_connect_duration_seconds"].samples if each.labels["listener"] == "web"
    ]
    buckets = {each.labels["le"]: each.value for each in samples if each.name.endswith("_bucket")}
    assert buckets["0.0005"] == 1
    assert buckets["0.1"] == 1
    assert buckets["0.25"] == 2
    assert buckets["10.0"] == 2
    assert buckets["+Inf"] == 3
    (count,) = (each.value for each in samples if each.name.endswith("_count"))
    (total,) = (each.value for each in samples if each.name.endswith("_sum"))
    assert (count, total) == (3, 60.2005)


def test_a_listener_without_a_connection_has_its_histogram_too() -> None:
    samples = parsed(TEXT)["relayd_connect_duration_seconds"].samples
    assert {each.value for each in samples if each.labels["listener"] == 'a"b\\c'} == {0}


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("missing promtool")
    for facts in (NOTHING, some_facts()):
        done = subprocess.run(
            [promtool, "check", "metrics"], input=render(facts, TEXT)[1], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_start_loads_none_of_it_and_the_admin_api_all() -> None:
    # Not left to the first scrape: an upgrade may have replaced the files by then.
    script = (
        "import sys, relayd.control.life; assert 'relayd.control.metrics' not in sys.modules\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "import relayd.control.admin; relayd.control.admin._load()\n"
        "assert {'relayd.control.metrics', 'relayd.control.exposition', 'prometheus_client'} <= sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
