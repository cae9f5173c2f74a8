import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Family, InetAddress
from relayd.control.name_files import Hosts, ResolvConf, loopback


def inet(host: str) -> InetAddress:
    return InetAddress(Family.INET, host, 0)


def inet6(host: str, scope: str = "") -> InetAddress:
    return InetAddress(Family.INET6, host, 0, scope)


HOSTS = Hosts.of("""\
# comment
127.0.0.1   localhost  me
::1 localhost ip6-localhost # and nothing more
192.0.2.7\tWeb.Example.COM web
  192.0.2.8 web
2001:DB8::7 web
192.0.2.7 web
fe80::7%eth0 link
::ffff:192.0.2.9 mapped
256.0.0.1 wrong
nonsense

192.0.2.10
""")


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("localhost", [inet("127.0.0.1"), inet6("::1")]),
        ("web", [inet("192.0.2.7"), inet("192.0.2.8"), inet6("2001:db8::7")]),
        ("web.example.com", [inet("192.0.2.7")]),
        ("WEB.example.com.", [inet("192.0.2.7")]),
        ("link", [inet6("fe80::7", "eth0")]),
        ("mapped", [inet("192.0.2.9")]),
        ("wrong", []),
        ("and", []),
        ("example.com", []),
    ],
)
def test_hosts(name: str, addresses: list[InetAddress]) -> None:
    assert list(HOSTS.addresses(name)) == addresses


@pytest.mark.parametrize(
    ("name", "is_here"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("app.localhost", True),
        ("localhost.example.com", False),
        ("mylocalhost", False),
    ],
)
def test_localhost_needs_nobody(name: str, is_here: bool) -> None:
    # RFC 6761, section 6.3
    assert loopback(name) == ((inet6("::1"), inet("127.0.0.1")) if is_here else ())


@pytest.mark.parametrize(
    ("text", "conf"),
    [
        ("", ResolvConf(("127.0.0.1",), ("lan",))),
        ("search\nnameserver\noptions\n", ResolvConf(("127.0.0.1",), ("lan",))),
        ("nameserver 10.0.0.53\nnameserver fe80::1%eth0\n", ResolvConf(("10.0.0.53", "fe80::1%eth0"), ("lan",))),
        ("nameserver ns.example.com\nnameserver 10.0.0.53 # x\n", ResolvConf(("10.0.0.53",), ("lan",))),
        ("nameserver 10.0.0.1\n" * 4, ResolvConf(("10.0.0.1",) * 3, ("lan",))),
        ("search a.test. b.test\ndomain c.test\n", ResolvConf(search=("c.test",))),
        ("domain c.test\nsearch a.test b.test\n", ResolvConf(search=("a.test", "b.test"))),
        ("search .\n", ResolvConf()),
        ("options ndots:5 rotate\noptions edns0 timeout:1\n", ResolvConf(("127.0.0.1",), ("lan",), 5, True, True)),
        ("options ndots:99 ndots:x\n", ResolvConf(("127.0.0.1",), ("lan",), 15)),
        ("#nameserver 10.0.0.1\n; search x\n", ResolvConf(("127.0.0.1",), ("lan",))),
    ],
)
def test_resolv_conf(text: str, conf: ResolvConf) -> None:
    assert ResolvConf.of(text, "host.lan") == conf


def test_a_machine_without_a_domain_searches_none() -> None:
    assert ResolvConf.of("", "host") == ResolvConf()


@pytest.mark.parametrize(
    ("name", "ndots", "candidates"),
    [
        ("web", 1, ["web.a.test.", "web.b.test.", "web."]),
        ("web.prod", 1, ["web.prod.", "web.prod.a.test.", "web.prod.b.test."]),
        ("web.prod", 2, ["web.prod.a.test.", "web.prod.b.test.", "web.prod."]),
        ("web.", 1, ["web."]),
        ("web", 0, ["web.", "web.a.test.", "web.b.test."]),
    ],
)
def test_what_is_asked_for(name: str, ndots: int, candidates: list[str]) -> None:
    assert list(ResolvConf(search=("a.test", "b.test"), ndots=ndots).candidates(name)) == candidates


def test_no_name_gets_longer_than_the_dns_has_room_for() -> None:
    name = "x." * 125 + "x"
    assert list(ResolvConf(search=("a.test",)).candidates(name)) == [f"{name}."]


@given(st.text())
def test_nothing_in_a_file_is_an_error(text: str) -> None:
    Hosts.of(text)
    assert ResolvConf.of(text, text).nameservers
