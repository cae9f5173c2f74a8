"""What systemd has passed to this process (sd_listen_fds_with_names(3)), as values. Pure."""

from collections.abc import Mapping
from typing import TypeAlias

from relayd.address import SocketAddress
from relayd.values import dataclass

__all__ = ["Inventory", "Passed", "Unusable", "listed"]

#: How many are named in one line.
_LISTED_MAX = 8


@dataclass(frozen=True, slots=True)
class Passed:
    """A socket that clients can come to: a listening one for streams, or one that is bound for datagrams.

    `address` is what it is bound to; IPv4 that is written as IPv6 is IPv4. `ipv6_only` and `interface` are those of the
    socket, as `spec.Binding` has them.
    """

    datagram: bool
    address: SocketAddress
    ipv6_only: bool = False
    interface: str | None = None

    def __str__(self) -> str:
        """`dgram, 0.0.0.0:53`."""
        return f"{'dgram' if self.datagram else 'stream'}, {self.address}"


@dataclass(frozen=True, slots=True)
class Unusable:
    """A descriptor on which nobody can listen. `what` it is instead, with its article."""

    what: str

    def __str__(self) -> str:
        return self.what


#: By name, in the order in which they were passed. Of one name there may be several.
Inventory: TypeAlias = Mapping[str, tuple[Passed | Unusable, ...]]


def listed(inventory: Inventory) -> str:
    """`dns (dgram, 0.0.0.0:53), web (stream, [::]:80)`; "none" when there are none."""
    each = [f"{name} ({one})" for name, sockets in inventory.items() for one in sockets]
    more = len(each) - _LISTED_MAX
    return ", ".join(each[:_LISTED_MAX] + ([f"and {more} more"] if more > 0 else [])) or "none"
