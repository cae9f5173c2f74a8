"""The journal's native protocol, with this test in the part of journald."""

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.sd import journal


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


@pytest.fixture
def sender(path: str) -> Iterator[journal.JournalSender]:
    sender = journal.JournalSender(path)
    yield sender
    sender.close()


def _journald(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(path)
    return sock


def parse(data: bytes) -> list[tuple[str, bytes]]:
    """What journald makes of an entry, by the protocol's page."""
    fields = []
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            size = int.from_bytes(rest[:8], "little")
            value, end, data = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
            assert len(value) == size
        fields.append((name.decode(), value))
    return fields


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,63}", fullmatch=True), st.text()))
def test_any_text_arrives_as_it_was(fields: dict[str, str]) -> None:
    expected = [(name, value.encode(errors="backslashreplace")) for name, value in fields.items()]
    assert parse(journal.entry(fields)) == expected


def test_an_entry_is_one_datagram(path: str, sender: journal.JournalSender) -> None:
    with _journald(path) as journald:
        assert sender.send(b"MESSAGE=one\n")
        assert sender.send(b"MESSAGE=two\n")
        assert [journald.recv(100), journald.recv(100)] == [b"MESSAGE=one\n", b"MESSAGE=two\n"]


def test_nobody_there_is_not_taken_and_a_restarted_journald_is(path: str, sender: journal.JournalSender) -> None:
    assert not sender.send(b"MESSAGE=never started\n")
    for text in (b"MESSAGE=first\n", b"MESSAGE=second\n"):
        with _journald(path) as journald:
            assert sender.send(text)
            assert journald.recv(100) == text
        assert not sender.send(b"MESSAGE=gone\n")
        Path(path).unlink()


def test_a_full_queue_is_not_taken_and_does_not_wait(path: str, sender: journal.JournalSender) -> None:
    with _journald(path) as journald:
        sent = 0
        while sender.send(b"MESSAGE=%d\n" % sent):  # a sender that waited would never come back
            sent += 1
        assert sent > 0
        assert journald.recv(100) == b"MESSAGE=0\n"
        assert sender.send(b"MESSAGE=room again\n")


def test_a_large_entry_travels_as_a_sealed_memfd(path: str, sender: journal.JournalSender) -> None:
    data = journal.entry({"MESSAGE": "x" * 4_000_000})
    with _journald(path) as journald:
        assert sender.send(data)
        payload, ancillary, _, _ = journald.recvmsg(100, socket.CMSG_SPACE(4))
    assert payload == b""
    (fd,) = array.array("i", ancillary[0][2])
    with open(fd, "r+b", buffering=0) as file:
        file.seek(0)
        assert file.read() == data
        with pytest.raises(PermissionError):
            file.write(b"y")


def test_a_large_entry_without_journald_is_not_taken(sender: journal.JournalSender) -> None:
    assert not sender.send(b"x" * 4_000_000)


def test_under_journal_compares_the_descriptor_itself(tmp_path: Path) -> None:
    with open(tmp_path / "a", "w") as ours, open(tmp_path / "b", "w") as other:
        status = os.fstat(ours.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert journal.under_journal(environ, ours.fileno())
        assert not journal.under_journal(environ, other.fileno())
        assert not journal.under_journal({}, ours.fileno())
        closed = ours.fileno()
    assert not journal.under_journal(environ, closed)
