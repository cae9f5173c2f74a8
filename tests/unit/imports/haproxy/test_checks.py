"""Health checks of HAProxy's servers, as the one of a listener."""

from pathlib import Path

import pytest

from relayd.imports.haproxy.reading import parse
from tests.unit.imports.reading import keys, only, problems_in, reason, told, toml

HEAD = ("defaults", "timeout client 1m", "timeout server 1m", "listen x", "bind :80")
#: The line of the first of `lines` below.
FIRST = len(HEAD) + 1


def read(*lines: str) -> tuple[dict[str, object], list[tuple[int, str]]]:
    """The keys about targets that fail, and what was left over, with lines counted from the first of `lines`."""
    found = parse("\n".join([*HEAD, *lines]))
    about = ("health_check", "fail_open", "slow_start", "max_ejected")
    left = [(line - FIRST, text) for line, text in told(found)]
    return {key: value for key, value in keys(only(found)).items() if key in about}, left


def check(*lines: str) -> dict[str, object]:
    """The health_check, of lines that are carried over as a whole."""
    found, left = read(*lines)
    assert left == []
    assert found["fail_open"] is False
    assert isinstance(found["health_check"], dict)
    return found["health_check"]


TCP = {"type": "tcp", "interval": "2s", "timeout": "2s"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", TCP),
        ("inter 2000 rise 2 fall 3", TCP),
        ("inter 1s", {"type": "tcp", "interval": "1s"}),
        ("inter 500", {"type": "tcp", "interval": "500ms"}),
        ("inter 5s downinter 30s", {"type": "tcp", "interval": "5s", "unhealthy_interval": "30s", "timeout": "5s"}),
        ("inter 5s fastinter 5s downinter 5s", {"type": "tcp", "interval": "5s", "timeout": "5s"}),
        ("rise 5 fall 1", {**TCP, "rise": 5, "fall": 1}),
        ("port 8080", {**TCP, "port": 8080}),
        ("port 80 addr 10.0.0.1", TCP),
    ],
)
def test_of_one_server(options: str, expected: dict[str, object]) -> None:
    assert check(f"server a 10.0.0.1:80 check {options}") == expected


@pytest.mark.parametrize(
    ("lines", "timeout"),
    [
        (["timeout check 1s"], "2s"),
        (["timeout check 1s", "timeout connect 500"], None),
        (["timeout check 100", "timeout connect 500", "option tcp-check", "tcp-check expect string a"], "600ms"),
        (["timeout check 500", "timeout connect 500", "option tcp-check", "tcp-check expect string a"], None),
        (["timeout check 100", "timeout connect 200"], "200ms"),
        (["timeout check 0"], "2s"),
        (["timeout connect 100"], "2s"),
    ],
)
def test_how_long_an_answer_is_waited_for(lines: list[str], timeout: str | None) -> None:
    expected = timeout
    if lines[:2] == ["timeout check 1s", "timeout connect 500"]:
        expected = "500ms"  # what comes after the connection is not waited for, where only that is asked
    assert check(*lines, "server a 10.0.0.1:80 check").get("timeout") == expected


@pytest.mark.parametrize(
    ("lines", "timeout", "left"),
    [
        (["option redis-check", "timeout check 5s", "server a a:1 check"], "2s", (1, "timeout check")),
        (["server a a:1 check inter 5s downinter 1s"], None, (0, "downinter 1s")),
        (["timeout check 0", "server a a:1 check inter 5s downinter 500"], None, (1, "downinter 500")),
    ],
)
def test_where_that_is_less_than_it_was(lines: list[str], timeout: str | None, left: tuple[int, str]) -> None:
    found, told_of = read(*lines)
    assert isinstance(found["health_check"], dict)
    assert found["health_check"].get("timeout") == timeout
    assert told_of == [left]


def test_nobody_is_checked() -> None:
    assert read("option httpchk", "server a a:1 inter 5s fall 2", "server b b:1 no-check slowstart 5s") == ({}, [])


def test_the_check_of_most() -> None:
    found, left = read(
        "server a a:1 check inter 1s", "default-server inter 3s", "server b b:1 check", "server c c:1 check fall 3"
    )
    assert found == {"health_check": {"type": "tcp", "interval": "3s", "timeout": "3s"}, "fail_open": False}
    assert left == [(0, "check inter 1s")]


def test_of_as_many_the_first() -> None:
    found, left = read("server a a:1 check inter 1s", "server b b:1 check inter 3s")
    assert found["health_check"] == {"type": "tcp", "interval": "1s"}
    assert left == [(1, "check inter 3s")]


@pytest.mark.parametrize("options", ["", "track a/b", "check addr 10.0.0.9", "agent-check"])
def test_clients_are_not_refused_where_not_all_are_checked(options: str) -> None:
    found, left = read("server a a:1 check", f"server b b:1 {options}")
    assert found == {"health_check": TCP}
    assert (1, "server b b:1") in left
    assert len(left) == 1 + bool(options)


def test_ports_that_differ_are_asked_as_those_of_targets() -> None:
    found, left = read(
        "option redis-check", "server a a:1 check port 5", "server b b:1 check port 6", "server c c:1 check"
    )
    assert found["health_check"] == TCP
    assert left == [(1, "port 5"), (2, "port 6")]


def test_a_port_of_the_rules_is_that_of_all() -> None:
    rule = ("option tcp-check", "tcp-check connect port 9")
    assert check(*rule, "server a a:1 check port 5", "server b b:1 check port 5") == {**TCP, "port": 9}


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:+5"])
def test_a_port_that_follows_the_bind(address: str) -> None:
    assert read(f"server a {address} check") == ({}, [(0, f"server a {address}")])
    assert check(f"server a {address} check port 5") == {**TCP, "port": 5}


def test_unix_sockets_have_no_port() -> None:
    assert check("server a /run/a check port 5") == TCP


@pytest.mark.parametrize(
    ("options", "left", "why"),
    [
        ("fastinter 500", "fastinter 500", "every 2s until it is down"),
        ("inter 50", "inter 50", "every 100ms"),
        ("inter x", "inter x", "a time"),
        ("rise 0", "rise 0", "a number"),
        ("fall 5000", "fall 5000", "a number"),
        ("check-ssl", "check-ssl", "TLS"),
        ("check-send-proxy", "check-send-proxy", "PROXY header"),
        ("check-sni a", "check-sni a", "nothing like it"),
        ("agent-check", "agent-check", "no agent"),
        ("observe layer4", "observe layer4", "counts as a failed check"),
        ("on-marked-down shutdown-sessions", "on-marked-down shutdown-sessions", "stay there"),
    ],
)
def test_what_is_told(options: str, left: str, why: str) -> None:
    found = parse("\n".join([*HEAD, f"server a a:1 check {options}"]))
    assert "health_check" in keys(only(found))
    assert told(found) == [(FIRST, left)]
    assert why in reason(found, left)


def test_what_default_server_says_is_told_once() -> None:
    lines = ("default-server check fastinter 500 observe layer4", "server a a:1", "server b b:1")
    assert read(*lines)[1] == [(0, "observe layer4"), (0, "fastinter 500")]


def test_a_check_by_tls_is_a_connection() -> None:
    found, left = read("option redis-check", "server a a:1 check check-ssl")
    assert found["health_check"] == TCP
    assert left == [(1, "check-ssl")]


@pytest.mark.parametrize(
    ("lines", "slow_start", "left"),
    [
        (["server a a:1 check slowstart 30s", "server b b:1 check slowstart 30000"], "30s", []),
        (["server a a:1 check slowstart 0"], None, []),
        (["server a a:1 check slowstart 30s", "server b b:1 check"], "30s", [(1, "check without slowstart")]),
        (
            ["server a a:1 check slowstart 5s", "server b b:1 check slowstart 6s", "server c c:1 check slowstart 6s"],
            "6s",
            [(0, "slowstart 5s")],
        ),
        (["server a a:1 check slowstart 30s", "balance first"], None, [(0, "slowstart 30s")]),
    ],
)
def test_slow_start(lines: list[str], slow_start: str | None, left: list[tuple[int, str]]) -> None:
    found, told_of = read(*lines)
    assert found.get("slow_start") == slow_start
    assert told_of == left


@pytest.mark.parametrize(
    "lines",
    [
        ["option httpchk HEAD /a HTTP/1.1", "http-check expect status 200,300-399"],
        ["option tcp-check", "tcp-check send-binary 00ff", r"tcp-check expect rstring ^\\x00.*\\$"],
        ["option tcp-check", 'tcp-check send "\\"\\\\"', "tcp-check expect binary 00ff"],
        ["option redis-check", "timeout check 1h", "balance first"],
        ["balance leastconn", "option httpchk GET /ä", "default-server port 8080"],
    ],
)
def test_it_loads(tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join(
        [
            *HEAD,
            *lines,
            "default-server inter 5s downinter 500 fall 1000 maxconn 9",
            "server a 10.0.0.1:80 check slowstart 5s",
            "server b b.example.com:80 check slowstart 5s backup",
            "server-template c 3 _http._tcp.example.com check slowstart 5s",
        ]
    )
    found = parse(text)
    assert "health_check" in keys(only(found))
    assert problems_in(tmp_path)(toml(found)) == ()
