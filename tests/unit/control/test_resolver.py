import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import pytest

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress
from relayd.channel.messages import Resolved
from relayd.control import names, resolver
from relayd.control.answers import Answer, Known
from relayd.control.lookups import LookupFailed, NoSuchName, Unanswered
from relayd.control.resolver import Resolver
from relayd.log.events import Event
from relayd.spec import Resolve, Share, Wanted

WEB, DB = Wanted(NameAddress("web.test", 80)), Wanted(NameAddress("db.test", 0))
ONE, TWO = InetAddress(Family.INET, "192.0.2.1", 80), InetAddress(Family.INET6, "2001:db8::2", 80)
DEADLINE_S = 10.0


class Zone:
    """In place of `Lookups`: a host name to an answer, to an error, or to an event that an answer waits for."""

    def __init__(self, **hosts: Any) -> None:
        self.hosts = {f"{host}.test": answer for host, answer in hosts.items()}
        self.changed = False
        self.kept: frozenset[Wanted] = frozenset()

    async def look_up(self, wanted: Wanted) -> Answer:
        await asyncio.sleep(0)
        answer = self.hosts[wanted.name.host if isinstance(wanted.name, NameAddress) else wanted.name.name]
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            return Answer((ONE,), (), 60.0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(tuple(answer), (), 60.0)

    async def refresh(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def keep(self, names: Iterable[Wanted]) -> None:
        self.kept = frozenset(names)


class Heard:
    """What a resolver answered and said."""

    def __init__(self) -> None:
        self.answers: list[Resolved] = []
        self.said: list[tuple[Event, str]] = []

    def say(self, event: Event, message: str, **fields: Any) -> None:
        self.said.append((event, message))


class Scenario(Protocol):
    def __call__(self, running: Resolver, heard: Heard) -> Awaitable[None]: ...


def resolving(zone: Zone, scenario: Scenario, *names: Wanted) -> Heard:
    async def run() -> Heard:
        heard = Heard()
        running = Resolver(names, heard.answers.append, heard.say, zone)  # type: ignore[arg-type]  # does as much
        running.start()
        try:
            await asyncio.wait_for(scenario(running, heard), DEADLINE_S)
        finally:
            running.close()
        return heard

    return asyncio.run(run())


async def first_answers(running: Resolver, heard: Heard) -> None:
    await running.first_answers()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_the_first_answers_arrive() -> None:
    heard = resolving(Zone(web=[ONE], db=[TWO, ONE]), first_answers, WEB, DB)
    assert heard.answers == [Resolved(DB.name, (TWO, ONE)), Resolved(WEB.name, (ONE,))]
    assert (Event.TARGET_RESOLVED, "db.test is 2001:db8::2, 192.0.2.1") in heard.said


def test_without_names_there_is_nothing_to_wait_for() -> None:
    assert resolving(Zone(), first_answers).said == []


def test_an_answer_says_whose_it_is_and_what_srv_records_say() -> None:
    service = Wanted(ServiceAddress("web.test"), Resolve(Family.INET, 2.0, 3.0))
    heard = resolving(Zone(web=Answer((ONE,), (Share(7),), 60.0)), first_answers, service)
    assert heard.answers == [Resolved(service.name, (ONE,), (Share(7),), service.resolve)]
    assert heard.answers[0].wanted == service
    assert heard.said == [(Event.TARGET_RESOLVED, "srv:web.test is 192.0.2.1:80")]


@pytest.mark.parametrize("failure", [NoSuchName("no such name"), Unanswered("SERVFAIL"), LookupFailed("broken")])
def test_a_failure_is_said_and_counts_as_an_answer(failure: Exception) -> None:
    heard = resolving(Zone(web=failure, db=[ONE]), first_answers, WEB, DB)
    assert heard.answers == [Resolved(DB.name, (ONE,))]
    [message] = [message for event, message in heard.said if event is Event.TARGET_UNRESOLVED]
    assert message == f"web.test:80 does not resolve ({failure}): it has no address yet"


def test_a_bug_is_told_and_counts_as_a_failure() -> None:
    told: list[Any] = []

    async def bug(running: Resolver, heard: Heard) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        await running.first_answers()

    error = ZeroDivisionError("bug")
    heard = resolving(Zone(web=error), bug, WEB)
    assert told == [error]
    assert [message for _, message in heard.said] == [
        "web.test:80 does not resolve (ZeroDivisionError: bug): it has no address yet"
    ]


def test_a_hanging_lookup_delays_neither_other_names_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "RESOLVE_BOOT_WAIT_S", 0.2)

    async def never(running: Resolver, heard: Heard) -> None:
        await running.first_answers()
        assert heard.answers == [Resolved(DB.name, (ONE,))]

    resolving(Zone(web=asyncio.Event(), db=[ONE]), never, WEB, DB)


def test_after_close_nothing_is_answered() -> None:
    async def close_first(running: Resolver, heard: Heard) -> None:
        late = zone.hosts["web.test"] = asyncio.Event()
        await asyncio.sleep(0)
        running.close()
        late.set()
        await asyncio.sleep(0.01)

    zone = Zone()
    assert resolving(zone, close_first, WEB).answers == []


def test_names_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "RETRY_S", 0.01)
    wanted = Wanted(WEB.name, Resolve(None, 0.01, 0.01))
    zone = Zone(web=[ONE])

    async def change(running: Resolver, heard: Heard) -> None:
        await running.first_answers()
        zone.hosts["web.test"] = Unanswered("name service down")
        await until(lambda: any("it stays 192.0.2.1" in message for _, message in heard.said))
        zone.hosts["web.test"] = [TWO]
        await until(lambda: len(heard.answers) == 2)

    heard = resolving(zone, change, wanted)
    assert [answer.addresses for answer in heard.answers] == [(ONE,), (TWO,)]


def test_when_the_files_have_changed_everything_is_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "FILES_LOOK_S", 0.01)
    zone = Zone(web=[ONE])

    async def change(running: Resolver, heard: Heard) -> None:
        await running.first_answers()
        zone.hosts["web.test"] = [TWO]
        zone.changed = True
        await until(lambda: len(heard.answers) == 2)

    assert resolving(zone, change, WEB).answers == [Resolved(WEB.name, (ONE,)), Resolved(WEB.name, (TWO,))]


def test_what_is_known_from_before_is_told_at_once_and_waited_for_by_nobody() -> None:
    # R4: a restart while no name server answers
    known = Known(Resolved(WEB.name, (ONE, TWO)), 0.0, 60.0)

    async def run() -> Heard:
        heard = Heard()
        running = Resolver([WEB], heard.answers.append, heard.say, Zone(web=asyncio.Event()))  # type: ignore[arg-type]  # a stand-in
        running.restore([known, Known(Resolved(DB.name, (ONE,)), 0.0, 60.0)])
        assert heard.answers == [known.resolved]
        running.start()
        await running.first_answers()
        assert running.known() == (known,)
        running.close()
        return heard

    assert asyncio.run(run()).said == []


def test_a_change_waits_for_names_that_are_new_and_forgets_those_that_go() -> None:
    zone = Zone(web=[ONE], db=[TWO])

    async def change(running: Resolver, heard: Heard) -> None:
        await running.first_answers()
        await running.change([DB])
        assert heard.answers == [Resolved(WEB.name, (ONE,)), Resolved(DB.name, (TWO,))]
        assert zone.kept == {DB}
        assert [row["name"] for row in running.status()] == ["db.test"]

    resolving(zone, change, WEB)


def test_status_has_addresses_age_ttl_and_error(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("relayd.clock.monotonic", lambda: now)
    bounded = Wanted(WEB.name, Resolve(Family.INET, 1.0, 20.0))

    async def look(running: Resolver, heard: Heard) -> None:
        nonlocal now
        await running.first_answers()
        now = 112.5
        none: dict[str, Any] = {"family": "any", "addresses": [], "age_s": None, "ttl_s": None}
        assert running.status() == [
            {"name": "db.test", **none, "error": "SERVFAIL"},
            {
                "name": "web.test:80",
                "family": "inet",
                "addresses": ["192.0.2.1:80"],
                "age_s": 12.5,
                "ttl_s": 20.0,
                "error": None,
            },
        ]

    resolving(Zone(web=[ONE], db=Unanswered("SERVFAIL")), look, bounded, DB)
