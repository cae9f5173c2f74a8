"""`health_check` of nginx."""

from pathlib import Path

import pytest

from relayd.imports.nginx.reading import parse
from tests.unit.imports.reading import keys, only, problems_in, reason, told, toml


def text(check: str, *lines: str, listen: str = "80") -> str:
    """The first of `lines` is the first of the file."""
    server = f"server {{ listen {listen}; proxy_pass x; {check} }}"
    return "\n".join([*lines, "upstream x { server 10.0.0.1:1; server 10.0.0.2:1; }", server])


EVERY = {"interval": "5s", "timeout": "5s", "rise": 1, "fall": 1}
PING = r'match m { send "PING\r\n"; expect "+PONG"; }'


@pytest.mark.parametrize(
    ("check", "lines", "expected"),
    [
        ("health_check;", [], {"type": "tcp", **EVERY}),
        ("health_check jitter=3s mandatory persistent;", [], {"type": "tcp", **EVERY}),
        (
            "health_check interval=10 fails=3 passes=2 port=8080;",
            [],
            {"type": "tcp", "port": 8080, "interval": "10s", "timeout": "5s", "rise": 2, "fall": 3},
        ),
        ("health_check; health_check_timeout 1s;", [], {"type": "tcp", **EVERY, "timeout": "1s"}),
        ("health_check;", ["health_check_timeout 2s;"], {"type": "tcp", **EVERY, "timeout": "2s"}),
        ("health_check match=m;", [PING], {"type": "tcp", "send": "PING\r\n", "expect": "+PONG", **EVERY}),
        (
            "health_check match=m udp;",
            [r'match m { send \x00\xff; expect ~ "^\x00\xff"; }'],
            {"type": "udp", "send": {"hex": "00ff"}, "expect": {"regex": r"^\x00\xff"}, **EVERY},
        ),
        ("health_check match=m;", ["match m { expect ~* a; expect a; }"], None),
        ("health_check match=m;", ["match m { }"], {"type": "tcp", **EVERY}),
        ("health_check match=m;", [], None),
        ("health_check match=m;", ['match m { expect ~ "("; }'], None),
        ("health_check match=m;", ["match m { send; }"], None),
        ("health_check match=m;", ["match m { status 200; }"], None),
        ("health_check udp;", [], None),
        ("health_check interval=x;", [], None),
        ("health_check interval=50ms;", [], None),
        ("health_check fails=0;", [], None),
        ("health_check port=0;", [], None),
        ("health_check odd;", [], None),
        ("health_check; health_check_timeout x;", [], None),
    ],
)
def test_what_is_asked(check: str, lines: list[str], expected: dict[str, object] | None, tmp_path: Path) -> None:
    found = parse(text(check, *lines))
    table = keys(only(found))
    assert table.get("health_check") == expected
    assert table.get("fail_open") == (None if expected is None else False)
    assert told(found) == ([] if expected else [(len(lines) + 2, check.partition(";")[0])])
    assert problems_in(tmp_path)(toml(found)) == ()


def test_an_answer_that_was_waited_for_longer() -> None:
    found = parse(text("health_check interval=1s;"))
    assert keys(only(found))["health_check"] == {**EVERY, "type": "tcp", "interval": "1s", "timeout": "1s"}
    assert "until the next question, 1s; in nginx for 5s" in reason(found, "health_check interval=1s")
    other = parse(text("health_check;", "health_check_timeout 9s;"))
    assert told(other) == [(1, "health_check_timeout 9s")]


def test_of_datagrams(tmp_path: Path) -> None:
    found = parse(text("health_check udp match=m;", PING, listen="53 udp"))
    assert told(found) == []
    assert problems_in(tmp_path)(toml(found)) == ()


def test_one_of_several_servers_with_the_upstream() -> None:
    """Others have targets of their own, then: what is asked differs."""
    both = text("health_check;") + "\nserver { listen 81; proxy_pass x; }"
    assert "pools" not in toml(parse(both))
    assert "[pools.x]" in toml(parse(both.replace("81; proxy_pass x;", "81; proxy_pass x; health_check;")))
