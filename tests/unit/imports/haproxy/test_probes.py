"""What HAProxy asks its servers."""

import pytest

from relayd.imports.draft import Notes, Value
from relayd.imports.haproxy.probes import Probe, probe
from relayd.imports.haproxy.syntax import sections

TCP = {"type": "tcp"}


def read(*lines: str) -> tuple[Probe | None, Notes]:
    notes = Notes()
    found = sections("\n".join(["backend x", *lines]), notes)
    return probe(found[0].lines, notes), notes


def asked(*lines: str) -> tuple[dict[str, Value], int | None, list[int]]:
    """The keys, the port, and the lines that were not carried over."""
    found, notes = read(*lines)
    assert found
    return dict(found.keys), found.port, [one.line for one in notes.leftovers]


@pytest.mark.parametrize(
    ("rules", "keys", "port", "left"),
    [
        ([], {}, None, []),
        (["connect"], {}, None, []),
        (["connect default linger port 81 comment a", "comment b"], {}, 81, []),
        (["connect", r"send PING\r\n", "expect string +PONG"], {"send": "PING\r\n", "expect": "+PONG"}, None, []),
        (["send a", "send-binary 62", "expect string c"], {"send": "ab", "expect": "c"}, None, []),
        (["send-binary 00ff", "expect binary 01FE"], {"send": {"hex": "00ff"}, "expect": {"hex": "01FE"}}, None, []),
        (["expect rstring ^220[-.]"], {"expect": {"regex": "^220[-.]"}}, None, []),
        (["expect min-recv 5 comment a string b"], {"expect": "b"}, None, []),
        (["send a comment b", "expect string c"], {"send": "a", "expect": "c"}, None, []),
        (["send a"], {}, None, []),
        (
            ["connect", "send a", "expect string b", "send c", "expect string d"],
            {"send": "a", "expect": "b"},
            None,
            [6, 7],
        ),
        (["connect ssl port 443", "send a", "expect string b"], {}, 443, [3, 4, 5]),
        (["connect", "connect port 5", "expect string a"], {}, None, [4, 5]),
        (["expect ! string a"], {}, None, [3]),
        (["expect rbinary 00"], {}, None, [3]),
        (["expect rstring ^[[:alpha:]]"], {}, None, [3]),
        (["expect rstring ("], {}, None, [3]),
        (["expect string"], {}, None, [3]),
        (["send-lf a", "expect string b"], {}, None, [3, 4]),
        (["send-binary 0", "expect string b"], {}, None, [3, 4]),
        ([f"send {'a' * 1025}", "expect string b"], {}, None, [3, 4]),
        (["send a b c"], {}, None, [3]),
        ([""], {}, None, [3]),
    ],
)
def test_by_tcp(rules: list[str], keys: dict[str, Value], port: int | None, left: list[int]) -> None:
    assert asked("option tcp-check", *(f"tcp-check {rule}" for rule in rules)) == ({**TCP, **keys}, port, left)


HTTP = {"type": "http", "method": "OPTIONS"}


@pytest.mark.parametrize(
    ("option", "rules", "keys"),
    [
        ("", [], HTTP),
        ("/a", [], {**HTTP, "path": "/a"}),
        ("GET /a?b=c", [], {"type": "http", "path": "/a?b=c"}),
        (r"HEAD / HTTP/1.1\r\nHost:\ a.example.com", [], {"type": "http", "method": "HEAD", "host": "a.example.com"}),
        (r"GET / HTTP/1.0\r\nConnection:\ close", [], {"type": "http"}),
        (
            "",
            ["send meth GET uri /b ver HTTP/1.1 hdr Host a hdr User-Agent b comment c"],
            {"type": "http", "path": "/b", "host": "a"},
        ),
        ("", ["expect status 200"], {**HTTP, "status": (200,)}),
        ("", ["expect comment a status 200-299,404", "comment b"], {**HTTP, "status": ("200-299", 404)}),
        ("", ["disable-on-404"], HTTP),
        ("", ["connect"], HTTP),
    ],
)
def test_by_http(option: str, rules: list[str], keys: dict[str, Value]) -> None:
    assert asked(f"option httpchk {option}", *(f"http-check {rule}" for rule in rules)) == (keys, None, [])


@pytest.mark.parametrize(
    ("option", "rules", "left"),
    [
        (r"GET / HTTP/1.1\r\nAuthorization:\ a", [], [2]),
        ("GET a", [], [2]),
        ("get /", [], [2]),
        ("", ["send hdr Authorization a"], [2, 3]),
        ("", ["send body a"], [2, 3]),
        ("", ["send odd"], [2, 3]),
        ("", ["send uri-lf /a"], [2, 3]),
        ("", ["expect string a"], [3]),
        ("", ["expect ! status 500"], [3]),
        ("", ["expect rstatus ^2"], [3]),
        ("", ["expect status 299-200"], [3]),
        ("", ["connect ssl"], [3]),
        ("", ["set-var(check.a) int(1)"], [3]),
        ("", [""], [3]),
    ],
)
def test_by_a_connection_alone_where_http_is_not_the_same(option: str, rules: list[str], left: list[int]) -> None:
    found = asked(f"option httpchk {option}", *(f"http-check {rule}" for rule in rules))
    assert (found[0], sorted(set(found[2]))) == (TCP, left)


def test_a_status_is_asked_for_where_more_is_expected() -> None:
    found = asked("option httpchk", "http-check expect status 200", "http-check expect string a")
    assert found == ({**HTTP, "status": (200,)}, None, [4])
    assert asked("option httpchk", "http-check send-state", "http-check connect port 81") == (HTTP, 81, [3])


def test_http_of_another_version_is_said() -> None:
    old, _ = read("option httpchk")
    new, _ = read("option httpchk GET / HTTP/1.1")
    assert old
    assert new
    assert "HTTP/1.0" in old.comment
    assert new.comment == ""


@pytest.mark.parametrize(
    ("lines", "keys", "left"),
    [
        ([], TCP, []),
        (["tcp-check send a", "http-check send meth GET"], TCP, []),
        (["option tcp-check", "no option tcp-check", "tcp-check expect string a"], TCP, []),
        (["option tcp-check", "no option httpchk", "tcp-check expect string a"], {**TCP, "expect": "a"}, []),
        (["option httpchk", "option tcp-check"], TCP, []),
        (["option redis-check"], {**TCP, "send": "*1\r\n$4\r\nPING\r\n", "expect": "+PONG\r\n"}, []),
        (["option ssl-hello-chk"], TCP, [2]),
        (["option mysql-check user a"], TCP, [2]),
        (["option smtpchk"], TCP, [2]),
    ],
)
def test_which_check_it_is(lines: list[str], keys: dict[str, Value], left: list[int]) -> None:
    assert asked(*lines) == (keys, None, left)


@pytest.mark.parametrize(
    "lines",
    [
        ["option external-check"],
        ["option tcp-check", "tcp-check connect addr 10.0.0.9"],
        ["option httpchk", "http-check connect addr 10.0.0.9 port 5"],
    ],
)
def test_where_nothing_is_asked(lines: list[str]) -> None:
    found, notes = read(*lines)
    assert found is None
    assert [one.text for one in notes.leftovers] == [lines[-1]]
