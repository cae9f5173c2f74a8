import re

from relayd.outcomes import Drop, Outcome, Side


def test_names_and_codes_have_one_form() -> None:
    for outcome in Outcome:
        assert outcome.value == outcome.name.lower()
        assert re.fullmatch(r"--|[A-Za-z][CD]", outcome.code)
        assert outcome.meaning
        assert outcome.meaning[0].islower() or outcome.meaning.startswith("relayd")
    assert len({outcome.value for outcome in Outcome}) == len(Outcome)


def test_the_first_letter_agrees_with_the_side() -> None:
    sides = {"C": Side.CLIENT, "c": Side.CLIENT, "S": Side.TARGET, "s": Side.TARGET}
    for outcome in Outcome:
        if outcome not in (Outcome.NORMAL, Outcome.NO_TARGET):
            assert outcome.side is sides.get(outcome.code[0], Side.RELAY)


def test_a_lower_case_letter_is_a_timeout() -> None:
    for outcome in Outcome:
        late = "timeout" in outcome.value or outcome is Outcome.MAX_LIFETIME
        assert outcome.code[0].islower() == late


def test_reasons_have_the_same_form() -> None:
    for reason in Drop:
        assert reason.value == reason.name.lower()
        assert reason.meaning
        assert reason.meaning[0].islower() or reason.meaning.startswith("relayd")
    assert len({reason.value for reason in Drop}) == len(Drop)
