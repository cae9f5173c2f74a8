"""`bind` of HAProxy."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.haproxy.binds import UnixDefaults, bind_lines, unix_defaults
from relayd.imports.haproxy.syntax import Line


def read(text: str, unix: str = "") -> tuple[list[tuple[str, dict[str, object]]], list[str]]:
    """Addresses with the options that are set, and texts of leftovers."""
    notes = Notes()
    defaults = unix_defaults(Line(1, tuple(unix.split())), notes) if unix else UnixDefaults()
    found = bind_lines(Line(2, ("bind", *text.split())), notes, defaults)
    options: list[tuple[str, dict[str, object]]] = [
        (one.place.text, {key: setting.value for key, setting in one.options.items() if setting is not None})
        for one in found
    ]
    return options, [one.text for one in notes.leftovers]


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        (":80", ["0.0.0.0:80"]),
        ("*:80", ["0.0.0.0:80"]),
        ("10.0.0.1:80,10.0.0.2:81", ["10.0.0.1:80", "10.0.0.2:81"]),
        (":10000-10010", ["0.0.0.0:10000-10010"]),
        ("[::]:80", ["[::]:80"]),
        (":::80", ["[::]:80"]),
        ("2001:db8::1:80", ["[2001:db8::1]:80"]),
        ("[2001:db8::1]:80", ["[2001:db8::1]:80"]),
        ("ipv4@10.0.0.1:80", ["10.0.0.1:80"]),
        ("ipv6@:80", ["[::]:80"]),
        ("ipv6@2001:db8::1:80", ["[2001:db8::1]:80"]),
        ("tcp4@:80", ["0.0.0.0:80"]),
        ("a.example.com:80", ["a.example.com:80"]),
        ("/run/a.sock", ["unix:/run/a.sock"]),
        ("unix@/run/a.sock", ["unix:/run/a.sock"]),
        ("abnsz@name", ["unix:@name"]),
    ],
)
def test_addresses(text: str, addresses: list[str]) -> None:
    found, left = read(text)
    assert [address for address, _ in found] == addresses
    assert left == []


@pytest.mark.parametrize(
    ("text", "carried"),
    [
        ("$IP:80", 0),
        ("fd@3", 0),
        ("quic4@:443", 0),
        ("unix@a.sock", 0),
        ("10.0.0.1", 0),
        ("10.0.0.1:http", 0),
        ("", 0),
        ("mptcp@:80", 1),
        ("abns@name", 1),
        (":443 ssl crt /a.pem", 0),
        (":443 crt /a.pem", 0),
    ],
)
def test_addresses_that_are_told(text: str, carried: int) -> None:
    found, left = read(text)
    assert (len(found), len(left)) == (carried, 1)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (":80 interface eth0", {"interface": "eth0"}),
        ("[::]:80 v6only", {"ipv6_only": True}),
        ("[::]:80 v4v6", {}),
        (":80 v6only", {}),
        (":80 tfo defer-accept backlog 100", {"fast_open": True, "defer_accept": "1s", "backlog": 100}),
        (":80 tcp-ut 30s name a id 5", {"tcp_user_timeout": "30s"}),
        (":80 mode 600 user a", {}),
        ("/run/a.sock mode 600 user a group b", {"mode": "0600", "user": "a", "group": "b"}),
        ("/run/a.sock mode 0660 uid 5 gid 6", {"mode": "0660", "user": "5", "group": "6"}),
        ("/run/a.sock interface eth0 tfo", {}),
        (":80 cc bbr", {"congestion": "bbr"}),
    ],
)
def test_options(text: str, options: dict[str, object]) -> None:
    found, left = read(text)
    assert [own for _, own in found] == [options]
    assert left == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (":80 accept-proxy", "accept-proxy"),
        (":80 transparent", "transparent"),
        (":80 maxconn 5", "maxconn 5"),
        (":80 process 1/all", "process 1/all"),
        (":80 nosuch a b", "nosuch a b"),
        ("/a mode 999", "mode 999"),
        (":80 backlog 0", "backlog 0"),
        (":80 interface", "interface"),
    ],
)
def test_options_that_are_told(text: str, left: str) -> None:
    found, leftovers = read(text)
    assert len(found) == 1
    assert leftovers == [left]


def test_unix_bind() -> None:
    found, left = read("/a.sock,:80 group c", "unix-bind prefix /run/haproxy mode 600 user a group b")
    assert found == [
        ("unix:/run/haproxy/a.sock", {"mode": "0600", "user": "a", "group": "c"}),
        ("0.0.0.0:80", {}),
    ]
    assert left == []
    assert read("unix@a.sock", "unix-bind prefix /run/")[0] == [("unix:/run/a.sock", {})]
