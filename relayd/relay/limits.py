"""How many connections a worker takes, and when it stops accepting for a while. Pure.

At the limit, or out of descriptors or memory (F1, F2), nothing is refused: connections wait in the backlog, every
acceptor pauses on a timer and looks again. One log line an episode, and never more than one in LOG_INTERVAL_S.
"""

#: Seconds between looks while paused: short enough that nobody notices, long enough to cost nothing.
ACCEPT_PAUSE_S = 0.1
#: At most one line about pauses in this time, however many listeners pause.
LOG_INTERVAL_S = 10.0


class Admission:
    """Counts the connections of one worker against `limit`."""

    __slots__ = ("_line_at", "active", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.active = 0
        self._line_at: float | None = None

    @property
    def full(self) -> bool:
        """True when no connection more may be accepted."""
        return self.active >= self.limit

    def log_pause(self, now: float) -> bool:
        """True when a pause that begins now deserves a line."""
        if self._line_at is not None and now - self._line_at < LOG_INTERVAL_S:
            return False
        self._line_at = now
        return True
