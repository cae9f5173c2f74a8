import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from relayd.address import Family, InetAddress, NameAddress
from relayd.channel.messages import Resolved
from relayd.control import resolver
from relayd.control.resolver import Resolver, look_up
from relayd.log.events import Event

WEB, DB = NameAddress("web.test", 80), NameAddress("db.test", 80)
ONE, TWO = InetAddress(Family.INET, "192.0.2.1", 80), InetAddress(Family.INET6, "2001:db8::2", 80)
DEADLINE_S = 10.0


class Zone:
    """A name service: a host name to addresses, to an error, or to an event that the answer waits for."""

    def __init__(self, **hosts: Any) -> None:
        self.hosts = {f"{host}.test": answer for host, answer in hosts.items()}

    def __call__(self, name: NameAddress) -> tuple[InetAddress, ...]:
        answer = self.hosts[name.host]
        if isinstance(answer, threading.Event):
            answer.wait(DEADLINE_S)
            return (ONE,)
        if isinstance(answer, Exception):
            raise answer
        return tuple(answer)


class Heard:
    """What a resolver answered and said."""

    def __init__(self) -> None:
        self.answers: list[Resolved] = []
        self.said: list[tuple[Event, str]] = []

    def say(self, event: Event, message: str, **fields: Any) -> None:
        self.said.append((event, message))


def resolving(zone: Zone, scenario: Callable[[Resolver, Heard], Awaitable[None]], *names: NameAddress) -> Heard:
    async def run() -> Heard:
        heard = Heard()
        running = Resolver(names, heard.answers.append, heard.say, zone)
        running.start()
        try:
            await asyncio.wait_for(scenario(running, heard), DEADLINE_S)
        finally:
            running.close()
        return heard

    return asyncio.run(run())


async def first_answers(running: Resolver, heard: Heard) -> None:
    await running.first_answers()


@contextlib.contextmanager
def released(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def test_the_first_answers_arrive() -> None:
    heard = resolving(Zone(web=[ONE], db=[TWO, ONE]), first_answers, WEB, DB)
    assert sorted(heard.answers, key=str) == sorted([Resolved(WEB, (ONE,)), Resolved(DB, (TWO, ONE))], key=str)
    assert (Event.TARGET_RESOLVED, "db.test:80 is 2001:db8::2, 192.0.2.1") in heard.said


def test_without_names_there_is_nothing_to_wait_for() -> None:
    assert resolving(Zone(), first_answers).said == []


@pytest.mark.parametrize(
    "failure", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long"), OSError("broken")]
)
def test_a_failure_is_said_and_counts_as_an_answer(failure: Exception) -> None:
    heard = resolving(Zone(web=failure, db=[ONE]), first_answers, WEB, DB)
    assert heard.answers == [Resolved(DB, (ONE,))]
    [message] = [message for event, message in heard.said if event is Event.TARGET_UNRESOLVED]
    assert message.startswith("web.test:80 does not resolve (")
    assert message.endswith("): it has no address yet")


def test_an_empty_answer_is_a_failure() -> None:
    heard = resolving(Zone(web=[]), first_answers, WEB)
    assert heard.answers == []
    assert [event for event, _ in heard.said] == [Event.TARGET_UNRESOLVED]


def test_a_hanging_lookup_delays_neither_other_names_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "RESOLVE_BOOT_WAIT_S", 0.2)
    never = threading.Event()
    with released(never):
        heard = resolving(Zone(web=never, db=[ONE]), first_answers, WEB, DB)
        assert heard.answers == [Resolved(DB, (ONE,))]


def test_an_answer_after_close_is_ignored() -> None:
    late = threading.Event()

    async def close_first(running: Resolver, heard: Heard) -> None:
        running.close()
        late.set()
        running._found(WEB, (ONE,))

    assert resolving(Zone(web=late), close_first, WEB).answers == []


def test_names_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relayd.control.names.RESOLVE_INTERVAL_S", 0.01)
    monkeypatch.setattr("relayd.control.names.RETRY_INTERVAL_S", 0.01)
    zone = Zone(web=[ONE])

    async def change(running: Resolver, heard: Heard) -> None:
        await running.first_answers()
        zone.hosts["web.test"] = OSError("name service down")
        while not any("it stays 192.0.2.1" in message for _, message in heard.said):
            await asyncio.sleep(0.01)
        zone.hosts["web.test"] = [TWO]
        while len(heard.answers) < 2:
            await asyncio.sleep(0.01)

    heard = resolving(zone, change, WEB)
    assert heard.answers == [Resolved(WEB, (ONE,)), Resolved(WEB, (TWO,))]


def test_the_system_resolver_knows_this_host() -> None:
    found = look_up(NameAddress("localhost", 8080))
    assert InetAddress(Family.INET, "127.0.0.1", 8080) in found
    assert len(set(found)) == len(found)
