"""Which target a client would get, and why, without a client: `relayd explain`. Pure.

By the very code that workers choose by (`choosing.group`), with what control knows. What only a worker knows, it does
not: whose turn it is there, whom it suspects, and which limits it has reached.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from relayd.address import InetAddress
from relayd.channel.messages import Resolved
from relayd.choosing.group import Choice, Group, Groups, Rules
from relayd.choosing.pool import Pool
from relayd.spec import Balance, Bind, Listener, Ordered, TargetState
from relayd.values import dataclass

__all__ = ["Facts", "NoSuchPort", "explain"]

#: Ways to choose by which all workers choose alike.
_CERTAIN = (Balance.SOURCE_HASH, Balance.FIRST)


@dataclass(frozen=True, slots=True)
class Facts:
    """What control knows of a target beside its state. None: nothing. `failed_ago_s`: when clients have met it failing;
    `slow_start_s`: so long it gets less than its share; `active`: its connections and sessions.
    """

    failed_ago_s: int | None = None
    slow_start_s: int | None = None
    active: int | None = None
    max_connections: int | None = None


_NOTHING = Facts()


class NoSuchPort(ValueError):
    """The listener does not listen there."""


def explain(
    listener: Listener,
    states: Mapping[str, TargetState],
    answers: Iterable[Resolved],
    reasons: Mapping[str, str],
    facts: Mapping[str, Facts],
    key: bytes,
    port: int | None,
) -> dict[str, Any]:
    """For a client whose key is `key` (`choosing.group.client_key`), and that comes to `port`; None is the first one.

    `states`, `reasons`, why a target is down, and `facts` by origin. As docs/admin.md has it, for JSON. Raises
    NoSuchPort.
    """
    bind_port, index = _port(listener.binds, port)
    pool = Pool(listener.pool_name)
    pool.says(states)
    groups = Groups(listener.targets, Rules.of(listener, datagrams=listener.stream is None), pool)
    for answer in answers:
        groups.resolved(answer.name, answer.addresses, answer.shares)
    group = groups.at(bind_port, index)
    order = _order(group, key)
    first_tier = [choice for choice in order if choice.backup is order[0].backup] if order else []
    weights = sum(choice.weight for choice in first_tier)
    certain = listener.balance in _CERTAIN
    return {
        "listener": listener.name,
        "pool": listener.pool_name,
        "port": bind_port,
        "balance": listener.balance.value,
        "certain": certain,
        "failing_open": bool(order) and not pool.up(order[0].origin),
        "candidates": [
            {
                "target": choice.label,
                "backup": choice.backup,
                "weight": choice.weight,
                "part": None if certain or choice not in first_tier else choice.weight / weights,
                **asdict(facts.get(choice.origin, _NOTHING)),
            }
            for choice in order
        ],
        "out": [
            {"target": choice.label, "why": _why_not(choice, states, reasons)}
            for choice in group
            if choice not in order
        ],
    }


def _port(binds: tuple[Bind, ...], port: int | None) -> tuple[int, int]:
    """The port, and its position in its bind. 0 and 0 where there are none."""
    for bind in binds:
        address = bind.address
        if not isinstance(address, InetAddress):
            if port is None:
                return 0, 0
        elif port is None or address.port <= port < address.port + bind.ports:
            return (address.port, 0) if port is None else (port, port - address.port)
    raise NoSuchPort(f"it does not listen on port {port}")


def _order(group: Group, key: bytes) -> list[Choice]:
    """Who is tried, one after the other, were all of them to fail."""
    tried: list[Choice] = []
    while (choice := group.pick(tried, key)) is not None:
        tried.append(choice)
    return tried


def _why_not(choice: Choice, states: Mapping[str, TargetState], reasons: Mapping[str, str]) -> str:
    state = states.get(choice.origin)
    if state is not None and state.ordered is not Ordered.ENABLED:
        return f"{state.ordered.value} by order"
    return f"down: {reasons.get(choice.origin, '')}".removesuffix(": ")
