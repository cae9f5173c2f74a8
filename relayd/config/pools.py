"""What is wrong with pools, and between them and the listeners that share them. Pure.

Each is told once, where the pool says it: however many listeners share a target, it is one.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence

from relayd.config import targets
from relayd.config.blocks import Block, Pool
from relayd.config.listeners import Built, of_limits, of_targets
from relayd.config.model import PoolKeys
from relayd.config.problems import Problem, key_text, quote, quote_short
from relayd.config.words import NAME_CHARACTERS


def pool_of(block: Block, pools: Mapping[str, Pool]) -> Pool | None:
    """The one whose targets `block` shares. None where it has targets of its own, whatever else it says, and where
    there is no such pool.
    """
    return None if block.given("targets") else pools.get(block.table.pool or "")


def references(blocks: Sequence[Block], pools: Mapping[str, Pool], known: frozenset[str] | None) -> Iterator[Problem]:
    """What is wrong with the `pool` of listeners. `known` are names of pools that are there and too wrong to be among
    `pools`; None where nothing is known about what is there.
    """
    advice: dict[str, str] = {}  # looking for what is close is slow, and one mistake is often made in every listener
    for block in blocks:
        name = block.table.pool
        if block.given("pool") and block.given("targets"):
            message = "`targets` are there as well: a listener has its own, or shares those of a pool"
            yield block.problem("pool", message, at_key=True)
        elif name is None or known is None or name in pools or name in known:
            continue
        else:
            if name not in advice:
                advice[name] = _advice(name, pools)
            yield block.problem("pool", f"there is no pool {quote_short(name)}", advice[name])


def problems(pools: Mapping[str, Pool], listeners: Sequence[Built]) -> Iterator[Problem]:
    """Everything that is wrong inside pools, and with what the listeners that share them need of them."""
    shared_by = users(listeners)
    alone = {built.listener.name: built.block for built in listeners if built.block.given("targets")}
    for pool in pools.values():
        yield from pool.wrong_name()
        if pool.name in alone:
            place = alone[pool.name].document.place_of_key(alone[pool.name].path)
            message = (
                f"a listener with targets of its own has this name, and commands would take one for the other: {place}"
            )
            yield pool.document.problem(pool.path, message, at_key=True)
        if not pool.given("targets") and "targets" not in pool.meant():
            yield pool.problem("targets", "is missing", 'help: add targets = ["10.0.0.11:80"]', at_key=True)
        yield from of_targets(pool)
        yield from of_limits(pool, [built.block for built in shared_by.get(pool.name, ())])
        yield from _not_following(pool, shared_by.get(pool.name, ()))
        yield from _of_no_use(pool, shared_by.get(pool.name, ()))


def users(listeners: Sequence[Built]) -> dict[str, list[Built]]:
    """The listeners that share a pool, by its name."""
    found: dict[str, list[Built]] = {}
    for built in listeners:
        if built.block.pool:
            found.setdefault(built.block.pool.name, []).append(built)
    return found


def _advice(name: str, pools: Mapping[str, Pool]) -> str:
    close = difflib.get_close_matches(name[:NAME_CHARACTERS], list(pools), n=1)
    if close:
        return f"did you mean {quote(close[0])}?"
    return "" if pools else f'help: add a [{key_text(("pools", name))}] with targets = ["10.0.0.11:80"]'


def _not_following(pool: Pool, listeners: Sequence[Built]) -> Iterator[Problem]:
    """Targets whose port cannot follow the binds of a listener: the first is named, others are counted."""
    known = [built for built in listeners if "bind" not in built.block.wrong]
    for index in pool.following:
        entry = (pool.table.targets or ())[index].address
        found = [(built, *targets.mismatch(entry, built.listener.binds)) for built in known]
        found = [one for one in found if one[1]]
        if found:
            built, reason, suggestion = found[0]
            more = f", and for {len(found) - 1} more" if len(found) > 1 else ""
            message = f"{quote(str(entry))}: for {key_text(built.block.path)}{more}: {reason}"
            yield pool.problem("targets", message, suggestion if len(listeners) == 1 else "", index)


def _of_no_use(pool: Pool, listeners: Sequence[Built]) -> Iterator[Problem]:
    """Keys that can do nothing for any of `listeners`. For some is enough."""
    for key in PoolKeys.model_fields:
        given = pool.given(key) and key not in pool.wrong
        if listeners and given and all(key in built.useless for built in listeners):
            first = listeners[0]
            message = (
                f"of no use to any listener that shares this pool; {key_text(first.block.path)}: {first.useless[key]}"
            )
            yield pool.problem(key, message, at_key=True)
