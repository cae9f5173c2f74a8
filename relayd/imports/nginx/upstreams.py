"""`upstream` of nginx's stream module as targets, and the choice among them (ngx_stream_upstream_module). Pure."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import field, replace

from relayd.address import SERVICE
from relayd.config.units import format_duration
from relayd.imports.draft import Home, Notes, Place, Setting
from relayd.imports.nginx.syntax import Directive
from relayd.imports.nginx.times import milliseconds
from relayd.imports.shares import is_name, several, source_hash, weights
from relayd.imports.text import host_and_port, number
from relayd.spec import WEIGHT_MAX
from relayd.values import dataclass

_PASSIVE = "relayd passes over a target at which clients fail by a measure of its own: max_ejected bounds that"
_NOT_ALL = 'relayd has one max_ejected for all targets: where all have max_fails=0, it is "0%"'
_EACH_WORKER = "carried over as max_connections of all workers together; without zone, each worker of nginx has as many"
_ONE_SLOW_START = "relayd has one slow_start for all targets: {}"
_WEIGHT_OF_RECORDS = "each SRV record has a weight of its own"
#: What relayd takes as max_connections.
_CONNECTIONS_MAX = 1024 * 1024
NAME_SERVERS = "relayd asks the name servers of /etc/resolv.conf"
_NO_TIMES = "relayd measures no answers: targets take turns"
_OTHER_HASH = "relayd's source_hash is of the client's address alone: targets take turns"
_LAST_COUNTS = "a later line of this upstream says otherwise, and counts"

_BALANCE = frozenset(("least_conn", "least_time", "hash", "ip_hash", "random"))
_CLIENT = frozenset(("$remote_addr", "${remote_addr}", "$binary_remote_addr", "${binary_remote_addr}"))
_REASONS = {
    "zone": "each worker of relayd chooses by itself",
    "resolver": NAME_SERVERS,
    "resolver_timeout": NAME_SERVERS,
    "keepalive": "is about HTTP",
    "include": "is not followed: put its lines in its place, and import again",
}
#: Of a server: names are looked up again by themselves.
_SILENT = frozenset(("resolve",))


@dataclass(frozen=True, slots=True)
class Server:
    """One `server` of an upstream. `options` are its words with a value that others have to agree with, by name."""

    directive: Directive
    text: str
    weight: int = 1
    backup: bool = False
    down: bool = False
    max_connections: int = 0
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goals:
    """Where the clients of a server go to, the keys about that, and what is to be said of it. `home` is the upstream,
    None where there is none.
    """

    targets: tuple[Place, ...]
    settings: dict[str, Setting] = field(default_factory=dict)
    comment: str = ""
    home: Home | None = None


def goals(upstream: Directive, notes: Notes) -> Goals:
    """Those of `upstream`; what else it says is a leftover."""
    found: list[Server] = []
    methods: list[Directive] = []
    for directive in upstream.block or ():
        if directive.name == "server":
            server = _server(directive, notes)
            found += [server] if server else []
        elif directive.name in _BALANCE:
            methods.append(directive)
        else:
            notes.leave(directive.line, directive.text, _REASONS.get(directive.name, "relayd has nothing like it"))
    kept = _carried(found, notes)
    for directive in methods[:-1]:
        notes.leave(directive.line, directive.text, _LAST_COUNTS)
    matters = methods and (several(kept) or any(is_name(server.text) for server in kept))
    shares = zip(kept, weights(kept), strict=True)
    if not any(one.name == "zone" for one in upstream.block or ()):
        for server in kept:
            if server.max_connections:
                notes.leave(server.directive.line, f"max_conns={server.max_connections}", _EACH_WORKER)
    keys = {
        "balance": _balance(methods[-1], notes) if matters else None,
        "max_ejected": _max_ejected(kept, notes),
        "slow_start": _slow_start(kept, notes),
    }
    return Goals(
        targets=tuple(
            Place(one.text, one.directive.line, weight, one.backup, one.max_connections) for one, weight in shares
        ),
        settings={key: setting for key, setting in keys.items() if setting},
        comment=_about(kept),
        home=Home(" ".join(upstream.args), upstream.line, upstream.text.removesuffix(" { … }")),
    )


def _max_ejected(kept: Sequence[Server], notes: Notes) -> Setting | None:
    """None of the targets, where none is passed over there. nginx never passes over the only one."""
    if _only_one(kept):
        return None
    if all(server.options.get("max_fails") == "0" for server in kept):
        return Setting("0%", kept[0].directive.line, "max_fails=0: none is passed over")
    for server in kept:
        words = [f"{name}={server.options[name]}" for name in ("max_fails", "fail_timeout") if name in server.options]
        if words:
            reason = _NOT_ALL if server.options.get("max_fails") == "0" else _PASSIVE
            notes.leave(server.directive.line, " ".join(words), reason)
    return None


def _only_one(kept: Sequence[Server]) -> bool:
    return len(kept) < 2 and not any(is_name(server.text) for server in kept)


def _slow_start(kept: Sequence[Server], notes: Notes) -> Setting | None:
    """That of the most servers."""
    if _only_one(kept):
        return None
    found = [milliseconds(server.options.get("slow_start", "")) or 0 for server in kept]
    most = Counter(found).most_common(1)[0][0]
    text = format_duration(most) if most else "none"
    for server, ms in zip(kept, found, strict=True):
        if ms != most:
            given = (
                f"slow_start={server.options['slow_start']}" if ms else f"{server.directive.text}, without slow_start"
            )
            notes.leave(server.directive.line, given, _ONE_SLOW_START.format(text))
    at = next((server.directive.line for server, ms in zip(kept, found, strict=True) if ms == most), 0)
    return Setting(text, at) if most else None


def _balance(method: Directive, notes: Notes) -> Setting | None:
    """The key of that name; None, and a leftover, where there is none like it."""
    if method.name == "least_conn":
        return Setting("least_connections", method.line)
    if method.name == "random":
        by_connections = method.args in (("two",), ("two", "least_conn"))
        taken = "the faster" if method.args[:1] == ("two",) else "one at random"
        return Setting("random", method.line, "" if by_connections else f"the less busy of two; {taken} in nginx")
    if method.name == "ip_hash" or (method.name == "hash" and method.args and method.args[0] in _CLIENT):
        return source_hash(method.line, "nginx's")
    notes.leave(method.line, method.text, _NO_TIMES if method.name == "least_time" else _OTHER_HASH)
    return None


def _about(kept: Sequence[Server]) -> str:
    """What is to be said beside targets whose weights are too large."""
    divided = [one.weight for one, weight in zip(kept, weights(kept), strict=True) if weight not in (1, one.weight)]
    return f"weights of up to {max(divided)} divided: relayd has up to {WEIGHT_MAX}" if divided else ""


def address(text: str) -> str | None:
    """A place to dial as relayd has it; None when there is none like it. `$server_port` is the port of the bind."""
    if text.startswith("unix:"):
        return text.removesuffix(":")
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return None
    if port == "$server_port" and "$" not in host:
        return host_and_port(host, "")
    return None if "$" in text or number(port, 1, 65_535) is None or not host else host_and_port(host, port)


def _server(directive: Directive, notes: Notes) -> Server | None:
    text = (_service(directive) or address(directive.args[0])) if directive.args else None
    if text is None:
        notes.leave(directive.line, directive.text, "not understood: an address is HOST:PORT or unix:/path")
        return None
    found = Server(directive, text)
    for word in directive.args[1:]:
        name, _, value = word.partition("=")
        if name == "weight" and text.startswith(SERVICE):
            notes.leave(directive.line, word, _WEIGHT_OF_RECORDS)
        elif name == "weight" and number(value, 1, 999_999_999):
            found = replace(found, weight=int(value))
        elif name == "max_conns" and (most := number(value, 0, _CONNECTIONS_MAX)) is not None:
            found = replace(found, max_connections=most)
        elif word in ("backup", "down"):
            found = replace(found, backup=found.backup or word == "backup", down=found.down or word == "down")
        elif _understood(name, value):
            found.options[name] = value
        elif word not in _SILENT and not (name == "service" and text.startswith(SERVICE)):
            notes.leave(directive.line, word, "relayd has no such option of a target")
    return found


def _understood(name: str, value: str) -> bool:
    """True for what all servers of an upstream have to agree on here."""
    if name == "max_fails":
        return number(value, 0, 1_000_000) is not None
    return name in ("fail_timeout", "slow_start") and milliseconds(value) is not None


def _service(directive: Directive) -> str | None:
    """`srv:NAME`, where SRV records are asked for: a name without a dot is short for one of TCP. None: they are not."""
    names = [word.partition("=")[2] for word in directive.args[1:] if word.startswith("service=")]
    host = directive.args[0]
    if not names or "resolve" not in directive.args or not re.match(r"[A-Za-z0-9_.-]+\Z", host):
        return None
    name = names[-1].strip(".")
    return f"{SERVICE}{name if '.' in name else f'_{name}._tcp'}.{host}" if name else None


def _carried(found: Sequence[Server], notes: Notes) -> list[Server]:
    """Those of `found` that are to be targets; the others are leftovers. Where all are backups, none is one."""
    for server in found:
        if server.down:
            notes.leave(server.directive.line, server.directive.text, "out of service there: left out")
    usable = [server for server in found if not server.down]
    if all(server.backup for server in usable):
        return [replace(server, backup=False) for server in usable]
    return usable
