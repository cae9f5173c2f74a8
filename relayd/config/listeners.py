"""One `[listeners.NAME]` block as `spec.Listener`, and what is wrong inside it.

A key that cannot apply to a listener is an error where the listener says it, and has no effect where `[defaults]` does,
or a pool that another listener has a use for it in (`config.pools`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import TypeVar

from relayd.address import (
    BindAddress,
    Family,
    InetAddress,
    NameAddress,
    ServiceAddress,
    SystemdAddress,
    UnixAddress,
)
from relayd.config import health, machine, passed, targets
from relayd.config.blocks import Block, Pool
from relayd.config.model import KeepaliveTable, PoolKeys, Shared, built_in
from relayd.config.ports import BindEntry
from relayd.config.problems import Problem, quote
from relayd.spec import (
    Balance,
    Bind,
    Binding,
    Datagram,
    Keepalive,
    Listener,
    ListenerLog,
    OnChange,
    OnTargetError,
    Resolve,
    SessionMode,
    Share,
    SocketOptions,
    Stream,
    StreamTimeouts,
    Target,
)
from relayd.spec.passed import Inventory
from relayd.values import dataclass

T = TypeVar("T")

#: Keys that only what relayd itself binds has a use for, and what a .socket unit calls them.
_MAKING_KEYS = {
    "interface": "BindToDevice",
    "ipv6_only": "BindIPv6Only",
    "freebind": "FreeBind",
    "mode": "SocketMode",
    "user": "SocketUser",
    "group": "SocketGroup",
}
#: Keys that only an inet or inet6 bind has a use for, only a Unix path, only a TCP connection on either side, only
#: streams, only datagrams, and only datagrams that belong together.
INET_BIND_KEYS = ("interface", "ipv6_only", "freebind", "fast_open", "defer_accept")
UNIX_BIND_KEYS = ("mode", "user", "group")
TCP_KEYS = ("keepalive", "tcp_user_timeout", "congestion", "nodelay")
_TIMEOUT_KEYS = ("connect_timeout", "idle_timeout", "half_close_timeout", "max_lifetime")
STREAM_KEYS = ("backlog", "dial_attempts", *_TIMEOUT_KEYS, *TCP_KEYS, "fast_open", "defer_accept")
SESSION_KEYS = ("session_timeout", "max_sessions", "max_responses")
DATAGRAM_KEYS = (*SESSION_KEYS, "session", "on_target_error")


@dataclass(slots=True)
class Built:
    """What came of a block. `sources[i]` is the index in the file's `bind` that `listener.binds[i]` came from, and
    `target_sources[i]` that in `targets`, of the block or its pool, of `listener.targets[i]`. `useless` are the keys
    that can do nothing for it, with the reason.
    """

    block: Block
    listener: Listener
    sources: tuple[int, ...]
    target_sources: tuple[int, ...]
    useless: dict[str, str]
    problems: list[Problem] = field(default_factory=list)


def build(block: Block, inventory: Inventory | None = None) -> Built:
    """The listener of `block`. With problems it is only good for finding more: what is wrong is left out. `inventory`
    is what systemd has passed; None where that is not known, and then any name will do.
    """
    problems = list(_required(block))
    binds, sources = _binds(block, inventory, problems)
    goals, shares, goal_sources = _targets(block, binds, problems)
    useless = {**_useless(block, binds, goals), **_of_other_types(block), **health.useless(block)}
    keys = _effective(block, useless, problems)
    if block.pool is None:
        problems += [*of_targets(block), *of_limits(block, [block])]
    listener = Listener(
        name=block.name,
        binds=binds,
        binding=_binding(keys),
        targets=goals,
        source=keys.source,
        stream=_stream(keys) if block.serves("stream") else None,
        datagram=_datagram(keys) if block.serves("dgram") else None,
        on_change=OnChange(keys.on_change) if keys.on_change else None,
        balance=Balance(keys.balance),
        shares=shares,
        health=health.build(keys),
        pool=block.pool.name if block.pool else "",
        resolve=_resolve(keys),
        log=_log(keys),
    )
    return Built(block, listener, sources, goal_sources, useless, problems)


def _required(block: Block) -> Iterator[Problem]:
    yield from block.wrong_name()
    meant = block.meant()
    for key, example in (("bind", '"0.0.0.0:8080"'), ("targets", '["10.0.0.11:80"]')):
        if block.given(key) or key in meant or (key == "targets" and (block.given("pool") or "pool" in meant)):
            continue
        more = ', or pool = "NAME" to share those of [pools.NAME]' if key == "targets" else ""
        yield block.problem(key, "is missing", f"help: add {key} = {example}{more}", at_key=True)


def _binds(
    block: Block, inventory: Inventory | None, problems: list[Problem]
) -> tuple[tuple[Bind, ...], tuple[int, ...]]:
    """Every bind and its index in the file, names resolved, `:port` as this machine can have it."""
    family = Family(block.table.family) if block.table.family else None
    found: dict[Bind, int] = {}
    for index, entry in enumerate(block.table.bind or ()):
        try:
            binds = _meant(block, entry, family, inventory)
        except OSError as error:
            problems.append(
                block.problem("bind", f"{quote(str(entry.address))}: {error.strerror or error}", index=index)
            )
            continue
        except passed.NotPassed as error:
            message = f"{quote(str(entry.address))}: {error}"
            problems.append(block.problem("bind", message, error.suggestion, index))
            continue
        for bind in binds:
            text = quote(str(bind))
            if family and not isinstance(bind.address, SystemdAddress) and bind.address.family is not family:
                message = f'{text} is {bind.address.family.value}, but family is "{family.value}"'
                problems.append(block.problem("bind", message, index=index))
            elif bind not in found:
                found[bind] = index
                problems += _two_sockets_of_a_path(block, bind, index)
            elif found[bind] != index:
                first = block.place("bind", found[bind])
                problems.append(block.problem("bind", f"{text} stands twice: {first}", index=index))
    return tuple(found), tuple(found.values())


def _two_sockets_of_a_path(block: Block, bind: Bind, index: int) -> Iterator[Problem]:
    path = isinstance(bind.address, UnixAddress) and not bind.address.abstract
    if path and "type" not in block.wrong and block.serves("stream") and block.serves("dgram"):
        message = f"{quote(str(bind))} is one file, and so one socket: for streams or for datagrams"
        yield block.problem("bind", message, "help: make two listeners, each with a path of its own", index=index)


def _targets(
    block: Block, binds: tuple[Bind, ...], problems: list[Problem]
) -> tuple[tuple[Target, ...], tuple[Share, ...], tuple[int, ...]]:
    """Every target whose port can follow the binds as it shall, its share, and its index in the file. Those of a pool
    that cannot are told of by `config.pools`.
    """
    home, unfit = block.home, set()
    goals, shares = home.goals
    for index in home.following if "bind" not in block.wrong else ():
        entry = (home.table.targets or ())[index].address
        reason, suggestion = targets.mismatch(entry, binds)
        if reason:
            unfit.add(index)
            if block.pool is None:
                problems.append(block.problem("targets", f"{quote(str(entry))}: {reason}", suggestion, index))
    fit = tuple(index for index in range(len(goals)) if index not in unfit)
    if unfit:
        goals, shares = tuple(goals[index] for index in fit), tuple(shares[index] for index in fit)
    return goals, shares if any(share != Share() for share in shares) else (), fit


def of_targets(home: Block | Pool) -> Iterator[Problem]:
    """What is wrong with the targets that stand in `home`, whoever is sent to them."""
    yield from health.of_home(home)
    entries = home.table.targets or ()
    if entries and all(table.backup for table in entries):
        yield home.problem("targets", "every target is a backup; one at least is not", index=0)
    weighted = home.layered("balance") != Balance.FIRST.value
    first: dict[str, Share] = {}
    for index, (table, share) in enumerate(zip(entries, home.goals[1], strict=True)):
        if not weighted and share.weight != 1:
            message = 'no weights with balance = "first": the first target that does not fail gets every client'
            yield home.problem("targets", message, index=index)
        if isinstance(table.address.address, ServiceAddress) and "weight" in table.model_fields_set:
            message = f"no weight for {quote(str(table.address))}: each of its SRV records has one"
            yield home.problem("targets", message, index=index)
        # A target that is there twice is one: what the second says beside its address would count for nothing.
        name = str(table.address)
        if first.setdefault(name, share) != share:
            message = (
                f"{quote(name)} is there already, with another weight, backup or max_connections; a target is one, "
                "with one of each"
            )
            yield home.problem("targets", message, index=index)


def of_limits(home: Block | Pool, listeners: Sequence[Block]) -> Iterator[Problem]:
    """Limits of the targets that stand in `home` where none of `listeners`, which share them, has what they count."""
    if not listeners or any(one.serves("stream") or not _single(one) for one in listeners):
        return
    for index, share in enumerate(home.goals[1]):
        if share.max_connections is not None:
            message = 'max_connections can do nothing with session = "datagram": there are no sessions to count'
            yield home.problem("targets", message, index=index)


def _single(block: Block) -> bool:
    """Whether each datagram goes on its own."""
    return "session" not in block.wrong and block.layered("session") == "datagram"


def _meant(block: Block, entry: BindEntry, family: Family | None, inventory: Inventory | None) -> list[Bind]:
    """What `entry` means. OSError when its name has no address; NotPassed when systemd has no such socket."""
    if not isinstance(entry.address, SystemdAddress):
        return [Bind(address, entry.ports) for address in _resolved(block, entry, family)]
    if inventory is None:
        return [Bind(entry.address)]
    types = () if "type" in block.wrong else block.table.type or ("stream",)
    return [Bind(entry.address, passed=passed.find(entry.address, types, family, inventory))]


def _resolved(block: Block, bind: BindEntry, family: Family | None) -> tuple[BindAddress, ...]:
    """Where `bind` is. OSError when its name has no address."""
    if isinstance(bind.address, NameAddress):
        if family is Family.UNIX:
            raise OSError('a host name, but family is "unix"')
        return machine.resolve(bind.address.host, bind.address.port, family)
    if bind.every_host and isinstance(bind.address, InetAddress) and family is not Family.INET6:
        ipv6_only = block.layered("ipv6_only") is True
        if family is Family.INET or (family is None and not ipv6_only and not machine.has_ipv6()):
            return (InetAddress(Family.INET, "0.0.0.0", bind.address.port),)
    return (bind.address,)


def _effective(block: Block, useless: dict[str, str], problems: list[Problem]) -> Shared:
    """Every shared key as it is in force; what cannot apply is back at what is built in."""
    for key in Shared.model_fields:
        if block.pool and key in PoolKeys.model_fields:
            if block.given(key):
                message = f"belongs to the pool that this listener shares: {block.pool}"
                problems.append(block.problem(key, message, at_key=True))
        elif key in useless and block.given(key) and key not in block.wrong:
            problems.append(block.problem(key, useless[key], at_key=key != "source"))
    values = {key: getattr(built_in(), key) if key in useless else block.layered(key) for key in Shared.model_fields}
    return built_in().model_copy(update=values)


def _of_other_types(block: Block) -> dict[str, str]:
    """Keys that can do nothing for what is relayed here, with the reason."""
    useless: dict[str, str] = {}
    if not block.serves("stream"):
        useless.update(dict.fromkeys(STREAM_KEYS, "belongs to stream listeners; this one relays datagrams"))
    if not block.serves("dgram"):
        why = "belongs to dgram listeners; this one relays streams"
        useless.update(dict.fromkeys(DATAGRAM_KEYS, why))
    elif _single(block):
        why = 'can do nothing with session = "datagram": each datagram goes on its own, and nothing comes back'
        useless.update(dict.fromkeys(SESSION_KEYS, why))
    return useless


def _useless(block: Block, binds: tuple[Bind, ...], goals: tuple[Target, ...]) -> dict[str, str]:
    """Keys that can do nothing with these addresses, with the reason. A side that is not known, for an error of its
    own, allows all.
    """
    useless: dict[str, str] = {}
    binds_known, targets_known = bool(binds) and "bind" not in block.wrong, bool(goals)
    addresses = [bind.address for bind in binds]
    inet = [address for address in addresses if isinstance(address, InetAddress)]
    # These may be of any family: whoever checks the file does not know which, and it shall not mean two things.
    from_systemd = any(isinstance(address, SystemdAddress) for address in addresses)
    if binds_known and not inet:
        why = "belongs to inet and inet6 binds; this listener has Unix ones"
        useless.update((key, why) for key in INET_BIND_KEYS if not from_systemd or key in _MAKING_KEYS)
    named = any(isinstance(bind.address, NameAddress) for bind in block.table.bind or ())
    if binds_known and inet and not named and all(address.family is Family.INET for address in inet):
        useless["ipv6_only"] = "belongs to an IPv6 bind; this listener has none"
    if binds_known and not any(isinstance(address, UnixAddress) and not address.abstract for address in addresses):
        useless.update(dict.fromkeys(UNIX_BIND_KEYS, "belongs to the file of a unix:/path bind; there is none"))
    if binds_known and all(isinstance(address, SystemdAddress) for address in addresses):
        useless.update(
            (key, f"belongs in the .socket unit, as {name}=: systemd makes the sockets of this listener")
            for key, name in _MAKING_KEYS.items()
        )
    if targets_known:
        unix_targets = all(isinstance(target.address, UnixAddress) for target in goals)
        if binds_known and not inet and not from_systemd and unix_targets:
            useless.update(dict.fromkeys(TCP_KEYS, "belongs to TCP; bind and targets are all Unix sockets"))
        if not any(isinstance(target.address, NameAddress | ServiceAddress) for target in goals):
            useless["resolve"] = "can do nothing: no target is a host name or a service"
        source = block.layered("source")
        if isinstance(source, InetAddress) and not any(_can_leave_from(source, target) for target in goals):
            useless["source"] = f"no target can be dialled from an {source.family.value} address"
    return useless


def _can_leave_from(source: InetAddress, target: Target) -> bool:
    if isinstance(target.address, NameAddress | ServiceAddress):
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


def _resolve(keys: Shared) -> Resolve:
    table = _set(keys.resolve)
    family = None if table.family == "any" else Family(table.family)
    return Resolve(family, table.min_ttl / 1000, table.max_ttl / 1000)


def _log(keys: Shared) -> ListenerLog:
    table = _set(keys.log)
    return ListenerLog(table.access, table.level, table.start, _seconds(table.progress))


def _stream(keys: Shared) -> Stream:
    timeouts = StreamTimeouts(
        connect_s=_set(keys.connect_timeout) / 1000,
        idle_s=_seconds(keys.idle_timeout),
        half_close_s=_seconds(keys.half_close_timeout),
        max_lifetime_s=_seconds(keys.max_lifetime),
    )
    return Stream(_set(keys.dial_attempts), _options(keys), timeouts)


def _datagram(keys: Shared) -> Datagram:
    return Datagram(
        session_timeout_s=_set(keys.session_timeout) / 1000,
        max_sessions=keys.max_sessions,
        max_responses=keys.max_responses,
        session=SessionMode(keys.session),
        on_target_error=OnTargetError(keys.on_target_error),
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
