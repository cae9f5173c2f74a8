import dataclasses
import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import NameAddress
from relayd.channel.codec import CodecError, decode, encode, plain, value_of
from relayd.channel.messages import Configure, Drain, Message, Ready, Resolved, Seen
from relayd.spec import Admin, Log, Spec
from tests.unit.channel import strategies
from tests.unit.channel.strategies import messages

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "value", "pid"]), inner),
    max_leaves=10,
)


def test_every_message_is_tried() -> None:
    assert set(strategies.of_class) == set(typing.get_args(Message))


@given(messages)
def test_what_is_encoded_is_decoded(message: Message) -> None:
    decoded = decode(encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


@given(messages, st.data())
def test_a_damaged_message_is_refused_or_another_message(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode(message))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(encoded)
    except CodecError:
        return
    assert dataclasses.is_dataclass(decoded)
    assert decode(encode(decoded)) == decoded


@pytest.mark.parametrize(
    "text",
    [
        '{"":"Ready"}',
        '{"":"Ready","pid":1,"more":2}',
        '{"":"Ready","pid":"1"}',
        '{"":"Ready","pid":1.5}',
        '{"":"Ready","pid":true}',
        '{"":"Ready","pid":null}',
        '{"":"Report","listeners":"web"}',
        '{"":"Report","listeners":[1]}',
        '{"":"Resolved","name":{"":"NameAddress","host":"a","port":1},"addresses":[{"":"Stop"}]}',
        '{"":"Family","value":"inet"}',
        '{"":"UnixAddress","path":"/a"}',
        '{"":"Popen","args":"true"}',
        '{"":["Ready"],"pid":1}',
        # An enum class called with names makes a new class: never from here.
        '{"":"Report","listeners":[{"":"Family","value":"Evil","names":"A B"}]}',
        '{"":"Report","listeners":[{"":"Outcome","value":"no such outcome"}]}',
        # Bytes are of a message that has some.
        '{"":"Ready","pid":1}\n',
        '{"":"Ready","pid":1}\nbytes',
        '{"":"Seen","number":1,"matched":1,"count":0,"last":true,"rows":"text"}',
        "\n",
        "[" * 100_000,
        "9" * 10_000,
        "",
    ],
)
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(CodecError):
        decode(text.encode())


def test_bytes_travel_as_they_are() -> None:
    seen = Seen(1, 2, 1, True, b'{"id":"a"}\n\x00\xff')
    assert encode(seen) == b'{"":"Seen","number":1,"matched":2,"count":1,"last":true}\n{"id":"a"}\n\x00\xff'
    assert decode(encode(seen)) == seen
    assert decode(b'{"":"Seen","number":1,"matched":2,"count":0,"last":true}') == Seen(1, 2, 0, last=True)


def test_a_whole_number_is_a_duration_too() -> None:
    assert decode(b'{"":"Drain","timeout_s":30}') == Drain(30.0)


def test_the_form_on_the_wire() -> None:
    assert (
        encode(Ready(7))
        == b'{"":"Ready","pid":7,"connections":0,"sessions":0,"told_connections":0,"told_sessions":0,"lost":0}'
    )
    assert encode(Resolved(NameAddress("a", 1), ())) == (
        b'{"":"Resolved","name":{"":"NameAddress","host":"a","port":1},"addresses":[],"shares":[],'
        b'"resolve":{"":"Resolve","family":null,"min_ttl_s":1.0,"max_ttl_s":300.0}}'
    )


# What is kept for the next process, which may be of another version (R5).


@given(strategies.labels | strategies.socket_keys | strategies.listeners | strategies.totals | strategies.addresses)
def test_what_is_written_down_is_read(value: object) -> None:
    through_json = json.loads(json.dumps(plain(value)))
    found = value_of(through_json)
    assert found == value
    assert type(found) is type(value)


def configure() -> dict[str, Any]:
    spec = Spec(2, 30.0, Log("info", "auto", access=True), (), preserve_connections=False, copies=4)
    form: dict[str, Any] = json.loads(encode(Configure(spec, 1, adopting=True)))
    return form


def test_a_field_that_is_missing_has_its_default() -> None:
    # R5: an older version has not known it.
    form = configure()
    for name in ("admin", "preserve_connections", "copies"):
        del form["spec"][name]
    del form["adopting"]
    expected = Spec(2, 30.0, Log("info", "auto", access=True), (), Admin(()), preserve_connections=True, copies=None)
    assert decode(json.dumps(form).encode()) == Configure(expected, 1, adopting=False)


@pytest.mark.parametrize("name", ["workers", "drain_timeout_s", "log", "listeners"])
def test_a_field_that_is_missing_and_has_no_default_is_refused(name: str) -> None:
    form = configure()
    del form["spec"][name]
    with pytest.raises(CodecError):
        decode(json.dumps(form).encode())


@pytest.mark.parametrize(("name", "value"), [("copies", "4"), ("preserve_connections", None), ("admin", 1)])
def test_a_field_with_a_default_is_checked_where_it_is_there(name: str, value: object) -> None:
    form = configure()
    form["spec"][name] = value
    with pytest.raises(CodecError):
        decode(json.dumps(form).encode())
