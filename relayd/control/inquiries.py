"""Questions to all workers: who is asked, what they have answered, and whether somebody has not. Pure.

A worker answers in one message or in several. One that ends before it has answered all leaves the answer incomplete,
and so does one that takes too long: whoever asks does not wait for it for ever.
"""

from dataclasses import field
from typing import TypeAlias

from relayd.channel.messages import Counted, Killed, Seen
from relayd.values import dataclass

__all__ = ["Answer", "Inquiries", "Inquiry"]

#: What a worker says to a question.
Answer: TypeAlias = Counted | Killed | Seen


@dataclass(slots=True, eq=False)
class Inquiry:
    """One question. `missing` are the workers that have not answered yet, or not all; `lost`, those that never will."""

    number: int
    missing: set[int]
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)

    @property
    def over(self) -> bool:
        """Nothing more is to be waited for."""
        return not self.missing

    @property
    def complete(self) -> bool:
        """Every worker has answered all."""
        return not self.missing and not self.lost


class Inquiries:
    """The questions that are open."""

    def __init__(self) -> None:
        self._open: dict[int, Inquiry] = {}
        self._number = 0

    def begin(self, workers: set[int]) -> Inquiry:
        """A new one, to these workers."""
        self._number += 1
        inquiry = self._open[self._number] = Inquiry(self._number, set(workers))
        return inquiry

    def end(self, inquiry: Inquiry) -> None:
        """Nobody waits any more: what comes yet is for nobody."""
        del self._open[inquiry.number]

    def heard(self, worker: int, answer: Answer) -> bool:
        """Worker `worker` has said this. True: and that is all that it has to say to a question that is open."""
        inquiry = self._open.get(answer.number)
        if inquiry is None or worker not in inquiry.missing:
            return False
        inquiry.answers.append((worker, answer))
        if isinstance(answer, Seen) and not answer.last:
            return False
        inquiry.missing.discard(worker)
        return True

    def gone(self, worker: int) -> None:
        """Worker `worker` is gone, whatever it was asked."""
        for inquiry in self._open.values():
            if worker in inquiry.missing:
                inquiry.missing.discard(worker)
                inquiry.lost.add(worker)
