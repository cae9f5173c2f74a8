"""What has happened on each listener lately, for rates: counts by time, of the last two minutes. Pure; times are
monotonic seconds, and never go back.

What a worker reports has happened since its report before, and is shared out by time over the steps that this has
touched: else a step would have two reports or three, by chance, and a steady rate would look like a saw. A listener on
which nothing happens costs nothing.
"""

import math
from collections import deque
from typing import TypeAlias

__all__ = ["HISTORY_STEPS", "STEP_S", "Counts", "Key", "Recent"]

#: The type (`stream`, `dgram`) and the name of a listener.
Key: TypeAlias = tuple[str, str]
#: Connections or sessions begun, bytes in, bytes out.
Counts: TypeAlias = tuple[float, float, float]

#: Workers report once a second: a step has two reports of each.
STEP_S = 2.0
HISTORY_STEPS = 60
#: A rate is that of so many steps; at the beginning, of as many seconds as there were, but not of fewer than this:
#: before that nothing was reported.
_RATE_STEPS = 3
_LEAST_S = 1.0
_NOTHING: Counts = (0, 0, 0)


class Recent:
    """The steps that are over, and the one that is not."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._step = math.floor(now / STEP_S)
        self._now: dict[Key, Counts] = {}
        self._over: deque[dict[Key, Counts]] = deque(maxlen=HISTORY_STEPS)

    def add(self, key: Key, counts: Counts, since: float, now: float) -> None:
        """So much more of each, from `since` to `now`; what is older than the step before this one counts as of it."""
        if not any(counts):
            return
        self._go_on(now)
        began = self._step * STEP_S
        before = max(0.0, began - since) / (now - since) if self._over and since < now else 0.0
        for step, part in ((self._now, 1 - before), (self._over[-1] if self._over else {}, before)):
            if part:
                was = step.get(key, _NOTHING)
                step[key] = (was[0] + part * counts[0], was[1] + part * counts[1], was[2] + part * counts[2])

    def rate(self, key: Key, now: float) -> Counts:
        """A second, over the last steps that are over; before there is one, over what there is."""
        self._go_on(now)
        steps = min(len(self._over), _RATE_STEPS)
        if not steps:
            return _per_s(self._now.get(key, _NOTHING), max(_LEAST_S, now - self._began))
        begun = bytes_in = bytes_out = 0.0
        for back in range(1, steps + 1):  # by index: a slice would be a copy of two minutes, for each of thousands
            step = self._over[-back].get(key, _NOTHING)
            begun, bytes_in, bytes_out = begun + step[0], bytes_in + step[1], bytes_out + step[2]
        seconds = min(STEP_S * steps, max(_LEAST_S, self._step * STEP_S - self._began))
        return _per_s((begun, bytes_in, bytes_out), seconds)

    def history(self, key: Key, now: float) -> list[Counts]:
        """A second, for each step that is over, the oldest first."""
        self._go_on(now)
        return [_per_s(step.get(key, _NOTHING), STEP_S) for step in self._over]

    def _go_on(self, now: float) -> None:
        step = math.floor(now / STEP_S)
        passed = step - self._step
        if passed <= 0:
            return
        self._over.append(self._now)
        self._over.extend({} for _ in range(min(passed - 1, HISTORY_STEPS)))
        self._now, self._step = {}, step


def _per_s(counts: Counts, seconds: float) -> Counts:
    return (counts[0] / seconds, counts[1] / seconds, counts[2] / seconds)
