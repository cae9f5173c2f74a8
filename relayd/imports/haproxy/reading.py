"""haproxy.cfg as drafts of listeners: each `listen`, and each `frontend` with its `backend`, in mode tcp. Pure."""

from collections.abc import Sequence
from functools import partial

from relayd.config.units import format_duration
from relayd.imports.binds import Group, grouped
from relayd.imports.draft import Draft, Home, Imported, Names, Notes, Place, Setting
from relayd.imports.haproxy import balancing, checks, timeouts
from relayd.imports.haproxy.binds import UnixDefaults, bind_lines, unix_defaults
from relayd.imports.haproxy.proxies import NO_CONDITIONS, Proxy, mode_of, parents, proxy
from relayd.imports.haproxy.servers import Server, carried, servers, source, source_of
from relayd.imports.haproxy.syntax import Line, Section, sections
from relayd.imports.shares import ATTEMPTS_MAX, dialled
from relayd.imports.text import joined, number
from relayd.values import dataclass

_FRONT_KINDS = ("frontend", "listen")
_BACK_KINDS = ("backend", "listen")
_NOT_TCP = 'mode {}: relayd reads nothing of what it relays. To relay bytes as they are, write "mode tcp"'
_WORKERS_MAX = 256
#: Words of the global section that need nothing here, or begin so: a service manager sees to it, relayd does it by
#: itself, or it is about HTTP, TLS and how HAProxy works inside.
_GLOBAL_COVERED = (
    *("daemon", "pidfile", "master-worker", "log", "user", "group", "chroot", "uid", "gid", "stats", "setenv", "node"),
    *("ssl-", "tune.", "ca-base", "crt-base", "description", "localpeer", "issuers-", "lua-", "h1-", "h2-", "ulimit-n"),
    *(
        "spread-checks",
        "max-spread-checks",
        "cpu-",
        "nbproc",
        "presetenv",
        "noepoll",
        "nopoll",
        "noreuseport",
        "insecure-",
        "harden.",
    ),
)


@dataclass(frozen=True, slots=True)
class _Goals:
    """Where the clients of a proxy go to, the keys about that, and what is to be said of it. `home` is None where no
    other proxy can come to it.
    """

    servers: list[Server]
    settings: dict[str, Setting]
    comment: str
    home: Home | None


@dataclass(slots=True)
class _File:
    """The proxies of a file, as they are needed: a backend that nobody comes to is not read."""

    below: dict[int, Section]
    backs: dict[str, Section]
    notes: Notes
    read: dict[int, Proxy]
    goals: dict[int, _Goals]

    def proxy(self, section: Section) -> Proxy:
        """`section` over its defaults. What both say is noted once, however many come to it."""
        for one in (section, self.below.get(section.number)):
            if one and one.number not in self.read:
                self.read[one.number] = proxy(one, self.notes)
        below = self.below.get(section.number)
        return self.read[section.number].over(self.read[below.number] if below else None)

    def mode(self, section: Section) -> str:
        """The mode that `section` is in; HAProxy's own default is tcp."""
        below = self.below.get(section.number)
        return mode_of(section, mode_of(below, "tcp") if below else "tcp")

    def goals_of(self, back: Proxy) -> _Goals:
        """Those of `back`, whose leftovers are told once."""
        at = back.section.number
        if at not in self.goals:
            self.goals[at] = _goals(back, self.notes)
        return self.goals[at]


def parse(text: str) -> Imported:
    """Every proxy in mode tcp as a listener, or as several where its binds have options that differ."""
    notes, names = Notes(), Names()
    found = sections(text, notes)
    backs = {section.name: section for section in found if section.kind in _BACK_KINDS}
    file = _File(parents(found), backs, notes, {}, {})
    unix = UnixDefaults()
    for section in found:
        if section.kind == "global":
            unix = _global(section, notes, unix)
        elif section.kind not in (*_FRONT_KINDS, "backend", "defaults"):
            notes.leave(section.number, section.text, "relayd has nothing like this section")
    drafts: list[Draft] = []
    for section in found:
        if section.kind in _FRONT_KINDS:
            drafts += _front(section, file, names, unix)
    _unused_backs(found, file, notes)
    return notes.imported(drafts)


def _front(section: Section, file: _File, names: Names, unix: UnixDefaults) -> list[Draft]:
    """The listeners of a `frontend` or `listen`."""
    leave = partial(file.notes.leave, section.number, section.text)
    mode = file.mode(section)
    if mode != "tcp":
        leave(_NOT_TCP.format(mode))
        return []
    front = file.proxy(section)
    if "disabled" in front.values:
        leave("disabled there")
        return []
    back = _back_of(front, file)
    if back is None:
        return []
    goals = file.goals_of(back)
    binds = [one for line in front.binds for one in bind_lines(line, file.notes, unix)]
    if not binds or not goals.servers:
        leave(f"no {'bind' if goals.servers else 'server'} is left, so that there is no listener")
        return []
    settings = {**_settings(front, back, goals.servers, file.notes), **goals.settings}
    backlog = front.values.get("backlog")
    groups = grouped(binds)
    title = section.text if back.section is section else f"{section.text}, {back.section.text}"
    return [_draft(group, title, goals, settings, backlog, section, names, file.notes) for group in groups]


def _draft(
    group: Group,
    title: str,
    goals: _Goals,
    settings: dict[str, Setting],
    backlog: Line | None,
    section: Section,
    names: Names,
    notes: Notes,
) -> Draft:
    ports = [
        text.rpartition(":")[2] for place in group.places for text in (place.text,) if not text.startswith("unix:")
    ]
    targets: list[Place] = []
    for server in goals.servers:
        try:
            place = Place(server.text(ports), server.line.number, server.weight, server.backup, server.max_connections)
            targets.append(place)
        except ValueError as error:
            notes.leave(server.line.number, server.line.text, str(error))
    own = dict(settings)
    if backlog and (value := number(joined(backlog.words[1:]), 1, 65_535)):
        own["backlog"] = Setting(value, backlog.number)
    own.update(group.settings)
    name = names.take(section.name)
    places = tuple(group.places)
    return Draft(name, section.number, title, group.types, places, tuple(targets), own, goals.comment, goals.home)


def _back_of(front: Proxy, file: _File) -> Proxy | None:
    """Where the clients of `front` go to; None, and a leftover, when that is nowhere."""
    leave = partial(file.notes.leave, front.section.number, front.section.text)
    name, at = "", 0
    for route in front.routes:
        if len(route.words) == 2 and not name:
            name, at = route.words[1], route.number
        else:
            file.notes.leave(route.number, route.text, NO_CONDITIONS)
    default = front.values.get("default_backend")
    if not name and default and len(default.words) > 1:
        name, at = default.words[1], default.number
    if front.section.kind == "listen" and not name:
        return front
    if not name:
        leave("no default_backend: there is nowhere to send its clients")
        return None
    section = file.backs.get(name)
    if section is None or file.mode(section) != "tcp":
        why = "is not in mode tcp" if section else "does not exist"
        file.notes.leave(at, f"backend {name}", f"{why}, so that {front.section.text} is not carried over")
        return None
    return file.proxy(section)


def _goals(back: Proxy, notes: Notes) -> _Goals:
    line, backups = back.values.get("balance"), back.values.get("allbackups")
    all_backups, first = backups is not None and backups.words[0] != "no", balancing.is_first(line)
    found = servers(back.servers, notes)
    kept = carried(balancing.ordered(found) if first else found, notes, all_backups=all_backups)
    keys = {"balance": balancing.balance(line, kept, notes), "source": _source(back, kept, notes)}
    section = back.section
    return _Goals(
        servers=balancing.shared(kept, notes, weighted=not first),
        settings={
            **{key: setting for key, setting in keys.items() if setting},
            **checks.settings(kept, back, notes, shares=not first),
        },
        comment=balancing.about(kept, all_backups=all_backups),
        home=Home(section.name, section.number, section.text) if section.name else None,
    )


def _settings(front: Proxy, back: Proxy, kept: Sequence[Server], notes: Notes) -> dict[str, Setting]:
    found = timeouts.settings(front.timeouts, back.timeouts, notes)
    keys = {"dial_attempts": dialled(_attempts(back, notes), kept), "keepalive": _keepalive(front, back, notes)}
    found.update({key: setting for key, setting in keys.items() if setting})
    return found


def _attempts(back: Proxy, notes: Notes) -> Setting | None:
    """`retries`."""
    line = back.values.get("retries")
    if line is None:
        return None
    value = number(joined(line.words[1:]), 0, 1_000_000)
    if value is None:
        notes.leave(line.number, line.text, "not understood: retries NUMBER")
        return None
    why = f"retries {value}, and the first; each dial goes to the next target"
    return Setting(min(value + 1, ATTEMPTS_MAX), line.number, why)


def _keepalive(front: Proxy, back: Proxy, notes: Notes) -> Setting | None:
    """`clitcpka-…` and `srvtcpka-…`: one for both sides, that of clients first."""
    table: dict[str, str | int] = {}
    at = 0
    for word, key in (("idle", "idle"), ("intvl", "interval"), ("cnt", "probes")):
        lines = [line for line in (front.values.get(f"clitcpka-{word}"), back.values.get(f"srvtcpka-{word}")) if line]
        made = [_keepalive_value(line, key) for line in lines]
        for line, value in zip(lines, made, strict=True):
            if value is None:
                notes.leave(line.number, line.text, "not understood: whole seconds, or a number of probes")
            elif key not in table:
                table[key], at = value, line.number
            elif table[key] != value:
                notes.leave(line.number, line.text, "relayd has one keepalive for both sides: that of clients is taken")
    return Setting(table, at, "for both sides") if table else None


def _keepalive_value(line: Line, key: str) -> str | int | None:
    text = joined(line.words[1:])
    if key == "probes":
        return number(text, 1, 127)
    ms = timeouts.milliseconds(text + "s" if text.isdecimal() else text)
    return format_duration(ms) if ms and ms % 1_000 == 0 else None


def _source(back: Proxy, kept: Sequence[Server], notes: Notes) -> Setting | None:
    """Where targets are dialled from: what their lines say, else that of the backend."""
    if any(server.source for server in kept):
        return source_of(kept, notes)
    line = back.values.get("source")
    if line is None:
        return None
    address = source(line.words[1:], partial(notes.leave, line.number, line.text))
    return Setting(address, line.number) if address else None


def _unused_backs(found: Sequence[Section], file: _File, notes: Notes) -> None:
    for section in found:
        if section.kind == "backend" and section.number not in file.read:
            mode = file.mode(section)
            reason = "nothing that is carried over leads to it" if mode == "tcp" else _NOT_TCP.format(mode)
            notes.leave(section.number, section.text, reason)


def _global(section: Section, notes: Notes, unix: UnixDefaults) -> UnixDefaults:
    """`[daemon]`, of what the global section says."""
    for line in section.lines:
        word, value = line.words[0], joined(line.words[1:])
        if word == "nbthread" and (workers := number(value, 1, _WORKERS_MAX)):
            notes.daemon["workers"] = Setting(workers, line.number, f"nbthread {workers}")
        elif word == "hard-stop-after" and (ms := timeouts.milliseconds(value)):
            notes.daemon["drain_timeout"] = Setting(format_duration(ms), line.number, "hard-stop-after")
        elif word == "unix-bind":
            unix = unix_defaults(line, notes)
        elif word == "maxconn":
            notes.leave(line.number, line.text, "the limit on open files is the limit here (LimitNOFILE= of the unit)")
        elif word.startswith(_GLOBAL_COVERED):
            notes.cover(line.number, word)
        else:
            notes.leave(line.number, line.text, "relayd has nothing like it")
    return unix
