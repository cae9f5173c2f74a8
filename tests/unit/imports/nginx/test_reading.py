"""nginx.conf as a whole."""

from pathlib import Path

import pytest

from relayd.imports.nginx.reading import parse
from tests.unit.imports.reading import keys, only, opening, problems_in, reason, told, toml


def server(*lines: str, listen: str = "listen 80;") -> str:
    return "\n".join(["stream {", "server {", listen, "proxy_pass a:1;", *lines, "}", "}"])


def test_a_server() -> None:
    found = parse(server())
    assert not found.leftovers
    draft = only(found)
    assert (draft.name, draft.line, draft.title) == ("tcp-80", 2, "server to a:1")
    assert keys(draft) == {"bind": ["0.0.0.0:80"], "targets": ["a:1"], "idle_timeout": "10m"}


def test_the_contents_of_a_stream_block() -> None:
    found = parse("proxy_timeout 5s;\nupstream x { server a:1; }\nserver { listen 80; proxy_pass x; }\n")
    assert keys(only(found)) == {"bind": ["0.0.0.0:80"], "targets": ["a:1"], "idle_timeout": "5s"}
    assert not found.leftovers


def test_names_come_from_upstreams() -> None:
    text = "upstream x { server a:1; }\n" + "".join(
        f"server {{ listen {listen}; proxy_pass x; }}\n"
        for listen in ("80", "80 udp", "81", "[::]:81", "unix:/run/s.sock")
    )
    assert [draft.name for draft in parse(text).drafts] == ["x", "x-udp", "x-81", "x-tcp-81", "x-s"]
    assert only(parse("server { listen unix:/run/s.sock; proxy_pass a:1; }")).name == "tcp-s"


def test_streams_and_datagrams_on_the_same_addresses() -> None:
    found = parse(server("proxy_timeout 20s;", "proxy_responses 1;", listen="listen 53 udp reuseport; listen 53;"))
    assert keys(only(found)) == {
        "type": ["stream", "dgram"],
        "bind": ["0.0.0.0:53"],
        "targets": ["a:1"],
        "idle_timeout": "20s",
        "session_timeout": "20s",
        "max_responses": 1,
    }


def test_binds_whose_options_differ_are_listeners_of_their_own() -> None:
    drafts = parse(server(listen="listen 80; listen [::]:80; listen 81 backlog=5; listen 82 udp;")).drafts
    assert [[place.text for place in draft.binds] for draft in drafts] == [
        ["0.0.0.0:80", "[::]:80"],
        ["0.0.0.0:81"],
        ["0.0.0.0:82"],
    ]
    assert keys(drafts[0])["ipv6_only"] is True
    assert drafts[2].types == ("dgram",)


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        (["proxy_timeout 1h 30m;"], "idle_timeout", "1h30m"),
        (["proxy_connect_timeout 500ms;"], "connect_timeout", "500ms"),
        (["proxy_bind 10.0.0.9;"], "source", "10.0.0.9"),
        (["proxy_bind 10.0.0.9:0;"], "source", "10.0.0.9"),
        (["proxy_bind [2001:db8::9]:0;"], "source", "2001:db8::9"),
        (["proxy_next_upstream off;"], "dial_attempts", 1),
        (["proxy_next_upstream_tries 2;"], "dial_attempts", 2),
        (["tcp_nodelay off;"], "nodelay", False),
    ],
)
def test_keys(lines: list[str], key: str, value: object) -> None:
    found = parse(server(*lines))
    assert keys(only(found))[key] == value
    assert not found.leftovers


def test_every_target_is_tried() -> None:
    servers = "".join(f"server a{number}:1;" for number in range(5))
    found = parse(f"upstream x {{ {servers} }} server {{ listen 80; proxy_pass x; }}")
    assert keys(only(found))["dial_attempts"] == 5


@pytest.mark.parametrize(
    ("lines", "attempts", "comment"),
    [
        ("", None, ""),
        ("server d:1;", 4, "as nginx: every target"),
        ("proxy_next_upstream_tries 1;", 3, "raised, so that a backup is dialled when every other target has failed"),
        ("proxy_next_upstream off;", 3, "raised, so that a backup is dialled when every other target has failed"),
        ("proxy_next_upstream_tries 5;", 5, "proxy_next_upstream_tries"),
    ],
)
def test_a_backup_has_its_dial(lines: str, attempts: int | None, comment: str) -> None:
    more, rest = (lines, "") if lines.startswith("server") else ("", lines)
    servers = f"server a:1; server b:1; server c:1 backup; {more}"
    found = parse(f"upstream x {{ {servers} }} server {{ listen 80; proxy_pass x; {rest} }}")
    setting = only(found).settings.get("dial_attempts")
    assert (setting.value if setting else None, setting.comment if setting else "") == (attempts, comment)
    datagrams = parse(f"upstream x {{ {servers} }} server {{ listen 80 udp; proxy_pass x; {rest} }}")
    assert "dial_attempts" not in keys(only(datagrams))


@pytest.mark.parametrize("listen", ["listen 80;", "listen 80 udp;", "listen 80; listen 80 udp;"])
def test_how_clients_are_spread(listen: str) -> None:
    text = "upstream x { least_conn; server a:1 weight=600; server b:1 weight=300; server c:1 backup; }"
    found = parse(f"{text} server {{ {listen} proxy_pass x; }}")
    assert keys(only(found))["targets"] == ["a:1 weight 2", "b:1", "c:1 backup"]
    assert keys(only(found))["balance"] == "least_connections"
    assert "up to 600" in only(found).about_targets
    assert not found.leftovers


def test_what_an_upstream_of_two_servers_says_is_told_once() -> None:
    text = "upstream x { least_time connect; server a:1; }\n"
    found = parse(text + "server { listen 1; proxy_pass x; }\nserver { listen 2; proxy_pass x; }\n")
    assert told(found) == [(1, "least_time connect")]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("proxy_protocol on", "PROXY header"),
        ("proxy_bind $remote_addr transparent", "address of its own"),
        ("proxy_download_rate 100k", "bandwidth"),
        ("ssl_preread on", "reads nothing"),
        ("limit_conn a 1", "no limits"),
        ("health_check match=nosuch", "nothing is asked"),
        ("include /etc/x", "cat /etc/x | relayd import --from nginx -"),
        ("access_log off", "access = false"),
        ("proxy_timeout x", "a time such as"),
        ("proxy_timeout 0", "a time such as"),
        ("proxy_next_upstream_tries x", "a number"),
        ("nosuch { … }", "nothing like it"),
    ],
)
def test_what_is_told(line: str, why: str) -> None:
    found = parse(server("nosuch { a; }" if "{" in line else f"{line};"))
    assert only(found)
    assert why in reason(found, line)
    assert found.leftovers[0].line == 5


@pytest.mark.parametrize(
    ("line", "why"),
    [("proxy_responses 0", "one way"), ("proxy_responses x", "a number"), ("proxy_requests 1", "questions")],
)
def test_what_is_told_of_datagrams(line: str, why: str) -> None:
    found = parse(server(f"{line};", listen="listen 53 udp;"))
    assert "max_responses" not in keys(only(found))
    assert why in reason(found, line)


def test_what_is_inherited_is_told_once() -> None:
    found = parse("proxy_bind $a;\nserver { listen 1; proxy_pass a:1; }\nserver { listen 2; proxy_pass a:1; }\n")
    assert len(found.drafts) == 2
    assert told(found) == [(1, "proxy_bind $a")]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("server { listen 80; proxy_pass a:1; proxy_ssl on; }", ["proxy_ssl on"]),
        ("server { listen 443 ssl; proxy_pass a:1; }", ["listen 443 ssl", "server { … }"]),
        ("server { listen 80; proxy_pass $x; }", ["proxy_pass $x", "server { … }"]),
        ("server { listen 80; proxy_pass x; }", ["proxy_pass x", "server { … }"]),
        ("server { listen 80; return a; }", ["return a", "server { … }"]),
        ("server { proxy_pass a:1; }", ["server { … }"]),
        ("upstream x { server a:1; }", ["upstream x { … }"]),
        ("server { listen 80; location / { proxy_pass http://a; } }", ["server { … }"]),
        ("http { server { listen 80; } }", ["http { … }"]),
        ("stream { server a:1; }", ["server a:1"]),
    ],
)
def test_what_is_no_listener(text: str, left: list[str]) -> None:
    found = parse(text)
    assert found.drafts == ()
    assert [one.text for one in found.leftovers] == left


def test_an_upstream_that_is_there_twice() -> None:
    found = parse("upstream x { server a:1; }\nupstream x { server b:1; }\nserver { listen 80; proxy_pass x; }")
    assert keys(only(found))["targets"] == ["a:1"]
    assert told(found) == [(2, "upstream x { … }")]


def test_what_stands_around_the_stream_block() -> None:
    text = (
        "user a;\nworker_processes 4;\nworker_shutdown_timeout 1m;\nevents { }\ninclude /etc/nginx/modules-enabled/*;\n"
        "include other;\nhttp { }\nnosuch;\n"
    )
    found = parse(text + server())
    assert {key: setting.value for key, setting in found.daemon.items()} == {"workers": 4, "drain_timeout": "1m"}
    assert told(found) == [(6, "include other"), (7, "http { … }"), (8, "nosuch")]
    assert found.covered == ((1, "user"), (4, "events"), (5, "include"))


def test_rules_of_access_open_it() -> None:
    found = parse(server("allow 10.0.0.0/8;", "allow all;", "deny all;"))
    assert [one.text for one in opening(found)] == ["allow 10.0.0.0/8", "deny all"]


def test_an_upstream_of_two_servers_is_a_pool(tmp_path: Path) -> None:
    text = (
        "upstream x { least_conn; zone x 64k; server 10.0.0.1:1 max_conns=5; server b:1 max_fails=0; }\n"
        "server { listen 53; proxy_pass x; }\nserver { listen 53 udp; proxy_pass x; }\n"
    )
    found = toml(parse(text))
    assert '[listeners.x]\nbind = "0.0.0.0:53"\npool = "x"\n' in found
    assert '[listeners.x-udp]\ntype = "dgram"\nbind = "0.0.0.0:53"\npool = "x"\n' in found
    assert (
        "# Line 1: upstream x\n[pools.x]\n"
        'targets = [{ address = "10.0.0.1:1", max_connections = 5 }, "b:1"]\nbalance = "least_connections"\n'
    ) in found
    assert problems_in(tmp_path)(found) == ()


@pytest.mark.parametrize(
    "servers",
    [
        "server 10.0.0.1:1 slow_start=30s max_fails=0; server b:1 slow_start=30s max_fails=0 max_conns=7;",
        "server example.com service=http resolve; server b:1 backup;",
    ],
)
def test_what_is_about_targets_that_fail_loads(tmp_path: Path, servers: str) -> None:
    text = f"upstream x {{ {servers} }}\nserver {{ listen 53; listen 53 udp; proxy_pass x; }}\n"
    assert problems_in(tmp_path)(toml(parse(text))) == ()


@pytest.mark.parametrize("method", ["least_conn", "ip_hash", "hash $remote_addr consistent", "random", "hash $x"])
def test_every_way_to_choose_loads(tmp_path: Path, method: str) -> None:
    servers = "server a:1 weight=1000; server b:1; server c:1 backup weight=9; server d:1 backup;"
    text = f"upstream x {{ {method}; {servers} }}\nserver {{ listen 53; listen 53 udp; proxy_pass x; }}\n"
    assert problems_in(tmp_path)(toml(parse(text))) == ()


def test_it_loads(tmp_path: Path) -> None:
    text = server(
        "proxy_responses 1;", listen="listen 53; listen 53 udp; listen [::]:53; listen 54 so_keepalive=30m::10;"
    )
    assert problems_in(tmp_path)(toml(parse(text))) == ()
