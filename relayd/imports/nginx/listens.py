"""`listen` of nginx's stream servers as what a listener binds (ngx_stream_core_module). Pure."""

import re
from functools import partial

from relayd.imports.binds import DGRAM, STREAM, BindLine
from relayd.imports.draft import Notes, Place, Setting, Value
from relayd.imports.nginx.syntax import Directive
from relayd.imports.nginx.times import seconds_text
from relayd.imports.text import host_and_port, number

_NO_TLS = "relayd does not end TLS: this address is not carried over. Let the targets do it, and listen without ssl"
_NO_HEADER = (
    "relayd does not read a PROXY header: it is relayed as it comes, which is right only where the target takes one"
)
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?\Z")
#: relayd does so by itself, or it says nothing here.
_SILENT = frozenset(("udp", "bind", "reuseport", "default_server", "default", "ipv6only=on"))
_INET_KEYS = ("backlog", "fast_open", "defer_accept", "keepalive")


def listen(directive: Directive, notes: Notes) -> BindLine | None:
    """The address, and its type; None, and a leftover, where it cannot be carried over."""
    leave = partial(notes.leave, directive.line, directive.text)
    if not directive.args:
        leave("not understood: the address is missing")
        return None
    words = directive.args[1:]
    if "ssl" in words or "quic" in words:
        leave(_NO_TLS)
        return None
    text = _address(directive.args[0])
    if text is None:
        leave("not understood: an address is PORT, HOST:PORT or unix:/path, and a port may be FIRST-LAST")
        return None
    options = {key: setting for word in words for key, setting in _option(word, directive, notes).items()}
    type_ = DGRAM if "udp" in words else STREAM
    own: dict[str, Setting | None] = {}
    if type_ == STREAM:
        own = {key: options.get(key) for key in (_INET_KEYS if not text.startswith("unix:") else ("backlog",))}
    if text.startswith("["):  # nginx has it on by default, relayd off
        own["ipv6_only"] = None if "ipv6only=off" in words else Setting(True, directive.line)
    return BindLine(Place(text, directive.line), type_, own)


def _address(text: str) -> str | None:
    if text.startswith("unix:"):
        return text
    host, colon, ports = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, ports = "", text
    if not _PORTS.match(ports) or "$" in text:
        return None
    if host and ":" in host and not host.startswith("["):
        return None
    return host_and_port("0.0.0.0" if host in ("", "*") else host, ports)


def _option(word: str, directive: Directive, notes: Notes) -> dict[str, Setting]:
    """The key, and its value, of one word of a `listen`."""
    name, equals, value = word.partition("=")
    made: dict[str, Value | None] = {
        "backlog": number(value, 1, 65_535),
        "fastopen": True if number(value, 1, 1_000_000) else None,
        "so_keepalive": _keepalive(value),
    }
    keys = {"backlog": "backlog", "fastopen": "fast_open", "so_keepalive": "keepalive"}
    if word == "deferred":
        return {"defer_accept": Setting("1s", directive.line)}
    if word in _SILENT or word in ("ipv6only=off", "so_keepalive=on"):
        return {}
    if equals and name in keys:
        found = made[name]
        if found is not None:
            return {keys[name]: Setting(found, directive.line)}
        notes.leave(directive.line, word, "not understood, or out of the range that relayd takes")
    elif word == "proxy_protocol":
        notes.leave(directive.line, word, _NO_HEADER)
    elif name in ("rcvbuf", "sndbuf"):
        notes.leave(directive.line, word, "relayd leaves buffers of sockets to the kernel: net.ipv4.tcp_rmem, tcp_wmem")
    else:
        notes.leave(directive.line, word, "relayd has no such option of a bind")
    return {}


def _keepalive(text: str) -> Value | None:
    """`on`, `off` or `IDLE:INTERVAL:PROBES`, each of which may be missing."""
    if text == "off":
        return False
    parts = text.split(":")
    if len(parts) != 3:
        return None
    table: dict[str, str | int] = {}
    for key, part in zip(("idle", "interval"), parts[:2], strict=True):
        if part:
            table[key] = seconds_text(part) or ""
    if parts[2]:
        table["probes"] = number(parts[2], 1, 127) or ""
    return table if table and "" not in table.values() else None
