"""How long to wait before a worker is started again. Pure.

The first replacement is immediate: a worker that died once, by the kernel's or an operator's hand, must not be missed
(R7). One that dies again and again is a crash loop, and each start costs a fork, an exec and some 30 ms of CPU.
"""

from relayd.values import dataclass

#: The wait after the second quick end; doubled at each further one.
_FIRST_DELAY_S = 0.1
#: Long enough that a crash loop costs under 1 % of a core, short enough to be back soon after its cause is gone.
_DELAY_MAX_S = 5.0
#: A worker that lived this long was no part of a crash loop; at one start every 2 s a loop is cheap anyway.
_HEALTHY_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """`ends` is how many times in a row a worker ended soon after its start, the last end included."""

    ends: int = 0

    def after_end(self, started: float, now: float) -> "Backoff":
        """The state after a worker started at `started` has ended at `now` (both monotonic seconds)."""
        return Backoff(1 if now - started >= _HEALTHY_AFTER_S else self.ends + 1)

    @property
    def delay_s(self) -> float:
        """Seconds to wait before the next start: 0, 0.1, 0.2, 0.4 ... 5."""
        if self.ends <= 1:
            return 0.0
        # The exponent is bounded before the power is taken: a loop of days would make it astronomic.
        return min(_FIRST_DELAY_S * 2.0 ** min(self.ends - 2, 16), _DELAY_MAX_S)
