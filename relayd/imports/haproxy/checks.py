"""Health checks of HAProxy's servers (section 5.2 of its configuration manual) as the one of a listener. Pure.

HAProxy has one for each server, and relayd one for all targets of a listener or pool: that of the most servers is
taken, the first of those that are as many, and the others are told.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from relayd.config.probing import IN_A_ROW_MAX, INTERVAL_MIN_MS
from relayd.config.units import format_duration
from relayd.imports.draft import Notes, Setting, Value
from relayd.imports.haproxy.probes import Probe, probe
from relayd.imports.haproxy.proxies import Proxy
from relayd.imports.haproxy.servers import Server
from relayd.imports.haproxy.timeouts import Timeout, milliseconds
from relayd.imports.text import joined, number
from relayd.values import dataclass

#: HAProxy's own, and what relayd has of them.
_INTER_MS, _RISE, _FALL = 2000, 2, 3
_TIMEOUT_MS = 1000

_NO_LIKE = "relayd's checks have nothing like it"
_STAY = "clients that are at a target stay there when it goes down, and when another comes back"
_UNUSED = {
    **dict.fromkeys(("check-sni", "check-alpn", "check-proto", "check-via-socks4"), _NO_LIKE),
    **dict.fromkeys(("on-marked-down", "on-marked-up"), _STAY),
    **dict.fromkeys(("observe", "on-error", "error-limit"), "each dial that fails counts as a failed check here"),
    "check-ssl": "by TLS there, and here by a connection alone",
    "check-send-proxy": "relayd sends no PROXY header in this version: let the target expect none",
}
_AGENTS = ("agent-check", "agent-addr", "agent-inter", "agent-port", "agent-send")
_ELSEWHERE = "relayd asks the target itself, and not another address: this check is not carried over"
_TRACK = "relayd gives no target the state of another one"
_PORTS = "relayd asks one port of all targets, or of each its own: here its own, by a connection alone"
_NO_PORT = "a check needs a port where that of a target follows the bind: nothing is asked"
_REFUSES = "HAProxy refuses clients when all are down"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a server is asked and what its answers mean; `port` None for that of the target. A `bare` one is asked
    for a connection, whatever others are asked for.
    """

    interval_ms: int
    down_ms: int
    rise: int
    fall: int
    port: int | None
    bare: bool


def settings(kept: Sequence[Server], back: Proxy, notes: Notes, *, shares: bool) -> dict[str, Setting]:
    """`health_check`, `fail_open` and `slow_start`, as far as servers are checked. Without `shares`, targets have none
    to grow.
    """
    paces = {at: pace for at, server in enumerate(kept) if (pace := _pace(server, notes))}
    if not paces:
        for line in back.checks:
            notes.cover(line.number, joined(line.words[:2]))
        return {}
    found: dict[str, Setting] = {}
    asked = probe(back.checks, notes)
    if asked and not asked.port and len({pace.port for pace in paces.values()}) > 1:
        paces = _at_their_own_ports(paces, kept, notes)
    most = Counter(paces.values()).most_common(1)[0][0]
    first = next(at for at, pace in paces.items() if pace == most)
    check = asked and _check(asked, most, kept[first], back, notes)
    if check and all(one.port is None and not one.is_service for one in kept):
        check.pop("port", None)  # Unix sockets have none
    follows = next((one for one in kept if one.port is not None and not one.port.isdecimal()), None)
    if check and follows and "port" not in check:
        notes.leave(follows.line.number, joined(follows.line.words[:3]), _NO_PORT)
        check = None
    if asked and check:
        for at, server in enumerate(kept):
            if paces.get(at) != most:
                _differs(server, kept[first], notes, checked=at in paces)
        found["health_check"] = Setting(check, asked.line or kept[first].line.number, asked.comment)
        if len(paces) == len(kept):
            found["fail_open"] = Setting(False, kept[first].line.number, _REFUSES)
        slow = _slow_start([kept[at] for at in paces], notes, shares=shares)
        found.update({"slow_start": slow} if slow else {})
    return found


def _at_their_own_ports(paces: Mapping[int, Pace], kept: Sequence[Server], notes: Notes) -> dict[int, Pace]:
    """`paces` without the ports, which differ: what answers at one of them may be for another server."""
    for at, pace in paces.items():
        if pace.port:
            notes.leave_once(kept[at].health["port"][1], f"port {pace.port}", _PORTS)
    return {at: replace(pace, port=None, bare=True) for at, pace in paces.items()}


def _pace(server: Server, notes: Notes) -> Pace | None:
    """None where it is not checked, or by nothing that has a like here."""
    health = server.health
    for word in health:
        if word in _UNUSED and "check" in health:
            notes.leave_once(health[word][1], _words(server, (word,)), _UNUSED[word])
    if "agent-check" in health:
        notes.leave_once(health["agent-check"][1], _words(server, _AGENTS), "relayd asks no agent")
    if "track" in health:
        value, line = health["track"]
        notes.leave_once(line, f"track {value}", _TRACK)
    if "check" not in health:
        return None
    address, at = health.get("addr", (server.host, 0))
    if address.strip("[]") != server.host.strip("[]"):
        notes.leave_once(at, f"addr {address}", _ELSEWHERE)
        return None
    interval = _interval(server, "inter", _INTER_MS, notes)
    fast = _interval(server, "fastinter", interval, notes)
    if fast != interval:
        value, line = health["fastinter"]
        notes.leave_once(line, f"fastinter {value}", f"asked every {format_duration(interval)} until it is down, too")
    port = number(health["port"][0], 1, 65_535) if "port" in health else None
    return Pace(
        interval_ms=interval,
        down_ms=_interval(server, "downinter", interval, notes),
        rise=_in_a_row(server, "rise", _RISE, notes),
        fall=_in_a_row(server, "fall", _FALL, notes),
        port=None if port is None or str(port) == server.port else port,
        bare="check-ssl" in health,
    )


def _interval(server: Server, word: str, default: int, notes: Notes) -> int:
    value, line = server.health.get(word, ("", 0))
    if not line:
        return default
    ms = milliseconds(value)
    if not ms:
        notes.leave_once(line, f"{word} {value}", "not understood: a time such as 2s or 500")
        return default
    if ms < INTERVAL_MIN_MS:
        least = format_duration(INTERVAL_MIN_MS)
        notes.leave_once(line, f"{word} {value}", f"relayd asks no oftener than every {least}")
    return max(ms, INTERVAL_MIN_MS)


def _in_a_row(server: Server, word: str, default: int, notes: Notes) -> int:
    value, line = server.health.get(word, ("", 0))
    found = number(value, 1, IN_A_ROW_MAX) if line else default
    if found is None:
        notes.leave_once(line, f"{word} {value}", f"not understood: a number from 1 to {IN_A_ROW_MAX}")
    return found or default


def _check(asked: Probe, pace: Pace, server: Server, back: Proxy, notes: Notes) -> dict[str, Value]:
    """The table."""
    asked = asked.plain if pace.bare else asked
    table = dict(asked.keys)
    port = asked.port or pace.port
    if port:
        table["port"] = port
    table["interval"] = format_duration(pace.interval_ms)
    if pace.down_ms != pace.interval_ms:
        table["unhealthy_interval"] = format_duration(pace.down_ms)
    least = min(pace.interval_ms, pace.down_ms)
    waits = _waits(pace, back, reads=asked.reads)
    if waits > least:
        line, text = _why_late(server, back)
        longer = format_duration(waits)
        reason = f"an answer is waited for until the next question, {format_duration(least)}; in HAProxy for {longer}"
        notes.leave_once(line, text, reason)
    if min(waits, least) != min(_TIMEOUT_MS, least):
        table["timeout"] = format_duration(min(waits, least))
    table.update({"rise": pace.rise} if pace.rise != _RISE else {})
    table.update({"fall": pace.fall} if pace.fall != _FALL else {})
    return table


def _waits(pace: Pace, back: Proxy, *, reads: bool) -> int:
    """For an answer, in milliseconds: `inter`, unless there is a `timeout check`, which is for what comes after the
    connection.
    """
    answer, connect = back.timeouts.get("check"), back.timeouts.get("connect")
    if answer is None or not answer.ms:
        return pace.interval_ms
    dial = min(pace.interval_ms, connect.ms) if connect and connect.ms else pace.interval_ms
    return dial + (answer.ms if reads else 0)


def _why_late(server: Server, back: Proxy) -> tuple[int, str]:
    """The line, and the text, that has HAProxy wait for longer."""
    answer: Timeout | None = back.timeouts.get("check")
    if "downinter" in server.health and not (answer and answer.ms):
        value, line = server.health["downinter"]
        return line, f"downinter {value}"
    return (answer.number, "timeout check") if answer else (server.line.number, "check")


def _differs(server: Server, taken: Server, notes: Notes, *, checked: bool) -> None:
    if not checked:
        why = f"not checked there; here it is, as all targets of a listener are: as line {taken.line.number} says"
        notes.leave(server.line.number, joined(server.line.words[:3]), why)
        return
    words = [word for word in server.health if word not in _UNUSED and word not in _AGENTS]
    why = f"relayd has one health check for all targets of a listener: that of line {taken.line.number} is taken"
    notes.leave(server.line.number, _words(server, words), why)


def _words(server: Server, words: Sequence[str]) -> str:
    """Those of `words` that `server` has, with their values."""
    return joined([part for word in words if word in server.health for part in (word, server.health[word][0]) if part])


def _slow_start(checked: Sequence[Server], notes: Notes, *, shares: bool) -> Setting | None:
    """That of most of those that are checked: HAProxy finds no other down."""
    found = [_slow(server) for server in checked]
    most = Counter(one.value for one in found).most_common(1)[0][0]
    if any(one.value for one in found) and not shares:
        for one in found:
            if one.value:
                notes.leave_once(one.line, f"slowstart {one.comment}", "balance first has no shares, there as here")
        return None
    for one in found:
        if one.value != most:
            text = f"slowstart {one.comment}" if one.value else "check without slowstart"
            why = f"relayd has one slow_start for all targets of a listener: {most or 'none'}"
            notes.leave_once(one.line, text, why)
    taken = next(one for one in found if one.value == most)
    return replace(taken, comment="") if most else None


def _slow(server: Server) -> Setting:
    """With the time as it stands there beside it; "" for none."""
    value, line = server.health.get("slowstart", ("", server.line.number))
    ms = milliseconds(value)
    return Setting(format_duration(ms) if ms else "", line, value)
