"""What a reload does to live connections and sessions: some are ended, now or when `drain_timeout` is over (R3). So
does an answer of the DNS that has lost an address, where the listener wants that.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Protocol

from relayd.address import Name, SocketAddress
from relayd.choosing.group import Choice
from relayd.log.logger import Logger
from relayd.outcomes import Outcome
from relayd.relay.loop import Loop
from relayd.spec import Listener, OnChange, Target
from relayd.spec.plan import effect


class Departing(Protocol):
    """A live connection or session."""

    @property
    def target(self) -> Target | None:
        """Where it goes; None where that is not known yet."""

    @property
    def choice(self) -> Choice | None:
        """The address of that target which it goes to; None as `target`."""

    def end(self, outcome: Outcome) -> None:
        """End it now. Idempotent."""


class Addresses(Protocol):
    """What a listener has to choose from."""

    def addresses(self) -> Collection[SocketAddress]:
        """What can be dialled now."""


class Departures:
    """Those that one reload, or one answer, sends away. It lives as long as its timer."""

    def __init__(
        self, loop: Loop, log: Logger, in_force: Callable[[str], Listener | None], drain_timeout_s: float
    ) -> None:
        """`in_force(name)` is the listener of that name at any time, None where there is none."""
        self._loop = loop
        self._log = log
        self._in_force = in_force
        #: With what their listener was before, and whether they are sessions.
        self._draining: list[tuple[Departing, Listener, bool]] = []
        self._ending: list[Departing] = []
        #: Those whose address was gone, with what there was to choose from.
        self._left: list[tuple[Departing, Addresses]] = []
        self._drain_timeout_s = drain_timeout_s

    def consider(self, live: Iterable[Departing], old: Listener, new: Listener | None, *, datagram: bool) -> None:
        """Their listener was `old` and is `new` now, or gone (None). `datagram`: they are sessions."""
        # By identity, which is a tenth of a hash: connections of one target share it.
        fates: dict[int, tuple[Target | None, OnChange]] = {}
        for each in live:
            target = each.target
            known = fates.get(id(target))
            if known is None:
                known = fates[id(target)] = (target, effect(old, new, target))
            if known[1] is OnChange.CLOSE:
                self._ending.append(each)
            elif known[1] is OnChange.DRAIN:
                self._draining.append((each, old, datagram))

    def arrived(self, live: Iterable[Departing], old: Listener, *, datagram: bool) -> None:
        """They have come from another process, where their listener was `old`; what it is now is what is in force."""
        self.consider(live, *self._change(old, datagram), datagram=datagram)

    def gone(self, live: Iterable[Departing], listener: Listener, name: Name, choices: Addresses) -> None:
        """`name`, a target of their `listener`, has another answer: those depart that go to an address of it which is
        not among `choices` any more, if `on_change` says so in so many words. A record that rotates is no change of the
        file.
        """
        if listener.on_change in (None, OnChange.KEEP):
            return
        left = choices.addresses()
        for each in live:
            target = each.target
            if target is None or target.address != name or _gone_to(each) in left:
                continue
            if listener.on_change is OnChange.CLOSE:
                self._ending.append(each)
            else:
                self._left.append((each, choices))

    def _change(self, old: Listener, datagram: bool) -> tuple[Listener, Listener | None]:  # noqa: FBT001  # private
        """`old`, and what is in force instead: None, by its policy, where that does not serve this type any more."""
        new = self._in_force(old.name)
        if new is not None and (new.datagram if datagram else new.stream) is None:
            return replace(old, on_change=new.on_change), None
        return old, new

    def begin(self) -> None:
        """End those that are to be ended now, and set the timer for the others."""
        for each in self._ending:
            each.end(Outcome.REMOVED)
        self._ending.clear()
        if self._draining or self._left:
            self._loop.call_at(self, self._loop.now + self._drain_timeout_s)

    def expire(self) -> None:
        """`drain_timeout` is over. What has come back meanwhile has nothing to do with it any more."""
        for each, old, datagram in self._draining:
            if effect(*self._change(old, datagram), each.target) is not OnChange.KEEP:
                each.end(Outcome.REMOVED)
        self._draining.clear()
        for each, choices in self._left:
            if _gone_to(each) not in choices.addresses():
                each.end(Outcome.REMOVED)
        self._left.clear()

    def crashed(self, error: Exception) -> None:
        """A bug."""
        self._log.bug("met connections that a reload ends", error)


def _gone_to(departing: Departing) -> SocketAddress | None:
    return departing.choice.address if departing.choice is not None else None


class Disabled:
    """Those whose targets an operator has disabled: ended by the `on_change` of their listeners, as if the targets had
    been taken out of the file. It lives as long as its timer.
    """

    def __init__(self, loop: Loop, log: Logger, still: Callable[[str, str], bool], drain_timeout_s: float) -> None:
        """`still(pool, target)`: it is disabled."""
        self._loop = loop
        self._log = log
        self._still = still
        self._drain_timeout_s = drain_timeout_s
        self._draining: list[tuple[Departing, str, str]] = []

    def consider(self, live: Iterable[Departing], listener: Listener, target: str) -> None:
        """They go to `target`, by its origin, and are those of `listener`."""
        for each in live:
            if listener.on_change is OnChange.CLOSE:
                each.end(Outcome.REMOVED)
            elif listener.on_change is not OnChange.KEEP:
                self._draining.append((each, listener.pool_name, target))

    def begin(self) -> None:
        """Set the timer, if it takes one."""
        if self._draining:
            self._loop.call_at(self, self._loop.now + self._drain_timeout_s)

    def expire(self) -> None:
        """`drain_timeout` is over."""
        for each, pool, target in self._draining:
            if self._still(pool, target):
                each.end(Outcome.REMOVED)
        self._draining.clear()

    def crashed(self, error: Exception) -> None:
        """A bug."""
        self._log.bug("met connections of a disabled target", error)
