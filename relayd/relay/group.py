"""The targets that one listener chooses among, and the choice: plain round robin. Pure.

Every address of a resolved name is a target of its own (T3); a name without an answer yet is none. A new answer begins
no new round: however often a name resolves to something else, every target has its turn.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relayd.address import InetAddress, NameAddress, Sockaddr, SocketAddress
from relayd.net.dialing import may_meet_itself
from relayd.spec import PortRule, Target
from relayd.spec.sockets import Endpoint


@dataclass(frozen=True, slots=True)
class Choice:
    """One address that can be dialled, with all that dialling and logging need of it worked out beforehand."""

    #: The one it is, or one of the addresses of its name. Of several with one address, the first.
    target: Target
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
    """The choices of one listener, or of one of its ports. Not thread-safe; one per listener, or port, and worker."""

    __slots__ = ("_choices", "_last", "_resolved", "_stale", "_targets", "bind_port", "index")

    def __init__(self, targets: Sequence[Target], bind_port: int = 0, index: int = 0) -> None:
        """Choices for clients that come to `bind_port`, the port at position `index` of its bind."""
        self._targets = tuple(targets)
        self.bind_port = bind_port
        self.index = index
        self._resolved: dict[NameAddress, tuple[InetAddress, ...]] = {}
        self._choices: list[Choice] = []
        #: Index of the last choice picked; -1 before the first pick.
        self._last = -1
        #: `_choices` is still to be made, for the first client: of thousands of ports, most may never see one.
        self._stale = True

    def __len__(self) -> int:
        if self._stale:
            self._rebuild()
        return len(self._choices)

    def resolved(self, name: NameAddress, addresses: tuple[InetAddress, ...]) -> None:
        """From now on `name` means `addresses`. The same ones, in whatever order, change nothing."""
        if set(addresses) == set(self._resolved.get(name, ())):
            return
        targets = [target for target in self._targets if target.address == name]
        if targets:
            self._resolved[name] = addresses
            if not self._stale:
                self._rebuild({self._on_port(target, address) for target in targets for address in addresses})

    def retarget(self, targets: Sequence[Target]) -> None:
        """From now on choose among `targets`. Those that stay keep their turn."""
        self._targets = tuple(targets)
        if not self._stale:
            self._rebuild()

    def has(self, choice: Choice) -> bool:
        """True while `choice`, the very object, is one of them."""
        return any(each is choice for each in self._choices)

    def pick(self, tried: Sequence[Choice] = ()) -> Choice | None:
        """The next choice in turn that is not among `tried`; None when there is none."""
        choices = self._choices
        if choices and not tried:  # nearly always
            self._last = at = self._last + 1 if self._last + 1 < len(choices) else 0
            return choices[at]
        if self._stale:
            self._rebuild()
            return self.pick(tried)
        for _ in range(len(choices)):
            self._last = at = self._last + 1 if self._last + 1 < len(choices) else 0
            if choices[at] not in tried:
                return choices[at]
        return None

    def _rebuild(self, answer: Collection[SocketAddress] = ()) -> None:
        self._stale = False
        addresses: dict[SocketAddress, Target] = {}
        for target in self._targets:
            for address in self._addresses(target):
                addresses.setdefault(address, target)
        if self._last < 0:
            # The first pick is the first of the file.
            self._choices = [choice_of(address, target) for address, target in addresses.items()]
            return
        at = self._last + 1
        self._choices = _requeued(self._choices[at:] + self._choices[:at], addresses, answer)
        self._last = len(self._choices) - 1

    def _addresses(self, target: Target) -> Iterator[SocketAddress]:
        """What `target` stands for now."""
        at = target.at(self.bind_port, self.index)
        if not isinstance(at, NameAddress):
            yield at
        elif isinstance(target.address, NameAddress):
            for address in self._resolved.get(target.address, ()):
                yield self._on_port(target, address)

    def _on_port(self, target: Target, address: InetAddress) -> InetAddress:
        """`address`, to which the name of `target` was resolved, with the port that `target` has here."""
        if target.rule is PortRule.FIXED:
            return address
        at = target.at(self.bind_port, self.index)
        return InetAddress(address.family, address.host, at.port if isinstance(at, NameAddress) else 0, address.scope)


class Groups:
    """The groups of one listener in a worker: one for all its ports, or, where a target's port follows that of the
    bind, one for each port.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = tuple(targets)
        self._each_port = any(target.rule is not PortRule.FIXED for target in targets)
        self._resolved: dict[NameAddress, tuple[InetAddress, ...]] = {}
        self._groups: dict[tuple[int, int], Group] = {}

    def retarget(self, targets: Sequence[Target]) -> None:
        """From now on choose among `targets`. A group stays the same object, unless all ports have shared it, or will:
        `at` has to be asked again.
        """
        self._targets = tuple(targets)
        each_port = any(target.rule is not PortRule.FIXED for target in targets)
        if each_port is not self._each_port:
            self._each_port = each_port
            self._groups = {}
        names = {target.address for target in targets}
        self._resolved = {name: addresses for name, addresses in self._resolved.items() if name in names}
        for group in self._groups.values():
            group.retarget(targets)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def of(self, endpoint: Endpoint) -> Group:
        """The group for clients that come to `endpoint`."""
        address = endpoint.address
        return self.at(address.port if isinstance(address, InetAddress) else 0, endpoint.index)

    def at(self, bind_port: int, index: int) -> Group:
        """The group for clients that come to `bind_port`, the port at position `index` of its bind."""
        key = (bind_port, index) if self._each_port else (0, 0)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self._targets, *key)
            for name, addresses in self._resolved.items():
                group.resolved(name, addresses)
        return group

    def resolved(self, name: NameAddress, addresses: tuple[InetAddress, ...]) -> None:
        """From now on `name` means `addresses`."""
        if any(target.address == name for target in self._targets):
            self._resolved[name] = addresses
            for group in self._groups.values():
                group.resolved(name, addresses)


def _requeued(
    queue: Sequence[Choice], addresses: Mapping[SocketAddress, Target], answer: Collection[SocketAddress]
) -> list[Choice]:
    """`queue`, in the order of turns, with all of `addresses` and no others, now that a name means `answer`.

    Nobody waits longer than before. What is new has the places of what goes, so that a name whose addresses are others
    each time has its turns too. Of more places than addresses a name keeps the first; more addresses go to the end.
    """
    known = {choice.address for choice in queue}
    new = iter([choice_of(address, target) for address, target in addresses.items() if address not in known])
    places = [at for at, choice in enumerate(queue) if choice.address in answer or choice.address not in addresses]
    filled = [
        _kept(choice, addresses[choice.address]) if choice.address in addresses else next(new, None) for choice in queue
    ]
    stay = iter([filled[at] for at in places if filled[at] is not None])
    for at in places:
        filled[at] = next(stay, None)
    return [*(choice for choice in filled if choice is not None), *new]


def _kept(choice: Choice, target: Target) -> Choice:
    """The very same, where it still stands for the same target."""
    return choice if choice.target == target else replace(choice, target=target)


def choice_of(address: SocketAddress, target: Target) -> Choice:
    """The choice of `address`, one of those that `target` stands for."""
    scoped = isinstance(address, InetAddress) and address.scope
    sockaddr = None if scoped else address.sockaddr
    port = address.port if isinstance(address, InetAddress) else 0
    return Choice(target, address, address.family.af, sockaddr, str(address), port, may_meet_itself(address))
