"""The one line that `systemctl status` shows. Pure."""

from relayd.values import dataclass

#: systemd hands STATUS on to every subscriber on the bus; people read it no faster.
STATUS_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Active:
    """What is open now: connections of streams, sessions of datagrams; None where no listener serves that type."""

    connections: int | None
    sessions: int | None

    def __str__(self) -> str:
        counts = ((self.connections, "connection"), (self.sessions, "session"))
        return ", ".join(_counted(count, noun) for count, noun in counts if count is not None)


def serving(listeners: int, active: Active, workers: int, restarting: int) -> str:
    """`3 listeners, 128 connections, 12 sessions`, and how many of the workers are missing, if any are."""
    text = f"{_counted(listeners, 'listener')}, {active}"
    return f"{text}, {restarting} of {_counted(workers, 'worker')} restarting" if restarting else text


def stopping(active: Active) -> str:
    """`stopping: 12 connections left`."""
    return f"stopping: {active} left"


class StatusLine:
    """Says when a text is worth sending: it has changed, and the last one was sent a while ago."""

    def __init__(self) -> None:
        self._sent = ""
        self._sent_at = float("-inf")

    def due(self, text: str, now: float) -> bool:
        """True when `text` shall be sent now; then it counts as sent. `now` is monotonic seconds."""
        if text == self._sent or now - self._sent_at < STATUS_INTERVAL_S:
            return False
        self._sent, self._sent_at = text, now
        return True


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
