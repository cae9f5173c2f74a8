"""Which sockets a `systemd:NAME` stands for, among those that systemd has passed. Pure."""

import difflib
from collections.abc import Collection

from relayd.address import SYSTEMD, Family, SystemdAddress
from relayd.config.problems import quote
from relayd.spec.passed import Inventory, Passed, Unusable, listed

_TYPES = (("stream", False), ("dgram", True))


class NotPassed(Exception):
    """Nothing of what systemd has passed will do. `str(error)` is why, `suggestion` a whole line of advice, or ""."""

    def __init__(self, reason: str, inventory: Inventory, suggestion: str = "") -> None:
        super().__init__(f"{reason}; systemd passed: {listed(inventory)}")
        self.suggestion = suggestion


def find(
    address: SystemdAddress, types: Collection[str], family: Family | None, inventory: Inventory
) -> tuple[Passed, ...]:
    """Every socket under the name of `address`, of each of `types` ("stream", "dgram") at least one. Others may be
    among them, for another listener. Raises NotPassed.
    """
    found = inventory.get(address.name)
    if not found:
        raise NotPassed("there is no socket of this name", inventory, _advice(address.name, inventory))
    usable: list[Passed] = []
    for one in found:
        if isinstance(one, Unusable):
            raise NotPassed("relayd cannot listen on what has this name", inventory)
        usable.append(one)
    for kind, datagram in _TYPES:
        wanted = [one for one in usable if one.datagram is datagram]
        if kind not in types:
            continue
        if not wanted:
            raise NotPassed(f"there is no {kind} socket of this name", inventory)
        for one in wanted:
            if family is not None and one.address.family is not family:
                is_other = f'{one.address} is {one.address.family.value}, but family is "{family.value}"'
                raise NotPassed(is_other, inventory)
    return tuple(usable)


def _advice(name: str, inventory: Inventory) -> str:
    close = difflib.get_close_matches(name, list(inventory), n=1)
    if close:
        return f"did you mean {quote(SYSTEMD + close[0])}?"
    return f"help: FileDescriptorName={name} in the .socket unit, and a restart: systemd passes sockets at the start"
