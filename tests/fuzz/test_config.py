"""Whatever a file holds, `load` returns a configuration or raises ConfigError, and every error can be printed."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayd.config import ConfigError, Problem, load, machine
from relayd.config.check_table import CheckTable
from relayd.config.forms import Table
from relayd.config.model import (
    AdminTable,
    Configuration,
    DaemonTable,
    KeepaliveTable,
    ListenerLogTable,
    ListenerTable,
    LogTable,
)

VALID = """\
include = []
[daemon]
workers = "auto"
drain_timeout = "30s"
[log]
level = "info"
[admin]
listen = ["unix:/run/relayd/admin.sock", "127.0.0.1:9600"]
allow_remote = false
[defaults]
keepalive = {idle = "60s", interval = "10s", probes = 6}
health_check = {type = "http", interval = "5s", path = "/health", status = ["200", 204, "301-302"], port = 8081}
connect_timeout = "1h30m"
[listeners.web]
type = ["stream"]
bind = ["127.0.0.1:8080", "[::]:80", ":81", "unix:@a", "unix:/nonexistent/b", "systemd:web"]
mode = "0660"
targets = ["10.0.0.11:80", {address = "[2001:db8::1]:80"}, "app.example.com:80", '''unix:/c''']
source = "10.0.0.1"
[listeners.game]
type = ["dgram", "tcp"]
bind = ["127.0.0.1:27000-27099", "[::1]:5000-5099", "app.example.com:1-100"]
targets = ["10.0.0.9:37000-37099", "10.0.0.9:+10000", "[2001:db8::1]:+0", "a.example.com"]
session_timeout = "10s"
max_sessions = 5
max_responses = 1
session = "client"
on_target_error = "move"
on_change = "drain"
[listeners.shares]
bind = "127.0.0.1:82"
pool = "app"
[listeners.also]
type = "dgram"
bind = "127.0.0.1:82"
pool = "app"
[pools.app]
targets = ["10.0.0.11:80", {address = "10.0.0.12", weight = 2}, {address = "a.example.com:+7", backup = true}]
balance = "random"
dial_attempts = 3
health_check = {type = "udp", port = 7, send = {hex = "00ff"}, expect = {regex = "^[a-z]+"}, timeout = "1s"}
fail_open = false
max_ejected = "25%"
slow_start = "30s"
[listeners."a.b"]
bind.nope = 2026-01-01 07:32:00
targets = \"\"\"x\"\"\"
"""

scalars = st.one_of(
    st.text(max_size=20).map(lambda text: '"' + text.encode("unicode_escape").decode().replace('"', "'") + '"'),
    st.sampled_from(
        [
            '"systemd:a"',
            '"a:5-9"',
            '"[::1]:9-5"',
            '":0-70000"',
            '"a:+5"',
            '"a:+99999"',
            '"a"',
            '"datagram"',
            '["tcp", "dgram"]',
            '"app"',
        ]
    ),
    st.sampled_from(
        ['"off"', '"auto"', '"5s"', '"0s"', '"tcp"', '"udp"', '"::1"', '"[::1]:0"', '":0"', '"unix:@"', '"/"']
    ),
    st.sampled_from(
        ["true", "false", "nan", "-inf", "0x" + "f" * 6000, "-0", "1e400", "1979-05-27", "07:32:00", "[]", "{}"]
    ),
    st.integers().map(str),
    st.floats().map(repr),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: "[" + ", ".join(items) + "]"),
        st.dictionaries(
            st.sampled_from(["address", "idle", "probes", "x", "keepalive", "targets"]), inner, max_size=3
        ).map(lambda table: "{" + ", ".join(f"{key} = {item}" for key, item in table.items()) + "}"),
    ),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def _no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test asks no name server; a name that a random file comes up with has no address."""

    def resolve(host: str, port: int, family: object) -> tuple[()]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(machine, "resolve", resolve)


def outcome(base: pytest.TempPathFactory, data: bytes) -> None:
    """Loads `data`. Fails for anything but a configuration or a ConfigError, and for an error without words."""
    path = base.getbasetemp() / "fuzz.toml"
    path.write_bytes(data)
    lines = data.decode(errors="replace").count("\n") + 1
    for problem in _problems(path):
        assert problem.message
        assert str(problem).encode()
        assert 0 <= problem.line <= lines


def _problems(path: Path) -> tuple[Problem, ...]:
    try:
        return load(path).warnings
    except ConfigError as error:
        return error.problems or (Problem(str(path), 0, 0, "", ""),)


relaxed = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.binary(max_size=200))
@relaxed
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    outcome(tmp_path_factory, data)


@given(st.text(st.sampled_from(list("[]{}=.,'\"#\n ab:/1\\-_")), max_size=80))
@relaxed
def test_text_of_toml_characters(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    outcome(tmp_path_factory, text.encode())


@given(st.data())
@relaxed
def test_a_file_with_some_of_it_changed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = VALID
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        insert = data.draw(
            st.sampled_from(["", '"', "'", "[", "]", "\n", "=", "{", "0", "\x00", "日", "[[a]]\n"])
            | st.text(max_size=4)
        )
        text = text[:start] + insert + text[end:]
    outcome(tmp_path_factory, text.encode(errors="surrogatepass"))


SECTIONS: list[tuple[str, type[Table]]] = [
    ("daemon", DaemonTable),
    ("log", LogTable),
    ("admin", AdminTable),
    ("defaults", ListenerTable),
    ("listeners.web", ListenerTable),
    ("listeners.web.keepalive", KeepaliveTable),
    ("listeners.web.health_check", CheckTable),
    ("listeners.web.log", ListenerLogTable),
    ("pools.app", ListenerTable),
    ("", Configuration),
]
section_keys = [(section, key) for section, model in SECTIONS for key in model.model_fields]


@given(st.lists(st.tuples(st.sampled_from(section_keys), values), min_size=1, max_size=5, unique_by=lambda one: one[0]))
@relaxed
def test_any_value_of_any_key(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[tuple[str, str], str]]
) -> None:
    text = "\n".join(f"{f'{section}.' if section else ''}{key} = {value}" for (section, key), value in lines)
    outcome(tmp_path_factory, text.encode(errors="surrogatepass"))
