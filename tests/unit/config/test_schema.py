"""The JSON schema: current, complete, and of one mind with `load`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli

from relayd.config.model import BUILT_IN_TOML, AdminTable, Configuration, ListenerTable, PoolKeys
from relayd.config.schema import schema
from relayd.spec import ADMIN_SOCKET

from .json_schema import violations

CONFIGS = Path(__file__).parents[3] / "configs"
WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\ntargets = ["10.0.0.11:80"]\n'


def found(text: str) -> list[str]:
    return list(violations(tomli.loads(text), schema(), schema()))


def test_the_committed_file_is_current() -> None:
    committed = json.loads((CONFIGS / "relay.schema.json").read_text())
    assert committed == schema(), "relayd schema > configs/relay.schema.json"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.toml")), ids=lambda path: path.name)
def test_accepts_every_file_of_the_project(path: Path) -> None:
    text = path.read_text()
    assert found(text) == []
    directive = text.splitlines()[0]
    assert directive.startswith("#:schema ")
    assert (path.parent / directive.removeprefix("#:schema ")).resolve() == CONFIGS / "relay.schema.json"


@pytest.mark.parametrize(
    "line",
    [
        'bind = ["127.0.0.1:1", "[::1]:2", ":3", "unix:/a", "unix:@a", "a.example.com:4"]\ntargets = "x:1"',
        'bind = ":1"\ntargets = {address = "unix:/a"}\ntype = ["tcp"]\nkeepalive = {idle = "1m"}\nmode = "600"',
        'bind = ":1"\ntargets = "x:1"\nkeepalive = false\nidle_timeout = "off"\nconnect_timeout = "1h30m"',
        'bind = "[::]:1"\ntargets = "x:1"\ntype = ["udp", "stream"]\nsession_timeout = "1s"\nmax_responses = 1',
        'bind = ":1"\ntargets = "x:1"\non_change = "keep"\n[admin]\nlisten = "unix:/a"',
        'bind = ":1"\ntargets = "x:1"\n[admin]\nlisten = ["unix:@a", "127.0.0.1:1", "[::1]:2"]\nallow_remote = true',
        'bind = ":1"\ntargets = "x:1"\n[admin]\nread_only = true\nhosts = "relay.example.com"',
        'bind = ":1"\ntargets = "x:1"\n[admin]\nhosts = ["a", "b-1.example.com."]',
        'bind = ["systemd:web", "systemd:relayd.socket"]\ntargets = "x:1"',
        'bind = ":1"\ntargets = "x:1"\n[admin]\nlisten = []',
        'bind = ":1"\npool = "a.b"\n[pools."a.b"]\ntargets = ["x:1", {address = "y:1", weight = 2}]\nbalance = "first"',
        'bind = ":1"\ntargets = {address = "x:1", max_connections = 5}\nhealth_check = "off"\nmax_ejected = "100%"',
        'bind = ":1"\ntargets = "x:1"\nhealth_check = {type = "tcp", send = {hex = "0d0A"}, expect = "x"}',
        'bind = ":1"\ntargets = "x:1"\nhealth_check = {type = "stream", rise = 1, fall = 1}\nfail_open = true',
        'bind = ":1"\ntargets = "x:1"\nhealth_check = {type = "dgram", send = "a", expect = {regex = "b"}, port = 7}',
        'bind = ":1"\ntargets = "x:1"\nhealth_check = {type = "http", path = "/a?b", method = "HEAD", status = 204}',
        'bind = ":1"\ntargets = "x:1"\nhealth_check = {type = "http", host = "a.b", status = ["200-299", 301]}',
        'bind = ":1"\ntargets = "x:1"\nhealth_check = {type = "exec", command = ["/bin/true"]}\nslow_start = "30s"',
        'bind = ":1"\ntargets = ["srv:_a._b.c", {address = "srv:x"}]\nresolve = {family = "inet6", max_ttl = "1h"}',
        'bind = ":1"\ntargets = "x:1"\nlog = {access = false, level = "debug", start = true, progress = "5m"}',
        'bind = [":1-2", "[::]:1-2", "x:3-4"]\ntargets = ["x:1-2", "[::1]:3-4", "x:+1", "[::1]:+1", "x", "[::1]"]',
    ],
)
def test_accepts(line: str) -> None:
    assert found("[listeners.x]\n" + line) == []


@pytest.mark.parametrize(
    "line",
    [
        "nodelay = 1",
        "backlog = 0",
        "backlog = 65536",
        "connect_timeout = 5",
        'connect_timeout = "5"',
        'connect_timeout = "off"',
        'idle_timeout = "never"',
        'type = "datagram"',
        "type = []",
        'session = "datagrams"',
        "max_sessions = 0",
        'session_timeout = "off"',
        'family = "ipv4"',
        'mode = "999"',
        'listen = ":80"',
        "keepalive = 5",
        "keepalive = {idle = 5}",
        "dial_attempts = true",
        'on_change = "stay"',
        'health_check = "on"',
        "health_check = {}",
        'health_check = {type = "icmp"}',
        'health_check = {type = "tcp", rise = 0}',
        'health_check = {type = "tcp", expect = {regexp = "a"}}',
        'health_check = {type = "tcp", send = {hex = "0"}}',
        'health_check = {type = "tcp", send = ""}',
        'health_check = {type = "http", status = 600}',
        'health_check = {type = "http", status = "2xx"}',
        'health_check = {type = "http", path = "health"}',
        'health_check = {type = "exec", command = "/bin/true"}',
        'max_ejected = "101%"',
        "max_ejected = 50",
        'resolve = "inet"',
        'resolve = {family = "unix"}',
        "resolve = {min_ttl = 1}",
        'resolve = {ttl = "1s"}',
        'log = "info"',
        'log = {format = "text"}',
        "log = {progress = 5}",
    ],
)
def test_refuses(line: str) -> None:
    assert found(WEB + line)


@pytest.mark.parametrize(
    "text",
    [
        "[listeners.x]\nbind = ':80'",
        "[listeners.x]\ntargets = 'x:80'",
        "[listeners.'a b']\nbind = ':80'\ntargets = 'x:80'",
        "[listeners.x]\nbind = '80'\ntargets = 'x:80'",
        "[listeners.x]\nbind = ':80'\ntargets = ':80'",
        "[listeners.x]\nbind = ':80-'\ntargets = 'x:80'",
        "[listeners.x]\nbind = ':+80'\ntargets = 'x:80'",
        "[listeners.x]\nbind = 'x'\ntargets = 'x:80'",
        "[listeners.x]\nbind = 'srv:x'\ntargets = 'x:80'",
        "[listeners.x]\nbind = ':80'\ntargets = 'srv:x:80'",
        "[listeners.x]\nbind = []\ntargets = 'x:80'",
        "[daemon]\nworkers = 0",
        "[daemon]\nworkers = 'all'",
        "[log]\nlevel = 'loud'",
        "[admin]\nlisten = 5",
        "[admin]\nlisten = ['127.0.0.1']",
        "[admin]\nhosts = ['-a']",
        "[admin]\nhosts = ['a:80']",
        "[admin]\nhosts = ['a..b']",
        "[admin]\ntoken_file = 'token'",
        "[admin]\ntoken_file = '${CREDENTIALS_DIRECTORY}'",
        "[admin]\nbind = 'unix:/a'",
        "[nope]",
        "[defaults]\nbind = ':80'",
        "[listeners.x]\nbind = ':80'\npool = 'a'\ntargets = 'x:80'",
        "[listeners.x]\nbind = ':80'\npool = 'a b'",
        "[pools.x]\nbalance = 'first'",
        "[pools.x]\ntargets = []",
        "[pools.x]\ntargets = 'x:80'\nconnect_timeout = '5s'",
        "[pools.'a b']\ntargets = 'x:80'",
        "[defaults]\npool = 'a'",
        "include = 5",
    ],
)
def test_refuses_as_a_whole(text: str) -> None:
    assert found(text)


def tables(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        for inner in node.values():
            yield from tables(inner)


def test_every_key_is_described_and_no_table_is_open() -> None:
    found_tables = list(tables(schema()))
    assert len(found_tables) == 12
    for table in found_tables:
        assert table["additionalProperties"] is False
        for name, key in table["properties"].items():
            assert key.get("description"), name


def test_defaults_are_those_in_force() -> None:
    listener = schema()["definitions"]["ListenerTable"]["properties"]
    shown = {name: key["default"] for name, key in listener.items() if "default" in key}
    assert shown == {**BUILT_IN_TOML, "type": "stream"}
    assert set(listener) == set(ListenerTable.model_fields)
    pool = schema()["definitions"]["PoolTable"]["properties"]
    assert set(pool) == {*PoolKeys.model_fields, "targets"}
    assert all(pool[key] == listener[key] for key in PoolKeys.model_fields)
    assert set(schema()["properties"]) == set(Configuration.model_fields)
    daemon = schema()["definitions"]["DaemonTable"]["properties"]
    keepalive = schema()["definitions"]["KeepaliveTable"]["properties"]
    text = (
        WEB
        + f'keepalive = {{idle = "{keepalive["idle"]["default"]}", interval = "{keepalive["interval"]["default"]}", '
        f'probes = {keepalive["probes"]["default"]}}}\n[daemon]\nworkers = "{daemon["workers"]["default"]}"\n'
        f'drain_timeout = "{daemon["drain_timeout"]["default"]}"'
    )
    spelled_out, plain = (Configuration.model_validate(tomli.loads(one)) for one in (text, WEB + "[daemon]\n"))
    assert spelled_out.daemon == plain.daemon
    admin = schema()["definitions"]["AdminTable"]["properties"]
    assert admin["listen"]["default"] == [str(ADMIN_SOCKET)]
    assert admin["allow_remote"]["default"] is AdminTable().allow_remote
    assert admin["read_only"]["default"] is AdminTable().read_only
    assert admin["hosts"]["default"] == AdminTable().hosts
    default = Configuration.model_validate(tomli.loads(WEB + "keepalive = {}")).listeners["web"].keepalive
    assert spelled_out.listeners["web"].keepalive == default
