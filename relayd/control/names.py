"""Which names are to be looked up when, and what an answer changes. Pure: the lookups are in `resolver`.

    DUE ──lookup begins──▶ ASKED ──answer───▶ DUE again when its TTL is over, within min_ttl and max_ttl
                                 └─failure──▶ DUE again after RETRY_S, then twice as long each time, to RETRY_MAX_S

One lookup per name at a time, LOOKUPS_MAX in all. The last good answer stays in force when a lookup fails, however old
it gets.
"""

import math
from collections.abc import Iterable

from relayd.channel.messages import Resolved
from relayd.control.answers import Answer, Known
from relayd.spec import Wanted
from relayd.spec.budget import LOOKUPS_MAX
from relayd.values import dataclass

__all__ = ["RESTORED_S", "RETRY_MAX_S", "RETRY_S", "Names", "State"]

#: A name that does not resolve is a target out of service: as soon as a name server that restarts would be back.
RETRY_S = 5.0
#: A name server that has failed for so long is asked no more often than a monitoring would.
RETRY_MAX_S = 60.0
#: After a restart processors have better to do than to load a library, and what is known is seconds old.
RESTORED_S = 1.0


@dataclass(slots=True)
class State:
    """What is known of one name. `answered_at` is of the answer; `error` is why the last lookup failed, or what the
    last answer lacks; "" when all is well. `overtaken`: what the lookup under way finds may be out of date.
    """

    answer: Answer | None = None
    answered_at: float = -math.inf
    error: str = ""
    due: float = -math.inf
    asked: bool = False
    ever_answered: bool = False
    overtaken: bool = False
    failures: int = 0


class Names:
    """The state of every name. Times are monotonic seconds."""

    def __init__(self, names: Iterable[Wanted]) -> None:
        self._names: dict[Wanted, State] = {}
        self.change(names)

    def change(self, names: Iterable[Wanted]) -> None:
        """From now on it is these. What is known of those that stay is kept."""
        before = self._names
        # Sorted: the order of lookups, and of log lines, is the same at every start.
        self._names = {name: before.get(name) or State() for name in sorted(names, key=str)}

    def restore(self, known: Known, now: float) -> bool:
        """The process before knew this. False: nobody wants to know it, or it is no answer. It is looked up again soon,
        for the files that it came from may have changed meanwhile, but not while this process starts.
        """
        state = self._names.get(known.resolved.wanted)
        if state is None or not known.resolved.addresses:
            return False
        state.answer = Answer(known.resolved.addresses, known.resolved.shares, known.ttl_s)
        state.answered_at = min(known.at, now)
        state.ever_answered = True
        state.due = now + RESTORED_S
        return True

    def known(self) -> tuple[Known, ...]:
        """What `restore` takes."""
        return tuple(
            Known(
                Resolved(name.name, state.answer.addresses, state.answer.shares, name.resolve),
                state.answered_at,
                ttl_s(name, state.answer),
            )
            for name, state in self._names.items()
            if state.answer is not None
        )

    def begin(self, now: float) -> list[Wanted]:
        """Names whose lookup is to begin now: those due, the longest waiting first. They count as asked from now on."""
        free = LOOKUPS_MAX - sum(state.asked for state in self._names.values())
        waiting = [name for name, state in self._names.items() if not state.asked and state.due <= now]
        chosen = sorted(waiting, key=lambda name: self._names[name].due)[: max(0, free)]
        for name in chosen:
            self._names[name].asked = True
        return chosen

    def hurry(self, now: float) -> None:
        """What was answered, or failed, before may be different now: look every name up again."""
        for state in self._names.values():
            state.due, state.failures, state.overtaken = min(state.due, now), 0, state.asked

    def wait_s(self, now: float) -> float | None:
        """Seconds until `begin` has something to return; None while only an answer can change that."""
        if sum(state.asked for state in self._names.values()) >= LOOKUPS_MAX:
            return None
        due = [state.due for state in self._names.values() if not state.asked]
        return max(0.0, min(due) - now) if due else None

    def answered(self, name: Wanted, answer: Answer, now: float) -> bool:
        """A lookup of `name` has found `answer`. True when that is news (`Answer.same`)."""
        state = self._done(name)
        if state is None:
            return False
        news = not answer.same(state.answer)
        # An old order is kept: it is what the workers have.
        state.answer = answer if news or state.answer is None else _aged(state.answer, answer)
        state.answered_at, state.error = now, answer.problem
        lasts_s = ttl_s(name, answer)
        if answer.problem:
            lasts_s = min(lasts_s, _retry_s(state))
        else:
            state.failures = 0
        state.due = now + lasts_s
        self._ask_again(state, now)
        return news

    def failed(self, name: Wanted, error: str, now: float) -> Answer | None:
        """A lookup of `name` has failed, for this reason; returns the answer that stays in force, if any."""
        state = self._done(name)
        if state is None:
            return None
        state.error = error
        state.due = now + min(_retry_s(state), name.resolve.max_ttl_s)
        self._ask_again(state, now)
        return state.answer

    def items(self) -> Iterable[tuple[Wanted, State]]:
        """Every name, with what is known of it; for reading."""
        return self._names.items()

    @property
    def all_answered(self) -> bool:
        """True when every name has been looked up at least once, with or without success."""
        return all(state.ever_answered for state in self._names.values())

    def _done(self, name: Wanted) -> State | None:
        """None when nobody wants to know any more: `change` has left the name out while it was looked up."""
        state = self._names.get(name)
        if state is not None:
            state.asked, state.ever_answered = False, True
        return state

    def _ask_again(self, state: State, now: float) -> None:
        if state.overtaken:
            state.due, state.overtaken = now, False

    def __contains__(self, name: Wanted) -> bool:
        return name in self._names


def _retry_s(state: State) -> float:
    """How long to wait after one more failure."""
    # At the exponent where it ends anyway: 2.0 ** 2000 is an error.
    grown = RETRY_S * 2.0 ** min(state.failures, 16)
    state.failures += 1
    return min(grown, RETRY_MAX_S)


def ttl_s(name: Wanted, answer: Answer) -> float:
    """How long `answer` counts: its TTL, within the bounds that the listener sets."""
    return min(max(answer.ttl_s, name.resolve.min_ttl_s), name.resolve.max_ttl_s)


def _aged(known: Answer, again: Answer) -> Answer:
    return Answer(known.addresses, known.shares, again.ttl_s, again.problem)
