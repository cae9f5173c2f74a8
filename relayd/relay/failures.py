"""What clients meet at targets: told to control, for its checks and its status, and to the log."""

from collections import Counter
from collections.abc import Callable

from relayd.channel.messages import TargetFailure, TargetFailures
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.relay.loop import Loop


class Failures:
    """The `pool.Hear` of a worker. `send` is called in the turn after what is told, once for all of it."""

    def __init__(self, loop: Loop, log: Logger, send: Callable[[TargetFailures], None]) -> None:
        self._loop = loop
        self._log = log
        self._send = send
        self._counts: Counter[tuple[str, str, str, bool, bool]] = Counter()
        #: When each became a suspect, by pool and address.
        self._since: dict[tuple[str, str], float] = {}

    def target_failed(
        self, pool: str, target: str, label: str, reason: str, *, first: bool, datagrams: bool, news: bool
    ) -> None:
        """See `pool.Hear`."""
        if not self._counts:
            self._loop.again(self._tell)
        self._counts[pool, target, reason, datagrams, news] += 1
        if first:
            self._since[pool, label] = self._loop.now
            text = f"{pool}: {label} has failed a client, others go first for a while: {reason}"
            self._log.event(Event.TARGET_SUSPECT, text, pool=pool, target=label, reason=reason)

    def target_worked(self, pool: str, target: str, label: str) -> None:  # noqa: ARG002  # control need not know
        """See `pool.Hear`."""
        since = self._since.pop((pool, label), self._loop.now)
        text = f"{pool}: {label} works again, after {self._loop.now - since:.1f} s"
        self._log.event(Event.TARGET_TRUSTED, text, pool=pool, target=label)

    def _tell(self) -> None:
        counts, self._counts = self._counts, Counter()
        self._send(
            TargetFailures(
                tuple(
                    TargetFailure(pool, target, reason, count, datagrams, news)
                    for (pool, target, reason, datagrams, news), count in counts.items()
                )
            )
        )

    def expire(self) -> None:
        """It has no timer."""

    def crashed(self, error: Exception) -> None:
        """A bug."""
        self._log.bug("met what was to be told of failing targets", error)
