"""Who gets clients while targets are down, drained, full, or suspects."""

from collections import Counter
from collections.abc import Sequence

import pytest

from relayd.address import Family, InetAddress
from relayd.choosing.group import Choice, Group, Groups, Rules
from relayd.choosing.pool import Pool, Pools
from relayd.choosing.suspects import FIRST_S
from relayd.spec import Balance, Health, Ordered, PortRule, Share, Target, TargetState

CHOICES = pytest.mark.parametrize("balance", list(Balance), ids=lambda balance: balance.value)


def inet(number: int) -> InetAddress:
    return InetAddress(Family.INET, f"192.0.2.{number}", 80)


def group(pool: Pool, shares: Sequence[Share], balance: Balance = Balance.ROUND_ROBIN, **health: object) -> Group:
    rules = Rules(balance, tuple(shares), Health(**health), patience_s=5.0)  # type: ignore[arg-type]  # any of them
    return Group([Target(inet(number)) for number, _ in enumerate(shares, 1)], 0, 0, rules, pool)


def state(
    number: int, *, up: bool = True, ordered: Ordered = Ordered.ENABLED, weight: int | None = None
) -> TargetState:
    return TargetState("", str(inet(number)), up, ordered, weight)


def say(pool: Pool, *states: TargetState, now: float = 0.0) -> None:
    pool.says({each.target: each for each in states}, now)


class Ear:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def target_failed(
        self, pool: str, target: str, label: str, reason: str, *, first: bool, datagrams: bool, news: bool
    ) -> None:
        """As of `Hear`."""
        self.heard.append((pool, target, label, reason, first, datagrams, news))

    def target_worked(self, pool: str, target: str, label: str) -> None:
        """As of `Hear`."""
        self.heard.append((pool, target, label))


def picked(chooser: Group, count: int, now: float = 0.0) -> Counter[int]:
    """How many of so many clients, all different, each target gets; 0 is none."""
    counts: Counter[int] = Counter()
    for number in range(count):
        choice = chooser.pick((), number.to_bytes(4, "big"), now)
        counts[int(choice.label.split(":")[0].rpartition(".")[2]) if choice else 0] += 1
    return counts


def choice(chooser: Group, number: int) -> Choice:
    return next(each for each in chooser if each.label == str(inet(number)))


@CHOICES
def test_nobody_is_sent_to_a_target_that_is_down(balance: Balance) -> None:
    pool = Pool()
    chooser = group(pool, [Share()] * 3, balance)
    assert sum(picked(chooser, 60).values()) == 60
    say(pool, state(1, up=False))
    assert picked(chooser, 60).keys() <= {2, 3}
    say(pool)
    assert picked(chooser, 60)[1] > 0


@CHOICES
def test_a_backup_gets_clients_when_no_other_target_is_up(balance: Balance) -> None:
    pool = Pool()
    chooser = group(pool, [Share(), Share(), Share(backup=True)], balance)
    say(pool, state(1, up=False))
    assert picked(chooser, 10) == {2: 10}
    say(pool, state(1, up=False), state(2, up=False))
    assert picked(chooser, 10) == {3: 10}
    say(pool, state(2, up=False))
    assert picked(chooser, 10) == {1: 10}


@CHOICES
def test_with_all_of_them_down_all_are_tried_or_none(balance: Balance) -> None:
    pool = Pool()
    trusting = group(pool, [Share(), Share(), Share(backup=True)], balance)
    strict = group(pool, [Share(), Share(), Share(backup=True)], balance, fail_open=False)
    say(pool, *(state(number, up=False) for number in (1, 2, 3)))
    assert picked(trusting, 50).keys() <= {1, 2}
    assert picked(strict, 50) == {0: 50}


@CHOICES
def test_what_an_operator_has_closed_is_not_opened_by_failures(balance: Balance) -> None:
    pool = Pool()
    chooser = group(pool, [Share()] * 3, balance)
    say(pool, state(1, ordered=Ordered.DRAINED), state(2, ordered=Ordered.DISABLED), state(3, up=False))
    assert picked(chooser, 20) == {3: 20}
    say(pool, state(1, ordered=Ordered.DRAINED), state(2, ordered=Ordered.DISABLED), state(3, ordered=Ordered.DRAINED))
    assert picked(chooser, 20) == {0: 20}


@CHOICES
def test_that_those_that_are_up_are_full_is_no_reason_to_try_those_that_are_down(balance: Balance) -> None:
    pool = Pool()
    chooser = group(pool, [Share(max_connections=1), Share()], balance)
    say(pool, state(2, up=False))
    found = chooser.pick()
    assert found is not None
    chooser.begun(found)
    assert chooser.pick() is None
    chooser.ended(found)
    assert chooser.pick() is found


def test_an_operator_gives_another_weight() -> None:
    pool = Pool()
    chooser = group(pool, [Share(), Share(2)])
    say(pool, state(1, weight=8))
    assert picked(chooser, 100) == {1: 80, 2: 20}
    say(pool)
    assert picked(chooser, 99) == {1: 33, 2: 66}


@CHOICES
def test_a_target_that_is_full_gets_no_more_until_one_has_ended(balance: Balance) -> None:
    pool = Pool()
    chooser = group(pool, [Share(max_connections=3), Share(max_connections=3)], balance)
    live = []
    for number in range(6):
        found = chooser.pick((), number.to_bytes(4, "big"))
        assert found is not None
        chooser.begun(found)
        live.append(found)
    assert Counter(each.label for each in live) == {str(inet(1)): 3, str(inet(2)): 3}
    assert chooser.pick() is None
    chooser.ended(live[0])
    again = chooser.pick()
    assert again is not None
    assert again.label == live[0].label


@pytest.mark.parametrize("fail_open", [True, False])
def test_who_comes_is_to_wait_where_those_that_could_have_a_client_are_full(fail_open: bool) -> None:
    pool = Pool()
    chooser = group(pool, [Share(max_connections=1), Share(max_connections=1), Share()], fail_open=fail_open)
    assert chooser.limited
    say(pool, state(3, up=False), state(2, ordered=Ordered.DRAINED))
    assert not chooser.full(0.0)
    found = chooser.pick()
    assert found is not None
    chooser.begun(found)
    assert chooser.full(0.0)
    say(pool, state(1, up=False), state(3, up=False), state(2, ordered=Ordered.DRAINED))
    assert not chooser.full(0.0)  # with all down it is for pick to say what is done: try them, or refuse
    say(pool)
    assert not chooser.full(0.0)
    assert not group(Pool(), [Share()]).full(0.0)


def test_groups_of_a_pool_fill_a_target_together_and_workers_have_their_parts() -> None:
    parts = []
    for worker in (1, 2, 3):
        pool = Pools(worker, 3)["app"]
        one, other = (group(pool, [Share(max_connections=5)]) for _ in range(2))
        count = 0
        while (found := (one, other)[count % 2].pick()) is not None:
            (one, other)[count % 2].begun(found)
            count += 1
        parts.append(count)
    assert parts == [2, 2, 1]


@CHOICES
def test_a_suspect_is_passed_over_tried_by_one_and_trusted_again(balance: Balance) -> None:
    chooser = group(Pool(), [Share()] * 3, balance)
    first = choice(chooser, 1)
    chooser.failed(first, "connection refused", 10.0)
    assert picked(chooser, 90, 10.0).keys() <= {2, 3}
    later = 10.0 + FIRST_S
    assert picked(chooser, 90, later)[1] == 1
    chooser.worked(first, 11.0)
    assert not chooser.suspicious
    assert picked(chooser, 90, later)[1] > 1


def test_suspects_are_tried_when_all_others_have_been() -> None:
    chooser = group(Pool(), [Share(), Share(), Share(backup=True)], max_ejected=100)
    chooser.failed(choice(chooser, 1), "connection refused", 0.0)
    chooser.failed(choice(chooser, 2), "connection refused", 0.0)
    tried: tuple[Choice, ...] = ()
    while (found := chooser.pick(tried)) is not None:
        tried = (*tried, found)
    assert [each.label for each in tried] == [str(inet(3)), str(inet(1)), str(inet(2))]


@pytest.mark.parametrize(("max_ejected", "out"), [(0, 0), (50, 2), (100, 4)])
def test_at_most_a_part_is_passed_over_for_what_clients_have_met(max_ejected: int, out: int) -> None:
    chooser = group(Pool(), [Share()] * 4, max_ejected=max_ejected)
    for number in range(1, 5):
        chooser.failed(choice(chooser, number), "connection refused", number / 100)
    expected = set(range(out + 1, 5)) or {1}
    assert picked(chooser, 40, 0.1).keys() == expected


def test_what_is_down_by_checks_is_no_part_of_those_that_may_be_passed_over() -> None:
    pool = Pool()
    chooser = group(pool, [Share()] * 4)
    say(pool, state(1, up=False), state(2, up=False))
    chooser.failed(choice(chooser, 3), "connection refused", 0.0)
    chooser.failed(choice(chooser, 4), "connection refused", 0.0)
    assert picked(chooser, 40) == {4: 40}


def test_those_who_shall_know_are_told() -> None:
    ear = Ear()
    chooser = group(Pools(hear=ear)["app"], [Share()])
    one = choice(chooser, 1)
    for _ in range(2):
        chooser.failed(one, "connection refused", 0.0)
    for _ in range(2):
        chooser.worked(one, 0.0)
    assert ear.heard == [
        ("app", one.origin, one.label, "connection refused", True, False, True),
        ("app", one.origin, one.label, "connection refused", False, False, True),
        ("app", one.origin, one.label),
    ]


# A silent target: clients of its bad time learn one after the other, up to connect_timeout later, that they have waited
# in vain.


def test_who_set_out_before_checks_found_a_target_well_says_nothing_of_it() -> None:
    ear = Ear()
    pool = Pool(hear=ear)
    chooser = group(pool, [Share()] * 2)
    say(pool, state(1, up=False), now=10.0)
    say(pool, state(2, up=False), now=11.0)
    chooser.failed(choice(chooser, 1), "connect timeout", 12.0, began=10.9)
    assert [heard[-1] for heard in ear.heard] == [False]
    assert picked(chooser, 4, 12.0) == {1: 4}
    chooser.failed(choice(chooser, 2), "connect timeout", 12.0, began=10.9)  # it is down, and nothing else is known
    chooser.failed(choice(chooser, 1), "connect timeout", 12.5, began=11.0)
    say(pool, state(1, up=False), now=13.0)
    chooser.failed(choice(chooser, 1), "connect timeout", 13.5, began=10.9)
    assert [heard[-1] for heard in ear.heard] == [False, True, True, True]


def test_who_set_out_before_a_client_found_a_target_well_says_nothing_of_it() -> None:
    ear = Ear()
    chooser = group(Pool(hear=ear), [Share()] * 2)
    chooser.failed(choice(chooser, 1), "connect timeout", 5.0, began=0.0)
    chooser.worked(choice(chooser, 1), 6.1)
    chooser.failed(choice(chooser, 1), "connect timeout", 6.2, began=1.2)
    assert ear.heard[-1][-1:] == (False,)
    assert not chooser.suspicious
    chooser.failed(choice(chooser, 1), "connect timeout", 6.3, began=6.2)
    assert ear.heard[-1][-1:] == (True,)
    assert chooser.suspicious


def test_the_ports_of_a_range_have_one_state_and_each_its_own_suspects() -> None:
    groups = Groups(
        [Target(InetAddress(Family.INET, f"192.0.2.{n}", 0), PortRule.OFFSET) for n in (1, 2)], Rules(), Pool()
    )
    pool = groups.at(5000, 0)._pool
    one, other = groups.at(5000, 0), groups.at(5001, 1)
    found = one.pick()
    assert found is not None
    one.failed(found, "connection refused", 0.0)
    assert {one.pick() for _ in range(4)} != {found}
    assert len({each.label for each in (other.pick() for _ in range(4)) if each}) == 2
    pool.says({found.origin: TargetState("", found.origin, up=False)})
    assert len({each.label for each in (other.pick() for _ in range(4)) if each}) == 1


def test_states_that_came_before_the_pool_are_known_to_it() -> None:
    pools = Pools()
    pools.say([TargetState("app", str(inet(1)), up=False)], 0.0)
    assert picked(group(pools["app"], [Share()] * 2), 4) == {2: 4}
    pools.say([], 0.0)
    assert pools["app"].up(str(inet(1)))


def test_a_group_takes_its_connections_along_to_another_pool() -> None:
    pools = Pools()
    chooser = group(pools["one"], [Share(max_connections=1)])
    found = chooser.pick()
    assert found is not None
    chooser.begun(found)
    chooser.retarget([Target(inet(1))], Rules(shares=(Share(max_connections=1),)), pools["two"])
    assert chooser.pick() is None
    chooser.ended(found)
    assert chooser.pick() is found
    assert group(pools["one"], [Share(max_connections=1)]).pick() is not None


@pytest.mark.parametrize(
    "balance", [Balance.ROUND_ROBIN, Balance.RANDOM, Balance.SOURCE_HASH], ids=lambda one: one.value
)
def test_a_target_that_comes_back_has_its_share_step_by_step(balance: Balance) -> None:
    pool = Pool()
    chooser = group(pool, [Share()] * 4, balance, slow_start_s=16.0)
    say(pool, state(1, up=False))
    picked(chooser, 10, 100.0)
    say(pool)
    shares = [picked(chooser, 4000, 200.0 + second)[1] / 1000 for second in (0.5, 4.5, 8.5, 12.5, 16.5)]
    assert shares[0] < 0.15
    assert shares == sorted(shares)
    assert [pytest.approx(share, abs=0.15) for share in (0.05, 0.3, 0.58, 0.8, 1.0)] == shares
    assert not chooser._parts


def test_a_target_that_comes_back_is_not_flooded_by_least_connections() -> None:
    pool = Pool()
    chooser = group(pool, [Share()] * 2, Balance.LEAST_CONNECTIONS, slow_start_s=16.0)
    say(pool, state(1, up=False))
    for _ in range(100):
        found = chooser.pick((), b"", 0.0)
        assert found is not None
        chooser.begun(found)
    say(pool)
    for _ in range(20):
        found = chooser.pick((), b"", 10.0)
        assert found is not None
        chooser.begun(found)
    assert chooser._main.active(str(inet(1))) <= 8
    for _ in range(200):
        found = chooser.pick((), b"", 30.0)
        assert found is not None
        chooser.begun(found)
    assert chooser._main.active(str(inet(1))) == 160


def test_an_order_that_is_taken_back_is_a_slow_start_too_and_a_suspicion_is_none() -> None:
    pool = Pool()
    chooser = group(pool, [Share()] * 2, slow_start_s=16.0)
    say(pool, state(1, ordered=Ordered.DRAINED))
    picked(chooser, 1, 0.0)
    say(pool)
    assert picked(chooser, 100, 1.0)[1] < 20
    assert picked(chooser, 100, 20.0)[1] == 50
    chooser.failed(choice(chooser, 1), "connection refused", 20.0)
    picked(chooser, 1, 20.0)
    chooser.worked(choice(chooser, 1), 20.0)
    assert picked(chooser, 100, 20.0)[1] >= 49


@CHOICES
def test_who_goes_down_makes_no_new_choices_of_all_the_others(
    balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a thousand targets that would take a worker up to 10 ms, in which it does nothing else.
    pool = Pool()
    chooser = group(pool, [Share(1)] * 3, balance)
    picked(chooser, 1)
    made: list[object] = []
    monkeypatch.setattr(Group, "_rebuild", lambda *_: made.append(None))
    say(pool, state(1, up=False), state(2, ordered=Ordered.DRAINED))
    assert picked(chooser, 9) == {3: 9}
    say(pool, state(3, up=False))
    assert 3 not in picked(chooser, 9)
    assert made == []
    say(pool, state(3, weight=2))
    picked(chooser, 1)
    assert len(made) == 1


def test_one_more_failure_of_a_suspect_costs_no_look_at_all_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = group(Pool(), [Share()] * 3)
    one = choice(chooser, 1)
    chooser.failed(one, "connection refused", 0.0)
    picked(chooser, 1)
    looks: list[object] = []
    monkeypatch.setattr(Group, "_look", lambda *_: looks.append(None))
    for _ in range(9):
        chooser.failed(one, "connection refused", 0.1)
        assert 1 not in picked(chooser, 2, now=0.1)
    assert looks == []


def test_weights_of_another_pool_are_known_though_both_have_had_as_many() -> None:
    before, after = Pool(), Pool()
    chooser = group(before, [Share()] * 2)
    say(before, state(1, weight=2))
    picked(chooser, 1)
    targets = [Target(inet(number)) for number in (1, 2)]
    chooser.retarget(targets, Rules(), after)
    say(after, state(1, weight=3))
    assert picked(chooser, 4) == {1: 3, 2: 1}
