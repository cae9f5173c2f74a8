"""haproxy.cfg as a whole."""

from pathlib import Path

import pytest

from relayd.imports.haproxy.reading import parse
from tests.unit.imports.reading import keys, only, opening, problems_in, reason, told, toml

FOR_BACKUPS = "so that a backup is dialled when every other target has failed"
DEFAULTS = "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"


def listen(*lines: str) -> str:
    return DEFAULTS + "\n".join(["listen x", "  bind :80", "  server a 10.0.0.1:80", *(f"  {line}" for line in lines)])


def test_a_listen() -> None:
    found = parse(listen())
    assert not found.leftovers
    draft = only(found)
    assert (draft.name, draft.line, draft.title) == ("x", 6, "listen x")
    assert keys(draft) == {
        "bind": ["0.0.0.0:80"],
        "targets": ["10.0.0.1:80"],
        "connect_timeout": "5s",
        "idle_timeout": "1m",
        "half_close_timeout": "1m",
    }


def test_a_frontend_and_its_backend() -> None:
    text = DEFAULTS + (
        "frontend in\n bind :80\n timeout client 30s\n default_backend out\n"
        "backend out\n retries 1\n server a a:1\n server b b:1\n"
        "backend other\n server c c:1\n"
    )
    found = parse(text)
    assert told(found) == [(14, "backend other")]
    draft = only(found)
    assert (draft.name, draft.title) == ("in", "frontend in, backend out")
    assert keys(draft)["targets"] == ["a:1", "b:1"]
    assert keys(draft)["dial_attempts"] == 2
    assert keys(draft)["idle_timeout"] == "30s"


def test_a_backend_of_two_frontends_is_told_once() -> None:
    text = DEFAULTS + (
        "frontend a\n bind :80\n default_backend out\nfrontend b\n bind :81\n use_backend out\n"
        "backend out\n balance source\n server a a:1 check\n server b b:1\n"
    )
    found = parse(text)
    assert [draft.name for draft in found.drafts] == ["a", "b"]
    assert [keys(draft)["balance"] for draft in found.drafts] == ["source_hash", "source_hash"]
    assert told(found) == [(15, "server b b:1")]
    text = toml(found)
    assert text.count('\npool = "out"\n') == 2
    assert text.count("targets = ") == text.count('balance = "source_hash"') == text.count("health_check = ") == 1
    assert '\n# Line 12: backend out\n[pools.out]\ntargets = ["a:1", "b:1"]\n' in text


@pytest.mark.parametrize(
    ("lines", "key", "value"),
    [
        (["retries 0"], "dial_attempts", 1),
        (["retries 500"], "dial_attempts", 100),
        (["backlog 50"], "backlog", 50),
        (["source 10.0.0.9"], "source", "10.0.0.9"),
        (["timeout tunnel 1h"], "idle_timeout", "1h"),
        (["timeout client-fin 5s", "timeout server-fin 5s"], "half_close_timeout", "5s"),
        (["clitcpka-idle 30", "srvtcpka-idle 30s"], "keepalive", {"idle": "30s"}),
        (["srvtcpka-intvl 5s", "clitcpka-cnt 3"], "keepalive", {"interval": "5s", "probes": 3}),
    ],
)
def test_keys(lines: list[str], key: str, value: object) -> None:
    found = parse(listen(*lines))
    assert keys(only(found))[key] == value
    assert not found.leftovers


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("retries x", "retries NUMBER"),
        ("clitcpka-cnt 500", "not understood"),
        ("clitcpka-idle 1500ms", "not understood"),
        ("use_backend y if { src 10.0.0.1 }", "no conditions"),
        ("tcp-request connection reject", "firewall"),
    ],
)
def test_what_is_told(line: str, why: str) -> None:
    found = parse(listen(line))
    assert only(found)
    assert why in reason(found, line)


def test_one_keepalive_for_both_sides() -> None:
    found = parse(listen("clitcpka-idle 30", "srvtcpka-idle 60"))
    assert keys(only(found))["keepalive"] == {"idle": "30s"}
    assert told(found) == [(10, "srvtcpka-idle 60")]


@pytest.mark.parametrize(
    ("lines", "targets", "balance", "left"),
    [
        (["balance leastconn", "server b 10.0.0.2:1"], ["10.0.0.2:1"], "least_connections", []),
        (["balance uri", "server b 10.0.0.2:1"], ["10.0.0.2:1"], None, ["balance uri"]),
        (["balance roundrobin", "server b b:1 weight 5"], ["b:1 weight 5"], None, []),
        (["balance leastconn", "server b 10.0.0.2:1 weight 5 backup"], ["10.0.0.2:1 backup"], None, []),
        (
            ["balance first", "server b 10.0.0.2:1 weight 5"],
            ["10.0.0.2:1"],
            "first",
            ["weight 5"],
        ),
        (["server b b:1 weight 0"], [], None, ["server b b:1 weight 0"]),
    ],
)
def test_how_clients_are_spread(lines: list[str], targets: list[str], balance: str | None, left: list[str]) -> None:
    found = parse(listen(*lines))
    assert keys(only(found))["targets"] == ["10.0.0.1:80", *targets]
    assert keys(only(found)).get("balance") == balance
    assert [one.text for one in found.leftovers] == left


@pytest.mark.parametrize(
    ("lines", "attempts", "comment"),
    [
        (["server b b:1 backup"], None, ""),
        (["server b b:1", "server c c:1 backup"], None, ""),
        (
            ["server b b:1", "server c c:1", "server d d:1 backup"],
            4,
            FOR_BACKUPS,
        ),
        (
            ["retries 0", "server b b:1 backup"],
            2,
            f"raised, {FOR_BACKUPS}",
        ),
        (["retries 1", "server b b:1 backup"], 2, "retries 1, and the first; each dial goes to the next target"),
    ],
)
def test_a_backup_has_its_dial(lines: list[str], attempts: int | None, comment: str) -> None:
    setting = only(parse(listen(*lines))).settings.get("dial_attempts")
    assert (setting.value if setting else None, setting.comment if setting else "") == (attempts, comment)


def test_one_backup_or_all() -> None:
    backups = ["server b b:1 backup", "server c c:1 backup"]
    assert only(parse(listen(*backups[:1]))).about_targets == ""
    assert "the first that is up" in only(parse(listen(*backups))).about_targets
    assert "the first that is up" in only(parse(listen(*backups, "no option allbackups"))).about_targets
    found = parse(listen(*backups, "option allbackups"))
    assert only(found).about_targets == ""
    assert (11, "option allbackups") in found.covered


def test_what_defaults_say_of_balance_is_told_once() -> None:
    text = "defaults\n balance uri\n option allbackups\n" + "".join(
        f"listen {name}\n bind :{port}\n server a a:1\n server b b:1\n" for name, port in (("a", 1), ("b", 2))
    )
    found = parse(text)
    assert [one for one in told(found) if one[0] < 4] == [(2, "balance uri")]
    assert found.covered == ((3, "option allbackups"),)


def test_binds_whose_options_differ_are_listeners_of_their_own() -> None:
    text = listen("bind :81 interface eth0", "bind [::]:80 v6only", "bind /run/a.sock mode 600", "bind :82")
    drafts = parse(text).drafts
    assert [(draft.name, [place.text for place in draft.binds]) for draft in drafts] == [
        ("x", ["0.0.0.0:80", "[::]:80", "unix:/run/a.sock", "0.0.0.0:82"]),
        ("x-2", ["0.0.0.0:81"]),
    ]
    assert keys(drafts[0])["ipv6_only"] is True
    assert keys(drafts[0])["mode"] == "0600"


def test_both_wildcards_on_one_port() -> None:
    assert keys(only(parse(listen("bind :::80"))))["ipv6_only"] is True
    assert "ipv6_only" not in keys(only(parse(listen("bind :::81"))))


@pytest.mark.parametrize(
    ("text", "line", "left"),
    [
        ("frontend a\n mode http\n bind :80\n default_backend b\n", 6, "frontend a"),
        ("frontend a\n bind :80\n", 6, "frontend a"),
        ("frontend a\n bind :80\n default_backend b\n", 8, "backend b"),
        ("frontend a\n bind :80\n default_backend b\nbackend b\n mode http\n", 8, "backend b"),
        ("listen a\n bind :80\n", 6, "listen a"),
        ("listen a\n server a a:1\n", 6, "listen a"),
        ("listen a\n disabled\n bind :80\n server a a:1\n", 6, "listen a"),
        ("backend a\n server a a:1\n", 6, "backend a"),
        ("resolvers a\n nameserver b 10.0.0.1:53\n", 6, "resolvers a"),
    ],
)
def test_what_is_no_listener(text: str, line: int, left: str) -> None:
    found = parse(DEFAULTS + text)
    assert found.drafts == ()
    assert (line, left) in told(found)


def test_a_port_below_that_of_several_binds() -> None:
    found = parse(DEFAULTS + "listen a\n bind :80\n bind :90\n server a a:-10\n server b b:1\n")
    assert keys(only(found))["targets"] == ["b:1"]
    assert told(found) == [(9, "server a a:-10")]


def test_the_mode_of_http_is_told_once_and_nothing_of_it() -> None:
    text = (
        "defaults\n mode http\n option httpchk\nfrontend a\n bind :443 ssl\n acl a b\n default_backend b\nbackend b\n"
    )
    assert told(parse(text)) == [(4, "frontend a"), (8, "backend b")]


def test_global() -> None:
    text = "global\n nbthread 4\n hard-stop-after 1m\n daemon\n tune.bufsize 5\n maxconn 5\n nosuch\n"
    found = parse(text + listen())
    assert {key: setting.value for key, setting in found.daemon.items()} == {"workers": 4, "drain_timeout": "1m"}
    assert told(found) == [(6, "maxconn 5"), (7, "nosuch")]
    assert (4, "daemon") in found.covered


def test_rules_of_access_open_it() -> None:
    found = parse(listen("tcp-request connection reject if !inside", "tcp-request inspect-delay 5s"))
    assert [one.line for one in opening(found)] == [9]


def test_it_loads(tmp_path: Path) -> None:
    text = listen("bind [::]:80", "server b [2001:db8::1]", "server c c.example.com:+5", "retries 2", "clitcpka-idle 5")
    assert problems_in(tmp_path)(toml(parse(text))) == ()


@pytest.mark.parametrize("how", ["roundrobin", "leastconn", "random(3)", "source", "first", "uri"])
def test_every_way_to_balance_loads(tmp_path: Path, how: str) -> None:
    text = listen(
        f"balance {how}", "server b b:1 weight 256 id 2", "server c c:1 backup weight 2", "server d d:1 backup"
    )
    assert problems_in(tmp_path)(toml(parse(text))) == ()
