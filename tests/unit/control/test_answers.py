import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Family, InetAddress
from relayd.control.answers import ADDRESSES_MAX, Answer, Service, interleaved, of_services, weights
from relayd.spec import WEIGHT_MAX, Share


def inet(number: int, port: int = 0) -> InetAddress:
    return InetAddress(Family.INET, f"192.0.2.{number}", port)


def inet6(number: int, port: int = 0) -> InetAddress:
    return InetAddress(Family.INET6, f"2001:db8::{number}", port)


def test_families_take_turns_and_ipv6_begins() -> None:
    # RFC 8305, section 4
    given = [inet(1), inet(2), inet6(1), inet(3), inet6(2), inet(1)]
    assert interleaved(given) == (inet6(1), inet(1), inet6(2), inet(2), inet(3))
    assert interleaved([inet(2), inet(1)]) == (inet(2), inet(1))
    assert interleaved([inet6(1), inet6(2), inet(1)]) == (inet6(1), inet(1), inet6(2))
    assert interleaved([]) == ()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], []),
        ([0, 0], [1, 1]),
        ([5], [5]),
        ([1, 2, 256], [1, 2, 256]),
        ([100, 65535], [1, 256]),
        ([32768, 65535], [128, 256]),
        ([0, 1], [1, 256]),
        ([0, 10, 20], [1, 128, 256]),
        ([300, 300], [256, 256]),
    ],
)
def test_weights_of_srv_records(given: list[int], found: list[int]) -> None:
    assert weights(given) == found


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_weights_are_in_range_and_in_order(given: list[int]) -> None:
    found = weights(given)
    assert all(1 <= weight <= WEIGHT_MAX for weight in found)
    pairs = sorted(zip(given, found, strict=True))
    assert [weight for _, weight in pairs] == sorted(found)
    if 0 not in given:
        assert all(abs(weight / max(found) - one / max(given)) <= 1 / WEIGHT_MAX for one, weight in pairs)


def test_the_lowest_priority_is_that_of_the_targets_and_all_others_are_backups() -> None:
    services = [
        Service(20, 1, 8080, "c."),
        Service(10, 10, 80, "a."),
        Service(10, 30, 81, "b."),
        Service(30, 0, 80, "d."),
        Service(1, 1, 80, "gone."),
    ]
    hosts = {"a.": [inet(1), inet6(1)], "b.": [inet(2)], "c.": [inet(3)], "d.": [inet(4)], "gone.": []}
    assert of_services(services, hosts) == (
        (inet6(1, 80), inet(2, 81), inet(1, 80), inet(3, 8080), inet(4, 80)),
        (Share(10), Share(30), Share(10), Share(1, True), Share(1, True)),
    )


def test_of_two_records_for_one_address_the_first_by_priority_counts() -> None:
    services = [Service(2, 9, 80, "a."), Service(1, 3, 80, "b."), Service(1, 7, 80, "a.")]
    hosts = {"a.": [inet(1)], "b.": [inet(1)]}
    assert of_services(services, hosts) == ((inet(1, 80),), (Share(7),))


def test_a_service_without_an_address_is_nothing() -> None:
    assert of_services([Service(1, 1, 80, "a.")], {}) == ((), ())


def test_an_answer_is_bounded() -> None:
    hosts = {"a.": [inet6(number) for number in range(ADDRESSES_MAX + 9)]}
    addresses, shares = of_services([Service(1, 1, 80, "a.")], hosts)
    assert len(addresses) == len(shares) == ADDRESSES_MAX


def test_the_same_is_whatever_the_order_and_the_ttl() -> None:
    one = Answer((inet(1), inet(2)), (), 5.0)
    assert one.same(Answer((inet(2), inet(1)), (), 9.0, "late"))
    assert not one.same(None)
    assert not one.same(Answer((inet(1),), (), 5.0))
    assert not one.same(Answer((inet(1), inet(2)), (Share(), Share()), 5.0))
