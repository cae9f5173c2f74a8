"""What both halves of the data plane need to be tested in this process: a loop in a thread, and a log to wait for.

Nothing here sleeps: every wait is for a record, an event, or an answer of the loop, and is bounded by DEADLINE_S.
"""

import abc
import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from relayd.address import SocketAddress, UnixAddress
from relayd.log.access import AccessRecord
from relayd.log.events import Event
from relayd.log.formats import JsonFormat
from relayd.log.logger import Logger
from relayd.log.sinks import StreamSink
from relayd.net.poller import IN
from relayd.outcomes import Outcome
from relayd.relay.loop import Loop
from relayd.spec import Log

#: Far more than anything takes here; a wait that fails takes this long.
DEADLINE_S = 10.0
Result = TypeVar("Result")


class CollectedLog(Logger):
    """A logger whose lines are lists."""

    def __init__(self) -> None:
        super().__init__(Log("debug", "json", True), JsonFormat(None), StreamSink(len, 1, lambda: None))
        self.records: list[AccessRecord] = []
        self.lives: list[tuple[Event, AccessRecord]] = []
        self.events: list[tuple[Event, str, Mapping[str, str | int | float]]] = []
        self.said = threading.Condition()

    def write(self, event: Event, message: str, fields: Mapping[str, str | int | float]) -> None:
        """Keep it."""
        with self.said:
            self.events.append((event, message, fields))
            self.said.notify_all()

    def access(self, record: AccessRecord) -> None:
        """Keep it."""
        with self.said:
            self.records.append(record)
            self.said.notify_all()

    def living(self, event: Event, record: AccessRecord) -> None:
        """Keep it."""
        with self.said:
            self.lives.append((event, record))
            self.said.notify_all()

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


class LoopThread(abc.ABC):
    """A loop that turns in a thread inside `with`. Afterwards nothing of it is left, or the test fails.

    A subclass says what is served: `open` in the test's thread, `end` in the loop's, and `check` when all is over.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self.log = CollectedLog()
        self.loop = Loop(flush)
        self.thread_clock = 0
        self._errors: list[Exception] = []
        self._seen = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Register what wakes the loop, and let it turn."""
        self.loop.selector.register(self._woken, IN, self.on_wake)
        self.open()
        self._thread.start()
        self.thread_clock = time.pthread_getcpuclockid(self._thread.ident or 0)

    @abc.abstractmethod
    def open(self) -> None:
        """Begin to serve. Before the thread starts."""

    @abc.abstractmethod
    def end(self) -> None:
        """Serve no more, and end everything. In the loop's thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is still held. After the thread has ended, whatever the test did."""

    @abc.abstractmethod
    def check(self) -> None:
        """Assert that nothing is left. After the thread has ended, when the test itself has not failed."""

    def stop(self, *, failed: bool) -> None:
        """End the thread, close everything, and `check` unless the test has `failed` already."""
        for client in self._clients:
            client.close()
        with contextlib.suppress(OSError):  # the loop has died: its error is raised below
            self.call(self._end)
        self._thread.join(DEADLINE_S)
        alive = self._thread.is_alive()
        watched = [key for key in self.loop.selector.get_map().values() if key.fileobj is not self._woken]
        for sock in (self._wake, self._woken):
            sock.close()
        self.close()
        self.loop.close()
        assert not alive, "the loop does not stop"
        if self._errors:
            raise self._errors[0]
        if not failed:
            assert not watched, watched
            self.check()

    # from the test's thread -------------------------------------------------------------------------------------

    def ended(self, timeout_s: float = DEADLINE_S) -> AccessRecord:
        """The record of the next connection or session that has ended, in the order of their ends."""
        self._seen += 1
        self._wait(lambda: len(self.log.records) >= self._seen, "the next end", timeout_s)
        return self.log.records[self._seen - 1]

    def outcomes(self, count: int) -> set[Outcome]:
        """How the next `count` of them ended."""
        return {self.ended().outcome for _ in range(count)}

    def wait_event(self, event: Event) -> tuple[str, Mapping[str, str | int | float]]:
        """Message and fields of the first event of this kind, seen already or still to come."""
        self._wait(lambda: any(each[0] is event for each in self.log.events), f"event {event}", DEADLINE_S)
        return next((message, fields) for each, message, fields in self.log.events if each is event)

    def call(self, function: Callable[[], Result]) -> Result:
        """Run `function` in the loop's thread, between turns, and return its result."""
        done = threading.Event()
        results: list[Result] = []

        def run() -> None:
            try:
                results.append(function())
            finally:
                done.set()

        self._calls.append(run)
        self._wake.send(b".")
        assert done.wait(DEADLINE_S), f"the loop does not turn: {self._errors}"
        return results[0]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until `condition`, asked in the loop's thread between turns, holds."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.call(condition):
            assert time.monotonic() < deadline, f"not seen: {what}"

    def cpu_s(self) -> float:
        """CPU seconds that the loop's thread has used."""
        return time.clock_gettime(self.thread_clock)

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        with self.log.said:
            if not self.log.said.wait_for(condition, timeout_s):
                raise AssertionError(f"not seen in {timeout_s:g} s: {what}\n{self.log.records}\n{self.log.events}")

    # in the loop's thread ---------------------------------------------------------------------------------------

    def on_wake(self, mask: int) -> None:
        """Handler of the wake-up socket."""
        self._woken.recv(4096)
        while self._calls:
            self._calls.popleft()()

    def crashed(self, error: Exception) -> None:
        """A test's own mistake."""
        self._errors.append(error)

    def _run(self) -> None:
        try:
            self.loop.run()
        except Exception as error:
            self._errors.append(error)
        finally:
            self._wake.close()

    def _end(self) -> None:
        self.end()
        self.loop.running = False


def remove_file(address: SocketAddress) -> None:
    """Remove the file of a Unix path, where it has one. Idempotent."""
    if isinstance(address, UnixAddress) and not address.abstract:
        Path(address.path).unlink(missing_ok=True)
