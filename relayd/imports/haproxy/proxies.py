"""Sections of haproxy.cfg as proxies: what each line of one means here. Pure.

In `mode tcp` HAProxy has no use for what is about HTTP, and neither has this. What relayd does by itself is covered;
everything else that it has no key for is a leftover.
"""

from collections.abc import Sequence
from dataclasses import field

from relayd.imports.draft import Notes
from relayd.imports.haproxy.syntax import PROXIES, Line, Section
from relayd.imports.haproxy.timeouts import Timeout, timeout
from relayd.values import dataclass

NO_CONDITIONS = "relayd has no conditions: who comes to a listener goes to its targets"
_NO_RULES = (
    "relayd has no rules of access in this version: keep others out by a firewall, or by a narrower bind address"
)
#: Of `tcp-request`: what keeps a client out.
_ACTIONS = frozenset(("reject", "deny", "silent-drop", "tarpit"))

#: Words whose lines are kept for later; the last of each counts.
_KEPT = frozenset(
    (
        *("mode", "default_backend", "balance", "retries", "backlog", "source", "disabled"),
        *(f"{side}tcpka-{what}" for side in ("cli", "srv") for what in ("idle", "intvl", "cnt")),
    )
)
_SERVERS = frozenset(("server", "server-template", "default-server"))
_TIMEOUTS = frozenset(("connect", "client", "server", "tunnel", "client-fin", "server-fin", "check"))
#: What relayd does by itself.
_COVERED = frozenset(
    (
        *("log", "option tcplog", "option redispatch", "option tcpka", "option clitcpka", "option srvtcpka"),
        *("option splice-auto", "option splice-request", "option splice-response"),
    )
)
#: What says nothing about how connections are relayed.
_SILENT = frozenset(
    (
        *("description", "id", "guid", "enabled", "log-tag", "log-format", "log-format-sd", "error-log-format"),
        *("unique-id-format", "bind-process", "timeout queue"),
        *("option dontlognull", "option log-separate-errors", "option log-health-checks", "option socket-stats"),
        *("option logasap", "option contstats", "option tcp-smart-accept", "option tcp-smart-connect"),
    )
)
#: What HAProxy itself has no use for in mode tcp: first words, and what follows `option` and `timeout`.
_HTTP = ("http-", "errorfile", "errorloc", "capture", "compression", "cookie", "stats", "monitor-uri")
_HTTP_OPTIONS = ("http", "forwardfor", "forwarded", "originalto", "forceclose", "accept-invalid-http", "accept-unsafe")
_HTTP_TIMEOUTS = ("http-", "tarpit", "client-hs")
_CHECKS = frozenset(
    (
        *("tcp-check", "external-check", "httpchk", "mysql-check", "pgsql-check", "redis-check", "ldap-check"),
        *("smtpchk", "ssl-hello-chk", "spop-check"),
    )
)
#: Their rules.
_CHECK_RULES = frozenset(("tcp-check", "http-check", "external-check"))

_REASONS = {
    "acl": NO_CONDITIONS,
    "use-server": NO_CONDITIONS,
    "maxconn": "relayd has no limit of a listener in this version; the limit on open files is one (LimitNOFILE=)",
    "fullconn": "relayd has one limit of a target, whatever the load: max_connections",
    "rate-limit": "relayd has no limit of new connections in this version",
    "stick-table": "relayd has no stick tables",
    "stick": "relayd has no stick tables",
    "hash-type": "relayd's source_hash is one hash, and consistent: most clients stay when targets come or go",
    "dispatch": "carried over as nothing: write a server line with this address",
    "filter": "relayd reads nothing of what it relays",
    "option transparent": "relayd has no such target: write one",
    "option nolinger": "relayd resets a connection that does not end in order, and no other",
    "option dontlog-normal": "relayd logs each ended connection; [log] access = false turns that off for all",
    "option persist": "a target that cannot be dialled is passed over",
    "option abortonclose": "a client that has closed its side still gets its answer",
}


@dataclass(slots=True)
class Proxy:
    """What one section says. `values` has the lines of `_KEPT` by their first word, and `option allbackups` by its
    second; `checks` all that is about health checks but the servers.
    """

    section: Section
    values: dict[str, Line] = field(default_factory=dict)
    timeouts: dict[str, Timeout] = field(default_factory=dict)
    binds: list[Line] = field(default_factory=list)
    servers: list[Line] = field(default_factory=list)
    routes: list[Line] = field(default_factory=list)
    checks: list[Line] = field(default_factory=list)

    def over(self, below: "Proxy | None") -> "Proxy":
        """This, with what `below`, its defaults, says where it says nothing itself."""
        if below is None:
            return self
        servers = [line for line in below.servers if line.words[0] == "default-server"]
        ruled = {line.words[0] for line in self.checks} & _CHECK_RULES
        return Proxy(
            section=self.section,
            values=below.values | self.values,
            timeouts=below.timeouts | self.timeouts,
            binds=self.binds,
            servers=[*servers, *self.servers],
            routes=self.routes,
            checks=[*(line for line in below.checks if line.words[0] not in ruled), *self.checks],
        )


def mode_of(section: Section, default: str) -> str:
    """`tcp`, `http` or another: what the last `mode` of `section` says, else `default`."""
    found = [line.words[1] for line in section.lines if line.words[0] == "mode" and len(line.words) > 1]
    return found[-1] if found else default


def parents(sections: Sequence[Section]) -> dict[int, Section]:
    """The `defaults` of each proxy, by the line of its head: the named one, else the last before it."""
    found: dict[int, Section] = {}
    named: dict[str, Section] = {}
    last: Section | None = None
    for section in sections:
        if section.kind == "defaults":
            last = section
            named[section.name] = section
        elif section.kind in PROXIES:
            below = named.get(section.parent) if section.parent else last
            if below:
                found[section.number] = below
    return found


def proxy(section: Section, notes: Notes) -> Proxy:
    """What `section`, in mode tcp, says; the rest is covered, or a leftover."""
    found = Proxy(section)
    for line in section.lines:
        word = line.words[0]
        key = " ".join(line.words[:2]) if word in ("option", "timeout") else word
        if line.words[:3] == ("no", "option", "redispatch"):
            notes.leave(line.number, line.text, "relayd tries another target each time; dial_attempts = 1 tries one")
        elif line.words in (("option", "allbackups"), ("no", "option", "allbackups")):
            found.values["allbackups"] = line
            if word != "no":
                notes.cover(line.number, key)
        elif word in _KEPT:
            found.values[word] = line
        elif word == "timeout" and len(line.words) > 1 and line.words[1] in _TIMEOUTS:
            one = timeout(line, notes)
            found.timeouts.update({one.name: one} if one else {})
        elif word == "bind":
            found.binds.append(line)
        elif word in _SERVERS:
            found.servers.append(line)
        elif _is_about_checks(line):
            found.checks.append(line)
        elif word == "use_backend":
            found.routes.append(line)
        elif key in _COVERED or _says_nothing(line, key):
            notes.cover(line.number, key)
        else:
            notes.leave(line.number, line.text, _reason(line, key), opens=_keeps_out(line))
    return found


def _is_about_checks(line: Line) -> bool:
    words = line.words[1:] if line.words[0] == "no" else line.words
    return words[0] in _CHECK_RULES if words[:1] != ("option",) else not _CHECKS.isdisjoint(words[1:2])


def _says_nothing(line: Line, key: str) -> bool:
    """True for what no connection in mode tcp is different for."""
    second = line.words[1] if len(line.words) > 1 else ""
    if line.words[0] == "option":
        return key in _SILENT or second.startswith(_HTTP_OPTIONS)
    if line.words[0] == "timeout":
        return key in _SILENT or second.startswith(_HTTP_TIMEOUTS)
    return key in _SILENT or key == "no" or line.words[0].startswith(_HTTP)


def _reason(line: Line, key: str) -> str:
    if line.words[0] in ("tcp-request", "tcp-response"):
        return _NO_RULES if _keeps_out(line) else "relayd reads nothing of what it relays, and has no rules"
    return _REASONS.get(key) or _REASONS.get(line.words[0]) or "relayd has nothing like it"


def _keeps_out(line: Line) -> bool:
    return line.words[0] == "tcp-request" and not _ACTIONS.isdisjoint(line.words)
