"""Targets that clients have found failing, and for how long each is passed over. Pure.

            failed                    failed: for twice as long
    TRUSTED ──────▶ SUSPECT ──time is over──▶ ON TRIAL ──worked──▶ TRUSTED
                       ▲                         │
                       └─────────failed──────────┘

A suspect gets no clients until its time is over. Then one client is sent there, and nobody else before it is known how
that went. Nobody is lost by it: who meets a target that fails tries another (S6).

A target that is silent has its failures told by clients who were sent there long before: as long as a connect may take.
What began before the last that is known of a target says nothing of what it is now, and does not count.
"""

import math

from relayd.values import dataclass

#: The first time; each one after that, without success in between, is twice as long, up to the last. A target that is
#: restarted is back within a second or two; one that is gone for good costs a client a dial in half a minute.
FIRST_S = 1.0
LONGEST_S = 30.0


@dataclass(slots=True)
class _Suspect:
    since: float
    #: Passed over until then; while on trial, for the next trial.
    until: float
    #: For how long it is passed over.
    time_s: float
    #: What began before that is no news.
    news_from: float
    #: Somebody has been sent there since its time was over.
    tried: bool = False
    failures: int = 1


class Suspects:
    """The suspects among the targets of one group, by label. Times are monotonic seconds."""

    __slots__ = ("_patience_s", "_silence_is_success", "_suspects", "_worked_at", "soonest")

    def __init__(self, patience_s: float, *, silence_is_success: bool) -> None:
        """`patience_s` is how long it takes until a trial has failed. `silence_is_success`: what has not failed by then
        has worked, as of datagrams, which need not be answered; else there is another trial.
        """
        self._patience_s = patience_s
        self._silence_is_success = silence_is_success
        self._suspects: dict[str, _Suspect] = {}
        #: Of those that were suspects, when they were trusted again.
        self._worked_at: dict[str, float] = {}
        #: When the time of the next one is over: look at `out` again then.
        self.soonest = math.inf

    def __contains__(self, label: object) -> bool:
        return label in self._suspects

    def __len__(self) -> int:
        return len(self._suspects)

    def failed(self, label: str, now: float, began: float | None = None) -> bool:
        """A client who was sent there at `began`, None: just now, and not before it last `worked`, has met a failure.
        False where that changes nothing: one more of those who were under way when it became a suspect.
        """
        began = now if began is None else began
        suspect = self._suspects.get(label)
        if suspect is None:
            self._suspects[label] = _Suspect(now, now + FIRST_S, FIRST_S, now + FIRST_S)
            self.soonest = min(self.soonest, now + FIRST_S)
            return True
        if began >= suspect.news_from and (suspect.tried or now >= suspect.until):
            suspect.time_s = min(2 * suspect.time_s, LONGEST_S)
            suspect.until = suspect.news_from = now + suspect.time_s
            suspect.tried = False
            suspect.failures += 1
            self.soonest = min(self.soonest, suspect.until)
            return True
        return False

    def worked(self, label: str, now: float) -> bool:
        """A client has met no failure: it is trusted again. False where it was all the time."""
        if self._suspects.pop(label, None) is None:
            return False
        self._worked_at[label] = now
        return True

    def worked_at(self, label: str) -> float:
        """When it was trusted again; -inf where it was no suspect yet."""
        return self._worked_at.get(label, -math.inf)

    def on_trial(self, label: str, now: float) -> None:
        """A client is sent there whose time is over. Nobody else until that has failed, or should have."""
        suspect = self._suspects[label]
        suspect.tried = True
        suspect.news_from = now
        suspect.until = now + max(self._patience_s, FIRST_S)
        self.soonest = min(self.soonest, suspect.until)

    def out(self, now: float) -> list[str]:
        """Those that are passed over now, the longest suspect first."""
        for label, suspect in list(self._suspects.items()):
            if suspect.tried and now >= suspect.until:
                if self._silence_is_success:
                    del self._suspects[label]
                else:
                    suspect.tried = False
        waiting = [(suspect, label) for label, suspect in self._suspects.items() if now < suspect.until]
        self.soonest = min((suspect.until for suspect, _ in waiting), default=math.inf)
        return [label for _, label in sorted(waiting, key=lambda each: each[0].since)]

    def keep(self, labels: "set[str]") -> None:
        """Forget all but these: they are no targets any more."""
        self._suspects = {label: suspect for label, suspect in self._suspects.items() if label in labels}
        self._worked_at = {label: at for label, at in self._worked_at.items() if label in labels}
