"""`server` lines of HAProxy as targets (section 5.2 of its configuration manual). Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial

from relayd.address import SERVICE
from relayd.imports.draft import Notes, Setting
from relayd.imports.haproxy.syntax import Line
from relayd.imports.text import host_and_port, joined, number
from relayd.values import dataclass

_NO_TLS = "relayd does not speak TLS to a target, and would send plain text: left out"
_NO_HEADER = "relayd sends no PROXY header in this version: carried over without it; let the target expect none"
_DOWN = "out of service there: left out"
_NO_QUEUE = "carried over as max_connections, but where all targets are full a client is refused; HAProxy lets it wait"
_WEIGHT_OF_RECORDS = "each SRV record has a weight of its own"
#: What relayd takes as max_connections.
_CONNECTIONS_MAX = 1024 * 1024

#: Options of a server about health, and the number of words behind each: what they mean is said in `checks`.
_HEALTH = {
    **dict.fromkeys(("check", "agent-check", "check-ssl", "check-send-proxy", "check-via-socks4"), 0),
    **dict.fromkeys(("inter", "fastinter", "downinter", "rise", "fall", "port", "addr", "observe", "on-error"), 1),
    **dict.fromkeys(("on-marked-down", "on-marked-up", "error-limit", "check-sni", "check-alpn", "check-proto"), 1),
    **dict.fromkeys(("agent-addr", "agent-inter", "agent-port", "agent-send", "slowstart", "track"), 1),
}
#: Options that have no place here, with the number of words behind them and the reason.
_UNUSED = {
    "minconn": (1, "relayd has one limit of a target, whatever the load: max_connections"),
    "maxqueue": (1, "nobody waits for a target here"),
    "pool-max-conn": (1, "is about HTTP"),
    "resolvers": (1, "relayd asks the name servers of /etc/resolv.conf"),
    **dict.fromkeys(
        ("resolve-opts", "resolve-prefer", "resolve-net"),
        (1, 'every address of a name is a target here; resolve = { family = "inet" } takes those of one family'),
    ),
    **dict.fromkeys(("interface", "namespace", "socks4", "tcp-md5sig"), (1, "relayd has no such option of a target")),
    **dict.fromkeys(("tcp-ut",), (1, "relayd has it for a whole listener, and both sides: tcp_user_timeout")),
    **dict.fromkeys(("tfo",), (0, "fast open is for the listening side only, here")),
    **dict.fromkeys(("cookie", "redir", "proto", "alpn"), (1, "is about HTTP or TLS")),
    **dict.fromkeys(("hash-key",), (1, "relayd's source_hash goes by the address of a target")),
}
_SILENT = {**dict.fromkeys(("init-addr", "pool-low-conn", "pool-purge-delay", "guid"), 1), "stick": 0}
_PROXY_HEADERS = {
    **dict.fromkeys(("send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2-ssl-cn"), 0),
    "proxy-v2-options": 1,
}
_SWITCHES = frozenset(("backup", "no-backup", "disabled", "no-disabled", "enabled", "ssl", "no-ssl"))
_TLS = frozenset(("verify", "ca-file", "crt", "sni", "verifyhost", "ciphers", "ciphersuites"))
#: An option that is not known ends before any of these.
_KNOWN = frozenset(
    ("weight", "id", "source", "maxconn", *_HEALTH, *_UNUSED, *_SILENT, *_PROXY_HEADERS, *_SWITCHES, *_TLS)
)
_ADDRESS = re.compile(r"(?:(unix|uxst|abns|abnsz|ipv4|ipv6|tcp|tcp4|tcp6|mptcp|mptcp4|mptcp6)@)?(.*)\Z", re.DOTALL)
_SERVICE = re.compile(r"_[A-Za-z0-9-]+\._(tcp|udp)\.", re.IGNORECASE)
_PORT = re.compile(r"(\+|-|)([0-9]{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Server:
    """One `server`. `port` is "" for that of the bind, "+N" or "-N" for one that far from it, or a number; None for a
    Unix socket, where `host` is `unix:…`, and for a service, where it is `srv:…`. `source` is the address to dial from,
    `id` 0 where it has none. `health` has what it says of checks, each word with its value and its line.
    """

    line: Line
    host: str
    port: str | None
    weight: int = 1
    backup: bool = False
    down: bool = False
    tls: bool = False
    source: str = ""
    id: int = 0
    max_connections: int = 0
    health: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def is_service(self) -> bool:
        """True where its SRV records say what is dialled."""
        return self.host.startswith(SERVICE)

    def text(self, bind_ports: Sequence[str]) -> str:
        """As a target has it. `bind_ports` are the ports, and ranges, that it is reached by. ValueError when there is
        no way to write it.
        """
        if self.port is None:
            return self.host
        if not self.port.startswith("-"):
            return host_and_port(self.host, self.port)
        ports = set(bind_ports)
        if len(ports) != 1:
            which = "which has several: make a listener for each" if ports else "which has none"
            raise ValueError(f"a port {self.port[1:]} below that of the bind, {which}")
        first, _, last = ports.pop().partition("-")
        moved = [int(port) - int(self.port[1:]) for port in (first, last) if port.isdecimal()]
        if not moved or min(moved) < 1:
            raise ValueError("a port below 1")
        return host_and_port(self.host, "-".join(map(str, moved)))


@dataclass(slots=True)
class _Options:
    """What stands behind the address of a server, or in a `default-server`."""

    weight: int = 1
    backup: bool = False
    down: bool = False
    tls: bool = False
    source: str = ""
    id: int = 0
    max_connections: int = 0
    health: dict[str, tuple[str, int]] = field(default_factory=dict)


def servers(lines: Sequence[Line], notes: Notes) -> list[Server]:
    """Every `server` and `server-template` of `lines` whose address has a like here, in order."""
    default = _Options()
    found: list[Server] = []
    for line in lines:
        if line.words[0] == "default-server":
            default = _options(line, line.words[1:], default, notes)
        elif len(line.words) < 3 + (line.words[0] == "server-template"):
            notes.leave(line.number, line.text, "not understood: server NAME ADDRESS")
        else:
            found += _server(line, default, notes)
    return found


def carried(found: Sequence[Server], notes: Notes, *, all_backups: bool) -> list[Server]:
    """Those of `found` that are to be targets; the others are leftovers.

    Where all are backups, those that get clients are none: the first, or with `all_backups` all of them.
    """
    usable: list[Server] = []
    for server in found:
        if server.tls:
            notes.leave(server.line.number, server.line.text, _NO_TLS)
        elif server.down or server.weight == 0:
            notes.leave(server.line.number, server.line.text, _DOWN)
        else:
            usable.append(server)
    if all(server.backup for server in usable):
        return [replace(server, backup=index > 0 and not all_backups) for index, server in enumerate(usable)]
    return usable


def source_of(kept: Sequence[Server], notes: Notes) -> Setting | None:
    """The `source` of all of `kept`; None, and leftovers, where they differ."""
    given = {server.source for server in kept}
    if len(given) == 1:
        source = given.pop()
        return Setting(source, kept[0].line.number) if source else None
    for server in kept:
        if server.source:
            notes.leave(
                server.line.number, f"source {server.source}", "relayd has one source for all targets of a listener"
            )
    return None


def source(words: Sequence[str], leave: Callable[[str], None]) -> str:
    """The address in `source ADDRESS[:PORT] [usesrc …] [interface …]`, "" where it says nothing."""
    address = words[0] if words else ""
    host, colon, port = address.rpartition(":")
    if address.count(":") > 1 and not address.startswith("["):  # IPv6 without brackets; a port cannot be told from it
        host, port = address, ""
    host = (host if colon and (port.isdecimal() or not port) else address).strip("[]")
    if len(words) > 1:
        leave(f"{joined(words[1:])}: relayd dials from a fixed address of its own")
    if port.isdecimal() and port != "0" and colon:
        leave("the port is left out: relayd dials from any")
    return "" if host in ("", "*", "0.0.0.0", "::") else host


def _server(line: Line, default: _Options, notes: Notes) -> list[Server]:
    template = line.words[0] == "server-template"
    leave = partial(notes.leave, line.number, line.text)
    address, rest = line.words[2 + template], line.words[3 + template :]
    options = _options(line, rest, replace(default, id=0, health=dict(default.health)), notes)
    place = _address(address, leave)
    if place is None:
        return []
    host, port = place
    if host.startswith(SERVICE) and options.weight > 1:
        notes.leave(line.number, f"weight {options.weight}", _WEIGHT_OF_RECORDS)
        options.weight = 1
    return [
        Server(
            line,
            host,
            port,
            weight=options.weight,
            backup=options.backup,
            down=options.down,
            tls=options.tls,
            source=options.source,
            id=options.id,
            max_connections=options.max_connections,
            health=options.health,
        )
    ]


def _address(text: str, leave: Callable[[str], None]) -> tuple[str, str | None] | None:
    """Host and port; None, and a leftover, where it has no like here."""
    found = _ADDRESS.match(text)
    family, bare = (found[1] or "", found[2]) if found else ("", text)
    if "$" in text or "%[" in text:
        leave("the address is not known here: write it out")
        return None
    if family in ("unix", "uxst") or bare.startswith("/"):
        if not bare.startswith("/"):
            leave("the path of a Unix socket is absolute in relayd")
        return (f"unix:{bare}", None) if bare.startswith("/") else None
    if family in ("abns", "abnsz"):
        if family == "abns":
            leave("carried over as a plain abstract name: HAProxy pads the names of abns@ with NUL bytes")
        return f"unix:@{bare}", None
    if _SERVICE.match(bare):
        return f"{SERVICE}{bare.partition(':')[0]}", None
    if re.match(r"[a-z0-9]+@", bare):
        leave("relayd has nothing like it")
        return None
    host, port = _host_and_port(bare)
    if host in ("", "*", "0.0.0.0", "::"):
        leave("the address that the client asked for: relayd has no such target; write one")
        return None
    if port and not _PORT.match(port):
        leave("not understood: an address is HOST:PORT")
        return None
    return host, "" if port in ("+0", "-0", "0") else port


def _host_and_port(bare: str) -> tuple[str, str]:
    if bare.startswith("["):
        host, _, port = bare[1:].partition("]")
        return host, port.removeprefix(":")
    host, colon, port = bare.rpartition(":")
    return (host, port) if colon else (bare, "")


def _options(line: Line, words: Sequence[str], options: _Options, notes: Notes) -> _Options:
    """`options` with what `words` add; what has no place is a leftover."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        count = (
            {"weight": 1, "source": 1, "id": 1, "maxconn": 1}.get(word) or _HEALTH.get(word) or _SILENT.get(word) or 0
        )
        count = count or _PROXY_HEADERS.get(word, 0) or _UNUSED.get(word, (0, ""))[0]
        values, rest = rest[:count], rest[count:]
        text = joined([word, *values])
        if word == "weight" and number(text[7:], 0, 256) is not None:
            options.weight = int(text[7:])
        elif word == "id":
            options.id = number(text[3:], 1, 999_999_999) or 0
        elif word in ("backup", "no-backup"):
            options.backup = word == "backup"
        elif word in ("disabled", "no-disabled", "enabled"):
            options.down = word == "disabled"
        elif word in ("ssl", "no-ssl"):
            options.tls = word == "ssl"
        elif word in _TLS:
            rest = rest[1:]
        elif word == "source":
            extra, rest = _source_words(rest)
            options.source = source([*values, *extra], partial(notes.leave, line.number, text))
        elif word == "maxconn" and (most := number(text[8:], 0, _CONNECTIONS_MAX)) is not None:
            options.max_connections = most
            if most:
                notes.leave_once(line.number, text, _NO_QUEUE)
        elif word in _HEALTH:
            options.health[word] = (joined(values), line.number)
        elif word.startswith("no-") and word[3:] in _HEALTH:
            options.health.pop(word[3:], None)
        elif word in _PROXY_HEADERS:
            if word != "proxy-v2-options":
                notes.leave_once(line.number, word, _NO_HEADER)
        elif word in _UNUSED:
            notes.leave_once(line.number, text, _UNUSED[word][1])
        elif word not in _SILENT:
            end = next((index for index, one in enumerate(rest) if one in _KNOWN), len(rest))
            notes.leave(line.number, joined([word, *values, *rest[:end]]), "relayd has no such option of a target")
            rest = rest[end:]
    return options


def _source_words(rest: list[str]) -> tuple[list[str], list[str]]:
    """What belongs to a `source`: `usesrc WHAT`, `interface NAME`."""
    taken: list[str] = []
    while len(rest) > 1 and rest[0] in ("usesrc", "interface"):
        taken, rest = [*taken, *rest[:2]], rest[2:]
    return taken, rest
