"""What an Observer sees of the parts of a control process, here stand-ins for those that are large."""

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import relayd
from relayd import clock
from relayd.control.exposition import TEXT
from relayd.control.metrics import Facts, NameFacts, TargetFacts, WorkerFacts
from relayd.control.observing import Observer
from relayd.control.reload import InForce
from relayd.control.totals import Totals
from relayd.counters import ControlTotals, ListenerCounters, WorkerTotals
from relayd.spec import Log, Spec

NOBODY = 2**22 + 1  # more than any process id
TARGET = TargetFacts("web", "192.0.2.1:80", "up", up=True, failures=0, since=1e9, cause="")
NAME = NameFacts("a.test", 1.0, ok=True)


class Bench:
    """An Observer, and what it looks at."""

    def __init__(self) -> None:
        spec = Spec(2, 30.0, Log("info", "auto", access=False), ())
        self.reloader = SimpleNamespace(in_force=InForce(spec, Path("/r.toml"), "", clock.monotonic()), last=None)
        self.workers = [
            {"number": 1, "pid": os.getpid(), "phase": "running"},
            {"number": 2, "pid": None, "phase": "waiting"},
        ]
        self.supervisor = SimpleNamespace(restarting=0, totals=Totals(), workers=lambda: self.workers)
        self.stopping = False
        parts: dict[str, Any] = {
            "reloader": self.reloader,
            "supervisor": self.supervisor,
            "targets": SimpleNamespace(facts=lambda: iter([TARGET])),
            "resolver": SimpleNamespace(facts=lambda: iter([NAME])),
        }
        self.observer = Observer(**parts, lines_lost=lambda: 7, stopping=lambda: self.stopping)

    def facts(self) -> Facts:
        return self.observer.facts()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_ready_is_who_has_all_workers_and_does_not_stop(bench: Bench) -> None:
    assert bench.observer.not_ready() == ""
    bench.supervisor.restarting = 1
    assert bench.observer.not_ready() == "1 of 2 workers do not accept"
    bench.stopping = True
    assert bench.observer.not_ready() == "relayd is stopping"


def test_facts_are_of_one_moment(bench: Bench) -> None:
    totals = bench.supervisor.totals
    totals.report(1, [ListenerCounters(accepted=3).snapshot("web")], WorkerTotals(cpu_s=1.0))
    totals.control.reloads = 4
    facts = bench.facts()
    totals.control.reloads = 5
    assert (facts.version, facts.python) == (relayd.__version__, sys.version.split()[0])
    assert [each.accepted for each in facts.streams] == [3]
    assert facts.counted == ((1, WorkerTotals(cpu_s=1.0)),)
    assert (facts.control, facts.lines_lost) == (ControlTotals(reloads=4), 7)
    assert (facts.targets, facts.names) == ((TARGET,), (NAME,))


def test_workers_have_memory_as_long_as_there_is_a_process(bench: Bench) -> None:
    bench.workers.append({"number": 3, "pid": NOBODY, "phase": "running"})
    one, *others = bench.facts().workers
    assert one.accepts
    assert one.resident_bytes is not None
    assert one.resident_bytes > 1 << 20
    assert others == [WorkerFacts(2, accepts=False, resident_bytes=None), WorkerFacts(3, True, None)]


def test_a_reload_that_was_refused(bench: Bench) -> None:
    assert bench.facts().reload_ok
    bench.reloader.last = (1.0, ("relay.toml:1:1: bad",))
    assert not bench.facts().reload_ok
    bench.reloader.last = (2.0, ())
    assert bench.facts().reload_ok


def test_the_time_of_a_load_is_the_same_each_time(bench: Bench) -> None:
    first = bench.facts().loaded_at
    assert abs(first - clock.wall()) < 60
    assert {bench.facts().loaded_at for _ in range(5)} == {first}
    before = bench.reloader.in_force
    bench.reloader.in_force = replace(before, loaded_at=before.loaded_at - 100.0)
    assert bench.facts().loaded_at == pytest.approx(first - 100.0, abs=1.0)


def test_the_text_is_made_aside(bench: Bench) -> None:
    content_type, text = asyncio.run(bench.observer.metrics("text/plain"))
    assert content_type == TEXT
    assert b"\nrelayd_workers_accepting 1.0\n" in text
