"""Lines as bytes: text for people, JSON for collectors, and entries of the journal's native protocol.

One access line is made per connection, so that path is one %-template each (measured: under 4 µs), with the second of
the time stamp kept from line to line and one look for characters that need care. Everything else takes the slow road.

Text shows an event's message and nothing of its fields but those of several lines (a traceback); the message alone must
tell a reader all. The fields say it again for machines.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

from relayd import clock, errors
from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.sd import journal

Value: TypeAlias = str | int | float

#: PIPE_BUF of pipe(7): a line that fits is written whole, whoever else writes to the same pipe.
LINE_BYTES_MAX = 4096
#: Of one text in a journal entry: far beyond any traceback, and a bound.
_JOURNAL_TEXT_MAX = 64 * 1024
#: Characters in all texts of an access line together that take the fast path: at 4 bytes each the line still fits.
_PLAIN_TEXT_MAX = 600
#: One text of an access line, when that is exceeded. Every address fits (a Unix path has at most 107 bytes).
_ACCESS_TEXT_MAX = 120
#: 9999-12-31T23:59:59Z; a time outside of what a date can say is shown as the epoch.
_WALL_MAX = 253402300799.0

_MILLISECONDS = tuple(f".{number:03d}Z" for number in range(1000))

_TEXT_ACCESS = "%s %s -> %s %s %s in=%d out=%d connect=%s first_byte=%s total=%.1fms%s id=%s"
_JSON_ACCESS = (
    '{"time":"%s","level":"info","event":"connection","conn_id":"%s","listener":"%s","type":"%s","client":"%s",'
    '"client_port":%d,"local":"%s","target":"%s","pool":"%s","attempts":%d,"start_time":%.3f,"connect_ms":%s,"first_byte_ms":%s,'
    '"duration_ms":%.3f,"bytes_in":%d,"bytes_out":%d,"outcome":"%s","code":"%s","side":"%s","errno":%d,"rtt_ms":%s,'
    '"retrans":%s,"reloads_survived":%d,"restarts_survived":%d}\n'
)
_JOURNAL_ACCESS = (
    f"MESSAGE=%s\nMESSAGE_ID={Event.CONNECTION.message_id}\nPRIORITY={Event.CONNECTION.level.priority}\n"
    f"SYSLOG_IDENTIFIER=relayd\nEVENT={Event.CONNECTION.value}\nCONN_ID=%s\nLISTENER=%s\nTYPE=%s\nCLIENT=%s\n"
    "CLIENT_PORT=%d\nLOCAL=%s\nTARGET=%s\nPOOL=%s\nATTEMPTS=%d\nSTART_TIME=%.3f\nDURATION_MS=%.3f\nBYTES_IN=%d\nBYTES_OUT=%d\n"
    "OUTCOME=%s\nCODE=%s\nSIDE=%s\nERRNO=%d\nRELOADS_SURVIVED=%d\nRESTARTS_SURVIVED=%d\n%s"
)

#: The same for a session: it is another kind of line, and has datagrams.
_TEXT_SESSION = "%s %s -> %s %s %s in=%d out=%d datagrams_in=%d datagrams_out=%d first_byte=%s total=%.1fms%s id=%s"
_JSON_SESSION = _JSON_ACCESS.replace(f'"{Event.CONNECTION.value}"', f'"{Event.SESSION.value}"').replace(
    "}\n", ',"datagrams_in":%d,"datagrams_out":%d,"datagrams_dropped":%d}\n'
)
_JOURNAL_SESSION = _JOURNAL_ACCESS.replace(Event.CONNECTION.message_id, Event.SESSION.message_id).replace(
    f"EVENT={Event.CONNECTION.value}\n", f"EVENT={Event.SESSION.value}\n"
)


#: What lines about those that live say: all but how they ended.
_LIVING_SESSION = tuple(
    field.name for field in dataclasses.fields(AccessRecord) if field.name not in ("outcome", "side", "errno")
)
_LIVING = tuple(name for name in _LIVING_SESSION if not name.startswith("datagrams_"))


class Format(Protocol):
    """Makes lines. Each is bytes, complete with what ends it."""

    def access(self, record: AccessRecord) -> bytes:
        """The line of an ended connection or session."""

    def living(self, event: Event, record: AccessRecord) -> bytes:
        """The line of a connection or session that lives: `event` says what about it."""

    def event(self, wall: float, event: Event, message: str, fields: Mapping[str, Value]) -> bytes:
        """The line of anything else, at `wall` seconds since the epoch."""


class _Stamped:
    """The date and time of the last line, kept for the lines of the same second."""

    def __init__(self, worker: int | None) -> None:
        self._worker = worker
        self._second = -1
        self._date = ""

    def _stamp(self, wall: float) -> str:
        """`2026-11-22T17:01:02.123Z`."""
        if not 0.0 <= wall <= _WALL_MAX:  # NaN ends here too
            wall = 0.0
        second = int(wall)
        if second != self._second:
            self._second, self._date = second, clock.utc(second)
        return self._date + _MILLISECONDS[int((wall - second) * 1000)]


class TextFormat(_Stamped):
    """`TIME listener client -> target outcome code ...` and `TIME level message`."""

    def access(self, record: AccessRecord) -> bytes:
        """See `Format`."""
        if not _plain(record):
            record = _with_texts(record, _one_line)
        stamp = self._stamp(record.start_time + record.duration_ms * 0.001)
        return f"{stamp} {_access_text(record, record.outcome._value_, record.outcome.code)}\n".encode()

    def living(self, event: Event, record: AccessRecord) -> bytes:
        """See `Format`. As the access line, with what happens in the place of the outcome, and none of its code."""
        if not _plain(record):
            record = _with_texts(record, _one_line)
        stamp = self._stamp(record.start_time + record.duration_ms * 0.001)
        return f"{stamp} {_living_text(event, record)}\n".encode()

    def event(self, wall: float, event: Event, message: str, fields: Mapping[str, Value]) -> bytes:
        """See `Format`. Further lines of a message or field are indented, so that none looks like a line of ours."""
        worker = f"worker {self._worker}: " if self._worker is not None else ""
        head = f"{self._stamp(wall)} {event.level.value} {worker}"

        def render(limit: int) -> bytes:
            text = "\n".join(_printable(_shorten(block, limit)) for block in (message, *_blocks(fields)))
            return (head + text.replace("\n", "\n    ") + "\n").encode()

        return _fit(render)


class JsonFormat(_Stamped):
    """One object a line: `time`, `level`, `event`, then the fields."""

    def access(self, record: AccessRecord) -> bytes:
        """See `Format`. The keys are those of rule O1, with `null` for None."""
        if not _plain(record):
            record = _with_texts(record, _json_inner)
        start, duration = record.start_time, record.duration_ms
        if start - start or duration - duration:  # 0.0, unless one is infinite or not a number: JSON has neither
            start = duration = 0.0
        connect, first_byte, rtt, retrans = record.connect_ms, record.first_byte_ms, record.rtt_ms, record.retrans
        outcome = record.outcome
        values = (
            self._stamp(start + duration * 0.001),
            record.conn_id,
            record.listener,
            record.type,
            record.client,
            record.client_port,
            record.local,
            record.target,
            record.pool,
            record.attempts,
            start,
            "null" if connect is None or connect - connect else f"{connect:.3f}",
            "null" if first_byte is None or first_byte - first_byte else f"{first_byte:.3f}",
            duration,
            record.bytes_in,
            record.bytes_out,
            outcome._value_,  # `.value` is a function written in Python, and takes ten times as long
            outcome.code,
            record.side._value_,
            record.errno,
            "null" if rtt is None or rtt - rtt else f"{rtt:.3f}",
            "null" if retrans is None else retrans,
            record.reloads_survived,
            record.restarts_survived,
        )
        if record.datagrams_in is not None:
            datagrams = (record.datagrams_in, record.datagrams_out, record.datagrams_dropped)
            return (_JSON_SESSION % (*values, *datagrams)).encode()
        return (_JSON_ACCESS % values).encode()

    def living(self, event: Event, record: AccessRecord) -> bytes:
        """See `Format`. The keys are those of an access line but for how it ended."""
        if not _plain(record):
            record = _with_texts(record, _shortened)
        line: dict[str, Value | None] = {
            "time": self._stamp(record.start_time + record.duration_ms * 0.001),
            "level": event.level.value,
            "event": event.value,
        }
        for name, value in _living_fields(record):
            if isinstance(value, float):
                value = None if value - value else round(value, 3)
            line[name] = value
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def event(self, wall: float, event: Event, message: str, fields: Mapping[str, Value]) -> bytes:
        """See `Format`. A field named like one of the line's own takes its place."""
        line: dict[str, Value] = {"time": self._stamp(wall), "level": event.level.value, "event": event.value}
        if self._worker is not None:
            line["worker"] = self._worker
        line |= {"message": message, **fields}

        def render(limit: int) -> bytes:
            values = {name: _json_value(value, limit) for name, value in line.items()}
            # A lone surrogate becomes \\udcxx, which is how JSON writes it.
            return (
                json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace") + b"\n"
            )

        return _fit(render)


class JournalFormat(_Stamped):
    """An entry of the native protocol: MESSAGE is the text line without its time, the fields are the JSON ones in
    upper case; what is None is left out."""

    def access(self, record: AccessRecord) -> bytes:
        """See `Format`."""
        if not _plain(record):
            record = _with_texts(record, _one_line)
        message = _access_text(record, record.outcome._value_, record.outcome.code)
        optional = ""
        if record.connect_ms is not None:
            optional = f"CONNECT_MS={record.connect_ms:.3f}\n"
        if record.first_byte_ms is not None:
            optional += f"FIRST_BYTE_MS={record.first_byte_ms:.3f}\n"
        if record.rtt_ms is not None:
            optional += f"RTT_MS={record.rtt_ms:.3f}\n"
        if record.retrans is not None:
            optional += f"RETRANS={record.retrans}\n"
        template = _JOURNAL_ACCESS
        if record.datagrams_in is not None:
            template = _JOURNAL_SESSION
            optional += (
                f"DATAGRAMS_IN={record.datagrams_in}\nDATAGRAMS_OUT={record.datagrams_out}\n"
                f"DATAGRAMS_DROPPED={record.datagrams_dropped}\n"
            )
        values = (
            message,
            record.conn_id,
            record.listener,
            record.type,
            record.client,
            record.client_port,
            record.local,
            record.target,
            record.pool,
            record.attempts,
            record.start_time,
            record.duration_ms,
            record.bytes_in,
            record.bytes_out,
            record.outcome._value_,
            record.outcome.code,
            record.side._value_,
            record.errno,
            record.reloads_survived,
            record.restarts_survived,
            optional,
        )
        return (template % values).encode()

    def living(self, event: Event, record: AccessRecord) -> bytes:
        """See `Format`."""
        if not _plain(record):
            record = _with_texts(record, _one_line)
        line: dict[str, Value] = {
            "MESSAGE": _living_text(event, record),
            "MESSAGE_ID": event.message_id,
            "PRIORITY": event.level.priority,
            "SYSLOG_IDENTIFIER": "relayd",
            "EVENT": event.value,
        }
        line |= {name.upper(): value for name, value in _living_fields(record) if value is not None}
        return journal.entry(
            {name: f"{value:.3f}" if isinstance(value, float) else str(value) for name, value in line.items()}
        )

    def event(self, wall: float, event: Event, message: str, fields: Mapping[str, Value]) -> bytes:
        """See `Format`. journald keeps the time itself; `wall` is not used."""
        del wall
        line: dict[str, Value] = {
            "MESSAGE": "\n".join([message, *_blocks(fields)]),
            "MESSAGE_ID": event.message_id,
            "PRIORITY": event.level.priority,
            "SYSLOG_IDENTIFIER": "relayd",
            "EVENT": event.value,
        }
        if self._worker is not None:
            line["WORKER"] = self._worker
        line |= {name.upper(): value for name, value in fields.items()}
        return journal.entry({name: _shorten(str(value), _JOURNAL_TEXT_MAX) for name, value in line.items()})


def _living_text(event: Event, record: AccessRecord) -> str:
    """`_access_text` of one that lives: `started` or `progress` in the place of its outcome."""
    return _access_text(record, event.value.rpartition("_")[2], "-")


def _living_fields(record: AccessRecord) -> Iterator[tuple[str, Value | None]]:
    """What can be said of one that lives, by name, in the order of access lines."""
    for name in _LIVING if record.datagrams_in is None else _LIVING_SESSION:
        yield name, getattr(record, name)


def _access_text(record: AccessRecord, outcome: str, code: str) -> str:
    """The access line for people, without its time. The texts of `record` are plain."""
    client, port = record.client, record.client_port
    if port:
        client = f"[{client}]:{port}" if ":" in client else f"{client}:{port}"
    connect, first_byte = record.connect_ms, record.first_byte_ms
    more = ""
    if record.attempts > 1:
        more = f" attempts={record.attempts}"
    if record.errno:
        more += f" errno={errors.name(record.errno)}"
    if record.rtt_ms is not None:
        more += f" rtt={record.rtt_ms:.1f}ms"
    if record.retrans:
        more += f" retrans={record.retrans}"
    if record.reloads_survived:
        more += f" reloads={record.reloads_survived}"
    if record.restarts_survived:
        more += f" restarts={record.restarts_survived}"
    if record.datagrams_in is not None:
        if record.datagrams_dropped:
            more = f" dropped={record.datagrams_dropped}{more}"
        return _TEXT_SESSION % (
            record.listener,
            client,
            record.target or "-",
            outcome,
            code,
            record.bytes_in,
            record.bytes_out,
            record.datagrams_in,
            record.datagrams_out,
            "-" if first_byte is None else f"{first_byte:.1f}ms",
            record.duration_ms,
            more,
            record.conn_id,
        )
    return _TEXT_ACCESS % (
        record.listener,
        client,
        record.target or "-",
        outcome,
        code,
        record.bytes_in,
        record.bytes_out,
        "-" if connect is None else f"{connect:.1f}ms",
        "-" if first_byte is None else f"{first_byte:.1f}ms",
        record.duration_ms,
        more,
        record.conn_id,
    )


def _plain(record: AccessRecord) -> bool:
    """True when the texts of `record` can stand in a line of any format as they are, and are not long."""
    texts = f"{record.conn_id}{record.listener}{record.type}{record.client}{record.local}{record.target}{record.pool}"
    # Printable text has neither control characters nor lone surrogates.
    return texts.isprintable() and '"' not in texts and "\\" not in texts and len(texts) <= _PLAIN_TEXT_MAX


def _with_texts(record: AccessRecord, change: Callable[[str], str]) -> AccessRecord:
    return dataclasses.replace(
        record,
        conn_id=change(record.conn_id),
        listener=change(record.listener),
        type=change(record.type),
        client=change(record.client),
        local=change(record.local),
        target=change(record.target),
        pool=change(record.pool),
    )


def _blocks(fields: Mapping[str, Value]) -> list[str]:
    """The fields of several lines, which people want to see as well."""
    return [value.rstrip("\n") for value in fields.values() if isinstance(value, str) and "\n" in value]


def _printable(text: str) -> str:
    """`text` with what a terminal would act on, or UTF-8 cannot say, as escapes; line feeds stay."""
    if text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _one_line(text: str) -> str:
    return _printable(_shorten(text, _ACCESS_TEXT_MAX)).replace("\n", "\\n")


def _shortened(text: str) -> str:
    return _shorten(text, _ACCESS_TEXT_MAX)


def _json_inner(text: str) -> str:
    """`text` as it stands between the quotes."""
    return json.dumps(_shorten(text, _ACCESS_TEXT_MAX))[1:-1]


def _json_value(value: Value, limit: int) -> Value | None:
    if isinstance(value, float):
        return None if value - value else value
    return _shorten(value, limit) if isinstance(value, str) else value


def _shorten(text: str, limit: int) -> str:
    """At most `limit` characters: a third of them from the front, and the end, where a traceback says what happened."""
    if len(text) <= limit:
        return text
    front = limit // 3
    return f"{text[:front]}…{text[front + 1 - limit :]}"


def _fit(render: Callable[[int], bytes]) -> bytes:
    """What `render` makes of the greatest limit per text, from LINE_BYTES_MAX down, that keeps to LINE_BYTES_MAX."""
    limit = LINE_BYTES_MAX
    line = render(limit)
    while len(line) > LINE_BYTES_MAX and limit > 8:
        limit //= 2
        line = render(limit)
    return line
