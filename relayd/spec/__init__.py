"""What a worker must know, as values: frozen, comparable, without defaults taken from anywhere else.

`config` makes them from TOML, `channel` carries them, `control` and `relay` act on them. Durations are seconds, sizes
bytes. Every field is what is in force: nothing is left for a reader to fill in.
"""

import enum
from collections.abc import Iterator
from dataclasses import field, replace

from relayd.address import (
    BindAddress,
    Family,
    InetAddress,
    Name,
    NameAddress,
    ServiceAddress,
    SocketAddress,
    SystemdAddress,
    TargetAddress,
    UnixAddress,
)
from relayd.spec.health import UNCHECKED, Check, CheckKind, Health, Ordered, TargetState
from relayd.spec.passed import Passed
from relayd.values import dataclass


@dataclass(frozen=True, slots=True)
class Keepalive:
    """TCP keepalive: probe after `idle_s` of silence, every `interval_s`, give up after `probes` (tcp(7))."""

    idle_s: int
    interval_s: int
    probes: int


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What is set on both sides of a connection. None leaves the kernel's default; nothing applies to Unix sockets."""

    nodelay: bool
    keepalive: Keepalive | None
    user_timeout_ms: int | None
    congestion: str | None


@dataclass(frozen=True, slots=True)
class Binding:
    """How a listening socket is made. `mode`, `user_id`, `group_id` are for Unix paths, the rest for inet and inet6.

    `backlog` is what listen(2) is asked for; the kernel caps it at net.core.somaxconn. `defer_accept_s` None is off.
    `user_id`, `group_id` None leave the owner as created.
    """

    backlog: int
    ipv6_only: bool
    interface: str | None
    freebind: bool
    fast_open: bool
    defer_accept_s: int | None
    mode: int
    user_id: int | None
    group_id: int | None


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """Seconds. None is no limit. Each is counted as behaviour rules S2, S6 and S7 say."""

    connect_s: float
    idle_s: float | None
    half_close_s: float | None
    max_lifetime_s: float | None


@dataclass(frozen=True, slots=True)
class Bind:
    """One element of `bind`: an address, and how many consecutive ports from its port on. 1 for a Unix socket.

    A range has no port 0, and ends at 65535 at the latest. `passed` are the sockets that systemd has passed under the
    name of a SystemdAddress, of either type; empty where that is not known.
    """

    address: BindAddress
    ports: int = 1
    passed: tuple[Passed, ...] = ()

    def __str__(self) -> str:
        """As a file has it: `0.0.0.0:27000-27099`."""
        if not isinstance(self.address, InetAddress) or self.ports == 1:
            return str(self.address)
        return f"{self.address}-{self.address.port + self.ports - 1}"

    def addresses(self) -> Iterator[SocketAddress]:
        """What relayd binds itself: one address for each port, in order. Nothing for a SystemdAddress."""
        address = self.address
        if isinstance(address, SystemdAddress):
            return
        if isinstance(address, UnixAddress):
            yield address
            return
        for port in range(address.port, address.port + self.ports):
            yield InetAddress(address.family, address.host, port, address.scope)

    def passed_for(self, *, datagrams: bool) -> tuple[Passed, ...]:
        """Those of `passed` that are for datagrams, or for streams."""
        return tuple(one for one in self.passed if one.datagram is datagrams)

    def socket_count(self, *, datagrams: bool) -> int:
        """How many sockets it is for datagrams, without copies for several workers, or for streams. Where it is not
        known what systemd passes, one of each.
        """
        return len(self.passed_for(datagrams=datagrams)) if self.passed else self.ports


class PortRule(enum.Enum):
    """How a target's port follows the port that the client came to."""

    FIXED = "fixed"
    OFFSET = "offset"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to go. A name stands for every address that the control process has resolved it to.

    FIXED: `address` as it is. OFFSET: the port of the bind plus `offset` (0: the same port); that of `address` is 0.
    INDEX: the port of `address` plus the position in the bind's range. `offset` is 0 unless OFFSET. Only FIXED goes
    with Unix addresses, on either side, and with services.
    """

    address: TargetAddress
    rule: PortRule = PortRule.FIXED
    offset: int = 0

    def at(self, bind_port: int, index: int) -> TargetAddress:
        """The address to dial for a client that came to `bind_port`, the port at position `index` of its bind."""
        address = self.address
        if self.rule is PortRule.FIXED or isinstance(address, UnixAddress | ServiceAddress):
            return address
        port = bind_port + self.offset if self.rule is PortRule.OFFSET else address.port + index
        if isinstance(address, NameAddress):
            return NameAddress(address.host, port)
        return InetAddress(address.family, address.host, port, address.scope)

    def origin(self, address: SocketAddress) -> str:
        """What `address`, one of those that this stands for, is called by all ports of a bind alike: its text; where
        the port follows that of the bind, that of its host and of the rule.
        """
        if self.rule is PortRule.FIXED or not isinstance(address, InetAddress):
            return str(address)
        base = self.address.port if isinstance(self.address, InetAddress | NameAddress) else 0
        return f"{replace(address, port=base)} {self.rule.value} {self.offset}"


@dataclass(frozen=True, slots=True)
class Stream:
    """How a listener serves streams. `dial_attempts` and `timeouts` as rules S6 and S7 say."""

    dial_attempts: int
    options: SocketOptions
    timeouts: StreamTimeouts


class SessionMode(enum.Enum):
    """What belongs together: all datagrams of a client (D1), or each datagram is on its own (D7)."""

    CLIENT = "client"
    DATAGRAM = "datagram"


class OnTargetError(enum.Enum):
    """What becomes of a session whose target cannot be reached (D5)."""

    MOVE = "move"
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Datagram:
    """How a listener serves datagrams. `max_sessions` counts all workers together, and `None` leaves it to the file
    descriptor budget; `max_responses` None is no limit. With SessionMode.DATAGRAM both are None.
    """

    session_timeout_s: float
    max_sessions: int | None
    max_responses: int | None
    session: SessionMode
    on_target_error: OnTargetError


class OnChange(enum.Enum):
    """What a reload does to live connections and sessions whose listener or target it changes or removes."""

    KEEP = "keep"
    DRAIN = "drain"
    CLOSE = "close"


class Balance(enum.Enum):
    """Which target gets the next client (T1), in each worker by itself: `choosing.balance` has one class each."""

    ROUND_ROBIN = "round_robin"
    LEAST_CONNECTIONS = "least_connections"
    RANDOM = "random"
    SOURCE_HASH = "source_hash"
    FIRST = "first"


#: The heaviest target, as in HAProxy. What is worth a rarer share than 1 in 256 is worth none.
WEIGHT_MAX = 256


@dataclass(frozen=True, slots=True)
class Share:
    """What a target gets of the clients: `weight`, 1 to WEIGHT_MAX, beside those of the others. A `backup` gets none as
    long as there is another target to try. `max_connections` counts connections and sessions of all workers together;
    None is no limit.
    """

    weight: int = 1
    backup: bool = False
    max_connections: int | None = None


@dataclass(frozen=True, slots=True)
class Resolve:
    """How names of targets are resolved (T3): to addresses of `family`, None: of both; and again when the TTL of the
    answer is over, which counts as no shorter than `min_ttl_s` and no longer than `max_ttl_s`.
    """

    family: Family | None = None
    min_ttl_s: float = 1.0
    max_ttl_s: float = 300.0


@dataclass(frozen=True, slots=True)
class ListenerLog:
    """What is logged of one listener. `access`, `level` None: as `Log` says, whose values they have. `start`: a line
    when a connection has reached its target, or a session has begun. `progress_s`: one each time that it has lived for
    so long; None: no such lines.
    """

    access: bool | None = None
    level: str | None = None
    start: bool = False
    progress_s: float | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A name, as a listener wants it resolved. Two that want it differently have an answer each."""

    name: Name
    resolve: Resolve = Resolve()


@dataclass(frozen=True, slots=True)
class Listener:
    """One `[listeners.NAME]` block. `binds` are distinct and in the order of the file.

    `stream` is None where it serves no streams, `datagram` where it serves no datagrams; never both. `on_change` None
    leaves it to the change: `spec.plan.effect`. `shares` are those of `targets`, in the same order; empty where all are
    alike. `pool` is the name of the one whose targets these are; "" where they are the listener's own. `resolve` is for
    the names among the targets.
    """

    name: str
    binds: tuple[Bind, ...]
    binding: Binding
    targets: tuple[Target, ...]
    source: SocketAddress | None
    stream: Stream | None
    datagram: Datagram | None
    on_change: OnChange | None = None
    balance: Balance = Balance.ROUND_ROBIN
    shares: tuple[Share, ...] = ()
    health: Health = UNCHECKED
    pool: str = ""
    resolve: Resolve = Resolve()
    log: ListenerLog = ListenerLog()

    @property
    def pool_name(self) -> str:
        """By which the states of its targets are known, and what commands call it: a pool cannot have the name of a
        listener with targets of its own.
        """
        return self.pool or self.name

    def share(self, index: int) -> Share:
        """That of `targets[index]`."""
        return self.shares[index] if self.shares else Share()


@dataclass(frozen=True, slots=True)
class Log:
    """`level` is one of debug, info, warning, error; `format` one of auto, journal, text, json."""

    level: str
    format: str
    access: bool


@dataclass(frozen=True, slots=True)
class Admin:
    """Where the admin API is: stream sockets, distinct and in the order of the file. None of them: it is off. And who
    may ask there by TCP: who has the token of `token_file` (as relay.toml has it; "": everybody), of which this knows
    the SHA-256 and no more; for what, with `read_only`; and by which `hosts`, names in lower case, beside addresses.
    """

    listen: tuple[SocketAddress, ...] = ()
    token_file: str = ""
    token_sha256: str = field(default="", repr=False)
    read_only: bool = False
    hosts: tuple[str, ...] = ()

    @property
    def remote(self) -> bool:
        """True when other machines reach it, if nothing else stops them."""
        return any(isinstance(address, InetAddress) and not address.loopback for address in self.listen)


#: Where the admin API is unless a file says otherwise. The directory is systemd's to make (RuntimeDirectory=).
ADMIN_SOCKET = UnixAddress("/run/relayd/admin.sock")


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that one daemon does. `workers` is a number by now: "auto" has been counted. `copies` is how many
    sockets an address has that takes datagrams (`spec.sockets`); None: as many as there are workers.
    """

    workers: int
    drain_timeout_s: float
    log: Log
    listeners: tuple[Listener, ...]
    admin: Admin = Admin()
    preserve_connections: bool = True
    copies: int | None = None

    @property
    def names(self) -> frozenset[Wanted]:
        """Every name that some target needs resolved."""
        return frozenset(
            Wanted(target.address, listener.resolve)
            for listener in self.listeners
            for target in listener.targets
            if isinstance(target.address, NameAddress | ServiceAddress)
        )


__all__ = [
    "ADMIN_SOCKET",
    "UNCHECKED",
    "WEIGHT_MAX",
    "Admin",
    "Balance",
    "Bind",
    "Binding",
    "Check",
    "CheckKind",
    "Datagram",
    "Family",
    "Health",
    "Keepalive",
    "Listener",
    "ListenerLog",
    "Log",
    "OnChange",
    "OnTargetError",
    "Ordered",
    "Passed",
    "PortRule",
    "Resolve",
    "SessionMode",
    "Share",
    "SocketOptions",
    "Spec",
    "Stream",
    "StreamTimeouts",
    "Target",
    "TargetState",
    "Wanted",
]
