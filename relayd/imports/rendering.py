"""Drafts as the text of a relay.toml. Pure, and the same text for the same drafts."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace

from relayd.config.problems import key_text, printable, quote
from relayd.imports.draft import Draft, Imported, Leftover, Place, Setting, Value
from relayd.imports.text import shown

#: The order of keys in a listener: where it listens, where it forwards to, what ends a connection.
_ORDER = (
    *("backlog", "interface", "ipv6_only", "freebind", "fast_open", "defer_accept", "mode", "user", "group"),
    *("balance", "dial_attempts", "source", "connect_timeout", "idle_timeout", "half_close_timeout", "keepalive"),
    *("tcp_user_timeout", "congestion", "nodelay", "session_timeout", "max_responses", "session"),
)
_BEFORE_TARGETS = _ORDER[:9]
#: Keys that move into [defaults] when all listeners that they are about agree, and the types that they are about.
_SHARED = {
    "balance": ("stream", "dgram"),
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
    defaults, drafts = _with_defaults(imported.drafts)
    lines = [f"# From {shown(file)}, by `relayd import`.", *_remarks(imported)]
    for table, settings in (("daemon", imported.daemon), ("defaults", defaults)):
        if settings:
            lines += ["", f"[{table}]", *_settings(settings, tuple(settings))]
    for draft in drafts:
        lines += ["", *_comment(f"Line {draft.line}: {draft.title}"), *_listener(draft)]
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


def _with_defaults(drafts: tuple[Draft, ...]) -> tuple[dict[str, Setting], tuple[Draft, ...]]:
    """What all listeners agree on, and the listeners without it."""
    defaults: dict[str, Setting] = {}
    for key, about in _SHARED.items():
        given = [draft.settings.get(key) for draft in drafts if not set(about).isdisjoint(draft.types)]
        first = given[0] if len(given) > 1 else None
        if first is not None and all(one is not None and one.value == first.value for one in given):
            same_comment = all(one is not None and one.comment == first.comment for one in given)
            defaults[key] = first if same_comment else replace(first, comment="")
    kept = tuple(
        replace(draft, settings={key: one for key, one in draft.settings.items() if key not in defaults})
        for draft in drafts
    )
    return defaults, kept


def _listener(draft: Draft) -> Iterator[str]:
    yield f"[{key_text(('listeners', draft.name))}]"
    if draft.types != ("stream",):
        types = [quote(name) for name in draft.types]
        yield f"type = {types[0]}" if len(types) == 1 else f"type = [{', '.join(types)}]"
    binds = [quote(place.text) for place in draft.binds]
    yield f"bind = {binds[0] if len(binds) == 1 else _array(binds)}"
    yield from _settings(draft.settings, _BEFORE_TARGETS)
    yield from _commented(f"targets = {_array([_target(place) for place in draft.targets])}", draft.about_targets)
    yield from _settings(draft.settings, tuple(key for key in _ORDER if key not in _BEFORE_TARGETS))


def _settings(settings: dict[str, Setting], keys: tuple[str, ...]) -> Iterator[str]:
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
    table: dict[str, str | int] = {"address": place.text}
    table.update({"weight": place.weight} if place.weight != 1 else {})
    table.update({"backup": True} if place.backup else {})
    return _value(table) if len(table) > 1 else quote(place.text)


def _value(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return str(value) if isinstance(value, int) else quote(value)


def _array(texts: list[str]) -> str:
    line = f"[{', '.join(texts)}]"
    if len(line) + len("targets = ") <= _WIDTH:
        return line
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(printable(text), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
