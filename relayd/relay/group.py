"""The targets that one listener chooses among, and the choice, by its `balance`. Pure.

Every address of a resolved name is a target of its own (T3), with the weight of its name, or that of its SRV record; a
name without an answer yet is none. A new answer begins no new round: however often a name resolves to something else,
every target has its turn.
Backups are chosen among in the same way, for clients for whom every other target has failed.
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from relayd.address import InetAddress, Name, NameAddress, ServiceAddress, Sockaddr, SocketAddress
from relayd.net.dialing import may_meet_itself
from relayd.relay.balance import Balancer, balancer
from relayd.spec import Balance, PortRule, Share, Target
from relayd.spec.sockets import Endpoint

#: For RANDOM. Seeded by the system, so that workers do not draw the same.
_RNG = random.Random()  # noqa: S311  # no secret
_PLAIN = Share()
_NOBODY: frozenset[str] = frozenset()
#: What a name stands for, in order, each with its own share; None: with that of the target.
Answer: TypeAlias = "dict[InetAddress, Share | None]"


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
    weight: int = 1
    backup: bool = False

    @property
    def origin(self) -> str:
        """As of `balance.Member`. Where the port follows the bind it is the same for all ports: by SOURCE_HASH a client
        goes to one host by all of them.
        """
        address, target = self.address, self.target
        if target.rule is PortRule.FIXED or not isinstance(address, InetAddress):
            return self.label
        base = target.address.port if isinstance(target.address, InetAddress | NameAddress) else 0
        return f"{replace(address, port=base)} {target.rule.value} {target.offset}"


class Group:
    """The choices of one listener, or of one of its ports. Not thread-safe; one per listener, or port, and worker."""

    __slots__ = (
        "_backups",
        "_balance",
        "_begun",
        "_families",
        "_main",
        "_resolved",
        "_shares",
        "_stale",
        "_targets",
        "bind_port",
        "index",
        "keyed",
    )

    def __init__(
        self,
        targets: Sequence[Target],
        bind_port: int = 0,
        index: int = 0,
        balance: Balance = Balance.ROUND_ROBIN,
        shares: Sequence[Share] = (),
    ) -> None:
        """Choices for clients that come to `bind_port`, the port at position `index` of its bind. `shares` as of
        `spec.Listener`.
        """
        self._targets, self._shares, self._balance = tuple(targets), tuple(shares), balance
        self.bind_port = bind_port
        self.index = index
        #: `pick` wants to know the client.
        self.keyed = balance is Balance.SOURCE_HASH
        self._resolved: dict[Name, Answer] = {}
        #: Labels by family, of those asked for since something has changed.
        self._families: dict[int, frozenset[str]] = {}
        self._main: Balancer[Choice] = balancer(balance, _RNG)
        self._backups: Balancer[Choice] | None = None
        #: There was a pick: from then on turns go on.
        self._begun = False
        #: The choices are still to be made, for the first client: of thousands of ports, most may never see one.
        self._stale = True

    def __len__(self) -> int:
        if self._stale:
            self._rebuild()
        return self._main.size + (self._backups.size if self._backups is not None else 0)

    def __iter__(self) -> Iterator[Choice]:
        """The choices that there are now: the very objects that `pick` gives, until something changes."""
        yield from self._main.order()
        if self._backups is not None:
            yield from self._backups.order()

    def resolved(self, name: Name, addresses: Sequence[InetAddress], shares: Sequence[Share] = ()) -> None:
        """From now on `name` means `addresses`, with these shares (`messages.Resolved`). The same ones, in whatever
        order, change nothing.
        """
        answer: Answer = dict(zip(addresses, shares or (None,) * len(addresses), strict=True))
        if answer == self._resolved.get(name):
            return
        targets = [target for target in self._targets if target.address == name]
        if targets:
            self._resolved[name] = answer
            if not self._stale:
                self._rebuild({self._on_port(target, address) for target in targets for address in addresses})

    def retarget(
        self, targets: Sequence[Target], balance: Balance = Balance.ROUND_ROBIN, shares: Sequence[Share] = ()
    ) -> None:
        """From now on choose among `targets`, in this way. Those that stay keep their turn, and what they have."""
        self._targets, self._shares = tuple(targets), tuple(shares)
        if balance is not self._balance:
            self._balance, self.keyed = balance, balance is Balance.SOURCE_HASH
            before, spare = self._main, self._backups
            self._main = self._another()
            self._main.change(before.order())
            if spare is not None:
                self._backups = self._another()
                self._backups.change(spare.order())
        if not self._stale:
            self._rebuild()

    def pick(self, tried: Sequence[Choice] = (), key: bytes = b"") -> Choice | None:
        """The next choice that is not among `tried`; None when there is none. After an address of a name, one of the
        other family, if there is one. `key` is the client's address without its port, and only wanted where the group
        is `keyed`.
        """
        if self._stale:
            self._rebuild()
        self._begun = True
        excluded = {choice.label for choice in tried} if tried else _NOBODY
        choice = None
        if tried and isinstance(tried[-1].target.address, NameAddress | ServiceAddress):
            choice = self._main.pick(key, excluded | self._of_family(tried[-1].af))
        choice = choice or self._main.pick(key, excluded)
        if choice is None and self._backups is not None:
            return self._backups.pick(key, excluded)
        return choice

    def _of_family(self, af: int) -> frozenset[str]:
        """Labels of all that share the fate of one that has failed, if its family gets nowhere (RFC 8305)."""
        labels = self._families.get(af)
        if labels is None:
            labels = self._families[af] = frozenset(choice.label for choice in self._main.order() if choice.af == af)
        return labels

    def begun(self, choice: Choice) -> None:
        """A connection or session goes to `choice` from now on. Whatever it is, it is counted until it has `ended`."""
        self._main.begun(choice.label)
        if self._backups is not None:
            self._backups.begun(choice.label)

    def ended(self, choice: Choice) -> None:
        """One that had begun goes there no more."""
        self._main.ended(choice.label)
        if self._backups is not None:
            self._backups.ended(choice.label)

    def _rebuild(self, answer: Collection[SocketAddress] = ()) -> None:
        self._stale = False
        self._families.clear()
        main: dict[SocketAddress, tuple[Target, Share]] = {}
        backups: dict[SocketAddress, tuple[Target, Share]] = {}
        for index, target in enumerate(self._targets):
            share = self._shares[index] if self._shares else _PLAIN
            for address, own in self._addresses(target).items():
                if address not in main and address not in backups:
                    of = share if own is None else Share(own.weight, own.backup or share.backup)
                    (backups if of.backup else main)[address] = target, of
        self._fill(self._main, main, answer)
        if backups or self._backups is not None:
            self._backups = self._backups or self._another()
            self._fill(self._backups, backups, answer)

    def _fill(
        self,
        balancer: Balancer[Choice],
        addresses: Mapping[SocketAddress, tuple[Target, Share]],
        answer: Collection[SocketAddress],
    ) -> None:
        if not self._begun or self._balance is Balance.FIRST:  # in the order of the file
            known = {choice.address: choice for choice in balancer.order()}
            balancer.change([_made(known.get(address), address, *of) for address, of in addresses.items()])
        else:
            balancer.change(_requeued(balancer.order(), addresses, answer))

    def _another(self) -> Balancer[Choice]:
        """A new one, without choices, which knows what has begun."""
        made: Balancer[Choice] = balancer(self._balance, _RNG)
        for label, count in self._main.counts().items():
            for _ in range(count):
                made.begun(label)
        return made

    def _addresses(self, target: Target) -> Mapping[SocketAddress, Share | None]:
        """What `target` stands for now. None: each has the share of the target."""
        at = target.at(self.bind_port, self.index)
        if not isinstance(at, NameAddress | ServiceAddress):
            return {at: None}
        if not isinstance(target.address, NameAddress | ServiceAddress):
            return {}
        answer = self._resolved.get(target.address, {})
        return {self._on_port(target, address): share for address, share in answer.items()}

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

    def __init__(
        self, targets: Sequence[Target], balance: Balance = Balance.ROUND_ROBIN, shares: Sequence[Share] = ()
    ) -> None:
        """See `Group`."""
        self._targets, self._balance, self._shares = tuple(targets), balance, tuple(shares)
        self._each_port = any(target.rule is not PortRule.FIXED for target in targets)
        self._resolved: dict[Name, tuple[Sequence[InetAddress], Sequence[Share]]] = {}
        self._groups: dict[tuple[int, int], Group] = {}

    def retarget(
        self, targets: Sequence[Target], balance: Balance = Balance.ROUND_ROBIN, shares: Sequence[Share] = ()
    ) -> None:
        """From now on choose among `targets`, in this way. A group stays the same object, unless all ports have shared
        it, or will: `at` has to be asked again.
        """
        self._targets, self._balance, self._shares = tuple(targets), balance, tuple(shares)
        each_port = any(target.rule is not PortRule.FIXED for target in targets)
        if each_port is not self._each_port:
            self._each_port = each_port
            self._groups = {}
        names = {target.address for target in targets}
        self._resolved = {name: answer for name, answer in self._resolved.items() if name in names}
        for group in self._groups.values():
            group.retarget(targets, balance, shares)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def addresses(self) -> Collection[SocketAddress]:
        """All that the groups have to choose from now."""
        return {choice.address for group in self for choice in group}

    def of(self, endpoint: Endpoint) -> Group:
        """The group for clients that come to `endpoint`."""
        address = endpoint.address
        return self.at(address.port if isinstance(address, InetAddress) else 0, endpoint.index)

    def at(self, bind_port: int, index: int) -> Group:
        """The group for clients that come to `bind_port`, the port at position `index` of its bind."""
        key = (bind_port, index) if self._each_port else (0, 0)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(self._targets, *key, self._balance, self._shares)
            for name, answer in self._resolved.items():
                group.resolved(name, *answer)
        return group

    def resolved(self, name: Name, addresses: Sequence[InetAddress], shares: Sequence[Share] = ()) -> bool:
        """From now on `name` means `addresses`, as of `Group`. False: no target has this name."""
        if not any(target.address == name for target in self._targets):
            return False
        self._resolved[name] = addresses, shares
        for group in self._groups.values():
            group.resolved(name, addresses, shares)
        return True


def _requeued(
    queue: Sequence[Choice],
    addresses: Mapping[SocketAddress, tuple[Target, Share]],
    answer: Collection[SocketAddress],
) -> list[Choice]:
    """`queue`, in the order of turns, with all of `addresses` and no others, now that a name means `answer`.

    Nobody waits longer than before. What is new has the places of what goes, so that a name whose addresses are others
    each time has its turns too. Of more places than addresses a name keeps the first; more addresses go to the end.
    """
    known = {choice.address for choice in queue}
    new = iter([_made(None, address, *of) for address, of in addresses.items() if address not in known])
    places = [at for at, choice in enumerate(queue) if choice.address in answer or choice.address not in addresses]
    filled = [
        _made(choice, choice.address, *addresses[choice.address]) if choice.address in addresses else next(new, None)
        for choice in queue
    ]
    stay = iter([filled[at] for at in places if filled[at] is not None])
    for at in places:
        filled[at] = next(stay, None)
    return [*(choice for choice in filled if choice is not None), *new]


def _made(known: Choice | None, address: SocketAddress, target: Target, share: Share) -> Choice:
    """The choice of `address`: `known`, the very same, where it stands for the same already."""
    if known is None:
        return choice_of(address, target, share)
    if (known.target, known.weight, known.backup) == (target, share.weight, share.backup):
        return known
    return replace(known, target=target, weight=share.weight, backup=share.backup)


def client_key(sockaddr: object) -> bytes:
    """What `Group.pick` is to know of the client at `sockaddr`, as the socket module has it: its address, IPv4 as such
    where it comes in IPv6. Clients of Unix sockets have none, and are all alike.
    """
    if not isinstance(sockaddr, tuple):
        return b""
    host = str(sockaddr[0]).partition("%")[0]  # the name of an interface may have a dot
    return (host.removeprefix("::ffff:") if "." in host else host).encode()


def choice_of(address: SocketAddress, target: Target, share: Share = _PLAIN) -> Choice:
    """The choice of `address`, one of those that `target` stands for."""
    scoped = isinstance(address, InetAddress) and address.scope
    sockaddr = None if scoped else address.sockaddr
    port = address.port if isinstance(address, InetAddress) else 0
    return Choice(
        target,
        address,
        address.family.af,
        sockaddr,
        str(address),
        port,
        may_meet_itself(address),
        share.weight,
        share.backup,
    )
