from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Address, Family, InetAddress, NameAddress, ServiceAddress, UnixAddress
from relayd.choosing.group import Choice, Group, Groups, Rules
from relayd.spec import Balance, PortRule, Share, Target

NAME = NameAddress("app.example.com", 80)


def inet(number: int) -> InetAddress:
    return InetAddress(Family.INET, f"192.0.2.{number}", 80)


def group(*addresses: Address) -> Group:
    return Group([Target(address) for address in addresses])


def labels(chooser: Group, count: int) -> list[str]:
    picked = [chooser.pick() for _ in range(count)]
    return [choice.label if choice else "" for choice in picked]


@given(st.integers(1, 9), st.integers(0, 40))
def test_turns_are_exact_and_begin_with_the_first(targets: int, picks: int) -> None:
    # T1
    chooser = group(*(inet(number) for number in range(targets)))
    assert labels(chooser, picks) == [str(inet(number % targets)) for number in range(picks)]


def test_what_was_tried_is_not_picked_again() -> None:
    chooser = group(inet(1), inet(2), inet(3))
    tried: tuple[Choice, ...] = ()
    while (choice := chooser.pick(tried)) is not None:
        assert choice not in tried
        tried = (*tried, choice)
    assert len(tried) == 3


def test_a_failing_target_costs_the_others_no_turn() -> None:
    chooser = group(inet(1), inet(2), inet(3))
    served: Counter[str] = Counter()
    for _ in range(300):
        choice = chooser.pick()
        assert choice is not None
        if choice.label == str(inet(2)):
            choice = chooser.pick((choice,))
            assert choice is not None
        served[choice.label] += 1
    assert served[str(inet(2))] == 0
    assert sum(served.values()) == 300


def test_a_name_is_no_choice_before_it_is_resolved() -> None:
    # T3
    chooser = group(NAME)
    assert len(chooser) == 0
    assert chooser.pick() is None
    chooser.resolved(NAME, (inet(1), inet(2)))
    assert len(chooser) == 2
    assert labels(chooser, 3) == [str(inet(1)), str(inet(2)), str(inet(1))]
    chooser.resolved(NAME, (inet(3),))
    assert labels(chooser, 2) == [str(inet(3)), str(inet(3))]


def inet6(number: int) -> InetAddress:
    return InetAddress(Family.INET6, f"2001:db8::{number}", 80)


@pytest.mark.parametrize("balance", list(Balance))
def test_after_an_address_of_a_name_comes_one_of_the_other_family(balance: Balance) -> None:
    # T3; RFC 8305: where one family gets nowhere, none of it does
    chooser = Group([Target(NAME)], rules=Rules(balance))
    chooser.resolved(NAME, (inet6(1), inet(1), inet6(2), inet(2), inet6(3)))
    for number in range(20):
        key = bytes([number])
        tried: list[Choice] = []
        while (choice := chooser.pick(tried, key)) is not None:
            tried.append(choice)
            chooser.pick((), key)  # somebody else
        families = [choice.af for choice in tried]
        assert len(set(families[:2])) == len(set(families[1:3])) == len(set(families[2:4])) == 2
        assert len(tried) == len(set(tried)) == 5
    chooser.resolved(NAME, (inet6(1), inet6(2)))  # and none where there is none
    tried = []
    while (choice := chooser.pick(tried)) is not None:
        tried.append(choice)
    assert len(tried) == 2


def test_among_addresses_of_the_file_no_family_goes_first() -> None:
    chooser = group(inet(1), inet(2), inet6(1))
    first = chooser.pick()
    assert first is not None
    assert [choice.label for choice in [first, chooser.pick((first,))] if choice] == [str(inet(1)), str(inet(2))]


def test_a_service_has_the_shares_of_its_records() -> None:
    service = ServiceAddress("_http._tcp.test")
    chooser = Group([Target(service)])
    chooser.resolved(service, (inet(1), inet(2), inet(3)), (Share(3), Share(1), Share(7, backup=True)))
    assert Counter(labels(chooser, 8)) == {str(inet(1)): 6, str(inet(2)): 2}
    chooser.resolved(service, (inet(1), inet(2), inet(3)), (Share(1), Share(1), Share(2)))
    assert Counter(labels(chooser, 8)) == {str(inet(1)): 2, str(inet(2)): 2, str(inet(3)): 4}


def test_all_of_a_service_that_is_a_backup_is_one() -> None:
    service = ServiceAddress("_http._tcp.test")
    chooser = Group([Target(inet(9)), Target(service)], rules=Rules(shares=(Share(), Share(backup=True))))
    chooser.resolved(service, (inet(1), inet(2)), (Share(3), Share(1, backup=True)))
    assert set(labels(chooser, 8)) == {str(inet(9))}
    tried = [choice for choice in chooser if choice.label == str(inet(9))]
    others = [chooser.pick(tried) for _ in range(8)]
    assert Counter(choice.label for choice in others if choice) == {str(inet(1)): 6, str(inet(2)): 2}


def test_the_same_answer_changes_nothing() -> None:
    chooser = group(inet(1), NAME)
    chooser.resolved(NAME, (inet(2), inet(3)))
    seen = []
    for _ in range(6):
        seen += labels(chooser, 1)
        chooser.resolved(NAME, (inet(3), inet(2)))  # name servers rotate them
    assert seen == [str(inet(number)) for number in (1, 2, 3, 1, 2, 3)]


def test_a_new_answer_goes_on_where_the_old_one_was() -> None:
    chooser = group(inet(1), NAME, inet(9))
    chooser.resolved(NAME, (inet(2), inet(3)))
    assert labels(chooser, 2) == [str(inet(1)), str(inet(2))]
    chooser.resolved(NAME, (inet(3), inet(4), inet(5)))  # 4 has the place of 2, 5 is one more
    assert labels(chooser, 6) == [str(inet(number)) for number in (3, 9, 1, 4, 5, 3)]
    chooser.resolved(NAME, (inet(6),))
    assert labels(chooser, 4) == [str(inet(number)) for number in (9, 1, 6, 9)]


def test_before_the_first_pick_the_order_is_that_of_the_file() -> None:
    chooser = group(NAME, inet(9))
    chooser.resolved(NAME, (inet(1), inet(2)))
    chooser.resolved(NAME, (inet(3), inet(2), inet(4)))
    assert labels(chooser, 4) == [str(inet(number)) for number in (3, 2, 4, 9)]


@given(
    st.lists(st.tuples(st.sets(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2)), max_size=60),
    st.sampled_from([set(), {7}]),
)
def test_no_target_starves_by_a_name_that_resolves_to_something_else_all_the_time(
    answers: list[tuple[set[int], int]], always: set[int]
) -> None:
    fixed = {inet(101), inet(102)}
    chooser = group(inet(101), NAME, inet(102))
    most = len(fixed) + 4 + len(always)
    waited = dict.fromkeys(("name", *map(str, fixed), *(str(inet(number)) for number in always)), 0)
    for changing, picks in answers:
        answer = changing | always
        addresses = tuple(inet(number) for number in answer)
        chooser.resolved(NAME, addresses)
        assert len(chooser) == len(fixed) + len(answer)
        for _ in range(picks):
            choice = chooser.pick()
            assert choice is not None
            assert choice.address in {*addresses, *fixed}
            served = {choice.label, "name" if choice.address in addresses else ""}
            waited = {who: 0 if who in served else turns + 1 for who, turns in waited.items()}
            assert max(waited.values()) <= most, waited


@given(st.lists(st.sets(st.integers(1, 6), min_size=1), min_size=1, max_size=20), st.integers(0, 9))
def test_after_an_answer_turns_are_exact_again(answers: list[set[int]], picks: int) -> None:
    # T1
    chooser = group(inet(101), NAME)
    for answer in answers:
        labels(chooser, picks)
        chooser.resolved(NAME, tuple(inet(number) for number in answer))
    once = labels(chooser, len(chooser))
    assert sorted(once) == sorted(str(inet(number)) for number in (*answers[-1], 101))
    assert labels(chooser, len(chooser)) == once


def test_a_name_of_somebody_else_changes_nothing() -> None:
    chooser = group(inet(1), inet(2))
    assert labels(chooser, 1) == [str(inet(1))]
    chooser.resolved(NAME, (inet(3),))
    assert labels(chooser, 1) == [str(inet(2))]


def test_an_address_that_comes_twice_is_one_choice() -> None:
    chooser = group(inet(1), NAME)
    chooser.resolved(NAME, (inet(1), inet(2)))
    assert len(chooser) == 2


def test_what_dialling_needs_is_worked_out() -> None:
    v6 = InetAddress(Family.INET6, "2001:db8::1", 443)
    scoped = InetAddress(Family.INET6, "fe80::1", 443, "eth0")
    unix, abstract = UnixAddress("/run/app.sock"), UnixAddress("@app")
    chooser = group(v6, scoped, unix, abstract)
    choices = [chooser.pick() for _ in range(4)]
    assert [(choice.af, choice.sockaddr, choice.label) for choice in choices if choice] == [
        (Family.INET6.af, ("2001:db8::1", 443, 0, 0), "[2001:db8::1]:443"),
        (Family.INET6.af, None, "[fe80::1%eth0]:443"),
        (Family.UNIX.af, "/run/app.sock", "unix:/run/app.sock"),
        (Family.UNIX.af, b"\0app", "unix:@app"),
    ]


# Ports that follow the bind.


def test_fixed_targets_have_one_group_for_all_ports() -> None:
    groups = Groups([Target(inet(1)), Target(inet(2))])
    assert groups.at(5000, 0) is groups.at(5001, 1)
    assert len(list(groups)) == 1
    assert [labels(groups.at(port, 0), 1) for port in (1, 2, 3)] == [
        ["192.0.2.1:80"],
        ["192.0.2.2:80"],
        ["192.0.2.1:80"],
    ]


def test_each_port_has_its_own_choices_and_its_own_turn() -> None:
    by_offset = Target(InetAddress(Family.INET, "192.0.2.1", 0), PortRule.OFFSET, 100)
    by_index = Target(InetAddress(Family.INET6, "fe80::1", 7000, "lo"), PortRule.INDEX)
    groups = Groups([by_offset, by_index, Target(UnixAddress("@a"))])
    assert groups.at(5000, 0) is groups.at(5000, 0)
    assert labels(groups.at(5003, 3), 4) == ["192.0.2.1:5103", "[fe80::1%lo]:7003", "unix:@a", "192.0.2.1:5103"]
    assert labels(groups.at(5000, 0), 2) == ["192.0.2.1:5100", "[fe80::1%lo]:7000"]
    assert len(groups.at(5009, 9)) == 3


def test_a_name_has_the_port_of_each_bind() -> None:
    name = NameAddress("app.example.com", 0)
    groups = Groups([Target(name, PortRule.OFFSET), Target(NAME)])
    before = groups.at(5000, 0)
    assert len(before) == 0
    groups.resolved(name, (InetAddress(Family.INET, "192.0.2.1", 0), InetAddress(Family.INET6, "2001:db8::1", 0)))
    assert labels(before, 2) == ["192.0.2.1:5000", "[2001:db8::1]:5000"]
    # A port that was not asked for before knows what has been resolved.
    assert labels(groups.at(5001, 1), 2) == ["192.0.2.1:5001", "[2001:db8::1]:5001"]
    groups.resolved(NAME, (inet(9),))
    assert labels(before, 3) == ["192.0.2.1:5000", "[2001:db8::1]:5000", "192.0.2.9:80"]
    groups.resolved(NameAddress("other", 0), (inet(1),))
    assert len(before) == 3
