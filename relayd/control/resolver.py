"""Keeps the addresses of names fresh, without ever making anything wait. For the event loop.

What is looked up when is decided in `names`, what a lookup is in `lookups`.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from relayd import clock
from relayd.address import NameAddress
from relayd.channel.messages import Resolved
from relayd.control.answers import Answer, Known
from relayd.control.lookups import LookupFailed, Lookups
from relayd.control.names import Names, ttl_s
from relayd.log.events import Event
from relayd.spec import Wanted

if TYPE_CHECKING:  # a start does not wait for it: the admin API loads it
    from relayd.control.metrics import NameFacts

__all__ = ["RESOLVE_BOOT_WAIT_S", "Resolver"]

#: How long a start waits for first answers. A lost packet is sent again after 2 s: what is late will be quite late.
RESOLVE_BOOT_WAIT_S = 3.0
#: How often the hosts file and resolv.conf are looked at, each by a stat(2): about as long as it takes somebody who has
#: changed one to come and look.
FILES_LOOK_S = 5.0


class Resolver:
    """Keeps the addresses of `names` fresh. `on_answer` is called with every answer that is news."""

    def __init__(
        self,
        names: Iterable[Wanted],
        on_answer: Callable[[Resolved], None],
        say: Callable[..., None],
        lookups: Lookups | None = None,
    ) -> None:
        self._names = Names(names)
        self._on_answer = on_answer
        self._say = say
        self._lookups = lookups or Lookups()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._files: asyncio.Task[None] | None = None
        self._first_answers = asyncio.Event()
        self._closed = False

    def restore(self, known: Iterable[Known]) -> None:
        """Go on with what the process before has known. Before `start`."""
        now = clock.monotonic()
        for each in known:
            if self._names.restore(each, now):
                self._on_answer(each.resolved)

    def known(self) -> tuple[Known, ...]:
        """What the next process shall `restore`."""
        return self._names.known()

    def start(self) -> None:
        """Begin with every name."""
        self._note_first_answers()
        self._next()

    async def change(self, names: Iterable[Wanted]) -> None:
        """Keep these fresh from now on, and wait for first answers for those that are new."""
        names = frozenset(names)
        self._names.change(names)
        self._lookups.keep(names)
        self._first_answers.clear()
        self.start()
        await self.first_answers()

    async def first_answers(self) -> None:
        """Wait until every name has been looked up once, with or without success, or RESOLVE_BOOT_WAIT_S is over."""
        with contextlib.suppress(asyncio.TimeoutError):  # the answers that are missing come later, as changes do
            await asyncio.wait_for(self._first_answers.wait(), RESOLVE_BOOT_WAIT_S)

    def status(self) -> list[dict[str, Any]]:
        """What `relayd status` shows of each name; docs/admin.md says what is in it."""
        return list(self._status(clock.monotonic()))

    def facts(self) -> "Iterator[NameFacts]":
        """For the metrics."""
        from relayd.control.metrics import NameFacts

        now = clock.monotonic()
        for name, state in self._names.items():
            yield NameFacts(shown(name), now - state.answered_at if state.answer else None, not state.error)

    def _status(self, now: float) -> Iterator[dict[str, Any]]:
        for name, state in self._names.items():
            answer = state.answer
            yield {
                "name": shown(name),
                "family": name.resolve.family.value if name.resolve.family else "any",
                "addresses": [str(address) for address in answer.addresses] if answer else [],
                "age_s": round(now - state.answered_at, 3) if answer else None,
                "ttl_s": ttl_s(name, answer) if answer else None,
                "error": state.error or None,
            }

    def close(self) -> None:
        """Look up no more, and leave the lookups that are under way."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._files is not None:
            self._files.cancel()

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed:
            return
        now = clock.monotonic()
        for name in self._names.begin(now):
            task = asyncio.ensure_future(self._look_up(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        wait = self._names.wait_s(now)
        if wait is not None:
            self._timer = self._loop.call_later(wait, self._next)
        if self._files is None and self._tasks:
            self._files = asyncio.ensure_future(self._look_at_files())

    async def _look_at_files(self) -> None:
        while True:
            await asyncio.sleep(FILES_LOOK_S)
            try:
                if await self._lookups.refresh():
                    self._names.hurry(clock.monotonic())
                    self._next()
            except Exception as error:
                self._report(error)

    async def _look_up(self, name: Wanted) -> None:
        result: Answer | LookupFailed
        try:
            result = await self._lookups.look_up(name)
        except LookupFailed as error:
            result = error
        except Exception as error:  # a bug: as a failure, or the name would never be looked up again
            self._report(error)
            result = LookupFailed(f"{type(error).__name__}: {error}")
        if name not in self._names:
            pass
        elif isinstance(result, LookupFailed):
            self._failed(name, str(result))
        elif self._names.answered(name, result, clock.monotonic()):
            text = ", ".join(_hosts(name, result))
            self._on_answer(Resolved(name.name, result.addresses, result.shares, name.resolve))
            self._say(Event.TARGET_RESOLVED, f"{shown(name)} is {text}", target=shown(name), addresses=text)
        self._note_first_answers()
        self._next()

    def _failed(self, name: Wanted, reason: str) -> None:
        kept = self._names.failed(name, reason, clock.monotonic())
        consequence = f"it stays {', '.join(_hosts(name, kept))}" if kept else "it has no address yet"
        self._say(
            Event.TARGET_UNRESOLVED,
            f"{shown(name)} does not resolve ({reason}): {consequence}",
            target=shown(name),
            reason=reason,
        )

    def _report(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "looking names up", "exception": error})

    def _note_first_answers(self) -> None:
        if self._names.all_answered:
            self._first_answers.set()


def shown(name: Wanted) -> str:
    """As the file has it: without a port where that follows the port of the bind."""
    return name.name.host if isinstance(name.name, NameAddress) and not name.name.port else str(name.name)


def _hosts(name: Wanted, answer: Answer) -> Iterator[str]:
    """Addresses; with their ports where these are part of the answer."""
    by_name = isinstance(name.name, NameAddress)
    return (address.host if by_name else str(address) for address in answer.addresses)
