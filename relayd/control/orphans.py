"""What the first process of a PID namespace owes to the others in it: it becomes the parent of those whose parent has
ended, and they stay in the table of processes until it has asked how they ended (pid_namespaces(7)).

In a container relayd is that process, and what is run beside it (`docker exec`, `kubectl exec`, a probe) can leave
such. Nothing tells them from children of our own, whose end somebody here waits for; but those are waited for at once,
and an orphan never. So what has ended is left alone the first time that it is seen.
"""

import os

__all__ = ["LOOK_S", "Orphans"]

#: Seconds between two looks: far more than anything here takes to notice the end of a child of ours, whose pidfd is
#: readable by then. (Where it has not, its exit code is not known, and nothing else is wrong.)
LOOK_S = 1.0


class Orphans:
    """Reaps children that nobody else does."""

    def __init__(self) -> None:
        #: The one that had ended at the last look.
        self._seen: int | None = None

    def look(self) -> None:
        """Reap what had ended at the last look and is still there. To be called every LOOK_S, from the loop that reaps
        our own. Never waits.
        """
        while (ended := _ended()) is not None and ended == self._seen:
            os.waitpid(ended, os.WNOHANG)
        self._seen = ended


def _ended() -> int | None:
    """The first child that has ended and is not reaped; it stays so."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # there are no children
        return None
    return found.si_pid if found else None
