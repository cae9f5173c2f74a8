"""Whatever another relay's file holds, an import ends with listeners that load or without any, and can be told."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayd.cli import importing
from relayd.config import load, machine
from relayd.imports import Dialect

VALID = {
    Dialect.RINETD: """\
allow 10.*
0.0.0.0 80 10.0.0.1 80 [src=10.0.0.9]
::1 domain/udp [2001:db8::1] domain/udp [timeout=72,src=::1]
deny 192.168.1.?
logfile /var/log/rinetd.log
""",
    Dialect.HAPROXY: """\
global
    nbthread 4
    hard-stop-after 5m
    unix-bind prefix /run/ mode 600 user root
defaults tcp
    mode tcp
    timeout client 1m
    timeout server 30000
    timeout client-fin 5s
    timeout connect 0
    clitcpka-idle 30
    default-server check inter 1s downinter 500 fastinter 1ms weight 5 maxconn 7 slowstart 30s
    option allbackups
    timeout check 3s
frontend e from tcp
    bind :82
    default_backend b
frontend a from tcp
    bind :80,[::]:81 v6only interface eth0 backlog 5
    bind unix@a.sock mode 660 group root
    bind abns@x transparent
    bind :10000-10010 defer-accept tfo ssl
    tcp-request connection reject if { src 10.0.0.1 }
    use_backend c if { req_ssl_sni -i "x y" }
    default_backend b
backend b
    balance source
    retries 5
    option httpchk GET /health HTTP/1.1\\r\\nHost:\\ example.com
    http-check connect port 8080
    http-check send meth HEAD uri /x ver HTTP/1.1 hdr Host a
    http-check expect status 200,300-399
    source 10.0.0.9:0 usesrc clientip
    server x 10.0.0.1:+5 source 10.0.0.2 rise 5 fall 1
    server v 10.0.0.4:9 port 9 addr 10.0.0.4 agent-check no-check check-ssl
    server-template t 3 _http._tcp.example.com resolvers dns
    server y [2001:db8::1]:-5 backup send-proxy
    server w 10.0.0.1 weight 9 id 7 no-backup
    server z /run/b.sock ssl verify none
listen c 127.0.0.1:5
    balance first
    no option allbackups
    option tcp-check
    tcp-check connect port 10000
    tcp-check send PING\\r\\n comment a
    tcp-check send-binary 0d0aff
    tcp-check expect rstring ^\\\\+PONG[[:space:]]
    tcp-check expect string "+OK"
    default-server check
.if x
    server e f:1
.endif
    server d 'e:1'
""",
    Dialect.NGINX: """\
worker_processes 4;
events { worker_connections 5; }
http { server { listen 80; } }
stream {
    proxy_timeout 1h 30m;
    upstream a { hash $remote_addr; zone a 64k; server b:1 weight=5 max_fails=3; server unix:/run/a backup; }
    upstream d { server e service=http resolve slow_start=5s max_fails=0 max_conns=4; }
    upstream c { random two least_conn; server b:1 weight=999; server b:2 down; server b:3 weight=2 backup; }
    server {
        listen 53 udp reuseport; listen 53 so_keepalive=30m::10 backlog=5; listen [::]:53 ipv6only=off;
        listen unix:/run/b.sock; listen 1000-1010; listen 443 ssl;
        proxy_pass a; proxy_responses 1; proxy_bind 10.0.0.9; allow 10.0.0.0/8; deny all;
    }
    server { listen 10.0.0.1:81; proxy_pass c; health_check interval=1s port=5 match=m udp; }
    match m { send "a\\x00"; expect ~ "^b"; }
    server { listen 10.0.0.1:82; listen 10.0.0.1:83 udp; proxy_pass d; }
    server { listen 10.0.0.1:80; proxy_pass "10.0.0.2:$server_port"; include 'x y'; proxy_next_upstream_tries 2; }
}
""",
}
WORDS = sorted({word for text in VALID.values() for word in text.split()})
INSERTED = st.sampled_from(
    ["", "\n", "{", "}", ";", '"', "'", "\\", "#", "$", "${", "[", "]", "-", ":", "0", "\x0b", "日", "\r\n"]
)


@pytest.fixture(autouse=True)
def _no_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test asks no name server; a name that a random file comes up with has no address."""

    def resolve(host: str, port: int, family: object) -> tuple[()]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(machine, "resolve", resolve)


def outcome(base: pytest.TempPathFactory, data: bytes, dialect: Dialect | None) -> str:
    """Imports `data`, and loads what comes of it."""
    path = base.getbasetemp() / "fuzz.conf"
    path.write_bytes(data)
    try:
        found = importing.import_file(str(path), dialect)
    except importing.NotImported:
        return ""
    assert all(complaint.isprintable() for complaint in found.complaints)
    assert found.toml or found.complaints
    if found.toml:
        result = base.getbasetemp() / "relay.toml"
        result.write_text(found.toml)
        assert load(Path(result)).spec.listeners
    assert importing.import_file(str(path), dialect) == found
    return found.toml


relaxed = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
dialects = st.sampled_from(list(Dialect))


@pytest.mark.parametrize("dialect", Dialect)
def test_the_files_that_are_changed_below(tmp_path_factory: pytest.TempPathFactory, dialect: Dialect) -> None:
    assert outcome(tmp_path_factory, VALID[dialect].encode(), dialect)


@given(st.binary(max_size=300), st.none() | dialects)
@relaxed
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes, dialect: Dialect | None) -> None:
    outcome(tmp_path_factory, data, dialect)


@given(dialects, st.data())
@relaxed
def test_a_file_with_some_of_it_changed(
    tmp_path_factory: pytest.TempPathFactory, dialect: Dialect, data: st.DataObject
) -> None:
    text = VALID[dialect]
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(INSERTED | st.sampled_from(WORDS) | st.text(max_size=4)) + text[end:]
    outcome(tmp_path_factory, text.encode(errors="surrogatepass"), dialect)


@given(dialects, st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6), max_size=12))
@relaxed
def test_lines_of_known_words(
    tmp_path_factory: pytest.TempPathFactory, dialect: Dialect, lines: list[list[str]]
) -> None:
    text = "".join(" ".join(words) + "\n" for words in lines)
    outcome(tmp_path_factory, text.encode(), dialect)
