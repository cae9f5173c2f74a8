"""What a worker must know, as values: frozen, comparable, without defaults taken from anywhere else.

`config` makes them from TOML, `channel` carries them, `control` and `relay` act on them. Durations are seconds, sizes
bytes. Every field is what is in force: nothing is left for a reader to fill in.
"""

from dataclasses import dataclass

from relayd.address import Address, Family, NameAddress, SocketAddress


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
class Target:
    """Where to go. A name stands for every address that the control process has resolved it to."""

    address: Address


@dataclass(frozen=True, slots=True)
class Listener:
    """One `[listeners.NAME]` block of type stream. `binds` are distinct and in the order of the file."""

    name: str
    binds: tuple[SocketAddress, ...]
    binding: Binding
    targets: tuple[Target, ...]
    dial_attempts: int
    source: SocketAddress | None
    options: SocketOptions
    timeouts: StreamTimeouts


@dataclass(frozen=True, slots=True)
class Log:
    """`level` is one of debug, info, warning, error; `format` one of auto, journal, text, json."""

    level: str
    format: str
    access: bool


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that one daemon does. `workers` is a number by now: "auto" has been counted."""

    workers: int
    drain_timeout_s: float
    log: Log
    listeners: tuple[Listener, ...]

    @property
    def socket_count(self) -> int:
        """Listening sockets that all listeners need."""
        return sum(len(listener.binds) for listener in self.listeners)

    @property
    def names(self) -> frozenset[NameAddress]:
        """Every host name that some target needs resolved."""
        return frozenset(
            target.address
            for listener in self.listeners
            for target in listener.targets
            if isinstance(target.address, NameAddress)
        )


__all__ = [
    "Binding",
    "Family",
    "Keepalive",
    "Listener",
    "Log",
    "SocketOptions",
    "Spec",
    "StreamTimeouts",
    "Target",
]
