"""What has to be done so that a daemon that does `old` does `new`: the same for a start, a reload and a stop. Pure.

    prepare   Open, Adjust       what can fail; until it all has succeeded, everything is undone if one does
    commit    Serve              cannot fail: workers are told, and everything is as `new` says
    retire    Close              what nobody needs any more
              Postpone           what `new` says and only a restart can do; `Plan.spec` is without it

A start is the plan from None, a stop the plan to None. A socket that both have is in no step but perhaps Adjust: it is
never closed (R2).
"""

from dataclasses import replace
from typing import TypeAlias

from relayd.address import Family, SystemdAddress
from relayd.errors import RelaydError
from relayd.spec import UNCHECKED, Admin, Balance, Listener, ListenerLog, OnChange, Resolve, Spec, Target
from relayd.spec.sockets import Endpoint, SocketKey, endpoints
from relayd.values import dataclass

__all__ = ["Adjust", "Close", "NotWithoutRestart", "Open", "Plan", "Postpone", "Serve", "Step", "effect", "plan"]


@dataclass(frozen=True, slots=True)
class Open:
    """Listen on an address."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Adjust:
    """Set the options of a socket that stays from those of `old` to those of `new`."""

    old: Endpoint
    new: Endpoint


@dataclass(frozen=True, slots=True)
class Serve:
    """Have the workers do what `spec` says; None: nothing any more."""

    spec: Spec | None


@dataclass(frozen=True, slots=True)
class Close:
    """Listen on an address no more."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Postpone:
    """`key` of the listener, or of the daemon (None) under its table's name, stays as it is until a restart."""

    listener: str | None
    key: str


Step: TypeAlias = Open | Adjust | Serve | Close | Postpone


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they are taken, and the spec that is in force afterwards."""

    steps: tuple[Step, ...]
    spec: Spec | None


class NotWithoutRestart(RelaydError):
    """What cannot be changed without a restart has to stay, and something else of the new spec needs its place."""


def plan(old: Spec | None, new: Spec | None) -> Plan:
    """How to get from `old` to `new`. Equal ones need no step. Raises NotWithoutRestart."""
    postponed: list[Postpone] = []
    if old is not None and new is not None:
        new = _in_force(old, new, postponed)
    if old == new:
        return Plan(tuple(postponed), new)
    before = {endpoint.key: endpoint for endpoint in endpoints(old)} if old is not None else {}
    steps: list[Step] = []
    taken: dict[SocketKey, Endpoint] = {}
    for endpoint in endpoints(new) if new is not None else ():
        first = taken.setdefault(endpoint.key, endpoint)
        if first is not endpoint:
            owner, address = first.listener.name, endpoint.address
            raise NotWithoutRestart(f"listeners.{endpoint.listener.name}: {address}: {owner} has it until a restart")
        same = before.pop(endpoint.key, None)
        if same is None:
            steps.append(Open(endpoint))
        elif _options(same) != _options(endpoint):
            steps.append(Adjust(same, endpoint))
    steps.append(Serve(new))
    steps += map(Close, before.values())
    return Plan((*steps, *postponed), new)


def _in_force(old: Spec, new: Spec, postponed: list[Postpone]) -> Spec:
    """`new`, but for what only a restart can do: its keys go to `postponed`."""
    if new.workers != old.workers:
        postponed.append(Postpone(None, "daemon.workers"))
    if new.log.format != old.log.format:
        postponed.append(Postpone(None, "log.format"))
    admin = _guarded(old.admin, new.admin, postponed)
    names = {listener.name: listener for listener in old.listeners}
    listeners = []
    for listener in new.listeners:
        before = names.get(listener.name)
        if before is not None and _bound_otherwise(before, listener) and _share_a_socket(before, listener):
            listener = _as_bound(before, listener, postponed)
        listeners.append(listener)
    return replace(
        new,
        workers=old.workers,
        copies=old.copies,
        admin=admin,
        log=replace(new.log, format=old.log.format),
        listeners=tuple(listeners),
    )


def _guarded(old: Admin, new: Admin, postponed: list[Postpone]) -> Admin:
    """`new` where `old` listens. Addresses that go with the next restart only keep until then what guards them."""
    admin = replace(new, listen=old.listen)
    if new.listen == old.listen:
        return admin
    postponed.append(Postpone(None, "admin.listen"))
    if old.token_file and not new.token_file:
        postponed.append(Postpone(None, "admin.token_file"))
        admin = replace(admin, token_file=old.token_file, token_sha256=old.token_sha256)
    if old.read_only and not new.read_only:
        postponed.append(Postpone(None, "admin.read_only"))
        admin = replace(admin, read_only=True)
    return admin


def _bound_otherwise(old: Listener, new: Listener) -> bool:
    return (old.binding.interface, old.binding.ipv6_only) != (new.binding.interface, new.binding.ipv6_only)


def _share_a_socket(old: Listener, new: Listener) -> bool:
    both_streams = old.stream is not None and new.stream is not None
    both_datagrams = old.datagram is not None and new.datagram is not None
    if not (both_streams or both_datagrams):
        return False
    before = {address for bind in old.binds for address in bind.addresses()}
    return any(address in before for bind in new.binds for address in bind.addresses())


def _as_bound(old: Listener, new: Listener, postponed: list[Postpone]) -> Listener:
    """`new` with what cannot be changed on a socket that is bound: IPV6_V6ONLY (ipv6(7)), and SO_BINDTODEVICE, for its
    other value may conflict with the socket itself while both are open.
    """
    binding = new.binding
    families = {bind.address.family for bind in new.binds if not isinstance(bind.address, SystemdAddress)}
    if binding.interface != old.binding.interface and families != {Family.UNIX}:
        postponed.append(Postpone(new.name, "interface"))
        binding = replace(binding, interface=old.binding.interface)
    if binding.ipv6_only != old.binding.ipv6_only and Family.INET6 in families:
        postponed.append(Postpone(new.name, "ipv6_only"))
        binding = replace(binding, ipv6_only=old.binding.ipv6_only)
    return replace(new, binding=binding)


def _options(endpoint: Endpoint) -> object:
    """What is set on the socket itself, but for what the key has already."""
    listener = endpoint.listener
    if endpoint.datagram or listener.stream is None:
        return listener.binding
    return listener.binding, listener.stream.options


def effect(old: Listener, new: Listener | None, target: Target | None) -> OnChange:
    """What becomes of a live connection or session of `old` that goes to `target` (None: not chosen yet), when its
    listener is now `new`, or is gone (None).

    It is affected when its listener goes, when its target goes, and when anything else about the listener changes but
    other targets and its log. `on_change` decides then. Without it, those whose target stays are kept, and others
    drain.
    """
    gone = new is None or (target is not None and target not in new.targets)
    policy = (old if new is None else new).on_change
    if new is not None and policy is None and not gone:
        return OnChange.KEEP
    changed = new is None or _alone(old) != _alone(new)
    if not (gone or changed):
        return OnChange.KEEP
    return policy or OnChange.DRAIN


def _alone(listener: Listener) -> Listener:
    """Without what concerns its other targets only, those to come, or where they stand; and what is only told."""
    return replace(
        listener,
        targets=(),
        on_change=None,
        balance=Balance.ROUND_ROBIN,
        shares=(),
        health=UNCHECKED,
        pool="",
        resolve=Resolve(),
        log=ListenerLog(),
    )
