"""`load`: what a file means, and every error that it can have, each at its place."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress, UnixAddress
from relayd.config import ConfigError, Loaded, Problem, files_of, load, machine
from relayd.spec import (
    Admin,
    Bind,
    Binding,
    Keepalive,
    ListenerLog,
    OnChange,
    Resolve,
    Share,
    SocketOptions,
    Stream,
    StreamTimeouts,
    Target,
    Wanted,
)

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]
Write = Callable[..., Path]

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\ntargets = ["10.0.0.11:80"]\n'


def stream_of(loaded: Loaded, number: int = 0) -> Stream:
    """How a listener serves streams."""
    stream = loaded.spec.listeners[number].stream
    assert stream is not None
    return stream


def test_three_lines_and_the_defaults(loaded: Load) -> None:
    spec = loaded(WEB).spec
    listener = spec.listeners[0]
    assert listener.name == "web"
    assert listener.binds == (Bind(InetAddress(Family.INET, "127.0.0.1", 8080)),)
    assert listener.targets == (Target(InetAddress(Family.INET, "10.0.0.11", 80)),)
    assert listener.source is None
    assert listener.binding == Binding(
        backlog=4096,
        ipv6_only=False,
        interface=None,
        freebind=False,
        fast_open=False,
        defer_accept_s=None,
        mode=0o660,
        user_id=None,
        group_id=None,
    )
    assert listener.stream == Stream(
        dial_attempts=3,
        options=SocketOptions(nodelay=True, keepalive=Keepalive(60, 10, 6), user_timeout_ms=None, congestion=None),
        timeouts=StreamTimeouts(connect_s=5, idle_s=3600, half_close_s=60, max_lifetime_s=None),
    )
    assert listener.datagram is None
    assert (spec.workers, spec.drain_timeout_s) == (machine.cores(), 30)
    assert (spec.log.level, spec.log.format, spec.log.access) == ("info", "auto", True)
    assert (spec.admin, listener.on_change) == (Admin((UnixAddress("/run/relayd/admin.sock"),)), None)


def test_every_key(loaded: Load) -> None:
    spec = loaded("""
        [daemon]
        workers = 3
        drain_timeout = "0s"
        [log]
        level = "debug"
        format = "json"
        access = false
        [admin]
        listen = ["unix:@admin", "127.0.0.1:9600"]
        [listeners.all]
        on_change = "close"
        type = ["tcp", "stream"]
        family = "inet6"
        bind = ["[::1]:1", "[2001:db8::1]:2"]
        backlog = 7
        interface = "lo"
        ipv6_only = true
        freebind = true
        fast_open = true
        defer_accept = "3s"
        targets = ["[2001:db8::2]:3", {address = "a.example.com:4"}, "unix:@x"]
        dial_attempts = 1
        source = "2001:db8::9"
        connect_timeout = "250ms"
        idle_timeout = "off"
        half_close_timeout = "off"
        max_lifetime = "1h30m"
        keepalive = {idle = "30s", probes = 2}
        tcp_user_timeout = "1500ms"
        congestion = "reno"
        nodelay = false
        [listeners.unix]
        bind = "unix:@in"
        targets = "unix:/out"
        [listeners.file]
        bind = "unix:/nonexistent/in.sock"
        targets = "unix:/out"
        mode = "600"
        user = "root"
        group = "4321"
        """).spec
    everything, _, file = spec.listeners
    assert (spec.workers, spec.drain_timeout_s, spec.log.access) == (3, 0, False)
    assert spec.admin == Admin((UnixAddress("@admin"), InetAddress(Family.INET, "127.0.0.1", 9600)))
    assert (everything.on_change, file.on_change) == (OnChange.CLOSE, None)
    assert everything.binding == Binding(7, True, "lo", True, True, 3, 0o660, None, None)
    assert everything.stream == Stream(
        1, SocketOptions(False, Keepalive(30, 10, 2), 1500, "reno"), StreamTimeouts(0.25, None, None, 5400)
    )
    assert everything.source == InetAddress(Family.INET6, "2001:db8::9", 0)
    assert [str(target.address) for target in everything.targets] == ["[2001:db8::2]:3", "a.example.com:4", "unix:@x"]
    assert spec.names == {Wanted(NameAddress("a.example.com", 4))}
    assert (file.binding.mode, file.binding.user_id, file.binding.group_id) == (0o600, 0, 4321)
    assert file.binds == (Bind(UnixAddress("/nonexistent/in.sock")),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", Keepalive(60, 10, 6)),
        ("false", None),
        ("{}", Keepalive(60, 10, 6)),
        ('{idle = "1m"}', Keepalive(60, 10, 6)),
    ],
)
def test_keepalive(loaded: Load, value: str, expected: Keepalive | None) -> None:
    assert stream_of(loaded(WEB + f"keepalive = {value}")).options.keepalive == expected


def test_source(loaded: Load) -> None:
    listener = loaded(WEB + 'source = "10.0.0.5"').spec.listeners[0]
    assert listener.source == InetAddress(Family.INET, "10.0.0.5", 0)


def test_source_in_brackets(loaded: Load) -> None:
    text = WEB.replace("10.0.0.11", "[2001:db8::1]") + 'source = "[::1]"'
    assert loaded(text).spec.listeners[0].source == InetAddress(Family.INET6, "::1", 0)


# Each case: what is put into a listener, the column of its line, the key, a part of the message, the suggestion.
ONE_KEY = [
    ("nodelay = 1", 11, "nodelay", "must be true or false, not an integer", ""),
    ('nodelay = "yes"', 11, "nodelay", "must be true or false, not a string", "help: write true, without quotes"),
    ("backlog = 0", 11, "backlog", "at least 1", ""),
    ("backlog = 65536", 11, "backlog", "at most 65535", ""),
    ("backlog = 99999999999999999999999999", 11, "backlog", "at most 65535", ""),
    ("backlog = true", 11, "backlog", "must be a whole number, not a boolean", ""),
    ('backlog = "7"', 11, "backlog", "must be a whole number, not a string", "help: write 7, without quotes"),
    ("backlog = 1.5", 11, "backlog", "must be a whole number, not a float", ""),
    ("dial_attempts = 0", 17, "dial_attempts", "at least 1", ""),
    ("connect_timeout = 5", 19, "connect_timeout", "not a bare number", 'help: write "5s"'),
    ("connect_timeout = 2.5", 19, "connect_timeout", "not a bare number", 'help: write "30s"'),
    ('connect_timeout = "5 sec"', 19, "connect_timeout", "is not a duration", 'did you mean "5s"?'),
    ('connect_timeout = "off"', 19, "connect_timeout", "cannot be turned off", ""),
    ('connect_timeout = "0s"', 19, "connect_timeout", "longer than nothing", ""),
    ('idle_timeout = "0s"', 16, "idle_timeout", "longer than nothing", 'help: no limit is "off"'),
    ("idle_timeout = false", 16, "idle_timeout", "turned off by a word", 'did you mean "off"?'),
    ("idle_timeout = 2026-01-01", 16, "idle_timeout", "not a date", ""),
    ("idle_timeout = 07:32:00", 16, "idle_timeout", "not a time", ""),
    ('max_lifetime = "400d"', 16, "max_lifetime", "longer than 366d", ""),
    ('tcp_user_timeout = "25d"', 20, "tcp_user_timeout", "at most 24d", ""),
    ('defer_accept = "500ms"', 16, "defer_accept", "whole seconds", ""),
    ("keepalive = 5", 13, "keepalive", "must be true, false, or a table", ""),
    ('keepalive = {idle = "10h"}', 21, "keepalive.idle", 'from "1s" to "32767s"', ""),
    ('keepalive = {idle = "0s"}', 21, "keepalive.idle", 'from "1s" to "32767s"', ""),
    ("keepalive = {probes = 128}", 23, "keepalive.probes", "at most 127", ""),
    ('keepalive = {idel = "1s"}', 14, "keepalive.idel", "unknown key", "did you mean `idle`?"),
    ('family = "ine"', 10, "family", 'must be one of "inet", "inet6", "unix"', 'did you mean "inet"?'),
    ('family = "INET"', 10, "family", 'must be one of "inet", "inet6", "unix"', 'did you mean "inet"?'),
    ("family = 4", 10, "family", "not an integer", ""),
    ('type = "strem"', 8, "type", "is not a type", 'did you mean "stream"?'),
    ('type = "UDP"', 8, "type", "is not a type", 'did you mean "udp"?'),
    ('type = ["tcp", "datagram"]', 8, "type", "is not a type", 'did you mean "dgram"?'),
    ('type = "http"', 8, "type", "is not a type", ""),
    ("type = 5", 8, "type", "not an integer", ""),
    ('type = ["tcp", 5]', 8, "type", "not an integer", ""),
    ("type = []", 8, "type", 'needs "stream", "dgram" or both', ""),
    ('mode = "0660"', 1, "mode", "belongs to the file of a unix:/path bind", ""),
    ('interface = "a b"', 13, "interface", "cannot be the name of an interface", ""),
    ('congestion = ""', 14, "congestion", "cannot be the name", ""),
    ('on_change = "stay"', 13, "on_change", 'must be one of "keep", "drain", "close"', ""),
    ('on_change = "Close"', 13, "on_change", 'must be one of "keep", "drain", "close"', 'did you mean "close"?'),
    ("on_change = true", 13, "on_change", "not a boolean", ""),
    ('source = "10.0.0.5:80"', 10, "source", "without a port", 'did you mean "10.0.0.5"?'),
    ('source = "unix:/a"', 10, "source", "without a port", ""),
    ('source = "a.example.com"', 10, "source", "not a numeric", ""),
    ('source = "0.0.0.0"', 10, "source", "every address", "help: leave source out, and the kernel chooses"),
    ('source = "::1"', 10, "source", "no target can be dialled from an inet6 address", ""),
    ("ipv6_only = true", 1, "ipv6_only", "belongs to an IPv6 bind", ""),
    ('listen = ":80"', 1, "listen", "unknown key", "did you mean `bind`?"),
    ('upstream = ":80"', 1, "upstream", "unknown key", "did you mean `targets`?"),
    ('forward_to = ":80"', 1, "forward_to", "unknown key", "did you mean `targets`?"),
    ("timeout = 5", 1, "timeout", "unknown key", "did you mean `idle_timeout`?"),
    ("Backlog = 5", 1, "Backlog", "unknown key", "did you mean `backlog`?"),
    ("back-log = 5", 1, "back-log", "unknown key", "did you mean `backlog`?"),
    ("nodeley = true", 1, "nodeley", "unknown key", "did you mean `nodelay`?"),
    ("workers = 1", 1, "workers", "unknown key", "help: `workers` belongs in [daemon]"),
    ("pool = 'x'", 1, "pool", "`targets` are there as well", ""),
    ('"a\\u001bb" = 1', 1, '"a\\U0000001bb"', "unknown key", ""),
]


@pytest.mark.parametrize(("line", "column", "key", "message", "suggestion"), ONE_KEY)
def test_one_wrong_key(problems: Problems, line: str, column: int, key: str, message: str, suggestion: str) -> None:
    (problem,) = problems(WEB + line)
    assert (problem.line, problem.column, problem.key) == (4, column, f"listeners.web.{key}")
    assert message in problem.message
    assert problem.suggestion == suggestion
    assert problem.source_line == line


BINDS = [
    ('"127.0.0.1"', 8, "bind", "the port is missing", 'did you mean "127.0.0.1:80"?'),
    ("5", 8, "bind", "must be a string, or an array of them, not an integer", ""),
    ("[]", 8, "bind", "needs at least one", ""),
    ('["127.0.0.1:1", 2]', 24, "bind[1]", "must be a string", ""),
    ('["127.0.0.1:1", "127.0.0.1:1"]', 24, "bind[1]", "stands twice: ", ""),
    ('["0.0.0.0:1", "127.0.0.1:1"]', 22, "bind[1]", "cannot both be bound", ""),
    (
        '["0.0.0.0:1", "[::]:1"]',
        22,
        "bind[1]",
        "cannot both be bound",
        "help: [::] takes IPv4 as well; ipv6_only = true leaves that to others",
    ),
    ('"systemd:"', 8, "bind", "the name is missing", 'did you mean "systemd:web"?'),
    ('"systemd:web:80"', 8, "bind", "its FileDescriptorName= alone", 'did you mean "systemd:web"?'),
    ('"systemd:relayd-web"', 8, "bind", "names that begin with relayd- are relayd's own", ""),
    ('["systemd:web", "systemd:web"]', 24, "bind[1]", "stands twice: ", ""),
    ('"srv:_http._tcp.example.com"', 8, "bind", "cannot be a service name", None),
]


@pytest.mark.parametrize(("value", "column", "key", "message", "suggestion"), BINDS)
def test_wrong_bind(
    problems: Problems, value: str, column: int, key: str, message: str, suggestion: str | None
) -> None:
    (problem,) = problems(f'[listeners.web]\nbind = {value}\ntargets = "10.0.0.1:1"')
    assert (problem.line, problem.column, problem.key) == (2, column, f"listeners.web.{key}")
    assert message in problem.message
    assert suggestion is None or problem.suggestion == suggestion


TARGETS = [
    ('":80"', 11, "targets", "needs a host", 'did you mean "127.0.0.1:80"?'),
    ('"::1:80"', 11, "targets", "stands in brackets", 'did you mean "[::1]:80"?'),
    ('"0.0.0.0:80"', 11, "targets", "every address", 'did you mean "127.0.0.1:80"?'),
    ('"10.0.0.1:0"', 11, "targets", "port 0", ""),
    ('"srv:"', 11, "targets", "the name of the service is missing", 'did you mean "srv:_http._tcp.example.com"?'),
    ('"srv:_http._tcp.x:80"', 11, "targets", "a service has no port", 'did you mean "srv:_http._tcp.x"?'),
    ('"srv:10.0.0.1:80"', 11, "targets", "a service has no port", ""),
    ('"srv:10.0.0.1"', 11, "targets", "not a name that the DNS can have", ""),
    ('"srv:a..b"', 11, "targets", "not a name that the DNS can have", ""),
    ('"srv:a b"', 11, "targets", "not a name that the DNS can have", ""),
    ('"srv: x"', 11, "targets", "blank around the name", 'did you mean "srv:x"?'),
    ('[{address = "srv:x", weight = 1}]', 12, "targets[0]", 'no weight for "srv:x": each of its SRV records', ""),
    ('"systemd:x"', 11, "targets", "only the bind of a listener can name one", ""),
    ("[]", 11, "targets", "needs at least one", ""),
    ("[5]", 12, "targets[0]", "must be a string or a table", ""),
    ("[{}]", 12, "targets[0].address", "is missing", ""),
    ('[{address = "2001:db8::1"}]', 23, "targets[0].address", "in brackets", 'did you mean "[2001:db8::1]:80"?'),
    ('[{address = "x:1", wieght = 2}]', 30, "targets[0].wieght", "unknown key", "did you mean `weight`?"),
    ('[{server = "x:1", address = "y:1"}]', 13, "targets[0].server", "unknown key", "did you mean `address`?"),
    ('[{address = "x:1", weight = 0}]', 39, "targets[0].weight", "must be at least 1", None),
    ('[{address = "x:1", weight = 257}]', 39, "targets[0].weight", "must be at most 256", None),
    ('[{address = "x:1", backup = 1}]', 39, "targets[0].backup", "must be true or false", None),
    ('[{address = "x:1", backup = true}]', 12, "targets[0]", "every target is a backup", ""),
    ('["x:1", {address = "x:1", weight = 2}]', 19, "targets[1]", '"x:1" is there already, with another weight', ""),
    ('["x:1", {address = "x:1", backup = true}]', 19, "targets[1]", '"x:1" is there already, with another weight', ""),
    ("{address = 5}", 11, "targets.address", "must be a string", ""),
]


@pytest.mark.parametrize(("value", "column", "key", "message", "suggestion"), TARGETS)
def test_wrong_targets(
    problems: Problems, value: str, column: int, key: str, message: str, suggestion: str | None
) -> None:
    (problem,) = problems(f'[listeners.web]\nbind = "127.0.0.1:1"\ntargets = {value}')
    assert (problem.line, problem.key) == (3, f"listeners.web.{key}")
    assert problem.column == column or "{address = 5}" in value
    assert message in problem.message
    assert suggestion is None or problem.suggestion == suggestion


RESOLVES = [
    ("true", "resolve", "must be a table"),
    ('{ family = "unix" }', "resolve.family", 'must be one of "any", "inet", "inet6"'),
    ("{ min_ttl = 5 }", "resolve.min_ttl", "a string with a unit"),
    ('{ max_ttl = "500ms" }', "resolve.max_ttl", 'must be at least "1s"'),
    ('{ min_ttl = "2m", max_ttl = "1m" }', "resolve", "min_ttl, 2m, is longer than max_ttl, 1m"),
    ('{ min_ttl = "10m" }', "resolve", "is longer than max_ttl, 5m, which it is unless"),
    ('{ ttl = "10m" }', "resolve.ttl", "unknown key"),
]


@pytest.mark.parametrize(("value", "key", "message"), RESOLVES)
def test_wrong_resolve(problems: Problems, value: str, key: str, message: str) -> None:
    text = f'[listeners.web]\nbind = "127.0.0.1:1"\ntargets = "a.example.com:1"\nresolve = {value}'
    (problem,) = problems(text)
    assert (problem.line, problem.key) == (4, f"listeners.web.{key}")
    assert message in problem.message
    (problem,) = problems(f"{WEB}[defaults]\nresolve = {value}")
    assert problem.key == f"defaults.{key}"


def test_resolve_is_of_names_alone(problems: Problems) -> None:
    (problem,) = problems('[listeners.web]\nbind = "127.0.0.1:1"\ntargets = "10.0.0.1:1"\nresolve = {}')
    assert (problem.line, problem.key) == (4, "listeners.web.resolve")
    assert "no target is a host name or a service" in problem.message


def test_what_a_listener_says_of_names_replaces_the_default_as_a_whole(loaded: Load) -> None:
    spec = loaded(
        '[defaults]\nresolve = { family = "inet", max_ttl = "1m" }\n'
        '[listeners.a]\nbind = "127.0.0.1:1"\ntargets = ["srv:_http._tcp.a.test", "b.test:1", "10.0.0.1:1"]\n'
        '[listeners.b]\nbind = "127.0.0.1:2"\ntargets = ["b.test:1", { address = "srv:c.test", backup = true }]\n'
        'resolve = { min_ttl = "5s" }\n'
        '[listeners.c]\nbind = "127.0.0.1:3"\ntargets = "10.0.0.1:1"\n'
    ).spec
    inet, slow = Resolve(Family.INET, 1.0, 60.0), Resolve(None, 5.0, 300.0)
    assert spec.names == {
        Wanted(ServiceAddress("_http._tcp.a.test"), inet),
        Wanted(NameAddress("b.test", 1), inet),
        Wanted(NameAddress("b.test", 1), slow),
        Wanted(ServiceAddress("c.test"), slow),
    }
    assert spec.listeners[1].shares == (Share(), Share(backup=True))
    assert spec.listeners[2].resolve == Resolve()


LISTENER_LOGS = [
    ('"debug"', "log", "must be a table"),
    ('{ level = "loud" }', "log.level", 'must be one of "debug", "info", "warning", "error"'),
    ('{ access = "json" }', "log.access", "must be true or false"),
    ('{ progress = "500ms" }', "log.progress", 'must be at least "1s", or "off"'),
    ("{ progress = 5 }", "log.progress", "a string with a unit"),
    ('{ format = "text" }', "log.format", "unknown key"),
]


@pytest.mark.parametrize(("value", "key", "message"), LISTENER_LOGS)
def test_wrong_log_of_a_listener(problems: Problems, value: str, key: str, message: str) -> None:
    (problem,) = problems(f'[listeners.web]\nbind = "127.0.0.1:1"\ntargets = "10.0.0.1:1"\nlog = {value}')
    assert (problem.line, problem.key) == (4, f"listeners.web.{key}")
    assert message in problem.message
    if key == "log.format":
        assert problem.suggestion == "help: `format` belongs in [log]"


def test_the_log_of_a_listener_replaces_the_default_as_a_whole(loaded: Load) -> None:
    spec = loaded(
        '[log]\nlevel = "warning"\n[defaults.log]\naccess = false\nprogress = "5m"\n'
        '[listeners.a]\nbind = "127.0.0.1:1"\ntargets = "10.0.0.1:1"\n'
        '[listeners.b]\nbind = "127.0.0.1:2"\ntargets = "10.0.0.1:1"\n'
        '[listeners.b.log]\nlevel = "debug"\nstart = true\n'
    ).spec
    assert [each.log for each in spec.listeners] == [
        ListenerLog(access=False, progress_s=300.0),
        ListenerLog(level="debug", start=True),
    ]


def test_weights_are_nothing_to_the_first_that_does_not_fail(problems: Problems) -> None:
    (problem,) = problems(
        '[listeners.web]\nbind = "127.0.0.1:1"\nbalance = "first"\n'
        'targets = ["10.0.0.1:1", { address = "10.0.0.2:1", weight = 2 }]'
    )
    assert (problem.line, problem.key) == (4, "listeners.web.targets[1]")
    assert "no weights" in problem.message


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ('user = "nobody-of-that-name"', "user", "no such user"),
        ('group = "nobody-of-that-name"', "group", "no such group"),
        ("user = 0", "user", "a user is a string"),
        ('user = "4294967295"', "user", "is not the number of a user"),
        ("mode = 432", "mode", "string of octal digits, not a number"),
        ('mode = "0999"', "mode", "is not a mode"),
        ('mode = "01777"', "mode", "is not a mode"),
        ("keepalive = true", "keepalive", "belongs to TCP"),
        ('tcp_user_timeout = "1s"', "tcp_user_timeout", "belongs to TCP"),
        ("nodelay = true", "nodelay", "belongs to TCP"),
        ('congestion = "bbr"', "congestion", "belongs to TCP"),
        ("fast_open = true", "fast_open", "belongs to inet and inet6 binds"),
        ('interface = "lo"', "interface", "belongs to inet and inet6 binds"),
        ('source = "10.0.0.1"', "source", "no target can be dialled from"),
        ('family = "inet"', "bind", 'is unix, but family is "inet"'),
    ],
)
def test_unix_on_both_sides(problems: Problems, line: str, key: str, message: str) -> None:
    (problem,) = problems(f'[listeners.u]\nbind = "unix:/nonexistent/a"\ntargets = "unix:/nonexistent/b"\n{line}')
    assert problem.key == f"listeners.u.{key}"
    assert message in problem.message


def test_mode_of_an_abstract_socket(problems: Problems) -> None:
    (problem,) = problems('[listeners.u]\nbind = "unix:@a"\ntargets = "unix:/b"\nmode = "0600"')
    assert problem.key == "listeners.u.mode"


def test_tcp_keys_with_tcp_on_one_side(loaded: Load) -> None:
    text = '[listeners.u]\nbind = "unix:/nonexistent/a"\ntargets = "10.0.0.1:1"\nnodelay = false'
    assert stream_of(loaded(text)).options.nodelay is False


def test_defaults_that_cannot_apply_have_no_effect(loaded: Load) -> None:
    listener = loaded("""
        [defaults]
        mode = "0600"
        user = "root"
        source = "2001:db8::1"
        ipv6_only = true
        [listeners.web]
        bind = "127.0.0.1:8080"
        targets = "10.0.0.1:80"
        """).spec.listeners[0]
    assert (listener.binding.mode, listener.binding.user_id, listener.binding.ipv6_only) == (0o660, None, False)
    assert listener.source is None


def test_all_errors_at_once_in_order(problems: Problems) -> None:
    found = problems("""
        workers = 1
        [log]
        level = "loud"
        [listeners.web]
        listen = ":80"
        connect_timeout = 5
        [listeners."ü"]
        bind = "127.0.0.1:1"
        targets = "127.0.0.1:1"
        """)
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "workers"),
        (4, "log.level"),
        (5, "listeners.web.targets"),
        (6, "listeners.web.listen"),
        (7, "listeners.web.connect_timeout"),
        (8, 'listeners."ü"'),
        (10, 'listeners."ü".targets'),
    ]


def test_sections_of_the_wrong_kind(problems: Problems) -> None:
    found = problems("daemon = 5\nlog = []\nlisteners = 7\ndefaults = 1979-01-01\ninclude = 3")
    assert [problem.message for problem in found] == [
        "must be a table, not an integer",
        "must be a table, not an array",
        "must be a table, not an integer",
        "must be a table, not a date",
        "must be a string, or an array of them, not an integer",
    ]


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("[[listeners]]\nname = 'web'", "help: a listener is a table of its own: [listeners.NAME]"),
        ("[server.web]\nlisten = 80", "did you mean `[listeners.NAME]`?"),
        ("[logging]\nlevel = 'info'", "did you mean `[log]`?"),
        ("[defaults]\nbind = ':80'", ""),
        ("connect_timeout = '5s'", "help: `connect_timeout` belongs in [listeners.NAME]"),
    ],
)
def test_words_of_other_tools(problems: Problems, text: str, suggestion: str) -> None:
    assert problems(text)[0].suggestion == suggestion


def test_no_listeners(problems: Problems) -> None:
    (problem,) = problems("[daemon]\nworkers = 1\n")
    assert problem.message == "no listeners: nothing to do"
    assert str(problem).startswith(f"{problem.file}: listeners: ")


# Binds that depend on the machine.


def test_every_address(loaded: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[listeners.web]\nbind = ":80"\ntargets = "10.0.0.1:1"\n'
    monkeypatch.setattr(machine, "has_ipv6", lambda: True)
    assert str(loaded(text).spec.listeners[0].binds[0]) == "[::]:80"
    assert str(loaded(text + 'family = "inet"').spec.listeners[0].binds[0]) == "0.0.0.0:80"
    monkeypatch.setattr(machine, "has_ipv6", lambda: False)
    assert str(loaded(text).spec.listeners[0].binds[0]) == "0.0.0.0:80"
    assert str(loaded(text + 'family = "inet6"').spec.listeners[0].binds[0]) == "[::]:80"
    assert str(loaded(text + "ipv6_only = true").spec.listeners[0].binds[0]) == "[::]:80"


def test_host_name_in_a_bind(loaded: Load, problems: Problems, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, family: Family | None) -> tuple[InetAddress, ...]:
        answers = (InetAddress(Family.INET6, "2001:db8::1", port), InetAddress(Family.INET, "10.0.0.1", port))
        if host != "app.example.com":
            raise OSError(-2, "Name or service not known")
        return tuple(answer for answer in answers if family in (None, answer.family))

    monkeypatch.setattr(machine, "resolve", resolve)
    text = '[listeners.web]\nbind = "app.example.com:80"\ntargets = "10.0.0.1:1"\n'
    assert [str(bind) for bind in loaded(text).spec.listeners[0].binds] == ["[2001:db8::1]:80", "10.0.0.1:80"]
    assert [str(bind) for bind in loaded(text + 'family = "inet"').spec.listeners[0].binds] == ["10.0.0.1:80"]
    (problem,) = problems(text.replace("app.", "nope."))
    assert problem.message == '"nope.example.com:80": Name or service not known'
    assert (problem.line, problem.column) == (2, 8)
    assert 'family is "unix"' in problems(text + 'family = "unix"')[0].message


def test_resolving_for_real() -> None:
    assert InetAddress(Family.INET, "127.0.0.1", 7) in machine.resolve("localhost", 7, Family.INET)
    with pytest.raises(OSError, match="not a host name"):
        machine.resolve("a" * 70 + ".example", 1, None)


def test_own_addresses() -> None:
    assert machine.is_own(Family.INET, "127.0.0.1")
    assert not machine.is_own(Family.INET, "192.0.2.77")


# Several files.


def test_includes(write: Write) -> None:
    main = write('include = ["conf.d/*.toml", "more.toml"]\n[defaults]\nidle_timeout = "1m"\nbacklog = 5\n' + WEB)
    write('[listeners.b]\nbind = "127.0.0.1:1"\ntargets = "10.0.0.1:1"\n', "conf.d/20.toml")
    write(
        '[defaults]\nidle_timeout = "2m"\n[listeners.a]\nbind = "127.0.0.1:2"\ntargets = "10.0.0.1:1"', "conf.d/10.toml"
    )
    write("[daemon]\nworkers = 9", "more.toml")
    loaded = load(main)
    assert [path.name for path in loaded.files] == ["relay.toml", "10.toml", "20.toml", "more.toml"]
    web, a, b = loaded.spec.listeners
    assert [listener.name for listener in (web, a, b)] == ["web", "a", "b"]
    assert [stream_of(loaded, number).timeouts.idle_s for number in range(3)] == [60, 120, 60]
    assert [listener.binding.backlog for listener in (web, a, b)] == [5, 5, 5]
    assert loaded.spec.workers == 9
    assert loaded.model.daemon is not None
    assert sorted(loaded.model.listeners) == ["a", "b", "web"]


def test_the_same_in_two_files(write: Write) -> None:
    main = write('include = "b.toml"\n[log]\n' + WEB)
    other = write(
        "include = []\n[log]\n" + WEB + '[listeners.x]\nbind = "0.0.0.0:8080"\ntargets = "10.0.0.1:1"', "b.toml"
    )
    with pytest.raises(ConfigError) as caught:
        load(main)
    texts = [str(problem).splitlines()[0] for problem in caught.value.problems]
    assert texts == [
        f"{other}:1:1: include: an included file cannot include others",
        f"{other}:2:2: log: [log] stands once in all files, and is already at {main}:2:2",
        f"{other}:3:12: listeners.web: there is a listener of this name already: {main}:3:12",
        f'{other}:7:8: listeners.x.bind: "0.0.0.0:8080" and "127.0.0.1:8080" cannot both be bound: '
        f"listeners.web at {main}:4:8",
    ]


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ('"nope.toml"', "nope.toml: cannot be read: No such file"),
        ('"conf.d"', "is a directory"),
        ('"relay.toml"', "includes this file itself"),
        ('"*.toml"', "includes this file itself"),
        ('""', "is not a path"),
        ('"a\\u0000b"', "is not a path"),
        ('"' + "a" * 5000 + '"', "File name too long"),
        ("[7]", "must be a string"),
    ],
)
def test_wrong_include(write: Write, include: str, message: str) -> None:
    write("", "conf.d/x")
    with pytest.raises(ConfigError, match=message) as caught:
        load(write(f"include = {include}\n" + WEB))
    (problem,) = caught.value.problems
    assert problem.line == 1


def test_a_glob_may_match_nothing_and_a_file_counts_once(write: Write) -> None:
    write('[listeners.a]\nbind = "127.0.0.1:2"\ntargets = "10.0.0.1:1"', "a.toml")
    loaded = load(write('include = ["nope/*.toml", "a.toml", "./a.toml", "a*.toml"]\n' + WEB))
    assert len(loaded.spec.listeners) == 2


def test_errors_of_included_files_with_those_of_the_main_one(write: Write) -> None:
    write("[listeners.a]\nbind = 5\n", "a.toml")
    write("[listeners.b\n", "b.toml")
    with pytest.raises(ConfigError) as caught:
        load(write('include = ["a.toml", "b.toml"]\nbad = 1\n' + WEB))
    assert [(Path(problem.file).name, problem.line) for problem in caught.value.problems] == [
        ("relay.toml", 2),
        ("a.toml", 1),
        ("a.toml", 2),
        ("b.toml", 1),
    ]


def test_the_form_of_an_error(write: Write) -> None:
    path = write('[listeners.web]\n\tbind\t= "日本" # x\n\ttargets = "10.0.0.1:1"\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == (
        f'{path}:2:9: listeners.web.bind: "日本": the port is missing\n'
        '    \tbind\t= "日本" # x\n'
        "    \t    \t  ^\n"
        '    did you mean "日本:80"?'
    )


def test_the_files_of_a_configuration_are_known_whatever_is_wrong_in_them(tmp_path: Path) -> None:
    main, other, broken = tmp_path / "relay.toml", tmp_path / "a.toml", tmp_path / "b.toml"
    main.write_text('include = "[ab].toml"\nnonsense = 1\n')
    other.write_text("[listeners.x]\nbind = 5\n")
    broken.write_text("[")
    assert files_of(main) == (main, other, broken)
    main.write_text("[")
    assert files_of(main) == (main,)
    assert files_of(tmp_path / "nowhere") == (tmp_path / "nowhere",)
