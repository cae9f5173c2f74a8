"""Which host names are to be looked up when, and what an answer changes. Pure: the lookups are in `resolver`.

    DUE ──lookup begins──▶ ASKED ──answer or failure──▶ DUE again after RESOLVE_INTERVAL_S or RETRY_INTERVAL_S

One lookup per name at a time, LOOKUPS_MAX in all. The last good answer stays in force when a lookup fails.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from relayd.address import InetAddress, NameAddress
from relayd.spec.budget import LOOKUPS_MAX

#: getaddrinfo(3) does not tell the TTL of an answer; 30 s is what cloud load balancers ask for at most.
RESOLVE_INTERVAL_S = 30.0
#: A name that does not resolve is a target out of service.
RETRY_INTERVAL_S = 5.0


@dataclass(slots=True)
class _Name:
    addresses: tuple[InetAddress, ...] = ()
    due: float = -math.inf
    asked: bool = False
    ever_answered: bool = False


class Names:
    """The state of every name. Times are monotonic seconds."""

    def __init__(self, names: Iterable[NameAddress]) -> None:
        # Sorted: the order of lookups, and of log lines, is the same at every start.
        self._names = {name: _Name() for name in sorted(names, key=str)}

    def change(self, names: Iterable[NameAddress]) -> None:
        """From now on it is these. What is known of those that stay is kept."""
        before = self._names
        self._names = {name: before.get(name) or _Name() for name in sorted(names, key=str)}

    def begin(self, now: float) -> list[NameAddress]:
        """Names whose lookup is to begin now: those due, the longest waiting first. They count as asked from now on."""
        free = LOOKUPS_MAX - sum(state.asked for state in self._names.values())
        waiting = [name for name, state in self._names.items() if not state.asked and state.due <= now]
        chosen = sorted(waiting, key=lambda name: self._names[name].due)[: max(0, free)]
        for name in chosen:
            self._names[name].asked = True
        return chosen

    def wait_s(self, now: float) -> float | None:
        """Seconds until `begin` has something to return; None while only an answer can change that."""
        if sum(state.asked for state in self._names.values()) >= LOOKUPS_MAX:
            return None
        due = [state.due for state in self._names.values() if not state.asked]
        return max(0.0, min(due) - now) if due else None

    def answered(self, name: NameAddress, addresses: tuple[InetAddress, ...], now: float) -> bool:
        """A lookup of `name` has found `addresses`, at least one. True when that is news.

        The same addresses in another order are none: name servers rotate them, and connections would follow.
        """
        state = self._done(name, now + RESOLVE_INTERVAL_S)
        if state is None:
            return False
        changed = set(addresses) != set(state.addresses)
        if changed:
            state.addresses = addresses
        return changed

    def failed(self, name: NameAddress, now: float) -> tuple[InetAddress, ...]:
        """A lookup of `name` has failed; returns the addresses that stay in force, if any."""
        state = self._done(name, now + RETRY_INTERVAL_S)
        return state.addresses if state is not None else ()

    def answers(self) -> list[tuple[NameAddress, tuple[InetAddress, ...]]]:
        """Every name that has addresses, with them."""
        return [(name, state.addresses) for name, state in self._names.items() if state.addresses]

    @property
    def all_answered(self) -> bool:
        """True when every name has been looked up at least once, with or without success."""
        return all(state.ever_answered for state in self._names.values())

    def _done(self, name: NameAddress, due: float) -> _Name | None:
        """None when nobody wants to know any more: `change` has left the name out while it was looked up."""
        state = self._names.get(name)
        if state is not None:
            state.asked, state.ever_answered, state.due = False, True, due
        return state

    def __contains__(self, name: NameAddress) -> bool:
        return name in self._names
