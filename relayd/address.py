"""Where sockets are bound and where targets are: the kinds of address, their text form and their sockaddr.

    10.0.0.1:80    [2001:db8::1]:80    [fe80::1%eth0]:80    ::ffff:10.0.0.1 is shown as 10.0.0.1     InetAddress
    unix:/run/app.sock    unix:@name (abstract: no file, gone with its last socket)                  UnixAddress
    app.example.com:80                                                                               NameAddress
    srv:_http._tcp.example.com (a service: SRV records say its hosts and ports; to dial only)        ServiceAddress
    systemd:web (bound by systemd, and passed under this name; to listen at only)                    SystemdAddress

Pure: nothing here opens a socket or asks a resolver, but for the index of the interface that a link-local scope names.
`parse(str(address)) == address` for every address but the last two, which are `parse_service`'s and `parse_systemd`'s.
"""

import enum
import ipaddress
import re
import socket
from typing import TypeAlias

from relayd.values import dataclass

#: sockaddr_un.sun_path has 108 bytes with the final NUL (unix(7)). An abstract name starts with a NUL instead.
UNIX_PATH_BYTES_MAX = 107
#: What a SystemdAddress begins with.
SYSTEMD = "systemd:"
#: What a ServiceAddress begins with.
SERVICE = "srv:"
#: Names under which relayd keeps descriptors of its own with systemd (sd_pid_notify_with_fds(3)).
OWN_NAMES = "relayd-"

_PORT = re.compile(r"[0-9]{1,5}\Z")
#: fdname_is_valid() of systemd (src/basic/fd-util.c), less the empty name.
_SYSTEMD_NAME = re.compile(r"[ -9;-~]{1,255}\Z")
#: What inet_aton(3), and so a resolver, takes for an IPv4 address in octal or hexadecimal: 0x7f.1, 0177.0.0.1.
_NUMERIC_NAME = re.compile(r"(?:0[xX][0-9A-Fa-f]*|[0-9]+)(?:\.(?:0[xX][0-9A-Fa-f]*|[0-9]+))*\.?\Z")
#: dev_valid_name() of the kernel (net/core/dev.c), and an index: IFNAMSIZ less the NUL, no blank, "/" or ":".
_SCOPE = re.compile(r"[^\s/:%\[\]]{1,15}\Z")
#: An interface index is a positive int.
_SCOPE_ID_MAX = 2**31 - 1
#: Of a name, as people write it, and of one part of it (RFC 1035, 2.3.4).
_NAME_MAX, _LABEL_MAX = 253, 63
_HOST_NAME = re.compile(rf"(?=.{{1,{_NAME_MAX}}}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")


class AddressError(ValueError):
    """The text is not an address. `str(error)` says what is wrong; `suggestion`, if not empty, is a corrected text."""

    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.suggestion = suggestion


class Family(enum.Enum):
    """Address family, by the names of the configuration."""

    INET = "inet"
    INET6 = "inet6"
    UNIX = "unix"

    @property
    def af(self) -> int:
        """The AF_ number for socket(2)."""
        return _AF[self]


_AF = {Family.INET: socket.AF_INET, Family.INET6: socket.AF_INET6, Family.UNIX: socket.AF_UNIX}

#: What the socket module takes and returns: (host, port), (host, port, flow, scope id), a path, or bytes (abstract).
Sockaddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | str | bytes


@dataclass(frozen=True, slots=True)
class InetAddress:
    """A numeric IPv4 or IPv6 address and a port. `scope` is an interface name or index, for link-local IPv6 only."""

    family: Family
    host: str
    port: int
    scope: str = ""

    def __str__(self) -> str:
        if self.family is Family.INET:
            return f"{self.host}:{self.port}"
        return f"[{self.host}%{self.scope}]:{self.port}" if self.scope else f"[{self.host}]:{self.port}"

    @property
    def sockaddr(self) -> Sockaddr:
        """For bind(2) and connect(2). OSError when `scope` names no interface of this machine."""
        if self.family is Family.INET:
            return (self.host, self.port)
        scope_id = 0
        if self.scope:
            is_index = self.scope.isascii() and self.scope.isdigit()
            scope_id = int(self.scope) if is_index else socket.if_nametoindex(self.scope)
        return (self.host, self.port, 0, scope_id)

    @property
    def wildcard(self) -> bool:
        """True for 0.0.0.0 and [::]: every address of the family."""
        return self.host in ("0.0.0.0", "::")  # its one way to be written, here and by the kernel

    @property
    def loopback(self) -> bool:
        """True when no other machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A Unix socket: a path, or a name in the abstract namespace where `path` starts with "@"."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def family(self) -> Family:
        """Always `Family.UNIX`; here so that every bound or dialled address has a family."""
        return Family.UNIX

    @property
    def abstract(self) -> bool:
        """True when no file belongs to it."""
        return self.path.startswith("@")

    @property
    def sockaddr(self) -> Sockaddr:
        """For bind(2) and connect(2)."""
        return b"\0" + self.path[1:].encode() if self.abstract else self.path


@dataclass(frozen=True, slots=True)
class NameAddress:
    """A host name and a port, to be resolved by the control process. It has no family and no sockaddr of its own."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """A service by its name in the DNS: its SRV records (RFC 2782) name hosts and ports, with weights and priorities.
    The control process resolves it. It has no family, no sockaddr and no port of its own.
    """

    name: str

    def __str__(self) -> str:
        return f"{SERVICE}{self.name}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """The sockets that systemd passes under FileDescriptorName=`name` (systemd.socket(5)). What they are bound to,
    systemd alone knows.
    """

    name: str

    def __str__(self) -> str:
        return f"{SYSTEMD}{self.name}"


#: What can be bound or dialled.
SocketAddress: TypeAlias = InetAddress | UnixAddress
#: Where a listener can be.
BindAddress: TypeAlias = SocketAddress | SystemdAddress
#: What a configuration can name on either side.
Address: TypeAlias = InetAddress | UnixAddress | NameAddress
#: What the control process has to resolve before it can be dialled.
Name: TypeAlias = NameAddress | ServiceAddress
#: Where a target can be.
TargetAddress: TypeAlias = Address | ServiceAddress


def parse(text: str) -> Address:
    """The address that `text` names; `:port` is `InetAddress(INET6, "::", port)`. Raises AddressError, nothing else."""
    if text.startswith("unix:"):
        return _parse_unix(text[len("unix:") :])
    if text.startswith(SYSTEMD):
        raise AddressError("systemd passes sockets to listen on: only the bind of a listener can name one")
    if text.startswith(SERVICE):
        raise AddressError("a service is dialled: only a target can name one")
    if text.startswith(("/", "@")):
        raise AddressError("a Unix socket is written with unix: before its path", f"unix:{text}")
    if "://" in text:
        raise AddressError("an address has no scheme", text.split("://", 1)[1].rstrip("/"))
    if text != text.strip():
        raise AddressError("there is blank around the address", text.strip())
    host, port = _split_port(text)
    if host == "*":
        raise AddressError("every address is written without a host", f":{port}")
    if host.startswith("["):
        if not host.endswith("]"):
            raise AddressError("the bracket around the IPv6 address is not closed")
        return _parse_inet6(host[1:-1], port)
    if not host:
        return InetAddress(Family.INET6, "::", port)
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return InetAddress(Family.INET, str(ipaddress.IPv4Address(host)), port)
        except ValueError as error:
            raise AddressError(f"{host} is not an IPv4 address: {_reason(error)}") from None
    if not _is_name(host):
        raise AddressError(_no_name(host) or f"{host!r} is neither an IP address nor a host name")
    return NameAddress(host, port)


def parse_service(text: str) -> ServiceAddress:
    """The address that `text`, which begins with `srv:`, names. Raises AddressError, nothing else."""
    name = text.removeprefix(SERVICE)
    if not name:
        raise AddressError("the name of the service is missing", f"{SERVICE}_http._tcp.example.com")
    if name != name.strip():
        raise AddressError("there is blank around the name", f"{SERVICE}{name.strip()}")
    if _PORT.match(name):
        raise AddressError("srv: is before the name of a service; a host of this name has a dot", f"srv.:{name}")
    host, colon, port = name.rpartition(":")
    if colon and _PORT.match(port):
        raise AddressError(
            "a service has no port: its SRV records say it", f"{SERVICE}{host}" if _is_name(host) else ""
        )
    if not _is_name(name):
        raise AddressError(_no_name(name) or f"{name!r} is not a name that the DNS can have")
    return ServiceAddress(name)


def parse_systemd(text: str) -> SystemdAddress:
    """The address that `text`, which begins with `systemd:`, names. Raises AddressError, nothing else."""
    name = text.removeprefix(SYSTEMD)
    if not name:
        raise AddressError("the name is missing: it is the FileDescriptorName= of the .socket unit", f"{SYSTEMD}web")
    if name != name.strip():
        raise AddressError("there is blank around the name", f"{SYSTEMD}{name.strip()}")
    if ":" in name:
        first = name.partition(":")[0]
        suggestion = f"{SYSTEMD}{first}" if first else ""
        raise AddressError("the .socket unit says what is bound; here stands its FileDescriptorName= alone", suggestion)
    if not _SYSTEMD_NAME.match(name):
        raise AddressError("a FileDescriptorName= is 1 to 255 printable ASCII characters")
    if name.startswith(OWN_NAMES):
        raise AddressError(f"names that begin with {OWN_NAMES} are relayd's own: give it another FileDescriptorName=")
    return SystemdAddress(name)


def from_sockaddr(family: int, sockaddr: object) -> SocketAddress:
    """The address in what accept(2), getsockname(2) or getpeername(2) returned, v4-mapped IPv6 as IPv4.

    An unnamed Unix socket (a client that did not bind) is `UnixAddress("")`.
    """
    if family == socket.AF_UNIX:
        if isinstance(sockaddr, bytes):
            return UnixAddress("@" + sockaddr[1:].decode(errors="backslashreplace") if sockaddr else "")
        return UnixAddress(str(sockaddr))
    if not isinstance(sockaddr, tuple):
        raise TypeError(f"not an internet socket address: {sockaddr!r}")
    host, port = str(sockaddr[0]), int(sockaddr[1])
    if family == socket.AF_INET:
        return InetAddress(Family.INET, host, port)
    if host.startswith("::ffff:") and "." in host:
        return InetAddress(Family.INET, host[len("::ffff:") :], port)
    host, _, scope = host.partition("%")
    if not scope and len(sockaddr) == 4 and sockaddr[3]:
        scope = str(sockaddr[3])
    return InetAddress(Family.INET6, host, port, scope)


def _split_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        if text.isascii() and text.isdigit():
            raise AddressError("the colon before the port is missing", f":{text}")
        if _is_inet6(text.strip("[]")):
            raise AddressError("the port is missing", f"[{text.strip('[]')}]:80")
        raise AddressError("the port is missing", f"{text}:80" if text and ":" not in text else "")
    if ":" in host and not host.startswith("["):
        if _is_inet6(host) or _is_inet6(text):
            suggestion = f"[{host}]:{port}" if _is_inet6(host) else f"[{text}]:80"
            raise AddressError("an IPv6 address stands in brackets, so that its port can be told from it", suggestion)
        raise AddressError("there is more than one colon: an address is host:port, [v6]:port or unix:/path")
    if not port:
        raise AddressError("the port after the colon is missing", f"{text}80")
    if not _PORT.match(port):
        raise AddressError(f"{port!r} is not a port: a number from 1 to 65535")
    if int(port) > 65535:
        raise AddressError(f"port {port} is out of range: 1 to 65535")
    return host, int(port)


def _parse_inet6(host: str, port: int) -> InetAddress:
    host, percent, scope = host.partition("%")
    if percent and not scope:
        raise AddressError("the interface name after % is missing")
    if scope and (not _SCOPE.match(scope) or len(scope.encode(errors="replace")) > 15 or not scope.isprintable()):
        raise AddressError(f"{scope!r} cannot be the name of an interface")
    if scope.isascii() and scope.isdigit() and not 0 < int(scope) <= _SCOPE_ID_MAX:
        raise AddressError(f"{scope} is not the index of an interface")
    try:
        parsed = ipaddress.IPv6Address(host)
    except ValueError as error:
        raise AddressError(f"{host} is not an IPv6 address: {_reason(error)}") from None
    if parsed.ipv4_mapped and not scope:  # the kernel treats it as IPv4 in all it does, and so do we
        return InetAddress(Family.INET, str(parsed.ipv4_mapped), port)
    if parsed.is_link_local and not scope:
        raise AddressError("a link-local address needs its interface", f"[{host}%eth0]:{port}")
    if scope and not parsed.is_link_local:
        raise AddressError("only a link-local address (fe80::/10) takes an interface", f"[{host}]:{port}")
    return InetAddress(Family.INET6, str(parsed), port, scope)


def _parse_unix(path: str) -> UnixAddress:
    if not path or path == "@":
        raise AddressError("the path of the Unix socket is missing", "unix:/run/relayd/name.sock")
    if not path.startswith(("/", "@")):
        raise AddressError("the path of a Unix socket is absolute, or @name for an abstract one", f"unix:/run/{path}")
    if "\0" in path:
        raise AddressError("a path cannot hold a NUL byte")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise AddressError("the path is not valid text") from None
    if size > UNIX_PATH_BYTES_MAX:
        raise AddressError(f"the path has {size} bytes; a Unix socket address holds {UNIX_PATH_BYTES_MAX}")
    return UnixAddress(path)


def _is_name(host: str) -> bool:
    """Whether the DNS could have it, and nobody would take it for an address."""
    return (
        not re.fullmatch(r"[0-9.]+", host)
        and not _NUMERIC_NAME.match(host)
        and _HOST_NAME.match(host) is not None
        and ".." not in host
        and all(len(label) <= _LABEL_MAX for label in host.split("."))
    )


def _no_name(host: str) -> str:
    """What keeps `host` from being a name, where that is not easily seen; "" where it is, or nothing of that kind."""
    if not host.isascii():
        return 'a host name is ASCII here: write it as the DNS has it, "xn--..." (punycode)'
    long = next((label for label in host.split(".") if len(label) > _LABEL_MAX), "")
    if long:
        return f"a part of a host name, between dots, has up to {_LABEL_MAX} characters; one has {len(long)}"
    if len(host) > _NAME_MAX:
        return f"a host name has up to {_NAME_MAX} characters; this one has {len(host)}"
    return ""


def _is_inet6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _reason(error: ValueError) -> str:
    """The part of ipaddress's message after the address, which the caller has already named."""
    text = str(error)
    return text.partition(" in ")[0] if " in " in text else text.partition(": ")[2] or text
