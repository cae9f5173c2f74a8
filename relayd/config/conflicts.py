"""What is wrong between listeners: two that bind the same, and chains of them that lead back to where they began.

Which binds conflict was tried on Linux 6.18, with SO_REUSEADDR on every stream socket and on no datagram socket, and is
tried again by tests/unit/config/test_conflicts.py: the same type and port, a family in common ([::] has both unless
ipv6_only), the same address or a wildcard on one side, and not two different interfaces. Port 0 never conflicts: the
kernel picks another. Ports are looked at in spans, never one by one.

What systemd has passed is bound already, whether a listener has it or not: nothing else can be bound beside it. Sockets
that systemd has bound beside each other do not conflict; one that two listeners want does.
"""

import ipaddress
import os
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeAlias

from relayd.address import (
    SYSTEMD,
    Family,
    InetAddress,
    NameAddress,
    ServiceAddress,
    SocketAddress,
    SystemdAddress,
    UnixAddress,
)
from relayd.config import machine
from relayd.config.bound import Bound, Reach, Span, bound_by, kind_of, kinds, reach_of, reach_to
from relayd.config.listeners import Built
from relayd.config.ports import spans_dialled, target_text
from relayd.config.problems import Problem, key_text, quote
from relayd.spec import Listener, Target
from relayd.spec.passed import Inventory, Passed
from relayd.values import dataclass

_LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "localhost6"})

#: A listener by its name, and "stream" or "dgram": what forwards.
Node: TypeAlias = tuple[str, str]


class _Ports:
    """Who holds which port. Each port has one holder, the first that came."""

    def __init__(self) -> None:
        self._held: list[tuple[int, int, Bound]] = []  # by first port; no two have a port in common

    def among(self, ports: Span) -> Iterator[tuple[int, int, Bound]]:
        """Those of `ports` that are held, by whom."""
        first, last = ports
        at = max(0, bisect_right(self._held, first, key=_first) - 1)
        while at < len(self._held) and self._held[at][0] <= last:
            begin, end, holder = self._held[at]
            if end >= first:
                yield max(first, begin), min(last, end), holder
            at += 1

    def add(self, ports: Span, holder: Bound) -> None:
        """`holder` has those of `ports` that nobody holds."""
        first, last = ports
        for begin, end, _ in [*self.among(ports), (last + 1, last, holder)]:
            if first < begin:
                insort(self._held, (first, begin - 1, holder), key=_first)
            first = end + 1


def _first(held: tuple[int, int, Bound]) -> int:
    return held[0]


class _Binds:
    """Every inet and inet6 bind of one type, found by what it could meet."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[Reach, _Ports]] = defaultdict(lambda: defaultdict(_Ports))
        self._wildcards: dict[Reach, _Ports] = defaultdict(_Ports)
        self._all: dict[Reach, _Ports] = defaultdict(_Ports)

    def add(self, bound: Bound, address: InetAddress) -> None:
        """Remember `bound`, which has `address`."""
        home = self._wildcards if address.wildcard else self._exact[address.host]
        for ports in (home[bound.reach], self._all[bound.reach]):
            ports.add(bound.span, bound)

    def rival(self, address: InetAddress, reach: Reach, ports: Span) -> tuple[int, int, Bound] | None:
        """One that `address` cannot be bound beside, with first and last of the ports that both want."""
        exact = self._exact.get(address.host, {})
        for homes in (self._all,) if address.wildcard else (exact, self._wildcards):
            for other, home in homes.items():
                found = next(home.among(ports), None) if reach.meets(other) else None
                if found:
                    return found
        return None

    def at(self, hosts: Iterable[str], spans: Iterable[Span], scope: str = "") -> list[Built]:
        """Listeners with a bind at just one of these addresses, that a client on this machine comes in at."""
        homes = [home for host in hosts for reach, home in self._exact.get(host, {}).items() if reach.from_here(scope)]
        return _listeners(homes, spans)

    def at_wildcards(self, families: frozenset[Family], spans: Iterable[Span], scope: str = "") -> list[Built]:
        """The same of wildcards of one of `families`."""
        homes = [
            home
            for reach, home in self._wildcards.items()
            if reach.from_here(scope) and not families.isdisjoint(reach.families)
        ]
        return _listeners(homes, spans)


class Bindings:
    """Every listening socket of a configuration, and all that systemd has passed, found by what it could meet."""

    def __init__(self, listeners: Sequence[Built], inventory: Inventory) -> None:
        self._listeners = listeners
        self._passed = [
            (name, one) for name, sockets in inventory.items() for one in sockets if isinstance(one, Passed)
        ]
        self._names: dict[str, list[_Named]] = defaultdict(list)
        self._paths = _UnixPaths()
        self._unix: dict[str, list[Bound]] = defaultdict(list)
        self._binds = {"stream": _Binds(), "dgram": _Binds()}

    def conflicts(self) -> Iterator[Problem]:
        """One problem for each bind that an earlier one makes impossible. To be asked before `reached`."""
        for built in self._listeners:
            yield from self._name_conflicts(built)
            all_bound = [bound for number in range(len(built.listener.binds)) for bound in bound_by(built, number)]
            for _, group in groupby(all_bound, lambda bound: bound.index):
                # The addresses of one host name are no rivals: only then are they added.
                of_one_element = list(group)
                for bound in of_one_element:
                    if not bound.passed:
                        yield from self._conflict(bound)
                for bound in of_one_element:
                    self._add(bound)

    def taken(self, address: SocketAddress) -> str:
        """The listener, with its place, or the socket of systemd, beside which no other socket for streams can be at
        `address`; "" for none. To be asked after `conflicts`.
        """
        reach = reach_to(address, None, ipv6_only=True)
        ports = (address.port, address.port) if isinstance(address, InetAddress) else (0, 0)
        if isinstance(address, UnixAddress):
            rivals = self._unix.get(self._paths.real(address), [])
            rival = next((one for one in rivals if not address.abstract or "stream" in one.kinds), None)
        else:
            found = self._binds["stream"].rival(address, reach, ports)
            rival = found[2] if found else None
        if rival:
            return _named(rival)
        held = self._held_by_systemd(address, reach, ports, frozenset({"stream"}))
        return f"{SYSTEMD}{held[0]}, which is {held[1].address}" if held else ""

    def reached(self, target: Target, listener: Listener, kind: str) -> list[Built]:
        """Listeners of this configuration that what `listener` dials at `target` for `kind` may come in at."""
        address = target.address
        if isinstance(address, UnixAddress):
            return [bound.built for bound in self._unix.get(self._paths.real(address), ()) if kind in bound.kinds]
        if isinstance(address, ServiceAddress):  # only its records know where it leads
            return []
        binds, spans = self._binds[kind], spans_dialled(target, listener.binds)
        if isinstance(address, NameAddress):
            return _reached_by_name(binds, address.host, spans)
        exact = binds.at([address.host], spans, address.scope)
        wildcards = binds.at_wildcards(frozenset({address.family}), spans, address.scope)
        return exact + wildcards if wildcards and _is_own(address) else exact

    def _name_conflicts(self, built: Built) -> Iterator[Problem]:
        """One problem for each name of systemd of which another listener has the sockets of the same type."""
        mine = kinds(built.listener)
        for number, bind in enumerate(built.listener.binds):
            if isinstance(bind.address, SystemdAddress):
                rivals = self._names[bind.address.name]
                rival = next((one for one in rivals if not mine.isdisjoint(kinds(one.built.listener))), None)
                if rival:
                    message = f"{quote(str(bind))} is taken already: {rival}"
                    yield built.block.problem("bind", message, index=built.sources[number])
                rivals.append(_Named(built, built.sources[number]))

    def _held_by_systemd(
        self, address: SocketAddress, reach: Reach, ports: Span, types: frozenset[str]
    ) -> tuple[str, Passed] | None:
        """What systemd has bound, beside which `address` cannot be bound for any of `types`, and its name."""
        for name, one in self._passed:
            if isinstance(address, UnixAddress):
                same = isinstance(one.address, UnixAddress) and self._paths.real(address) == self._paths.real(
                    one.address
                )
                if same and (not address.abstract or kind_of(one) in types):
                    return name, one
            elif (
                isinstance(one.address, InetAddress)
                and kind_of(one) in types
                and ports[0] <= one.address.port <= ports[1]
                and (address.host == one.address.host or address.wildcard or one.address.wildcard)
                and reach.meets(reach_of(one))
            ):
                return name, one
        return None

    def _conflict(self, bound: Bound) -> Iterator[Problem]:
        address, mine = bound.address, bound.kinds
        held = self._held_by_systemd(address, bound.reach, bound.span, mine)
        if held:
            yield _systemd_problem(bound, *held)
        elif isinstance(address, UnixAddress):
            for rival in self._unix[self._paths.real(address)]:
                # A file is one socket, whatever its type; an abstract name may stand for one of each.
                if not address.abstract or not mine.isdisjoint(rival.kinds):
                    yield _conflict_problem(bound, rival, (0, 0))
                    return
        elif address.port:
            for kind in sorted(mine):
                found = self._binds[kind].rival(address, bound.reach, bound.span)
                if found:
                    yield _conflict_problem(bound, found[2], found[:2])
                    return

    def _add(self, bound: Bound) -> None:
        address = bound.address
        if isinstance(address, UnixAddress):
            self._unix[self._paths.real(address)].append(bound)
        elif address.port:
            for kind in bound.kinds:
                self._binds[kind].add(bound, address)


def loops(listeners: Sequence[Built], bindings: Bindings) -> Iterator[Problem]:
    """One problem for each way round: a listener that forwards to itself, or a chain of listeners that comes back."""
    edges: dict[Node, list[tuple[Node, int]]] = {}
    of_pools: dict[Node, list[tuple[Node, int]]] = {}
    by_name = {built.listener.name: built for built in listeners}
    for built in listeners:
        pool = built.block.pool
        for kind in sorted(kinds(built.listener), reverse=True):
            if pool is None or pool.following:
                found = _leads_to(built, kind, bindings)
            elif (pool.name, kind) in of_pools:  # the same for all that share it: many listeners times many targets
                found = of_pools[pool.name, kind]
            else:
                found = of_pools[pool.name, kind] = _leads_to(built, kind, bindings)
            edges[built.listener.name, kind] = found
    told: set[tuple[tuple[str, ...], int]] = set()
    for nodes, number in _cycles(edges):
        chain = tuple(name for name, _ in nodes)
        if (chain, number) in told:  # of the other type
            continue
        told.add((chain, number))
        built = by_name[chain[0]]
        ports = max((bind.ports for bind in built.listener.binds), default=1)
        target = quote(target_text(built.listener.targets[number], ports))
        if len(chain) == 1:
            own = "this listener" if built.block.pool is None else f"{key_text(built.block.path)}, which shares it"
            message = f"{target} is {own}: it would forward to itself"
        else:
            message = f"{target} leads back here: {' → '.join((*chain, chain[0]))}"
        yield built.block.home.problem("targets", message, index=built.target_sources[number])


def _leads_to(built: Built, kind: str, bindings: Bindings) -> list[tuple[Node, int]]:
    """The listeners that targets of `built` are, and the number of the target."""
    return [
        ((other.listener.name, kind), number)
        for number, target in enumerate(built.listener.targets)
        for other in bindings.reached(target, built.listener, kind)
    ]


def _cycles(edges: dict[Node, list[tuple[Node, int]]]) -> Iterator[tuple[list[Node], int]]:
    """For each edge that closes a way round in a walk of the graph: the listeners on it, from the one whose target
    closes it, and the number of that target. A walk without recursion: a chain may have 10,000 links."""
    done: set[Node] = set()
    for start in edges:
        if start in done:
            continue
        trail: list[Node] = [start]
        on_trail = {start: 0}
        todo = [iter(edges[start])]
        closed: set[tuple[Node, int]] = set()
        while todo:
            step = next(todo[-1], None)
            here = trail[-1]
            if step is None:
                todo.pop()
                done.add(trail.pop())
                del on_trail[here]
                continue
            node, number = step
            if node in on_trail:
                if (here, number) not in closed:
                    closed.add((here, number))
                    way = trail[on_trail[node] :]
                    yield [here, *way[:-1]], number
            elif node not in done:
                on_trail[node] = len(trail)
                trail.append(node)
                todo.append(iter(edges[node]))


def _conflict_problem(bound: Bound, rival: Bound, shared: Span) -> Problem:
    same = bound.bind == rival.bind
    what = "is bound" if same else f"and {quote(str(rival.bind))} cannot both be bound:"
    if same:
        what += " already:"
    message = f"{quote(str(bound.bind))} {what} {_named(rival)}"
    suggestion = ""
    if not same and bound.bind.ports + rival.bind.ports > 2:
        first, last = shared
        suggestion = f"help: both have port {first}" if first == last else f"help: both have ports {first} to {last}"
    elif {_family(bound), _family(rival)} == {Family.INET, Family.INET6}:
        suggestion = "help: [::] takes IPv4 as well; ipv6_only = true leaves that to others"
    return bound.built.block.problem("bind", message, suggestion, index=bound.index)


def _family(bound: Bound) -> Family | None:
    return bound.bind.address.family if isinstance(bound.bind.address, InetAddress) else None


def _systemd_problem(bound: Bound, name: str, one: Passed) -> Problem:
    message = f"{quote(str(bound.bind))} cannot be bound: systemd has {one.address}, and passes it as {name}"
    suggestion = f"did you mean {quote(SYSTEMD + name)}?" if bound.bind.ports == 1 else ""
    return bound.built.block.problem("bind", message, suggestion, index=bound.index)


@dataclass(frozen=True, slots=True)
class _Named:
    """A listener, and the index in its `bind`, to be named in a message about another one."""

    built: Built
    index: int

    def __str__(self) -> str:
        block = self.built.block
        return f"listeners.{block.name} at {block.place('bind', self.index)}"


def _named(bound: Bound) -> str:
    return str(_Named(bound.built, bound.index))


def _listeners(homes: Iterable[_Ports], spans: Iterable[Span]) -> list[Built]:
    """Holders of some of the ports, each once."""
    asked = list(spans)
    found = [holder.built for home in homes for ports in asked for _, _, holder in home.among(ports)]
    return list({built.listener.name: built for built in found}.values())


def _reached_by_name(binds: _Binds, name: str, spans: Sequence[Span]) -> list[Built]:
    """`localhost` reaches loopback and wildcard binds, this machine's own name wildcards; no other is resolved."""
    host = name.lower().rstrip(".")
    local = host in _LOCAL_NAMES or host.endswith(".localhost")
    if not local and host != machine.host_name():
        return []
    wildcards = binds.at_wildcards(frozenset({Family.INET, Family.INET6}), spans)
    return wildcards + binds.at(("127.0.0.1", "::1") if local else (), spans)


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
