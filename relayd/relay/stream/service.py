"""What the connections of one listener share in a worker: its spec, its targets, its counters, the pipes, the log."""

from dataclasses import field
from typing import Protocol

from relayd.choosing.group import Choice
from relayd.counters import ListenerCounters
from relayd.log.access import AccessRecord
from relayd.log.logger import ListenerLogger
from relayd.net.options import Setting, tcp_settings
from relayd.net.pipes import PipePool
from relayd.outcomes import Outcome
from relayd.relay.limits import Admission
from relayd.relay.loop import Actor, Loop
from relayd.spec import Listener, Stream, Target
from relayd.values import dataclass

#: The first look at a connection's timeouts comes this soon, and sets keepalive on its dialled socket: a connection
#: that ends before never pays for it.
FIRST_LOOK_S = 10.0


class Live(Protocol):
    """A live connection, as the service knows it."""

    choice: Choice | None

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes in and out so far."""

    @property
    def target(self) -> Target | None:
        """Where it goes; None before the first dial."""

    def end(self, outcome: Outcome) -> None:
        """End it now."""

    def reconsider(self) -> None:
        """Timeouts have changed: look at them."""


@dataclass(slots=True, eq=False)
class StreamService:
    """One listener of type stream in one worker. `pipes` None never splices.

    `first_look_s` is when a connection's timeouts are first looked at, after its accept and after each of its dials: no
    timeout is shorter.
    """

    loop: Loop
    spec: Listener
    stream: Stream
    log: ListenerLogger
    admission: Admission
    pipes: PipePool | None
    id_prefix: str
    counters: ListenerCounters = field(default_factory=ListenerCounters)
    connections: set[Live] = field(default_factory=set)
    first_look_s: float = FIRST_LOOK_S
    settings: tuple[Setting, ...] = ()
    _look: tuple[set[Actor], float] = (set(), 0.0)
    _look_turn: int = -1

    def __post_init__(self) -> None:
        self._derive(self.first_look_s)

    def _derive(self, first_look_s: float) -> None:
        timeouts, keepalive = self.stream.timeouts, self.stream.options.keepalive
        probing_s = keepalive.idle_s / 2 if keepalive is not None else None
        looks_s = (first_look_s, timeouts.connect_s, timeouts.idle_s, timeouts.max_lifetime_s, probing_s)
        self.first_look_s = min(look_s for look_s in looks_s if look_s is not None)
        self.settings = tcp_settings(self.stream.options)

    def change(self, spec: Listener, stream: Stream) -> None:
        """From now on do what `spec` says. Timeouts count for live connections too; what is set on sockets, and the
        source of dials, for new ones (R3).
        """
        timeouts = self.stream.timeouts
        self.spec, self.stream = spec, stream
        self.log.change(spec.log)
        self._derive(FIRST_LOOK_S)
        if stream.timeouts != timeouts:
            for connection in tuple(self.connections):
                connection.reconsider()

    def begin(self, connection: Live) -> int:
        """Count `connection` in; its number, the second half of its id."""
        self.connections.add(connection)
        self.admission.active += 1
        counters = self.counters
        counters.active += 1
        counters.accepted += 1
        return counters.accepted

    def readmit(self, connection: Live, conn_id: str) -> str:
        """Count in `connection`, which another process has accepted, and called `conn_id`."""
        self.connections.add(connection)
        self.admission.active += 1
        self.counters.active += 1
        return conn_id

    def welcome(self, connection: Live, before: Stream) -> None:
        """`connection` has been readmitted, and was served as `before` says."""
        if before.timeouts != self.stream.timeouts:
            connection.reconsider()

    def left(self, connection: Live, bytes_in: int, bytes_out: int) -> None:
        """Count out `connection`, which another process has now, with what it has moved so far: it has not ended."""
        self.connections.discard(connection)
        self.counters.active -= 1
        self.counters.bytes_in += bytes_in
        self.counters.bytes_out += bytes_out
        self.admission.active -= 1

    def first_look(self, connection: Actor) -> tuple[set[Actor], float]:
        """Set the timer of `connection` to the first look, counted from now: as `Loop.call_at`, and the time.

        Those of one turn share it: a connection pays a set operation for its timer.
        """
        loop = self.loop
        if self._look_turn == loop.turns:
            self._look[0].add(connection)
        else:
            at = loop.now + self.first_look_s
            self._look = loop.call_at(connection, at), at
            self._look_turn = loop.turns
        return self._look

    def ended(self, connection: Live, outcome: Outcome, bytes_in: int, bytes_out: int) -> None:
        """Count `connection` out. Once."""
        self.connections.discard(connection)
        counters = self.counters
        counters.active -= 1
        counters.bytes_in += bytes_in
        counters.bytes_out += bytes_out
        counters.closed[outcome] += 1
        self.admission.active -= 1

    def access(self, record: AccessRecord) -> None:
        """Log one ended connection."""
        self.log.access(record)

    def report_crash(self, error: Exception) -> None:
        """Log a bug with its traceback."""
        self.log.bug(f"ended a connection of listener {self.spec.name}", error, listener=self.spec.name)

    def end_all(self, outcome: Outcome) -> None:
        """End every connection."""
        for connection in tuple(self.connections):
            connection.end(outcome)
