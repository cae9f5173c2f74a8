import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import NameAddress
from relayd.channel.codec import CodecError, decode, encode
from relayd.channel.messages import Drain, Message, Ready, Resolved
from tests.unit.channel.strategies import messages

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "value", "pid"]), inner),
    max_leaves=10,
)


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
        "[" * 100_000,
        "9" * 10_000,
        "",
    ],
)
def test_what_is_no_message(text: str) -> None:
    with pytest.raises(CodecError):
        decode(text.encode())


def test_a_whole_number_is_a_duration_too() -> None:
    assert decode(b'{"":"Drain","timeout_s":30}') == Drain(30.0)


def test_the_form_on_the_wire() -> None:
    assert encode(Ready(7)) == b'{"":"Ready","pid":7}'
    assert encode(Resolved(NameAddress("a", 1), ())) == (
        b'{"":"Resolved","name":{"":"NameAddress","host":"a","port":1},"addresses":[]}'
    )
