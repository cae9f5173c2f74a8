"""docs/logging.md names what the code has."""

from pathlib import Path

from relayd.log.logger import BURST, BURST_INTERVAL_S, LINES_HELD_MAX
from relayd.outcomes import Drop, Outcome

PAGE = (Path(__file__).parents[3] / "docs" / "logging.md").read_text()


def test_every_outcome_stands_in_the_table() -> None:
    for outcome in Outcome:
        assert f"| `{outcome.value}` | `{outcome.code}` | {outcome.meaning} |" in PAGE


def test_every_reason_to_lose_a_datagram_stands_in_the_table() -> None:
    for reason in Drop:
        assert f"| `{reason.value}` | {reason.meaning} |" in PAGE


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {BURST} lines are written in {BURST_INTERVAL_S:g} s" in PAGE
    assert f"up to {LINES_HELD_MAX:,} lines" in PAGE
