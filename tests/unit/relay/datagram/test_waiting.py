import pytest

from relayd.relay.datagram.waiting import WAITING_BYTES_MAX, WAITING_MAX, Waiting


def test_datagrams_come_out_in_order_and_are_copies() -> None:
    waiting, buffer = Waiting(), bytearray(b"one")
    assert waiting.put(memoryview(buffer))
    buffer[:] = b"two"
    assert waiting.put(memoryview(buffer))
    assert (len(waiting), waiting.all()) == (2, [b"one", b"two"])
    assert waiting.first == b"one"
    waiting.pop()
    assert waiting.first == b"two"
    waiting.pop()
    assert not waiting
    with pytest.raises(IndexError):
        _ = waiting.first


def test_number_and_bytes_are_bounded() -> None:
    waiting = Waiting()
    assert all(waiting.put(b"") for _ in range(WAITING_MAX))
    assert not waiting.put(b"")
    waiting = Waiting()
    assert waiting.put(bytes(WAITING_BYTES_MAX))
    assert not waiting.put(b"x")
    waiting.pop()
    assert waiting.put(b"x")
