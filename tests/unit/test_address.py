"""relayd/address.py: what is an address, what is not, and what is suggested instead."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import (
    UNIX_PATH_BYTES_MAX,
    AddressError,
    Family,
    InetAddress,
    NameAddress,
    ServiceAddress,
    SystemdAddress,
    UnixAddress,
    from_sockaddr,
    parse,
    parse_service,
    parse_systemd,
)

INET, INET6 = Family.INET, Family.INET6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", InetAddress(INET, "10.0.0.1", 80)),
        ("0.0.0.0:0", InetAddress(INET, "0.0.0.0", 0)),
        ("[2001:DB8::0:1]:443", InetAddress(INET6, "2001:db8::1", 443)),
        ("[fe80::1%eth0]:80", InetAddress(INET6, "fe80::1", 80, "eth0")),
        ("[fe80::1%7]:80", InetAddress(INET6, "fe80::1", 80, "7")),
        ("[::ffff:10.0.0.1]:80", InetAddress(INET, "10.0.0.1", 80)),
        (":80", InetAddress(INET6, "::", 80)),
        ("app.example.com:80", NameAddress("app.example.com", 80)),
        ("localhost:65535", NameAddress("localhost", 65535)),
        ("_srv-1.x.:1", NameAddress("_srv-1.x.", 1)),
        ("unix:/run/a b.sock", UnixAddress("/run/a b.sock")),
        ("unix:@name", UnixAddress("@name")),
    ],
)
def test_is_an_address(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "reason", "suggestion"),
    [
        ("", "port is missing", ""),
        ("10.0.0.1", "port is missing", "10.0.0.1:80"),
        ("80", "colon before the port", ":80"),
        ("10.0.0.1:", "after the colon", "10.0.0.1:80"),
        ("10.0.0.1:http", "not a port", ""),
        ("10.0.0.1:65536", "out of range", ""),
        ("10.0.0.1:123456", "not a port", ""),
        ("10.0.0.1:80:90", "more than one colon", ""),
        ("tcp:10.0.0.1:80", "more than one colon", ""),
        ("*:80", "without a host", ":80"),
        (" 10.0.0.1:80", "blank", "10.0.0.1:80"),
        ("::1", "brackets", "[::1]:80"),
        ("2001:db8::1:80", "brackets", "[2001:db8::1]:80"),
        ("[::1]", "port is missing", "[::1]:80"),
        ("[::1", "not closed", ""),
        ("[::g]:80", "not an IPv6 address", ""),
        ("[fe80::1]:80", "needs its interface", "[fe80::1%eth0]:80"),
        ("[fe80::1%]:80", "after % is missing", ""),
        ("[fe80::1%a b]:80", "cannot be the name of an interface", ""),
        ("[fe80::1%0]:80", "not the index", ""),
        ("[fe80::1%99999999999]:80", "not the index", ""),
        ("[2001:db8::1%eth0]:80", "only a link-local", "[2001:db8::1]:80"),
        ("256.0.0.1:80", "not an IPv4 address", ""),
        ("10.0.0.01:80", "not an IPv4 address", ""),
        ("0x7f.1:80", "neither", ""),
        ("a..b:80", "neither", ""),
        ("-a:80", "neither", ""),
        (f"{'a' * 64}.b:80", "up to 63 characters", ""),
        ("http://a.b:80/", "no scheme", "a.b:80"),
        ("/run/a.sock", "unix:", "unix:/run/a.sock"),
        ("@a", "unix:", "unix:@a"),
        ("unix:", "is missing", "unix:/run/relayd/name.sock"),
        ("unix:@", "is missing", "unix:/run/relayd/name.sock"),
        ("unix:a.sock", "absolute", "unix:/run/a.sock"),
        ("unix:/a\0b", "NUL", ""),
        ("systemd:web", "only the bind of a listener", ""),
        ("srv:web", "only a target can name one", ""),
        ("unix:/\ud800", "not valid text", ""),
        ("unix:/" + "é" * 54, "109 bytes", ""),
    ],
)
def test_is_no_address(text: str, reason: str, suggestion: str) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        parse(text)
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize("name", ["_http._tcp.example.com", "app.service.consul", "x", "x.", "a" * 63])
def test_a_service(name: str) -> None:
    assert parse_service(f"srv:{name}") == ServiceAddress(name)
    assert str(ServiceAddress(name)) == f"srv:{name}"


@pytest.mark.parametrize(
    ("name", "reason", "suggestion"),
    [
        ("", "name of the service is missing", "srv:_http._tcp.example.com"),
        ("_http._tcp.x:80", "has no port", "srv:_http._tcp.x"),
        ("10.0.0.1:80", "has no port", ""),
        ("80", "a host of this name has a dot", "srv.:80"),
        (" x", "blank", "srv:x"),
        ("10.0.0.1", "not a name", ""),
        ("0x7f.1", "not a name", ""),
        ("[::1]", "not a name", ""),
        ("a..b", "not a name", ""),
        ("a" * 64, "up to 63 characters", ""),
        ("é", "punycode", ""),
    ],
)
def test_is_no_service(name: str, reason: str, suggestion: str) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        parse_service(f"srv:{name}")
    assert caught.value.suggestion == suggestion


@pytest.mark.parametrize("name", ["web", "relayd.socket", "a b", "80", "relayd", "~" * 255])
def test_a_name_of_systemd(name: str) -> None:
    assert parse_systemd(f"systemd:{name}") == SystemdAddress(name)
    assert str(SystemdAddress(name)) == f"systemd:{name}"


@pytest.mark.parametrize(
    ("name", "reason", "suggestion"),
    [
        ("", "name is missing", "systemd:web"),
        ("web:80", "FileDescriptorName= alone", "systemd:web"),
        (":80", "FileDescriptorName= alone", ""),
        (" web", "blank", "systemd:web"),
        ("é", "printable ASCII", ""),
        ("a\tb", "printable ASCII", ""),
        ("a" * 256, "1 to 255", ""),
        ("relayd-web", "relayd's own", ""),
    ],
)
def test_is_no_name_of_systemd(name: str, reason: str, suggestion: str) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        parse_systemd(f"systemd:{name}")
    assert caught.value.suggestion == suggestion


def test_longest_unix_path() -> None:
    path = "/" + "a" * (UNIX_PATH_BYTES_MAX - 1)
    assert parse(f"unix:{path}") == UnixAddress(path)
    with pytest.raises(AddressError):
        parse(f"unix:{path}a")


@pytest.mark.parametrize("address", [InetAddress(INET, "0.0.0.0", 1), InetAddress(INET6, "::", 1)])
def test_wildcard(address: InetAddress) -> None:
    assert address.wildcard
    assert not InetAddress(INET, "127.0.0.1", 1).wildcard


def test_sockaddr() -> None:
    assert InetAddress(INET, "10.0.0.1", 80).sockaddr == ("10.0.0.1", 80)
    assert InetAddress(INET6, "::1", 80).sockaddr == ("::1", 80, 0, 0)
    assert InetAddress(INET6, "fe80::1", 80, "7").sockaddr == ("fe80::1", 80, 0, 7)
    assert InetAddress(INET6, "fe80::1", 80, "lo").sockaddr == ("fe80::1", 80, 0, socket.if_nametoindex("lo"))
    assert UnixAddress("/a").sockaddr == "/a"
    assert UnixAddress("@a").sockaddr == b"\0a"
    with pytest.raises(OSError, match="interface"):
        _ = InetAddress(INET6, "fe80::1", 80, "nosuch0").sockaddr


@pytest.mark.parametrize(
    ("family", "sockaddr", "text"),
    [
        (socket.AF_INET, ("10.0.0.1", 80), "10.0.0.1:80"),
        (socket.AF_INET6, ("::ffff:10.0.0.1", 80, 0, 0), "10.0.0.1:80"),
        (socket.AF_INET6, ("fe80::1%eth0", 80, 0, 2), "[fe80::1%eth0]:80"),
        (socket.AF_INET6, ("fe80::1", 80, 0, 2), "[fe80::1%2]:80"),
        (socket.AF_UNIX, "/run/a.sock", "unix:/run/a.sock"),
        (socket.AF_UNIX, b"\0name", "unix:@name"),
        (socket.AF_UNIX, "", "unix:"),
        (socket.AF_UNIX, b"", "unix:"),
    ],
)
def test_from_sockaddr(family: int, sockaddr: object, text: str) -> None:
    assert str(from_sockaddr(family, sockaddr)) == text


def test_from_sockaddr_of_something_else() -> None:
    with pytest.raises(TypeError):
        from_sockaddr(socket.AF_INET, 5)


MAPPED = ipaddress.ip_network("::ffff:0:0/96")
ports = st.integers(0, 65535)
addresses = st.one_of(
    st.builds(lambda host, port: InetAddress(INET, str(host), port), st.ip_addresses(v=4), ports),
    st.builds(
        lambda host, port: InetAddress(INET6, str(host), port),
        st.ip_addresses(v=6).filter(lambda ip: not ip.is_link_local and ip not in MAPPED),
        ports,
    ),
    st.builds(
        lambda tail, port, scope: InetAddress(INET6, f"fe80::{tail:x}", port, scope),
        st.integers(1, 0xFFFF),
        ports,
        st.sampled_from(["eth0", "3", "wg-a.b"]),
    ),
    st.builds(
        NameAddress, st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{1,9}){0,3}\.?", fullmatch=True), ports
    ),
    st.builds(
        lambda start, path: UnixAddress(start + path),
        st.sampled_from("/@"),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=26),
    ),
)


@given(addresses)
def test_text_and_back(address: InetAddress | NameAddress | UnixAddress) -> None:
    assert parse(str(address)) == address


@given(st.text() | st.from_regex(r"[\[\]:.%@/0-9a-fxunix]{0,30}", fullmatch=True))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    address = _parsed(text)
    if not isinstance(address, AddressError):
        assert parse(str(address)) == address


@given(st.from_regex(r"[\[\]:.*/@0-9a-f]{0,20}", fullmatch=True))
def test_following_suggestions_ends(text: str) -> None:
    """A suggestion may need another one, where two things are wrong; it does not go round in circles."""
    seen = {text}
    address = _parsed(text)
    while isinstance(address, AddressError) and address.suggestion:
        assert address.suggestion not in seen
        seen.add(address.suggestion)
        address = _parsed(address.suggestion)


def _parsed(text: str) -> object:
    """The address or the AddressError; any other exception is the test's failure."""
    try:
        return parse(text)
    except AddressError as error:
        return error


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("a" * 64 + ".example.com", "a part of a host name, between dots, has up to 63 characters; one has 64"),
        ("b\u00fccher.example.com", 'a host name is ASCII here: write it as the DNS has it, "xn--..." (punycode)'),
        (".".join(["a" * 60] * 5), "a host name has up to 253 characters; this one has 304"),
    ],
)
def test_what_keeps_a_name_from_being_one(host: str, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(f"{host}:80")
    assert str(caught.value) == reason
    with pytest.raises(AddressError) as caught:
        parse_service(f"srv:{host}")
    assert str(caught.value) == reason
