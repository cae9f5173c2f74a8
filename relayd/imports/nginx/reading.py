"""nginx.conf as drafts of listeners: each `server` of a `stream` block, or of a file with the contents of one. Pure."""

from collections.abc import Sequence
from dataclasses import field
from functools import partial

from relayd.config.units import format_duration
from relayd.imports.binds import DGRAM, STREAM, BindLine, Group, grouped
from relayd.imports.draft import Draft, Imported, Names, Notes, Place, Setting
from relayd.imports.nginx import checks, upstreams
from relayd.imports.nginx.listens import listen
from relayd.imports.nginx.syntax import Directive, directives
from relayd.imports.nginx.times import milliseconds
from relayd.imports.nginx.upstreams import Goals
from relayd.imports.shares import ATTEMPTS, ATTEMPTS_MAX, dialled
from relayd.imports.text import joined, number
from relayd.values import dataclass

_WORKERS_MAX = 256
#: proxy_timeout where nothing says otherwise.
_TIMEOUT_MS = 600_000

_NO_TLS = "relayd does not speak TLS to a target, and would send plain text: the server is not carried over"
_NO_RULES = (
    "relayd has no rules of access in this version: keep others out by a firewall, or by a narrower bind address"
)
_NO_READING = "relayd reads nothing of what it relays"
_NOT_FOLLOWED = "is not followed: import what it names by itself: cat {} | relayd import --from nginx -"
_NO_LIMIT = "relayd has no limits of a listener in this version"

#: Directives of a stream block or a server that stand for keys, and those of them that are inherited.
_KEYS = frozenset(
    (
        *("proxy_timeout", "proxy_connect_timeout", "proxy_responses", "proxy_requests", "proxy_bind", "tcp_nodelay"),
        *("proxy_next_upstream", "proxy_next_upstream_tries", "proxy_ssl", "health_check", "health_check_timeout"),
    )
)
_COVERED = frozenset(("access_log", "error_log", "log_format", "proxy_socket_keepalive", "proxy_half_close"))
_SILENT_HEADS = ("proxy_ssl_", "ssl_", "proxy_buffer_size", "preread_buffer_size", "variables_hash", "map_hash")
_REASONS = {
    **dict.fromkeys(
        ("map", "geo", "split_clients", "set", "js_import", "js_set", "js_access", "js_preread"), _NO_READING
    ),
    **dict.fromkeys(("ssl_preread", "server_name", "js_filter", "preread_timeout", "pass", "return"), _NO_READING),
    **dict.fromkeys(("limit_conn", "limit_conn_zone", "limit_conn_log_level", "limit_conn_dry_run"), _NO_LIMIT),
    **dict.fromkeys(("proxy_download_rate", "proxy_upload_rate"), "relayd has no limit of bandwidth in this version"),
    **dict.fromkeys(("resolver", "resolver_timeout"), upstreams.NAME_SERVERS),
    "proxy_protocol": "relayd sends no PROXY header in this version: let the target expect none",
    "set_real_ip_from": "relayd does not read a PROXY header",
    "proxy_next_upstream_timeout": "relayd counts dials, not their time: dial_attempts times connect_timeout",
}
#: Of the file around the stream block: a service manager sees to it, or relayd itself.
_TOP_COVERED = frozenset(("user", "pid", "daemon", "error_log", "master_process", "load_module", "events", "include"))
_TOP_SILENT = (
    "worker_processes",
    "worker_rlimit",
    "worker_cpu",
    "worker_priority",
    "env",
    "thread_pool",
    "pcre_jit",
    "lock_file",
    "debug_",
)


@dataclass(slots=True)
class _Stream:
    """The contents of the stream block, or blocks: `inherited` has, by name, what servers do not say themselves."""

    notes: Notes
    names: Names = field(default_factory=Names)
    servers: list[Directive] = field(default_factory=list)
    upstreams: dict[str, Directive] = field(default_factory=dict)
    matches: dict[str, Directive] = field(default_factory=dict)
    inherited: dict[str, Directive] = field(default_factory=dict)
    goals: dict[str, Goals] = field(default_factory=dict)

    def goals_of(self, name: str) -> Goals:
        """Those of the upstream `name`, whose leftovers are told once."""
        if name not in self.goals:
            self.goals[name] = upstreams.goals(self.upstreams[name], self.notes)
        return self.goals[name]


def parse(text: str) -> Imported:
    """Every server as a listener, or as several where its `listen` have options that differ."""
    notes = Notes()
    found = directives(text, notes)
    stream = _Stream(notes)
    blocks = [one for one in found if one.name == "stream" and one.block is not None]
    for block in blocks:
        _stream(block.block or (), stream)
    if blocks:
        _top([one for one in found if one not in blocks], notes)
    else:
        contents = [one for one in found if _is_of_stream(one)]
        _stream(contents, stream)
        _top([one for one in found if one not in contents], notes)
    drafts = [draft for server in stream.servers for draft in _server(server, stream)]
    for name, upstream in stream.upstreams.items():
        if name not in stream.goals:
            notes.leave(upstream.line, upstream.text, "nothing that is carried over leads to it")
    return notes.imported(drafts)


def _is_of_stream(directive: Directive) -> bool:
    """True for what may stand in a stream block, where the file has none."""
    if directive.name in ("server", "upstream"):
        inner = {one.name for one in directive.block or ()}
        return inner.isdisjoint(("location", "root", "index", "try_files", "keepalive")) and directive.block is not None
    named = (*_KEYS, *_REASONS, "match", "access_log", "log_format", "allow", "deny")
    return directive.name in named or directive.name.startswith(_SILENT_HEADS)


def _top(found: Sequence[Directive], notes: Notes) -> None:
    """What stands around the stream block."""
    for one in found:
        value = joined(one.args)
        if one.name == "worker_processes" and (workers := number(value, 1, _WORKERS_MAX)):
            notes.daemon["workers"] = Setting(workers, one.line, "worker_processes")
        elif one.name == "worker_shutdown_timeout" and (ms := milliseconds(value)):
            notes.daemon["drain_timeout"] = Setting(format_duration(ms), one.line, "worker_shutdown_timeout")
        elif one.name == "include" and "modules-enabled" not in value:
            notes.leave(one.line, one.text, _NOT_FOLLOWED.format(value))
        elif one.name in ("http", "mail") or (one.name in ("server", "upstream") and one.block is not None):
            notes.leave(one.line, one.text, "is not of a stream block: relayd relays bytes, and speaks no HTTP")
        elif one.name in _TOP_COVERED or one.name.startswith(_TOP_SILENT):
            notes.cover(one.line, one.name)
        else:
            notes.leave(one.line, one.text, "relayd has nothing like it")


def _stream(contents: Sequence[Directive], stream: _Stream) -> None:
    notes = stream.notes
    for one in contents:
        if one.name == "server" and one.block is not None:
            stream.servers.append(one)
        elif one.name == "upstream" and one.block is not None:
            if joined(one.args) in stream.upstreams:
                notes.leave(one.line, one.text, "there is one of this name already")
            stream.upstreams.setdefault(joined(one.args), one)
        elif one.name == "match" and one.block is not None:
            stream.matches[joined(one.args)] = one
        elif one.name in _KEYS:
            stream.inherited[one.name] = one
        else:
            _other(one, notes)


def _other(one: Directive, notes: Notes) -> None:
    """What stands for no key."""
    if one.name in ("allow", "deny"):
        opens = one.args != ("all",) or one.name == "deny"
        notes.leave(one.line, one.text, _NO_RULES, opens=opens)
    elif one.name in _COVERED and one.args != ("off",):
        notes.cover(one.line, one.name)
    elif one.name == "include":
        notes.leave(one.line, one.text, _NOT_FOLLOWED.format(joined(one.args)))
    elif one.name not in _COVERED and (one.name in _REASONS or not one.name.startswith(_SILENT_HEADS)):
        notes.leave(one.line, one.text, _REASONS.get(one.name, "relayd has nothing like it"))
    elif one.name == "access_log":
        notes.leave(
            one.line, one.text, "relayd logs each ended connection; [log] access = false turns that off for all"
        )


def _server(server: Directive, stream: _Stream) -> list[Draft]:
    """The listeners of a `server`."""
    notes, leave = stream.notes, partial(stream.notes.leave, server.line, server.text)
    keys = dict(stream.inherited)
    listens: list[BindLine] = []
    passes: list[Directive] = []
    for one in server.block or ():
        if one.name == "listen":
            bind = listen(one, notes)
            listens += [bind] if bind else []
        elif one.name == "proxy_pass":
            passes.append(one)
        elif one.name in _KEYS:
            keys[one.name] = one
        else:
            _other(one, notes)
    tls = keys.get("proxy_ssl")
    if tls and tls.args == ("on",):
        notes.leave(tls.line, tls.text, _NO_TLS)
        return []
    goals, name = _goals(passes, stream)
    if not goals.targets or not listens:
        leave(f"no {'listen' if goals.targets else 'target'} is left, so that there is no listener")
        return []
    return [_draft(group, server, goals, name, keys, stream) for group in grouped(listens)]


def _draft(
    group: Group,
    server: Directive,
    goals: Goals,
    name: str,
    keys: dict[str, Directive],
    stream: _Stream,
) -> Draft:
    first = group.places[0].text
    port = first.rpartition(":")[2] if not first.startswith("unix:") else first.rpartition("/")[2].partition(".")[0]
    kind = "udp" if group.types == (DGRAM,) else "tcp"
    wanted = [f"{name}-{kind}" if kind == "udp" else f"{name}-{port}", f"{name}-{kind}-{port}"] if name else []
    goal = f"to {name}" if name else f"to {goals.targets[0].text}"
    return Draft(
        name=stream.names.take(*([name, *wanted] if name else [f"{kind}-{port}"])),
        line=server.line,
        title=f"server {goal}",
        types=group.types,
        binds=tuple(group.places),
        targets=goals.targets,
        settings={**_settings(group.types, keys, goals, stream), **group.settings},
        about_targets=goals.comment,
        home=goals.home,
    )


def _goals(passes: Sequence[Directive], stream: _Stream) -> tuple[Goals, str]:
    """Where a server sends its clients, and the name of the upstream, "" where it has none."""
    if not passes:
        return Goals(()), ""
    one = passes[-1]
    value = joined(one.args)
    if value in stream.upstreams:
        return stream.goals_of(value), value
    text = upstreams.address(value)
    if text is None:
        variable = "depends on what a client says: relayd has fixed targets" if "$" in value else ""
        stream.notes.leave(one.line, one.text, variable or "there is no upstream of this name, and it is no HOST:PORT")
        return Goals(()), ""
    return Goals((Place(text, one.line),)), ""


def _settings(types: tuple[str, ...], keys: dict[str, Directive], goals: Goals, stream: _Stream) -> dict[str, Setting]:
    notes = stream.notes
    found = dict(goals.settings)
    found.update(checks.settings(keys.get("health_check"), keys.get("health_check_timeout"), stream.matches, notes))
    silence = _time("proxy_timeout", keys, notes) or Setting(
        format_duration(_TIMEOUT_MS), 0, "nginx's own proxy_timeout"
    )
    connect = _time("proxy_connect_timeout", keys, notes)
    if STREAM in types:
        found["idle_timeout"] = silence
        found.update({"connect_timeout": connect} if connect else {})
        attempts = dialled(_attempts(keys, len(goals.targets), notes), goals.targets)
        found.update({"dial_attempts": attempts} if attempts else {})
        nodelay = keys.get("tcp_nodelay")
        if nodelay and nodelay.args == ("off",):
            found["nodelay"] = Setting(False, nodelay.line)
    if DGRAM in types:
        found["session_timeout"] = silence
        found.update(_responses(keys, notes))
    bind = keys.get("proxy_bind")
    if bind and bind.args != ("off",):
        if len(bind.args) == 1 and "$" not in bind.args[0]:
            found["source"] = Setting(_host(bind.args[0]), bind.line)
        else:
            notes.leave_once(bind.line, bind.text, "relayd dials from a fixed address of its own")
    return found


def _host(text: str) -> str:
    """The address alone: relayd dials from any port of it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _time(name: str, keys: dict[str, Directive], notes: Notes) -> Setting | None:
    one = keys.get(name)
    if one is None:
        return None
    ms = milliseconds(joined(one.args))
    if not ms:
        notes.leave_once(one.line, one.text, "not understood: a time such as 30s, 5m or 1h")
        return None
    return Setting(format_duration(ms), one.line)


def _attempts(keys: dict[str, Directive], targets: int, notes: Notes) -> Setting | None:
    """nginx tries every server, or as many as proxy_next_upstream_tries says; relayd three."""
    off, tries = keys.get("proxy_next_upstream"), keys.get("proxy_next_upstream_tries")
    if off and off.args == ("off",):
        return Setting(1, off.line, "proxy_next_upstream off")
    value = number(joined(tries.args), 0, 1_000_000) if tries else 0
    if tries and value is None:
        notes.leave_once(tries.line, tries.text, "not understood: a number")
    if tries and value:
        return Setting(min(value, ATTEMPTS_MAX), tries.line, "proxy_next_upstream_tries")
    if targets > ATTEMPTS:
        return Setting(min(targets, ATTEMPTS_MAX), 0, "as nginx: every target")
    return None


def _responses(keys: dict[str, Directive], notes: Notes) -> dict[str, Setting]:
    responses, requests = keys.get("proxy_responses"), keys.get("proxy_requests")
    if requests:
        why = 'relayd counts answers, not questions; session = "datagram" sends each one on its own, without answers'
        notes.leave_once(requests.line, requests.text, why)
    if responses is None:
        return {}
    value = number(joined(responses.args), 0, 1_000_000)
    if value:
        return {"max_responses": Setting(value, responses.line)}
    why = 'for what goes one way, session = "datagram": then answers are dropped'
    notes.leave_once(responses.line, responses.text, why if value == 0 else "not understood: a number")
    return {}
