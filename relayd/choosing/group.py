"""The targets that one listener chooses among, and the choice, by its `balance`. Pure.

Every address of a resolved name is a target of its own (T3), with the weight of its name, or that of its SRV record; a
name without an answer yet is none. A new answer begins no new round: however often a name resolves to something else,
every target has its turn.
Backups are chosen among in the same way, for clients for whom every other target has failed.
"""

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias
from zlib import crc32

from relayd.address import InetAddress, Name, NameAddress, ServiceAddress, Sockaddr, SocketAddress
from relayd.choosing.balance import PARTS, Balancer, balancer
from relayd.choosing.pool import Pool
from relayd.choosing.suspects import Suspects
from relayd.net.dialing import may_meet_itself
from relayd.spec import UNCHECKED, Balance, Health, Listener, PortRule, Share, Target
from relayd.spec.sockets import Endpoint
from relayd.values import dataclass

#: For RANDOM. Seeded by the system, so that workers do not draw the same.
_RNG = random.Random()  # noqa: S311  # no secret
_PLAIN = Share()
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
    #: `spec.Target.origin`, by which its state is known. Where the port follows the bind it is the same for all ports:
    #: by SOURCE_HASH a client goes to one host by all of them.
    origin: str
    weight: int = 1
    backup: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """How a group chooses among its targets. `shares` and `health` as of `spec.Listener`.

    `patience_s` is how long a client waits at most until it knows whether a target fails; None where it may never know,
    as of datagrams.
    """

    balance: Balance = Balance.ROUND_ROBIN
    shares: tuple[Share, ...] = ()
    health: Health = UNCHECKED
    patience_s: float | None = None

    @classmethod
    def of(cls, listener: Listener, *, datagrams: bool) -> "Rules":
        """Those of `listener`."""
        stream = None if datagrams else listener.stream
        patience_s = None if stream is None else stream.timeouts.connect_s
        return cls(listener.balance, listener.shares, listener.health, patience_s)

    @property
    def limited(self) -> bool:
        """Some target has a limit."""
        return any(share.max_connections is not None for share in self.shares)

    @property
    def suspects(self) -> Suspects:
        """None yet."""
        return Suspects(self.patience_s or 0.0, silence_is_success=self.patience_s is None)


_PLAIN_RULES = Rules()
#: What a group begins with, and most keep: of ten thousand ports, few ever see a failure, or a client. Never changed.
_NO_ANSWERS: Mapping[Name, Answer] = {}
_NO_FAMILIES: Mapping[int, frozenset[str]] = {}
_NO_LABELS: frozenset[str] = frozenset()
_NO_TIMES: Mapping[str, float] = {}
_NO_PARTS: Mapping[str, int] = {}
_NOBODY_SUSPECT = _PLAIN_RULES.suspects


class Group:
    """The choices of one listener, or of one of its ports. Not thread-safe; one per listener, or port, and worker.

    Who gets a client is up to four questions, in this order: is the target enabled, and not full; is it up by its
    checks; is it no suspect of this group; and whose turn is it. Backups are asked when no other target is left; then
    suspects; and where checks say that nobody at all is up, and the pool is to `fail_open`, the second question is not
    asked.
    """

    __slots__ = (
        "_backups",
        "_begun",
        "_changes",
        "_ejected",
        "_families",
        "_full",
        "_look_at",
        "_main",
        "_parts",
        "_pool",
        "_ramps",
        "_resolved",
        "_resting",
        "_rules",
        "_stale",
        "_suspects",
        "_targets",
        "_trials",
        "_version",
        "bind_port",
        "failing_open",
        "index",
        "keyed",
        "limited",
    )

    def __init__(
        self,
        targets: Sequence[Target],
        bind_port: int = 0,
        index: int = 0,
        rules: Rules = _PLAIN_RULES,
        pool: Pool | None = None,
    ) -> None:
        """Choices for clients that come to `bind_port`, the port at position `index` of its bind. `pool` None: one of
        its own.
        """
        self._targets, self._rules = tuple(targets), rules
        self.bind_port = bind_port
        self.index = index
        #: `pick` wants to know the client.
        self.keyed = rules.balance is Balance.SOURCE_HASH
        #: Its targets may be `full`.
        self.limited = rules.limited
        self._resolved = _NO_ANSWERS
        #: Labels by family, of those asked for since something has changed.
        self._families = _NO_FAMILIES
        self._main: Balancer[Choice] = balancer(rules.balance, _RNG)
        self._backups: Balancer[Choice] | None = None
        #: There was a pick: from then on turns go on.
        self._begun = False
        #: The choices are still to be made, for the first client: of thousands of ports, most may never see one.
        self._stale = True
        self._pool = pool if pool is not None else Pool()
        #: Of the pool, when that was looked at.
        self._changes = self._version = -1
        self._suspects = _NOBODY_SUSPECT
        #: When it is to be looked again who is out, though nothing has happened.
        self._look_at = math.inf
        self._full = False
        #: All are down by their checks, and are tried all the same.
        self.failing_open = False
        #: Suspects that are passed over, and the labels of those whose time is over.
        self._ejected: tuple[Choice, ...] = ()
        self._trials: frozenset[str] = frozenset()
        #: Labels of those that are down or not enabled; of those that come back, since when; and how much of their
        #: share they have, in PARTS.
        self._resting = _NO_LABELS
        self._ramps = _NO_TIMES
        self._parts = _NO_PARTS

    def __len__(self) -> int:
        if self._stale:
            self._rebuild()
        return self._main.size + (self._backups.size if self._backups is not None else 0)

    def __iter__(self) -> Iterator[Choice]:
        """The choices that there are now: the very objects that `pick` gives, until something changes."""
        if self._stale:
            self._rebuild()
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
            self._resolved = {**self._resolved, name: answer}
            if not self._stale:
                self._rebuild({self._on_port(target, address) for target in targets for address in addresses})

    def retarget(self, targets: Sequence[Target], rules: Rules = _PLAIN_RULES, pool: Pool | None = None) -> None:
        """From now on choose among `targets`, in this way. Those that stay keep their turn, and what they have. `pool`
        None: the one that it has.
        """
        before, self._rules = self._rules, rules
        self._targets, self.limited = tuple(targets), rules.limited
        if pool is not None and pool is not self._pool:
            self._move_to(pool)
        if rules.patience_s != before.patience_s:
            self._suspects = _NOBODY_SUSPECT
        if rules.balance is not before.balance:
            self.keyed = rules.balance is Balance.SOURCE_HASH
            main, spare = self._main, self._backups
            self._main = self._another()
            self._main.change(main.order())
            if spare is not None:
                self._backups = self._another()
                self._backups.change(spare.order())
        if not self._stale:
            self._rebuild()

    def _move_to(self, pool: Pool) -> None:
        """From now on it is one of that pool, together with the connections that its choices have."""
        for choice in self:
            count = self._main.active(choice.label)
            if count:
                self._pool.ended(choice.origin, count)
                pool.begun(choice.origin, count)
        self._pool = pool
        self._changes = self._version = -1

    def pick(self, tried: Sequence[Choice] = (), key: bytes = b"", now: float = 0.0) -> Choice | None:
        """The next choice that is not among `tried`; None when there is none. After an address of a name, one of the
        other family, if there is one. `key` is the client's address without its port, and only wanted where the group
        is `keyed`; `now` is monotonic.
        """
        if self._changes != self._pool.changes or now >= self._look_at or self._stale:
            self._look(now)
        self._begun = True
        choice = self._main_pick(tried, key) if tried or self._parts else self._main.pick(key)
        if choice is None:
            choice = self._spare_pick(tried, key)
        if self._trials and choice is not None and choice.label in self._trials:
            self._suspects.on_trial(choice.label, now)
            self._look_at = -math.inf
        return choice

    def full(self, now: float) -> bool:
        """There are targets, and those that might have another client have all that they may have: whoever comes is to
        wait.
        """
        self.look(now)
        return self._full

    def look(self, now: float) -> None:
        """Note what has happened, if anything has: what `pick` begins with."""
        if self._changes != self._pool.changes or now >= self._look_at or self._stale:
            self._look(now)

    def _main_pick(self, tried: Sequence[Choice], key: bytes) -> Choice | None:
        """`pick`, of those that are no backups and sit not out."""
        excluded = frozenset(choice.label for choice in tried)
        choice = None
        if tried and isinstance(tried[-1].target.address, NameAddress | ServiceAddress):
            choice = self._main.pick(key, excluded | self._of_family(tried[-1].af))
        choice = choice or self._main.pick(key, excluded)
        if self._parts and self.keyed and choice is not None and not self._its_turn(choice, key):
            choice = self._main.pick(key, excluded | {choice.label}) or choice
        return choice

    def _spare_pick(self, tried: Sequence[Choice], key: bytes) -> Choice | None:
        """`pick`, of the others: backups, then suspects."""
        excluded = {choice.label for choice in tried}
        choice = self._backups.pick(key, excluded) if self._backups is not None else None
        return choice or next((suspect for suspect in self._ejected if suspect.label not in excluded), None)

    def _of_family(self, af: int) -> frozenset[str]:
        """Labels of all that share the fate of one that has failed, if its family gets nowhere (RFC 8305)."""
        labels = self._families.get(af)
        if labels is None:
            labels = frozenset(choice.label for choice in self._main.order() if choice.af == af)
            self._families = {**self._families, af: labels}
        return labels

    def _its_turn(self, choice: Choice, key: bytes) -> bool:
        """Whether the client of `key` is among those that `choice` has already, which comes back step by step."""
        parts = self._parts.get(choice.label)
        return parts is None or crc32(key) % PARTS < max(1, parts)

    def failed(self, choice: Choice, reason: str, now: float, began: float | None = None) -> None:
        """A client who was sent there at `began`, None: just now, has met `choice` failing, for `reason`: it is passed
        over for a while, unless it has been found well since then, by a check or by a client: news of its bad time must
        not begin another one. Those are told who shall know.
        """
        datagrams = self._rules.patience_s is None
        if began is not None and began < max(
            self._pool.up_since(choice.origin), self._suspects.worked_at(choice.label)
        ):
            self._pool.failed(choice.origin, choice.label, reason, first=False, datagrams=datagrams, news=False)
            return
        if self._suspects is _NOBODY_SUSPECT:
            self._suspects = self._rules.suspects
        trusted = choice.label not in self._suspects
        changed = self._suspects.failed(choice.label, now, began)
        if changed:
            self._look_at = -math.inf
        self._pool.failed(choice.origin, choice.label, reason, first=trusted and changed, datagrams=datagrams)

    def worked(self, choice: Choice, now: float) -> None:
        """A client has met `choice` working."""
        if self._suspects.worked(choice.label, now):
            self._look_at = -math.inf
            self._pool.worked(choice.origin, choice.label)

    @property
    def suspicious(self) -> bool:
        """There are suspects, so that it matters what has `worked`."""
        return len(self._suspects) > 0

    def begun(self, choice: Choice) -> None:
        """A connection or session goes to `choice` from now on. Whatever it is, it is counted until it has `ended`."""
        self._main.begun(choice.label)
        if self._backups is not None:
            self._backups.begun(choice.label)
        self._pool.begun(choice.origin)

    def ended(self, choice: Choice) -> None:
        """One that had begun goes there no more."""
        self._main.ended(choice.label)
        if self._backups is not None:
            self._backups.ended(choice.label)
        self._pool.ended(choice.origin)

    # who is out -------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        """Have those sit out who are to get no clients now, and those that come back begin with few."""
        pool = self._pool
        if self._stale or self._version != pool.version:
            self._version = pool.version
            self._rebuild()
        self._changes = pool.changes
        self._ejected, self._trials, self._full, self.failing_open = (), frozenset(), False, False
        if pool.quiet and not self._suspects and not self._resting and not self._ramps:
            self._look_at = math.inf
            for tier in self._tiers():
                tier.sit_out(())
            return
        everybody = list(self)
        disabled = {choice.label for choice in everybody if not pool.enabled(choice.origin)}
        down = {choice.label for choice in everybody if not pool.up(choice.origin)} - disabled
        self._ramp(disabled | down, now)
        full = {choice.label for choice in everybody if pool.full(choice.origin)}
        out = set(disabled)
        self.failing_open = self._rules.health.fail_open and len(disabled | down) == len(everybody)
        if not self.failing_open:
            out |= down
        self._full = len(out) < len(everybody) == len(out | full)
        out |= full
        waiting = self._suspects.out(now)
        for tier in self._tiers():
            choices = {choice.label: choice for choice in tier.order()}
            at_most = len(choices.keys() - out) * self._rules.health.max_ejected // 100
            ejected = [label for label in waiting if label in choices and label not in out][:at_most]
            self._ejected += tuple(choices[label] for label in ejected)
            tier.sit_out((out & choices.keys()).union(ejected))
        self._trials = frozenset(each.label for each in everybody if each.label in self._suspects).difference(waiting)
        self._look_at = min(self._suspects.soonest, self._next_step())

    def _tiers(self) -> list[Balancer[Choice]]:
        return [self._main] if self._backups is None else [self._main, self._backups]

    def _ramp(self, resting: set[str], now: float) -> None:
        """Those that rest no more begin with a small share, which grows for `slow_start_s`."""
        slow_start_s = self._rules.health.slow_start_s
        for label in self._resting - resting if slow_start_s else ():
            self._ramps = {**self._ramps, label: now}
        self._resting = frozenset(resting)
        if self._ramps:
            there = {choice.label for choice in self} - resting
            ramps = {label: at for label, at in self._ramps.items() if label in there and now < at + slow_start_s}
            parts = {label: int((now - at) / slow_start_s * PARTS) for label, at in ramps.items()}
            self._ramps = ramps
            if parts != self._parts:
                self._parts = parts
                if not self.keyed:  # else another table each time, and clients that move about
                    self._rebuild()

    def _next_step(self) -> float:
        """When a share grows."""
        step_s = self._rules.health.slow_start_s / PARTS
        return min((at + (self._parts[label] + 1) * step_s for label, at in self._ramps.items()), default=math.inf)

    # the choices ------------------------------------------------------------------------------------------------

    def _rebuild(self, answer: Collection[SocketAddress] = ()) -> None:
        self._stale = False
        self._look_at = -math.inf
        self._families = _NO_FAMILIES
        main: dict[SocketAddress, tuple[Target, Share]] = {}
        backups: dict[SocketAddress, tuple[Target, Share]] = {}
        for index, target in enumerate(self._targets):
            share = self._rules.shares[index] if self._rules.shares else _PLAIN
            for address, own in self._addresses(target).items():
                if address not in main and address not in backups:
                    of = share if own is None else replace(share, weight=own.weight, backup=own.backup or share.backup)
                    (backups if of.backup else main)[address] = target, self._share_now(target, address, of)
        self._fill(self._main, main, answer)
        if backups or self._backups is not None:
            self._backups = self._backups or self._another()
            self._fill(self._backups, backups, answer)
        if self._suspects is not _NOBODY_SUSPECT:
            self._suspects.keep({choice.label for choice in self})

    def _share_now(self, target: Target, address: SocketAddress, share: Share) -> Share:
        """`share`, or what an operator has made of it, as long as others begin with a part of theirs in parts; and the
        pool knows how many the target may have.
        """
        origin = target.origin(address)
        self._pool.limit(origin, share.max_connections)
        weight = self._pool.weight(origin) or share.weight
        if self._parts and not self.keyed:
            weight = max(1, weight * self._parts.get(str(address), PARTS))
        return share if weight == share.weight else replace(share, weight=weight)

    def _fill(
        self,
        balancer: Balancer[Choice],
        addresses: Mapping[SocketAddress, tuple[Target, Share]],
        answer: Collection[SocketAddress],
    ) -> None:
        if not self._begun or self._rules.balance is Balance.FIRST:  # in the order of the file
            known = {choice.address: choice for choice in balancer.order()}
            balancer.change([_made(known.get(address), address, *of) for address, of in addresses.items()])
        else:
            balancer.change(_requeued(balancer.order(), addresses, answer))

    def _another(self) -> Balancer[Choice]:
        """A new one, without choices, which knows what has begun."""
        made: Balancer[Choice] = balancer(self._rules.balance, _RNG)
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

    def __init__(self, targets: Sequence[Target], rules: Rules = _PLAIN_RULES, pool: Pool | None = None) -> None:
        """See `Group`."""
        self._targets, self._rules = tuple(targets), rules
        self._pool = pool if pool is not None else Pool()
        self._each_port = any(target.rule is not PortRule.FIXED for target in targets)
        self._resolved: dict[Name, tuple[Sequence[InetAddress], Sequence[Share]]] = {}
        self._groups: dict[tuple[int, int], Group] = {}

    def retarget(self, targets: Sequence[Target], rules: Rules = _PLAIN_RULES, pool: Pool | None = None) -> None:
        """From now on choose among `targets`, in this way. A group stays the same object, unless all ports have shared
        it, or will: `at` has to be asked again.
        """
        self._targets, self._rules = tuple(targets), rules
        self._pool = pool if pool is not None else self._pool
        each_port = any(target.rule is not PortRule.FIXED for target in targets)
        if each_port is not self._each_port:
            self._each_port = each_port
            self._groups = {}
        names = {target.address for target in targets}
        self._resolved = {name: answer for name, answer in self._resolved.items() if name in names}
        for group in self._groups.values():
            group.retarget(targets, rules, pool)

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
            group = self._groups[key] = Group(self._targets, *key, self._rules, self._pool)
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
    return replace(known, target=target, origin=target.origin(address), weight=share.weight, backup=share.backup)


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
        target.origin(address),
        share.weight,
        share.backup,
    )
