"""A search ends, and leaves the signals of the process as it found them."""

import asyncio
import math
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from relayd import clock
from relayd.address import Family, InetAddress
from relayd.control.checks import patterns
from relayd.control.checks.answers import script_of
from relayd.control.checks.patterns import AGAIN_S, REST_S, SEARCH_S, Pattern, compiled
from relayd.control.checks.subject import Cause, Found, Subject
from relayd.spec import Check, CheckKind

ENDLESS = rb"(a+)+$b"
ANSWER = b"a" * 48
#: Slower than any machine that tests run on, and far shorter than ENDLESS takes.
DEADLINE_S = 5.0


@pytest.fixture(autouse=True)
def left_as_it_was() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert patterns._Alarm.until == math.inf
    signal.signal(signal.SIGALRM, before)


def test_what_is_there_and_what_is_not() -> None:
    assert Pattern(rb"^220[ -]\xff?").search(b"220 mail") is True
    assert Pattern(rb"^220[ -]").search(b"x220") is False


def test_one_that_would_take_for_ever_ends() -> None:
    began = clock.monotonic()
    assert Pattern(ENDLESS).search(ANSWER) is None
    took = clock.monotonic() - began
    assert SEARCH_S <= took < DEADLINE_S


def test_once_too_slow_it_gets_less_for_a_while_and_others_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    real = patterns._search

    def search(*args: object) -> bool | None:
        given.append(args[-1])  # type: ignore[arg-type]  # as they came
        return real(*args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(patterns, "_search", search)
    endless = Pattern(ENDLESS)
    assert [endless.search(ANSWER), endless.search(ANSWER)] == [None, None]
    assert Pattern(rb"a").search(ANSWER) is True
    endless._slow_until -= REST_S
    assert endless.search(ANSWER) is None
    assert given == [SEARCH_S, AGAIN_S, SEARCH_S, SEARCH_S]


def test_all_that_are_asked_for_the_same_share_it() -> None:
    assert compiled(b"x") is compiled(b"x")
    assert compiled(b"x") is not compiled(b"y")


def test_a_late_alarm_does_nothing() -> None:
    assert Pattern(rb"a").search(b"a") is True
    os.kill(os.getpid(), signal.SIGALRM)
    assert Pattern(rb"a").search(b"a") is True


def test_who_has_the_alarm_keeps_it() -> None:
    came: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _: came.append(number))
    assert Pattern(rb"a").search(b"a") is True
    os.kill(os.getpid(), signal.SIGALRM)
    assert came == [signal.SIGALRM]


def test_another_thread_searches_without_a_bound() -> None:
    found: list[bool | None] = []
    before = signal.getsignal(signal.SIGALRM)
    thread = threading.Thread(target=lambda: found.append(Pattern(rb"a").search(b"a")))
    thread.start()
    thread.join()
    assert found == [True]
    assert signal.getsignal(signal.SIGALRM) is before


def test_signals_of_the_loop_come_all_the_same() -> None:
    async def scenario() -> list[object]:
        loop, bugs = asyncio.get_running_loop(), list[object]()
        loop.set_exception_handler(lambda _, context: bugs.append(context))
        done = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, done.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert Pattern(ENDLESS).search(ANSWER) is None
        await asyncio.wait_for(done.wait(), DEADLINE_S)
        loop.remove_signal_handler(signal.SIGUSR1)
        return bugs

    assert asyncio.run(scenario()) == []


def test_the_check_says_so() -> None:
    check = Check(CheckKind.TCP, 2.0, 2.0, 1.0, 2, 3, expect_pattern=ENDLESS.decode())
    judge = script_of(Subject("app", "a", InetAddress(Family.INET, "10.0.0.11", 80), check, None)).judge
    assert judge is not None
    assert judge(ANSWER, "") == Found(False, "its pattern takes too long for this answer", Cause.ANSWER)
