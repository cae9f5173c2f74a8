"""Weights, backups and ways to balance, as a listener has them (T1)."""

from collections import Counter

import pytest

from relayd.address import Family, InetAddress, NameAddress
from relayd.choosing.balance import RoundRobin
from relayd.choosing.group import Choice, Group, Groups, Rules, client_key
from relayd.spec import Balance, PortRule, Share, Target

NAME = NameAddress("app.example.com", 80)


def inet(number: int) -> InetAddress:
    return InetAddress(Family.INET, f"192.0.2.{number}", 80)


def group(*shares: Share, balance: Balance = Balance.ROUND_ROBIN) -> Group:
    """Of the targets 1, 2, 3 and so on."""
    return Group([Target(inet(number)) for number, _ in enumerate(shares, 1)], 0, 0, Rules(balance, shares))


def number_of(choice: Choice | None) -> int:
    assert isinstance(choice, Choice)
    assert isinstance(choice.address, InetAddress)
    return int(choice.address.host.rpartition(".")[2])


def numbers(chooser: Group, count: int) -> list[int]:
    return [number_of(chooser.pick()) for _ in range(count)]


def test_weights_are_exact() -> None:
    chooser = group(Share(5), Share(), Share(2))
    for _ in range(20):
        assert Counter(numbers(chooser, 8)) == {1: 5, 2: 1, 3: 2}


def test_every_address_of_a_name_has_its_weight() -> None:
    chooser = Group([Target(NAME), Target(inet(9))], 0, 0, Rules(shares=(Share(2), Share())))
    chooser.resolved(NAME, (inet(1), inet(2)))
    assert Counter(numbers(chooser, 5)) == {1: 2, 2: 2, 9: 1}
    chooser.resolved(NAME, (inet(2), inet(3)))
    assert Counter(numbers(chooser, 50)) == {2: 20, 3: 20, 9: 10}


@pytest.mark.parametrize("balance", list(Balance))
def test_backups_are_for_those_for_whom_all_others_have_failed(balance: Balance) -> None:
    chooser = group(Share(backup=True), Share(), Share(), Share(backup=True), balance=balance)
    assert set(numbers(chooser, 50)) <= {2, 3}
    tried: list[Choice] = []
    while (choice := chooser.pick(tried, b"192.0.2.200")) is not None:
        tried.append(choice)
    assert {number_of(choice) for choice in tried[:2]} == {2, 3}
    assert {number_of(choice) for choice in tried[2:]} == {1, 4}
    assert len(chooser) == 4


def test_a_backup_that_is_none_any_more() -> None:
    chooser = group(Share(), Share(backup=True), balance=Balance.LEAST_CONNECTIONS)
    (first,) = (chooser.pick(),)
    assert first is not None
    backup = chooser.pick([first])
    assert backup is not None
    for choice in (first, first, backup):
        chooser.begun(choice)
    targets = [Target(inet(1)), Target(inet(2))]
    chooser.retarget(targets, Rules(Balance.LEAST_CONNECTIONS))
    assert numbers(chooser, 1) == [2]  # it has one, and the other two
    chooser.retarget(targets, Rules(Balance.LEAST_CONNECTIONS, (Share(backup=True), Share())))
    assert numbers(chooser, 3) == [2, 2, 2]
    for choice in (first, first, backup):
        chooser.ended(choice)


def test_what_has_begun_is_known_to_another_balance() -> None:
    chooser = group(Share(), Share(), Share())
    begun = [choice for _ in range(2) if (choice := chooser.pick()) is not None]
    for choice in begun:
        chooser.begun(choice)
    targets = [Target(inet(number)) for number in (1, 2, 3)]
    chooser.retarget(targets, Rules(Balance.LEAST_CONNECTIONS))
    assert numbers(chooser, 1) == [3]
    for choice in begun:
        chooser.ended(choice)
    with pytest.raises(RuntimeError):
        chooser.ended(begun[0])


def test_the_first_that_does_not_fail_is_that_of_the_file_whatever_a_name_resolves_to() -> None:
    chooser = Group([Target(NAME), Target(inet(9))], 0, 0, Rules(Balance.FIRST))
    assert numbers(chooser, 2) == [9, 9]
    chooser.resolved(NAME, (inet(1),))
    assert numbers(chooser, 2) == [1, 1]
    chooser.resolved(NAME, (inet(2),))
    assert numbers(chooser, 2) == [2, 2]


def test_no_look_at_every_target_to_know_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every new session asks.
    chooser = group(Share(), Share(2), Share(backup=True))
    chooser.pick()

    def looked(_: object) -> list[Choice]:
        raise AssertionError("that is O(n)")

    monkeypatch.setattr(RoundRobin, "order", looked)
    assert len(chooser) == 3


def test_a_client_has_its_target() -> None:
    one, other = (
        Groups([Target(inet(n)) for n in range(1, 6)], Rules(Balance.SOURCE_HASH)).at(80, 0) for _ in range(2)
    )
    assert one.keyed
    seen: Counter[int] = Counter()
    for number in range(500):
        key = f"198.51.100.{number}".encode()
        choice = number_of(one.pick(key=key))
        assert choice == number_of(one.pick(key=key)) == number_of(other.pick(key=key))
        seen[choice] += 1
    assert len(seen) == 5


def test_each_port_has_its_shares() -> None:
    targets = [Target(InetAddress(Family.INET, f"192.0.2.{n}", 0), PortRule.OFFSET, 1) for n in (1, 2)]
    groups = Groups(targets, Rules(shares=(Share(3), Share())))
    for port in (5000, 5001):
        assert Counter(numbers(groups.at(port, 0), 4)) == {1: 3, 2: 1}
    groups.retarget(targets)
    assert Counter(numbers(groups.at(5000, 0), 4)) == {1: 2, 2: 2}


def following(rule: PortRule, offset: int, port: int) -> list[Target]:
    hosts = [Target(InetAddress(Family.INET, f"192.0.2.{number}", port), rule, offset) for number in (1, 2, 3)]
    return [Target(NameAddress("app.example.com", port), rule, offset), *hosts]


@pytest.mark.parametrize(("rule", "offset", "port"), [(PortRule.OFFSET, 7, 0), (PortRule.INDEX, 0, 9000)])
def test_the_ports_of_a_range_send_a_client_to_the_same_host_by_one_table(
    rule: PortRule, offset: int, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 10,000 tables would be up to gigabytes, and each takes time that the loop does not have.
    targets = following(rule, offset, port)
    groups = Groups(targets, Rules(Balance.SOURCE_HASH))
    groups.resolved(NameAddress("app.example.com", port), (InetAddress(Family.INET, "192.0.2.9", port),))
    clients = [f"198.51.100.{number}".encode() for number in range(200)]
    first = [number_of(groups.at(5000, 0).pick(key=key)) for key in clients]
    assert set(first) == {1, 2, 3, 9}
    monkeypatch.setattr("relayd.choosing.maglev._maglev", None)
    for index in (1, 2, 500):
        assert [number_of(groups.at(5000 + index, index).pick(key=key)) for key in clients] == first


def test_two_rules_for_one_host_are_two() -> None:
    host = InetAddress(Family.INET, "192.0.2.1", 0)
    targets = [Target(host, PortRule.OFFSET, 7), Target(host, PortRule.OFFSET, 8), Target(inet(1))]
    chooser = Groups(targets, Rules(Balance.SOURCE_HASH)).at(5000, 0)
    assert len({choice.port for choice in (chooser.pick(key=str(n).encode()) for n in range(50)) if choice}) == 3


@pytest.mark.parametrize(
    ("sockaddr", "key"),
    [
        (("192.0.2.1", 4000), b"192.0.2.1"),
        (("::ffff:192.0.2.1", 4000, 0, 0), b"192.0.2.1"),
        (("2001:db8::1", 4000, 0, 0), b"2001:db8::1"),
        (("fe80::1%eth0", 4000, 0, 2), b"fe80::1"),
        (("fe80::1%eth0.100", 4000, 0, 3), b"fe80::1"),
        ("/run/client.sock", b""),
        (b"\0name", b""),
        ("", b""),
    ],
)
def test_who_a_client_is(sockaddr: object, key: bytes) -> None:
    assert client_key(sockaddr) == key
