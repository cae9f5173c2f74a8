"""Levels, storms, what is held and what is lost: the logger with a sink and a clock of this test."""

import json
from collections.abc import Sequence

import pytest

from relayd.log import logger as logger_module
from relayd.log.formats import JsonFormat
from relayd.log.logger import (
    BURST,
    BURST_INTERVAL_S,
    LINES_PER_FLUSH,
    RETRY_INTERVAL_S,
    AccessRecord,
    Event,
    Level,
    Logger,
)
from relayd.spec import ListenerLog, Log


class FakeSink:
    """Takes as many lines as `room` says."""

    def __init__(self) -> None:
        self.room = 10**9
        self.pending = False
        self.lines: list[dict[str, object]] = []
        self.calls = 0
        self.closed = False

    def write(self, lines: Sequence[bytes]) -> int:
        self.calls += 1
        taken = min(self.room, len(lines))
        self.room -= taken
        self.lines += [json.loads(line) for line in lines[:taken]]
        return taken

    def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[object]:
        return [line["event"] for line in self.lines]


class Bench:
    """A logger, its sink, and the time."""

    def __init__(self, level: str = "info", *, access: bool = True) -> None:
        self.now = 100.0
        self.sink = FakeSink()
        self.logger = Logger(
            Log(level, "json", access), JsonFormat(1), self.sink, monotonic=lambda: self.now, wall=lambda: 0.0
        )


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["started", "worker_exited", "bind_failed"]),
        ("info", ["started", "worker_exited", "bind_failed"]),
        ("warning", ["worker_exited", "bind_failed"]),
        ("error", ["bind_failed"]),
    ],
)
def test_events_below_the_level_are_not_written(level: str, written: list[str]) -> None:
    bench = Bench(level)
    for event in (Event.STARTED, Event.WORKER_EXITED, Event.BIND_FAILED):
        bench.logger.event(event, "m")
    assert bench.sink.events == written
    assert bench.logger.enabled(Level.ERROR)
    assert bench.logger.enabled(Level.DEBUG) == (level == "debug")


@pytest.mark.parametrize("access", [True, False])
def test_access_lines_are_a_switch_of_their_own(access: bool) -> None:
    assert Bench("error", access=access).logger.access_enabled is access


def test_a_listener_has_a_level_and_access_lines_of_its_own() -> None:
    bench = Bench("warning")
    quiet = bench.logger.of(ListenerLog(access=False, level="error"))
    loud = bench.logger.of(ListenerLog(access=True, level="debug"))
    plain = bench.logger.of(ListenerLog())
    for name, each in (("quiet", quiet), ("loud", loud), ("plain", plain)):
        for event in (Event.STARTED, Event.ACCEPT_PAUSED, Event.BIND_FAILED):
            each.event(event, "m", listener=name)
        each.bug("is tested", ValueError("x"), listener=name)
    assert [(line["listener"], line["event"]) for line in bench.sink.lines] == [
        ("quiet", "bind_failed"),
        ("quiet", "internal_error"),
        ("loud", "started"),
        ("loud", "accept_paused"),
        ("loud", "bind_failed"),
        ("loud", "internal_error"),
        ("plain", "accept_paused"),
        ("plain", "bind_failed"),
        ("plain", "internal_error"),
    ]
    assert (quiet.access_enabled, loud.access_enabled, plain.access_enabled) == (False, True, True)


def test_what_a_listener_leaves_to_the_log_follows_it() -> None:
    bench = Bench()
    fixed, plain = (bench.logger.of(rules) for rules in (ListenerLog(access=True, level="info"), ListenerLog()))
    bench.logger.change(Log("error", "json", access=False))
    assert (fixed.access_enabled, plain.access_enabled) == (True, False)
    for each in (fixed, plain):
        each.event(Event.LISTENING, "m")
    assert bench.sink.events == ["listening"]
    plain.change(ListenerLog(access=True, level="debug", start=True, progress_s=5.0))
    plain.event(Event.LISTENING, "m")
    assert len(bench.sink.events) == 2
    assert (plain.access_enabled, plain.start, plain.progress_s) == (True, True, 5.0)


def test_storms_of_all_listeners_are_limited_together() -> None:
    bench = Bench()
    for _ in range(BURST):
        bench.logger.of(ListenerLog()).event(Event.ACCEPT_PAUSED, "m")
        bench.logger.event(Event.ACCEPT_PAUSED, "m")
    assert bench.sink.events == ["accept_paused"] * BURST


def test_lines_about_what_lives_wait_for_the_flush_whatever_the_level(access_record: AccessRecord) -> None:
    bench = Bench("error", access=False)
    of_listener = bench.logger.of(ListenerLog(start=True))
    of_listener.living(Event.CONNECTION_STARTED, access_record)
    assert bench.sink.calls == 0
    bench.logger.flush()
    assert bench.sink.events == ["connection_started"]


def test_access_lines_wait_for_the_flush_and_go_in_one_write(access_record: AccessRecord) -> None:
    bench = Bench()
    for _ in range(3):
        bench.logger.access(access_record)
    assert bench.sink.calls == 0
    bench.logger.flush()
    assert bench.sink.events == ["connection"] * 3
    assert bench.sink.calls == 1
    bench.logger.flush()
    assert bench.sink.calls == 1


def test_a_storm_is_cut_to_a_burst_and_the_rest_counted_in_one_line() -> None:
    bench = Bench()
    for _ in range(BURST + 32):
        bench.logger.event(Event.ACCEPT_PAUSED, "m")
    bench.logger.event(Event.TARGET_UNRESOLVED, "another kind has a burst of its own")
    bench.now += BURST_INTERVAL_S - 0.001
    bench.logger.flush()
    assert bench.sink.events == ["accept_paused"] * BURST + ["target_unresolved"]
    bench.now += 0.001
    bench.logger.flush()
    bench.logger.flush()
    (line,) = bench.sink.lines[BURST + 1 :]
    assert (line["event"], line["kind"], line["count"]) == ("lines_left_out", "accept_paused", 32)
    bench.logger.event(Event.ACCEPT_PAUSED, "m")
    assert bench.sink.events[-1] == "accept_paused"


def test_the_next_of_its_kind_after_the_interval_comes_after_the_count() -> None:
    bench = Bench()
    for _ in range(BURST + 1):
        bench.logger.event(Event.ACCEPT_PAUSED, "m")
    bench.now += BURST_INTERVAL_S
    bench.logger.event(Event.ACCEPT_PAUSED, "m")
    assert bench.sink.events == ["accept_paused"] * BURST + ["lines_left_out", "accept_paused"]


def test_what_is_as_rare_as_the_configuration_says_is_never_left_out() -> None:
    bench = Bench()
    for number in range(5 * BURST):
        bench.logger.event(Event.LISTENING, "m", number=number)
    assert [line["number"] for line in bench.sink.lines] == list(range(5 * BURST))


def test_a_sink_that_takes_nothing_is_asked_again_later_and_loses_nothing() -> None:
    bench = Bench()
    bench.sink.room = 1
    for number in range(3):
        bench.logger.event(Event.LISTENING, "m", number=number)
    calls = bench.sink.calls
    bench.sink.room = 10
    bench.logger.flush()
    assert bench.sink.calls == calls, "asked again at once"
    bench.now += RETRY_INTERVAL_S
    bench.logger.flush()
    assert [line["number"] for line in bench.sink.lines] == [0, 1, 2]
    assert bench.logger.lost == 0


def test_what_cannot_be_held_is_lost_counted_and_said_once(
    monkeypatch: pytest.MonkeyPatch, access_record: AccessRecord
) -> None:
    monkeypatch.setattr(logger_module, "LINES_HELD_MAX", 5)
    bench = Bench("error")  # the count must come through any level
    bench.sink.room = 0
    for _ in range(12):
        bench.logger.access(access_record)
    bench.logger.event(Event.BIND_FAILED, "m")
    bench.logger.flush()
    assert bench.logger.lost == 8
    bench.sink.room = 1000
    bench.now += RETRY_INTERVAL_S
    for _ in range(2):
        bench.logger.flush()
    assert bench.sink.events == ["connection"] * 5 + ["lines_lost"]
    assert bench.sink.lines[-1]["count"] == 8
    bench.logger.access(access_record)
    bench.logger.flush()
    assert bench.sink.events[-1] == "connection"


def test_what_has_waited_goes_in_slices_with_turns_between(access_record: AccessRecord) -> None:
    bench, rests = Bench(), list[float]()
    bench.logger.on_rest = rests.append
    bench.sink.room = 0
    for _ in range(2 * LINES_PER_FLUSH + 10):
        bench.logger.access(access_record)
    bench.logger.flush()
    assert rests == [], "a sink that takes nothing is not worth a turn"
    bench.now += RETRY_INTERVAL_S
    bench.sink.room = 10**9
    written = []
    while len(bench.sink.lines) < 2 * LINES_PER_FLUSH + 10:
        before = len(bench.sink.lines)
        bench.logger.flush()
        written.append(len(bench.sink.lines) - before)
    assert written == [LINES_PER_FLUSH, LINES_PER_FLUSH, 10]
    assert rests == [RETRY_INTERVAL_S] * 2


def test_a_sink_that_takes_some_is_asked_again_soon(access_record: AccessRecord) -> None:
    bench, rests = Bench(), list[float]()
    bench.logger.on_rest = rests.append
    bench.sink.room = 3
    for _ in range(5):
        bench.logger.access(access_record)
    bench.logger.flush()
    assert rests == [RETRY_INTERVAL_S]


def test_more_lines_in_one_turn_than_can_be_held_are_not_lost_where_the_sink_takes_them(
    monkeypatch: pytest.MonkeyPatch, access_record: AccessRecord
) -> None:
    monkeypatch.setattr(logger_module, "LINES_HELD_MAX", 300)
    bench = Bench()
    for _ in range(1000):
        bench.logger.access(access_record)
    bench.logger.drain()
    assert bench.sink.events == ["connection"] * 1000
    assert bench.logger.lost == 0


def test_close_says_what_was_left_out_and_asks_the_sink_a_last_time(access_record: AccessRecord) -> None:
    bench = Bench()
    for _ in range(BURST + 2):
        bench.logger.event(Event.ACCEPT_PAUSED, "m")
    bench.sink.room = 0
    bench.logger.access(access_record)
    bench.logger.flush()
    bench.sink.room = 1
    bench.logger.close()
    assert bench.sink.events[BURST:] == ["connection"]
    assert bench.logger.lost == 1, "the count of what was left out found no room"
    assert bench.sink.closed
