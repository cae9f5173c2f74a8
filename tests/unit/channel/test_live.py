import json

import pytest

from relayd.channel.live import Row, pack, unpack

ROW = Row(
    "a-1", "web", "app", "tcp", "::1", 4711, "[::1]:80", "10.0.0.1:80", "relaying", "open", None,
    1.5, 0.25, 3, 4, 0.5, None, None, None, 1, 0.1, 0, None, None,
)  # fmt: skip
SESSION = ROW._replace(type="udp", flow_in=None, datagrams_in=1, datagrams_out=2, rtt_ms=None, retrans=None)


def test_what_is_packed_is_unpacked() -> None:
    assert unpack(pack([ROW, SESSION])) == [ROW, SESSION]
    assert unpack(pack([])) == []


@pytest.mark.parametrize("field", range(len(Row._fields)))
@pytest.mark.parametrize("wrong", [{}, True])
def test_no_field_is_of_another_type(field: int, wrong: object) -> None:
    values: list[object] = list(ROW)
    values[field] = wrong
    with pytest.raises(ValueError, match="of another type"):
        unpack(json.dumps([values]))


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[[]]", json.dumps([[*ROW, 1]]), json.dumps([list(ROW)[:-1]])])
def test_what_is_no_list_of_rows(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json says it in many ways
        unpack(text)
