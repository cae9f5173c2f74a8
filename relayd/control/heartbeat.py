"""When a worker counts as hung. Pure.

Silence is measured in ticks of the control process and not in seconds: when the whole machine, or the whole service,
was stopped for a while, both sides lost the same time, and nobody hangs.
"""

#: Seconds between the ticks of the control process.
TICK_S = 0.5
#: 4 s without one of the worker's reports, of which there is one a second: three missing in a row is no coincidence.
REPORT_TICKS = 8
#: 10 s from exec to Ready, which takes 0.1 s on an idle machine. A machine that needs more does not start by killing.
START_TICKS = 20


class Heartbeat:
    """Counts the ticks since a worker was last heard."""

    def __init__(self, limit: int = START_TICKS) -> None:
        self._limit = limit
        self._ticks = 0

    def heard(self, limit: int = REPORT_TICKS) -> None:
        """The worker has said something; it may now be silent for fewer than `limit` ticks."""
        self._limit = limit
        self._ticks = 0

    def tick(self) -> bool:
        """One tick has passed. True when that was one too many: once, until the worker is heard again."""
        self._ticks += 1
        return self._ticks == self._limit

    @property
    def silent_s(self) -> float:
        """About how long the worker has been silent, for the log."""
        return self._ticks * TICK_S
