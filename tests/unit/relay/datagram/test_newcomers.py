import pytest

from relayd.relay.datagram.newcomers import WAITING_BYTES_MAX, WAITING_MAX, Newcomers


def test_clients_come_out_in_the_order_in_which_they_came_with_all_that_they_sent() -> None:
    newcomers = Newcomers()
    for key, data in ((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b""), (b"b", b"4")):
        assert newcomers.put(key, memoryview(data))
    assert len(newcomers) == 5
    assert [newcomers.take() for _ in range(3)] == [(b"a", [b"1", b"3"]), (b"b", [b"2", b"4"]), (b"c", [b""])]
    assert not newcomers
    assert len(newcomers) == 0
    with pytest.raises(KeyError):
        newcomers.take()


def test_what_waits_is_a_copy() -> None:
    newcomers, buffer = Newcomers(), bytearray(b"first")
    newcomers.put(b"a", memoryview(buffer))
    buffer[:] = b"again"
    assert newcomers.take() == (b"a", [b"first"])


def test_their_number_is_bounded() -> None:
    newcomers = Newcomers()
    assert all(newcomers.put(b"%d" % number, b"") for number in range(WAITING_MAX))
    assert not newcomers.put(b"one too many", b"")
    newcomers.take()
    assert newcomers.put(b"now it fits", b"")


def test_their_bytes_are_bounded() -> None:
    newcomers = Newcomers()
    assert newcomers.put(b"a", bytes(WAITING_BYTES_MAX - 1))
    assert not newcomers.put(b"b", b"12")
    assert newcomers.put(b"b", b"1")
    newcomers.take()
    assert newcomers.put(b"b", bytes(WAITING_BYTES_MAX - 1))
