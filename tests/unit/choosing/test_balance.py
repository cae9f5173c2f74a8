"""Who is next: shares against theory, by counting where they are exact, and by chi-square where they are drawn."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.choosing import maglev
from relayd.choosing.balance import HEAVIEST, Balancer, LeastConnections, RoundRobin, balancer
from relayd.choosing.maglev import table_size
from relayd.spec import WEIGHT_MAX, Balance

KINDS = pytest.mark.parametrize("kind", Balance, ids=lambda kind: kind.value)
WEIGHTS = st.lists(st.one_of(st.integers(1, 6), st.just(1), st.just(WEIGHT_MAX)), min_size=1, max_size=8)
#: For all kinds: without the largest tables of SOURCE_HASH, one of which takes a tenth of a second.
LIGHT = st.lists(st.integers(1, 6), min_size=1, max_size=6)
#: Upper critical values of chi-square at a significance of 0.001, by degrees of freedom (NIST/SEMATECH e-Handbook of
#: Statistical Methods, section 1.3.6.7.4). All draws have fixed seeds: a test that passes passes always.
CRITICAL = {1: 10.828, 2: 13.816, 3: 16.266, 9: 27.877}
KEY = bytes([192, 0, 2, 1])


@dataclass(frozen=True, slots=True)
class Node:
    """A member that has nothing else."""

    label: str
    weight: int = 1

    @property
    def origin(self) -> str:
        """Itself."""
        return self.label


def nodes(weights: Iterable[int], first: int = 0) -> list[Node]:
    return [Node(str(number), weight) for number, weight in enumerate(weights, first)]


def of(kind: Balance, members: Sequence[Node], seed: int = 1) -> Balancer[Node]:
    made: Balancer[Node] = balancer(kind, random.Random(seed))
    made.change(members)
    return made


def labels(chooser: Balancer[Node], count: int, excluded: Collection[str] = ()) -> list[str]:
    picked = [chooser.pick(KEY, excluded) for _ in range(count)]
    return [member.label if member else "" for member in picked]


def keys(count: int) -> list[bytes]:
    """Addresses of as many clients, all different."""
    return [number.to_bytes(4, "big") for number in range(10 << 24, (10 << 24) + count)]


def chi_square(counts: Counter[str], members: Iterable[Node]) -> float:
    """How far `counts` are from shares by weight."""
    weights = {member.label: member.weight for member in members}
    assert counts.keys() <= weights.keys()
    unit = sum(counts.values()) / sum(weights.values())
    return sum((counts[label] - unit * weight) ** 2 / (unit * weight) for label, weight in weights.items())


# All of them.


@KINDS
@settings(deadline=None)
@given(weights=LIGHT, data=st.data())
def test_what_is_excluded_is_never_picked_and_none_means_all(
    kind: Balance, weights: list[int], data: st.DataObject
) -> None:
    chooser = of(kind, nodes(weights))
    known = [member.label for member in chooser.order()]
    some = st.sets(st.sampled_from([*known, "nobody"]))
    for excluded in data.draw(st.lists(some, max_size=20)):
        picked = chooser.pick(KEY, excluded)
        assert (picked is None) == (set(known) <= excluded)
        if picked is not None:
            assert picked.label not in excluded
            chooser.begun(picked.label)
        assert sorted(member.label for member in chooser.order()) == sorted(known)


@KINDS
@settings(deadline=None)
@given(weights=LIGHT, steps=st.lists(st.sampled_from(["pick", "around", "change", "ended"]), max_size=40))
def test_its_own_order_changes_nothing(kind: Balance, weights: list[int], steps: list[str]) -> None:
    one, other = of(kind, nodes(weights)), of(kind, nodes(weights))
    live: list[str] = []
    for step in steps:
        if step == "change":
            one.change(one.order())
        elif step == "ended" and live:
            label = live.pop(0)
            one.ended(label)
            other.ended(label)
        else:
            excluded = ("0",) if step == "around" else ()
            picked = one.pick(KEY, excluded)
            assert picked == other.pick(KEY, excluded)
            if picked is not None:
                live.append(picked.label)
                one.begun(picked.label)
                other.begun(picked.label)
        assert one.order() == other.order()


@KINDS
def test_there_is_nobody_in_an_empty_set(kind: Balance) -> None:
    chooser: Balancer[Node] = balancer(kind, random.Random(1))
    assert chooser.pick(KEY) is None
    assert chooser.order() == []
    chooser.change(nodes([1, 2]))
    assert chooser.pick(KEY) is not None
    chooser.change([])
    assert chooser.pick(KEY) is None
    assert chooser.pick(KEY, ("0",)) is None


@KINDS
def test_counts_survive_all_changes_until_they_end(kind: Balance) -> None:
    chooser = of(kind, nodes([1, 2]))
    for label in ("0", "1", "1", "left long ago"):
        chooser.begun(label)
    chooser.change([])
    chooser.ended("1")
    chooser.change(nodes([3, 3]))
    assert [chooser.active(label) for label in ("0", "1", "left long ago", "2")] == [1, 1, 1, 0]
    for label in ("0", "1", "left long ago"):
        chooser.ended(label)
        assert chooser.active(label) == 0
        with pytest.raises(RuntimeError, match=f"{label}: more have ended"):
            chooser.ended(label)


@KINDS
@pytest.mark.parametrize(
    "wrong",
    [nodes([0, 1]), nodes([1, HEAVIEST + 1]), [Node("a"), Node("b"), Node("a", 2)]],
    ids=["0", "heavy", "twice"],
)
def test_a_set_that_is_none_is_refused_and_changes_nothing(kind: Balance, wrong: list[Node]) -> None:
    chooser = of(kind, nodes([1, 2]))
    before = chooser.order()
    with pytest.raises(ValueError, match=r"weight|twice"):
        chooser.change(wrong)
    assert chooser.order() == before


@KINDS
@pytest.mark.parametrize("weights", [[1, 1], [1, 2]], ids=["equal", "mixed"])
def test_a_member_that_stays_may_be_another_object(kind: Balance, weights: list[int]) -> None:
    chooser = of(kind, nodes(weights))
    labels(chooser, 1)
    again = {label: Node(label, weights[int(label)]) for label in ("0", "1")}
    chooser.change([again[member.label] for member in chooser.order()])
    for _ in range(9):
        picked = chooser.pick(KEY)
        assert picked is not None
        assert picked is again[picked.label]


@KINDS
@settings(deadline=None)
@given(weights=LIGHT, data=st.data())
def test_nobody_is_sent_to_who_sits_out(kind: Balance, weights: list[int], data: st.DataObject) -> None:
    chooser = of(kind, nodes(weights))
    everybody = {member.label for member in chooser.order()}
    some = st.sets(st.sampled_from(sorted(everybody)))
    for out, excluded, change in data.draw(st.lists(st.tuples(some, some, st.booleans()), max_size=20)):
        chooser.sit_out(out)
        if change:
            chooser.change(chooser.order())
        picked = chooser.pick(KEY, excluded)
        assert (picked is None) == (everybody <= out | excluded)
        assert picked is None or picked.label not in out | excluded
        assert chooser.size == len(weights)
        assert {member.label for member in chooser.order()} == everybody


@KINDS
def test_who_went_while_sitting_out_and_comes_again_does_not_sit_out(kind: Balance) -> None:
    chooser = of(kind, nodes([1, 1]))
    chooser.sit_out({"0"})
    chooser.change(nodes([1], first=1))
    chooser.change(nodes([1, 1]))
    assert set(labels(chooser, 1, excluded=("1",))) == {"0"}


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 2, 3]], ids=["equal", "mixed"])
def test_who_sat_out_comes_back_without_a_burst(weights: list[int]) -> None:
    chooser = of(Balance.ROUND_ROBIN, nodes(weights))
    chooser.sit_out({"2"})
    labels(chooser, 100)
    chooser.sit_out(set())
    after = Counter(labels(chooser, sum(weights)))
    assert abs(after["2"] - weights[2]) <= 1


def test_who_sits_out_moves_no_other_client_of_source_hash() -> None:
    chooser = of(Balance.SOURCE_HASH, nodes([1] * 100))
    before = {key: chooser.pick(key) for key in keys(2000)}
    chooser.sit_out({"7"})
    after = {key: chooser.pick(key) for key in before}
    assert all(after[key] is member for key, member in before.items() if member is not None and member.label != "7")
    assert len({member.label for key, member in after.items() if member and before[key] is not member}) > 5
    chooser.sit_out(set())
    assert before == {key: chooser.pick(key) for key in before}


def test_the_order_of_first_is_the_same_after_somebody_sat_out() -> None:
    chooser = of(Balance.FIRST, nodes([1, 1]))
    chooser.sit_out({"0"})
    assert labels(chooser, 1) == ["1"]
    chooser.sit_out(set())
    assert labels(chooser, 1) == ["0"]


# Round robin.


@given(st.integers(1, 9), st.integers(1, WEIGHT_MAX), st.integers(0, 40))
def test_equal_weights_are_plainly_in_turn(members: int, weight: int, picks: int) -> None:
    chooser = of(Balance.ROUND_ROBIN, nodes([weight] * members))
    assert labels(chooser, picks) == [str(number % members) for number in range(picks)]


def stirred(weights: list[int], data: st.DataObject) -> Balancer[Node]:
    """A round robin over members of these weights that has come there by picks, exclusions and changes. Turns that were
    owed have been taken.
    """
    chooser = of(Balance.ROUND_ROBIN, nodes(data.draw(WEIGHTS)))
    for step in data.draw(st.lists(st.tuples(st.integers(0, 30), st.one_of(WEIGHTS, st.none())), max_size=4)):
        labels(chooser, step[0], ("0",))
        labels(chooser, step[0])
        if step[1] is not None:
            chooser.change(nodes(step[1]))
    chooser.change(nodes(weights))
    labels(chooser, data.draw(st.integers(0, 30)), ("1",))
    labels(chooser, sum(weights))
    return chooser


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 4), st.data())
def test_every_window_of_a_period_has_exact_shares_from_any_state(
    weights: list[int], factor: int, data: st.DataObject
) -> None:
    weights = [weight * factor for weight in weights]
    common = math.gcd(*weights)
    period = sum(weights) // common
    picked = labels(stirred(weights, data), 3 * period)
    share = Counter({str(number): weight // common for number, weight in enumerate(weights)})
    window = Counter(picked[:period])
    assert window == share
    for out, into in zip(picked, picked[period:], strict=False):
        window[out] -= 1
        window[into] += 1
        assert window == share


@given(st.lists(st.integers(1, 12), min_size=2, max_size=6), st.data())
def test_between_two_turns_everyone_else_has_as_many_as_its_weight_says(
    weights: list[int], data: st.DataObject
) -> None:
    # Rounded up or down: so nobody's turns come in a burst, whatever has been before.
    picked = labels(stirred(weights, data), 2 * sum(weights))
    for (one, weight), (other, its) in itertools.permutations(enumerate(weights), 2):
        turns = [at for at, label in enumerate(picked) if label == str(one)]
        for start, end in itertools.pairwise(turns):
            between = picked[start:end].count(str(other))
            # One more where both are due at the same time at either end.
            assert its // weight - 1 <= between <= -(-its // weight) + 1


def test_turns_are_spread() -> None:
    a, b, c = Node("a", 5), Node("b"), Node("c")
    assert "".join(labels(of(Balance.ROUND_ROBIN, [a, b, c]), 14)) == "abaaacaabaaaca"
    assert "".join(labels(of(Balance.ROUND_ROBIN, [b, c, a]), 14)) == "abaaacaabaaaca"


@pytest.mark.parametrize(
    ("weights", "longest"),
    [
        ([WEIGHT_MAX, *[1] * 1000], 1),
        ([WEIGHT_MAX, 255, 1, 1], 2),
        ([60, 30, 30, 20, 20, 20], 2),
        (list(range(1, 101)), 2),
    ],
    ids=["one of 256", "two heavy", "equal sums", "1..100"],
)
def test_nobody_is_ahead_or_behind(weights: list[int], longest: int) -> None:
    period = sum(weights) // math.gcd(*weights)
    picked = labels(of(Balance.ROUND_ROBIN, nodes(weights)), 2 * period)
    assert max(len(list(run)) for _, run in itertools.groupby(picked)) <= longest
    counts = [0] * len(weights)
    for count, label in enumerate(picked[:period], 1):
        counts[int(label)] += 1
        # Of an exact share, which only fractions of a turn could give, by less than two turns.
        ahead = counts[int(label)] - count * weights[int(label)] / sum(weights)
        assert -1 < ahead < 2


@pytest.mark.parametrize("weights", [[1, 1, 1], [3, 2, 1], [1, 5, 2]], ids=str)
def test_an_excluded_member_keeps_its_turn(weights: list[int]) -> None:
    for before in range(2 * sum(weights)):
        plain, chooser = of(Balance.ROUND_ROBIN, nodes(weights)), of(Balance.ROUND_ROBIN, nodes(weights))
        assert labels(plain, before) == labels(chooser, before)
        following = labels(plain, 1)
        assert labels(chooser, 1, following) != following
        assert labels(chooser, 1) == following  # at once, for the next client


@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 1, 1], [1, 1, 5], [200, 3, 1, 7]], ids=str)
@pytest.mark.parametrize("away", [1, 2, 1000])
def test_who_was_excluded_for_long_is_owed_one_turn_and_no_burst(weights: list[int], away: int) -> None:
    for who, weight in enumerate(weights):
        chooser = of(Balance.ROUND_ROBIN, nodes(weights))
        labels(chooser, 3)
        labels(chooser, away, (str(who),))
        back = labels(chooser, 5 * sum(weights))
        for periods in range(1, 6):
            assert back[: periods * sum(weights)].count(str(who)) in (periods * weight, periods * weight + 1)


@pytest.mark.parametrize("weights", [[1, 1, 1], [5, 1, 1], [1, 1, 5], [20, 3, 1, 7]], ids=str)
def test_what_an_excluded_member_does_not_take_falls_to_the_others_by_weight(weights: list[int]) -> None:
    for who in range(len(weights)):
        others = [weight for at, weight in enumerate(weights) if at != who]
        common = math.gcd(*others)
        chooser = of(Balance.ROUND_ROBIN, nodes(weights))
        labels(chooser, 2)
        picked = Counter(labels(chooser, 10 * sum(others) // common, (str(who),)))
        assert [picked[str(at)] for at in range(len(weights)) if at != who] == [10 * each // common for each in others]


@given(WEIGHTS, st.integers(0, 40), st.data())
def test_who_takes_a_place_takes_its_turns(weights: list[int], picks: int, data: st.DataObject) -> None:
    plain, chooser = of(Balance.ROUND_ROBIN, nodes(weights)), of(Balance.ROUND_ROBIN, nodes(weights))
    assert labels(plain, picks) == labels(chooser, picks)
    place = data.draw(st.integers(0, len(weights) - 1))
    order = chooser.order()
    gone, order[place] = order[place], Node("new", order[place].weight)
    chooser.change(order)
    count = 2 * sum(weights)
    assert labels(chooser, count) == ["new" if label == gone.label else label for label in labels(plain, count)]


def waits(chooser: RoundRobin[Node]) -> dict[str, Fraction]:
    """How long until each is due, with mixed weights."""
    earliest = min(chooser._heap)
    return {
        chooser._members[due & chooser._mask].label: Fraction(due // (chooser._mask + 1) * (chooser._mask + 1), 1)
        / chooser._unit
        - Fraction(earliest // (chooser._mask + 1) * (chooser._mask + 1), chooser._unit)
        for due in chooser._heap
    }


@given(st.lists(st.integers(1, 9), min_size=3, max_size=8), st.integers(0, 40), st.lists(st.integers(1, 9)), st.data())
def test_nobody_is_due_later_when_others_go_or_join(
    weights: list[int], picks: int, joining: list[int], data: st.DataObject
) -> None:
    chooser = RoundRobin[Node]()
    chooser.change([Node("a", 10), *nodes(weights)])  # whatever goes, weights are mixed
    labels(chooser, picks)
    order, before = chooser.order(), waits(chooser)
    gone = data.draw(st.sets(st.sampled_from(order[1:]), max_size=len(weights) - 1))
    members = [member for member in order if member not in gone] + nodes(joining, 100)
    if len({member.weight for member in members}) < 2:
        return
    chooser.change(members)
    after = waits(chooser)
    for weight in {member.weight for member in members}:
        same = [member.label for member in members if member.weight == weight]
        assert [member.label for member in chooser.order() if member.weight == weight] == same
        for place, label in enumerate(same):
            # The second: they are spread from now on.
            assert after[label] <= max(before.get(label, 1), Fraction(place, weight * len(same)))


def test_another_weight_takes_effect_at_once() -> None:
    chooser = of(Balance.ROUND_ROBIN, [*nodes([1] * 100), Node("slow", 2)])
    while labels(chooser, 1) != ["slow"]:
        pass
    # It has just had its turn: at weight 256 it has the next one soon, and not after what was its wait.
    chooser.change([Node("slow", WEIGHT_MAX) if member.label == "slow" else member for member in chooser.order()])
    assert "slow" in labels(chooser, 2)
    assert labels(chooser, 356).count("slow") == 256


def test_another_weight_keeps_the_part_of_the_wait_that_is_left() -> None:
    chooser = of(Balance.ROUND_ROBIN, [*nodes([1] * 100), Node("other", 3), Node("fast", 50)])
    while labels(chooser, 1) != ["fast"]:
        pass
    # The next one is due after a quarter of it. Three of half a period are 3/8 of 105 picks.
    chooser.change([Node("fast", 2) if member.label == "fast" else member for member in chooser.order()])
    assert 38 <= labels(chooser, 105).index("fast") <= 40


def test_a_place_has_its_turns_though_its_label_is_another_each_time_and_others_come_and_go() -> None:
    chooser = of(Balance.ROUND_ROBIN, [*nodes([5, 5, 5]), Node("name 0", 1)])
    turns = 0
    for number in range(320):
        turns += labels(chooser, 1)[0].startswith("name")
        order = [member for member in chooser.order() if member.label != "passing"]
        order = [Node(f"name {number}", 1) if member.label.startswith("name") else member for member in order]
        chooser.change([*order, Node("passing", 5)] if number % 2 else order)
    assert turns >= 320 // 21


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), max_size=4), st.integers(0, 2)),
        max_size=200,
    )
)
def test_nobody_starves_by_changes_all_the_time(changes: list[tuple[list[tuple[int, int]], int]]) -> None:
    always = [Node("a", 4), Node("b", 1), Node("c", 1)]
    chooser = of(Balance.ROUND_ROBIN, always)
    waited = dict.fromkeys("abc", 0)
    for others, picks in changes:
        wanted = {str(number): weight for number, weight in others}
        order = [
            Node(member.label, wanted.pop(member.label, member.weight))
            for member in chooser.order()
            if member in always or member.label in wanted
        ]
        chooser.change([*order, *(Node(label, weight) for label, weight in wanted.items())])
        for label in labels(chooser, picks):
            waited = {who: 0 if who == label else turns + 1 for who, turns in waited.items()}
            # Without changes it is the sum of the weights, 6 + 4 * 4.
            assert max(waited.values()) <= 2 * 22, waited


def test_many_workers_have_exact_shares_together() -> None:
    workers = [of(Balance.ROUND_ROBIN, nodes([3, 2, 1])) for _ in range(4)]
    rng = random.Random(5)
    for worker in workers:
        labels(worker, rng.randrange(6))
    together = Counter(label for worker in workers for label in labels(worker, 6 * 50))
    assert together == {"0": 600, "1": 400, "2": 200}


# Least connections; the rest is in tests/sim/test_balance.py.


@given(st.lists(st.integers(1, WEIGHT_MAX), min_size=1, max_size=6), st.integers(1, 3))
def test_connections_that_stay_are_shared_by_weight_exactly(weights: list[int], rounds: int) -> None:
    chooser = of(Balance.LEAST_CONNECTIONS, nodes(weights))
    for _ in range(rounds * sum(weights)):
        picked = chooser.pick(KEY)
        assert picked is not None
        chooser.begun(picked.label)
    assert [chooser.active(str(at)) for at in range(len(weights))] == [rounds * weight for weight in weights]


def test_an_idle_set_is_filled_in_turn() -> None:
    chooser = of(Balance.LEAST_CONNECTIONS, nodes([1] * 5))
    for label in labels(chooser, 12):
        assert label == str(int(label) % 5)
        chooser.begun(label)
        chooser.ended(label)  # before the next client: each time all are idle again
    chooser.change(chooser.order())
    assert labels(chooser, 5) == ["2", "3", "4", "0", "1"]
    assert labels(chooser, 1, ("2", "3")) == ["4"]
    assert labels(chooser, 3) == ["2", "3", "0"]


def test_a_label_that_comes_back_has_its_load() -> None:
    chooser = of(Balance.LEAST_CONNECTIONS, nodes([1, 1]))
    for _ in range(3):
        chooser.begun("0")
    chooser.change(nodes([1], 1))
    chooser.change(nodes([1, 1]))
    assert labels(chooser, 2) == ["1", "1"]
    chooser.change([Node("0", 4), Node("1", 1)])  # 4/4 against 1/1: a tie, in turn
    assert labels(chooser, 2) == ["0", "1"]


def test_memory_does_not_grow_with_connections() -> None:
    chooser = LeastConnections[Node]()
    chooser.change(nodes([1, 2, 3]))
    rng = random.Random(3)
    for _ in range(200):
        live: list[str] = []
        for _ in range(rng.randrange(100)):
            live += labels(chooser, 1)
            chooser.begun(live[-1])
        rng.shuffle(live)
        for label in live:
            chooser.ended(label)
            assert len(chooser._heap) <= 2 * 3 + 16


# Random.


@pytest.mark.parametrize("weights", [[1] * 10, [1, 2, 3, 10], [WEIGHT_MAX, 30]], ids=str)
def test_an_idle_set_is_drawn_from_by_weight(weights: list[int]) -> None:
    members = nodes(weights)
    counts = Counter(labels(of(Balance.RANDOM, members, seed=11), 40_000))
    assert chi_square(counts, members) < CRITICAL[len(weights) - 1]


@pytest.mark.parametrize("out", ["0", "2", "4"])
def test_who_is_excluded_is_cut_out_of_the_draw(out: str) -> None:
    members = nodes([5, 2, 9, 4, 1])
    counts = Counter(labels(of(Balance.RANDOM, members, seed=12), 40_000, (out,)))
    assert chi_square(counts, [member for member in members if member.label != out]) < CRITICAL[3]


def test_the_second_is_another_one_by_weight() -> None:
    # Whoever is drawn beside the one that is loaded wins: so wins tell of pairs, which is two draws without repetition.
    members = nodes([6, 3, 2, 1])
    chooser = of(Balance.RANDOM, members, seed=13)
    for _ in range(10**6):
        chooser.begun("0")
    counts = Counter(labels(chooser, 40_000))
    assert counts["0"] == 0
    share = dict.fromkeys("123", 0.0)
    for one, other in itertools.permutations(members, 2):
        wins = other if one.label == "0" else one
        share[wins.label] += one.weight / 12 * other.weight / (12 - one.weight)
    assert math.isclose(sum(share.values()), 1)
    distance = sum((counts[who] - 40_000 * each) ** 2 / (40_000 * each) for who, each in share.items())
    assert distance < CRITICAL[2]


def test_the_less_loaded_of_two_by_weight() -> None:
    chooser = of(Balance.RANDOM, [Node("a", WEIGHT_MAX), Node("b", 1)])
    for _ in range(WEIGHT_MAX + 1):
        chooser.begun("a")
    chooser.begun("b")
    assert set(labels(chooser, 50)) == {"b"}  # 257/256 against 1
    chooser.ended("a")
    chooser.ended("a")
    assert set(labels(chooser, 50)) == {"a"}


def test_two_choices_keep_the_highest_load_near_the_mean() -> None:
    # Mitzenmacher: log log n / log 2 + O(1) above it, where one choice has some sqrt(2 * mean * log n): 30 of 100.
    chooser = of(Balance.RANDOM, nodes([1] * 100), seed=14)
    for _ in range(100 * 100):
        chooser.begun(labels(chooser, 1)[0])
    assert max(chooser.active(str(at)) for at in range(100)) <= 104


def test_draws_are_those_of_the_generator() -> None:
    one, same, other = (of(Balance.RANDOM, nodes([1, 2, 3]), seed) for seed in (1, 1, 2))
    assert labels(one, 20) == labels(same, 20)
    assert labels(one, 20) != labels(other, 20)


# Source hash.

BACKENDS = [Node("192.0.2.1:80"), Node("192.0.2.2:80", 3), Node("[2001:db8::1]:443", 2), Node("unix:/run/app.sock")]


def chosen(members: Sequence[Node], clients: Sequence[bytes], excluded: Collection[str] = ()) -> list[str]:
    chooser = of(Balance.SOURCE_HASH, members)
    picked = [chooser.pick(client, excluded) for client in clients]
    return [member.label if member else "" for member in picked]


def test_the_choice_is_the_same_for_ever() -> None:
    # Golden: if this fails, workers of two versions, or machines, send one client to two targets.
    clients = [*keys(12), bytes(15) + b"\1", b""]
    indexes = [[node.label for node in BACKENDS].index(label) for label in chosen(BACKENDS, clients)]
    assert indexes == [3, 1, 2, 1, 2, 2, 1, 3, 2, 1, 3, 0, 1, 1]
    seconds = chosen(BACKENDS, clients, (BACKENDS[1].label,))
    indexes = [[node.label for node in BACKENDS].index(label) for label in seconds]
    assert indexes == [3, 2, 2, 0, 2, 2, 2, 3, 2, 0, 3, 0, 2, 2]


@pytest.mark.parametrize("members", [1, 2, 7, 20])
def test_a_table_for_equal_weights_is_that_of_the_paper(members: int) -> None:
    # Pseudocode 1 of section 3.4, with all permutations written out.
    backends = nodes([1] * members)
    size = table_size([1] * members)
    permutations = []
    for backend in backends:
        offset, skip = maglev._hash(backend.label, b"offset") % size, maglev._hash(backend.label, b"skip")
        permutations.append([(offset + entry * (skip % (size - 1) + 1)) % size for entry in range(size)])
        assert len(set(permutations[-1])) == size
    expected = [-1] * size
    following = [iter(permutation) for permutation in permutations]
    for turn in range(size):
        at = next(entry for entry in following[turn % members] if expected[entry] < 0)
        expected[at] = turn % members
    assert list(maglev._maglev(backends)) == expected


def test_workers_agree_whatever_they_have_seen() -> None:
    clients = keys(300)
    rng = random.Random(6)
    expected = chosen(BACKENDS, clients), chosen(BACKENDS, clients, (BACKENDS[1].label,))
    for _ in range(6):
        worker = of(Balance.SOURCE_HASH, nodes(rng.choices(range(1, 9), k=5)))
        labels(worker, rng.randrange(3), ("1",))
        worker.change(rng.sample(BACKENDS, k=4))
        for excluded, same in zip(((), (BACKENDS[1].label,)), expected, strict=True):
            picked = [worker.pick(client, excluded) for client in clients]
            assert [member.label for member in picked if member] == same


def test_one_of_a_hundred_that_goes_moves_few_clients_of_the_others() -> None:
    members, clients = nodes([1] * 100), keys(30_000)
    before, after = chosen(members, clients), chosen(members[:50] + members[51:], clients)
    others = [(old, new) for old, new in zip(before, after, strict=True) if old != "50"]
    moved = sum(old != new for old, new in others)
    assert 0 < moved <= 0.02 * len(others)
    # And those of the one that has gone are spread, not given to a neighbour.
    theirs = Counter(new for old, new in zip(before, after, strict=True) if old == "50")
    assert max(theirs.values()) <= 0.05 * sum(theirs.values())


def test_clients_are_spread_by_weight() -> None:
    for members in (nodes([1] * 10), nodes([1, 2, 3, 10]), nodes([WEIGHT_MAX, 30])):
        counts = Counter(chosen(members, keys(40_000)))
        assert chi_square(counts, members) < CRITICAL[len(members) - 1]


def test_clients_of_an_excluded_one_are_spread_by_weight() -> None:
    members = nodes([4, 1, 2, 3, 5])
    clients = [
        client for client, label in zip(keys(40_000), chosen(members, keys(40_000)), strict=True) if label == "4"
    ]
    assert chi_square(Counter(chosen(members, clients, ("4",))), members[:4]) < CRITICAL[3]


@pytest.mark.parametrize(
    ("weights", "off"),
    [
        ([1] * 2, 0.001),
        ([7] * 100, 0.01),
        ([1] * 1000, 0.01),
        ([1, WEIGHT_MAX], 0.02),
        (list(range(1, WEIGHT_MAX + 1)), 0.1),
        ([*[1] * 500, *[WEIGHT_MAX] * 500], 0.01),
    ],
    ids=["2", "100", "1000", "1:256", "1..256", "500:500"],
)
def test_entries_are_shared_by_weight(weights: list[int], off: float) -> None:
    members = nodes(weights)
    table = maglev._maglev(members)
    assert len(table) == table_size(weights)
    counts = Counter(table)
    for index, weight in enumerate(weights):
        share = len(table) * weight / sum(weights)
        # Rounded to whole entries, in rounds of which the last one may be cut short.
        assert abs(counts[index] - share) <= max(0.75, off * share)


def test_nobody_is_without_an_entry() -> None:
    weights = [1, *[WEIGHT_MAX] * 1200]
    assert sum(weights) > 2 * table_size(weights)  # the lightest has a right to less than half of one
    assert len(set(maglev._maglev(nodes(weights)))) == 1201


def test_sizes_are_primes_and_large_enough() -> None:
    for members in (1, 2, 20, 21, 100, 163, 164, 655, 656, 1024, 1310):
        size = table_size([3] * members)
        assert all(size % divisor for divisor in range(2, math.isqrt(size) + 1))
        assert size >= 100 * members
    assert table_size([1, WEIGHT_MAX]) >= 100 * 257
    assert table_size([1] * 13107) >= 10 * 13107
    assert table_size([1] * 13108) == 1048573
    assert all(1048573 % divisor for divisor in range(2, 1024))


def test_a_table_is_made_for_the_first_client_and_kept_while_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    build = maglev._maglev

    def counted(members: Sequence[Node]) -> Sequence[int]:
        made.append(len(members))
        return build(members)

    monkeypatch.setattr(maglev, "_maglev", counted)
    chooser = of(Balance.SOURCE_HASH, BACKENDS)
    chooser.change(BACKENDS[:3])
    assert made == []
    labels(chooser, 2)
    chooser.change(BACKENDS[2::-1])
    labels(chooser, 2)
    assert made == [3]
    chooser.change([*BACKENDS[:2], Node(BACKENDS[2].label, 9)])
    labels(chooser, 2)
    assert made == [3, 3]


def test_sets_of_the_same_members_have_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = of(Balance.SOURCE_HASH, BACKENDS), of(Balance.SOURCE_HASH, BACKENDS[::-1])
    labels(one, 1)
    monkeypatch.setattr(maglev, "_maglev", None)
    labels(other, 1)
    tables = len(maglev._tables)
    assert tables > 0
    del one, other
    assert len(maglev._tables) == tables - 1


# First.


def test_the_first_that_is_not_excluded() -> None:
    chooser = of(Balance.FIRST, nodes([1, 9, 2]))
    assert labels(chooser, 3) == ["0", "0", "0"]
    assert labels(chooser, 2, ("0",)) == ["1", "1"]
    assert labels(chooser, 1, ("0", "1")) == ["2"]
    assert labels(chooser, 1) == ["0"]
    assert chooser.order() == nodes([1, 9, 2])


def test_those_who_sit_out_are_not_looked_at_again_for_each_client() -> None:
    looks: list[str] = []

    class Seen(Node):
        @property
        def origin(self) -> str:
            return self.label

        def __getattribute__(self, name: str) -> object:
            if name == "label":
                looks.append(name)
            return object.__getattribute__(self, name)

    chooser: Balancer[Node] = balancer(Balance.FIRST, random.Random(1))
    chooser.change([Seen(str(number)) for number in range(100)])
    chooser.sit_out({str(number) for number in range(99)})
    looks.clear()
    found = chooser.pick(KEY, ("98",))
    assert len(looks) == 1
    assert found is not None
    assert found.label == "99"
