"""`bind` lines of HAProxy as what a listener binds (section 5.1 of its configuration manual). Pure."""

import re
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from relayd.config.units import format_duration
from relayd.imports.binds import STREAM, BindLine
from relayd.imports.draft import Notes, Place, Setting
from relayd.imports.haproxy.syntax import Line
from relayd.imports.haproxy.timeouts import milliseconds
from relayd.imports.text import host_and_port, joined, number
from relayd.values import dataclass

_NO_TLS = "relayd does not end TLS: this address is not carried over. Let the targets do it, and bind it without ssl"
_NOT_PADDED = (
    "carried over as a plain abstract name: HAProxy pads the names of abns@ with NUL bytes, so that whoever "
    "connects by abns@ has to use abnsz@ from now on"
)
_NO_HEADER = (
    "relayd does not read a PROXY header: it is relayed as it comes, which is right only where the target takes one"
)
_TRANSPARENT = (
    "carried over as freebind: an address that is not here yet is bound; connections that the kernel redirects "
    "(TPROXY) are not taken"
)
#: Words of a bind with a value behind them that have no place here, and those without.
_UNUSED_WITH_VALUE = {
    **dict.fromkeys(("maxconn", "nice", "mss", "tcp-md5sig", "namespace", "proto", "label", "guid-prefix"), ""),
    **dict.fromkeys(("process", "thread", "shards"), "every worker of relayd accepts from every socket"),
    **dict.fromkeys(("level", "severity-output"), "relayd's own admin socket is [admin] listen"),
}
_SILENT_WITH_VALUE = ("name", "id")
_PREFIX = re.compile(r"([a-z0-9]+)@(.*)\Z", re.DOTALL)
_PORTS = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?\Z")

_INET_KEYS = ("backlog", "interface", "freebind", "fast_open", "defer_accept", "tcp_user_timeout", "congestion")
_UNIX_KEYS = ("backlog", "mode", "user", "group")


@dataclass(frozen=True, slots=True)
class UnixDefaults:
    """`unix-bind` of the global section: what goes before each path, and options of each."""

    prefix: str = ""
    options: tuple[tuple[str, Setting], ...] = ()


def bind_lines(line: Line, notes: Notes, unix: UnixDefaults) -> list[BindLine]:
    """Every address of a `bind` line."""
    if len(line.words) < 2:
        notes.leave(line.number, line.text, "not understood: the address is missing")
        return []
    options = _options(line, notes)
    if options is None:
        return []
    found: list[BindLine] = []
    for address in line.words[1].split(","):
        text = _address(address, line, notes, unix.prefix)
        if text is None:
            continue
        keys = _UNIX_KEYS if text.startswith("unix:") else _INET_KEYS
        own: dict[str, Setting | None] = {key: options.get(key) for key in keys}
        if text.startswith("unix:/"):
            own.update({key: options.get(key) or setting for key, setting in unix.options})
        elif text.startswith("["):
            own["ipv6_only"] = options.get("ipv6_only")
        found.append(BindLine(Place(text, line.number), STREAM, own))
    return found


def _address(text: str, line: Line, notes: Notes, prefix: str) -> str | None:
    """An address of relayd; None, and a leftover, where there is none like it."""
    leave = partial(notes.leave, line.number, f"bind {text}")
    if "$" in text:
        leave("an environment variable: its value is not known here; write it out")
        return None
    family, bare = _family(text)
    if family in ("unix", "uxst") or (not family and bare.startswith("/")):
        path = re.sub("//+", "/", prefix + bare)
        if not path.startswith("/"):
            leave("the path of a Unix socket is absolute in relayd")
        return f"unix:{path}" if path.startswith("/") else None
    if family in ("abns", "abnsz"):
        if family == "abns":
            leave(_NOT_PADDED)
        return f"unix:@{bare}"
    if family not in ("", "tcp", "tcp4", "tcp6", "ipv4", "ipv6", "mptcp", "mptcp4", "mptcp6"):
        reason = {"fd": 'a socket that was passed: name it in a .socket unit, and bind = "systemd:NAME"'}
        leave(reason.get(family, f"relayd has nothing like {family}@"))
        return None
    if family.startswith("mptcp"):
        leave("carried over as plain TCP: relayd does not speak MPTCP")
    return _inet(family, bare, leave)


def _inet(family: str, bare: str, leave: Callable[[str], None]) -> str | None:
    host, colon, ports = bare.rpartition(":")
    if not colon or not _PORTS.match(ports):
        leave("not understood: an address is HOST:PORT or HOST:FIRST-LAST")
        return None
    if host in ("", "*"):
        host = "::" if family.endswith("6") else "0.0.0.0"
    return host_and_port(host, ports)


def _family(text: str) -> tuple[str, str]:
    found = _PREFIX.match(text)
    return (found[1], found[2]) if found else ("", text)


#: Makes a setting of the words behind an option, or None where they are not understood.
_Make: TypeAlias = Callable[[str, int], Setting | None]


def _plain(text: str, at: int) -> Setting | None:
    return Setting(text, at) if text and "$" not in text else None


def _mode(text: str, at: int) -> Setting | None:
    return Setting(f"0{text.lstrip('0'):0>3}", at) if re.match(r"0?[0-7]{1,3}\Z", text) else None


def _backlog(text: str, at: int) -> Setting | None:
    value = number(text, 1, 65_535)
    return None if value is None else Setting(value, at)


def _time(text: str, at: int) -> Setting | None:
    ms = milliseconds(text)
    return Setting(format_duration(ms), at, "for both sides, where HAProxy had it for one") if ms else None


_WITH_VALUE: dict[str, tuple[str, _Make]] = {
    "interface": ("interface", _plain),
    "mode": ("mode", _mode),
    "user": ("user", _plain),
    "uid": ("user", _plain),
    "group": ("group", _plain),
    "gid": ("group", _plain),
    "backlog": ("backlog", _backlog),
    "tcp-ut": ("tcp_user_timeout", _time),
    "cc": ("congestion", _plain),
}
_SWITCHES: dict[str, tuple[str, str | bool] | None] = {
    "v6only": ("ipv6_only", True),
    "v4v6": None,
    "tfo": ("fast_open", True),
    "defer-accept": ("defer_accept", "1s"),
    "transparent": ("freebind", True),
    "accept-proxy": None,
}


def unix_defaults(line: Line, notes: Notes) -> UnixDefaults:
    """A `unix-bind` line."""
    words = line.words[1:]
    at = words.index("prefix") if "prefix" in words else len(words)
    prefix, kept = " ".join(words[at + 1 : at + 2]), (*words[:at], *words[at + 2 :])
    options = _options(Line(line.number, ("unix-bind", "", *kept)), notes) or {}
    return UnixDefaults(prefix, tuple((key, one) for key, one in options.items() if key in _UNIX_KEYS))


def _options(line: Line, notes: Notes) -> dict[str, Setting] | None:
    """What stands behind the address; None, and a leftover, where the bind cannot be carried over."""
    found: dict[str, Setting] = {}
    words = list(line.words[2:])
    while words:
        word = words.pop(0)
        if word in ("ssl", "crt", "crt-list", "quic"):
            notes.leave(line.number, line.text, _NO_TLS)
            return None
        if word in _SWITCHES:
            switch = _SWITCHES[word]
            if switch:
                found[switch[0]] = Setting(switch[1], line.number)
            told = {"accept-proxy": _NO_HEADER, "transparent": _TRANSPARENT}.get(word)
            if told:
                notes.leave(line.number, word, told)
            continue
        takes_value = word in _WITH_VALUE or word in _UNUSED_WITH_VALUE or word in _SILENT_WITH_VALUE
        value = words.pop(0) if takes_value and words else ""
        text = f"{word} {value}".strip()
        if word in _WITH_VALUE:
            key, make = _WITH_VALUE[word]
            setting = make(value, line.number)
            if setting:
                found[key] = setting
            else:
                notes.leave(line.number, text, "not understood")
        elif word in _UNUSED_WITH_VALUE:
            notes.leave(line.number, text, _UNUSED_WITH_VALUE[word] or "relayd has no such option of a bind")
        elif word not in _SILENT_WITH_VALUE:
            notes.leave(line.number, joined([word, *words]), "relayd has no such option of a bind")
            break
    return found
