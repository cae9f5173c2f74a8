"""`upstream` of nginx."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.nginx.syntax import directives
from relayd.imports.nginx.upstreams import address, targets


def read(text: str) -> tuple[list[str], list[str]]:
    notes = Notes()
    found = targets(directives(f"upstream x {{ {text} }}", notes)[0], notes)
    return [place.text for place in found], [one.text for one in notes.leftovers]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("a.example.com:80", "a.example.com:80"),
        ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:/run/a.sock:", "unix:/run/a.sock"),
        ("10.0.0.1:$server_port", "10.0.0.1"),
        ("[::1]:$server_port", "[::1]"),
        ("10.0.0.1", None),
        ("$a:80", None),
        ("$a:$server_port", None),
        ("a:http", None),
        (":80", None),
        ("[::1]", None),
        ("a:0", None),
    ],
)
def test_address(text: str, expected: str | None) -> None:
    assert address(text) == expected


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("server a:1; server b:1;", ["a:1", "b:1"], []),
        ("server a:1; server b:1 backup;", ["a:1"], ["server b:1 backup"]),
        ("server a:1 backup; server b:1 backup;", ["a:1", "b:1"], []),
        ("server a:1 down; server b:1;", ["b:1"], ["server a:1 down"]),
        ("server a:1 weight=5; server b:1;", ["a:1", "b:1"], ["weight=5"]),
        ("server a:1 weight=5; server b:1 weight=5;", ["a:1", "b:1"], []),
        ("server a:1 max_fails=3 fail_timeout=5s resolve;", ["a:1"], ["max_fails=3 fail_timeout=5s"]),
        ("server a:1 max_conns=3 nosuch;", ["a:1"], ["max_conns=3", "nosuch"]),
        ("server a:1; least_conn;", ["a:1"], []),
        ("hash $remote_addr; server a:1; server b:1;", ["a:1", "b:1"], ["hash $remote_addr"]),
        ("zone x 64k; include y; nosuch; server a:1;", ["a:1"], ["zone x 64k", "include y", "nosuch"]),
        ("server; server a;", [], ["server", "server a"]),
        ("", [], []),
    ],
)
def test_targets(text: str, kept: list[str], left: list[str]) -> None:
    assert read(text) == (kept, left)
