"""Which drafts share their targets, and so become a `[pools.NAME]` with a listener for each. Pure."""

from collections.abc import Sequence

from relayd.imports.binds import STREAM
from relayd.imports.draft import NAME_CHARACTERS_MAX, Draft, Home, Setting, legal_name
from relayd.values import dataclass

#: Keys that a pool sets for all listeners that share it, in their order.
POOL_KEYS = ("balance", "dial_attempts", "health_check", "fail_open", "max_ejected", "slow_start")


@dataclass(frozen=True, slots=True)
class Pool:
    """Targets of several drafts, which say the same about them."""

    name: str
    home: Home
    drafts: tuple[Draft, ...]

    @property
    def types(self) -> set[str]:
        """Those of all of its listeners."""
        return {kind for draft in self.drafts for kind in draft.types}

    @property
    def settings(self) -> dict[str, Setting]:
        """The keys of the pool: a listener of datagrams alone says nothing of dials."""
        first = next((draft for draft in self.drafts if STREAM in draft.types), self.drafts[0])
        return {key: first.settings[key] for key in POOL_KEYS if key in first.settings}


def pools(drafts: Sequence[Draft]) -> list[Pool]:
    """Those of two drafts or more, in the order of the file.

    Where the port of a target follows that of the bind there is none: what fits one listener need not fit another.
    """
    groups: dict[int, list[list[Draft]]] = {}
    for draft in drafts:
        if draft.home is not None and all(_fixed(place.text) for place in draft.targets):
            known = groups.setdefault(draft.home.line, [])
            group = next((one for one in known if _goes_with(one, draft)), None)
            if group is None:
                known.append([draft])
            else:
                group.append(draft)
    shared = [group for known in groups.values() for group in known if len(group) > 1]
    found: list[Pool] = []
    for group in shared:
        home = group[0].home
        if home is not None:
            inside = {draft.name for draft in group}
            taken = {draft.name for draft in drafts if draft.name not in inside} | {pool.name for pool in found}
            found.append(Pool(_name(home.name, taken), home, tuple(group)))
    return sorted(found, key=lambda pool: pool.home.line)


def _name(wanted: str, taken: set[str]) -> str:
    """A listener with targets of its own cannot have the name of a pool."""
    name, number = legal_name(wanted), 1
    while name in taken:
        tail = "-pool" if number == 1 else f"-pool-{number}"
        name = legal_name(wanted)[: NAME_CHARACTERS_MAX - len(tail)] + tail
        number += 1
    return name


def _goes_with(group: Sequence[Draft], draft: Draft) -> bool:
    first_of_streams = next((one for one in group if STREAM in one.types), group[0])
    return all(_same(one, draft) for one in (group[0], first_of_streams))


def _same(one: Draft, other: Draft) -> bool:
    keys = [key for key in POOL_KEYS if key != "dial_attempts" or (STREAM in one.types and STREAM in other.types)]
    return (
        one.targets == other.targets
        and one.about_targets == other.about_targets
        and all(_value(one, key) == _value(other, key) for key in keys)
    )


def _value(draft: Draft, key: str) -> object:
    setting = draft.settings.get(key)
    return None if setting is None else setting.value


def _fixed(address: str) -> bool:
    """True where it says its port, or needs none."""
    return address.startswith(("unix:", "srv:")) or address.rpartition("]")[2].rpartition(":")[2].isdecimal()
