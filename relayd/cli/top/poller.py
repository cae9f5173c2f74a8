"""Asks the daemon in a thread: a screen does not wait for a daemon that is being restarted, or hangs."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from relayd import clock
from relayd.cli import client
from relayd.cli.client import Place
from relayd.errors import RelaydError

__all__ = ["Answer", "Poller", "look"]


@dataclass(frozen=True, slots=True)
class Answer:
    """`error`, or what was found. `killed`: the id of the connection that was to be ended; "": it was a look."""

    found: tuple[Mapping[str, Any], Mapping[str, Any]] | None
    error: str
    at: float
    killed: str = ""


def look(where: Place, status: str, connections: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Both, one after the other. Raises RelaydError."""
    return _get(where, status), _get(where, connections)


class Poller:
    """`wake` is called in its thread when there is an answer. The thread ends with the process: what it waits for may
    take minutes.
    """

    def __init__(self, where: Place, wake: Callable[[], None]) -> None:
        self._where = where
        self._wake = wake
        self._asked: queue.SimpleQueue[Callable[[], Answer]] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def look(self, status: str, connections: str) -> None:
        """Ask for both."""
        self._asked.put(lambda: self._look(status, connections))

    def kill(self, name: str) -> None:
        """End this connection."""
        self._asked.put(lambda: self._kill(name))

    def answers(self) -> list[Answer]:
        """Those that have come since the last call."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def _run(self) -> None:
        while True:
            self._answers.append(self._asked.get()())
            self._wake()

    def _look(self, status: str, connections: str) -> Answer:
        try:
            return Answer(look(self._where, status, connections), "", clock.monotonic())
        except RelaydError as error:
            return Answer(None, _said(error), clock.monotonic())

    def _kill(self, name: str) -> Answer:
        try:
            found = client.ask(self._where, "POST", "/v1/kill", {"id": name})
            return Answer(None, str(found.get("error", "")), clock.monotonic(), name)
        except RelaydError as error:
            return Answer(None, _said(error), clock.monotonic(), name)


def _said(error: RelaydError) -> str:
    """On one line, and without the name of the program: it fills the screen."""
    return str(error).removeprefix("relayd: ").partition("\n")[0]


def _get(where: Place, path: str) -> Mapping[str, Any]:
    found = client.ask(where, "GET", path)
    if "error" in found:
        raise client.Refused(f"relayd: {found['error']}")
    return found
