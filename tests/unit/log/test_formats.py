"""Lines as bytes: what a reader, a JSON parser and journald find in them, whatever goes in."""

import dataclasses
import errno
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.log.formats import LINE_BYTES_MAX, Format, JournalFormat, JsonFormat, TextFormat
from relayd.outcomes import Outcome, Side

NOON = 1795348862.125  # 2026-11-22T12:01:02.125Z, exactly

floats = st.floats()
optional_floats = st.none() | st.floats()
counts = st.integers(min_value=0, max_value=2**64)
records = st.builds(
    AccessRecord,
    conn_id=st.text(),
    listener=st.text(max_size=2000),
    type=st.sampled_from(["tcp", "unix", "udp", "unix_dgram"]),
    client=st.text(),
    client_port=st.integers(0, 65535),
    local=st.text(),
    target=st.text(max_size=2000),
    pool=st.text(max_size=2000),
    attempts=st.integers(0, 100),
    start_time=floats,
    connect_ms=optional_floats,
    first_byte_ms=optional_floats,
    duration_ms=floats,
    bytes_in=counts,
    bytes_out=counts,
    outcome=st.sampled_from(Outcome),
    side=st.sampled_from(Side),
    errno=st.integers(0, 200),
    rtt_ms=optional_floats,
    retrans=st.none() | counts,
    datagrams_in=st.none() | counts,
    datagrams_out=counts,
    datagrams_dropped=counts,
    reloads_survived=counts,
    restarts_survived=counts,
)
#: Text with what hurts: quotes, escapes, control characters, lone surrogates, and much of it.
nasty = st.text() | st.text(alphabet='"\\\n\r\x1b\0\ud800\u2028é…', max_size=6000)
fields = st.dictionaries(
    st.sampled_from(["listener", "traceback", "worker", "count"]), nasty | st.floats() | st.integers(-(2**70), 2**70)
)


def test_the_access_line_in_text(access_record: AccessRecord) -> None:
    assert TextFormat(3).access(access_record) == (
        b"2026-11-22T12:01:02.125Z web 127.0.0.1:51234 -> 127.0.0.1:8081 normal -- in=78 out=1234 "
        b"connect=0.2ms first_byte=0.4ms total=3.4ms id=a1b2c3-42\n"
    )


def test_the_access_line_in_text_of_a_failed_dial_from_ipv6(access_record: AccessRecord) -> None:
    record = dataclasses.replace(
        access_record,
        client="2001:db8::1",
        connect_ms=None,
        first_byte_ms=None,
        attempts=3,
        outcome=Outcome.TARGET_REFUSED,
        errno=errno.ECONNREFUSED,
        rtt_ms=1.25,
        retrans=2,
        restarts_survived=1,
    )
    assert TextFormat(None).access(record) == (
        b"2026-11-22T12:01:02.125Z web [2001:db8::1]:51234 -> 127.0.0.1:8081 target_refused SC in=78 out=1234 "
        b"connect=- first_byte=- total=3.4ms attempts=3 errno=ECONNREFUSED rtt=1.2ms retrans=2 restarts=1 "
        b"id=a1b2c3-42\n"
    )


def test_the_access_line_in_text_of_an_unnamed_unix_client_without_target(access_record: AccessRecord) -> None:
    record = dataclasses.replace(access_record, type="unix", client="unix:", client_port=0, target="")
    assert b" web unix: -> - normal " in TextFormat(None).access(record)


@pytest.fixture
def session_record(access_record: AccessRecord) -> AccessRecord:
    """A session that answered one of two questions."""
    return dataclasses.replace(
        access_record,
        type="udp",
        connect_ms=None,
        outcome=Outcome.SESSION_TIMEOUT,
        side=Side.RELAY,
        datagrams_in=2,
        datagrams_out=1,
    )


def test_the_line_of_a_session_in_text(session_record: AccessRecord) -> None:
    assert TextFormat(3).access(session_record) == (
        b"2026-11-22T12:01:02.125Z web 127.0.0.1:51234 -> 127.0.0.1:8081 session_timeout iD in=78 out=1234 "
        b"datagrams_in=2 datagrams_out=1 first_byte=0.4ms total=3.4ms id=a1b2c3-42\n"
    )
    lost = dataclasses.replace(session_record, datagrams_dropped=3, attempts=2)
    assert b"total=3.4ms dropped=3 attempts=2 id=" in TextFormat(3).access(lost)


def test_the_line_of_a_session_in_json_is_that_of_a_connection_and_more(
    access_record: AccessRecord, session_record: AccessRecord
) -> None:
    connection, session = (json.loads(JsonFormat(3).access(each)) for each in (access_record, session_record))
    assert (connection["event"], session["event"]) == ("connection", "session")
    assert set(session) - set(connection) == {"datagrams_in", "datagrams_out", "datagrams_dropped"}
    assert (session["datagrams_in"], session["datagrams_out"], session["datagrams_dropped"]) == (2, 1, 0)
    assert session["connect_ms"] is None


def test_the_line_of_a_session_in_the_journal_has_an_id_of_its_own(session_record: AccessRecord) -> None:
    found = journal_fields(JournalFormat(3).access(session_record))
    assert (found["EVENT"], found["MESSAGE_ID"]) == ("session", Event.SESSION.message_id)
    in_json = json.loads(JsonFormat(3).access(session_record))
    assert {name.lower() for name in found} == {"message", "message_id", "priority", "syslog_identifier"} | {
        name for name, value in in_json.items() if value is not None and name not in ("time", "level")
    }


def test_the_line_of_what_lives_in_text(access_record: AccessRecord, session_record: AccessRecord) -> None:
    assert TextFormat(3).living(Event.CONNECTION_STARTED, access_record) == (
        b"2026-11-22T12:01:02.125Z web 127.0.0.1:51234 -> 127.0.0.1:8081 started - in=78 out=1234 connect=0.2ms "
        b"first_byte=0.4ms total=3.4ms id=a1b2c3-42\n"
    )
    assert b" -> 127.0.0.1:8081 progress - in=78 out=1234 datagrams_in=2 " in TextFormat(3).living(
        Event.SESSION_PROGRESS, session_record
    )


@pytest.mark.parametrize(
    "event", [Event.CONNECTION_STARTED, Event.CONNECTION_PROGRESS, Event.SESSION_STARTED, Event.SESSION_PROGRESS]
)
def test_the_line_of_what_lives_has_the_fields_of_the_access_line_but_for_the_end(
    access_record: AccessRecord, session_record: AccessRecord, event: Event
) -> None:
    record = session_record if event.value.startswith("session") else access_record
    ended = json.loads(JsonFormat(3).access(record))
    lives = json.loads(JsonFormat(3).living(event, record))
    end = {"outcome", "code", "side", "errno"}
    assert lives == {key: value for key, value in ended.items() if key not in end} | {"event": event.value}
    found = journal_fields(JournalFormat(3).living(event, record))
    expected = journal_fields(JournalFormat(3).access(record))
    own = {"EVENT": event.value, "MESSAGE_ID": event.message_id, "MESSAGE": found["MESSAGE"]}
    assert found == {key: value for key, value in expected.items() if key.lower() not in end} | own
    assert found["MESSAGE"].encode() in TextFormat(3).living(event, record)


@given(records)
def test_any_record_of_what_lives_is_one_valid_line_that_fits_a_pipe(record: AccessRecord) -> None:
    line = JsonFormat(1).living(Event.CONNECTION_PROGRESS, record)
    assert len(line) <= LINE_BYTES_MAX
    assert line.count(b"\n") == 1
    found = json.loads(line, parse_constant=pytest.fail)
    assert found["bytes_in"] == record.bytes_in
    text = TextFormat(1).living(Event.CONNECTION_PROGRESS, record)
    assert len(text) <= LINE_BYTES_MAX
    assert text.decode()[:-1].isprintable()
    entry = JournalFormat(1).living(Event.CONNECTION_PROGRESS, record).decode()[:-1].split("\n")
    assert len(entry) == 20 + 3 * (record.datagrams_in is not None) + sum(
        value is not None for value in (record.connect_ms, record.first_byte_ms, record.rtt_ms, record.retrans)
    )


def test_the_access_line_in_json_has_the_keys_of_o1(access_record: AccessRecord) -> None:
    line = JsonFormat(3).access(access_record)
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "time": "2026-11-22T12:01:02.125Z",
        "level": "info",
        "event": "connection",
        "conn_id": "a1b2c3-42",
        "listener": "web",
        "type": "tcp",
        "client": "127.0.0.1",
        "client_port": 51234,
        "local": "127.0.0.1:8080",
        "target": "127.0.0.1:8081",
        "pool": "app",
        "attempts": 1,
        "start_time": 1795348862.122,
        "connect_ms": 0.2,
        "first_byte_ms": 0.4,
        "duration_ms": 3.4,
        "bytes_in": 78,
        "bytes_out": 1234,
        "outcome": "normal",
        "code": "--",
        "side": "client",
        "errno": 0,
        "rtt_ms": None,
        "retrans": None,
        "reloads_survived": 0,
        "restarts_survived": 0,
    }


def journal_fields(data: bytes) -> dict[str, str]:
    """An entry without binary fields."""
    assert data.endswith(b"\n")
    return dict(line.split("=", 1) for line in data.decode()[:-1].split("\n"))


def test_the_access_line_in_the_journal_has_the_same_fields_in_upper_case(access_record: AccessRecord) -> None:
    found = journal_fields(JournalFormat(3).access(dataclasses.replace(access_record, rtt_ms=0.05, retrans=0)))
    in_json = json.loads(JsonFormat(3).access(access_record))
    assert {name.lower() for name in found} == {"message", "message_id", "priority", "syslog_identifier"} | (
        set(in_json) - {"time", "level"}
    )
    assert found["MESSAGE"].startswith("web 127.0.0.1:51234 -> 127.0.0.1:8081 normal -- in=78")
    assert found["MESSAGE_ID"] == Event.CONNECTION.message_id
    assert (found["SYSLOG_IDENTIFIER"], found["PRIORITY"]) == ("relayd", "6")
    assert (found["OUTCOME"], found["CODE"], found["SIDE"], found["ERRNO"]) == ("normal", "--", "client", "0")
    assert (found["CONNECT_MS"], found["RTT_MS"], found["RETRANS"]) == ("0.200", "0.050", "0")


def test_the_journal_leaves_out_what_is_none(access_record: AccessRecord) -> None:
    found = journal_fields(
        JournalFormat(3).access(dataclasses.replace(access_record, connect_ms=None, first_byte_ms=None))
    )
    assert not {"CONNECT_MS", "FIRST_BYTE_MS", "RTT_MS", "RETRANS"} & set(found)


@given(records)
def test_any_record_is_one_valid_line_of_json_that_fits_a_pipe(record: AccessRecord) -> None:
    line = JsonFormat(1).access(record)
    assert len(line) <= LINE_BYTES_MAX
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    found = json.loads(line, parse_constant=pytest.fail)
    for name in ("conn_id", "listener", "client", "local", "target", "pool"):
        text = getattr(record, name)
        assert found[name] == text or len(text) > 100
    assert found["bytes_in"] == record.bytes_in
    connect = record.connect_ms
    assert (found["connect_ms"] is None) == (connect is None or not math.isfinite(connect))


@given(records)
def test_any_record_is_one_printable_line_of_text_that_fits_a_pipe(record: AccessRecord) -> None:
    line = TextFormat(1).access(record)
    assert len(line) <= LINE_BYTES_MAX
    assert line.decode()[:-1].isprintable()
    assert line.endswith(b"\n")


@given(records)
def test_no_record_can_add_a_field_to_its_journal_entry(record: AccessRecord) -> None:
    found = JournalFormat(1).access(record).decode()[:-1].split("\n")
    assert len(found) == 24 + 3 * (record.datagrams_in is not None) + sum(
        value is not None for value in (record.connect_ms, record.first_byte_ms, record.rtt_ms, record.retrans)
    )


@given(st.sampled_from(Event), nasty, fields)
def test_any_event_is_one_valid_line_of_json_that_fits_a_pipe(
    event: Event, message: str, given_fields: dict[str, str | int | float]
) -> None:
    line = JsonFormat(1).event(NOON, event, message, given_fields)
    assert len(line) <= LINE_BYTES_MAX
    assert line.count(b"\n") == 1
    found = json.loads(line, parse_constant=pytest.fail)
    assert found["event"] == event.value
    assert found["level"] == event.level.value
    if len(message) + sum(len(str(value)) for value in given_fields.values()) < 500:
        assert found["message"] == message


@given(st.sampled_from(Event), nasty, fields)
def test_any_event_in_text_fits_a_pipe_and_only_its_first_line_looks_like_ours(
    event: Event, message: str, given_fields: dict[str, str | int | float]
) -> None:
    line = TextFormat(None).event(NOON, event, message, given_fields)
    assert len(line) <= LINE_BYTES_MAX
    first, *more = line.decode()[:-1].split("\n")
    assert first.startswith(f"2026-11-22T12:01:02.125Z {event.level.value} ")
    assert all(further.startswith("    ") and further.isprintable() for further in more)


def test_an_event_in_text_names_the_worker_and_shows_a_traceback_below() -> None:
    line = TextFormat(2).event(
        NOON,
        Event.INTERNAL_ERROR,
        "a bug ended connection a1-7",
        {"conn_id": "a1-7", "traceback": "Traceback:\n  File\nValueError: x\x1b[31m\n"},
    )
    assert line.decode().split("\n") == [
        "2026-11-22T12:01:02.125Z error worker 2: a bug ended connection a1-7",
        "    Traceback:",
        "      File",
        "    ValueError: x\\x1b[31m",
        "",
    ]


def test_an_event_in_the_journal() -> None:
    entry = JournalFormat(2).event(NOON, Event.ACCEPT_PAUSED, "paused", {"listener": "web", "errno": 24})
    assert journal_fields(entry) == {
        "MESSAGE": "paused",
        "MESSAGE_ID": Event.ACCEPT_PAUSED.message_id,
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "relayd",
        "EVENT": "accept_paused",
        "WORKER": "2",
        "LISTENER": "web",
        "ERRNO": "24",
    }


def test_a_field_takes_the_place_of_the_lines_own() -> None:
    """Control logs about worker 7: `worker` then is 7, once."""
    line = JsonFormat(None).event(NOON, Event.WORKER_EXITED, "worker 7 exited", {"worker": 7})
    assert json.loads(line)["worker"] == 7


@pytest.mark.parametrize("format_", [TextFormat(1), JsonFormat(1)])
@pytest.mark.parametrize("wall", [math.nan, math.inf, -1.0, 1e300])
def test_an_impossible_time_is_the_epoch(format_: Format, wall: float) -> None:
    assert b"1970-01-01T00:00:00.000Z" in format_.event(wall, Event.STARTED, "up", {})


def test_every_kind_of_line_has_an_id_of_its_own() -> None:
    ids = [event.message_id for event in Event]
    assert len(set(ids)) == len(ids)
    assert all(len(number) == 32 and int(number, 16) for number in ids)
