"""`upstream` of nginx."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.nginx.syntax import directives
from relayd.imports.nginx.upstreams import Goals, address, goals
from tests.unit.imports.reading import target

TWO = "server 10.0.0.1:1; server 10.0.0.2:1;"


def read(text: str) -> tuple[Goals, Notes]:
    notes = Notes()
    return goals(directives(f"upstream x {{ {text} }}", notes)[0], notes), notes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("a.example.com:80", "a.example.com:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:/run/a.sock:", "unix:/run/a.sock"),
        ("10.0.0.1:$server_port", "10.0.0.1"),
        ("[::1]:$server_port", "[::1]"),
        ("10.0.0.1", None),
        ("$a:80", None),
        ("$a:$server_port", None),
        ("a:http", None),
        (":80", None),
        ("[::1]", None),
        ("a:0", None),
    ],
)
def test_address(text: str, expected: str | None) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("server a:1; server b:1;", ["a:1", "b:1"], []),
        ("server a:1; server b:1 backup;", ["a:1", "b:1 backup"], []),
        ("server a:1 backup; server b:1 backup;", ["a:1", "b:1"], []),
        ("server a:1 down; server b:1 backup;", ["b:1"], ["server a:1 down"]),
        ("server a:1 down; server b:1;", ["b:1"], ["server a:1 down"]),
        ("server a:1 weight=5; server b:1;", ["a:1 weight 5", "b:1"], []),
        ("server a:1 weight=5; server b:1 weight=5;", ["a:1", "b:1"], []),
        (
            "server a:1; server b:1 backup weight=2; server c:1 backup;",
            ["a:1", "b:1 weight 2 backup", "c:1 backup"],
            [],
        ),
        ("server a:1 weight=0; server b:1 weight=x;", ["a:1", "b:1"], ["weight=0", "weight=x"]),
        ("server a:1 max_fails=3 fail_timeout=5s resolve;", ["a:1"], ["max_fails=3 fail_timeout=5s"]),
        ("server a:1 nosuch;", ["a:1"], ["nosuch"]),
        ("zone x 64k; include y; nosuch; server a:1;", ["a:1"], ["zone x 64k", "include y", "nosuch"]),
        ("server; server a;", [], ["server", "server a"]),
        ("", [], []),
    ],
)
def test_targets(text: str, kept: list[str], left: list[str]) -> None:
    found, notes = read(text)
    assert [target(place) for place in found.targets] == kept
    assert [one.text for one in notes.leftovers] == left


@pytest.mark.parametrize(
    ("weights", "expected", "comment"),
    [
        (["256", "1"], ["256", "1"], ""),
        (["1000", "500"], ["2", "1"], "weights of up to 1000 divided: relayd has up to 256"),
        (["1000", "999", "1"], ["256", "256", "1"], "weights of up to 1000 divided: relayd has up to 256"),
        (["1000", "1000"], ["1", "1"], ""),
        (["999999999", "1"], ["256", "1"], "weights of up to 999999999 divided: relayd has up to 256"),
    ],
)
def test_weights_that_are_too_large(weights: list[str], expected: list[str], comment: str) -> None:
    found, notes = read("".join(f"server a{number}:1 weight={weight};" for number, weight in enumerate(weights)))
    assert [str(place.weight) for place in found.targets] == expected
    assert found.comment == comment
    assert not notes.leftovers


def test_weights_of_one_kind_that_are_too_large() -> None:
    found, _ = read("server a:1; server b:1 weight=3; server c:1 weight=400 backup; server d:1 weight=200 backup;")
    assert [place.weight for place in found.targets] == [1, 3, 2, 1]
    assert "up to 400" in found.comment


HASH = "another hash than nginx's: clients go to other targets than they did"


@pytest.mark.parametrize(
    ("method", "expected", "comment"),
    [
        ("least_conn", "least_connections", ""),
        ("ip_hash", "source_hash", HASH),
        ("hash $remote_addr", "source_hash", HASH),
        ("hash $remote_addr consistent", "source_hash", HASH),
        ("hash ${remote_addr}", "source_hash", HASH),
        ("hash $binary_remote_addr consistent", "source_hash", HASH),
        ("random", "random", "the less busy of two; one at random in nginx"),
        ("random two", "random", ""),
        ("random two least_conn", "random", ""),
        ("random two least_time=connect", "random", "the less busy of two; the faster in nginx"),
    ],
)
def test_what_relayd_has(method: str, expected: str, comment: str) -> None:
    found, notes = read(f"{method}; {TWO}")
    setting = found.settings["balance"]
    assert (setting.value, setting.line, setting.comment) == (expected, 1, comment)
    assert not notes.leftovers


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("least_time connect", "measures no answers"),
        ("hash $remote_addr$remote_port", "the client's address alone"),
        ("hash $ssl_preread_server_name consistent", "the client's address alone"),
        ("hash", "the client's address alone"),
    ],
)
def test_what_relayd_has_not(method: str, why: str) -> None:
    found, notes = read(f"{method}; {TWO}")
    assert found.settings == {}
    assert [one.text for one in notes.leftovers] == [method]
    assert why in notes.leftovers[0].reason
    assert "targets take turns" in notes.leftovers[0].reason


def test_the_last_method_counts() -> None:
    found, notes = read(f"hash $remote_addr; least_conn; {TWO}")
    assert found.settings["balance"].value == "least_connections"
    assert [one.text for one in notes.leftovers] == ["hash $remote_addr"]


@pytest.mark.parametrize(
    ("servers", "matters"),
    [
        ("", False),
        ("server 10.0.0.1:1;", False),
        ("server 10.0.0.1:1; server 10.0.0.2:1 backup;", False),
        ("server 10.0.0.1:1; server 10.0.0.2:1 down;", False),
        ("server unix:/run/a;", False),
        ("server a.example.com:1;", True),
        ("server 10.0.0.1:1; server 10.0.0.2:1 backup; server 10.0.0.3:1 backup;", True),
    ],
)
@pytest.mark.parametrize("method", ["least_conn", "least_time connect"])
def test_it_matters_where_there_is_a_choice(servers: str, method: str, matters: bool) -> None:
    found, notes = read(f"{method}; {servers}")
    told = [one for one in notes.leftovers if one.text == method]
    assert ("balance" in found.settings or bool(told)) is matters


@pytest.mark.parametrize(
    ("text", "settings", "left"),
    [
        ("server 10.0.0.1:1 max_fails=0; server 10.0.0.2:1 max_fails=0;", {"max_ejected": "0%"}, []),
        ("server 10.0.0.1:1 max_fails=0; server 10.0.0.2:1;", {}, ["max_fails=0"]),
        (
            "server 10.0.0.1:1 max_fails=0; server 10.0.0.2:1 max_fails=2 fail_timeout=5s;",
            {},
            ["max_fails=0", "max_fails=2 fail_timeout=5s"],
        ),
        ("server 10.0.0.1:1 fail_timeout=5s; server 10.0.0.2:1;", {}, ["fail_timeout=5s"]),
        ("server 10.0.0.1:1 slow_start=30s; server 10.0.0.2:1 slow_start=30;", {"slow_start": "30s"}, []),
        (
            "server 10.0.0.1:1 slow_start=30s; server 10.0.0.2:1 slow_start=1m; server 10.0.0.3:1 slow_start=1m;",
            {"slow_start": "1m"},
            ["slow_start=30s"],
        ),
        (
            "server 10.0.0.1:1 slow_start=30s; server 10.0.0.2:1;",
            {"slow_start": "30s"},
            ["server 10.0.0.2:1, without slow_start"],
        ),
        ("server 10.0.0.1:1 slow_start=0; server 10.0.0.2:1;", {}, []),
        ("server 10.0.0.1:1 max_fails=0 fail_timeout=5s slow_start=5s;", {}, []),
        ("server a:1 max_fails=0 slow_start=5s;", {"max_ejected": "0%", "slow_start": "5s"}, []),
        (
            "server 10.0.0.1:1 max_fails=x slow_start=x fail_timeout=x;",
            {},
            ["max_fails=x", "slow_start=x", "fail_timeout=x"],
        ),
    ],
)
def test_what_all_servers_agree_on(text: str, settings: dict[str, str], left: list[str]) -> None:
    found, notes = read(text)
    assert {key: one.value for key, one in found.settings.items()} == settings
    assert [one.text for one in notes.leftovers] == left


@pytest.mark.parametrize(
    ("text", "limits", "left"),
    [
        ("zone x 64k; server a:1 max_conns=5; server b:1;", [5, 0], ["zone x 64k"]),
        ("server a:1 max_conns=5; server b:1 max_conns=0;", [5, 0], ["max_conns=5"]),
        ("server a:1 max_conns=x;", [0], ["max_conns=x"]),
        ("server a:1 max_conns=5 down; server b:1;", [0], ["server a:1 max_conns=5 down"]),
    ],
)
def test_limits(text: str, limits: list[int], left: list[str]) -> None:
    found, notes = read(text)
    assert [place.max_connections for place in found.targets] == limits
    assert [one.text for one in notes.leftovers] == left


def test_a_limit_of_each_worker_is_one_of_all() -> None:
    _, notes = read("server a:1 max_conns=5;")
    assert "each worker of nginx has as many" in notes.leftovers[0].reason


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("server example.com service=http resolve;", ["srv:_http._tcp.example.com"], []),
        ("server example.com service=_http._tcp resolve;", ["srv:_http._tcp.example.com"], []),
        ("server example.com service=a.b resolve backup; server b:1;", ["srv:a.b.example.com backup", "b:1"], []),
        ("server example.com service=http resolve weight=5;", ["srv:_http._tcp.example.com"], ["weight=5"]),
        ("server example.com service=http;", [], ["server example.com service=http"]),
        ("server example.com:80 service=http resolve;", ["example.com:80"], ["service=http"]),
        ("server example.com service= resolve;", [], ["server example.com service= resolve"]),
    ],
)
def test_services(text: str, kept: list[str], left: list[str]) -> None:
    found, notes = read(text)
    assert [target(place) for place in found.targets] == kept
    assert [one.text for one in notes.leftovers] == left


def test_where_it_stands() -> None:
    home = read(TWO)[0].home
    assert home
    assert (home.name, home.line, home.title) == ("x", 1, "upstream x")
