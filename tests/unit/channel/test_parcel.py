"""Parcels: what goes in comes out, whoever is there meanwhile (R4, R5)."""

import array
import contextlib
import errno
import itertools
import json
import os
import resource
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relayd.channel import parcel
from relayd.channel.parcel import BATCH_FDS, BROKEN_RECORD, Content, Label, ParcelFull

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
#: Deeper than Python counts.
NESTED = b"[" * 3000
LABEL = Label(False, "web", 1, 0)
#: A label of two descriptors.
ONE_MORE: dict[str, object] = asdict(LABEL) | {"size": 1}

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    kept, sending = parcel.pair()
    with kept, sending:
        yield kept, sending


def memfd(data: bytes = b"", name: str = "test") -> int:
    fd = os.memfd_create(name)
    os.write(fd, data)
    return fd


def unpacked(data: bytes) -> Content:
    fd = memfd(data)
    try:
        return parcel.unpack(fd)
    finally:
        os.close(fd)


def put(sending: socket.socket, label: Label, *fds: int) -> None:
    """With an empty memfd in front; closes them all."""
    all_of_them = [memfd(), *fds]
    try:
        parcel.put(sending, label, all_of_them)
    finally:
        close(all_of_them)


def fits(sending: socket.socket, label: Label) -> bool:
    try:
        put(sending, label)
    except ParcelFull:
        return False
    return True


def send(sending: socket.socket, packet: bytes, fds: Sequence[int]) -> None:
    """Any packet; closes `fds`."""
    sending.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
    close(fds)


def close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def taken(kept: socket.socket) -> list[tuple[Label | None, int]]:
    """Every label, and how many descriptors there were, which are closed."""
    found = []
    for label, fds in parcel.read(kept):
        found.append((label, len(fds)))
        close(fds)
    return found


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


# records ------------------------------------------------------------------------------------------------------------


@given(json_values, st.binary())
def test_what_is_packed_is_unpacked(values: Any, tail: bytes) -> None:
    fd = parcel.pack(Content(values, tail))
    try:
        assert not os.get_inheritable(fd)
        assert parcel.unpack(fd) == Content(values, tail)
        assert parcel.unpack(fd) == Content(values, tail)  # wherever the one before has stopped
    finally:
        os.close(fd)


@pytest.mark.parametrize("content", [Content(object()), Content(1, "text")])  # type: ignore[arg-type]  # which is it
def test_what_is_no_content_is_not_packed_and_leaves_nothing(content: Content) -> None:
    with pytest.raises(TypeError):
        parcel.pack(content)


@given(st.binary() | st.binary().map(lambda data: len(data).to_bytes(8, sys.byteorder) + data))
@example(b"")
@example(b"\xff" * 8 + b"1")
@example(b"\x01" + bytes(7) + b"\xff")
@example(len(NESTED).to_bytes(8, sys.byteorder) + NESTED)
def test_garbage_is_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(unpacked(data), Content)


def test_a_descriptor_of_another_kind_is_a_broken_record() -> None:
    fds = [*os.pipe(), os.open("/", os.O_RDONLY)]
    with socket.socket() as sock:
        for fd in (*fds, sock.fileno()):
            with pytest.raises(BROKEN_RECORD):
                parcel.unpack(fd)
    close(fds)


# batches ------------------------------------------------------------------------------------------------------------


def test_batches_come_in_order_with_their_very_descriptors_which_nobody_inherits(ends: Ends) -> None:
    # R4
    kept, sending = ends
    expected = []
    for number in range(5):
        fds = [memfd(name=f"{number}-{at}") for at in range(number)]
        first = memfd(b"records")
        label = Label(number % 2 == 1, f"listener {number}", number, number, number)
        parcel.put(sending, label, [first, *fds])
        expected.append((label, [inode(fd) for fd in (first, *fds)]))
        close((first, *fds))
    found = list(parcel.read(kept))
    assert [(label, [inode(fd) for fd in fds]) for label, fds in found] == expected
    assert not any(os.get_inheritable(fd) for _, fds in found for fd in fds)
    for _, fds in found:
        close(fds)


def test_a_batch_has_room_for_as_many_as_it_says(ends: Ends) -> None:
    kept, sending = ends
    put(sending, Label(False, "web", 1, BATCH_FDS), *(memfd() for _ in range(BATCH_FDS)))
    ((label, count),) = taken(kept)
    assert label is not None
    assert (label.size, count) == (BATCH_FDS, BATCH_FDS + 1)
    with pytest.raises(ParcelFull):  # SCM_MAX_FD of the kernel
        put(sending, Label(False, "web", 1, BATCH_FDS + 1), *(memfd() for _ in range(BATCH_FDS + 1)))


def test_reading_stops_at_an_empty_queue_and_goes_on_with_what_comes(ends: Ends) -> None:
    kept, sending = ends
    assert taken(kept) == []
    put(sending, LABEL)
    assert taken(kept) == [(LABEL, 1)]
    assert taken(kept) == []
    put(sending, LABEL)
    sending.close()
    assert taken(kept) == [(LABEL, 1)]
    assert taken(kept) == []


@pytest.mark.parametrize("whole", [True, False])
def test_the_kernel_keeps_what_is_in_a_parcel_while_no_process_has_it(whole: bool) -> None:
    # R4: the write end of a pipe is in no process, and its reader sees no end of file.
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    kept, sending = parcel.pair()
    put(sending, Label(False, "web", 1, 1), write_end)  # which closes it
    sending.close()
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)
    if whole:
        ((_, (first, again)),) = parcel.read(kept)
        os.write(again, b"still there")
        assert os.read(read_end, 99) == b"still there"
        close((first, again))
    kept.close()
    assert os.read(read_end, 1) == b""
    os.close(read_end)


def test_a_full_parcel_takes_no_more_and_loses_nothing(ends: Ends) -> None:
    kept, sending = ends
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    labels = (Label(False, "web", number, 0) for number in range(10_000))
    went = list(itertools.takewhile(lambda label: fits(sending, label), labels))
    assert went
    assert taken(kept) == [(label, 1) for label in went]
    put(sending, LABEL)
    assert taken(kept) == [(LABEL, 1)]


def test_a_parcel_takes_as_many_packets_as_it_says(ends: Ends) -> None:
    """Were each to have as many descriptors as it can have, and a label of some length."""
    kept, sending = ends
    batches = parcel.packets(sending)
    assert batches > 100
    first = memfd()
    fds = [first] * (BATCH_FDS + 1)
    label = Label(False, "a listener with a name of some length", BATCH_FDS // 6, BATCH_FDS)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if os.geteuid() and soft < batches * len(fds):
        pytest.skip("RLIMIT_NOFILE: too few descriptors in flight")
    for _ in range(batches):
        parcel.put(sending, label, fds)
    os.close(first)
    assert sum(count for _, count in taken(kept)) == batches * len(fds)


@pytest.mark.parametrize("number", ["ETOOMANYREFS", "ENOBUFS", "ENOMEM", "EAGAIN"])
def test_what_the_kernel_has_no_room_for_is_a_full_parcel(number: str) -> None:
    class Crowded:
        def sendmsg(self, *arguments: object) -> int:
            raise OSError(getattr(errno, number), "no room")

    with pytest.raises(ParcelFull):
        parcel.put(Crowded(), LABEL, [0])  # type: ignore[arg-type]  # all that is asked of it


def test_a_parcel_whose_other_end_is_closed_is_told_as_what_it_is(ends: Ends) -> None:
    kept, sending = ends
    kept.close()
    with pytest.raises(BrokenPipeError):
        put(sending, LABEL)


# what another version has written -------------------------------------------------------------------------------------


def test_a_label_of_another_version_is_told_as_far_as_it_is_known(ends: Ends) -> None:
    # R5
    kept, sending = ends
    label = Label(True, "dns", 3, 0, 17, version=parcel.LABEL_VERSION + 1)
    send(sending, json.dumps(asdict(label) | {"more": [1, 2]}).encode(), [memfd()])
    assert taken(kept) == [(label, 1)]


@pytest.mark.parametrize(
    "packet",
    [
        b"garbage",
        b"\xff",
        b"[]",
        b"7",
        b'""',
        b"{}",
        NESTED,
        json.dumps({name: value for name, value in ONE_MORE.items() if name != "version"}).encode(),
        json.dumps(ONE_MORE).encode() + b" " * 4096,  # more than a label can be
        *(
            json.dumps(ONE_MORE | wrong).encode()
            for wrong in (
                {"datagram": 0},
                {"listener": 1},
                {"count": "1"},
                {"count": True},
                {"size": 1.0},
                {"socket": None},
                {"version": "1"},
                {"listener": "a" * 4096},
            )
        ),
    ],
)
def test_a_packet_without_a_label_comes_with_its_descriptors(packet: bytes, ends: Ends) -> None:
    # R5
    kept, sending = ends
    send(sending, packet, [memfd(), memfd()])
    put(sending, LABEL)
    assert taken(kept) == [(None, 2), (LABEL, 1)]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_label_that_counts_otherwise_is_none(count: int, ends: Ends) -> None:
    kept, sending = ends
    send(sending, json.dumps(ONE_MORE).encode(), [memfd() for _ in range(count)])
    put(sending, LABEL)
    assert taken(kept) == [(None, count), (LABEL, 1)]


def test_an_empty_packet_leaves_nothing_open(ends: Ends) -> None:
    kept, sending = ends
    send(sending, b"", [memfd(), memfd()])
    put(sending, LABEL)
    assert taken(kept) == [(None, 2), (LABEL, 1)]


def test_descriptors_that_find_no_room_here_are_missed(ends: Ends) -> None:
    """The kernel installs as many as fit, and says that there were more."""
    kept, sending = ends
    put(sending, Label(False, "web", 4, 4), *(memfd() for _ in range(4)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)  # the lowest number that is free
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 2, hard))
    try:
        found = list(parcel.read(kept))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ((label, fds),) = found
    assert label is None
    assert 0 < len(fds) < 5
    close(fds)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=99), st.integers(0, 3)), max_size=5))
def test_no_packets_make_reading_raise_or_leave_anything_open(packets: list[tuple[bytes, int]]) -> None:
    kept, sending = parcel.pair()
    with kept, sending:
        for packet, count in packets:
            send(sending, packet, [memfd() for _ in range(count)])
        assert [count for _, count in taken(kept)] == [count for _, count in packets]
