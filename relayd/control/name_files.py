"""/etc/hosts and /etc/resolv.conf, from their text. Pure; what is not understood is passed over, as by glibc."""

from collections.abc import Iterator
from dataclasses import field

from relayd.address import AddressError, Family, InetAddress, parse
from relayd.values import dataclass

__all__ = ["HOSTS", "RESOLV_CONF", "Hosts", "ResolvConf", "loopback"]

HOSTS = "/etc/hosts"
RESOLV_CONF = "/etc/resolv.conf"
#: MAXNS of resolv.h: the C library asks no more.
NAMESERVERS_MAX = 3
#: Who is asked where nobody is named (resolv.conf(5)).
NAMESERVER = "127.0.0.1"
#: RES_MAXNDOTS of glibc.
_NDOTS_MAX = 15


@dataclass(frozen=True, slots=True)
class Hosts:
    """What hosts(5) says: by name, in lower case and without a final dot, addresses of port 0, in its order."""

    by_name: dict[str, tuple[InetAddress, ...]] = field(default_factory=dict)

    @staticmethod
    def of(text: str) -> "Hosts":
        """The file with this text."""
        found: dict[str, dict[InetAddress, None]] = {}
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            address = _numeric(words[0]) if words else None
            if address is not None:
                for name in words[1:]:
                    found.setdefault(_plain(name), {})[address] = None
        return Hosts({name: tuple(addresses) for name, addresses in found.items()})

    def addresses(self, name: str) -> tuple[InetAddress, ...]:
        """Those of `name`; nothing where the file does not have it."""
        return self.by_name.get(_plain(name), ())


def loopback(name: str) -> tuple[InetAddress, ...]:
    """Those of `localhost` and of all names in it, of port 0, whatever a name server would say (RFC 6761, section 6.3);
    nothing for any other name.
    """
    if f".{_plain(name)}".endswith(".localhost"):
        return (InetAddress(Family.INET6, "::1", 0), InetAddress(Family.INET, "127.0.0.1", 0))
    return ()


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What resolv.conf(5) says, as far as it is for us: `timeout` and `attempts` are our own (`lookups`)."""

    nameservers: tuple[str, ...] = (NAMESERVER,)
    #: Absolute, without their final dot.
    search: tuple[str, ...] = ()
    #: A name with so many dots is tried as it is before `search` is.
    ndots: int = 1
    rotate: bool = False
    #: Ask with EDNS, so that longer answers come by UDP.
    edns: bool = False
    #: No file says it.
    port: int = 53

    @staticmethod
    def of(text: str, host_name: str = "") -> "ResolvConf":
        """The file with this text, on a machine of this name, whose domain is searched where the file does not say."""
        nameservers: list[str] = []
        search = tuple(filter(None, [host_name.partition(".")[2].rstrip(".")]))
        options: list[str] = []
        for line in text.splitlines():
            words = line.split()
            if len(words) < 2 or line[0] in "#;":
                continue
            if words[0] == "nameserver" and _numeric(words[1]) is not None:
                nameservers.append(words[1])
            elif words[0] in ("search", "domain"):  # the last of both wins
                search = tuple(filter(None, (word.rstrip(".") for word in words[1:])))
            elif words[0] == "options":
                options += words[1:]
        ndots = [int(option[6:]) for option in options if option.startswith("ndots:") and option[6:].isdecimal()]
        return ResolvConf(
            tuple(nameservers[:NAMESERVERS_MAX]) or (NAMESERVER,),
            search,
            min(ndots[-1], _NDOTS_MAX) if ndots else 1,
            "rotate" in options,
            "edns0" in options,
        )

    def candidates(self, name: str) -> Iterator[str]:
        """What to ask for, one after the other until there is an answer, where somebody says `name`; each with its
        final dot.
        """
        if name.endswith("."):
            yield name
            return
        searched = (f"{name}.{domain}." for domain in self.search if len(name) + len(domain) <= 252)
        if name.count(".") >= self.ndots:
            yield f"{name}."
            yield from searched
        else:
            yield from searched
            yield f"{name}."


def _plain(name: str) -> str:
    return name.lower().rstrip(".")


def _numeric(text: str) -> InetAddress | None:
    """An address as these files have it: without brackets; of a link-local one, with or without its interface."""
    try:
        address = parse(f"[{text}]:0" if ":" in text else f"{text}:0")
    except AddressError:
        return None
    return address if isinstance(address, InetAddress) else None
