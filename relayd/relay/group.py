"""The targets that one listener chooses among, and the choice: plain round robin. Pure.

Every address of a resolved name is a target of its own (T3); a name without an answer yet is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from relayd.address import InetAddress, NameAddress, Sockaddr, SocketAddress
from relayd.net.dialing import may_meet_itself
from relayd.spec import Target


@dataclass(frozen=True, slots=True)
class Choice:
    """One address that can be dialled, with all that dialling and logging need of it worked out beforehand."""

    address: SocketAddress
    af: int
    #: None where an interface name has to be looked up at each dial: interfaces come and go.
    sockaddr: Sockaddr | None
    label: str
    #: 0 for a Unix socket.
    port: int
    #: Dialled on a port where nobody listens, a socket could connect to itself.
    may_meet_itself: bool


class Group:
    """The choices of one listener. Not thread-safe; one per listener and worker."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self._resolved: dict[NameAddress, tuple[InetAddress, ...]] = {}
        self._choices: list[Choice] = []
        self._next = 0
        self._rebuild()

    def __len__(self) -> int:
        return len(self._choices)

    def resolved(self, name: NameAddress, addresses: tuple[InetAddress, ...]) -> None:
        """From now on `name` means `addresses`."""
        if any(target.address == name for target in self._targets):
            self._resolved[name] = addresses
            self._rebuild()

    def pick(self, tried: Sequence[Choice] = ()) -> Choice | None:
        """The next choice in turn that is not among `tried`; None when there is none."""
        choices = self._choices
        if choices and not tried:  # nearly always
            self._next = at = self._next + 1 if self._next + 1 < len(choices) else 0
            return choices[at]
        for _ in range(len(choices)):
            self._next = at = self._next + 1 if self._next + 1 < len(choices) else 0
            if choices[at] not in tried:
                return choices[at]
        return None

    def _rebuild(self) -> None:
        addresses: dict[SocketAddress, str] = {}
        for target in self._targets:
            if isinstance(target.address, NameAddress):
                for address in self._resolved.get(target.address, ()):
                    addresses.setdefault(address, f"{address}")
            else:
                addresses.setdefault(target.address, f"{target.address}")
        self._choices = [_choice(address, label) for address, label in addresses.items()]
        self._next = len(self._choices) - 1  # so that the first pick is the first of the file


def _choice(address: SocketAddress, label: str) -> Choice:
    scoped = isinstance(address, InetAddress) and address.scope
    port = address.port if isinstance(address, InetAddress) else 0
    return Choice(
        address, address.family.af, None if scoped else address.sockaddr, label, port, may_meet_itself(address)
    )
