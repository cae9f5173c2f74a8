"""What an explanation says in words."""

from typing import Any

import pytest

from relayd.cli.explain import text
from tests.unit.control.operating import EXPLANATION, NO_FACTS

LIMITS = "    what only a worker knows is left out: whose turn it is, whom it suspects, and which limits it has reached"


def candidate(number: int, part: float | None, *, backup: bool = False) -> dict[str, Any]:
    return {"target": f"10.0.0.{number}:80", "backup": backup, "weight": 1, "part": part, **NO_FACTS}


def test_parts() -> None:
    found = {
        **EXPLANATION,
        "pool": "web",
        "balance": "round_robin",
        "certain": False,
        "candidates": [candidate(1, 2 / 3), candidate(2, 1 / 3), candidate(3, None, backup=True)],
        "out": [],
    }
    assert text(found, "192.0.2.7").splitlines() == [
        "listener web: 192.0.2.7 goes to one of 2: in turn, each worker by itself",
        "    10.0.0.1:80: 66.7% of clients",
        "    10.0.0.2:80: 33.3% of clients",
        "    if all fail: 10.0.0.3:80, a backup",
        LIMITS,
    ]


def test_what_is_known_of_candidates() -> None:
    known = {"failed_ago_s": 3, "slow_start_s": 75, "active": 7, "max_connections": 10}
    found = {**EXPLANATION, "certain": False, "candidates": [candidate(1, 1.0) | known], "out": []}
    assert text(found, "192.0.2.7").splitlines()[1] == (
        "    10.0.0.1:80: 100.0% of clients, has failed clients just now, gets less than that for 1m (slow_start), "
        "has 7 of at most 10 connections"
    )


def test_nowhere() -> None:
    assert text({**EXPLANATION, "candidates": []}, "192.0.2.7").splitlines() == [
        "listener web, pool app: 192.0.2.7 goes nowhere, it is refused (no_target)",
        "    not 10.0.0.11:80: down: connect timeout x3",
    ]


def test_all_down() -> None:
    said = text({**EXPLANATION, "failing_open": True, "out": []}, "192.0.2.7")
    assert said.splitlines()[-2:] == [
        "    all are down by their checks, and are tried all the same (fail_open)",
        LIMITS,
    ]


@pytest.mark.parametrize("key", ["pool", "balance", "candidates", "out"])
def test_what_is_none(key: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        text({name: value for name, value in EXPLANATION.items() if name != key}, "x")
