"""HAProxy's timeouts as those of relayd. Pure.

HAProxy has one for each side, and relayd one for the connection. A byte that moves is read on one side and written on
the other, and so is activity on both: in silence, the smaller of the two ends a connection. `client-fin` counts while
the client is waited for after the server has finished, `server-fin` the other way round; without one, that side keeps
its general timeout (tried with HAProxy 2.6). So the larger is taken: nothing ends earlier than it did.
"""

import re

from relayd.config.units import DURATION_MAX_MS, format_duration, parse_duration_ms
from relayd.imports.draft import Notes, Setting
from relayd.imports.haproxy.syntax import Line
from relayd.values import dataclass

_UNITS_US = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_TIME = re.compile(r"([0-9]{1,15})(us|ms|s|m|h|d)?\Z")


@dataclass(frozen=True, slots=True)
class Timeout:
    """A timeout as it stands there. `ms` 0: no limit."""

    name: str
    ms: int
    number: int

    def __str__(self) -> str:
        return f"timeout {self.name} ({format_duration(self.ms) if self.ms else 'no limit'})"


def milliseconds(text: str) -> int | None:
    """What `text` says, rounded up; without a unit it is in milliseconds. None when it is no time."""
    found = _TIME.match(text)
    if not found:
        return None
    return min(DURATION_MAX_MS, -(-int(found[1]) * _UNITS_US[found[2] or "ms"] // 1_000))


def timeout(line: Line, notes: Notes) -> Timeout | None:
    """`timeout NAME TIME`; None, and a leftover, when it is not that."""
    ms = milliseconds(line.words[2]) if len(line.words) == 3 else None
    if ms is None:
        notes.leave(line.number, line.text, "not understood: timeout NAME TIME, where TIME is such as 500, 30s or 1h")
        return None
    return Timeout(line.words[1], ms, line.number)


def settings(front: dict[str, Timeout], back: dict[str, Timeout], notes: Notes) -> dict[str, Setting]:
    """The keys of a listener, of the timeouts of its frontend and of its backend."""
    found: dict[str, Setting] = {}
    connect = back.get("connect")
    if connect and connect.ms:
        found["connect_timeout"] = Setting(format_duration(connect.ms), connect.number)
    elif connect:
        notes.leave(connect.number, "timeout connect 0", "a dial always has a limit here; it stays at 5s")
    tunnel = back.get("tunnel")
    client, server = front.get("client"), back.get("server")
    idle = _idle(tunnel, client, server)
    found["idle_timeout"] = idle
    half_close = _half_close(front.get("client-fin"), back.get("server-fin"), idle)
    return found | ({"half_close_timeout": half_close} if half_close else {})


def _idle(tunnel: Timeout | None, client: Timeout | None, server: Timeout | None) -> Setting:
    if tunnel:
        return Setting(_text(tunnel.ms), tunnel.number, "timeout tunnel, which replaces client and server")
    limits = [one for one in (client, server) if one and one.ms]
    if not limits:
        number = next((one.number for one in (client, server) if one), 0)
        return Setting("off", number, "there is no timeout client or server; relayd's own default is 1h")
    least = min(limits, key=lambda one: one.ms)
    if client and server and client.ms != server.ms:
        why = f"the smaller of {client} and {server}: it is the one that ends a silent connection"
        return Setting(_text(least.ms), least.number, why)
    return Setting(_text(least.ms), least.number)


def _half_close(client: Timeout | None, server: Timeout | None, idle: Setting) -> Setting | None:
    """None: relayd's own, which is not without a limit."""
    given = [one for one in (client, server) if one]
    if not given:
        why = "as idle_timeout: there is no timeout client-fin or server-fin"
        return None if idle.value == "off" else Setting(idle.value, idle.line, why)
    longest = max(given, key=lambda one: one.ms or DURATION_MAX_MS)
    if len(given) == 1 and idle.value != "off" and 0 < longest.ms < parse_duration_ms(str(idle.value)):
        why = f"as idle_timeout, the larger: {longest} is for one side, and relayd has one for both"
        return Setting(idle.value, longest.number, why)
    if client and server and client.ms != server.ms:
        why = f"the larger of {client} and {server}: nothing ends earlier than it did"
        return Setting(_text(longest.ms), longest.number, why)
    return Setting(_text(longest.ms), longest.number, " and ".join(f"timeout {one.name}" for one in given))


def _text(ms: int) -> str:
    return format_duration(ms) if ms else "off"
