import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress
from relayd.config import machine
from relayd.control.answers import ADDRESSES_MAX, Answer, Service
from relayd.control.lookups import LookupFailed, Lookups, NoSuchName, Records, Unanswered
from relayd.control.name_files import ResolvConf
from relayd.spec import Resolve, Share, Wanted
from relayd.spec.budget import LOOKUP_FDS

T = TypeVar("T")
NXDOMAIN = NoSuchName("there is no such name")
SERVFAIL = Unanswered("SERVFAIL")
SILENT = Unanswered("no answer", silent=True)


def inet(number: int, port: int = 80) -> InetAddress:
    return InetAddress(Family.INET, f"192.0.2.{number}", port)


def inet6(number: int, port: int = 80) -> InetAddress:
    return InetAddress(Family.INET6, f"2001:db8::{number}", port)


def web(family: Family | None = None, host: str = "web.test") -> Wanted:
    return Wanted(NameAddress(host, 80), Resolve(family))


SERVICE = Wanted(ServiceAddress("_http._tcp.test"))


class Zone:
    """Name servers: what they say of a question, and which they were asked."""

    def __init__(self, **said: Records | LookupFailed | list[InetAddress] | list[Service]) -> None:
        """By type and name, as in `A_web_test`; what is not here does not exist."""
        self.said: dict[tuple[str, str], object] = {}
        for question, answer in said.items():
            kind, *labels = question.split("_")
            self.said[kind, ".".join(labels) + "."] = answer
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, conf: ResolvConf, name: str, kind: str) -> Records:
        self.asked.append(f"{kind} {name}")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        said = self.said.get((kind, name), NXDOMAIN)
        if isinstance(said, LookupFailed):
            raise said
        if isinstance(said, Records):
            return said
        assert isinstance(said, list)
        if kind == "SRV":
            return Records(services=tuple(said), ttl_s=60.0)
        return Records(tuple(InetAddress(each.family, each.host, 0) for each in said), ttl_s=30.0)


@pytest.fixture
def hosts_file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text("192.0.2.99 here.test\n")
    return path


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_text("search a.test b.test\n")
    return path


Run = Callable[[Zone, Callable[[Lookups], Awaitable[T]]], T]


@pytest.fixture
def run(hosts_file: Path, resolv_conf: Path) -> "Run[object]":
    def run(zone: Zone, work: Callable[[Lookups], Awaitable[object]]) -> object:
        async def in_loop() -> object:
            return await work(Lookups(zone, str(hosts_file), str(resolv_conf)))

        return asyncio.run(in_loop())

    return run


def found(run: "Run[object]", zone: Zone, wanted: Wanted) -> Answer:
    answer = run(zone, lambda lookups: lookups.look_up(wanted))
    assert isinstance(answer, Answer)
    return answer


def test_both_families_at_once_and_their_addresses_in_turn(run: "Run[object]") -> None:
    zone = Zone(A_web_test=[inet(1), inet(2)], AAAA_web_test=[inet6(1), inet6(2)])
    assert found(run, zone, web()) == Answer((inet6(1), inet(1), inet6(2), inet(2)), (), 30.0)
    assert sorted(zone.asked) == ["A web.test.", "AAAA web.test."]


def test_the_shortest_ttl_counts(run: "Run[object]") -> None:
    zone = Zone(A_web_test=Records((inet(1),), ttl_s=7.0), AAAA_web_test=[inet6(1)])
    assert found(run, zone, web()).ttl_s == 7.0


@pytest.mark.parametrize(("family", "asked"), [(Family.INET, "A web.test."), (Family.INET6, "AAAA web.test.")])
def test_one_family(run: "Run[object]", family: Family, asked: str) -> None:
    zone = Zone(A_web_test=[inet(1)], AAAA_web_test=[inet6(1)])
    assert [address.family for address in found(run, zone, web(family)).addresses] == [family]
    assert zone.asked == [asked]


def test_a_machine_without_ipv6_asks_for_ipv4(run: "Run[object]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_ipv6", lambda: False)
    zone = Zone(A_web_test=[inet(1)])
    assert found(run, zone, web()).addresses == (inet(1),)
    assert zone.asked == ["A web.test."]


def test_a_family_that_has_none_is_no_problem(run: "Run[object]") -> None:
    assert found(run, Zone(A_web_test=[inet(1)]), web()) == Answer((inet(1),), (), 30.0)


def test_the_hosts_file_comes_first(run: "Run[object]") -> None:
    zone = Zone(A_here_test=[inet(1)])
    assert found(run, zone, web(host="HERE.test")).addresses == (inet(99),)
    assert zone.asked == []


def test_a_family_that_the_hosts_file_lacks_is_asked_for(run: "Run[object]") -> None:
    assert found(run, Zone(AAAA_here_test=[inet6(1)]), web(Family.INET6, "here.test")).addresses == (inet6(1),)


def test_localhost_needs_no_name_server(run: "Run[object]") -> None:
    answer = found(run, Zone(), web(host="app.localhost"))
    assert [str(address) for address in answer.addresses] == ["[::1]:80", "127.0.0.1:80"]
    assert [str(each) for each in found(run, Zone(), web(Family.INET, "localhost")).addresses] == ["127.0.0.1:80"]


def test_domains_are_searched_one_after_the_other(run: "Run[object]") -> None:
    zone = Zone(A_web_b_test=[inet(2)], A_web=[inet(3)])
    assert found(run, zone, web(host="web")).addresses == (inet(2),)
    assert [question for question in zone.asked if question.startswith("A ")] == ["A web.a.test.", "A web.b.test."]


def test_a_domain_whose_server_fails_is_passed_over_and_a_silent_one_is_not(run: "Run[object]") -> None:
    zone = Zone(A_web_a_test=SERVFAIL, AAAA_web_a_test=SERVFAIL, A_web_b_test=[inet(2)])
    assert found(run, zone, web(host="web")).addresses == (inet(2),)
    zone = Zone(A_web_a_test=SILENT, AAAA_web_a_test=SILENT, A_web_b_test=[inet(2)])
    with pytest.raises(Unanswered, match=r"^no answer$"):
        found(run, zone, web(host="web"))


def test_failures_by_their_names(run: "Run[object]") -> None:
    with pytest.raises(NoSuchName, match=r"^there is no such name \(asked for web.a.test., web.b.test., web.\)$"):
        found(run, Zone(), web(host="web"))
    with pytest.raises(NoSuchName, match=r"^there is no such name$"):
        found(run, Zone(), web(host="web.test."))
    with pytest.raises(Unanswered, match=r"^SERVFAIL$"):  # whatever else says that there is none
        found(run, Zone(A_web_test=SERVFAIL), web())
    with pytest.raises(NoSuchName, match=r"every A record is 0.0.0.0"):
        found(run, Zone(A_web_test=Records((InetAddress(Family.INET, "0.0.0.0", 0),))), web(Family.INET, "web.test."))


def test_a_family_that_is_not_answered_for_stays_what_it_was(run: "Run[object]") -> None:
    zone = Zone(A_web_test=[inet(1)], AAAA_web_test=[inet6(1)])

    async def twice(lookups: Lookups) -> Answer:
        await lookups.look_up(web())
        zone.said["A", "web.test."], zone.said["AAAA", "web.test."] = [inet(2)], SERVFAIL
        await lookups.look_up(web())
        return await lookups.look_up(web())

    assert run(zone, twice) == Answer((inet6(1), inet(2)), (), 30.0, "AAAA of web.test: SERVFAIL")


def test_a_family_that_is_gone_is_gone(run: "Run[object]") -> None:
    zone = Zone(A_web_test=[inet(1)], AAAA_web_test=[inet6(1)])

    async def twice(lookups: Lookups) -> Answer:
        await lookups.look_up(web())
        del zone.said["AAAA", "web.test."]
        return await lookups.look_up(web())

    assert run(zone, twice) == Answer((inet(1),), (), 30.0)


def test_an_answer_is_bounded(run: "Run[object]") -> None:
    many = Records(tuple(InetAddress(Family.INET6, f"2001:db8::{number:x}", 0) for number in range(1, 3000)))
    assert len(found(run, Zone(AAAA_web_test=many), web()).addresses) == ADDRESSES_MAX


def service(*services: Service, **hosts: object) -> Zone:
    zone = Zone(**hosts)  # type: ignore[arg-type]  # any of them
    zone.said["SRV", "_http._tcp.test."] = list(services)
    return zone


def test_a_service_has_the_ports_weights_and_priorities_of_its_records(run: "Run[object]") -> None:
    zone = service(
        Service(1, 3, 8080, "one.test."),
        Service(1, 1, 8081, "here.test."),
        Service(2, 9, 8082, "two.test."),
        A_one_test=[inet(1)],
        AAAA_one_test=Records((inet6(1),), ttl_s=5.0),
        A_two_test=[inet(2)],
    )
    assert found(run, zone, SERVICE) == Answer(
        (inet6(1, 8080), inet(1, 8080), inet(99, 8081), inet(2, 8082)),
        (Share(3), Share(3), Share(1), Share(9, True)),
        5.0,
    )


def test_a_host_that_is_missing_is_told_and_the_others_are_targets(run: "Run[object]") -> None:
    zone = service(Service(1, 1, 80, "one.test."), Service(2, 1, 80, "two.test."), A_two_test=[inet(2)])
    assert found(run, zone, SERVICE) == Answer((inet(2),), (Share(),), 30.0, "one.test: there is no such name")


def test_a_host_that_is_not_answered_for_stays_what_it_was(run: "Run[object]") -> None:
    zone = service(
        Service(1, 1, 80, "one.test."), Service(1, 1, 80, "two.test."), A_one_test=[inet(1)], A_two_test=[inet(2)]
    )

    async def twice(lookups: Lookups) -> Answer:
        await lookups.look_up(SERVICE)
        zone.said["A", "one.test."] = zone.said["AAAA", "one.test."] = SILENT
        zone.said["A", "two.test."] = [inet(3)]
        return await lookups.look_up(SERVICE)

    assert run(zone, twice) == Answer((inet(1), inet(3)), (Share(), Share()), 30.0, "one.test: no answer")


def test_services_that_are_none(run: "Run[object]") -> None:
    with pytest.raises(NoSuchName, match=r"says that the service is not available"):  # RFC 2782, "Target"
        found(run, service(Service(0, 0, 0, ".")), SERVICE)
    with pytest.raises(NoSuchName, match=r"there is no such name"):
        found(run, Zone(), SERVICE)
    zone = service(Service(1, 1, 80, "b.test."), Service(1, 1, 80, "a.test."), A_a_test=SERVFAIL)
    with pytest.raises(Unanswered, match=r"^a.test: SERVFAIL; b.test: there is no such name$"):
        found(run, zone, SERVICE)


def test_a_name_server_that_is_silent_is_not_asked_for_hundreds_of_hosts(run: "Run[object]") -> None:
    zone = service(*(Service(1, 1, 80, f"host{number:03}.test.") for number in range(500)))
    for number in range(500):
        zone.said["A", f"host{number:03}.test."] = zone.said["AAAA", f"host{number:03}.test."] = SILENT
    with pytest.raises(Unanswered) as caught:
        found(run, zone, SERVICE)
    assert len(zone.asked) <= 1 + 3 * LOOKUP_FDS
    assert str(caught.value).startswith("host000.test: no answer; host001.test: no answer; ")
    assert str(caught.value).endswith("; and 497 more")


def test_no_more_questions_at_once_than_there_are_descriptors_for(run: "Run[object]") -> None:
    zone = service(*(Service(1, 1, 80, f"host{number}.test.") for number in range(50)), A_host7_test=[inet(7)])
    assert found(run, zone, SERVICE).addresses == (inet(7),)
    assert zone.most_at_once == LOOKUP_FDS


def test_files_are_read_again_when_they_have_changed(run: "Run[object]", hosts_file: Path, resolv_conf: Path) -> None:
    zone = Zone(A_here_test=[inet(1)], A_web_c_test=[inet(3)])

    async def change(lookups: Lookups) -> list[object]:
        seen: list[object] = [await lookups.refresh(), await lookups.refresh()]
        hosts_file.write_text("192.0.2.98 here.test\n")
        seen += [await lookups.refresh(), await lookups.look_up(web(host="here.test")), await lookups.refresh()]
        hosts_file.unlink()
        seen += [await lookups.refresh(), await lookups.look_up(web(host="here.test"))]
        replacement = resolv_conf.with_suffix(".new")
        replacement.write_text("search c.test\n")
        os.replace(replacement, resolv_conf)
        return [*seen, await lookups.refresh(), await lookups.look_up(web(host="web"))]

    assert run(zone, change) == [
        *(False, False),
        *(True, Answer((inet(98),), (), float("inf")), False),
        *(True, Answer((inet(1),), (), 30.0)),
        *(True, Answer((inet(3),), (), 30.0)),
    ]


def test_the_first_lookups_wait_for_the_files(run: "Run[object]") -> None:
    async def at_once(lookups: Lookups) -> list[Answer]:
        return list(await asyncio.gather(*(lookups.look_up(web(host="here.test")) for _ in range(3))))

    assert run(Zone(), at_once) == [Answer((inet(99),), (), float("inf"))] * 3


def test_without_dnspython_nothing_but_the_files_is_known(
    monkeypatch: pytest.MonkeyPatch, hosts_file: Path, resolv_conf: Path
) -> None:
    def fail() -> None:
        raise ImportError("No module named 'dns'")

    monkeypatch.setattr("relayd.control.lookups._load", fail)

    async def look() -> Answer:
        lookups = Lookups(None, str(hosts_file), str(resolv_conf))
        for _ in range(2):
            with pytest.raises(Unanswered, match="No module named 'dns'"):
                await lookups.look_up(web())
        return await lookups.look_up(web(host="here.test"))

    assert asyncio.run(look()).addresses == (inet(99),)


def test_what_nobody_wants_any_more_is_forgotten(run: "Run[object]") -> None:
    zone = Zone(A_web_test=[inet(1)], AAAA_web_test=[inet6(1)])

    async def leave(lookups: Lookups) -> Answer:
        await lookups.look_up(web())
        lookups.keep([])
        zone.said["AAAA", "web.test."] = SERVFAIL
        return await lookups.look_up(web())

    answer = run(zone, leave)
    assert isinstance(answer, Answer)
    assert answer.addresses == (inet(1),)
