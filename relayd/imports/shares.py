"""Weights, backups and ways of choosing, as other relays write them, in what relayd takes. Pure."""

import math
from collections.abc import Sequence
from typing import Protocol

from relayd.imports.draft import Setting
from relayd.spec import WEIGHT_MAX

#: `dial_attempts` where nothing says otherwise, and at most.
ATTEMPTS, ATTEMPTS_MAX = 3, 100

_FOR_BACKUPS = "so that a backup is dialled when every other target has failed"


class Member(Protocol):
    """What has a share of the clients: a server, or a target."""

    @property
    def weight(self) -> int:
        """1 or more, beside the weights of others of its kind."""

    @property
    def backup(self) -> bool:
        """True when it gets clients only where those that are no backups fail."""


def weights(members: Sequence[Member]) -> list[int]:
    """What `members` weigh in relayd, from 1 to WEIGHT_MAX: the same shares, or nearly so.

    Backups share among themselves, and so do the others. Where all weigh the same it is 1, which needs no saying. Where
    one weighs more than WEIGHT_MAX, all are divided by one number.
    """
    found = [1] * len(members)
    for backup in (False, True):
        at = [index for index, member in enumerate(members) if member.backup is backup]
        given = [members[index].weight for index in at]
        if len(set(given)) > 1:
            for index, weight in zip(at, _fitting(given), strict=True):
                found[index] = weight
    return found


def several(members: Sequence[Member]) -> bool:
    """True where there is something to choose among: several that are no backups, or several backups."""
    backups = sum(member.backup for member in members)
    return max(backups, len(members) - backups) > 1


def is_name(address: str) -> bool:
    """True where `address`, with or without a port, has a host name: one target for each of its addresses."""
    host, _, _ = address.partition(":")
    return address.count(":") < 2 and host != "unix" and host.strip("0123456789.") != ""


def source_hash(line: int, whose: str) -> Setting:
    """`balance`, where `whose` hash of clients' addresses was another one."""
    return Setting("source_hash", line, f"another hash than {whose}: clients go to other targets than they did")


def dialled(attempts: Setting | None, members: Sequence[Member]) -> Setting | None:
    """`dial_attempts`: `attempts`, or as many as it takes until a backup of `members` has its turn."""
    given = attempts.value if attempts and isinstance(attempts.value, int) else ATTEMPTS
    backups = sum(member.backup for member in members)
    needed = min(len(members) - backups + 1, ATTEMPTS_MAX) if backups else 0
    if needed <= given:
        return attempts
    return Setting(needed, attempts.line if attempts else 0, f"raised, {_FOR_BACKUPS}" if attempts else _FOR_BACKUPS)


def _fitting(given: Sequence[int]) -> list[int]:
    most = max(given)
    if most <= WEIGHT_MAX:
        return list(given)
    common = math.gcd(*given)
    if most // common <= WEIGHT_MAX:
        return [weight // common for weight in given]
    return [max(1, (weight * WEIGHT_MAX + most // 2) // most) for weight in given]
