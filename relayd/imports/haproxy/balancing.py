"""`balance` of HAProxy (section 4 of its configuration manual), and the shares of servers. Pure."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from relayd.imports.draft import Notes, Setting
from relayd.imports.haproxy.servers import Server
from relayd.imports.haproxy.syntax import Line
from relayd.imports.shares import is_name, several, source_hash, weights

_ROUND_ROBIN = frozenset(("roundrobin", "static-rr"))
_RANDOM = re.compile(r"random(\(([0-9]+)\))?\Z")
#: What `balance random` draws where it does not say how many, as relayd does.
_DRAWS = 2

_HTTP = "is about HTTP: targets take turns, as they do under HAProxy in mode tcp"
_NO_READING = "relayd reads nothing of what it relays: targets take turns"
_REASONS = {
    **dict.fromkeys(("uri", "url_param", "hdr"), _HTTP),
    "rdp-cookie": _NO_READING,
    "hash": f'{_NO_READING}. For a hash of the client\'s address: balance = "source_hash"',
}
_NO_WEIGHTS = "balance first goes by the order alone, there as here"
_SERVICE = (
    "of the records of a service relayd uses those of the lowest priority, and the others as backups; "
    "HAProxy uses all, but no more than the line says"
)
_ONE_BACKUP = "HAProxy uses one backup, the first that is up, unless it has option allbackups; relayd uses all of them"


def is_first(line: Line | None) -> bool:
    """True for `balance first`."""
    return line is not None and line.words[1:2] == ("first",)


def balance(line: Line | None, kept: Sequence[Server], notes: Notes) -> Setting | None:
    """The key of that name, of the line that counts; None for round robin, and where `kept` is nothing to choose
    among.
    """
    if line is None:
        return None
    word = line.words[1] if len(line.words) > 1 else "roundrobin"
    drawn = _RANDOM.match(word)
    if word in _ROUND_ROBIN:
        notes.cover(line.number, line.text)
    elif not several(kept) and not any(is_name(server.host) for server in kept):
        return None
    elif word == "leastconn":
        return Setting("least_connections", line.number)
    elif word == "source":
        return source_hash(line.number, "HAProxy's")
    elif word == "first":
        limited = any(server.max_connections for server in kept)
        return Setting("first", line.number, "each worker fills its part of max_connections" if limited else "")
    elif drawn:
        other = drawn[2] and int(drawn[2][:9]) != _DRAWS
        return Setting("random", line.number, f"the less busy of two, of {drawn[2]} in HAProxy" if other else "")
    else:
        reason = _REASONS.get(word.partition("(")[0], "relayd has nothing like it: targets take turns")
        notes.leave_once(line.number, line.text, reason)
    return None


def ordered(found: Sequence[Server]) -> list[Server]:
    """`found` as `balance first` goes through them: by `id`. Who has none has the next that is free."""
    taken = {server.id for server in found}
    free = (number for number in itertools.count(1) if number not in taken)
    ids = [server.id or next(free) for server in found]
    return [server for _, server in sorted(zip(ids, found, strict=True), key=lambda pair: pair[0])]


def shared(kept: Sequence[Server], notes: Notes, *, weighted: bool) -> list[Server]:
    """`kept` with the weights that they have here; none, and leftovers, unless `weighted`."""
    found: list[Server] = []
    for server, weight in zip(kept, weights(kept), strict=True):
        if weight != 1 and not weighted:
            notes.leave(server.line.number, f"weight {server.weight}", _NO_WEIGHTS)
        found.append(replace(server, weight=weight if weighted else 1))
    return found


def about(kept: Sequence[Server], *, all_backups: bool) -> str:
    """What is to be said beside the targets."""
    one_backup = sum(server.backup for server in kept) > 1 and not all_backups
    said = {_ONE_BACKUP: one_backup, _SERVICE: any(server.is_service for server in kept)}
    return ". ".join(text for text, holds in said.items() if holds)
