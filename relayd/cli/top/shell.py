"""`relayd top`: what happens on the terminal, and with the daemon, by turns.

Signals and answers wake one loop by one pipe: a signal writes its number, the poller a zero. Nothing else is done where
they come.
"""

import contextlib
import os
import selectors
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace

from relayd import clock
from relayd.cli import client
from relayd.cli.asking import of_another_version
from relayd.cli.client import Place
from relayd.cli.connections import Sort
from relayd.cli.top import poller, screen, state
from relayd.cli.top.keys import Keys
from relayd.cli.top.poller import Answer, Poller
from relayd.cli.top.state import Act, Kill, Seen, View
from relayd.cli.top.terminal import Terminal

__all__ = ["run"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALS = (*_ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
#: The age of an answer is drawn so often.
_REDRAW_S = 1.0
#: While keys change what is asked for, no sooner after the last question.
_KEYS_S = 0.15
#: The first question, before anybody knows how large the screen is.
_FIRST = 50
_WIDE = 200
_NEVER = float("inf")


def run(where: Place, interval_s: float, sort: Sort) -> None:
    """Until q or Ctrl-C. A signal that ends processes ends this one, after the terminal has been given back.

    Raises RelaydError where the first question is not answered, before anything is drawn.
    """
    view = View(sort)
    seen = _seen(*poller.look(where, state.status_path(0), state.path(view, _FIRST)))
    with _signals() as (woken, wake), Terminal() as terminal:
        ended_by = Top(where, interval_s, view, seen, terminal, woken, wake).run()
    if ended_by in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)


class Top:
    """One life of it. `woken` is the end of the pipe that is read, `wake` the other; both stay the caller's."""

    def __init__(
        self,
        where: Place,
        interval_s: float,
        view: View,
        seen: Seen,
        terminal: Terminal,
        woken: int,
        wake: int,
    ) -> None:
        self._interval_s = interval_s
        self._view = view
        self._seen = seen
        self._terminal = terminal
        self._woken = woken
        self._keys = Keys()
        self._poller = Poller(where, lambda: _wake(wake))
        self._asking = False
        self._asked_at = clock.monotonic()
        #: When to ask again. While it is paused, a key that asks for something else asks once.
        self._due = self._asked_at
        self._ended_by: int | None = None

    def run(self) -> int:
        """The signal that ended it, 0 for q and the end of what is typed."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._terminal.fileno(), selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while self._ended_by is None:
                self._ask_if_due(clock.monotonic())
                self._draw()
                for key, _ in selector.select(self._wait_s(clock.monotonic())):
                    if key.fd == self._woken:
                        self._wake_up()
                    else:
                        self._typed()
        return self._ended_by

    def _wait_s(self, now: float) -> float:
        return _REDRAW_S if self._asking else max(0.0, min(_REDRAW_S, self._due - now))

    def _ask_if_due(self, now: float) -> None:
        if self._asking or now < self._due:
            return
        self._asking, self._asked_at = True, now
        self._due = _NEVER if self._view.paused else now + self._interval_s
        self._poller.look(
            state.status_path(len(self._seen.status["listeners"])), state.path(self._view, self._room(now))
        )

    def _draw(self) -> None:
        columns, height = self._terminal.size()
        self._terminal.draw(screen.lines(self._view, self._seen, columns, height, clock.monotonic(), clock.wall()))

    def _room(self, now: float) -> int:
        columns, height = self._terminal.size()
        return screen.room(self._view, self._seen, columns, height, now)

    def _wake_up(self) -> None:
        for number in os.read(self._woken, 4096):
            if number in _ENDING:
                self._ended_by = number
            elif number == signal.SIGTSTP:
                self._stop()
            elif number == signal.SIGCONT:
                self._terminal.enter()
            elif number == signal.SIGWINCH:
                self._terminal.resized()
                self._hurry()
        for answer in self._poller.answers():
            self._take(answer)

    def _stop(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and take it again when the shell lets us go on."""
        self._terminal.leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.pthread_kill(threading.get_ident(), signal.SIGTSTP)  # to this thread: it stops here, and not a bit later
        signal.signal(signal.SIGTSTP, _ignore)
        self._terminal.enter()
        self._hurry()

    def _take(self, answer: Answer) -> None:
        if answer.asked_for:
            self._view = replace(self._view, note=_note(answer))
            self._hurry()
            return
        self._asking = False
        if answer.found is None:
            self._seen = replace(self._seen, error=answer.error)
            return
        try:
            self._seen = replace(_seen(*answer.found, answer.at), refused=answer.error)
        except client.Unreachable as error:
            self._seen = replace(self._seen, error=str(error))
            return
        self._settle()

    def _typed(self) -> None:
        data = self._terminal.read()
        if not data:
            self._ended_by = 0
        for key in self._keys.feed(data):
            room = self._room(clock.monotonic())
            self._view, act = state.pressed(self._view, key, state.page(self._view, self._seen, room))
            if act is Act.QUIT:
                self._ended_by = 0
            elif act is Act.ASK:
                self._hurry()
            elif isinstance(act, Kill):
                self._poller.kill(act.id)

    def _settle(self) -> None:
        page = state.page(self._view, self._seen, self._room(clock.monotonic()))
        self._view = state.answered(self._view, page)
        if page.more and self._view.cursor >= len(page.found):
            self._hurry()

    def _hurry(self) -> None:
        """Ask before it is time."""
        self._due = min(self._due, self._asked_at + _KEYS_S)


def _note(answer: Answer) -> str:
    """What has become of a connection that was to be ended."""
    if answer.error:
        return answer.error
    if answer.killed:
        return f"{answer.asked_for} is ended"
    return f"{answer.asked_for} may go on: a worker has not answered in time"


def _seen(status: state.One, connections: state.One, at: float | None = None) -> Seen:
    """Raises client.Unreachable for what cannot be drawn."""
    found = Seen(status, connections, clock.monotonic() if at is None else at)
    try:
        screen.lines(View(), found, _WIDE, _FIRST, found.at, 0.0)  # if it is of another version, all of it is
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise client.Unreachable(of_another_version(error)) from None
    return found


@contextlib.contextmanager
def _signals() -> Iterator[tuple[int, int]]:
    """The two ends of the pipe into which signals write their numbers; as it was before, afterwards."""
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    # What whoever started it has set aside stays so: nohup(1), a shell without job control.
    heard = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _ignore) for number in heard}
    descriptor = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield woken, wake
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(woken)
        os.close(wake)


def _ignore(number: int, frame: object) -> None:
    """Python's own handler has written the number already."""


def _wake(wake: int) -> None:
    with contextlib.suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: it is over
        os.write(wake, b"\0")
