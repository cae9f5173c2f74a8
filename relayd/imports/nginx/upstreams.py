"""`upstream` of nginx's stream module as targets, and the choice among them (ngx_stream_upstream_module). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from relayd.imports.draft import Notes, Place, Setting
from relayd.imports.nginx.syntax import Directive
from relayd.imports.shares import is_name, several, source_hash, weights
from relayd.imports.text import host_and_port, number
from relayd.spec import WEIGHT_MAX

NO_CHECKS = "no health checks in this version: a target that cannot be dialled is passed over"
_NO_TIMES = "relayd measures no answers: targets take turns"
_OTHER_HASH = "relayd's source_hash is of the client's address alone: targets take turns"
_LAST_COUNTS = "a later line of this upstream says otherwise, and counts"

_BALANCE = frozenset(("least_conn", "least_time", "hash", "ip_hash", "random"))
_CLIENT = frozenset(("$remote_addr", "${remote_addr}", "$binary_remote_addr", "${binary_remote_addr}"))
_REASONS = {
    "zone": "each worker of relayd chooses by itself",
    "resolver": "the system's resolver is asked",
    "resolver_timeout": "the system's resolver is asked",
    "keepalive": "is about HTTP",
    "include": "is not followed: put its lines in its place, and import again",
}
#: Of a server: names are looked up again by themselves.
_SILENT = frozenset(("resolve",))


@dataclass(frozen=True, slots=True)
class Server:
    """One `server` of an upstream."""

    directive: Directive
    text: str
    weight: int = 1
    backup: bool = False
    down: bool = False


@dataclass(frozen=True, slots=True)
class Goals:
    """Where the clients of a server go to, how they are spread, and what is to be said of that."""

    targets: tuple[Place, ...]
    balance: Setting | None = None
    comment: str = ""


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
    return Goals(
        targets=tuple(Place(one.text, one.directive.line, weight, one.backup) for one, weight in shares),
        balance=_balance(methods[-1], notes) if matters else None,
        comment=_about(kept),
    )


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
    text = address(directive.args[0]) if directive.args else None
    if text is None:
        notes.leave(directive.line, directive.text, "not understood: an address is HOST:PORT or unix:/path")
        return None
    weight, backup, down = 1, False, False
    checks: list[str] = []
    for word in directive.args[1:]:
        name, _, value = word.partition("=")
        if name == "weight" and number(value, 1, 999_999_999):
            weight = int(value)
        elif word in ("backup", "down"):
            backup, down = backup or word == "backup", down or word == "down"
        elif name in ("max_fails", "fail_timeout", "slow_start"):
            checks.append(word)
        elif name == "max_conns":
            notes.leave(directive.line, word, "relayd has no limit of a target")
        elif word not in _SILENT:
            notes.leave(directive.line, word, "relayd has no such option of a target")
    if checks:
        notes.leave(directive.line, " ".join(checks), NO_CHECKS)
    return Server(directive, text, weight, backup, down)


def _carried(found: Sequence[Server], notes: Notes) -> list[Server]:
    """Those of `found` that are to be targets; the others are leftovers. Where all are backups, none is one."""
    for server in found:
        if server.down:
            notes.leave(server.directive.line, server.directive.text, "out of service there: left out")
    usable = [server for server in found if not server.down]
    if all(server.backup for server in usable):
        return [replace(server, backup=False) for server in usable]
    return usable
