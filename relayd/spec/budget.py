"""The file descriptor budget (F2): what RLIMIT_NOFILE is spent on, in a worker and in the control process. Pure.

Both have the same limit. The control process holds every listening socket, a worker those that it serves. To a worker,
a connection costs two sockets, a session one. A pipe (two more descriptors) is taken only while bulk data moves, and
without one the relay copies; so pipes get a bounded share, and connections and sessions the rest: half each where both
are served. The control process has none of these, but some descriptors for each of its workers.
"""

from relayd.address import NameAddress
from relayd.spec import CheckKind, Spec
from relayd.spec.sockets import socket_count, worker_socket_count
from relayd.values import dataclass

#: Descriptors of either process that are counted nowhere else: stdio, epoll, the log. Of a worker its channel; of
#: control the pair by which signals wake it, a socket for a notification, and 5 for a moment when a worker is started;
#: two for each of up to 4 addresses of the admin API, 8 connections to it, and a file that is read. With slack for the
#: libraries beneath (a resolver file, /proc).
RESERVE_FDS = 32
#: Bulk directions that move at once without copying, per worker. 512 pipes of 256 KiB are 128 MiB when all are full.
PIPES_MAX = 512
#: What the control process holds of each worker: its end of the channel, a pidfd, the pipe from its standard error.
WORKER_FDS = 3
#: Names that are looked up at once. A lookup without an answer takes 5 s, and one of a service some times that: with
#: 1,000 names whose name server is silent, all have been asked for in three minutes.
LOOKUPS_MAX = 32
#: Questions that one lookup asks at once, each by one socket: A and AAAA, of two hosts where a service has more.
LOOKUP_FDS = 4
#: Health checks over sockets that are under way at once: a thousand targets that are asked every 2 s, all of which are
#: silent for the whole timeout of 1 s, make 500.
CHECKS_MAX = 512
#: Commands that check health and run at once. Each is a process, and starting it takes milliseconds.
COMMANDS_MAX = 16
#: What one of them has open in the control process: its pidfd, the pipe from its output.
COMMAND_FDS = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """How the descriptors of one worker that serves `streams`, `datagrams` or both are spent. `connections` and
    `sessions` are the limits that the worker enforces, over all its listeners; both 0: too few fds.
    """

    nofile: int
    listening: int
    streams: bool
    datagrams: bool
    pipes: int
    connections: int
    sessions: int

    def __str__(self) -> str:
        served, each, pipes = [], [], ""
        if self.streams:
            served.append(f"{self.connections} connections")
            each.append("2 for each connection")
            pipes = f"{2 * self.pipes} for {self.pipes} pipes, "
        if self.datagrams:
            served.append(f"{self.sessions} sessions")
            each.append("1 for each session")
        return (
            f"{' and '.join(served)} a worker: {self.nofile} file descriptors less {RESERVE_FDS} in reserve, "
            f"{self.listening} listening, {pipes}then {' and '.join(each)}"
        )

    @property
    def enough(self) -> bool:
        """True when a worker can serve somebody."""
        return bool(self.connections or self.sessions)

    @property
    def shortage(self) -> str:
        """Why a worker cannot do with its limit; "" when it can."""
        if self.enough:
            return ""
        served = (("connection", self.streams), ("session", self.datagrams))
        kinds = " or ".join(kind for kind, is_served in served if is_served)
        return (
            f"too few file descriptors for a single {kinds}: a worker may open {self.nofile} "
            f"(RLIMIT_NOFILE), and {RESERVE_FDS} are in reserve, {self.listening} listening"
        )


@dataclass(frozen=True, slots=True)
class ControlBudget:
    """What the control process needs of its descriptors: for `listening` sockets, `workers`, and `lookups` at once, and
    `checks` for health checks.
    """

    nofile: int
    listening: int
    workers: int
    lookups: int
    checks: int = 0

    @property
    def needed(self) -> int:
        """The least limit on open files that the control process can do with."""
        worked = WORKER_FDS * self.workers + LOOKUP_FDS * self.lookups + self.checks
        return RESERVE_FDS + self.listening + worked

    def __str__(self) -> str:
        return f"the control process needs {self.needed} of {self.nofile} file descriptors: {self._parts}"

    @property
    def shortage(self) -> str:
        """Why the control process cannot do with its limit; "" when it can."""
        if self.needed <= self.nofile:
            return ""
        return (
            f"too few file descriptors for the control process: it may open {self.nofile} (RLIMIT_NOFILE), and needs "
            f"{self.needed}: {self._parts}"
        )

    @property
    def _parts(self) -> str:
        parts = f"{RESERVE_FDS} in reserve, {self.listening} listening, {WORKER_FDS * self.workers} for "
        parts += f"{self.workers} worker{'s' if self.workers != 1 else ''}"
        parts += f", {LOOKUP_FDS * self.lookups} to look up host names" if self.lookups else ""
        return f"{parts}, {self.checks} for health checks" if self.checks else parts


def budget(nofile: int, listening: int, *, streams: bool = True, datagrams: bool = False) -> Budget:
    """The budget of a worker with a soft limit of `nofile` descriptors and `listening` listening sockets."""
    free = max(0, nofile - RESERVE_FDS - listening)
    if not streams:
        return Budget(nofile, listening, streams, datagrams, 0, 0, free if datagrams else 0)
    pipes = min(PIPES_MAX, free // 8)
    rest = free - 2 * pipes
    sessions = rest // 2 if datagrams else 0
    connections = (rest - sessions) // 2
    return Budget(nofile, listening, streams, datagrams, pipes, connections, sessions if connections else 0)


def budget_of(spec: Spec, nofile: int) -> Budget:
    """The budget of the worker of `spec` that has most listening sockets."""
    return budget(
        nofile,
        worker_socket_count(spec),
        streams=any(listener.stream is not None for listener in spec.listeners),
        datagrams=any(listener.datagram is not None for listener in spec.listeners),
    )


def control_budget(nofile: int, spec: Spec) -> ControlBudget:
    """The budget of the control process of `spec` with a soft limit of `nofile` descriptors."""
    lookups = min(len(spec.names), LOOKUPS_MAX)
    return ControlBudget(nofile, socket_count(spec), spec.workers, lookups, _check_fds(spec))


def _check_fds(spec: Spec) -> int:
    """Descriptors for as many health checks at once as there can be; a name may stand for any number of targets."""
    sockets = commands = 0
    for listener in spec.listeners:
        check = listener.health.check
        if check is None:
            continue
        named = any(isinstance(target.address, NameAddress) for target in listener.targets)
        targets = CHECKS_MAX if named else len(listener.targets)
        if check.kind is CheckKind.EXEC:
            commands += targets
        else:
            sockets += targets
    return min(sockets, CHECKS_MAX) + COMMAND_FDS * min(commands, COMMANDS_MAX)


def shortages(nofile: int, spec: Spec) -> tuple[str, ...]:
    """Why `spec` cannot be run with a limit of `nofile` descriptors in each process: nothing, when it can."""
    found = (control_budget(nofile, spec).shortage, budget_of(spec, nofile).shortage)
    return tuple(shortage for shortage in found if shortage)
