"""What each line of a proxy means."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.haproxy.proxies import Proxy, mode_of, parents, proxy
from relayd.imports.haproxy.syntax import sections


def read(*lines: str) -> tuple[Proxy, Notes]:
    notes = Notes()
    found = sections("\n".join(["listen x", *lines]), notes)
    return proxy(found[0], notes), notes


@pytest.mark.parametrize(
    "line",
    [
        *("log global", "option tcplog", "option redispatch", "option tcpka", "option splice-auto", "no option x"),
        *("option httplog", "option forwardfor", "http-request deny", "errorfile 400 /a", "timeout http-request 5s"),
        *("timeout queue 5s", "description a", "option dontlognull", "stats enable", "enabled", "cookie a insert"),
        "option allbackups",
    ],
)
def test_what_needs_no_line(line: str) -> None:
    _, notes = read(line)
    assert not notes.leftovers
    assert [number for number, _ in notes.covered] == [2]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("maxconn 5", "no limit of a listener"),
        ("acl a src 10.0.0.1", "no conditions"),
        ("fullconn 5", "max_connections"),
        ("hash-type consistent", "one hash, and consistent"),
        ("stick-table type ip size 5", "no stick tables"),
        ("tcp-request inspect-delay 5s", "reads nothing"),
        ("timeout nosuch 5s", "nothing like it"),
        ("nosuch", "nothing like it"),
        ("option", "nothing like it"),
        ("timeout", "nothing like it"),
        ("timeout client", "not understood"),
        ("no option redispatch", "dial_attempts = 1"),
    ],
)
def test_what_is_told(line: str, why: str) -> None:
    _, notes = read(line)
    assert [(one.line, one.text, one.opens) for one in notes.leftovers] == [(2, line, False)]
    assert why in notes.leftovers[0].reason


@pytest.mark.parametrize("line", ["tcp-request connection reject if !a", "tcp-request content silent-drop"])
def test_what_kept_somebody_out(line: str) -> None:
    _, notes = read(line)
    assert [one.opens for one in notes.leftovers] == [True]
    assert "firewall" in notes.leftovers[0].reason


def test_what_is_kept_for_later() -> None:
    found, notes = read("bind :80", "server a a:1", "mode tcp", "balance source", "retries 2", "retries 3")
    assert [line.text for line in found.binds] == ["bind :80"]
    assert [line.text for line in found.servers] == ["server a a:1"]
    assert {key: line.text for key, line in found.values.items()} == {
        "mode": "mode tcp",
        "balance": "balance source",
        "retries": "retries 3",
    }
    assert not notes.leftovers


CHECKS = ["option httpchk", "option tcp-check", "no option tcp-check", "tcp-check connect", "http-check send"]


@pytest.mark.parametrize("line", [*CHECKS, "external-check path /bin", "option external-check", "option redis-check"])
def test_what_is_about_checks(line: str) -> None:
    found, notes = read(line)
    assert [one.text for one in found.checks] == [line]
    assert not notes.leftovers
    assert not notes.covered


def test_rules_of_checks_replace_those_below() -> None:
    notes = Notes()
    text = "defaults\noption tcp-check\ntcp-check send a\nhttp-check send meth GET\nlisten x\ntcp-check connect\n"
    found = sections(text, notes)
    one = proxy(found[1], notes).over(proxy(found[0], notes))
    assert [line.number for line in one.checks] == [2, 4, 6]


@pytest.mark.parametrize(
    ("lines", "kept", "covered"),
    [
        (["option allbackups"], "option allbackups", [(2, "option allbackups")]),
        (["no option allbackups"], "no option allbackups", []),
        (["option allbackups", "no option allbackups"], "no option allbackups", [(2, "option allbackups")]),
    ],
)
def test_whether_all_backups_count(lines: list[str], kept: str, covered: list[tuple[int, str]]) -> None:
    found, notes = read(*lines)
    assert found.values["allbackups"].text == kept
    assert notes.covered == covered
    assert not notes.leftovers


def test_defaults_come_below() -> None:
    notes = Notes()
    found = sections(
        "defaults\nretries 1\ntimeout client 5s\ndefault-server check\nbind :1\nlisten x\nretries 2\nserver a a:1\n",
        notes,
    )
    one = proxy(found[1], notes).over(proxy(found[0], notes))
    assert one.values["retries"].text == "retries 2"
    assert one.timeouts["client"].ms == 5000
    assert [line.text for line in one.servers] == ["default-server check", "server a a:1"]
    assert one.binds == []
    assert one.over(None) is one


def test_parents_and_modes() -> None:
    text = (
        "listen a\ndefaults d\nmode http\nlisten b\nmode tcp\ndefaults e\nlisten c\nlisten f from d\nlisten g from no\n"
    )
    found = sections(text, Notes())
    below = parents(found)
    names = {section.name: below[section.number].name for section in found if section.number in below}
    assert names == {"b": "d", "c": "e", "f": "d"}
    assert [mode_of(section, "x") for section in found] == ["x", "http", "tcp", "x", "x", "x", "x"]
