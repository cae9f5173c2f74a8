"""What each bind of a listener binds, and who reaches it. Pure.

A bind of its own binds its addresses; for one that systemd has passed, systemd has bound them already, and they are
known as far as the inventory is.
"""

from collections.abc import Iterator
from typing import TypeAlias

from relayd.address import Family, InetAddress, SocketAddress, SystemdAddress
from relayd.config.listeners import Built
from relayd.config.ports import span
from relayd.spec import Bind, Listener
from relayd.spec.passed import Passed
from relayd.values import dataclass

#: First and last port.
Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Reach:
    """From where clients can come: by which interface (None: by any), and of which families."""

    interface: str | None
    families: frozenset[Family]

    def meets(self, other: "Reach") -> bool:
        """True when a client can come to either."""
        if self.interface and other.interface and self.interface != other.interface:
            return False
        return not self.families.isdisjoint(other.families)

    def from_here(self, scope: str = "") -> bool:
        """True when what is dialled on this machine can come in: it arrives by the interface lo."""
        return self.interface in (None, "lo", scope or None)


@dataclass(frozen=True, slots=True)
class Bound:
    """One bind of a listener at `address`, the index in its `bind` that it comes from, and who reaches it, with what:
    "stream", "dgram". One of the sockets that systemd has passed for it, where `passed`.
    """

    built: Built
    number: int
    address: SocketAddress
    reach: Reach
    kinds: frozenset[str]
    passed: bool = False

    @property
    def bind(self) -> Bind:
        """What it is an address of."""
        return self.built.listener.binds[self.number]

    @property
    def index(self) -> int:
        """Where that stands in the file's `bind`."""
        return self.built.sources[self.number]

    @property
    def span(self) -> Span:
        """First and last port; 0 and 0 for a Unix socket."""
        if not self.passed:
            return span(self.bind)
        port = self.address.port if isinstance(self.address, InetAddress) else 0
        return port, port


def bound_by(built: Built, number: int) -> Iterator[Bound]:
    """What a bind binds; of one that systemd has passed, as far as that is known, each socket that is used."""
    listener = built.listener
    bind, binding = listener.binds[number], listener.binding
    served = kinds(listener)
    if not isinstance(bind.address, SystemdAddress):
        reach = reach_to(bind.address, binding.interface, ipv6_only=binding.ipv6_only)
        yield Bound(built, number, bind.address, reach, served)
        return
    for one in bind.passed:
        if kind_of(one) in served:
            yield Bound(built, number, one.address, reach_of(one), frozenset({kind_of(one)}), passed=True)


def reach_to(address: SocketAddress, interface: str | None, *, ipv6_only: bool) -> Reach:
    """From where clients can come to `address`. The interface: SO_BINDTODEVICE, or the scope of a link-local address,
    which does the same.
    """
    if not isinstance(address, InetAddress):
        return Reach(None, frozenset({Family.UNIX}))
    both = address.family is Family.INET6 and address.wildcard and not ipv6_only
    families = {Family.INET, Family.INET6} if both else {address.family}
    return Reach(interface or address.scope or None, frozenset(families))


def reach_of(one: Passed) -> Reach:
    """From where clients can come to a socket of systemd."""
    return reach_to(one.address, one.interface, ipv6_only=one.ipv6_only)


def kind_of(one: Passed) -> str:
    """What it is for: "stream" or "dgram"."""
    return "dgram" if one.datagram else "stream"


def kinds(listener: Listener) -> frozenset[str]:
    """What `listener` relays: "stream", "dgram"."""
    served = {"stream": listener.stream, "dgram": listener.datagram}
    return frozenset(kind for kind, how in served.items() if how is not None)
