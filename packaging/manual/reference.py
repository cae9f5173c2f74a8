"""docs/reference.md."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import relayd
from manual import comments, facts
from manual.commands import exit_codes
from manual.keys import KeyTable, tables
from relayd.control.reload import STATUS_COUNTS
from relayd.log.events import Event
from relayd.outcomes import Drop, Outcome

_PACKAGE = Path(relayd.__file__).parent

_HEAD = """\
# Reference

Every key, outcome, exit code, event, field and count of this version. It is made of the code by `packaging/dev manual`:
what is wrong here is wrong there. How they work together is in [configuration.md](configuration.md),
[behaviour.md](behaviour.md) and [logging.md](logging.md).

[Keys of relay.toml](#keys-of-relaytoml) · [Addresses](#addresses) · [Exit codes](#exit-codes) · [Signals](#signals) ·
[Outcomes](#outcomes) · [Lost datagrams](#lost-datagrams) · [Fields of access lines](#fields-of-access-lines) ·
[Events](#events) · [Counts](#counts)
"""
_KEYS = f"""\
## Keys of relay.toml

{facts.DURATIONS} In a listener, a key that can do nothing for it is an error; in `[defaults]` it has no effect there.
"""
_OUTCOMES = """\
## Outcomes

How a connection or a session ended. The code is HAProxy's pair of letters (its manual, "Session state at
disconnection"): who or what ended it (`C` client, `S` target, `R` a resource, `K` an operator, `I` a bug, lower case a
timeout on that side), and when (`C` connecting, `D` while data moved, `-` in order). HAProxy has no state like those
of `i`, `h` and `t`. The side is who caused the end.
"""
_DROPS = """\
## Lost datagrams

Why a datagram was not passed on.
"""
_FIELDS = """\
## Fields of access lines

In JSON by these names, in the journal in upper case, where those that are null are left out. A JSON line has `time`,
`level` and `event` as well, a journal entry EVENT, MESSAGE, MESSAGE_ID and PRIORITY. Names that end with `_ms` are
milliseconds.
"""
_EVENTS = """\
## Events

`journalctl MESSAGE_ID=...` finds all lines of one kind; an id never changes, and is never given to another kind.
"""
_COUNTS = """\
## Counts

Each worker counts them for each listener. But for `active` they never go backwards, neither at a reload nor at a
restart. `relayd status` shows the sums of those that are marked, and [metrics](metrics.md) those of all.
"""


def page() -> str:
    """The text, ending with a newline."""
    parts = [
        _HEAD,
        _KEYS,
        *map(_keys, tables()),
        f"## Addresses\n\n{_addresses()}\n{facts.ADDRESSES_NOTE}\n",
        f"## Exit codes\n\n{_table(('code', 'meaning'), ((f'{code}', text) for code, text in exit_codes().items()))}",
        f"## Signals\n\nTo the control process:\n\n{_table(('signal', 'what it does'), facts.SIGNALS)}",
        f"{_OUTCOMES}\n{_table(('outcome', 'code', 'side', 'meaning'), _outcomes())}",
        f"{_DROPS}\n{_table(('reason', 'meaning'), ((f'`{each.value}`', each.meaning) for each in Drop))}",
        f"{_FIELDS}\n{_table(('field', 'meaning'), _fields())}",
        f"{_EVENTS}\n{_table(('event', 'level', 'MESSAGE_ID', 'meaning'), _events())}",
        f"{_COUNTS}\n{_table(('count', 'of', 'in `status`', 'meaning'), _counts())}",
    ]
    return "\n".join(parts)


def _keys(table: KeyTable) -> str:
    title = (
        table.title
        if not table.title.startswith("[")
        else f"`{table.title}`".replace(", ", "`, `").replace(" and ", "` and `")
    )
    rows = (
        (
            f"`{key.name}`",
            key.form,
            key.default or "required",
            *((key.applies,) if table.of_listeners else ()),
            key.meaning,
        )
        for key in table.keys
    )
    columns = ("key", "value", "default", *(("for",) if table.of_listeners else ()), "meaning")
    return f"### {title}\n\n{table.meaning}\n\n{_table(columns, rows)}"


def _addresses() -> str:
    rows = ((f"`{text}`", bind, target, meaning) for text, bind, target, meaning in facts.ADDRESSES)
    return _table(("address", "`bind`", "`targets`", "meaning"), rows)


def _outcomes() -> Iterator[tuple[str, ...]]:
    for each in Outcome:
        side = "client or target" if each is Outcome.NORMAL else each.side.value
        yield f"`{each.value}`", f"`{each.code}`", side, each.meaning


def _fields() -> Iterator[tuple[str, ...]]:
    for name, meaning in comments.of_class(_PACKAGE / "log" / "access.py", "AccessRecord").items():
        yield f"`{name}`", meaning
        if name == "outcome":
            yield "`code`", "HAProxy's two letters for it."


def _events() -> Iterator[tuple[str, ...]]:
    meanings = comments.of_class(_PACKAGE / "log" / "events.py", "Event")
    for each in Event:
        yield f"`{each.value}`", each.level.value, f"`{each.message_id}`", meanings[each.name]


def _counts() -> Iterator[tuple[str, ...]]:
    for name, of in (("ListenerCounters", "streams"), ("DatagramCounters", "datagrams")):
        for count, meaning in comments.of_class(_PACKAGE / "counters.py", name).items():
            yield f"`{count}`", of, "yes" if count in STATUS_COUNTS else "", meaning


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
