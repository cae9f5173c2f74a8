"""What is said of the table in words; the rest is in tests/sim."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relayd.relay.datagram.sessions import STEP_S, Entry, Sessions


def table(limit: int = 3) -> tuple[Sessions[Entry], dict[bytes, Any]]:
    return Sessions(10.0, limit), {}


def test_the_session_of_a_client_is_found_until_it_ends() -> None:
    sessions, home = table()
    session = Entry()
    sessions.add(session, home, b"client", 0.0)
    assert home == {b"client": session}
    assert list(sessions) == [session]
    for _ in range(2):
        sessions.remove(session)
        assert not home
        assert not len(sessions)


def test_it_expires_when_the_timeout_has_passed_since_the_last_use() -> None:
    sessions, home = table()
    session = Entry()
    sessions.add(session, home, b"client", 0.0)
    sessions.used(session, 5.0)
    assert not list(sessions.expired(14.9))
    assert sessions.next_expiry == 15.0 + STEP_S
    assert list(sessions.expired(15.0 + STEP_S)) == [session]
    assert not home


def test_a_use_within_a_step_need_not_be_noted() -> None:
    sessions, home = table()
    session = Entry()
    sessions.add(session, home, b"client", 1.0)
    assert session.noted_until == 1.0 + STEP_S


def test_a_client_may_come_back_while_expired_sessions_are_ended() -> None:
    sessions, home = table()
    first, second, again = Entry(), Entry(), Entry()
    sessions.add(first, home, b"first", 0.0)
    sessions.add(second, home, b"second", 0.0)
    ended = []
    for session in sessions.expired(20.0):
        ended.append(session)
        if session is first:
            sessions.add(again, home, b"first", 20.0)
    assert ended == [first, second]
    assert list(sessions) == [again]


def test_clients_of_two_sockets_are_two_sessions() -> None:
    sessions, home = table(limit=2)
    other_home: dict[bytes, Any] = {}
    one, two = Entry(), Entry()
    fullness = []
    for session, its_home in ((one, home), (two, other_home)):
        sessions.add(session, its_home, b"client", 0.0)
        fullness.append(sessions.full)
    assert fullness == [False, True]
    assert sessions.evict() is one
    assert (home, other_home) == ({}, {b"client": two})


def test_an_empty_table_has_nobody_to_evict_or_to_expire() -> None:
    sessions, _ = table()
    assert sessions.evict() is None
    assert sessions.next_expiry is None
    assert not list(sessions.expired(1e9))


# From another process, in any order (R4).

uses = st.lists(st.integers(-2000, 0).map(lambda steps: 100.0 + steps * STEP_S), max_size=30)


@given(uses)
def test_sessions_that_come_in_any_order_expire_in_the_order_of_their_last_use(noted: list[float]) -> None:
    # R4, D3
    sessions, home = table(limit=100)
    for number, at in enumerate(noted):
        session = Entry()
        sessions.add(session, home, bytes([number]), 100.0)
        session.noted_until = at
    sessions.settle()
    assert len(home) == len(sessions) == len(noted)
    assert sessions.next_expiry == (min(noted) + 10.0 if noted else None)
    now, expired = 80.0, []
    while len(sessions):
        for session in sessions.expired(now):
            assert now - STEP_S < session.noted_until + 10.0 <= now  # neither early nor late
            expired.append(session.noted_until)
        now += STEP_S
    assert expired == sorted(noted)
    assert not home


@given(uses, st.integers(0, 40))
def test_after_that_a_use_counts_as_always(noted: list[float], used: int) -> None:
    sessions, home = table(limit=100)
    entries = [Entry() for _ in noted]
    for number, (session, at) in enumerate(zip(entries, noted, strict=True)):
        sessions.add(session, home, bytes([number]), 100.0)
        session.noted_until = at
    sessions.settle()
    if used < len(entries):
        sessions.used(entries[used], 100.0)
        assert list(sessions)[-1] is entries[used]
        assert entries[used].noted_until == 100.0 + STEP_S
    newest = Entry()
    sessions.add(newest, home, b"newest", 101.0)
    assert list(sessions)[-1] is newest
    order = [session.noted_until for session in sessions]
    assert order == sorted(order)
