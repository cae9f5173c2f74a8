"""What a listener relays, and the keys that only go with one type."""

from collections.abc import Callable, Iterable

import pytest

from relayd.config import Loaded, Problem
from relayd.config.listeners import DATAGRAM_KEYS, SESSION_KEYS, STREAM_KEYS
from relayd.spec import Datagram, OnTargetError, SessionMode

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]

DNS = '[listeners.dns]\nbind = "127.0.0.1:53"\ntargets = ["10.0.0.11:53"]\ntype = {}\n'
VALUES = {
    "backlog": "5",
    "dial_attempts": "1",
    "connect_timeout": '"1s"',
    "idle_timeout": '"off"',
    "half_close_timeout": '"1s"',
    "max_lifetime": '"1s"',
    "keepalive": "true",
    "tcp_user_timeout": '"1s"',
    "congestion": '"reno"',
    "nodelay": "true",
    "fast_open": "false",
    "defer_accept": '"1s"',
    "session_timeout": '"1s"',
    "max_sessions": "5",
    "max_responses": "1",
    "session": '"client"',
    "on_target_error": '"close"',
}


@pytest.mark.parametrize(
    ("types", "streams", "datagrams"),
    [
        ('"stream"', True, False),
        ('"tcp"', True, False),
        ('"dgram"', False, True),
        ('"udp"', False, True),
        ('["udp"]', False, True),
        ('["stream", "dgram"]', True, True),
        ('["udp", "tcp", "udp", "stream"]', True, True),
    ],
)
def test_types(loaded: Load, types: str, streams: bool, datagrams: bool) -> None:
    listener = loaded(DNS.format(types)).spec.listeners[0]
    assert (listener.stream is not None, listener.datagram is not None) == (streams, datagrams)


def test_defaults(loaded: Load) -> None:
    listener = loaded(DNS.format('"dgram"')).spec.listeners[0]
    assert listener.datagram == Datagram(60.0, None, None, SessionMode.CLIENT, OnTargetError.MOVE)


def test_every_key(loaded: Load) -> None:
    listener = loaded(
        DNS.format('["dgram", "stream"]')
        + 'session_timeout = "1500ms"\nmax_sessions = 4096\nmax_responses = 1\nsession = "client"\n'
        + 'on_target_error = "close"\nbacklog = 5\nidle_timeout = "1m"\ninterface = "lo"\nfreebind = true\n'
    ).spec.listeners[0]
    assert listener.datagram == Datagram(1.5, 4096, 1, SessionMode.CLIENT, OnTargetError.CLOSE)
    assert listener.stream is not None
    assert (listener.stream.timeouts.idle_s, listener.binding.backlog) == (60, 5)


def test_each_datagram_on_its_own(loaded: Load) -> None:
    listener = loaded(DNS.format('"dgram"') + 'session = "datagram"\non_target_error = "close"').spec.listeners[0]
    assert listener.datagram == Datagram(60.0, None, None, SessionMode.DATAGRAM, OnTargetError.CLOSE)


def test_the_values_are_all_there() -> None:
    assert set(VALUES) == {*STREAM_KEYS, *DATAGRAM_KEYS}


def lines(keys: Iterable[str]) -> str:
    return "".join(f"{key} = {VALUES[key]}\n" for key in keys)


def test_stream_keys_of_a_datagram_listener(problems: Problems) -> None:
    found = problems(DNS.format('"udp"') + lines(STREAM_KEYS))
    assert [(problem.line, problem.column, problem.key) for problem in found] == [
        (line, 1, f"listeners.dns.{key}") for line, key in enumerate(STREAM_KEYS, 5)
    ]
    assert {problem.message for problem in found} == {"belongs to stream listeners; this one relays datagrams"}


@pytest.mark.parametrize("types", ['"stream"', '["tcp"]'])
def test_datagram_keys_of_a_stream_listener(problems: Problems, types: str) -> None:
    found = problems(DNS.format(types) + lines(DATAGRAM_KEYS))
    assert [(problem.line, problem.column, problem.key) for problem in found] == [
        (line, 1, f"listeners.dns.{key}") for line, key in enumerate(DATAGRAM_KEYS, 5)
    ]
    assert {problem.message for problem in found} == {"belongs to dgram listeners; this one relays streams"}


def test_every_key_goes_with_both(loaded: Load) -> None:
    assert loaded(DNS.format('["tcp", "udp"]') + lines(VALUES)).spec


def test_session_keys_without_sessions(problems: Problems) -> None:
    found = problems(DNS.format('"udp"') + 'session = "datagram"\n' + lines(SESSION_KEYS))
    assert [(problem.line, problem.column, problem.key) for problem in found] == [
        (line, 1, f"listeners.dns.{key}") for line, key in enumerate(SESSION_KEYS, 6)
    ]
    assert all('can do nothing with session = "datagram"' in problem.message for problem in found)


def test_a_key_against_a_default(problems: Problems) -> None:
    (problem,) = problems('[defaults]\nsession = "datagram"\n' + DNS.format('"udp"') + "max_responses = 1")
    assert (problem.line, problem.key) == (7, "listeners.dns.max_responses")


def test_defaults_of_other_types_have_no_effect(loaded: Load) -> None:
    defaults = "[defaults]\n" + lines(VALUES)
    stream, dgram = loaded(
        defaults
        + '[listeners.a]\nbind = "127.0.0.1:1"\ntargets = "10.0.0.1:1"\n'
        + '[listeners.b]\ntype = "dgram"\nbind = "127.0.0.1:1"\ntargets = "10.0.0.1:1"\nsession = "datagram"\n'
    ).spec.listeners
    assert stream.datagram is None
    assert stream.binding.backlog == 5
    assert dgram.stream is None
    assert (dgram.binding.backlog, dgram.binding.defer_accept_s) == (4096, None)
    assert dgram.datagram == Datagram(60.0, None, None, SessionMode.DATAGRAM, OnTargetError.CLOSE)


def test_keys_of_a_listener_whose_type_is_wrong(problems: Problems) -> None:
    (problem,) = problems(DNS.format('"dgrm"') + lines(VALUES))
    assert (problem.key, problem.suggestion) == ("listeners.dns.type", 'did you mean "dgram"?')


def test_a_path_is_one_socket(problems: Problems, loaded: Load) -> None:
    text = '[listeners.log]\ntype = ["stream", "dgram"]\nbind = ["unix:@log", "unix:{}"]\ntargets = "10.0.0.1:514"'
    (problem,) = problems(text.format("/nonexistent/log"))
    assert (problem.line, problem.column, problem.key) == (3, 22, "listeners.log.bind[1]")
    assert problem.message == '"unix:/nonexistent/log" is one file, and so one socket: for streams or for datagrams'
    assert problem.suggestion == "help: make two listeners, each with a path of its own"
    assert loaded(text.format("@also-log")).spec


@pytest.mark.parametrize(
    ("line", "column", "key", "message", "suggestion"),
    [
        ("session_timeout = 60", 19, "session_timeout", "not a bare number", 'help: write "60s"'),
        ('session_timeout = "off"', 19, "session_timeout", "cannot be turned off", ""),
        ("max_sessions = 0", 16, "max_sessions", "at least 1", ""),
        ("max_sessions = 1048577", 16, "max_sessions", "at most 1048576", ""),
        ("max_responses = 0", 17, "max_responses", "at least 1", ""),
        ('max_responses = "1"', 17, "max_responses", "not a string", "help: write 1, without quotes"),
        ('session = "clent"', 11, "session", 'one of "client", "datagram"', 'did you mean "client"?'),
        ('on_target_error = "moove"', 19, "on_target_error", 'one of "move", "close"', 'did you mean "move"?'),
        ('udp_timeout = "1s"', 1, "udp_timeout", "unknown key", "did you mean `session_timeout`?"),
        ("proxy_responses = 1", 1, "proxy_responses", "unknown key", "did you mean `max_responses`?"),
    ],
)
def test_wrong_values(problems: Problems, line: str, column: int, key: str, message: str, suggestion: str) -> None:
    (problem,) = problems(DNS.format('"dgram"') + line)
    assert (problem.line, problem.column, problem.key) == (5, column, f"listeners.dns.{key}")
    assert message in problem.message
    assert problem.suggestion == suggestion
