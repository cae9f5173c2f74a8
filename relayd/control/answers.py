"""What a name resolves to, in the order in which it is dialled, and what SRV records say of it. Pure."""

from collections.abc import Mapping, Sequence
from itertools import groupby, zip_longest

from relayd.address import Family, InetAddress
from relayd.channel.messages import Resolved
from relayd.spec import WEIGHT_MAX, Share
from relayd.values import dataclass

__all__ = ["ADDRESSES_MAX", "Answer", "Known", "Service", "interleaved", "of_services", "weights"]

#: Of one name: as many as a listener may have targets. The rest of a longer answer is left out.
ADDRESSES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`addresses` are not empty, and in the order in which they are dialled. `shares` are theirs where SRV records say
    them, else empty. `ttl_s` is the shortest of all records, as the DNS has it. `problem` is what could not be found
    out: of that, it is what was known before.
    """

    addresses: tuple[InetAddress, ...]
    shares: tuple[Share, ...]
    ttl_s: float
    problem: str = ""

    def same(self, other: "Answer | None") -> bool:
        """Whether it means the same. Another order does not: name servers rotate, and connections would follow."""
        return other is not None and self._meaning() == other._meaning()

    def _meaning(self) -> dict[InetAddress, Share | None]:
        return dict(zip(self.addresses, self.shares or [None] * len(self.addresses), strict=True))


@dataclass(frozen=True, slots=True)
class Known:
    """An answer, for the next process (R4): of `at` (monotonic, which is one clock for all of them), and how long it
    was to count.
    """

    resolved: Resolved
    at: float
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record (RFC 2782). `host` is absolute, with its final dot."""

    priority: int
    weight: int
    port: int
    host: str


def interleaved(addresses: Sequence[InetAddress]) -> tuple[InetAddress, ...]:
    """Each once, families in turn and IPv6 first, so that the dial after one that fails goes to the other family (RFC
    8305, section 4, with a First Address Family Count of 1). Within a family the order stays.
    """
    unique = dict.fromkeys(addresses)
    inet6 = [address for address in unique if address.family is Family.INET6]
    inet = [address for address in unique if address.family is Family.INET]
    return tuple(address for pair in zip_longest(inet6, inet) for address in pair if address is not None)


def weights(given: Sequence[int]) -> list[int]:
    """Weights of SRV records of one priority, 0 to 65535, as weights of targets, 1 to WEIGHT_MAX, in proportion.

    Those that fit are kept as they are. 0 is the smallest, "a very small chance of being selected" (RFC 2782): where
    there are others, those are as large as can be beside it. None is 0, for every target has its turn.
    """
    heaviest = max(given, default=0)
    if not heaviest:
        return [1] * len(given)
    if heaviest <= WEIGHT_MAX and 0 not in given:
        return list(given)
    return [max(1, round(weight * WEIGHT_MAX / heaviest)) for weight in given]


def of_services(
    services: Sequence[Service], hosts: Mapping[str, Sequence[InetAddress]]
) -> tuple[tuple[InetAddress, ...], tuple[Share, ...]]:
    """Addresses and shares of SRV records, where `hosts` has what each of their hosts resolved to.

    The lowest priority that has an address is that of the targets, all others are backups. Each address has the weight
    of its record. Of several records with one address and port, the first by priority, then by weight, counts.
    """
    in_order = sorted(services, key=lambda one: (one.priority, -one.weight, one.host, one.port))
    found: dict[InetAddress, Share] = {}
    for _, group in groupby((one for one in in_order if hosts.get(one.host)), key=lambda one: one.priority):
        tier = list(group)
        backup = bool(found)
        new = {}
        for service, weight in zip(tier, weights([service.weight for service in tier]), strict=True):
            for address in hosts[service.host]:
                at = InetAddress(address.family, address.host, service.port, address.scope)
                if at not in found and at not in new:
                    new[at] = Share(weight, backup)
        found |= {address: new[address] for address in interleaved(list(new))}
    addresses = tuple(found)[:ADDRESSES_MAX]
    return addresses, tuple(found[address] for address in addresses)
