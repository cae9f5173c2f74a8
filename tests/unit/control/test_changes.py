"""What `plan` says of every key that there is, and of what is live."""

from dataclasses import replace
from pathlib import Path

import pytest

from relayd.channel.messages import LiveCount
from relayd.config import load
from relayd.config.forms import Table
from relayd.config.model import AdminTable, DaemonTable, ListenerTable, LogTable, PoolTable, Shared
from relayd.control.changes import changes_between
from relayd.control.verdict import Change
from relayd.spec import OnChange, Spec
from relayd.spec.plan import Postpone, effect, plan

#: For every key a line for each of two files. What belongs to a type or a family has that listener; the rest has both.
BEFORE = """
[daemon]
workers = 2
drain_timeout = "30s"
preserve_connections = true
[log]
level = "info"
format = "json"
access = true
[admin]
listen = "unix:@one"
allow_remote = false
token_file = "/DIRECTORY/one"
read_only = true
hosts = ["a.example.com"]
[listeners.a]
bind = ["127.0.0.1:80", "[::1]:80", "unix:/run/a.sock"]
targets = ["10.0.0.1:80", "[2001:db8::1]:80", "app.example.com:80"]
{key}
[listeners.b]
type = "dgram"
bind = "127.0.0.1:53"
targets = ["10.0.0.1:53"]
{datagram_key}
"""
#: key: one value, another one.
STREAM_KEYS = {
    "backlog": ("10", "20"),
    "interface": ('"lo"', '"eth0"'),
    "ipv6_only": ("true", "false"),
    "freebind": ("true", "false"),
    "fast_open": ("true", "false"),
    "defer_accept": ('"5s"', '"off"'),
    "mode": ('"0600"', '"0660"'),
    "user": ('"0"', '"1"'),
    "group": ('"0"', '"1"'),
    "dial_attempts": ("1", "2"),
    "balance": ('"first"', '"random"'),
    "resolve": ('{ family = "inet" }', '{ min_ttl = "5s" }'),
    "health_check": ('"off"', '{type = "tcp"}'),
    "fail_open": ('true\nhealth_check = {type = "tcp"}', 'false\nhealth_check = {type = "tcp"}'),
    "max_ejected": ('"0%"', '"50%"'),
    "slow_start": ('"1s"', '"off"'),
    "source": ('"10.0.0.5"', '"10.0.0.6"'),
    "connect_timeout": ('"1s"', '"2s"'),
    "idle_timeout": ('"1s"', '"off"'),
    "half_close_timeout": ('"1s"', '"off"'),
    "max_lifetime": ('"1s"', '"off"'),
    "keepalive": ("true", "false"),
    "tcp_user_timeout": ('"1s"', '"off"'),
    "congestion": ('"reno"', '"cubic"'),
    "nodelay": ("true", "false"),
    "on_change": ('"keep"', '"close"'),
    "log": ("{ access = false }", '{ level = "debug", start = true, progress = "5m" }'),
}
DATAGRAM_KEYS = {
    "session_timeout": ('"1s"', '"2s"'),
    "max_sessions": ("1", "2"),
    "max_responses": ("1", "2"),
    "session": ('"client"', '"datagram"'),
    "on_target_error": ('"move"', '"close"'),
}
#: table.key: what stands in BEFORE, what stands there instead, and what the line names.
OTHERS = {
    "daemon.workers": ("workers = 2", "workers = 3"),
    "daemon.drain_timeout": ('drain_timeout = "30s"', 'drain_timeout = "1s"'),
    "daemon.preserve_connections": ("preserve_connections = true", "preserve_connections = false"),
    "log.level": ('level = "info"', 'level = "debug"'),
    "log.format": ('format = "json"', 'format = "text"'),
    "log.access": ("access = true", "access = false"),
    "admin.listen": ('listen = "unix:@one"', 'listen = "unix:@two"'),
    "admin.token_file": ("/DIRECTORY/one", "/DIRECTORY/two"),
    "admin.read_only": ("read_only = true", "read_only = false"),
    "admin.hosts": ('hosts = ["a.example.com"]', "hosts = []"),
}
LISTENER_ITSELF = {
    "type": ('type = "dgram"', 'type = ["stream", "dgram"]'),
    "bind": ('bind = "127.0.0.1:53"', 'bind = "127.0.0.1:54"'),
    "targets": ('targets = ["10.0.0.1:53"]', 'targets = ["10.0.0.2:53"]'),
    "pool": ('targets = ["10.0.0.1:53"]', 'pool = "p"\n[pools.p]\ntargets = ["10.0.0.1:53"]'),
}
#: Keys that say nothing by themselves: `family` is that of the binds, `allow_remote` permits what `listen` says.
WITHOUT_EFFECT = {"family", "allow_remote"}
ONLY_A_RESTART = {"daemon.workers", "log.format", "admin.listen", "interface", "ipv6_only"}


def loaded(text: str, directory: Path) -> Spec:
    path = directory / "relay.toml"
    for name in ("one", "two"):
        (directory / name).touch(0o600)
        (directory / name).write_text(f"token-of-{name}-0123456789\n")
    path.write_text(text.replace("/DIRECTORY", str(directory)))
    return load(path).spec


def test_another_token_in_the_same_file_is_told(tmp_path: Path) -> None:
    text = BEFORE.format(key="", datagram_key="")
    old = loaded(text, tmp_path)
    new = replace(old, admin=replace(old.admin, token_sha256="0" * 64))
    assert changes_between(old, loaded(text, tmp_path)) == ()
    assert changes_between(old, new) == (Change("~", None, "admin.token_file: another token is in the file"),)
    other = loaded(text.replace("/DIRECTORY/one", "/DIRECTORY/two"), tmp_path)
    assert [change.text.partition(" ")[0] for change in changes_between(old, other)] == ["admin.token_file"]


def test_no_key_is_forgotten() -> None:
    tables: dict[str, type[Table]] = {"daemon": DaemonTable, "log": LogTable, "admin": AdminTable}
    keys = {f"{name}.{key}" for name, table in tables.items() for key in table.model_fields}
    assert keys - {f"admin.{key}" for key in WITHOUT_EFFECT} == set(OTHERS)
    of_listeners = {*STREAM_KEYS, *DATAGRAM_KEYS, *LISTENER_ITSELF}
    assert set(ListenerTable.model_fields) - WITHOUT_EFFECT == of_listeners
    assert set(PoolTable.model_fields) <= of_listeners
    assert set(Shared.model_fields) <= {*STREAM_KEYS, *DATAGRAM_KEYS}


@pytest.mark.parametrize("key", [*STREAM_KEYS, *DATAGRAM_KEYS, *LISTENER_ITSELF, *OTHERS])
def test_a_change_of_every_key_is_reloaded_or_named(key: str, tmp_path: Path) -> None:
    # Issue 4: reloads, or is named as needing a restart.
    if key in STREAM_KEYS:
        texts = [BEFORE.format(key=f"{key} = {value}", datagram_key="") for value in STREAM_KEYS[key]]
    elif key in DATAGRAM_KEYS:
        texts = [BEFORE.format(key="", datagram_key=f"{key} = {value}") for value in DATAGRAM_KEYS[key]]
    else:
        plain = BEFORE.format(key="", datagram_key="")
        old_line, new_line = {**LISTENER_ITSELF, **OTHERS}[key]
        assert old_line in plain
        texts = [plain, plain.replace(old_line, new_line)]
    old, new = (loaded(text, tmp_path) for text in texts)
    change = plan(old, new)
    postponed = [step.key for step in change.steps if isinstance(step, Postpone)]
    assert postponed == ([key] if key in ONLY_A_RESTART else [])
    assert (change.spec == old) is bool(postponed)
    lines = [str(each) for each in changes_between(old, new)]
    name = {"bind": "bind 127.0.0.1:54 added", "targets": "target 10.0.0.2:53 added"}.get(key, f"{key} ")
    assert any(name in line for line in lines), lines
    assert any("needs a restart" in line for line in lines) is bool(postponed)
    assert changes_between(old, old) == ()


@pytest.fixture
def both(tmp_path: Path) -> Spec:
    return loaded(BEFORE.format(key="", datagram_key=""), tmp_path)


def test_from_nothing_every_listener_comes(both: Spec) -> None:
    assert [str(change) for change in changes_between(None, both)] == ["+ listener a", "+ listener b"]


def test_how_names_are_resolved_is_no_change_where_names_come_or_go(both: Spec) -> None:
    listener, other = both.listeners
    without = replace(listener, targets=listener.targets[:2])
    assert [str(change) for change in changes_between(both, replace(both, listeners=(without, other)))] == [
        "~ listener a: target app.example.com:80 removed"
    ]


def test_what_becomes_of_what_is_live_is_counted(both: Spec) -> None:
    listener, other = both.listeners
    goes, stays, _ = listener.targets
    live = [
        LiveCount("a", False, goes, 40),
        LiveCount("a", False, goes, 2),
        LiveCount("a", False, stays, 7),
        LiveCount("a", False, None, 1),
        LiveCount("b", True, other.targets[0], 1),
    ]
    without = replace(both, listeners=(replace(listener, targets=listener.targets[1:]),))
    assert [str(change) for change in changes_between(both, without, live)] == [
        "~ listener a: target 10.0.0.1:80 removed (42 connections: drain 30s)",
        "- listener b (1 session: drain 30s)",
    ]
    closing = replace(listener, on_change=OnChange.CLOSE, binding=replace(listener.binding, backlog=1))
    assert [str(change) for change in changes_between(both, replace(both, listeners=(closing, other)), live)] == [
        "~ listener a: backlog 4096 -> 1 (50 connections: close)",
        '~ listener a: on_change not set -> "close"',
    ]


POOL = """
[pools.app]
targets = [{targets}]
{more}
[listeners.web]
bind = "127.0.0.1:80"
pool = "app"
[listeners.dns]
type = "dgram"
bind = "127.0.0.1:53"
pool = "app"
"""


def test_what_a_pool_changes_stands_with_each_listener(tmp_path: Path) -> None:
    old = loaded(POOL.format(targets='"10.0.0.1:80", "10.0.0.2:80"', more=""), tmp_path)
    new = loaded(
        POOL.format(targets='"10.0.0.2:80", "10.0.0.3:80"', more='balance = "random"\ndial_attempts = 5'), tmp_path
    )
    goes, stays = old.listeners[0].targets
    live = [LiveCount("web", False, goes, 2), LiveCount("dns", True, goes, 1), LiveCount("dns", True, stays, 4)]
    assert [str(change) for change in changes_between(old, new, live)] == [
        "~ listener web: target 10.0.0.1:80 removed (2 connections: drain 30s)",
        "~ listener web: target 10.0.0.3:80 added",
        '~ listener web: balance "round_robin" -> "random"',
        "~ listener web: dial_attempts 3 -> 5",
        "~ listener dns: target 10.0.0.1:80 removed (1 session: drain 30s)",
        "~ listener dns: target 10.0.0.3:80 added",
        '~ listener dns: balance "round_robin" -> "random"',
    ]


def test_where_targets_stand_is_nothing_to_what_is_live(tmp_path: Path) -> None:
    web = '[listeners.web]\nbind = "127.0.0.1:80"\non_change = "close"\n'
    old = loaded(f'{web}targets = "10.0.0.1:80"', tmp_path)
    new = loaded(f'{web}pool = "app"\n[pools.app]\ntargets = "10.0.0.1:80"', tmp_path)
    target = old.listeners[0].targets[0]
    assert [str(change) for change in changes_between(old, new, [LiveCount("web", False, target, 2)])] == [
        '~ listener web: pool not set -> "app"'
    ]
    assert effect(old.listeners[0], new.listeners[0], target) is OnChange.KEEP
