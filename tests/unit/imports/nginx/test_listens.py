"""`listen` of nginx."""

import pytest

from relayd.imports.draft import Notes
from relayd.imports.nginx.listens import listen
from relayd.imports.nginx.syntax import Directive


def read(text: str) -> tuple[tuple[str, str, dict[str, object]] | None, list[str]]:
    """Address, type and the options that are set, and texts of leftovers."""
    notes = Notes()
    found = listen(Directive("listen", tuple(text.split()), 3, None), notes)
    left = [one.text for one in notes.leftovers]
    if found is None:
        return None, left
    own: dict[str, object] = {key: one.value for key, one in found.options.items() if one is not None}
    return (found.place.text, found.type, own), left


@pytest.mark.parametrize(
    ("text", "address", "type_", "options"),
    [
        ("80", "0.0.0.0:80", "stream", {}),
        ("*:80", "0.0.0.0:80", "stream", {}),
        ("127.0.0.1:80", "127.0.0.1:80", "stream", {}),
        ("localhost:80", "localhost:80", "stream", {}),
        ("1000-1010", "0.0.0.0:1000-1010", "stream", {}),
        ("10.0.0.1:1000-1010 udp", "10.0.0.1:1000-1010", "dgram", {}),
        ("[::]:80", "[::]:80", "stream", {"ipv6_only": True}),
        ("[::]:80 ipv6only=on", "[::]:80", "stream", {"ipv6_only": True}),
        ("[::]:80 ipv6only=off", "[::]:80", "stream", {}),
        ("[::1]:53 udp", "[::1]:53", "dgram", {"ipv6_only": True}),
        ("unix:/run/a.sock", "unix:/run/a.sock", "stream", {}),
        ("80 reuseport bind default_server", "0.0.0.0:80", "stream", {}),
        (
            "80 backlog=5 fastopen=3 deferred",
            "0.0.0.0:80",
            "stream",
            {"backlog": 5, "fast_open": True, "defer_accept": "1s"},
        ),
        ("80 so_keepalive=on", "0.0.0.0:80", "stream", {}),
        ("80 so_keepalive=off", "0.0.0.0:80", "stream", {"keepalive": False}),
        ("80 so_keepalive=30m::10", "0.0.0.0:80", "stream", {"keepalive": {"idle": "30m", "probes": 10}}),
        ("80 so_keepalive=:5:", "0.0.0.0:80", "stream", {"keepalive": {"interval": "5s"}}),
    ],
)
def test_listen(text: str, address: str, type_: str, options: dict[str, object]) -> None:
    assert read(text) == ((address, type_, options), [])


@pytest.mark.parametrize(
    "text",
    ["", "80 ssl", "443 quic", "$port", "a.example.com", "[::]", "2001:db8::1:80", "http", "127.0.0.1:", "1-2-3"],
)
def test_what_cannot_be_carried(text: str) -> None:
    found, left = read(text)
    assert found is None
    assert left == [f"listen {text}".strip()]


@pytest.mark.parametrize(
    "option",
    [
        *("proxy_protocol", "rcvbuf=1m", "setfib=5", "backlog=0", "backlog=-1", "fastopen=x", "so_keepalive=x"),
        *("so_keepalive=::", "so_keepalive=1ms::", "so_keepalive=::500", "multipath", "nosuch"),
    ],
)
def test_options_that_are_told(option: str) -> None:
    found, left = read(f"80 {option}")
    assert found == ("0.0.0.0:80", "stream", {})
    assert left == [option]
