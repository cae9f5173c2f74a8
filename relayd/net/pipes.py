"""Pipes for splice(2), and the pool that lends them out.

A pipe is the bounded buffer of one direction of bulk data (S4). It is taken for a burst and given back empty, so idle
connections hold none. A pipe that still has bytes is never given back: they belong to one connection (HAProxy's bug
48f1e2b6f).
"""

import contextlib
import fcntl
import os

#: Asked for; the kernel may give less (fs.pipe-user-pages-soft per user, fs.pipe-max-size per pipe), and that is used.
PIPE_BYTES = 256 * 1024
#: Pipes kept open for the next burst. More may be lent at once; those are closed when they come back.
_SPARE_PIPES_MAX = 64


class Pipe:
    """Both ends of one non-blocking pipe. `held` is how many bytes are in it: only its user knows, and keeps it
    right.
    """

    __slots__ = ("held", "read_fd", "write_fd")

    def __init__(self) -> None:
        """Raises OSError (EMFILE, ENFILE)."""
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.held = 0
        with contextlib.suppress(OSError):  # EPERM: over the user's share; a pipe of the default size takes more turns
            fcntl.fcntl(self.write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @classmethod
    def of(cls, read_fd: int, write_fd: int, held: int) -> "Pipe":
        """The pipe of which these are the ends, which it owns then, with `held` bytes in it."""
        pipe = cls.__new__(cls)
        pipe.read_fd, pipe.write_fd, pipe.held = read_fd, write_fd, held
        return pipe

    def close(self) -> None:
        """Close both ends; what is in the pipe is gone."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class PipePool:
    """Lends at most `limit` pipes at a time (the fd budget's share)."""

    def __init__(self, limit: int) -> None:
        #: May be changed at any time.
        self.limit = limit
        self._spare: list[Pipe] = []
        self.lent = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or None when the share is used up or the process is out of descriptors: then copy."""
        if self._spare:
            self.lent += 1
            return self._spare.pop()
        if self.lent >= self.limit:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None  # EMFILE, ENFILE: the caller copies instead, and nothing is lost
        self.lent += 1
        return pipe

    def lend_another(self) -> None:
        """One more is lent, which has come from another process."""
        self.lent += 1

    def give_back(self, pipe: Pipe) -> None:
        """Take `pipe` back. One that holds bytes is closed."""
        self.lent -= 1
        if pipe.held or len(self._spare) >= _SPARE_PIPES_MAX:
            pipe.close()
        else:
            self._spare.append(pipe)

    def close(self) -> None:
        """Close the spare pipes. Lent ones stay with their users."""
        while self._spare:
            self._spare.pop().close()
