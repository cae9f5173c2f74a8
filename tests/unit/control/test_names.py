from relayd.address import Family, InetAddress, NameAddress
from relayd.control.names import RESOLVE_INTERVAL_S, RETRY_INTERVAL_S, Names
from relayd.spec.budget import LOOKUPS_MAX

WEB, DB = NameAddress("web.test", 80), NameAddress("db.test", 5432)
ONE, TWO = InetAddress(Family.INET, "192.0.2.1", 80), InetAddress(Family.INET, "192.0.2.2", 80)


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
        news.append(names.answered(WEB, addresses, 0.0))
    assert news == [True, False, True, False, True]
    assert names.answers() == [(WEB, (TWO,))]


def test_the_last_good_answer_stays_when_a_lookup_fails() -> None:
    names = Names([WEB])
    names.begin(0.0)
    assert names.failed(WEB, 0.0) == ()
    names.begin(RETRY_INTERVAL_S)
    names.answered(WEB, (ONE,), 10.0)
    names.begin(10.0 + RESOLVE_INTERVAL_S)
    assert names.failed(WEB, 40.0) == (ONE,)
    assert names.answers() == [(WEB, (ONE,))]


def test_names_are_asked_again_after_their_interval_and_failures_sooner() -> None:
    names = Names([WEB, DB])
    names.begin(0.0)
    names.answered(WEB, (ONE,), 1.0)
    names.failed(DB, 1.0)
    assert names.wait_s(1.0) == RETRY_INTERVAL_S
    assert names.begin(1.0 + RETRY_INTERVAL_S - 0.1) == []
    assert names.begin(1.0 + RETRY_INTERVAL_S) == [DB]
    assert names.wait_s(11.0) == 1.0 + RESOLVE_INTERVAL_S - 11.0
    assert names.begin(1.0 + RESOLVE_INTERVAL_S) == [WEB]


def test_lookups_in_flight_are_bounded_and_the_longest_waiting_goes_first() -> None:
    many = [NameAddress(f"host{number:03}.test", 80) for number in range(LOOKUPS_MAX + 2)]
    names = Names(many)
    assert names.begin(0.0) == many[:LOOKUPS_MAX]
    assert names.wait_s(0.0) is None
    names.failed(many[0], 0.0)
    assert names.wait_s(100.0) == 0.0
    assert names.begin(100.0) == [many[LOOKUPS_MAX]]


def test_all_answered_counts_failures_too() -> None:
    names = Names([WEB, DB])
    seen = [names.all_answered]
    names.begin(0.0)
    names.answered(WEB, (ONE,), 0.0)
    seen.append(names.all_answered)
    names.failed(DB, 0.0)
    seen.append(names.all_answered)
    assert seen == [False, False, True]
    assert Names([]).all_answered
