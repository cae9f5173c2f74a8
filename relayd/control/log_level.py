"""From which level on lines are logged: as the file says, or as an operator wants it until the next reload."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from relayd.log.events import Event, Level
from relayd.log.logger import Logger
from relayd.spec import Log

__all__ = ["LogLevel"]


class LogLevel:
    """Of the control process and of all workers. `in_force()` is what the file says; `tell(level)` has workers, those
    too that begin later, log from that level on, None: as the file says.
    """

    def __init__(self, logger: Logger, in_force: Callable[[], Log], tell: Callable[[str | None], None]) -> None:
        self._logger = logger
        self._in_force = in_force
        self._tell = tell
        #: What an operator wants; None: nothing.
        self._wanted: str | None = None

    def status(self) -> dict[str, Any]:
        """For `json.dumps`; docs/admin.md says what is in it."""
        file = self._in_force().level
        return {"level": self._wanted or file, "file": file}

    def change(self, level: str, who: str) -> dict[str, Any]:
        """From now on `level`, by order of `who`. As `status` afterwards."""
        before, file = self.status()["level"], self._in_force().level
        self._wanted = None if level == file else level
        text = f"the log level is {level}, and was {before}, by order of {who}"
        if self._wanted is not None:
            text += f"; the next reload or restart makes it {file} again"
        # Whatever the level is or was, this is not to be missed by those who miss lines later.
        self._log_from(Level.DEBUG.value)
        self._logger.event(Event.LOG_LEVEL, text, wanted=level, before=before, by=who)
        self._log_from(level)
        self._tell(self._wanted)
        return self.status()

    def forget(self) -> None:
        """A reload has made it what the file says."""
        if self._wanted is not None:
            self._wanted = None
            self._log_from(self._in_force().level)
            self._tell(None)

    def _log_from(self, level: str) -> None:
        self._logger.change(replace(self._in_force(), level=level))
