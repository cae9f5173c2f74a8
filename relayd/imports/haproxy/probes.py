"""What HAProxy asks the servers of a proxy (`option …chk`, `tcp-check`, `http-check`; sections 4.2 and 5.2 of its
configuration manual) as the part of a health_check that says so. Pure.

Every check of HAProxy's begins with a connection. Where the rest has no like here, the connection is what is asked, and
what is lost by that is told: a target is never taken for down that HAProxy would have taken for up.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from relayd.config import probing
from relayd.imports.asking import takes, text_or_hex
from relayd.imports.draft import Notes, Value
from relayd.imports.haproxy.syntax import Line
from relayd.imports.text import joined, number
from relayd.values import dataclass

_CONNECTION = "here by a connection alone: relayd has no such check"
_COMMAND = (
    'relayd runs a command of its own: health_check = { type = "exec", command = [...] }, and nothing is asked now'
)
_ELSEWHERE = "relayd asks the targets themselves, and not another address: nothing is asked"
_ONE_STEP = "relayd sends once, and expects one text or pattern: this is not asked, and what follows is not"
_NOT_STATUS = "relayd expects a status: this is not asked, and where there is none, a connection alone"
_OTHER_HEADER = "relayd sends Host and no other header, and no body: here by a connection alone"

#: What of an `expect` changes nothing about who is up, each with one word behind it.
_SAID = frozenset(("min-recv", "comment", "ok-status", "error-status", "tout-status", "on-success", "on-error"))
_HARMLESS_HEADERS = frozenset(("user-agent", "accept", "connection"))
_STATUS = re.compile(r"[1-5][0-9][0-9](-[1-5][0-9][0-9])?(,[1-5][0-9][0-9](-[1-5][0-9][0-9])?)*\Z")
#: Rules that say nothing about who is up.
_SILENT = frozenset(("comment", "disable-on-404"))


@dataclass(frozen=True, slots=True)
class Probe:
    """`keys` are those of a health_check that say what is asked; `port` None for that of the target. `line` is the one
    that says so, 0 for none.
    """

    keys: Mapping[str, Value] = field(default_factory=lambda: {"type": "tcp"})
    port: int | None = None
    line: int = 0
    comment: str = ""

    @property
    def reads(self) -> bool:
        """True where more than a connection is asked for."""
        return len(self.keys) > 1 or self.keys["type"] == "http"

    @property
    def plain(self) -> "Probe":
        """The same by a connection alone."""
        return Probe(port=self.port, line=self.line)


def probe(lines: Sequence[Line], notes: Notes) -> Probe | None:
    """That of a proxy, of all its lines about checks. None, and a leftover, where there is none like it."""
    option: Line | None = None
    for line in lines:
        if line.words[0] == "option":
            option = line
        elif line.words[0] == "no" and option is not None and option.words[1:2] == line.words[2:3]:
            option = None
    if option is None:
        return Probe()
    kind = option.words[1]
    if kind == "tcp-check":
        return _by_tcp(option, [line for line in lines if line.words[0] == "tcp-check"], notes)
    if kind == "httpchk":
        return _by_http(option, [line for line in lines if line.words[0] == "http-check"], notes)
    if kind == "redis-check":
        return Probe({"type": "tcp", "send": "*1\r\n$4\r\nPING\r\n", "expect": "+PONG\r\n"}, line=option.number)
    if kind == "external-check":
        notes.leave_once(option.number, option.text, _COMMAND)
        return None
    notes.leave_once(option.number, option.text, _CONNECTION)
    return Probe(line=option.number)


def _by_tcp(option: Line, rules: Sequence[Line], notes: Notes) -> Probe | None:
    """Connections, what is sent, and one answer."""
    found, sent, expected, begun = Probe(line=option.number), b"", dict[str, Value](), False
    for at, rule in enumerate(rules):
        word, rest = rule.words[1] if len(rule.words) > 1 else "", rule.words[2:]
        if word in _SILENT:
            continue
        more: bytes | None = None
        if word == "connect" and not begun:
            begun = True
            port, known = _connect(rest)
            if "addr" in rest:
                notes.leave_once(rule.number, rule.text, _ELSEWHERE)
                return None
            found = replace(found, port=port)
            if known:
                continue
        elif word in ("send", "send-binary") and not expected:
            begun = True
            more = _sent(word, rest)
        elif word == "expect" and not expected:
            begun = True
            expected = _expected(rest)
            if expected:
                continue
        if more is not None and len(sent + more) <= probing.SEND_MAX:
            sent += more
            continue
        for left in rules[at:]:
            notes.leave_once(left.number, left.text, _ONE_STEP)
        break
    if not expected:
        return found
    asked: dict[str, Value] = {"send": text_or_hex(sent)} if sent else {}
    return replace(found, keys={"type": "tcp", **asked, **expected})


def _connect(words: Sequence[str]) -> tuple[int | None, bool]:
    """The port, None for none, and whether that, and what is as it always is, is all that there is."""
    port, known, rest = None, True, list(words)
    while rest:
        word = rest.pop(0)
        if word == "port" and rest and number(rest[0], 1, 65_535):
            port = int(rest.pop(0))
        elif word == "comment":
            rest = rest[1:]
        elif word not in ("default", "linger"):
            known = False
    return port, known


def _sent(word: str, words: Sequence[str]) -> bytes | None:
    """None where it is not known."""
    if not words or (len(words) > 1 and words[1] != "comment"):
        return None
    if word == "send":
        return words[0].encode(errors="surrogateescape")
    return bytes.fromhex(words[0]) if re.match(probing.HEX_PATTERN, words[0]) else None


def _expected(words: Sequence[str]) -> dict[str, Value]:
    """`expect`; empty where there is none like it."""
    rest = _without_remarks(words)
    if len(rest) != 2:
        return {}
    kind, text = rest
    made: Value = {"regex": text}
    if kind == "binary" and re.match(probing.HEX_PATTERN, text):
        made = {"hex": text}
    elif kind == "string":
        made = text_or_hex(text.encode(errors="surrogateescape"))
    elif kind != "rstring":
        return {}
    return {"expect": made} if takes(probing.expected, made) else {}


def _without_remarks(words: Sequence[str]) -> list[str]:
    rest = list(words)
    while len(rest) > 1 and (rest[0] in _SAID or rest[0] == "status-code"):
        rest = rest[2:]
    return rest


def _by_http(option: Line, rules: Sequence[Line], notes: Notes) -> Probe | None:
    """A request, and the status of its answer."""
    asked = _Request.of(option)
    port, status, exact, expects = None, list[Value](), True, False
    for rule in rules:
        word, rest = rule.words[1] if len(rule.words) > 1 else "", rule.words[2:]
        reason = ""
        if word == "connect":
            port, known = _connect(rest)
            if "addr" in rest:
                notes.leave_once(rule.number, rule.text, _ELSEWHERE)
                return None
            reason = "" if known else _CONNECTION
        elif word == "send":
            reason = "" if asked.add(rest) else _OTHER_HEADER
        elif word == "expect":
            found = _statuses(_without_remarks(rest))
            reason = "" if found and not status else _NOT_STATUS
            status, expects = status or found, True
        elif word == "send-state":
            notes.leave_once(rule.number, rule.text, "relayd tells targets nothing about themselves")
        elif word not in _SILENT:
            reason = _CONNECTION
        if reason:
            notes.leave_once(rule.number, rule.text, reason)
            exact = exact and reason == _NOT_STATUS
    keys = asked.keys()
    if keys is None:
        notes.leave_once(option.number, option.text, _OTHER_HEADER)
    if keys is None or not exact or (expects and not status):
        return Probe(port=port, line=option.number)
    by = "" if asked.version == "HTTP/1.1" else f"by HTTP/1.1, and with a Host, where HAProxy speaks {asked.version}"
    return Probe({**keys, **({"status": tuple(status)} if status else {})}, port, option.number, by)


@dataclass(slots=True)
class _Request:
    """A request of `option httpchk`, and of `http-check send`. `headers` are those that relayd would have to know."""

    method: str = "OPTIONS"
    path: str = "/"
    version: str = "HTTP/1.0"
    host: str = ""
    others: int = 0

    @classmethod
    def of(cls, option: Line) -> "_Request":
        """That of `option httpchk [METHOD] [PATH] [VERSION]`; headers used to be written behind the version."""
        words, found = option.words[2:], cls()
        if len(words) == 1:
            found.path = words[0]
        elif words:
            found.method, found.path = words[:2]
            version, *headers = joined(words[2:]).split("\r\n")
            found.version = version or found.version
            for header in headers:
                name, _, value = header.partition(":")
                found._header(name, value.strip())
        return found

    def add(self, words: Sequence[str]) -> bool:
        """What `http-check send` says. False where there is no way to."""
        rest, before = list(words), self.others
        while len(rest) > 1:
            word, value, *rest = rest
            if word == "meth":
                self.method = value
            elif word == "uri":
                self.path = value
            elif word == "ver":
                self.version = value
            elif word == "hdr" and rest:
                self._header(value, rest.pop(0))
            elif word != "comment":
                self.others += 1
        self.others += len(rest)
        return self.others == before

    def keys(self) -> dict[str, Value] | None:
        """Those of a health_check; None where relayd could not ask so."""
        found: dict[str, Value] = {"type": "http"}
        for key, value, default, check in (
            ("method", self.method, "GET", probing.method),
            ("path", self.path, "/", probing.path),
            ("host", self.host, "", probing.host),
        ):
            if value != default:
                if not takes(check, value):
                    return None
                found[key] = value
        return None if self.others else found

    def _header(self, name: str, value: str) -> None:
        if name.lower() == "host":
            self.host = value
        elif name and name.lower() not in _HARMLESS_HEADERS:
            self.others += 1


def _statuses(words: Sequence[str]) -> list[Value]:
    """`status 200,300-399`; empty where it is something else."""
    if len(words) != 2 or words[0] != "status" or not _STATUS.match(words[1]):
        return []
    found: list[Value] = [int(one) if one.isdecimal() else one for one in words[1].split(",")]
    return found if takes(probing.statuses, found) and all(takes(probing.status, one) for one in found) else []
