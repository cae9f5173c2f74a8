"""The listening sockets of a spec, all or none. The control process owns them: a dead worker takes none along (R7)."""

from dataclasses import dataclass

from relayd.errors import RelaydError
from relayd.net.listening import ListenFailed, ListeningSocket, listen
from relayd.spec import Spec

__all__ = ["BindFailed", "BoundSocket", "ListeningSockets"]


class BindFailed(RelaydError):
    """Some addresses cannot be listened on. `str(error)` has one line for each of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """One listening socket and the name of its listener."""

    listener: str
    socket: ListeningSocket


class ListeningSockets:
    """Every listening socket of one spec, in the order in which `Configure` carries them. Owns them."""

    def __init__(self, bound: tuple[BoundSocket, ...]) -> None:
        self.bound = bound

    @classmethod
    def open(cls, spec: Spec) -> "ListeningSockets":
        """Listen on every bind of `spec`. Raises BindFailed with every problem at once, and has then opened nothing."""
        bound: list[BoundSocket] = []
        problems: list[str] = []
        try:
            for listener in spec.listeners:
                for address in listener.binds:
                    try:
                        bound.append(BoundSocket(listener.name, listen(address, listener.binding, listener.options)))
                    except ListenFailed as failure:
                        problems.append(f"listeners.{listener.name}: {failure}")
            if problems:
                raise BindFailed(problems)
        except BaseException:
            cls(tuple(bound)).close()
            raise
        return cls(tuple(bound))

    def filenos(self) -> list[int]:
        """The descriptors, still owned by this object."""
        return [bound.socket.fileno() for bound in self.bound]

    def close(self) -> None:
        """Close them all and remove the socket files that are still ours. Idempotent."""
        for bound in self.bound:
            bound.socket.close()
