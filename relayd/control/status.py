"""The one line that `systemctl status` shows. Pure."""

#: systemd hands STATUS on to every subscriber on the bus; people read it no faster.
STATUS_INTERVAL_S = 1.0


def serving(listeners: int, connections: int, workers: int, restarting: int) -> str:
    """`3 listeners, 128 connections`, and how many of the workers are missing, if any are."""
    text = f"{_counted(listeners, 'listener')}, {_counted(connections, 'connection')}"
    return f"{text}, {restarting} of {_counted(workers, 'worker')} restarting" if restarting else text


def stopping(connections: int) -> str:
    """`stopping: 12 connections left`."""
    return f"stopping: {_counted(connections, 'connection')} left"


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
