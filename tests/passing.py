"""What systemd does for a socket-activated service: exec with descriptors from 3 on, and LISTEN_PID of that very
process."""

import sys
from collections.abc import Sequence
from typing import Protocol


class HasFileno(Protocol):
    """A socket, or any other open file."""

    def fileno(self) -> int:
        """The descriptor."""


#: The descriptors first go where nothing is in their way; `dup2` makes them inheritable.
_EXEC = """
import fcntl, os, sys
fds, names, command = sys.argv[1], sys.argv[2], sys.argv[3:]
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds.split(",")]
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
for fd in {*map(int, fds.split(","))}:
    if fd >= 3 + len(high):
        os.close(fd)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=names)
os.execvp(command[0], command)
"""

#: One descriptor, and the name that it is passed under.
Passing = tuple[str, HasFileno]


def prefix(passing: Sequence[Passing]) -> list[str]:
    """What goes before a command, so that it starts with these; they have to be inheritable there (`pass_fds`)."""
    if not passing:
        return []
    fds = ",".join(str(file.fileno()) for _, file in passing)
    names = ":".join(name for name, _ in passing)
    return [sys.executable, "-IS", "-c", _EXEC, fds, names]
