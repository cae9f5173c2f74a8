"""The status of a daemon in words."""

import copy
from typing import Any

import pytest

from relayd.cli import status as report
from relayd.cli import targets
from tests.unit.control.operating import STATUS, TARGETS

#: Of "2026-11-26T04:12:30Z".
NOW = 1_795_666_350.0


def text(status: dict[str, Any], cells: int | None = None) -> str:
    return "".join(f"{line}\n" for line in report.text(status, NOW, cells))


@pytest.fixture
def status() -> dict[str, Any]:
    return copy.deepcopy(STATUS)


def test_all_of_it(status: dict[str, Any]) -> None:
    status["config"]["last_reload"] = {"at": "2026-11-23T00:15:02Z", "ok": False, "errors": ["a:1:1: b\n    c", "d"]}
    status["config"]["confirm_until"] = "2026-11-23T00:16:02Z"
    status["workers"].append({"number": 2, "pid": 9, "phase": "starting"})
    status["listeners"].append(
        {"name": "a-name", "type": "dgram", "active": 0, "accepted": 1, "bytes_in": 0, "bytes_out": 1}
    )
    status["listeners"][0]["rate"] = {"accepted": 1234.5, "bytes_in": 1.0, "bytes_out": 2048.0}
    assert text(status).splitlines() == [
        "relayd 1.2.3, pid 7, up 3d04h, since 2026-11-23T00:12:00Z",
        "/etc/relayd/relay.toml (sha256 9f86d081884c), number 3, in force since 2026-11-23T00:14:10Z",
        "last reload: 2026-11-23T00:15:02Z, refused:",
        "    a:1:1: b",
        "        c",
        "    d",
        "look at:",
        "    the last reload was refused: the file is not what is in force",
        "    goes back to the configuration before at 2026-11-23T00:16:02Z, unless confirmed",
        "    worker 2 is starting, and does not accept",
        "    web: 10.0.0.11:80 is down for 3m: connect timeout x3",
        "",
        "worker  phase     pid",
        "     1  running     8",
        "     2  starting    9",
        "",
        "listener  type    active  accepted  new/s     in      out   in/s      out/s",
        "web       stream      12      3400  1,234  512 B  1.5 MiB  1 B/s  2.0 KiB/s",
        "a-name    dgram        0         1      -    0 B      1 B      -          -",
        "",
        "pool  targets",
        "web   1 down, 1 up",
    ]


def test_in_a_narrow_terminal(status: dict[str, Any]) -> None:
    lines = text(status, 40).splitlines()
    assert lines[-5] == "listener  active  new/s  in/s  out/s"


def test_nothing_to_look_at(status: dict[str, Any]) -> None:
    status["targets"] = []
    assert "look at" not in text(status)


def test_what_a_name_would_do_to_the_terminal(status: dict[str, Any]) -> None:
    status["targets"] = [{**TARGETS[0], "reason": "\x1b[2J\u202e"}]
    assert "is down for 3m: \\x1b[2J\\u202e" in text(status)


def test_a_reload_that_went_well(status: dict[str, Any]) -> None:
    status["config"]["last_reload"] = {"at": "2026-11-23T00:15:02Z", "ok": True, "errors": []}
    assert "last reload: 2026-11-23T00:15:02Z\n" in text(status)


def test_names_that_do_not_resolve_have_a_line(status: dict[str, Any]) -> None:
    row: dict[str, Any] = {"name": "a.test:80", "addresses": [], "age_s": None, "error": "SERVFAIL"}
    known: dict[str, Any] = {"addresses": ["192.0.2.1:80"], "age_s": 411.6, "ttl_s": 5.0}
    status["names"] = [
        row,
        row | known | {"name": "b.test"},
        row | known | {"name": "srv:c.test", "addresses": ["192.0.2.1:80", "192.0.2.2:80"]},
        row | known | {"name": "d.test", "error": None},
    ]
    assert [line for line in text(status).splitlines() if line.startswith("    name ")] == [
        "    name a.test:80 has no address: SERVFAIL",
        "    name b.test has 1 address, 412 s old: SERVFAIL",
        "    name srv:c.test has 2 addresses, 412 s old: SERVFAIL",
    ]


def test_without_listeners_and_with_a_worker_that_has_no_process(status: dict[str, Any]) -> None:
    status["listeners"], status["workers"] = [], [{"number": 1, "pid": None, "phase": "waiting"}]
    status["targets"] = []
    assert text(status).splitlines()[-6:] == [
        "    worker 1 is waiting, and does not accept",
        "",
        "worker  phase    pid",
        "     1  waiting",
        "",
        "listener  type  active  accepted  new/s  in  out  in/s  out/s",
    ]


def test_targets_that_nobody_asks_are_not_worth_a_line(status: dict[str, Any]) -> None:
    for one in status["targets"]:
        one["state"] = "unchecked"
    assert "targets" not in text(status)
    status["targets"][1]["state"] = "drained"
    assert text(status).endswith("pool  targets\nweb   1 unchecked, 1 drained\n")
    assert "    web: 10.0.0.12:80 is drained\n" in text(status)


def test_of_many_targets_that_are_not_up_not_all_have_a_line(status: dict[str, Any]) -> None:
    status["targets"] = [{**TARGETS[0], "target": str(number)} for number in range(20)]
    assert "    web: 19 is down" in text(status)
    status["targets"] *= 200
    lines = text(status).splitlines()
    assert lines[-1] == "web   4000 down"
    assert lines.index("    and 3981 more that are not up: relayd target list") - lines.index("look at:") == 20


@pytest.mark.parametrize(
    ("count", "ago_s", "shown"),
    [
        (1, 4, "1 failure met by a client, 4s ago: connect timeout"),
        (2, 300, "2 failures met by clients, the last 5m ago: connect timeout"),
        (2, 301, ""),
    ],
)
def test_failures(count: int, ago_s: int, shown: str) -> None:
    failures = {"count": count, "ago_s": ago_s, "reason": "connect timeout"}
    row = targets.text([{**TARGETS[1], "failures": failures}]).splitlines()[1]
    assert row == f"web   10.0.0.12:80  up     1 backup  ?       {shown}".rstrip()


def test_every_target_in_a_line() -> None:
    assert targets.text(TARGETS).splitlines() == [
        "pool  target        state  weight    active  why",
        "web   10.0.0.11:80  down   2         12/100  for 3m: connect timeout x3; 5 failures met by clients, the last "
        "2m ago: connect timeout",
        "web   10.0.0.12:80  up     1 backup  ?",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (59, "59s"), (60, "1m"), (3600, "1h"), (86_399, "23h"), (259_200, "3d")]
)
def test_how_long_that_is(seconds: int, shown: str) -> None:
    assert targets.text([{**TARGETS[0], "for_s": seconds}]).splitlines()[1].split()[6] == f"{shown}:"


@pytest.mark.parametrize("key", ["pid", "config", "workers", "listeners", "targets"])
@pytest.mark.parametrize("wrong", [None, 5.5, "x", [5], [None], {}])
def test_what_is_no_status(status: dict[str, Any], key: str, wrong: object) -> None:
    if key in ("listeners", "workers", "targets") and wrong == {}:
        return  # as good as a list of none
    with pytest.raises((KeyError, TypeError, ValueError)):
        text({**status, key: wrong})
