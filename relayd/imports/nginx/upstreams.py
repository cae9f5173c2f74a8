"""`upstream` of nginx's stream module as targets (ngx_stream_upstream_module). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from relayd.imports.draft import Notes, Place
from relayd.imports.nginx.syntax import Directive
from relayd.imports.text import host_and_port, number

NO_CHECKS = "no health checks in this version: a target that cannot be dialled is passed over"
NO_BALANCE = "targets take turns (round robin): relayd has no other way in this version"
_NO_BACKUP = "no backup targets in this version: left out, so that it gets no clients while others are up"
_NO_WEIGHTS = "no weights in this version: targets take turns alike"

_BALANCE = frozenset(("least_conn", "least_time", "hash", "ip_hash", "random"))
_REASONS = {
    "zone": "the workers of relayd take turns each by itself",
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


def targets(upstream: Directive, notes: Notes) -> tuple[Place, ...]:
    """Where the clients of `upstream` go to; what else it says is a leftover."""
    found: list[Server] = []
    balance: list[Directive] = []
    for directive in upstream.block or ():
        if directive.name == "server":
            server = _server(directive, notes)
            found += [server] if server else []
        elif directive.name in _BALANCE:
            balance.append(directive)
        else:
            notes.leave(directive.line, directive.text, _REASONS.get(directive.name, "relayd has nothing like it"))
    kept = _carried(found, notes)
    if len(kept) > 1:
        for directive in balance:
            notes.leave(directive.line, directive.text, NO_BALANCE)
    return tuple(Place(server.text, server.directive.line) for server in kept)


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
        if name == "weight" and number(value, 1, 1_000_000):
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
    """Those of `found` that are to be targets; the others are leftovers."""
    usable = [server for server in found if not server.down]
    only_backups = all(server.backup for server in usable)
    kept = [server for server in usable if only_backups or not server.backup]
    for server in found:
        if server.down:
            notes.leave(server.directive.line, server.directive.text, "out of service there: left out")
        elif server.backup and not only_backups:
            notes.leave(server.directive.line, server.directive.text, _NO_BACKUP)
    if len({server.weight for server in kept}) > 1:
        for server in kept:
            if server.weight != 1:
                notes.leave(server.directive.line, f"weight={server.weight}", _NO_WEIGHTS)
    return kept
