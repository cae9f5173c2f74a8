"""rinetd.conf, line by line."""

import pytest

from relayd.imports import rinetd
from relayd.imports.draft import Imported
from tests.unit.imports.reading import keys, only, opening, reason, services, told


def parse(text: str) -> Imported:
    return rinetd.parse(text, services)


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("0.0.0.0 80 10.0.0.1 8080", "tcp-80", {"bind": ["0.0.0.0:80"], "targets": ["10.0.0.1:8080"]}),
        ("  0\t80   10.0.0.1\t80  ", "tcp-80", {"bind": ["0.0.0.0:80"], "targets": ["10.0.0.1:80"]}),
        ("1.2.3.4 80/tcp a.example.com 80/tcp", "tcp-80", {"bind": ["1.2.3.4:80"], "targets": ["a.example.com:80"]}),
        ("::1 80 2001:db8::1 80", "tcp-80", {"bind": ["[::1]:80"], "targets": ["[2001:db8::1]:80"]}),
        ("[::] 80 [2001:db8::1] 80", "tcp-80", {"bind": ["[::]:80"], "targets": ["[2001:db8::1]:80"]}),
        ("fe80::1%eth0 80 ::1 80", "tcp-80", {"bind": ["[fe80::1%eth0]:80"], "targets": ["[::1]:80"]}),
        ("localhost http 10.0.0.1 domain", "tcp-80", {"bind": ["localhost:80"], "targets": ["10.0.0.1:53"]}),
        ("0 80 10.0.0.1 80 # a comment", "tcp-80", {"bind": ["0.0.0.0:80"], "targets": ["10.0.0.1:80"]}),
        ("0 80 10.0.0.1 80 [src=10.0.0.9]", "tcp-80", {"source": "10.0.0.9"}),
        ("0 80 ::1 80[src=2001:db8::9]", "tcp-80", {"source": "2001:db8::9"}),
    ],
)
def test_a_rule_of_tcp(line: str, name: str, expected: dict[str, object]) -> None:
    draft = only(parse(line))
    assert draft.name == name
    assert keys(draft) == {**keys(draft), **expected, "idle_timeout": "off"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"session_timeout": "72s"}),
        ("[timeout=1200]", {"session_timeout": "20m"}),
        ("[ timeout = 90 , src = 10.0.0.9 ]", {"session_timeout": "1m30s", "source": "10.0.0.9"}),
        ("[src=10.0.0.9,timeout=1]", {"session_timeout": "1s", "source": "10.0.0.9"}),
        ("[]", {"session_timeout": "72s"}),
    ],
)
def test_a_rule_of_udp(options: str, expected: dict[str, object]) -> None:
    found = parse(f"0 domain/udp 10.0.0.1 domain/udp {options}")
    draft = only(found)
    assert draft.name == "udp-53"
    assert keys(draft) == {"type": ["dgram"], "bind": ["0.0.0.0:53"], "targets": ["10.0.0.1:53"], **expected}
    assert not found.leftovers


def test_names_are_each_used_once() -> None:
    found = parse("10.0.0.1 80 a 80\n10.0.0.2 80 a 80\n10.0.0.3 80 a 80\n0 80/udp a 80/udp\n")
    assert [draft.name for draft in found.drafts] == ["tcp-80", "tcp-80-2", "tcp-80-3", "udp-80"]
    assert [draft.line for draft in found.drafts] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("0 80 10.0.0.1", "a rule is BINDADDRESS BINDPORT"),
        ("nonsense", "a rule is BINDADDRESS BINDPORT"),
        ("0 80 10.0.0.1 99999", '"99999" is neither a port nor'),
        ("0 nosuch 10.0.0.1 80", '"nosuch" is neither a port nor'),
        ("0 80/sctp 10.0.0.1 80", '"80/sctp" is neither a port nor'),
        ("0 0 10.0.0.1 80", '"0" is neither a port nor'),
        ("0 80 a;b 80", '"a;b" is no address'),
        ("0 80/udp 10.0.0.1 80", "from udp to tcp"),
        ("0 80 10.0.0.1 80 more", "options stand in [brackets]"),
        ("0 80 10.0.0.1 80 [src=a", "options stand in [brackets]"),
    ],
)
def test_a_line_that_is_no_rule(line: str, why: str) -> None:
    found = parse(f"# first\n{line}\n0 1 10.0.0.1 1")
    assert only(found).name == "tcp-1"
    assert told(found) == [(2, line)]
    assert why in reason(found, line)


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("keepalive=on", "no such option"),
        ("timeout=5", "for UDP only"),
        ("timeout=x", "no such option"),
        ("src=a b", "no such option"),
    ],
)
def test_an_option_that_is_left_over(option: str, why: str) -> None:
    found = parse(f"0 80 10.0.0.1 80 [{option}]")
    assert only(found)
    assert why in reason(found, option)


def test_rules_of_access_are_told_with_what_they_were_about() -> None:
    found = parse("allow 10.*\ndeny 10.1.?\n0 80 10.0.0.1 80\nallow 192.168.*\n0 81 10.0.0.1 81\n")
    assert [(one.line, one.text) for one in opening(found)] == [
        (1, "allow 10.*"),
        (2, "deny 10.1.?"),
        (4, "allow 192.168.*"),
    ]
    assert reason(found, "deny 10.1.?").startswith("(all rules) ")
    assert reason(found, "allow 192.168.*").startswith("(the rule in line 3) ")


def test_rules_of_access_are_not_told_of_the_rule_before_one_that_is_left_over() -> None:
    found = parse("0 80 10.0.0.1 80\nnonsense\nallow 10.*\n")
    assert reason(found, "allow 10.*").startswith("(the rule in line 2) ")


def test_logs() -> None:
    found = parse("logfile /var/log/rinetd.log\nlogcommon\npidlogfile /run/x\n0 80 10.0.0.1 80\n")
    assert told(found) == [(1, "logfile /var/log/rinetd.log"), (2, "logcommon")]
    assert found.covered == ((3, "pidlogfile"),)


@pytest.mark.parametrize(
    ("line", "looks"),
    [
        ("0.0.0.0 80 10.0.0.1 80", True),
        ("0 80/udp a.example.com 80/udp [timeout=5]", True),
        ("allow 10.*", True),
        ("logcommon", True),
        ("logfile /var/log/x", True),
        ("server a 10.0.0.1 80", False),
        ("allow 10.0.0.0/8;", False),
        ("listen 80", False),
        ("# 0 80 a 80", False),
        ("", False),
    ],
)
def test_what_looks_like_a_rule(line: str, looks: bool) -> None:
    assert rinetd.looks_like_a_rule(line) is looks
