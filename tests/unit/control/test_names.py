from dataclasses import replace

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress
from relayd.channel.messages import Resolved
from relayd.control.answers import Answer, Known
from relayd.control.names import RESTORED_S, RETRY_MAX_S, RETRY_S, Names
from relayd.spec import Resolve, Share, Wanted
from relayd.spec.budget import LOOKUPS_MAX

WEB, DB = Wanted(NameAddress("web.test", 80)), Wanted(NameAddress("db.test", 5432))
ONE, TWO = InetAddress(Family.INET, "192.0.2.1", 80), InetAddress(Family.INET, "192.0.2.2", 80)


def answer(*addresses: InetAddress, ttl_s: float = 30.0, problem: str = "") -> Answer:
    return Answer(addresses, (), ttl_s, problem)


def test_every_name_is_asked_once_at_a_time() -> None:
    names = Names([WEB, DB])
    assert names.begin(0.0) == [DB, WEB]
    assert names.begin(0.0) == []
    assert names.wait_s(0.0) is None


def test_an_answer_is_news_the_first_time_and_when_the_set_changes() -> None:
    names = Names([WEB])
    news = []
    for addresses in [(ONE,), (ONE,), (ONE, TWO), (TWO, ONE), (TWO,)]:
        names.begin(1e9)
        news.append(names.answered(WEB, answer(*addresses), 0.0))
    assert news == [True, False, True, False, True]
    assert [state.answer for _, state in names.items()] == [answer(TWO)]


def test_another_order_is_no_news_and_other_shares_are() -> None:
    names = Names([WEB])
    assert names.answered(WEB, Answer((ONE, TWO), (Share(1), Share(2)), 5.0), 0.0)
    assert not names.answered(WEB, Answer((TWO, ONE), (Share(2), Share(1)), 7.0), 1.0)
    [(_, state)] = names.items()
    assert state.answer == Answer((ONE, TWO), (Share(1), Share(2)), 7.0)
    assert names.answered(WEB, Answer((ONE, TWO), (Share(1), Share(1)), 5.0), 2.0)
    assert names.answered(WEB, Answer((ONE, TWO), (Share(1), Share(1, backup=True)), 5.0), 3.0)


def test_the_last_good_answer_stays_when_a_lookup_fails_and_gets_older() -> None:
    names = Names([WEB])
    names.begin(0.0)
    assert names.failed(WEB, "down", 0.0) is None
    names.begin(RETRY_S)
    names.answered(WEB, answer(ONE), 10.0)
    names.begin(40.0)
    assert names.failed(WEB, "down again", 40.0) == answer(ONE)
    [(_, state)] = names.items()
    assert (state.answer, state.answered_at, state.error) == (answer(ONE), 10.0, "down again")
    names.begin(50.0)
    names.answered(WEB, answer(ONE), 50.0)
    assert (state.answered_at, state.error) == (50.0, "")


def test_names_are_asked_again_when_the_ttl_is_over_and_failures_sooner() -> None:
    names = Names([WEB, DB])
    names.begin(0.0)
    names.answered(WEB, answer(ONE, ttl_s=30.0), 1.0)
    names.failed(DB, "down", 1.0)
    assert names.wait_s(1.0) == RETRY_S
    assert names.begin(1.0 + RETRY_S - 0.1) == []
    assert names.begin(1.0 + RETRY_S) == [DB]
    assert names.wait_s(11.0) == 20.0
    assert names.begin(31.0) == [WEB]


def test_the_ttl_is_within_the_bounds_of_the_listener() -> None:
    waits = []
    for ttl_s in (0.0, 1.0, 12.0, 60.0, float("inf")):
        name = Wanted(WEB.name, Resolve(None, 5.0, 60.0))
        names = Names([name])
        names.begin(0.0)
        names.answered(name, answer(ONE, ttl_s=ttl_s), 0.0)
        waits.append(names.wait_s(0.0))
    assert waits == [5.0, 5.0, 12.0, 60.0, 60.0]


def test_failures_are_asked_for_ever_less_often_until_one_succeeds() -> None:
    names, now, waits = Names([WEB]), 0.0, []
    for _ in range(2000):
        names.begin(now)
        names.failed(WEB, "down", now)
        waits.append(names.wait_s(now) or 0.0)
        now += waits[-1]
    assert waits[:5] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S, 8 * RETRY_S, RETRY_MAX_S]
    assert set(waits[5:]) == {RETRY_MAX_S}
    names.begin(now)
    names.answered(WEB, answer(ONE), now)
    names.failed(WEB, "down", now)
    assert names.wait_s(now) == RETRY_S


def test_a_failure_is_no_longer_than_an_answer() -> None:
    name = replace(WEB, resolve=Resolve(None, 1.0, 2.0))
    names = Names([name])
    names.begin(0.0)
    names.failed(name, "down", 0.0)
    assert names.wait_s(0.0) == 2.0


def test_what_an_answer_lacks_is_asked_for_soon() -> None:
    names = Names([WEB])
    names.begin(0.0)
    names.answered(WEB, answer(ONE, ttl_s=300.0, problem="AAAA: SERVFAIL"), 0.0)
    [(_, state)] = names.items()
    assert (state.error, names.wait_s(0.0)) == ("AAAA: SERVFAIL", RETRY_S)
    for _ in range(9):  # some name servers never answer for AAAA
        names.answered(WEB, answer(ONE, ttl_s=300.0, problem="AAAA: SERVFAIL"), 0.0)
    assert names.wait_s(0.0) == RETRY_MAX_S
    names.answered(WEB, answer(ONE, ttl_s=300.0), 0.0)
    assert names.wait_s(0.0) == 300.0


def test_a_name_that_two_listeners_want_differently_is_two() -> None:
    inet = Wanted(WEB.name, Resolve(Family.INET))
    names = Names([WEB, inet, Wanted(ServiceAddress("_http._tcp.test"))])
    assert len(names.begin(0.0)) == 3
    names.answered(inet, answer(ONE), 0.0)
    assert {name for name, state in names.items() if state.answer} == {inet}


def test_hurry_asks_for_everything_once_more_and_for_what_is_asked_now_after_that() -> None:
    names = Names([WEB, DB])
    assert names.begin(0.0) == [DB, WEB]
    names.answered(DB, answer(ONE), 0.0)
    names.hurry(1.0)
    assert names.begin(1.0) == [DB]
    names.answered(WEB, answer(ONE), 2.0)  # found by what the files have said before
    assert names.begin(2.0) == [WEB]
    names.answered(WEB, answer(ONE), 3.0)
    assert names.begin(3.0) == []


def test_what_one_process_knows_the_next_one_goes_on_with() -> None:
    # R4
    bounded = Wanted(DB.name, Resolve(Family.INET, 1.0, 60.0))
    before = Names([WEB, bounded, Wanted(NameAddress("lost.test", 80))])
    before.begin(0.0)
    before.answered(WEB, Answer((ONE, TWO), (Share(1), Share(2)), 30.0), 10.0)
    before.answered(bounded, answer(TWO, ttl_s=float("inf")), 20.0)
    known = before.known()
    after, now = Names([WEB, bounded]), 21.0
    assert [after.restore(each, now) for each in known] == [True, True]
    assert after.all_answered
    assert after.known() == known
    assert after.begin(now) == []
    assert after.wait_s(now) == RESTORED_S
    assert after.begin(now + RESTORED_S) == [bounded, WEB]
    assert not after.answered(WEB, Answer((TWO, ONE), (Share(2), Share(1)), 30.0), 40.0)


def test_what_one_process_knows_is_not_taken_on_trust() -> None:
    names = Names([WEB])
    assert not names.restore(Known(Resolved(WEB.name, ()), 0.0, 5.0), 100.0)
    assert not names.restore(Known(Resolved(DB.name, (ONE,)), 0.0, 5.0), 100.0)
    assert not names.restore(Known(Resolved(WEB.name, (ONE,), (), Resolve(Family.INET)), 0.0, 5.0), 100.0)
    assert names.restore(Known(Resolved(WEB.name, (ONE,)), 500.0, 5.0), 100.0)  # of a clock that was another one
    [(_, state)] = names.items()
    assert state.answered_at == 100.0


def test_what_nobody_wants_any_more_is_forgotten_and_what_stays_is_known() -> None:
    names = Names([WEB, DB])
    names.begin(0.0)
    names.answered(WEB, answer(ONE), 0.0)
    names.change([WEB])
    assert not names.answered(DB, answer(TWO), 1.0)
    assert names.failed(DB, "down", 1.0) is None
    assert (DB in names, names.begin(1.0)) == (False, [])


def test_lookups_in_flight_are_bounded_and_the_longest_waiting_goes_first() -> None:
    many = [Wanted(NameAddress(f"host{number:03}.test", 80)) for number in range(LOOKUPS_MAX + 2)]
    names = Names(many)
    assert names.begin(0.0) == many[:LOOKUPS_MAX]
    assert names.wait_s(0.0) is None
    names.failed(many[0], "down", 0.0)
    assert names.wait_s(100.0) == 0.0
    assert names.begin(100.0) == [many[LOOKUPS_MAX]]


def test_all_answered_counts_failures_too() -> None:
    names = Names([WEB, DB])
    seen = [names.all_answered]
    names.begin(0.0)
    names.answered(WEB, answer(ONE), 0.0)
    seen.append(names.all_answered)
    names.failed(DB, "down", 0.0)
    seen.append(names.all_answered)
    assert seen == [False, False, True]
    assert Names([]).all_answered
