"""Timeouts of HAProxy: one for each side there, one for the connection here."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.haproxy.syntax import Line
from relayd.imports.haproxy.timeouts import Timeout, milliseconds, settings, timeout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5000", 5000),
        ("5s", 5000),
        ("5ms", 5),
        ("1m", 60_000),
        ("2h", 7_200_000),
        ("1d", 86_400_000),
        ("1us", 1),
        ("1001us", 2),
        ("0", 0),
        ("999999999d", 366 * 86_400_000),
        ("", None),
        ("5 s", None),
        ("5x", None),
        ("-5", None),
        ("$T", None),
        ("٥", None),
    ],
)
def test_milliseconds(text: str, expected: int | None) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("words", [("timeout", "client"), ("timeout", "client", "x"), ("timeout", "client", "1", "2")])
def test_what_is_no_timeout(words: tuple[str, ...]) -> None:
    notes = Notes()
    assert timeout(Line(7, words), notes) is None
    assert [(one.line, one.text) for one in notes.leftovers] == [(7, " ".join(words))]


@pytest.mark.parametrize(
    ("given", "idle", "half_close"),
    [
        ({"client": 60_000, "server": 60_000}, "1m", "1m"),
        ({"client": 60_000, "server": 30_000}, "30s", "30s"),
        ({"client": 60_000, "server": 0}, "1m", "1m"),
        ({"client": 0, "server": 0}, "off", None),
        ({}, "off", None),
        ({"client": 60_000, "tunnel": 3_600_000}, "1h", "1h"),
        ({"client": 60_000, "tunnel": 0}, "off", None),
        ({"client": 60_000, "server": 60_000, "client-fin": 10_000}, "1m", "1m"),
        ({"client": 60_000, "server": 60_000, "server-fin": 90_000}, "1m", "1m30s"),
        ({"client": 60_000, "server": 60_000, "server-fin": 0}, "1m", "off"),
        ({"client": 60_000, "tunnel": 3_600_000, "client-fin": 10_000}, "1h", "1h"),
        ({"client-fin": 10_000}, "off", "10s"),
        ({"client": 60_000, "server": 60_000, "client-fin": 10_000, "server-fin": 20_000}, "1m", "20s"),
        ({"client": 60_000, "server": 60_000, "client-fin": 0, "server-fin": 20_000}, "1m", "off"),
    ],
)
def test_settings(given: dict[str, int], idle: str, half_close: str | None) -> None:
    every = {name: Timeout(name, ms, 3) for name, ms in given.items()}
    found = settings(every, every, Notes())
    assert found["idle_timeout"].value == idle
    assert (found["half_close_timeout"].value if "half_close_timeout" in found else None) == half_close


def test_why_one_of_two_is_taken() -> None:
    front = {"client": Timeout("client", 60_000, 3), "client-fin": Timeout("client-fin", 1000, 4)}
    back = {"server": Timeout("server", 30_000, 5), "server-fin": Timeout("server-fin", 2000, 6)}
    found = settings(front, back, Notes())
    assert found["idle_timeout"].comment.startswith("the smaller of timeout client (1m) and timeout server (30s): ")
    assert found["half_close_timeout"].comment.startswith("the larger of timeout client-fin (1s) and ")
    assert (found["idle_timeout"].line, found["half_close_timeout"].line) == (5, 6)


def test_connect() -> None:
    notes = Notes()
    assert settings({}, {"connect": Timeout("connect", 500, 3)}, notes)["connect_timeout"].value == "500ms"
    assert not notes.leftovers
    assert "connect_timeout" not in settings({}, {"connect": Timeout("connect", 0, 3)}, notes)
    assert [one.line for one in notes.leftovers] == [3]
