"""What the groups of one pool have in common in a worker: what control says of its targets, and how busy they are.

Groups look at `changes` before each pick, which is all that it costs them as long as nothing happens.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from relayd.spec import Ordered, TargetState


class Hear(Protocol):
    """Whoever is told of what clients meet at targets. `label` is the address, `target` its origin."""

    def target_failed(
        self, pool: str, target: str, label: str, reason: str, *, first: bool, datagrams: bool, news: bool
    ) -> None:
        """A client has met it failing, of streams or of `datagrams`. `first`: before, it was no suspect. Not `news`: it
        has been found well since that client set out.
        """

    def target_worked(self, pool: str, target: str, label: str) -> None:
        """A client has met it working, and it was a suspect."""


class Pool:
    """One pool, by its name (`spec.Listener.pool_name`). Targets by their origin (`spec.Target.origin`)."""

    __slots__ = (
        "_active",
        "_came_up",
        "_hear",
        "_limits",
        "_states",
        "_worker",
        "_workers",
        "changes",
        "name",
        "version",
    )

    def __init__(self, name: str = "", worker: int = 1, workers: int = 1, hear: Hear | None = None) -> None:
        """In worker number `worker` of `workers`."""
        self.name = name
        self._worker, self._workers = worker, workers
        self._hear = hear
        #: Counts what may make another choice: states, and targets that are full or not any more.
        self.changes = 0
        #: Counts new weights, which make other shares: all else is only who sits out.
        self.version = 0
        self._states: Mapping[str, TargetState] = {}
        #: Of those that were down and are up, since when.
        self._came_up: dict[str, float] = {}
        self._active: dict[str, int] = {}
        self._limits: dict[str, int] = {}

    def says(self, states: Mapping[str, TargetState], now: float = -math.inf) -> None:
        """From now on these, by target; the others are up, as the file has them."""
        if states != self._states:
            down = {target for target, state in states.items() if not state.up}
            back = {target: now for target, state in self._states.items() if not state.up}
            self._came_up = {target: at for target, at in (self._came_up | back).items() if target not in down}
            self.version += _weights(states) != _weights(self._states)
            self._states = states
            self.changes += 1

    def up(self, target: str) -> bool:
        """It is, by its checks, or nobody has asked yet."""
        state = self._states.get(target)
        return state is None or state.up

    def up_since(self, target: str) -> float:
        """When it was said to be up again; -inf where it was never down."""
        return self._came_up.get(target, -math.inf)

    def enabled(self, target: str) -> bool:
        """No operator is against its having another client."""
        state = self._states.get(target)
        return state is None or state.ordered is Ordered.ENABLED

    def full(self, target: str) -> bool:
        """It has all the clients that it may have."""
        limit = self._limits.get(target)
        return limit is not None and self._active.get(target, 0) >= limit

    def weight(self, target: str) -> int | None:
        """That of an operator; None where that is the file's business."""
        state = self._states.get(target)
        return None if state is None else state.weight

    @property
    def quiet(self) -> bool:
        """All targets are up and enabled, and none is ever full."""
        return not self._states and not self._limits

    def limit(self, target: str, connections: int | None) -> None:
        """From now on it may have so many connections and sessions of all workers; None: any number. Each worker has
        its part, together they have exactly that.
        """
        if connections is not None:
            self._limits[target] = (connections + self._workers - self._worker) // self._workers
        elif target in self._limits:
            del self._limits[target]

    def begun(self, target: str, count: int = 1) -> None:
        """It has so many connections and sessions more."""
        now = self._active[target] = self._active.get(target, 0) + count
        if now == self._limits.get(target):
            self.changes += 1

    def ended(self, target: str, count: int = 1) -> None:
        """It has so many less."""
        left = self._active[target] = self._active[target] - count
        if left + count == self._limits.get(target):
            self.changes += 1
        if not left:
            del self._active[target]

    def failed(self, target: str, label: str, reason: str, *, first: bool, datagrams: bool, news: bool = True) -> None:
        """As of `Hear`."""
        if self._hear is not None:
            self._hear.target_failed(self.name, target, label, reason, first=first, datagrams=datagrams, news=news)

    def worked(self, target: str, label: str) -> None:
        """As of `Hear`."""
        if self._hear is not None:
            self._hear.target_worked(self.name, target, label)


def _weights(states: Mapping[str, TargetState]) -> dict[str, int]:
    """Those of an operator."""
    return {target: state.weight for target, state in states.items() if state.weight is not None}


class Pools:
    """Every pool of worker number `worker` of `workers`, and what control says of their targets."""

    def __init__(self, worker: int = 1, workers: int = 1, hear: Hear | None = None) -> None:
        """`hear` is told of what clients meet."""
        self._pools: dict[str, Pool] = {}
        self._states: dict[str, dict[str, TargetState]] = {}
        self._worker, self._workers = worker, workers
        self._hear = hear

    def __getitem__(self, name: str) -> Pool:
        pool = self._pools.get(name)
        if pool is None:
            pool = self._pools[name] = Pool(name, self._worker, self._workers, self._hear)
            pool.says(self._states.get(name, {}))
        return pool

    def say(self, states: Iterable[TargetState], now: float) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
        """From now on these; all other targets of all pools are up, as the file has them. Which are disabled now, and
        which are down, and were not before, by pool and target.
        """
        disabled, down = self._those(_is_disabled), self._those(_is_down)
        self._states = {}
        for state in states:
            self._states.setdefault(state.pool, {})[state.target] = state
        for name, pool in self._pools.items():
            pool.says(self._states.get(name, {}), now)
        return self._those(_is_disabled) - disabled, self._those(_is_down) - down

    def disabled(self, pool: str, target: str) -> bool:
        """An operator has said so."""
        state = self._states.get(pool, {}).get(target)
        return state is not None and state.ordered is Ordered.DISABLED

    def _those(self, which: Callable[[TargetState], bool]) -> set[tuple[str, str]]:
        return {
            (state.pool, state.target) for states in self._states.values() for state in states.values() if which(state)
        }


def _is_disabled(state: TargetState) -> bool:
    return state.ordered is Ordered.DISABLED


def _is_down(state: TargetState) -> bool:
    return not state.up
