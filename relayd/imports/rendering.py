"""Drafts as the text of a relay.toml. Pure, and the same text for the same drafts."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from relayd.config.problems import key_text, printable, quote
from relayd.imports.draft import Draft, Imported, Leftover, Place, Setting, Value
from relayd.imports.pooling import POOL_KEYS, Pool, pools
from relayd.imports.text import shown

#: The order of keys in a listener: where it listens, where it forwards to, what ends a connection.
_ORDER = (
    *("backlog", "interface", "ipv6_only", "freebind", "fast_open", "defer_accept", "mode", "user", "group"),
    *(*POOL_KEYS, "source", "connect_timeout", "idle_timeout", "half_close_timeout", "keepalive"),
    *("tcp_user_timeout", "congestion", "nodelay", "session_timeout", "max_responses", "session"),
)
_BEFORE_TARGETS = _ORDER[:9]
#: Keys that move into [defaults] when all listeners that they are about agree, and the types that they are about.
_SHARED = {
    **dict.fromkeys(("balance", "health_check", "fail_open"), ("stream", "dgram")),
    **dict.fromkeys(
        ("dial_attempts", "connect_timeout", "idle_timeout", "half_close_timeout", "keepalive"), ("stream",)
    ),
    "session_timeout": ("dgram",),
}
_WIDTH = 110
#: Of lines of one kind, those that are named.
LINES_SHOWN = 20


def to_toml(imported: Imported, file: str) -> str:
    """The text, ending with a newline. `file` is what to call the file that all of it is from."""
    shared = pools(imported.drafts)
    defaults = _defaults(imported.drafts, shared)
    pool_of = {draft.name: pool for pool in shared for draft in pool.drafts}
    lines = [f"# From {shown(file)}, by `relayd import`.", *_remarks(imported)]
    for table, settings in (("daemon", imported.daemon), ("defaults", defaults)):
        if settings:
            lines += ["", f"[{table}]", *_settings(settings, tuple(settings))]
    for draft in imported.drafts:
        less = replace(draft, settings={key: one for key, one in draft.settings.items() if key not in defaults})
        lines += ["", *_comment(f"Line {draft.line}: {draft.title}"), *_listener(less, pool_of.get(draft.name))]
    for pool in shared:
        lines += ["", *_comment(f"Line {pool.home.line}: {pool.home.title}"), *_pool(pool, defaults)]
    return "\n".join(lines) + "\n"


def _remarks(imported: Imported) -> Iterator[str]:
    left = imported.leftovers
    if any(one.opens for one in left):
        yield from _comment(
            f"OPEN TO EVERYBODY: rules about who may connect were not carried over ({opening_lines(left)}). "
            "Keep others out by a firewall, or by narrower addresses in bind, before this file is used."
        )
    if left:
        yield from _comment(f"Not carried over: {len(left)} things; `relayd import` lists each with its reason.")
    if imported.covered:
        by_text: dict[str, list[str]] = {}
        for line, text in imported.covered:
            by_text.setdefault(shown(text), []).append(str(line))
        needless = ", ".join(
            f"{text} ({', '.join(numbers[:LINES_SHOWN])}{', …' if len(numbers) > LINES_SHOWN else ''})"
            for text, numbers in by_text.items()
        )
        yield from _comment(
            "These need no line here, as relayd or its unit does so anyway or as they change nothing about what is "
            f"relayed: {needless}."
        )


def opening_lines(left: Sequence[Leftover]) -> str:
    """The lines of those leftovers that kept somebody out."""
    numbers = list(dict.fromkeys(str(one.line) for one in left if one.opens))
    more = f" and {len(numbers) - LINES_SHOWN} more" if len(numbers) > LINES_SHOWN else ""
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(numbers[:LINES_SHOWN])}{more}"


def _defaults(drafts: Sequence[Draft], shared: Sequence[Pool]) -> dict[str, Setting]:
    """What all listeners agree on; of what a pool may set, all pools and all listeners without one."""
    in_pools = {draft.name for pool in shared for draft in pool.drafts}
    listeners = [(draft.settings, set(draft.types)) for draft in drafts]
    alone = [(draft.settings, set(draft.types)) for draft in drafts if draft.name not in in_pools]
    homes = [*((pool.settings, pool.types) for pool in shared), *alone]
    defaults: dict[str, Setting] = {}
    for key, about in _SHARED.items():
        tables = homes if key in POOL_KEYS else listeners
        given = [settings.get(key) for settings, types in tables if not types.isdisjoint(about)]
        first = given[0] if len(given) > 1 else None
        if first is not None and all(one is not None and one.value == first.value for one in given):
            same_comment = all(one is not None and one.comment == first.comment for one in given)
            defaults[key] = first if same_comment else replace(first, comment="")
    return defaults


def _listener(draft: Draft, pool: Pool | None) -> Iterator[str]:
    yield f"[{key_text(('listeners', draft.name))}]"
    if draft.types != ("stream",):
        types = [quote(name) for name in draft.types]
        yield f"type = {types[0]}" if len(types) == 1 else f"type = [{', '.join(types)}]"
    binds = [quote(place.text) for place in draft.binds]
    yield f"bind = {binds[0] if len(binds) == 1 else _array(binds)}"
    yield from _settings(draft.settings, _BEFORE_TARGETS)
    if pool:
        yield f"pool = {quote(pool.name)}"
    else:
        yield from _targets(draft)
    rest = [key for key in _ORDER if key not in _BEFORE_TARGETS and not (pool and key in POOL_KEYS)]
    yield from _settings(draft.settings, rest)


def _pool(pool: Pool, defaults: Mapping[str, Setting]) -> Iterator[str]:
    yield f"[{key_text(('pools', pool.name))}]"
    yield from _targets(pool.drafts[0])
    yield from _settings(pool.settings, [key for key in POOL_KEYS if key not in defaults])


def _targets(draft: Draft) -> Iterator[str]:
    yield from _commented(f"targets = {_array([_target(place) for place in draft.targets])}", draft.about_targets)


def _settings(settings: Mapping[str, Setting], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        setting = settings.get(key)
        if setting is not None:
            yield from _commented(f"{key} = {_value(setting.value)}", setting.comment)


def _commented(text: str, comment: str) -> Iterator[str]:
    """`text` with `comment` behind it, or above it where that would be too long."""
    comment = printable(comment)
    if comment and ("\n" in text or len(text) + len(comment) + 3 > _WIDTH):
        yield from _comment(comment)
        yield text
    else:
        yield f"{text} # {comment}" if comment else text


def _target(place: Place) -> str:
    """A plain address, where that says it all."""
    table: dict[str, Value] = {"address": place.text}
    table.update({"weight": place.weight} if place.weight != 1 else {})
    table.update({"backup": True} if place.backup else {})
    table.update({"max_connections": place.max_connections} if place.max_connections else {})
    return _value(table) if len(table) > 1 else quote(place.text)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value) if isinstance(value, int) else quote(value)


def _array(texts: list[str]) -> str:
    line = f"[{', '.join(texts)}]"
    if len(line) + len("targets = ") <= _WIDTH:
        return line
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
