"""The listening sockets of a spec, all or none. The control process owns them: a dead worker takes none along (R7).

That goes for datagrams as well: they wait in the sockets, and the next worker of that number gets the same ones. An
address keeps all its copies for as long as the daemon lives, so that the kernel goes on giving each client to the same.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from relayd.errors import RelaydError
from relayd.net.listening import ListenFailed, ListeningSocket, listen, listen_datagrams
from relayd.spec import Bind, Spec
from relayd.spec.sockets import Endpoint, endpoints

__all__ = ["BindFailed", "BoundSocket", "ListeningSockets"]


class BindFailed(RelaydError):
    """Some addresses cannot be listened on. `str(error)` has a line for each of them and its type, one for a range."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class BoundSocket:
    """One listening socket, and what it is in the spec."""

    endpoint: Endpoint
    socket: ListeningSocket


@dataclass(frozen=True, slots=True)
class Opened:
    """One bind of a listener, open for streams or for datagrams. `str(address)` is as a file has it, with its port."""

    listener: str
    address: Bind
    datagram: bool


class ListeningSockets:
    """Every listening socket of one spec, in the order of `spec.sockets.endpoints`. Owns them."""

    def __init__(self, bound: tuple[BoundSocket, ...]) -> None:
        self.bound = bound

    @classmethod
    def open(cls, spec: Spec) -> "ListeningSockets":
        """Listen on every bind of `spec`. Raises BindFailed with every problem at once, and has then opened nothing."""
        bound: list[BoundSocket] = []
        failures: dict[tuple[str, Bind, bool], list[str]] = {}
        try:
            for _, of_one_address in itertools.groupby(endpoints(spec), _address):
                copies = list(of_one_address)
                try:
                    bound += map(BoundSocket, copies, _open(copies))
                except ListenFailed as failure:
                    first = copies[0]
                    failures.setdefault((first.listener.name, first.bind, first.datagram), []).append(str(failure))
            if failures:
                raise BindFailed([_problem(name, texts) for (name, _, _), texts in failures.items()])
        except BaseException:
            cls(tuple(bound)).close()
            raise
        return cls(tuple(bound))

    def filenos(self, worker: int) -> list[int]:
        """The descriptors that worker number `worker` has, in the order of `endpoints_of`. Still owned by this."""
        return [bound.socket.fileno() for bound in self.bound if bound.endpoint.worker in (None, worker)]

    def opened(self) -> list[Opened]:
        """Every bind that has sockets, once for each type, in order: a range is one."""
        found: dict[tuple[str, Bind, bool], Opened] = {}
        for bound in self.bound:
            endpoint = bound.endpoint
            key = (endpoint.listener.name, endpoint.bind, endpoint.datagram)
            if key not in found:
                found[key] = Opened(key[0], Bind(bound.socket.address, endpoint.bind.ports), endpoint.datagram)
        return list(found.values())

    def close(self) -> None:
        """Close them all and remove the socket files that are still ours. Idempotent."""
        for bound in self.bound:
            bound.socket.close()


def _address(endpoint: Endpoint) -> tuple[str, Bind, int, bool]:
    """The same for the copies of one address, which stand together."""
    return (endpoint.listener.name, endpoint.bind, endpoint.index, endpoint.datagram)


def _open(copies: Sequence[Endpoint]) -> list[ListeningSocket]:
    """A socket for each of `copies`, which are one address. Raises ListenFailed."""
    listener, address = copies[0].listener, copies[0].address
    if copies[0].datagram:
        return listen_datagrams(address, listener.binding, len(copies))
    if listener.stream is None:
        raise AssertionError(f"{listener.name}: a socket for streams that nobody relays")
    return [listen(address, listener.binding, listener.stream.options)]


def _problem(listener: str, failures: list[str]) -> str:
    """What is wrong with one bind: its first failure, and how many more of its sockets failed."""
    more = len(failures) - 1
    rest = f" (and {more} more of this bind)" if more else ""
    return f"listeners.{listener}: {failures[0]}{rest}"
