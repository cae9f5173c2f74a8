"""docs/logging.md says the limits of the code. Its names are in docs/reference.md, which is made of the code."""

from pathlib import Path

from relayd.log.logger import BURST, BURST_INTERVAL_S, LINES_HELD_MAX

PAGE = (Path(__file__).parents[3] / "docs" / "logging.md").read_text()


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {BURST} lines are written in {BURST_INTERVAL_S:g} s" in PAGE
    assert f"up to {LINES_HELD_MAX:,} lines" in PAGE
