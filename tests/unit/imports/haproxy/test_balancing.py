"""`balance` of HAProxy."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.haproxy.balancing import about, balance, is_first, ordered, shared
from relayd.imports.haproxy.servers import Server, servers
from relayd.imports.haproxy.syntax import Line

TWO = ("10.0.0.1:1", "10.0.0.2:1")


def read(*texts: str) -> list[Server]:
    return servers([Line(number, ("server", "s", *text.split())) for number, text in enumerate(texts, 1)], Notes())


@pytest.mark.parametrize(
    ("text", "expected", "comment"),
    [
        ("leastconn", "least_connections", ""),
        ("random", "random", ""),
        ("random(2)", "random", ""),
        ("random(1)", "random", "the less busy of two, of 1 in HAProxy"),
        ("random(12345678901)", "random", "the less busy of two, of 12345678901 in HAProxy"),
        ("source", "source_hash", "another hash than HAProxy's: clients go to other targets than they did"),
    ],
)
def test_what_relayd_has(text: str, expected: str, comment: str) -> None:
    notes = Notes()
    setting = balance(Line(7, ("balance", text)), read(*TWO), notes)
    assert setting
    assert (setting.value, setting.line, setting.comment) == (expected, 7, comment)
    assert (notes.leftovers, notes.covered) == ([], [])


@pytest.mark.parametrize("text", ["balance roundrobin", "balance static-rr", "balance"])
def test_what_needs_no_line(text: str) -> None:
    notes = Notes()
    assert balance(Line(7, tuple(text.split())), read(*TWO), notes) is None
    assert (notes.leftovers, notes.covered) == ([], [(7, text)])


def test_first() -> None:
    notes = Notes()
    setting = balance(Line(7, ("balance", "first")), read(*TWO), notes)
    assert setting
    assert (setting.value, setting.comment) == ("first", "")
    assert not notes.leftovers
    limited = balance(Line(7, ("balance", "first")), read("10.0.0.1:1 maxconn 5", "10.0.0.2:1"), notes)
    assert limited
    assert limited.comment == "each worker fills its part of max_connections"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("uri depth 5", "as they do under HAProxy in mode tcp"),
        ("url_param a", "as they do under HAProxy in mode tcp"),
        ("hdr(host)", "as they do under HAProxy in mode tcp"),
        ("rdp-cookie", "reads nothing of what it relays"),
        ("rdp-cookie(a)", "reads nothing of what it relays"),
        ("hash src", "source_hash"),
        ("random(x)", "nothing like it"),
        ("nosuch", "nothing like it"),
    ],
)
def test_what_relayd_has_not(text: str, why: str) -> None:
    notes = Notes()
    assert balance(Line(7, ("balance", *text.split())), read(*TWO), notes) is None
    assert [(one.line, one.text) for one in notes.leftovers] == [(7, f"balance {text}")]
    assert why in notes.leftovers[0].reason


@pytest.mark.parametrize(
    ("texts", "matters"),
    [
        (["10.0.0.1:1"], False),
        (["10.0.0.1"], False),
        (["2001:db8::1:1"], False),
        (["unix@/run/a"], False),
        (["10.0.0.1:1", "10.0.0.2:1 backup"], False),
        (["10.0.0.1:1", "10.0.0.2:1 backup", "10.0.0.3:1 backup"], True),
        (["a.example.com:1"], True),
        (["a.example.com"], True),
        ([], False),
    ],
)
@pytest.mark.parametrize("how", ["source", "first", "uri"])
def test_it_matters_where_there_is_a_choice(texts: list[str], how: str, matters: bool) -> None:
    notes = Notes()
    setting = balance(Line(7, ("balance", how)), read(*texts), notes)
    assert (setting is not None or bool(notes.leftovers)) is matters
    assert balance(None, read(*texts), notes) is None


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a:1", "b:1", "c:1"], ["a", "b", "c"]),
        (["a:1 id 30", "b:1 id 10", "c:1 id 20"], ["b", "c", "a"]),
        (["a:1 id 2", "b:1", "c:1"], ["b", "a", "c"]),
    ],
)
def test_first_goes_by_id(texts: list[str], expected: list[str]) -> None:
    assert [server.host for server in ordered(read(*texts))] == expected


def test_weights() -> None:
    found, notes = read("a:1 weight 5", "b:1 weight 6", "c:1 weight 7 backup"), Notes()
    assert [server.weight for server in shared(found, notes, weighted=True)] == [5, 6, 1]
    assert notes.leftovers == []
    assert [server.weight for server in shared(found, notes, weighted=False)] == [1, 1, 1]
    assert [(one.line, one.text) for one in notes.leftovers] == [(1, "weight 5"), (2, "weight 6")]
    assert "by the order alone" in notes.leftovers[0].reason


def test_about() -> None:
    found = read("a:1", "b:1 backup", "c:1 backup")
    assert about(found[:2], all_backups=False) == ""
    assert about(found, all_backups=True) == ""
    assert "option allbackups" in about(found, all_backups=False)


def test_is_first() -> None:
    assert is_first(Line(1, ("balance", "first")))
    assert not is_first(Line(1, ("balance",)))
    assert not is_first(None)
