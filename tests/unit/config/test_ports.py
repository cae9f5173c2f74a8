"""Ports of addresses: ranges, offsets, none; and whether those of targets go with those of binds."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Address, AddressError, Family, InetAddress, NameAddress, UnixAddress
from relayd.config import Loaded, Problem
from relayd.config.ports import (
    PORT_MAX,
    BindEntry,
    TargetEntry,
    parse_bind,
    parse_target,
    span,
    spans_dialled,
    target_text,
)
from relayd.config.targets import mismatch
from relayd.spec import Bind, PortRule, Target

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]

ports = st.integers(1, PORT_MAX)
hosts = st.sampled_from(["10.0.0.9", "[2001:db8::1]", "[fe80::1%eth0]", "a.example.com", "a-1.example.com"])


def inet(port: int, host: str = "10.0.0.9") -> InetAddress:
    return InetAddress(Family.INET6 if ":" in host else Family.INET, host, port)


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(ports)
    return first, draw(st.integers(first, PORT_MAX))


# What is written.


@given(hosts, spans())
def test_a_range_is_its_first_port_and_a_number(host: str, ports: tuple[int, int]) -> None:
    first, last = ports
    for entry in (parse_bind(f"{host}:{first}-{last}"), parse_target(f"{host}:{first}-{last}")):
        assert str(entry.address) == f"{host}:{first}"
        assert entry.ports == last - first + 1


def test_binds() -> None:
    assert parse_bind(":5-7") == BindEntry(InetAddress(Family.INET6, "::", 5), 3, every_host=True)
    assert parse_bind("0.0.0.0:5-5") == BindEntry(inet(5, "0.0.0.0"))
    assert parse_bind("[::]:1-65535") == BindEntry(InetAddress(Family.INET6, "::", 1), 65_535)
    assert parse_bind("unix:/run/a:5-7") == BindEntry(UnixAddress("/run/a:5-7"))
    assert parse_bind("host-1:80").address == NameAddress("host-1", 80)


@pytest.mark.parametrize(
    ("text", "address", "offset"),
    [
        ("10.0.0.9:+10000", inet(0), 10_000),
        ("10.0.0.9:+0", inet(0), 0),
        ("10.0.0.9", inet(0), 0),
        ("[2001:db8::1]:+7", inet(0, "2001:db8::1"), 7),
        ("[2001:db8::1]", inet(0, "2001:db8::1"), 0),
        ("a.example.com", NameAddress("a.example.com", 0), 0),
        ("a-1:+65534", NameAddress("a-1", 0), 65_534),
    ],
)
def test_targets_that_follow(text: str, address: Address, offset: int) -> None:
    assert parse_target(text) == TargetEntry(address, PortRule.OFFSET, offset)


@given(
    hosts,
    st.one_of(
        spans().map(lambda ports: f":{ports[0]}-{ports[1]}"), st.integers(0, 65_534).map(":+{}".format), st.just("")
    ),
)
def test_a_target_reads_as_it_is_written(host: str, tail: str) -> None:
    entry = parse_target(host + tail)
    assert parse_target(str(entry)) == entry
    assert target_text(Target(entry.address, entry.rule, entry.offset), entry.ports) == str(entry)


@pytest.mark.parametrize(
    ("text", "message", "suggestion"),
    [
        ("10.0.0.9:9-5", "reversed", "10.0.0.9:5-9"),
        ("10.0.0.9:9-0", "reversed", "10.0.0.9:1-9"),
        ("10.0.0.9:0-9", "begins at 1", "10.0.0.9:1-9"),
        ("10.0.0.9:0-0", "begins at 1", "10.0.0.9:0"),
        ("10.0.0.9:60000-65536", "port 65536 is out of range: 1 to 65535", "10.0.0.9:60000-65535"),
        ("10.0.0.9:70000-80000", "port 70000 is out of range", ""),
        ("10.0.0.9:1-999999999", "port 999999999 is out of range", "10.0.0.9:1-65535"),
        ("10.0.0.9:1-9999999999", "is not a port", ""),
        ("10.0.0.9:5..9", "is written first-last", "10.0.0.9:5-9"),
        ("10.0.0.9:5 - 9", "is written first-last", "10.0.0.9:5-9"),
        ("10.0.0.9:5:9", "is written first-last", "10.0.0.9:5-9"),
        ("10.0.0.9:5\N{EN DASH}9", "is written first-last", "10.0.0.9:5-9"),
        ("::1:5-9", "brackets", "[::1]:5-9"),
        ("2001:db8::1:80", "brackets", "[2001:db8::1]:80"),
        ("10.0.0.9:5-", "is not a port", ""),
        ("10.0.0.9:-9", "", ""),
        ("*:5-9", "without a host", ":5-9"),
        ("10.0.0.300:5-9", "is not an IPv4 address", ""),
        ("fe80", "", ""),
        ("5-9", "", ""),
    ],
)
def test_wrong_ranges(text: str, message: str, suggestion: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_bind(text)
    assert message in str(caught.value)
    if message:
        assert caught.value.suggestion == suggestion


@pytest.mark.parametrize(
    ("text", "message", "suggestion"),
    [
        ("10.0.0.9:+65535", "leads beyond port 65535", ""),
        ("10.0.0.9:+x", "is not a port", ""),
        ("10.0.0.9:-100", "an offset is added", ""),
        ("10.0.0.9:+-100", "an offset is added", ""),
        (":+100", "needs a host", ""),
        ("", "the port is missing", ""),
        ("[fe80::1]:+5", "needs its interface", "[fe80::1%eth0]:+5"),
        ("[fe80::1]", "needs its interface", "[fe80::1%eth0]"),
        ("2001:db8::1", "stands in brackets", "[2001:db8::1]:80"),
        ("::1:+5", "brackets", "[::1]:+5"),
        ("80", "the colon before the port is missing", ":80"),
        ("10.0.0.300", "is not an IPv4 address", ""),
        ("/run/a.sock", "written with unix:", "unix:/run/a.sock"),
        ("http://a", "has no scheme", "a"),
    ],
)
def test_wrong_targets(text: str, message: str, suggestion: str) -> None:
    with pytest.raises(AddressError, match=message) as caught:
        parse_target(text)
    assert caught.value.suggestion == suggestion


# What it means.


@given(spans(), st.data())
def test_every_port_of_a_range_has_the_port_at_its_place(bind_ports: tuple[int, int], data: st.DataObject) -> None:
    first, last = bind_ports
    bind = Bind(inet(first, "0.0.0.0"), last - first + 1)
    begin = data.draw(st.integers(1, PORT_MAX - (last - first)))
    offset = data.draw(st.integers(0, PORT_MAX - last))
    place = data.draw(st.integers(0, last - first))
    by_range = parse_target(f"10.0.0.9:{begin}-{begin + last - first}")
    by_offset = parse_target(f"10.0.0.9:+{offset}")
    fixed = Target(inet(begin))
    for entry, port in ((by_range, begin + place), (by_offset, first + place + offset)):
        assert mismatch(entry, (bind,)) == ("", "")
        target = Target(entry.address, entry.rule, entry.offset)
        if bind.ports > 1 or entry is by_offset:
            assert target.at(first + place, place) == inet(port)
        ((low, high),) = spans_dialled(target, (bind,))
        assert low <= port <= high
        assert high - low == (last - first if target.rule is not PortRule.FIXED else 0)
    assert fixed.at(first + place, place) == inet(begin)


@given(spans())
def test_the_addresses_of_a_bind(ports: tuple[int, int]) -> None:
    first, last = min(ports[0], 65_000), min(ports[1], 65_400)
    last = max(first, min(last, first + 300))
    bind = Bind(inet(first, "::1"), last - first + 1)
    assert [address.sockaddr[1] for address in bind.addresses()] == list(range(first, last + 1))
    assert span(bind) == (first, last)
    assert parse_bind(str(bind)) == BindEntry(bind.address, bind.ports)


def test_the_address_of_a_unix_bind() -> None:
    bind = Bind(UnixAddress("/run/a"))
    assert list(bind.addresses()) == [bind.address]
    assert (span(bind), str(bind)) == ((0, 0), "unix:/run/a")


def test_names_follow_as_addresses_do() -> None:
    name = NameAddress("a.example.com", 0)
    assert Target(name, PortRule.OFFSET, 5).at(80, 3) == NameAddress("a.example.com", 85)
    assert Target(NameAddress("a", 70), PortRule.INDEX).at(80, 3) == NameAddress("a", 73)
    scoped = InetAddress(Family.INET6, "fe80::1", 0, "eth0")
    assert Target(scoped, PortRule.OFFSET).at(80, 0) == InetAddress(Family.INET6, "fe80::1", 80, "eth0")
    assert Target(UnixAddress("@a")).at(80, 3) == UnixAddress("@a")


# In a listener.

LISTENER = '[listeners.game]\nbind = {}\ntargets = ["192.0.2.1:9", {}]'


@pytest.mark.parametrize(
    ("bind", "target", "rule"),
    [
        ('"0.0.0.0:27000-27099"', '"10.0.0.9:37000-37099"', PortRule.INDEX),
        ('"0.0.0.0:27000-27099"', '{address = "10.0.0.9:+10000"}', PortRule.OFFSET),
        ('"0.0.0.0:27000-27099"', '"a.example.com"', PortRule.OFFSET),
        ('"0.0.0.0:27000-27099"', '"10.0.0.9:80"', PortRule.FIXED),
        ('"0.0.0.0:27000-27099"', '"unix:/run/a"', PortRule.FIXED),
        ('["0.0.0.0:5-9", "[::1]:15-19"]', '"10.0.0.9:25-29"', PortRule.INDEX),
        ('["0.0.0.0:5-9", "[::1]:7"]', '"10.0.0.9"', PortRule.OFFSET),
        ('"0.0.0.0:5-5"', '"10.0.0.9:6-6"', PortRule.FIXED),
    ],
)
def test_that_go_together(loaded: Load, bind: str, target: str, rule: PortRule) -> None:
    listener = loaded(LISTENER.format(bind, target)).spec.listeners[0]
    assert listener.targets[1].rule is rule


@pytest.mark.parametrize(
    ("bind", "target", "column", "message", "suggestion"),
    [
        (
            '"0.0.0.0:27000-27099"',
            '"10.0.0.9:37000-37098"',
            27,
            '"10.0.0.9:37000-37098": 99 ports for the 100 ports of "0.0.0.0:27000-27099"',
            'did you mean "10.0.0.9:37000-37099"?',
        ),
        ('"0.0.0.0:80"', '"10.0.0.9:1-2"', 27, '2 ports for the 1 port of "0.0.0.0:80"', 'did you mean "10.0.0.9:1"?'),
        ('"0.0.0.0:1-9"', '"10.0.0.9:65530-65535"', 27, "6 ports for the 9 ports of", ""),
        ('["0.0.0.0:1-2", "[::1]:1-3"]', '"10.0.0.9:1-2"', 27, '2 ports for the 3 ports of "[::1]:1-3"', None),
        ('"unix:@a"', '"10.0.0.9:1-2"', 27, 'a range of ports needs a bind of as many; "unix:@a" has none', ""),
        ('"unix:@a"', '"10.0.0.9:+2"', 27, 'counts from the port of the bind; "unix:@a" has none', ""),
        ('"unix:@a"', '"db.example.com"', 27, "the port is missing", 'did you mean "db.example.com:80"?'),
        ('"0.0.0.0:0"', '"10.0.0.9"', 27, "which the kernel chooses", ""),
        (
            '"0.0.0.0:60000-60010"',
            '"10.0.0.9:+10000"',
            27,
            '60010 of "0.0.0.0:60000-60010" and 10000 is 70010, beyond port 65535',
            "help: the offset is at most 5525 here",
        ),
        ('"0.0.0.0:80"', '"0.0.0.0:+5"', 27, "is every address", 'did you mean "127.0.0.1:+5"?'),
        ('"0.0.0.0:80"', '"[::]"', 27, "is every address", 'did you mean "[::1]"?'),
    ],
)
def test_that_do_not(
    problems: Problems, bind: str, target: str, column: int, message: str, suggestion: str | None
) -> None:
    (problem,) = problems(LISTENER.format(bind, target))
    assert (problem.line, problem.column, problem.key) == (3, column, "listeners.game.targets[1]")
    assert message in problem.message
    assert suggestion is None or problem.suggestion == suggestion


@pytest.mark.parametrize(
    ("value", "column", "key", "message", "suggestion"),
    [
        ('"0.0.0.0:27099-27000"', 8, "bind", "reversed", 'did you mean "0.0.0.0:27000-27099"?'),
        ('["[::1]:5", "0.0.0.0:65000-66000"]', 20, "bind[1]", "out of range", 'did you mean "0.0.0.0:65000-65535"?'),
        ('["[::1]:5-9", "[::1]:5-9"]', 22, "bind[1]", '"[::1]:5-9" stands twice: ', ""),
        ('["[::1]:5-9", "[::1]:8-12"]', 22, "bind[1]", "cannot both be bound", "help: both have ports 8 to 9"),
        ('["[::1]:5-9", "[::1]:9"]', 22, "bind[1]", "cannot both be bound", "help: both have port 9"),
        ('"0.0.0.0:+5"', 8, "bind", "is not a port", ""),
    ],
)
def test_wrong_binds(problems: Problems, value: str, column: int, key: str, message: str, suggestion: str) -> None:
    (problem,) = problems(f'[listeners.game]\nbind = {value}\ntargets = "10.0.0.1:1"')
    assert (problem.line, problem.column, problem.key) == (2, column, f"listeners.game.{key}")
    assert message in problem.message
    assert problem.suggestion == suggestion


def test_a_wrong_bind_is_no_reason_to_complain_about_targets(problems: Problems) -> None:
    (problem,) = problems(LISTENER.format('"0.0.0.0:9-1"', '"10.0.0.9:1-2"'))
    assert problem.key == "listeners.game.bind"


def test_a_range_of_every_address(loaded: Load) -> None:
    (bind,) = loaded(LISTENER.format('":5000-5009"', '"10.0.0.9"')).spec.listeners[0].binds
    assert (bind.ports, str(bind).rpartition(":")[2]) == (10, "5000-5009")
