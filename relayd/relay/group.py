"""The targets that one listener chooses among, and the choice: plain round robin. Pure.

Every address of a resolved name is a target of its own (T3); a name without an answer yet is none. A new answer begins
no new round: however often a name resolves to something else, every target has its turn.
"""

from collections.abc import Collection, Sequence
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
        #: Index of the last choice picked; -1 before the first pick.
        self._last = -1
        self._rebuild()

    def __len__(self) -> int:
        return len(self._choices)

    def resolved(self, name: NameAddress, addresses: tuple[InetAddress, ...]) -> None:
        """From now on `name` means `addresses`. The same ones, in whatever order, change nothing."""
        if set(addresses) == set(self._resolved.get(name, ())):
            return
        if any(target.address == name for target in self._targets):
            self._resolved[name] = addresses
            self._rebuild(addresses)

    def pick(self, tried: Sequence[Choice] = ()) -> Choice | None:
        """The next choice in turn that is not among `tried`; None when there is none."""
        choices = self._choices
        if choices and not tried:  # nearly always
            self._last = at = self._last + 1 if self._last + 1 < len(choices) else 0
            return choices[at]
        for _ in range(len(choices)):
            self._last = at = self._last + 1 if self._last + 1 < len(choices) else 0
            if choices[at] not in tried:
                return choices[at]
        return None

    def _rebuild(self, answer: Collection[InetAddress] = ()) -> None:
        addresses: dict[SocketAddress, None] = {}
        for target in self._targets:
            if isinstance(target.address, NameAddress):
                addresses.update(dict.fromkeys(self._resolved.get(target.address, ())))
            else:
                addresses[target.address] = None
        if self._last < 0:
            self._choices = [_choice(address) for address in addresses]  # the first pick is the first of the file
            return
        at = self._last + 1
        self._choices = _requeued(self._choices[at:] + self._choices[:at], addresses, answer)
        self._last = len(self._choices) - 1


def _requeued(
    queue: Sequence[Choice], addresses: Collection[SocketAddress], answer: Collection[SocketAddress]
) -> list[Choice]:
    """`queue`, in the order of turns, with all of `addresses` and no others, now that a name means `answer`.

    Nobody waits longer than before. What is new has the places of what goes, so that a name whose addresses are others
    each time has its turns too. Of more places than addresses a name keeps the first; more addresses go to the end.
    """
    known = {choice.address for choice in queue}
    new = iter([_choice(address) for address in addresses if address not in known])
    places = [at for at, choice in enumerate(queue) if choice.address in answer or choice.address not in addresses]
    filled = [choice if choice.address in addresses else next(new, None) for choice in queue]
    stay = iter([filled[at] for at in places if filled[at] is not None])
    for at in places:
        filled[at] = next(stay, None)
    return [*(choice for choice in filled if choice is not None), *new]


def _choice(address: SocketAddress) -> Choice:
    scoped = isinstance(address, InetAddress) and address.scope
    sockaddr = None if scoped else address.sockaddr
    port = address.port if isinstance(address, InetAddress) else 0
    return Choice(address, address.family.af, sockaddr, str(address), port, may_meet_itself(address))
