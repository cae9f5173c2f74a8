"""Many targets, in an event loop: what is asked when, what is told, what stays (T2)."""

import asyncio
import contextlib
import dataclasses
import errno
import json
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from relayd import clock
from relayd.address import Family, InetAddress, SocketAddress
from relayd.control.checks import checker as checker_module
from relayd.control.checks import probe
from relayd.control.checks.checker import Checker, Known, Subject
from relayd.control.checks.command import Command
from relayd.log.events import Event
from relayd.net import dialing
from relayd.spec import Check, CheckKind
from tests.integration.asking import address_of

DEADLINE_S = 10.0
QUICK_S = 0.03
#: For ever, as a test sees it.
SLOW_S = 3600.0


class Heard:
    """What a checker has said and told."""

    def __init__(self) -> None:
        self.said: list[tuple[Event, str]] = []
        self.fields: list[dict[str, Any]] = []
        self.changes = 0
        self.bugs: list[dict[str, Any]] = []

    def say(self, event: Event, message: str, **fields: Any) -> None:
        self.said.append((event, message))
        self.fields.append(fields)

    def changed(self) -> None:
        self.changes += 1


def checking(scenario: Callable[[Checker, Heard], Awaitable[None]]) -> Heard:
    async def run() -> Heard:
        heard = Heard()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.bugs.append(context))
        checker = Checker(heard.say, heard.changed, random.Random(1))
        try:
            await asyncio.wait_for(scenario(checker, heard), DEADLINE_S)
        finally:
            checker.close()
            checker.close()
        return heard

    return asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    """Turns of the loop, until it is so; `checking` has the deadline."""
    while not condition():
        await asyncio.sleep(0.001)


def check(interval_s: float = QUICK_S, rise: int = 2, fall: int = 3, **keys: object) -> Check:
    kind = keys.pop("kind", CheckKind.TCP)
    return Check(kind, interval_s, interval_s, min(1.0, interval_s), rise, fall, **keys)  # type: ignore[arg-type]  # any of them


def subject(address: SocketAddress, check: Check, target: str = "a", pool: str = "app") -> Subject:
    return Subject(pool, target, address, check, None)


def known(checker: Checker, target: str = "a", pool: str = "app") -> Known:
    found = checker.state(pool, target)
    assert found is not None
    return found


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@contextlib.contextmanager
def nobody() -> Iterator[InetAddress]:
    """An address that is taken, so that nobody else can get it, and where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = address_of(sock)
        assert isinstance(address, InetAddress)
        yield address


def test_a_target_goes_down_and_comes_back() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            checker.change([subject(address_of(sock), check())])
            assert (known(checker).up, known(checker).asked) == (True, False)
            await until(lambda: not known(checker).up)
            down = known(checker)
            assert (down.why, down.asked) == ("connection refused", True)
            assert abs(down.since_wall - clock.wall()) < DEADLINE_S
            sock.listen()
            await until(lambda: known(checker).up)
            await until(lambda: heard.changes == 2)
            assert (known(checker).why, known(checker).last_reason) == ("", "")

    heard = checking(scenario)
    assert heard.said == [
        (Event.TARGET_DOWN, "app: a is down: connection refused"),
        (Event.TARGET_UP, "app: a is up"),
    ]
    assert heard.fields[0] == {"pool": "app", "target": "a", "reason": "connection refused"}


def test_one_that_was_up_needs_fall_failures(listening: socket.socket) -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        address = address_of(listening)
        checker.change([subject(address, check())])
        await until(lambda: known(checker).asked)
        listening.close()
        await until(lambda: not known(checker).up)
        assert known(checker).why == "connection refused x3"
        assert heard.said == [(Event.TARGET_DOWN, "app: a is down: connection refused x3")]

    checking(scenario)


def test_a_target_is_called_what_people_call_it() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with nobody() as address:
            asked = check(SLOW_S)
            checker.change(
                [dataclasses.replace(subject(address, asked, "127.0.0.1:0 offset 500"), text="127.0.0.1:+5")]
            )
            await until(lambda: heard.said)
            since = known(checker, "127.0.0.1:0 offset 500").last_at
            checker.change(
                [dataclasses.replace(subject(address, asked, "127.0.0.1:0 offset 500"), text="127.0.0.1:+500")]
            )
            assert known(checker, "127.0.0.1:0 offset 500").last_at == since, "another text is no other target"
            checker.failed("app", "127.0.0.1:0 offset 500", 1, "x")

    heard = checking(scenario)
    assert heard.said == [(Event.TARGET_DOWN, "app: 127.0.0.1:+5 is down: connection refused")]
    assert heard.fields[0]["target"] == "127.0.0.1:+5"


def test_a_change_is_told_once_in_a_turn() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with nobody() as address:
            checker.change([subject(address, check(SLOW_S), str(number)) for number in range(20)])
            for number in range(20):
                checker.failed("app", str(number), 3, "met by clients")
            assert heard.changes == 0, "not from within the call"
            await until(lambda: heard.changes)
            assert heard.changes == 1
            assert not any(known.up for known in checker.states())

    checking(scenario)


def test_what_clients_meet_has_it_asked_at_once(listening: socket.socket) -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        address = address_of(listening)
        checker.change([subject(address, check(SLOW_S), target) for target in "ab"])
        await until(lambda: known(checker).asked)
        assert not known(checker, "b").asked, "half an hour from now"
        checker.failed("app", "b", 1, "connection refused")
        assert known(checker, "b").failures == 1
        await until(lambda: known(checker, "b").asked)
        assert known(checker, "b").failures == 0, "the check was a success"
        checker.failed("app", "nobody", 1, "x")
        checker.failed("other", "a", 1, "x")

    heard = checking(scenario)
    assert heard.said == []


def test_another_check_or_address_keeps_what_is_known(listening: socket.socket) -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with nobody() as address:
            checker.change([subject(address, check(SLOW_S))])
            await until(lambda: not known(checker).up)
            since = known(checker).since
            checker.change([subject(address_of(listening), check(QUICK_S, rise=1))])
            assert (known(checker).up, known(checker).since) == (False, since)
            await until(lambda: known(checker).up)
            checker.change(
                [subject(address_of(listening), check(QUICK_S, kind=CheckKind.EXEC, command=("/bin/false",)))]
            )
            await until(lambda: not known(checker).up)
            assert known(checker).why == "exited with 1 x3"
            checker.change([subject(address_of(listening), check(QUICK_S, rise=1))])
            await until(lambda: known(checker).up)

    checking(scenario)


def test_the_same_again_changes_nothing(listening: socket.socket) -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        subjects = [subject(address_of(listening), check(SLOW_S), str(number)) for number in range(3)]
        checker.change(subjects)
        before = checker.snapshot()["targets"]
        checker.change(subjects)
        after = checker.snapshot()["targets"]
        assert isinstance(before, list)
        assert isinstance(after, list)
        assert [round(each["due"], 2) for each in before] == [round(each["due"], 2) for each in after]

    checking(scenario)


def test_one_that_is_gone_is_not_asked_any_more() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            silent.setblocking(False)
            checker.change([subject(address_of(silent), check(SLOW_S, kind=CheckKind.UDP, send="?"))])
            await asyncio.get_running_loop().sock_recv(silent, 10)
            checker.change([])
            assert checker.state("app", "a") is None
            assert list(checker.states()) == []
            checker.change([subject(address_of(silent), check(SLOW_S, kind=CheckKind.UDP, send="?"))])
            await asyncio.get_running_loop().sock_recv(silent, 10)

    heard = checking(scenario)
    assert heard.said == []


def test_a_silent_target_is_late_and_asked_again() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            checker.change([subject(address_of(silent), check(kind=CheckKind.UDP, send="?"))])
            await until(lambda: known(checker).failures >= 3)
            last = known(checker)
            assert last.last_reason == f"no answer within {QUICK_S:g}s"
            assert last.last_duration_s is not None
            assert last.last_duration_s >= QUICK_S

    checking(scenario)


def test_a_life_goes_on_from_the_one_before(listening: socket.socket) -> None:
    left: list[str] = []

    async def before(checker: Checker, heard: Heard) -> None:
        with nobody() as address:
            checker.change([subject(address, check(SLOW_S)), subject(address_of(listening), check(SLOW_S), "b")])
            await until(lambda: not known(checker).up)
            left.append(json.dumps(checker.snapshot()))

    async def after(checker: Checker, heard: Heard) -> None:
        assert checker.restore(json.loads(left[0])) == 2
        assert checker.snapshot()["targets"], "what nobody has asked for yet goes on to the next"
        with nobody() as address:
            checker.change([subject(address, check(SLOW_S))])
            assert (known(checker).up, known(checker).why) == (False, "connection refused")
            assert abs(known(checker).since_wall - clock.wall()) < DEADLINE_S
            last = known(checker).last_at
            checker.change([subject(address, check(SLOW_S)), subject(address_of(listening), check(SLOW_S), "b")])
            assert not known(checker, "b").asked
            assert known(checker).last_at == last, "it is not due yet"
            targets = checker.snapshot()["targets"]
            assert isinstance(targets, list)
            assert min(each["due"] for each in targets) > clock.wall() + SLOW_S / 3

    checking(before)
    heard = checking(after)
    assert heard.said == []


@pytest.mark.parametrize("value", [None, [], "x", {"version": 1}, {"version": 1, "targets": [1, {"pool": 1}]}])
def test_garbage_is_no_life_before(value: object, listening: socket.socket) -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        assert checker.restore(value) == 0
        checker.change([subject(address_of(listening), check())])
        await until(lambda: known(checker).asked)

    checking(scenario)


def test_a_machine_that_has_run_out_is_no_verdict_and_said_once(
    monkeypatch: pytest.MonkeyPatch, listening: socket.socket
) -> None:
    real, tries = dialing.open_dial_socket, [0]

    def fail(*_: object) -> socket.SocketType:
        tries[0] += 1
        raise OSError(errno.EMFILE, "Too many open files")

    async def scenario(checker: Checker, heard: Heard) -> None:
        monkeypatch.setattr(probe, "open_dial_socket", fail)
        checker.change([subject(address_of(listening), check(), target) for target in "ab"])
        await until(lambda: tries[0] > 6)
        assert (known(checker).up, known(checker).asked) == (True, False)
        assert heard.said == [(Event.CHECK_IMPEDED, "app: a cannot be checked: too many open files; it stays up")]
        monkeypatch.setattr(probe, "open_dial_socket", real)
        await until(lambda: known(checker).asked and known(checker, "b").asked)
        monkeypatch.setattr(probe, "open_dial_socket", fail)
        await until(lambda: len(heard.said) == 2)

    checking(scenario)


def test_a_bug_in_one_check_is_no_end_of_the_others(monkeypatch: pytest.MonkeyPatch, listening: socket.socket) -> None:
    real = dialing.open_dial_socket

    def fail(*arguments: Any) -> socket.SocketType:
        calls.append(1)
        if len(calls) % 2:
            raise ZeroDivisionError
        return real(*arguments)

    calls: list[int] = []

    async def scenario(checker: Checker, heard: Heard) -> None:
        monkeypatch.setattr(probe, "open_dial_socket", fail)
        checker.change([subject(address_of(listening), check(), target) for target in "ab"])
        await until(lambda: len(calls) > 6)
        assert any(each.asked for each in checker.states())

    heard = checking(scenario)
    assert isinstance(heard.bugs[0]["exception"], ZeroDivisionError)


def test_a_command_that_does_not_end_is_a_failure_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Command] = []

    class Unkillable(Command):
        def start(self) -> None:
            started.append(self)
            super().start()

        def late(self) -> None:
            with monkeypatch.context() as patch:
                patch.setattr("relayd.control.checks.command._kill_group", lambda _: None)
                super().late()

    async def scenario(checker: Checker, heard: Heard) -> None:
        monkeypatch.setattr(checker_module, "Command", Unkillable)
        with nobody() as address:
            asked = check(0.1, kind=CheckKind.EXEC, command=("/bin/sleep", "1000"))
            checker.change([subject(address, asked)])
            await until(lambda: known(checker).failures >= 3)
            assert known(checker).last_reason == "its command was killed, and does not end"
            assert len(started) == 1
            process = started[0]._process
            assert process is not None
            process.kill()
            await until(lambda: len(started) == 2)

    checking(scenario)


def test_commands_that_run_at_the_end_are_killed() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with nobody() as address:
            asked = check(SLOW_S, kind=CheckKind.EXEC, command=("/bin/sh", "-c", "sleep 1000 & sleep 1000"))
            checker.change([subject(address, asked, str(number)) for number in range(5)])
            for number in range(5):
                checker.failed("app", str(number), 1, "asked at once")
            await until(lambda: checker._commands.under_way == 5)

    checking(scenario)


def test_a_storm_is_asked_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred that do not answer, and room for ten."""
    monkeypatch.setattr(checker_module, "CHECKS_MAX", 10)

    async def scenario(checker: Checker, heard: Heard) -> None:
        most = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            asked = Check(CheckKind.UDP, 0.2, 0.2, 0.02, 2, 3, send="?")
            checker.change([subject(address_of(silent), asked, str(number)) for number in range(200)])

            def all_asked() -> bool:
                nonlocal most
                most = max(most, checker._sockets.under_way)
                return all(each.asked for each in checker.states())

            await until(all_asked)
        assert most == 10

    checking(scenario)


def test_an_ipv6_target() -> None:
    async def scenario(checker: Checker, heard: Heard) -> None:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
            sock.listen()
            address = address_of(sock)
            assert address.family is Family.INET6
            checker.change([subject(address, check())])
            await until(lambda: known(checker).asked)
            assert known(checker).up

    checking(scenario)


def test_checks_that_are_late_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_module, "CHECKS_MAX", 1)

    async def scenario(checker: Checker, heard: Heard) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            asked = check(kind=CheckKind.UDP, send="?")
            checker.change([subject(address_of(silent), asked, str(number)) for number in range(8)])
            await until(lambda: any(event is Event.CHECKS_LATE for event, _ in heard.said))
            await asyncio.sleep(10 * QUICK_S)

    heard = checking(scenario)
    lines = [text for event, text in heard.said if event is Event.CHECKS_LATE]
    assert len(lines) == 1
    assert "late: 1 checks are under way, of 1 that can be" in lines[0]
