"""What a configuration means on this machine: everything that loading asks the operating system.

Every question has an answer: what cannot be found out is None or empty, and an `OSError` is the caller's only where
the docstring says so.
"""

import functools
import grp
import os
import pwd
import socket
import stat
from pathlib import Path

from relayd.address import Family, InetAddress
from relayd.net.dialing import is_here

_CONGESTION = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")


def cores() -> int:
    """Cores that this process may run on: what `taskset`, a cpuset or CPUAffinity= left of the machine."""
    return len(os.sched_getaffinity(0))


@functools.cache
def has_ipv6() -> bool:
    """True when IPv6 sockets can be made (the kernel parameter ipv6.disable=1 takes them away)."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def resolve(host: str, port: int, family: Family | None) -> tuple[InetAddress, ...]:
    """Every address of `host`, in the resolver's order, of `family` or of both. Blocks. OSError when there is none."""
    af = family.af if family else socket.AF_UNSPEC
    try:
        answers = socket.getaddrinfo(host, port, af, socket.SOCK_STREAM)
    except UnicodeError as error:  # the idna codec, on labels it cannot encode
        raise OSError(f"not a host name: {error}") from None
    found: dict[InetAddress, None] = {}
    for number, _, _, _, sockaddr in answers:
        of = Family.INET if number == socket.AF_INET else Family.INET6
        bare, _, scope = str(sockaddr[0]).partition("%")
        if len(sockaddr) == 4 and sockaddr[3]:
            scope = scope or str(sockaddr[3])
        if of is Family.INET or has_ipv6():
            found[InetAddress(of, bare, port, scope)] = None
    if not found:
        raise OSError("no address")
    return tuple(found)


def is_own(family: Family, host: str) -> bool:
    """True when packets to `host`, a numeric address, stay on this machine.

    Asks the routing table: the way to an own address starts at that same address. A UDP connect sends nothing.
    """
    with socket.socket(family.af, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
            return bool(probe.getsockname()[0] == host)
        except (OSError, OverflowError):  # no route: not ours
            return False


def has_address(family: Family, host: str, scope: str) -> bool:
    """False when this machine does not have the numeric address `host` now: no socket can be bound to it."""
    return is_here(InetAddress(family, host, 0, scope))


def has_directory(path: str) -> bool | None:
    """Whether there is a directory at `path` now. None where that cannot be found out: no permission to look."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # ValueError: a name that the locale cannot write
        return None


def not_executable(path: str) -> str:
    """Why nobody can run `path` now; "" where somebody can, or where that cannot be found out."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is not there now"
    except (OSError, ValueError):  # no permission to look; a name that the locale cannot write
        return ""
    if not stat.S_ISREG(mode):
        return "is not a file"
    return "" if mode & 0o111 else "is not executable"


def host_name() -> str:
    """The name of this machine, lower case."""
    return socket.gethostname().lower()


def user_id(name: str) -> int | None:
    """The number of the user `name`, None when there is no such user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        return None


def group_id(name: str) -> int | None:
    """The number of the group `name`, None when there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def congestion_available() -> tuple[str, ...]:
    """Congestion control algorithms that the kernel has loaded (tcp(7)); empty where it does not say."""
    return tuple(_text(_CONGESTION).split())


def somaxconn() -> int | None:
    """What the kernel caps a backlog at (listen(2))."""
    text = _text(_SOMAXCONN).strip()
    return int(text) if text.isdecimal() else None


def interfaces() -> tuple[str, ...]:
    """Names of the network interfaces there are now."""
    try:
        return tuple(name for _, name in socket.if_nameindex())
    except OSError:
        return ()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
