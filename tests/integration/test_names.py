"""Names as the control process resolves them, by dnspython, at a name server of the test's own (T3)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from relayd.address import NameAddress, ServiceAddress
from relayd.channel.messages import Resolved
from relayd.control import name_servers, names
from relayd.control.lookups import Lookups
from relayd.control.resolver import Resolver
from relayd.log.events import Event
from relayd.spec import Resolve, Share, Wanted
from tests.dns_server import Answer, DnsServer

WEB = Wanted(NameAddress("web.test", 80))
SERVICE = Wanted(ServiceAddress("_http._tcp.test"))
DEADLINE_S = 20.0
#: The loop is held up for no longer: with a margin for a busy machine.
HELD_UP_MAX_S = 0.25


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


class Resolving:
    """A `Resolver` that asks `dns`, all that it says, and how long its loop was ever held up."""

    def __init__(self, dns: DnsServer, directory: Path, *wanted: Wanted, conf: str = "") -> None:
        (directory / "hosts").touch()
        (directory / "resolv.conf").write_text(f"nameserver 127.0.0.1\n{conf}")
        lookups = Lookups(None, str(directory / "hosts"), str(directory / "resolv.conf"), dns.port)
        self.answers: list[Resolved] = []
        self.said: list[tuple[Event, str]] = []
        self.held_up_s = 0.0
        self._news = asyncio.Event()
        self.resolver = Resolver(wanted, self._answer, self._say, lookups)

    def _answer(self, answer: Resolved) -> None:
        self.answers.append(answer)
        self._news.set()

    def _say(self, event: Event, message: str, **fields: Any) -> None:
        self.said.append((event, message))
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until it holds, looked at when there is something new."""
        while not condition():
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), DEADLINE_S)

    async def watch(self) -> None:
        """See how late the loop is."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.held_up_s = max(self.held_up_s, time.monotonic() - before - 0.01)

    def addresses(self) -> list[str]:
        """The last answer."""
        return [str(address) for address in self.answers[-1].addresses] if self.answers else []


def resolving(
    dns: DnsServer,
    directory: Path,
    *wanted: Wanted,
    scenario: Callable[[Resolving], Awaitable[None]] | None = None,
    conf: str = "",
) -> Resolving:
    """Wait for first answers, then for `scenario`."""

    async def run() -> Resolving:
        running = Resolving(dns, directory, *wanted, conf=conf)
        watch = asyncio.ensure_future(running.watch())
        running.resolver.start()
        try:
            await running.resolver.first_answers()
            if scenario is not None:
                await scenario(running)
        finally:
            running.resolver.close()
            watch.cancel()
        return running

    return asyncio.run(run())


def test_every_address_of_both_families(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("web.test", "A", "192.0.2.1", "192.0.2.2")
    dns.say("web.test", "AAAA", "2001:db8::1", "::ffff:192.0.2.3")
    running = resolving(dns, tmp_path, WEB)
    first, *others = running.addresses()  # the server shuffles
    assert first == "[2001:db8::1]:80"
    assert sorted(others) == ["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80"]
    assert running.resolver.status()[0]["ttl_s"] == 1.0


def test_an_alias_counts_as_long_as_its_shortest_part(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("web.test", "CNAME", "app.test.", ttl=7)
    dns.say("app.test", "A", "192.0.2.1", ttl=77)
    running = resolving(dns, tmp_path, WEB)
    assert running.addresses() == ["192.0.2.1:80"]
    assert running.resolver.status()[0]["ttl_s"] == 7.0


def test_a_service(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("_http._tcp.test", "SRV", "10 0 8080 One.test.", "10 60000 8081 two.test.", "20 5 8082 one.test.", ttl=9)
    dns.say("one.test", "A", "192.0.2.1", ttl=300)
    dns.say("two.test", "A", "192.0.2.2", ttl=4)
    running = resolving(dns, tmp_path, SERVICE)
    assert running.addresses() == ["192.0.2.2:8081", "192.0.2.1:8080", "192.0.2.1:8082"]
    assert running.answers[-1].shares == (Share(256), Share(1), Share(5, True))
    assert running.resolver.status()[0]["ttl_s"] == 4.0


def test_an_answer_too_long_for_udp_comes_by_tcp(dns: DnsServer, tmp_path: Path) -> None:
    dns.truncate = True
    dns.say("web.test", "A", *(f"192.0.2.{number}" for number in range(1, 200)))
    running = resolving(dns, tmp_path, Wanted(NameAddress("web.test", 80), Resolve(max_ttl_s=60.0)))
    assert len(running.addresses()) == 199
    assert dns.asked_by_tcp >= 1


def test_longer_answers_come_by_udp_where_resolv_conf_says_so(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("web.test", "A", "192.0.2.1")
    resolving(dns, tmp_path, WEB)
    assert dns.payload is None
    resolving(dns, tmp_path, WEB, conf="options edns0\n")
    assert dns.payload == 1232


def test_names_are_asked_for_again_when_their_ttl_is_over(dns: DnsServer, tmp_path: Path) -> None:
    slow, bounded = Wanted(NameAddress("slow.test", 80)), Wanted(NameAddress("slow.test", 80), Resolve(max_ttl_s=1.0))
    dns.say("web.test", "A", "192.0.2.1", ttl=1)
    dns.say("slow.test", "A", "192.0.2.2", ttl=60)

    async def change(running: Resolving) -> None:
        dns.say("web.test", "A", "192.0.2.1", "192.0.2.9", ttl=1)
        dns.say("slow.test", "A", "192.0.2.8", ttl=60)
        await running.until(lambda: len(running.answers) == 5)
        ages = [row["age_s"] for row in running.resolver.status()]
        assert all(age < DEADLINE_S for age in ages)

    running = resolving(dns, tmp_path, WEB, slow, bounded, scenario=change)
    answers = {(answer.name, answer.resolve.max_ttl_s, len(answer.addresses)) for answer in running.answers}
    assert (WEB.name, 300.0, 2) in answers
    assert [answer.resolve.max_ttl_s for answer in running.answers if answer.name == slow.name].count(300.0) == 1
    assert running.held_up_s < HELD_UP_MAX_S


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer.NXDOMAIN, "there is no such name (NXDOMAIN)"),
        (Answer.EMPTY, "no AAAA record; no A record"),
        (Answer.SERVFAIL, "127.0.0.1: SERVFAIL"),
        (Answer.REFUSED, "127.0.0.1: REFUSED"),
    ],
)
def test_failures_by_their_names_and_the_last_good_answer_stays(
    dns: DnsServer, tmp_path: Path, answer: Answer, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "RETRY_S", 0.05)
    dns.say("web.test", "A", "192.0.2.1", ttl=1)

    async def change(running: Resolving) -> None:
        dns.say_of_all("web.test", answer)
        await running.until(lambda: running.said[-1][0] is Event.TARGET_UNRESOLVED)
        [row] = running.resolver.status()
        assert (row["addresses"], row["error"]) == (["192.0.2.1:80"], reason)
        assert row["age_s"] >= 1.0
        dns.say("web.test", "A", "192.0.2.2")
        await running.until(lambda: running.addresses() == ["192.0.2.2:80"])
        assert running.resolver.status()[0]["error"] in (None, f"AAAA of web.test: {reason}")

    running = resolving(dns, tmp_path, WEB, scenario=change)
    assert (Event.TARGET_UNRESOLVED, f"web.test:80 does not resolve ({reason}): it stays 192.0.2.1") in running.said


@pytest.mark.parametrize("answer", [Answer.SILENCE, Answer.GARBAGE])
def test_a_silent_name_server_delays_no_other_name_and_holds_nothing_up(
    dns: DnsServer, tmp_path: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_servers, "LIFETIME_S", 0.5)
    silent = Wanted(NameAddress("silent.test", 80))
    dns.say("web.test", "A", "192.0.2.1")
    dns.say_of_all("silent.test", answer)

    async def wait(running: Resolving) -> None:
        await running.until(lambda: any(event is Event.TARGET_UNRESOLVED for event, _ in running.said))

    running = resolving(dns, tmp_path, WEB, silent, scenario=wait)
    assert running.said[0] == (Event.TARGET_RESOLVED, "web.test:80 is 192.0.2.1")
    [message] = [message for event, message in running.said if event is Event.TARGET_UNRESOLVED]
    assert message.startswith("silent.test:80 does not resolve (127.0.0.1: no answer")
    assert running.held_up_s < HELD_UP_MAX_S


def test_where_nobody_answers_it_is_known_at_once(dns: DnsServer, tmp_path: Path) -> None:
    with DnsServer() as gone:
        pass
    started = time.monotonic()
    running = resolving(gone, tmp_path, WEB)
    assert time.monotonic() - started < name_servers.TIMEOUT_S
    [(_, message)] = running.said
    assert message == "web.test:80 does not resolve (127.0.0.1: Connection refused): it has no address yet"


def test_the_next_name_server_is_asked_where_one_is_silent_or_refuses(
    dns: DnsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns.say("web.test", "A", "192.0.2.1")
    running = resolving(dns, tmp_path, WEB, conf="nameserver 127.0.0.2\n")
    assert running.addresses() == ["192.0.2.1:80"]
    (tmp_path / "other").mkdir()

    async def run() -> Resolving:
        conf = tmp_path / "other" / "resolv.conf"
        running = Resolving(dns, tmp_path / "other", WEB)
        conf.write_text("nameserver 127.0.0.2\nnameserver 127.0.0.1\n")
        running.resolver.start()
        await running.resolver.first_answers()
        running.resolver.close()
        return running

    assert asyncio.run(run()).addresses() == ["192.0.2.1:80"]


def test_domains_are_searched(dns: DnsServer, tmp_path: Path) -> None:
    dns.say("web.b.test", "A", "192.0.2.1")
    short = Wanted(NameAddress("web", 80))
    assert resolving(dns, tmp_path, short, conf="search a.test b.test\n").addresses() == ["192.0.2.1:80"]
    assert dns.count("web.a.test", "A") >= 1
    assert dns.count("web", "A") == 0
