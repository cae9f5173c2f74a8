"""Looks up host names without ever making anything wait: getaddrinfo(3) in daemon threads, one thread per lookup.

Daemon threads, and no pool: a pool is joined at exit, and a resolver that hangs would hold the exit for half a minute.
What is looked up when is decided in `names`.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable

from relayd import clock
from relayd.address import InetAddress, NameAddress, from_sockaddr
from relayd.channel.messages import Resolved
from relayd.control.names import Names
from relayd.log.events import Event

__all__ = ["RESOLVE_BOOT_WAIT_S", "Resolver", "look_up"]

#: How long a start waits for first answers. A lost packet is retried after 5 s: what is late will be quite late.
RESOLVE_BOOT_WAIT_S = 3.0


def look_up(name: NameAddress) -> tuple[InetAddress, ...]:
    """Every address of `name`, once each, in the order of RFC 6724. Blocks. Raises OSError (socket.gaierror)."""
    found = socket.getaddrinfo(name.host, name.port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    addresses = (from_sockaddr(family, sockaddr) for family, _, _, _, sockaddr in found)
    return tuple(dict.fromkeys(address for address in addresses if isinstance(address, InetAddress)))


class Resolver:
    """Keeps the addresses of `names` fresh. `on_answer` is called in the event loop with every answer that is news."""

    def __init__(
        self,
        names: Iterable[NameAddress],
        on_answer: Callable[[Resolved], None],
        say: Callable[..., None],
        look_up: Callable[[NameAddress], tuple[InetAddress, ...]] = look_up,
    ) -> None:
        self._names = Names(names)
        self._on_answer = on_answer
        self._say = say
        self._look_up = look_up
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._first_answers = asyncio.Event()
        self._closed = False

    def start(self) -> None:
        """Begin with every name."""
        self._note_first_answers()
        self._next()

    async def change(self, names: Iterable[NameAddress]) -> None:
        """Keep these fresh from now on, and wait for first answers for those that are new."""
        self._names.change(names)
        self._first_answers.clear()
        self.start()
        await self.first_answers()

    async def first_answers(self) -> None:
        """Wait until every name has been looked up once, with or without success, or RESOLVE_BOOT_WAIT_S is over."""
        with contextlib.suppress(asyncio.TimeoutError):  # the answers that are missing come later, as changes do
            await asyncio.wait_for(self._first_answers.wait(), RESOLVE_BOOT_WAIT_S)

    def close(self) -> None:
        """Look up no more, and ignore what lookups under way still find."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = clock.monotonic()
        for name in self._names.begin(now):
            try:
                threading.Thread(target=self._ask, args=(name,), name=f"resolve {name.host}", daemon=True).start()
            except RuntimeError as error:  # no more threads
                self._failed(name, error)
        wait = self._names.wait_s(now)
        if wait is not None:
            self._timer = self._loop.call_later(wait, self._next)

    def _ask(self, name: NameAddress) -> None:
        """In a thread of its own: look `name` up and hand the result to the event loop."""
        result: tuple[InetAddress, ...] | Exception
        try:
            result = self._look_up(name)
        except (OSError, ValueError) as error:  # ValueError: UnicodeError, from a label that IDNA does not take
            result = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has stopped meanwhile
            self._loop.call_soon_threadsafe(self._found, name, result)

    def _found(self, name: NameAddress, result: tuple[InetAddress, ...] | Exception) -> None:
        if self._closed:
            return
        if name not in self._names:
            self._next()
        elif isinstance(result, Exception):
            self._failed(name, result)
        elif not result:
            self._failed(name, OSError("the answer has no address"))
        elif self._names.answered(name, result, clock.monotonic()):
            text = ", ".join(address.host for address in result)
            self._say(Event.TARGET_RESOLVED, f"{_shown(name)} is {text}", target=_shown(name), addresses=text)
            self._on_answer(Resolved(name, result))
        self._note_first_answers()
        self._next()

    def _failed(self, name: NameAddress, error: Exception) -> None:
        kept = self._names.failed(name, clock.monotonic())
        reason = getattr(error, "strerror", None) or str(error)
        consequence = f"it stays {', '.join(address.host for address in kept)}" if kept else "it has no address yet"
        self._say(
            Event.TARGET_UNRESOLVED,
            f"{_shown(name)} does not resolve ({reason}): {consequence}",
            target=_shown(name),
            reason=reason,
        )

    def _note_first_answers(self) -> None:
        if self._names.all_answered:
            self._first_answers.set()


def _shown(name: NameAddress) -> str:
    """As the file has it: without a port where that follows the port of the bind."""
    return str(name) if name.port else name.host
