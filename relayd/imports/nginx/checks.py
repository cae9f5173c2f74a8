"""`health_check` of nginx's commercial version as that of relayd (ngx_stream_upstream_hc_module). Pure."""

import re
from collections.abc import Callable, Mapping

from relayd.config import probing
from relayd.config.units import format_duration
from relayd.imports.asking import takes, text_or_hex
from relayd.imports.draft import Notes, Setting, Value
from relayd.imports.nginx.syntax import Directive
from relayd.imports.nginx.times import milliseconds
from relayd.imports.text import joined, number

#: nginx's own.
_INTERVAL_MS, _TIMEOUT_MS, _FAILS, _PASSES = 5000, 5000, 1, 1

_NO_LIKE = "not understood, or without a like here: nothing is asked"
_NO_SEND = "a check by UDP needs something to send: nothing is asked"
_REFUSES = "nginx refuses clients when all are down"
#: What relayd does by itself, or what is over with the first answer.
_SILENT = frozenset(("jitter", "mandatory", "persistent"))
_CHECKED: dict[str, Callable[[object], object]] = {"send": probing.sent, "expect": probing.expected}
_HEX = re.compile(rb"\\x([0-9A-Fa-f]{2})")


def settings(
    check: Directive | None, timeout: Directive | None, matches: Mapping[str, Directive], notes: Notes
) -> dict[str, Setting]:
    """`health_check` and `fail_open`; empty, and a leftover, where there is none like it."""
    if check is None:
        return {}
    words = {word.partition("=")[0]: word.partition("=")[2] for word in check.args}
    numbers = [
        milliseconds(words.pop("interval", format_duration(_INTERVAL_MS))),
        number(words.pop("fails", str(_FAILS)), 1, probing.IN_A_ROW_MAX),
        number(words.pop("passes", str(_PASSES)), 1, probing.IN_A_ROW_MAX),
        number(words.pop("port", "1"), 1, 65_535),
        milliseconds(joined(timeout.args)) if timeout else _TIMEOUT_MS,
    ]
    interval, fails, passes, port, waits = (one or 0 for one in numbers)
    table: dict[str, Value] = {"type": "udp" if "udp" in words else "tcp"}
    name = words.pop("match", "")
    asked = _asked(matches.get(name)) if name else {}
    odd = [word for word in words if word != "udp" and word not in _SILENT]
    if not all((interval, fails, passes, port, waits)) or interval < probing.INTERVAL_MIN_MS or odd or asked is None:
        notes.leave_once(check.line, check.text, _NO_LIKE)
        return {}
    if "udp" in words and "send" not in asked:
        notes.leave_once(check.line, check.text, _NO_SEND)
        return {}
    table.update(asked)
    table.update({"port": port} if any(word.startswith("port=") for word in check.args) else {})
    table.update({"interval": format_duration(interval), "timeout": format_duration(min(waits, interval))})
    if waits > interval:
        reason = f"an answer is waited for until the next question, {format_duration(interval)}"
        at, text = (timeout.line, timeout.text) if timeout else (check.line, check.text)
        notes.leave_once(at, text, f"{reason}; in nginx for {format_duration(waits)}")
    table.update({"rise": passes, "fall": fails})
    return {"health_check": Setting(table, check.line), "fail_open": Setting(False, check.line, _REFUSES)}


def _asked(match: Directive | None) -> dict[str, Value] | None:
    """`send` and `expect` of a `match` block; None where it is not there, or has no like here."""
    found: dict[str, Value] = {}
    for one in match.block or () if match else ():
        pattern = one.name == "expect" and one.args[:1] == ("~",)
        if one.name not in _CHECKED or len(one.args) != 1 + pattern:
            return None
        value: Value = {"regex": one.args[1]} if pattern else text_or_hex(_bytes(one.args[0]))
        if not takes(_CHECKED[one.name], value):
            return None
        found[one.name] = value
    return found if match else None


def _bytes(text: str) -> bytes:
    """`text` with what it has in hexadecimal."""
    return _HEX.sub(lambda found: bytes.fromhex(found[1].decode()), text.encode(errors="surrogateescape"))
