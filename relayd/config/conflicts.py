"""What is wrong between listeners: two that bind the same, and chains of them that lead back to where they began.

Which binds conflict was tried on Linux 6.18 with SO_REUSEADDR on every socket, and is tried again by
tests/unit/config/test_conflicts.py: the same port, a family in common ([::] has both unless ipv6_only), the same
address or a wildcard on one side, and not two different interfaces. Port 0 never conflicts: the kernel picks another.
"""

import ipaddress
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from relayd.address import Address, Family, InetAddress, NameAddress, SocketAddress, UnixAddress
from relayd.config import machine
from relayd.config.listeners import Built
from relayd.config.problems import Problem, quote

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "localhost6"})


@dataclass(frozen=True, slots=True)
class _Bound:
    """One listening socket, and the listener and index in its `bind` that it comes from."""

    built: Built
    number: int

    @property
    def address(self) -> SocketAddress:
        return self.built.listener.binds[self.number]

    @property
    def index(self) -> int:
        return self.built.sources[self.number]

    @property
    def interface(self) -> str | None:
        """What the socket is bound to: SO_BINDTODEVICE, or the scope of a link-local address, which does the same."""
        scope = self.address.scope if isinstance(self.address, InetAddress) else ""
        return self.built.listener.binding.interface or scope or None

    @property
    def families(self) -> tuple[Family, ...]:
        """Families of the clients that come in here."""
        if not isinstance(self.address, InetAddress):
            return (Family.UNIX,)
        if self.address.family is Family.INET6 and self.address.wildcard and not self.built.listener.binding.ipv6_only:
            return (Family.INET, Family.INET6)
        return (self.address.family,)


class Bindings:
    """Every listening socket of a configuration, found by what it could meet."""

    def __init__(self, listeners: Sequence[Built]) -> None:
        self._bound = [_Bound(built, number) for built in listeners for number in range(len(built.listener.binds))]
        self._unix: dict[str, list[_Bound]] = defaultdict(list)
        self._exact: dict[tuple[int, str], list[_Bound]] = defaultdict(list)
        self._wildcards: dict[int, list[_Bound]] = defaultdict(list)
        self._on_port: dict[int, list[_Bound]] = defaultdict(list)

    def conflicts(self) -> Iterator[Problem]:
        """One problem for each bind that an earlier one makes impossible. To be asked before `reached`."""
        paths = _UnixPaths()
        for bound in self._bound:
            address = bound.address
            if isinstance(address, UnixAddress):
                earlier: list[_Bound] = self._unix[paths.real(address)]
                rivals: Sequence[_Bound] = earlier
                homes = [earlier]
            elif address.port == 0:
                continue
            else:
                exact, wildcards = self._exact[address.port, address.host], self._wildcards[address.port]
                rivals = self._on_port[address.port] if address.wildcard else [*exact, *wildcards]
                homes = [wildcards if address.wildcard else exact, self._on_port[address.port]]
            rival = next((other for other in rivals if _conflict(bound, other)), None)
            if rival:
                yield _conflict_problem(bound, rival)
            for home in homes:
                home.append(bound)

    def reached(self, target: Address) -> list[Built]:
        """Listeners of this configuration that a connection to `target` may come in at."""
        if isinstance(target, UnixAddress):
            return [bound.built for bound in self._unix.get(_UnixPaths().real(target), ())]
        if isinstance(target, NameAddress):
            return self._reached_by_name(target)
        found = [bound.built for bound in self._exact.get((target.port, target.host), ()) if _here(bound, target.scope)]
        wildcards = [
            bound.built
            for bound in self._wildcards.get(target.port, ())
            if _here(bound, target.scope) and target.family in bound.families
        ]
        return found + wildcards if wildcards and _is_own(target) else found

    def _reached_by_name(self, target: NameAddress) -> list[Built]:
        """`localhost` reaches loopback and wildcard binds, this machine's own name wildcards; no other is resolved."""
        host = target.host.lower().rstrip(".")
        local = host in _LOCAL_NAMES or host.endswith(".localhost")
        if not local and host != machine.host_name():
            return []
        found = [bound.built for bound in self._wildcards.get(target.port, ()) if _here(bound)]
        for loopback in ("127.0.0.1", "::1") if local else ():
            found += [bound.built for bound in self._exact.get((target.port, loopback), ()) if _here(bound)]
        return found


def loops(listeners: Sequence[Built], bindings: Bindings) -> Iterator[Problem]:
    """One problem for each way round: a listener that forwards to itself, or a chain of listeners that comes back."""
    edges: dict[str, list[tuple[str, int]]] = {}
    by_name = {built.listener.name: built for built in listeners}
    for built in listeners:
        edges[built.listener.name] = [
            (other.listener.name, number)
            for number, target in enumerate(built.listener.targets)
            for other in bindings.reached(target.address)
        ]
    for chain, number in _cycles(edges):
        built = by_name[chain[0]]
        target = quote(str(built.listener.targets[number].address))
        if len(chain) == 1:
            message = f"{target} is this listener: it would forward to itself"
        else:
            message = f"{target} leads back here: {' → '.join((*chain, chain[0]))}"
        yield built.block.problem("targets", message, index=number)


def _cycles(edges: dict[str, list[tuple[str, int]]]) -> Iterator[tuple[list[str], int]]:
    """For each edge that closes a way round in a walk of the graph: the listeners on it, from the one whose target
    closes it, and the number of that target. A walk without recursion: a chain may have 10,000 links."""
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        trail: list[str] = [start]
        on_trail = {start: 0}
        todo = [iter(edges[start])]
        closed: set[tuple[str, int]] = set()
        while todo:
            step = next(todo[-1], None)
            here = trail[-1]
            if step is None:
                todo.pop()
                done.add(trail.pop())
                del on_trail[here]
                continue
            name, number = step
            if name in on_trail:
                if (here, number) not in closed:
                    closed.add((here, number))
                    way = trail[on_trail[name] :]
                    yield [here, *way[:-1]], number
            elif name not in done:
                on_trail[name] = len(trail)
                trail.append(name)
                todo.append(iter(edges[name]))


def _conflict(one: _Bound, other: _Bound) -> bool:
    if one.built is other.built and one.index == other.index:
        return False
    if isinstance(one.address, UnixAddress) or isinstance(other.address, UnixAddress):
        return True
    if one.interface and other.interface and one.interface != other.interface:
        return False
    if not set(one.families) & set(other.families):
        return False
    return one.address.host == other.address.host or one.address.wildcard or other.address.wildcard


def _conflict_problem(bound: _Bound, rival: _Bound) -> Problem:
    theirs = rival.built.block
    same = bound.address == rival.address
    what = "is bound" if same else f"and {quote(str(rival.address))} cannot both be bound:"
    if same:
        what += " already:"
    message = f"{quote(str(bound.address))} {what} listeners.{theirs.name} at {theirs.place('bind', rival.index)}"
    return bound.built.block.problem("bind", message, index=bound.index)


def _here(bound: _Bound, scope: str = "") -> bool:
    """True when a connection made on this machine can come in at `bound`: it arrives by the interface lo."""
    return bound.interface in (None, "lo", scope or None)


def _is_own(target: InetAddress) -> bool:
    return ipaddress.ip_address(target.host).is_loopback or machine.is_own(target.family, target.host)


class _UnixPaths:
    """Paths of Unix sockets as the kernel sees them: symbolic links of directories followed, one look a directory."""

    def __init__(self) -> None:
        self._directories: dict[str, str] = {}

    def real(self, address: UnixAddress) -> str:
        if address.abstract:
            return address.path
        directory, name = os.path.split(address.path)
        if directory not in self._directories:
            self._directories[directory] = os.path.realpath(directory)
        return f"{self._directories[directory]}/{name}"
