"""rinetd.conf, of rinetd 0.62 to 0.73 (rinetd(8)), as drafts of listeners. Pure.

    bindaddress bindport[/tcp|/udp] connectaddress connectport[/tcp|/udp] [timeout=SECONDS,src=ADDRESS]
    allow PATTERN    deny PATTERN    logfile FILE    pidlogfile FILE    logcommon    # comment

Rules of access before the first forwarding rule are for all of them, those after one are for that one.
"""

import re
from collections.abc import Callable
from typing import TypeAlias

from relayd.config.units import format_duration
from relayd.imports.draft import Draft, Imported, Names, Notes, Place, Setting
from relayd.imports.text import host_and_port, lines, number, shown
from relayd.values import dataclass

#: A service name and its protocol ("tcp" or "udp") to its port, as services(5) has it; None when it has none.
Services: TypeAlias = Callable[[str, str], int | None]

#: RINETD_DEFAULT_UDP_TIMEOUT.
UDP_TIMEOUT_S = 72
#: Longer is no limit in all but name, and relayd takes a year at most.
_TIMEOUT_MAX_S = 366 * 86_400

_RULE = re.compile(r"(\S+)\s+(\S+)\s+([^\s\[]\S*|\[[0-9A-Fa-f:.]+\])\s+([^\s\[]+)\s*(.*)\Z", re.DOTALL)
_OPTIONS = re.compile(r"\[([^\]]*)\]\s*\Z")
_HOST = re.compile(r"[A-Za-z0-9_.:%-]+\Z|\[[0-9A-Fa-f:.%a-z]+\]\Z")
_OPEN = "relayd has no rules of access in this version: keep others out by a firewall, or by a narrower bind address"
_OWN_LOG = "relayd logs each ended connection to the journal, in its own format"


@dataclass(frozen=True, slots=True)
class _Port:
    number: int
    proto: str


def parse(text: str, service: Services) -> Imported:
    """Every forwarding rule as a listener."""
    notes, names = Notes(), Names()
    drafts: list[Draft] = []
    rule_at = 0
    for at, whole in enumerate(lines(text), 1):
        line = _without_comment(whole).strip()
        word = line.split(None, 1)[0] if line else ""
        if not line:
            continue
        if word in ("allow", "deny"):
            scope = f"the rule in line {rule_at}" if rule_at else "all rules"
            notes.leave(at, line, f"({scope}) {_OPEN}", opens=True)
        elif word in ("logfile", "logcommon"):
            notes.leave(at, line, _OWN_LOG)
        elif word == "pidlogfile":
            notes.cover(at, "pidlogfile")
        else:
            rule_at = at
            draft = _rule(at, line, names, notes, service)
            drafts += [draft] if draft else []
    return notes.imported(drafts)


def looks_like_a_rule(line: str) -> bool:
    """True when `line` is one of rinetd.conf that no other file has."""
    line = _without_comment(line).strip()
    rule = _RULE.match(line)
    if rule and (_OPTIONS.match(rule[5]) or not rule[5]):
        ports = [text.partition("/") for text in (rule[2], rule[4])]
        return all(number(port, 1, 65_535) is not None and proto in ("", "tcp", "udp") for port, _, proto in ports)
    return re.match(r"(allow|deny)\s+[0-9*?.]+\Z|logcommon\Z|(pid)?logfile\s+[^\s;]+\Z", line) is not None


def _without_comment(line: str) -> str:
    """rinetd takes "#" for the beginning of a comment wherever a word could begin."""
    return re.split(r"(?:^|(?<=\s))#", line, maxsplit=1)[0]


def _rule(at: int, line: str, names: Names, notes: Notes, service: Services) -> Draft | None:
    found = _RULE.match(line)
    if not found:
        notes.leave(at, line, "not understood: a rule is BINDADDRESS BINDPORT CONNECTADDRESS CONNECTPORT")
        return None
    bind_host, bind_port_text, host, port_text, rest = found.groups()
    bind_port, port = _port(bind_port_text, service), _port(port_text, service)
    if bind_port is None or port is None:
        odd = bind_port_text if bind_port is None else port_text
        notes.leave(at, line, f'"{shown(odd)}" is neither a port nor the name of a service here: write its number')
        return None
    odd = next((one for one in (bind_host, host) if not _HOST.match(one)), "")
    if odd:
        notes.leave(at, line, f'"{shown(odd)}" is no address')
        return None
    if bind_port.proto != port.proto:
        notes.leave(at, line, f"from {bind_port.proto} to {port.proto}: relayd turns neither into the other")
        return None
    options = _options(at, line, rest.strip(), bind_port.proto, notes)
    if options is None:
        return None
    bind = host_and_port("0.0.0.0" if bind_host == "0" else bind_host, str(bind_port.number))
    target = host_and_port(host, str(port.number))
    return Draft(
        name=names.take(f"{bind_port.proto}-{bind_port.number}"),
        line=at,
        title=shown(" ".join(line.split())),
        types=("stream",) if bind_port.proto == "tcp" else ("dgram",),
        binds=(Place(bind, at),),
        targets=(Place(target, at),),
        settings=options,
    )


def _port(text: str, service: Services) -> _Port | None:
    name, _, proto = text.partition("/")
    if proto not in ("", "tcp", "udp"):
        return None
    proto = proto or "tcp"
    value = number(name, 1, 65_535)
    if value is None and re.match(r"[A-Za-z][A-Za-z0-9_-]*\Z", name):
        value = service(name, proto)
    return None if value is None else _Port(value, proto)


def _options(at: int, line: str, rest: str, proto: str, notes: Notes) -> dict[str, Setting] | None:
    """The settings of a rule; None when what follows its four words is not understood, which has then been told."""
    bracket = _OPTIONS.match(rest)
    if rest and not bracket:
        notes.leave(at, line, f'not understood: "{shown(rest)}" after the rule; options stand in [brackets]')
        return None
    if proto == "tcp":
        why = "rinetd ends no silent TCP connection; relayd would after 1h"
        settings = {"idle_timeout": Setting("off", at, why)}
    else:
        settings = {"session_timeout": Setting(f"{UDP_TIMEOUT_S}s", at, "what rinetd has by default")}
    for option in filter(None, (one.strip() for one in (bracket[1] if bracket else "").split(","))):
        key, _, value = (part.strip() for part in option.partition("="))
        seconds = number(value, 1, _TIMEOUT_MAX_S)
        if key == "timeout" and seconds is not None and proto == "udp":
            settings["session_timeout"] = Setting(format_duration(seconds * 1000), at)
        elif key == "timeout" and seconds is not None:
            notes.leave(at, option, "rinetd uses it for UDP only; idle_timeout would be its like for TCP")
        elif key == "src" and _HOST.match(value):
            settings["source"] = Setting(value.strip("[]"), at)
        else:
            notes.leave(at, option, "relayd has no such option of a rule")
    return settings
