"""`server` of HAProxy."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.haproxy.servers import Server, carried, servers, source, source_of
from relayd.imports.haproxy.syntax import Line


def read(*texts: str) -> tuple[list[Server], Notes]:
    notes = Notes()
    return servers([Line(number, tuple(text.split())) for number, text in enumerate(texts, 1)], notes), notes


@pytest.mark.parametrize(
    ("address", "ports", "expected"),
    [
        ("10.0.0.1:80", ["8080"], "10.0.0.1:80"),
        ("10.0.0.1", ["8080"], "10.0.0.1"),
        ("10.0.0.1:", ["8080"], "10.0.0.1"),
        ("10.0.0.1:0", ["8080"], "10.0.0.1"),
        ("10.0.0.1:+1000", ["8080"], "10.0.0.1:+1000"),
        ("10.0.0.1:+0", ["8080"], "10.0.0.1"),
        ("10.0.0.1:-1000", ["8080"], "10.0.0.1:7080"),
        ("10.0.0.1:-1000", ["7000-7009", "7000-7009"], "10.0.0.1:6000-6009"),
        ("[2001:db8::1]:80", ["8080"], "[2001:db8::1]:80"),
        ("[2001:db8::1]", ["8080"], "[2001:db8::1]"),
        ("2001:db8::1:80", ["8080"], "[2001:db8::1]:80"),
        ("ipv6@2001:db8::1:80", ["8080"], "[2001:db8::1]:80"),
        ("a.example.com:80", ["8080"], "a.example.com:80"),
        ("/run/a.sock", ["8080"], "unix:/run/a.sock"),
        ("unix@/run/a.sock", ["8080"], "unix:/run/a.sock"),
        ("abnsz@a", ["8080"], "unix:@a"),
    ],
)
def test_addresses(address: str, ports: list[str], expected: str) -> None:
    found, notes = read(f"server a {address}")
    assert [one.text(ports) for one in found] == [expected]
    assert not notes.leftovers


@pytest.mark.parametrize(
    ("ports", "why"), [(["80", "90"], "which has several"), (["50"], "below 1"), ([], "which has none")]
)
def test_a_port_below_that_of_the_bind(ports: list[str], why: str) -> None:
    found, _ = read("server a 10.0.0.1:-50")
    with pytest.raises(ValueError, match=why):
        found[0].text(ports)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("server a", "server NAME ADDRESS"),
        ("server a 0.0.0.0:80", "that the client asked for"),
        ("server a *:80", "that the client asked for"),
        ("server a $A:80", "write it out"),
        ("server a unix@a.sock", "absolute"),
        ("server a fd@5", "nothing like it"),
        ("server a 10.0.0.1:http", "HOST:PORT"),
        ("server-template a 3", "server NAME ADDRESS"),
    ],
)
def test_lines_without_a_target(line: str, why: str) -> None:
    found, notes = read(line)
    assert found == []
    assert [one.text for one in notes.leftovers] == [line]
    assert why in notes.leftovers[0].reason


def test_a_template_is_its_name() -> None:
    found, _ = read("server-template a 3 a.example.com:80")
    assert [one.text(["1"]) for one in found] == ["a.example.com:80"]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("server-template a 3 _http._tcp.example.com", []),
        ("server-template a 3 _http._tcp.example.com:80 resolvers x", ["resolvers x"]),
        ("server a _http._tcp.example.com weight 5", ["weight 5"]),
    ],
)
def test_a_service(line: str, left: list[str]) -> None:
    found, notes = read(line)
    assert [(one.text(["1"]), one.weight, one.is_service) for one in found] == [("srv:_http._tcp.example.com", 1, True)]
    assert [one.text for one in notes.leftovers] == left


@pytest.mark.parametrize(
    ("options", "limit", "left"),
    [
        ("maxconn 5", 5, ["maxconn 5"]),
        ("maxconn 0", 0, []),
        ("maxconn x", 0, ["maxconn x"]),
        ("maxconn 5 minconn 2 maxqueue 9", 5, ["maxconn 5", "minconn 2", "maxqueue 9"]),
    ],
)
def test_limits(options: str, limit: int, left: list[str]) -> None:
    found, notes = read(f"server a a:1 {options}")
    assert [one.max_connections for one in found] == [limit]
    assert [one.text for one in notes.leftovers] == left


def test_what_is_said_of_health() -> None:
    found, notes = read(
        "default-server check inter 1s agent-check",
        "server a a:1 no-check fall 5",
        "server b b:1 no-agent-check inter 2s",
    )
    assert [dict(one.health) for one in found] == [
        {"inter": ("1s", 1), "agent-check": ("", 1), "fall": ("5", 2)},
        {"check": ("", 1), "inter": ("2s", 3)},
    ]
    assert not notes.leftovers


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ("check inter 1s rise 2 fall 3 slowstart 1s", []),
        ("send-proxy-v2", ["send-proxy-v2"]),
        ("send-proxy-v2 proxy-v2-options ssl", ["send-proxy-v2"]),
        ("resolvers a resolve-prefer ipv4 init-addr none", ["resolvers a", "resolve-prefer ipv4"]),
        ("id 5 enabled verify none", []),
        ("id x weight 256 backup", []),
        ("no-check", []),
        ("weight 5", []),
        ("nosuch a b", ["nosuch a b"]),
        ("nosuch a weight 5 odd backup", ["nosuch a", "odd"]),
        ("hash-key addr", ["hash-key addr"]),
        ("weight x", ["weight x"]),
        ("weight 257", ["weight 257"]),
        ("source 10.0.0.9 usesrc clientip", ["source 10.0.0.9"]),
        ("tcp-ut 5s tfo", ["tcp-ut 5s", "tfo"]),
    ],
)
def test_options_that_are_told(options: str, left: list[str]) -> None:
    found, notes = read(f"server a 10.0.0.1:80 {options}")
    assert len(found) == 1
    assert [one.text for one in notes.leftovers] == left


@pytest.mark.parametrize(
    ("lines", "kept", "left"),
    [
        (["a:1", "b:1 backup"], [("a:1", False), ("b:1", True)], []),
        (["a:1 backup", "b:1"], [("a:1", True), ("b:1", False)], []),
        (["a:1 backup", "b:1 backup", "c:1 backup"], [("a:1", False), ("b:1", True), ("c:1", True)], []),
        (["a:1 disabled", "b:1"], [("b:1", False)], [1]),
        (["a:1 disabled", "b:1 backup"], [("b:1", False)], [1]),
        (["a:1 weight 0", "b:1"], [("b:1", False)], [1]),
        (["a:1 ssl verify none", "b:1"], [("b:1", False)], [1]),
        ([], [], []),
    ],
)
def test_which_are_carried(lines: list[str], kept: list[tuple[str, bool]], left: list[int]) -> None:
    found, notes = read(*(f"server s {line}" for line in lines))
    assert [(one.text(["9"]), one.backup) for one in carried(found, notes, all_backups=False)] == kept
    assert [one.line for one in notes.leftovers] == left


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["a:1", "b:1 backup", "c:1 backup"], [False, True, True]),
        (["a:1 backup", "b:1 backup"], [False, False]),
    ],
)
def test_all_backups(lines: list[str], kept: list[bool]) -> None:
    found, notes = read(*(f"server s {line}" for line in lines))
    assert [one.backup for one in carried(found, notes, all_backups=True)] == kept
    assert not notes.leftovers


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        ("backup", "no-backup", (False, False, False)),
        ("", "backup", (True, False, False)),
        ("disabled", "enabled", (False, False, False)),
        ("disabled", "no-disabled", (False, False, False)),
        ("ssl verify none", "no-ssl", (False, False, False)),
        ("backup disabled ssl", "", (True, True, True)),
    ],
)
def test_what_a_server_turns_off_again(default: str, own: str, expected: tuple[bool, bool, bool]) -> None:
    found, notes = read(f"default-server {default}", f"server a a:1 {own}")
    assert [(one.backup, one.down, one.tls) for one in found] == [expected]
    assert not notes.leftovers


def test_default_server_is_for_those_after_it() -> None:
    found, notes = read(
        "server a a:1", "default-server check weight 5", "default-server backup", "server b b:1 weight 6"
    )
    assert [(one.weight, one.backup) for one in found] == [(1, False), (6, True)]
    assert [list(one.health) for one in found] == [[], ["check"]]
    assert not notes.leftovers


@pytest.mark.parametrize(
    ("lines", "expected", "left"),
    [
        (["a:1", "b:1"], None, 0),
        (["a:1 source 10.0.0.9", "b:1 source 10.0.0.9:0"], "10.0.0.9", 0),
        (["a:1 source 10.0.0.9", "b:1"], None, 1),
    ],
)
def test_source_of_all(lines: list[str], expected: str | None, left: int) -> None:
    found, notes = read(*(f"server s {line}" for line in lines))
    setting = source_of(found, notes)
    assert (setting.value if setting else None) == expected
    assert len(notes.leftovers) == left


@pytest.mark.parametrize(
    ("text", "expected", "left"),
    [
        ("10.0.0.9", "10.0.0.9", 0),
        ("10.0.0.9:0", "10.0.0.9", 0),
        ("10.0.0.9:5000", "10.0.0.9", 1),
        ("[2001:db8::9]:0", "2001:db8::9", 0),
        ("2001:db8::9", "2001:db8::9", 0),
        ("0.0.0.0 usesrc clientip", "", 1),
        ("*", "", 0),
        ("", "", 0),
    ],
)
def test_source(text: str, expected: str, left: int) -> None:
    told: list[str] = []
    assert source(text.split(), told.append) == expected
    assert len(told) == left
