"""What an explanation says in words."""

from typing import Any

import pytest

from relayd.cli.explain import text
from tests.unit.control.operating import EXPLANATION


def candidate(number: int, part: float | None, *, backup: bool = False) -> dict[str, Any]:
    return {"target": f"10.0.0.{number}:80", "backup": backup, "weight": 1, "part": part}


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
    ]


def test_nowhere() -> None:
    assert text({**EXPLANATION, "candidates": []}, "192.0.2.7").splitlines() == [
        "listener web, pool app: 192.0.2.7 goes nowhere, it is refused (no_target)",
        "    not 10.0.0.11:80: down: connect timeout x3",
    ]


def test_all_down() -> None:
    said = text({**EXPLANATION, "fail_open": True, "out": []}, "192.0.2.7")
    assert said.endswith("    all are down by their checks, and are tried all the same (fail_open)\n")


@pytest.mark.parametrize("key", ["pool", "balance", "candidates", "out"])
def test_what_is_none(key: str) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        text({name: value for name, value in EXPLANATION.items() if name != key}, "x")
