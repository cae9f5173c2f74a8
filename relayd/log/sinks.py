"""Where lines go: stdout, whatever it is, or journald. No sink ever waits, and none raises.

stdout may be shared with other processes, by its *file description*: O_NONBLOCK set on it would be set for the shell
that started us too. So a pipe or terminal is opened once more, through /proc/self/fd, for a description of our own. A
regular file is not: its position, or O_APPEND, belongs to all who write to it. Where opening is refused (a pipe made by
another user), the descriptor is asked by poll(2) before each write.
"""

import os
import select
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Protocol

from relayd.log.formats import LINE_BYTES_MAX
from relayd.sd.journal import JournalSender

#: Bytes in one write to a regular file, where size decides nothing but the number of system calls.
_FILE_CHUNK_BYTES = 256 * 1024


class Sink(Protocol):
    """Takes lines without waiting."""

    @property
    def pending(self) -> bool:
        """True while part of a line that was taken is still to be written: call `write`, if only with no lines."""

    def write(self, lines: Sequence[bytes]) -> int:
        """How many of `lines`, from the first on, were taken. Less than all: the sink takes no more for now."""

    def close(self) -> None:
        """Close what the sink opened. Idempotent."""


class StreamSink:
    """Lines to a file descriptor, several in one write, cut between lines.

    For pipes a write has at most PIPE_BUF bytes: all or nothing of it is written, and nothing of others between.
    """

    def __init__(self, write: Callable[[bytes], int], chunk_bytes: int, close: Callable[[], None]) -> None:
        """`write` writes some of its argument without waiting and says how much, or raises OSError."""
        self._write = write
        self._chunk_bytes = chunk_bytes
        self._close = close
        self._rest = b""

    @property
    def pending(self) -> bool:
        """See `Sink`."""
        return bool(self._rest)

    def write(self, lines: Sequence[bytes]) -> int:
        """See `Sink`."""
        if self._rest and not self._put(b""):
            return 0
        taken, count = 0, len(lines)
        while taken < count:
            end, size = taken + 1, len(lines[taken])
            while end < count and size + len(lines[end]) <= self._chunk_bytes:
                size += len(lines[end])
                end += 1
            if not self._put(b"".join(lines[taken:end])):
                break
            taken = end
        return taken

    def close(self) -> None:
        """See `Sink`."""
        self._close()

    def _put(self, data: bytes) -> bool:
        """True when `data` is written or, after a short write, its end is in `_rest`."""
        try:
            if self._rest:
                self._rest = self._rest[self._write(self._rest) :]
                if self._rest:
                    return False
            if data:
                self._rest = data[self._write(data) :]
        except OSError:
            # Full (EAGAIN), nobody reads (EPIPE), no space (ENOSPC), no terminal any more (EIO): whatever it is, there
            # is nowhere to say so. The logger keeps the lines, counts what it cannot keep, and tries again.
            return False
        return True


class JournalSink:
    """One datagram a line, to journald."""

    pending = False

    def __init__(self, sender: JournalSender) -> None:
        """Owns `sender`."""
        self._sender = sender

    def write(self, lines: Sequence[bytes]) -> int:
        """See `Sink`."""
        for taken, line in enumerate(lines):
            if not self._sender.send(line):
                return taken
        return len(lines)

    def close(self) -> None:
        """See `Sink`."""
        self._sender.close()


def open_stream(fd: int = 1) -> StreamSink:
    """The sink for descriptor `fd`, which stays open and unchanged.

    A closed `fd` is opened on /dev/null: else the next socket would get its number, and our lines.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        _occupy(fd)
        return StreamSink(_writer(fd), _FILE_CHUNK_BYTES, _nothing)
    if stat.S_ISSOCK(mode):
        return _open_socket(fd)
    if stat.S_ISFIFO(mode) or os.isatty(fd):
        return _open_again(fd)
    return StreamSink(_writer(fd), _FILE_CHUNK_BYTES, _nothing)


def _open_socket(fd: int) -> StreamSink:
    sock = socket.socket(fileno=os.dup(fd))
    return StreamSink(
        lambda data: sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL), LINE_BYTES_MAX, sock.close
    )


def _open_again(fd: int) -> StreamSink:
    try:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        # Another user's, or (ENXIO) a pipe that nobody reads.
        return StreamSink(_polling_writer(fd), LINE_BYTES_MAX, _nothing)
    return StreamSink(_writer(own), LINE_BYTES_MAX, _closer(own))


def _occupy(fd: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    if null != fd:
        os.dup2(null, fd)
        os.close(null)
    else:
        os.set_inheritable(fd, True)


def _writer(fd: int) -> Callable[[bytes], int]:
    return lambda data: os.write(fd, data)


def _polling_writer(fd: int) -> Callable[[bytes], int]:
    """Writes only when poll(2) says that PIPE_BUF bytes would fit. Between the two another process may fill the pipe,
    and then we do wait: the lesser evil, where changing the shared description is the other."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)

    def write(data: bytes) -> int:
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(fd, data)

    return write


def _closer(fd: int) -> Callable[[], None]:
    owned = [fd]

    def close() -> None:
        while owned:
            os.close(owned.pop())

    return close


def _nothing() -> None:
    """The descriptor is not ours to close."""
