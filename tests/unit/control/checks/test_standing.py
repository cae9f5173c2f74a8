from hypothesis import given
from hypothesis import strategies as st

from relayd.control.checks.standing import Standing, State
from relayd.control.checks.subject import UP, Cause, Found
from relayd.spec import Check, CheckKind

CHECK = Check(CheckKind.TCP, interval_s=2.0, unhealthy_interval_s=2.0, timeout_s=1.0, rise=2, fall=3)
REFUSED, SLOW, NOTHING = (
    Found(False, "connection refused", Cause.CONNECT),
    Found(False, "connect timeout", Cause.CONNECT_TIMEOUT),
    Found(None, "no memory"),
)


def after(*findings: Found | int, start: Standing | None = None) -> Standing:
    """One second after the other; a number is so many failures told."""
    standing = start or Standing(0.0)
    for second, found in enumerate(findings, 1):
        if isinstance(found, int):
            standing = standing.told(found, "met by clients", CHECK, float(second))
        else:
            standing = standing.found(found, CHECK, second - 0.25, float(second))
    return standing


def test_a_new_target_counts_as_up() -> None:
    assert Standing(5.0).up
    assert Standing(5.0).last_at is None


def test_the_first_check_decides() -> None:
    down = after(REFUSED)
    assert (down.state, down.why, down.since) == (State.DOWN, "connection refused", 1.0)
    up = after(UP)
    assert (up.state, up.since) == (State.UP, 0.0), "it was taken for up since it is known"


def test_fall_failures_in_a_row_take_it_down() -> None:
    assert after(UP, SLOW, SLOW).up
    down = after(UP, SLOW, SLOW, SLOW)
    assert (down.up, down.why, down.since) == (False, "connect timeout x3", 4.0)


def test_a_success_begins_the_row_anew() -> None:
    assert after(UP, SLOW, SLOW, UP, SLOW, SLOW).up
    assert after(UP, 2, UP, 2).up


def test_rise_successes_in_a_row_bring_it_back() -> None:
    assert not after(REFUSED, UP).up
    assert not after(REFUSED, UP, REFUSED, UP).up
    back = after(REFUSED, UP, UP)
    assert (back.up, back.since, back.why) == (True, 3.0, "")


def test_the_cause_is_what_took_it_down_and_not_what_is_found_later() -> None:
    down = after(UP, SLOW, SLOW, REFUSED)
    assert down.cause is Cause.CONNECT
    assert after(SLOW, UP, start=down).cause is Cause.CONNECT
    assert after(UP, UP, start=down).cause is None
    assert after(UP, SLOW).cause is None, "it is not down"
    assert after(UP, SLOW, 2).cause is Cause.CLIENTS
    assert down.afresh().cause is Cause.CONNECT


def test_other_reasons_in_the_row_are_not_said_to_be_the_same() -> None:
    assert after(UP, SLOW, REFUSED, REFUSED).why == "connection refused, 3 failures in a row"


def test_what_clients_meet_counts_towards_fall() -> None:
    assert after(UP, SLOW, 1).up
    assert after(UP, SLOW, 2).why == "met by clients, 3 failures in a row"
    assert after(UP, 7).why == "met by clients x7"
    assert after(3).state is State.DOWN, "a target that was never asked, too"


def test_what_clients_meet_brings_nothing_back_and_keeps_nothing_from_coming_back() -> None:
    down = after(REFUSED)
    assert after(5, start=down) == down
    assert after(UP, 5, UP, start=down).up


def test_no_failures_told_are_none() -> None:
    assert after(UP, 0, -1) == after(UP)


def test_a_check_that_could_not_be_made_changes_nothing() -> None:
    assert after(UP, SLOW, NOTHING) == after(UP, SLOW)
    assert after(NOTHING) == Standing(0.0)


def test_the_last_check_is_known() -> None:
    standing = after(UP, SLOW)
    assert (standing.last_reason, standing.last_at, standing.last_duration_s) == ("connect timeout", 1.75, 0.25)
    assert after(UP, SLOW, UP).last_reason == ""


def test_another_check_keeps_the_state_and_counts_anew() -> None:
    afresh = after(UP, SLOW, SLOW).afresh()
    assert afresh.up
    assert after(SLOW, SLOW, start=afresh).up
    down = after(REFUSED, UP).afresh()
    assert not after(UP, start=down).up


@given(st.lists(st.sampled_from([UP, REFUSED, SLOW, NOTHING, 1, 2])), st.integers(1, 4), st.integers(1, 4))
def test_it_does_what_a_plain_count_does(findings: list[Found | int], rise: int, fall: int) -> None:
    check = Check(CheckKind.TCP, 2.0, 2.0, 1.0, rise, fall)
    standing = Standing(0.0)
    up, asked, good, bad = True, False, 0, 0
    for found in findings:
        if isinstance(found, int):
            standing = standing.told(found, "met", check, 1.0)
            good, bad = (0, bad + found) if up else (good, bad)
            up = up and bad < fall
            asked = asked or not up
            continue
        standing = standing.found(found, check, 0.5, 1.0)
        if found.up is None:
            continue
        good, bad = (good + 1, 0) if found.up else (0, bad + 1)
        if not asked:
            up = bool(found.up)
        elif up:
            up = bad < fall
            good = good if not up else 0
        else:
            up = good >= rise
        asked = True
        assert standing.up == up
    assert standing.up == up
