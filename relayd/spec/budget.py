"""The file descriptor budget (F2): what RLIMIT_NOFILE of a worker is spent on. Pure.

A connection costs two sockets. A pipe (two more descriptors) is taken only while bulk data moves, and without one the
relay copies; so pipes get a bounded share, and connections the rest.
"""

from dataclasses import dataclass

#: Descriptors of a worker that are neither listener, connection nor pipe: stdio, epoll, channel, log sockets, and slack
#: for the libraries beneath (a resolver file, /proc), counted generously.
RESERVE_FDS = 32
#: Bulk directions that move at once without copying, per worker. 512 pipes of 256 KiB are 128 MiB when all are full.
PIPES_MAX = 512


@dataclass(frozen=True, slots=True)
class Budget:
    """How the descriptors of one worker are spent. `connections` is the limit that the worker enforces; 0: too few
    fds.
    """

    nofile: int
    listening: int
    pipes: int
    connections: int

    def __str__(self) -> str:
        return (
            f"{self.connections} connections a worker: {self.nofile} file descriptors less {RESERVE_FDS} in reserve, "
            f"{self.listening} listening, {2 * self.pipes} for {self.pipes} pipes, then 2 for each connection"
        )


def budget(nofile: int, listening: int) -> Budget:
    """The budget of a worker with a soft limit of `nofile` descriptors and `listening` listening sockets."""
    free = max(0, nofile - RESERVE_FDS - listening)
    pipes = min(PIPES_MAX, free // 8)
    return Budget(nofile, listening, pipes, (free - 2 * pipes) // 2)
