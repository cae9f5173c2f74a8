"""The text that Prometheus reads, by prometheus_client: of the families of `metrics`, and of this process.

Nothing is registered anywhere, and nothing is kept between two scrapes. To load prometheus_client takes a tenth of a
second: that is done, aside, when the first scrape comes.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import exposition
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from relayd.control.metrics import Facts, Kind, Metric, Sample, families
from relayd.counters import Histogram

__all__ = ["OPEN_METRICS", "TEXT", "render"]

#: Content types of the two formats.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def render(facts: Facts, accept: str) -> tuple[str, bytes]:
    """Content type and body for a client that sends this Accept: OpenMetrics where it asks for that, and for text no
    more than for that. Takes 10 µs for a line: for a thread, where there are thousands of listeners.
    """
    collected = _Collected(facts)
    if _quality(accept, "application/openmetrics-text") > 0 and _prefers_open_metrics(accept):
        return OPEN_METRICS, openmetrics.generate_latest(collected)  # type: ignore[no-untyped-call]  # it has no types
    return TEXT, exposition.generate_latest(collected)


class _Collected(Collector):
    """What would be a registry, for one scrape."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Family]:
        """Every family."""
        for metric, samples in families(self._facts):
            yield _family(metric, samples)
        yield from ProcessCollector(registry=None).collect()


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    # Both formats want a counter's own name without the suffix that its samples have.
    family = Family(metric.name.removesuffix("_total"), metric.meaning, metric.kind.value)
    for sample in samples:
        labels = dict(zip(metric.labels, sample.labels, strict=True))
        if metric.kind is Kind.HISTOGRAM and isinstance(sample.value, Histogram):
            _add_histogram(family, metric, labels, sample.value)
        elif not isinstance(sample.value, Histogram):
            family.add_sample(metric.name, labels, float(sample.value))
    return family


def _add_histogram(family: Family, metric: Metric, labels: dict[str, str], histogram: Histogram) -> None:
    """With buckets as Prometheus has them: each has all that is below its bound. What has other buckets than `metric`
    counts as nothing.
    """
    bounds = [*map(str, metric.bounds_s), "+Inf"]
    counts = histogram.counts if len(histogram.counts) == len(bounds) else (0,) * len(bounds)
    below = 0
    for bound, count in zip(bounds, counts, strict=True):
        below += count
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, below)
    family.add_sample(f"{metric.name}_count", labels, below)
    family.add_sample(f"{metric.name}_sum", labels, histogram.sum_s if below else 0.0)


def _prefers_open_metrics(accept: str) -> bool:
    return _quality(accept, "application/openmetrics-text") >= _quality(accept, "text/plain")


def _quality(accept: str, wanted: str) -> float:
    """What `accept` (RFC 9110, 12.5.1) gives a type that it names, 0 where it does not, or is not understood. A range
    of types is no wish for OpenMetrics: browsers and curl send it.
    """
    best = 0.0
    for each in accept.split(","):
        name, *parameters = (part.strip().lower() for part in each.split(";"))
        if name == wanted:
            said = next((value for key, _, value in (one.partition("=") for one in parameters) if key == "q"), "1")
            best = max(best, float(said) if said.replace(".", "", 1).isdecimal() and said.isascii() else 0.0)
    return best
