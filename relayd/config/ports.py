"""Addresses with their ports, as `bind` and `targets` have them: one port, a range, or one that follows the bind. Pure.

0.0.0.0:27000-27099     a range: in `bind` a socket for each port, in `targets` the port at the same position
10.0.0.9:+10000         a target: the port of the bind, and 10000 more
10.0.0.9                a target: the port of the bind
"""

import re

from relayd.address import (
    SERVICE,
    SYSTEMD,
    Address,
    AddressError,
    InetAddress,
    NameAddress,
    ServiceAddress,
    SystemdAddress,
    TargetAddress,
    UnixAddress,
    parse,
    parse_service,
    parse_systemd,
)
from relayd.spec import Bind, PortRule, Target
from relayd.values import dataclass

PORT_MAX = 65_535

_RANGE = re.compile(r"(?P<head>.*):(?P<first>[0-9]{1,9})-(?P<last>[0-9]{1,9})\Z", re.DOTALL)
_OFFSET = re.compile(r"(?P<head>.*):\+(?P<offset>[0-9]{1,9})\Z", re.DOTALL)
#: What is meant for one of these.
_ODD_RANGE = re.compile(
    r"(?P<head>.*):(?P<first>[0-9]{1,5})(?:\.\.\.?| ?[\N{EN DASH}\N{EM DASH}-] ?|:)(?P<last>[0-9]{1,5})\Z", re.DOTALL
)
_ODD_OFFSET = re.compile(r":(?:-|\+ *-)[0-9]+\Z")
#: A host and nothing else: in brackets, or without a colon. A number alone is a port whose colon is missing.
_HOST = re.compile(r"(?:\[[^\]]*\]|(?![0-9]+\Z)[^:\s/@\[\]]+)\Z")


@dataclass(frozen=True, slots=True)
class BindEntry:
    """One element of `bind`. `every_host`: written as ":port", so which families it means depends on the machine."""

    address: Address | SystemdAddress
    ports: int = 1
    every_host: bool = False


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """One element of `targets`. `ports` is the length of its range; what the rest means, `spec.Target` says."""

    address: TargetAddress
    rule: PortRule = PortRule.FIXED
    offset: int = 0
    ports: int = 1

    def __str__(self) -> str:
        """As a file has it."""
        return target_text(Target(self.address, self.rule, self.offset), self.ports)


def parse_bind(text: str) -> BindEntry:
    """Raises AddressError."""
    if text.startswith(SYSTEMD):
        return BindEntry(parse_systemd(text))
    address, ports = _parse_range(text)
    return BindEntry(address, ports, every_host=text.startswith(":"))


def parse_target(text: str) -> TargetEntry:
    """Raises AddressError."""
    if text.startswith(SERVICE):
        return TargetEntry(parse_service(text))
    offset = _OFFSET.match(text)
    if text.startswith("unix:"):
        return TargetEntry(parse(text))
    if offset:
        if int(offset["offset"]) >= PORT_MAX:
            raise AddressError(f"an offset of {offset['offset']} leads beyond port {PORT_MAX} from everywhere")
        return TargetEntry(_parse_host(offset["head"], f":+{offset['offset']}"), PortRule.OFFSET, int(offset["offset"]))
    if _ODD_OFFSET.search(text):
        raise AddressError("an offset is added to the port of the bind; for smaller ports, write their range")
    if _HOST.match(text):
        return TargetEntry(_parse_host(text, ""), PortRule.OFFSET)
    address, ports = _parse_range(text)
    return TargetEntry(address, PortRule.FIXED if ports == 1 else PortRule.INDEX, 0, ports)


def target_text(target: Target, ports: int) -> str:
    """`target` of a listener with binds of `ports` ports, as a file has it."""
    if target.rule is PortRule.OFFSET:
        return f"{target.address}".removesuffix(":0") + (f":+{target.offset}" if target.offset else "")
    last = f"-{target.address.port + ports - 1}" if isinstance(target.address, InetAddress | NameAddress) else ""
    return f"{target.address}{last}" if target.rule is PortRule.INDEX else f"{target.address}"


def span(bind: Bind) -> tuple[int, int]:
    """First and last port; 0 and 0 for a Unix socket, and for what systemd binds."""
    first = bind.address.port if isinstance(bind.address, InetAddress) else 0
    return first, first + bind.ports - 1


def spans_dialled(target: Target, binds: tuple[Bind, ...]) -> list[tuple[int, int]]:
    """First and last of the ports that clients of `binds` are sent to at `target`, for each bind that differs."""
    if isinstance(target.address, UnixAddress | ServiceAddress):
        return [(0, 0)]
    if target.rule is PortRule.FIXED:
        return [(target.address.port, target.address.port)]
    spans = [(span(bind), bind.ports - 1) for bind in binds]
    if target.rule is PortRule.INDEX:
        return list(dict.fromkeys((target.address.port, target.address.port + more) for _, more in spans))
    return list(dict.fromkeys((first + target.offset, last + target.offset) for (first, last), _ in spans))


def _parse_range(text: str) -> tuple[Address, int]:
    """An address with its first port, and how many ports it has."""
    found = None if text.startswith("unix:") else _RANGE.match(text)
    if not found:
        odd = _ODD_RANGE.match(text)
        if odd and not text.startswith("unix:") and _is_host(odd["head"]):
            suggestion = f"{odd['head']}:{odd['first']}-{odd['last']}"
            raise AddressError("a range of ports is written first-last", suggestion)
        return parse(text), 1
    head, first, last = found["head"], int(found["first"]), int(found["last"])
    if first > PORT_MAX or last > PORT_MAX:
        suggestion = f"{head}:{first}-{PORT_MAX}" if 0 < first < PORT_MAX else ""
        raise AddressError(f"port {first if first > PORT_MAX else last} is out of range: 1 to {PORT_MAX}", suggestion)
    if first > last:
        raise AddressError("the range of ports is reversed", f"{head}:{max(1, last)}-{first}")
    if first == 0:
        raise AddressError("a range of ports begins at 1 or above", f"{head}:1-{last}" if last else f"{head}:0")
    try:
        return parse(f"{head}:{first}"), last - first + 1
    except AddressError as error:
        meant = error.suggestion.endswith(f":{first}")
        raise AddressError(str(error), f"{error.suggestion}-{last}" if meant else "") from None


def _parse_host(head: str, tail: str) -> InetAddress | NameAddress:
    """The host `head` as an address of port 0; `tail` is what follows it, for the suggestion."""
    if not head:
        raise AddressError("a target needs a host before its port")
    try:
        address = parse(f"{head}:1")
    except AddressError as error:
        meant = error.suggestion.endswith(":1")
        raise AddressError(str(error), error.suggestion.removesuffix(":1") + tail if meant else "") from None
    if isinstance(address, NameAddress):
        return NameAddress(address.host, 0)
    if isinstance(address, UnixAddress):
        raise AddressError("a Unix socket has no port", f"{address}".removesuffix(":1"))
    return InetAddress(address.family, address.host, 0, address.scope)


def _is_host(head: str) -> bool:
    try:
        parse(f"{head}:1")
    except AddressError:
        return False
    return True
