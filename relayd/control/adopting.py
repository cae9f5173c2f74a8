"""Giving workers, at a start, what the process before has had (R4): dealt, or taken by themselves."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from relayd.channel.messages import Adopt, Message, Parcels

__all__ = ["Give", "Shared", "give_all"]

#: Sends a message with descriptors, which it owns, to a worker by its number, and returns when the kernel has taken
#: them.
Give: TypeAlias = "Callable[[int, Message, list[int]], Awaitable[None]]"

#: So long workers have for a batch of what they adopt, twice as long as what has found no room waits to be sent again.
_ROOM_S = 0.1


@dataclass(frozen=True, slots=True)
class Shared:
    """Parcels that workers take connections out of, `each` of them so many. The descriptors stay the caller's, and open
    for as long as workers boot.
    """

    parcels: Sequence[int]
    each: int


async def give_all(
    adopted: AsyncIterator[tuple[int, Adopt, list[int]]], shared: Shared | None, workers: Sequence[int], give: Give
) -> None:
    """Give what is `adopted`: to which worker, the batch, and its descriptors, which this owns. Where it is `shared`,
    `workers` take it themselves, and batches are given only if the kernel takes no more descriptors: to take one out of
    its parcel makes room.
    """
    giving: set[asyncio.Future[None]] = set()
    if shared is not None:
        for number in workers:
            parcels = [os.dup(fd) for fd in shared.parcels]
            giving.add(asyncio.ensure_future(give(number, Parcels(shared.each), parcels)))
        _, giving = await asyncio.wait(giving, timeout=_ROOM_S)
    if shared is None or giving:
        await _deal(adopted, give)
    if giving:
        await asyncio.wait(giving)


async def _deal(adopted: AsyncIterator[tuple[int, Adopt, list[int]]], give: Give) -> None:
    """One after the other; but where the kernel takes none, for more are in flight than this user may have, the next
    one is taken out of its parcel: that makes room.
    """
    waiting: set[asyncio.Future[None]] = set()
    try:
        async for number, batch, fds in adopted:
            waiting.add(asyncio.ensure_future(give(number, batch, fds)))
            _, waiting = await asyncio.wait(waiting, timeout=_ROOM_S)
        if waiting:
            await asyncio.wait(waiting)
    finally:
        for given in waiting:
            given.cancel()
