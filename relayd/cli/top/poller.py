"""Asks the daemon in a thread: a screen does not wait for a daemon that is being restarted, or hangs."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from relayd import clock
from relayd.cli import client
from relayd.cli.asking import of_another_version
from relayd.cli.client import Place
from relayd.errors import RelaydError
from relayd.values import dataclass

__all__ = ["Answer", "Poller", "look"]

_NO_CONNECTIONS: Mapping[str, Any] = {"total": 0, "complete": True, "connections": []}


@dataclass(frozen=True, slots=True)
class Answer:
    """`error`, or what was found; both where the connections that were asked for were refused, and the status was not:
    then there are none. `asked_for`: the id of the connection that was to be ended, which `killed` says
    whether it was; "": it was a look.
    """

    found: tuple[Mapping[str, Any], Mapping[str, Any]] | None
    error: str
    at: float
    asked_for: str = ""
    killed: bool = False


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
        #: The id of a connection that is to be ended, "" for a look; and what asks for that.
        self._asked: queue.SimpleQueue[tuple[str, Callable[[], Answer]]] = queue.SimpleQueue()
        self._answers: deque[Answer] = deque()
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def look(self, status: str, connections: str) -> None:
        """Ask for both."""
        self._asked.put(("", lambda: self._look(status, connections)))

    def kill(self, name: str) -> None:
        """End this connection."""
        self._asked.put((name, lambda: self._kill(name)))

    def answers(self) -> list[Answer]:
        """Those that have come since the last call."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def _run(self) -> None:
        while True:
            name, ask = self._asked.get()
            try:
                answer = ask()
            except Exception as error:  # were the thread to end, the screen would wait for ever, and say nothing
                answer = Answer(None, _said(error), clock.monotonic(), name)
            self._answers.append(answer)
            self._wake()

    def _look(self, status: str, connections: str) -> Answer:
        found = _get(self._where, status)
        try:
            return Answer((found, _get(self._where, connections)), "", clock.monotonic())
        except client.Refused as refused:  # the filter is none
            return Answer((found, _NO_CONNECTIONS), _said(refused), clock.monotonic())

    def _kill(self, name: str) -> Answer:
        found = client.ask(self._where, "POST", "/v1/kill", {"id": name})
        if "error" in found:
            raise client.Refused(f"relayd: {found['error']}")
        try:
            killed = int(found["killed"]) > 0
        except (KeyError, TypeError, ValueError) as error:
            raise client.Unreachable(of_another_version(error)) from None
        return Answer(None, "", clock.monotonic(), name, killed)


def _said(error: Exception) -> str:
    """On one line, and without the name of the program: it fills the screen. What is no RelaydError says what it is."""
    if not isinstance(error, RelaydError):
        return repr(error)
    return str(error).removeprefix("relayd: ").partition("\n")[0]


def _get(where: Place, path: str) -> Mapping[str, Any]:
    found = client.ask(where, "GET", path)
    if "error" in found:
        raise client.Refused(f"relayd: {found['error']}")
    return found
