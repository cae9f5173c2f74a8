"""One `[listeners.NAME]` block as `spec.Listener`, and what is wrong inside it.

Three layers make the value of a key: built in, `[defaults]` (the main file's, then those of the file that the listener
is in), the listener. A key that cannot apply to a listener is an error where the listener says it, and has no effect
where `[defaults]` does.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from relayd.address import Family, InetAddress, NameAddress, SocketAddress, UnixAddress
from relayd.config import machine, words
from relayd.config.document import Document
from relayd.config.model import KeepaliveTable, ListenerTable, Shared, built_in
from relayd.config.positions import Path
from relayd.config.problems import Problem, quote
from relayd.config.values import Bind, is_datagram_type
from relayd.spec import Binding, Keepalive, Listener, SocketOptions, StreamTimeouts, Target

T = TypeVar("T")

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
_NAME = re.compile(NAME_PATTERN[:-1] + r"\Z")

#: Keys that only an inet or inet6 bind has a use for, only a Unix path, and only a TCP connection on either side.
_INET_BIND_KEYS = ("interface", "ipv6_only", "freebind", "fast_open", "defer_accept")
_UNIX_BIND_KEYS = ("mode", "user", "group")
_TCP_KEYS = ("keepalive", "tcp_user_timeout", "congestion", "nodelay")
_TIMEOUT_KEYS = ("connect_timeout", "idle_timeout", "half_close_timeout", "max_lifetime")
_STREAM_KEYS = (*_TIMEOUT_KEYS, *_TCP_KEYS, "fast_open", "defer_accept")


@dataclass(frozen=True)
class Block:
    """A listener as it stands in a file. `wrong` are the keys of it that were left out as wrong."""

    document: Document
    name: str
    table: ListenerTable
    layers: tuple[Shared, ...]
    wrong: frozenset[str]

    @property
    def path(self) -> Path:
        """Where the block stands in its document."""
        return ("listeners", self.name)

    def problem(self, key: str, message: str, suggestion: str = "", index: int | None = None) -> Problem:
        """A problem of one key, or of one element of it."""
        path = (*self.path, key) if index is None or not self._is_list(key) else (*self.path, key, index)
        return self.document.problem(path, message, suggestion)

    def place(self, key: str, index: int) -> str:
        """`file:line:column` of an element of a key."""
        return self.document.place_of_value((*self.path, key, index) if self._is_list(key) else (*self.path, key))

    def given(self, key: str) -> bool:
        """True when the listener itself says so, rightly or wrongly."""
        return key in self.wrong or getattr(self.table, key) is not None

    def _is_list(self, key: str) -> bool:
        return isinstance(self.document.data["listeners"][self.name].get(key), list)


@dataclass(slots=True)
class Built:
    """What came of a block. `sources[i]` is the index in the file's `bind` that `listener.binds[i]` came from."""

    block: Block
    listener: Listener
    sources: tuple[int, ...]
    problems: list[Problem] = field(default_factory=list)


def build(block: Block) -> Built:
    """The listener of `block`. With problems it is only good for finding more: what is wrong is left out."""
    problems = [*_required(block), *_datagram_keys(block)]
    binds = _binds(block, problems)
    targets = tuple(Target(target.address) for target in block.table.targets or ())
    addresses = tuple(address for address, _ in binds)
    keys = _effective(block, addresses, targets, problems)
    listener = Listener(
        name=block.name,
        binds=addresses,
        binding=_binding(keys),
        targets=targets,
        dial_attempts=_set(keys.dial_attempts),
        source=keys.source,
        options=_options(keys),
        timeouts=StreamTimeouts(
            connect_s=_set(keys.connect_timeout) / 1000,
            idle_s=_seconds(keys.idle_timeout),
            half_close_s=_seconds(keys.half_close_timeout),
            max_lifetime_s=_seconds(keys.max_lifetime),
        ),
    )
    return Built(block, listener, tuple(index for _, index in binds), problems)


def _required(block: Block) -> Iterator[Problem]:
    if not _NAME.match(block.name):
        message = f"{quote(block.name[:80])} cannot be a name: 1 to 64 letters, digits, _ . and -"
        yield block.document.problem(block.path, message, at_key=True)
    meant = {words.LISTENER_WORDS.get(name.lower()) for name in block.document.data["listeners"][block.name]}
    for key, example in (("bind", '"0.0.0.0:8080"'), ("targets", '["10.0.0.11:80"]')):
        if not block.given(key) and key not in meant:  # it is there by another name, which is the error to report
            yield block.document.problem((*block.path, key), "is missing", f"help: add {key} = {example}", at_key=True)


def _datagram_keys(block: Block) -> Iterator[Problem]:
    table = block.document.data["listeners"][block.name]
    if is_datagram_type(table.get("type")):
        for key in _STREAM_KEYS:
            if key in table:
                message = "belongs to stream listeners; this one asks for datagrams"
                yield block.document.problem((*block.path, key), message, at_key=True)


def _binds(block: Block, problems: list[Problem]) -> list[tuple[SocketAddress, int]]:
    """Every address to listen at with its index in the file, names resolved, `:port` as this machine can have it."""
    family = Family(block.table.family) if block.table.family else None
    found: dict[SocketAddress, int] = {}
    for index, bind in enumerate(block.table.bind or ()):
        try:
            addresses = _resolved(block, bind, family)
        except OSError as error:
            problems.append(
                block.problem("bind", f"{quote(str(bind.address))}: {error.strerror or error}", index=index)
            )
            continue
        for address in addresses:
            if family and address.family is not family:
                message = f'{quote(str(address))} is {address.family.value}, but family is "{family.value}"'
                problems.append(block.problem("bind", message, index=index))
            elif address not in found:
                found[address] = index
            elif found[address] != index:
                first = block.place("bind", found[address])
                problems.append(block.problem("bind", f"{quote(str(address))} stands twice: {first}", index=index))
    return list(found.items())


def _resolved(block: Block, bind: Bind, family: Family | None) -> tuple[SocketAddress, ...]:
    """What `bind` means. OSError when its name has no address."""
    if isinstance(bind.address, NameAddress):
        if family is Family.UNIX:
            raise OSError('a host name, but family is "unix"')
        return machine.resolve(bind.address.host, bind.address.port, family)
    if bind.every_host and isinstance(bind.address, InetAddress) and family is not Family.INET6:
        ipv6_only = _layered(block, "ipv6_only") is True
        if family is Family.INET or (family is None and not ipv6_only and not machine.has_ipv6()):
            return (InetAddress(Family.INET, "0.0.0.0", bind.address.port),)
    return (bind.address,)


def _layered(block: Block, key: str) -> object:
    for layer in (block.table, *reversed(block.layers)):
        value = getattr(layer, key)
        if value is not None:
            return value
    return getattr(built_in(), key)


def _effective(
    block: Block, binds: tuple[SocketAddress, ...], targets: tuple[Target, ...], problems: list[Problem]
) -> Shared:
    """Every shared key as it is in force; what cannot apply is back at what is built in."""
    useless = _useless(block, binds, targets)
    for key, why in useless.items():
        if block.given(key):
            path = (*block.path, key)
            problems.append(block.document.problem(path, why, at_key=key != "source"))
    values = {key: getattr(built_in(), key) if key in useless else _layered(block, key) for key in Shared.model_fields}
    return built_in().model_copy(update=values)


def _useless(block: Block, binds: tuple[SocketAddress, ...], targets: tuple[Target, ...]) -> dict[str, str]:
    """Keys that can do nothing here, with the reason. A side that is not known, for an error of its own, allows all."""
    useless: dict[str, str] = {}
    binds_known, targets_known = bool(binds) and "bind" not in block.wrong, bool(targets)
    inet = [address for address in binds if isinstance(address, InetAddress)]
    if binds_known and not inet:
        useless.update(dict.fromkeys(_INET_BIND_KEYS, "belongs to inet and inet6 binds; this listener has Unix ones"))
    named = any(isinstance(bind.address, NameAddress) for bind in block.table.bind or ())
    if binds_known and inet and not named and all(address.family is Family.INET for address in inet):
        useless["ipv6_only"] = "belongs to an IPv6 bind; this listener has none"
    if binds_known and not any(isinstance(address, UnixAddress) and not address.abstract for address in binds):
        useless.update(dict.fromkeys(_UNIX_BIND_KEYS, "belongs to the file of a unix:/path bind; there is none"))
    if targets_known:
        unix_targets = all(isinstance(target.address, UnixAddress) for target in targets)
        if binds_known and not inet and unix_targets:
            useless.update(dict.fromkeys(_TCP_KEYS, "belongs to TCP; bind and targets are all Unix sockets"))
        source = _layered(block, "source")
        if isinstance(source, InetAddress) and not any(_can_leave_from(source, target) for target in targets):
            useless["source"] = f"no target can be dialled from an {source.family.value} address"
    return useless


def _can_leave_from(source: InetAddress, target: Target) -> bool:
    if isinstance(target.address, NameAddress):
        return True
    return target.address.family is source.family


def _binding(keys: Shared) -> Binding:
    return Binding(
        backlog=_set(keys.backlog),
        ipv6_only=_set(keys.ipv6_only),
        interface=keys.interface,
        freebind=_set(keys.freebind),
        fast_open=_set(keys.fast_open),
        defer_accept_s=_number(keys.defer_accept),
        mode=_set(keys.mode),
        user_id=keys.user,
        group_id=keys.group,
    )


def _options(keys: Shared) -> SocketOptions:
    keepalive = KeepaliveTable() if keys.keepalive is True else keys.keepalive
    return SocketOptions(
        nodelay=_set(keys.nodelay),
        keepalive=Keepalive(keepalive.idle, keepalive.interval, keepalive.probes) if keepalive else None,
        user_timeout_ms=_number(keys.tcp_user_timeout),
        congestion=keys.congestion,
    )


def _set(value: T | None) -> T:
    """`value`, which is built in where no file sets it."""
    if value is None:
        raise TypeError("a key without a value of any layer")
    return value


def _number(value: int | str | None) -> int | None:
    return value if isinstance(value, int) else None


def _seconds(value: int | str | None) -> float | None:
    return value / 1000 if isinstance(value, int) else None
