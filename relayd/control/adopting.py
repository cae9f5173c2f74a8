"""Giving workers, at a start, what the process before has had (R4): dealt, or taken by themselves."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

from relayd.channel.messages import Adopt, Message, Parcels, Ready
from relayd.values import dataclass

__all__ = ["Adopted", "Send", "Shared", "give_all"]

#: Sends a message with descriptors to a worker by its number, and returns when the kernel has taken them.
Send: TypeAlias = "Callable[[int, Message, Sequence[int]], Awaitable[None]]"

#: So long workers have for a batch of what they adopt, twice as long as what has found no room waits to be sent again.
_ROOM_S = 0.1


@dataclass(frozen=True, slots=True)
class Shared:
    """Parcels that workers take connections out of, `each` of them so many. The descriptors stay the caller's, and open
    for as long as workers boot.
    """

    parcels: Sequence[int]
    each: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """What workers say of what they were to adopt, all together (`channel.messages.Ready`)."""

    connections: int = 0
    sessions: int = 0
    told_connections: int = 0
    told_sessions: int = 0
    lost: int = 0

    def __add__(self, ready: Ready) -> "Adopted":
        """With what one more worker says."""
        return Adopted(
            self.connections + ready.connections,
            self.sessions + ready.sessions,
            self.told_connections + ready.told_connections,
            self.told_sessions + ready.told_sessions,
            self.lost + ready.lost,
        )


async def give_all(
    adopted: AsyncIterator[tuple[int, Adopt, list[int]]],
    shared: Shared | None,
    workers: Sequence[int],
    send: Send,
    no_room: Callable[[], bool],
) -> None:
    """Give what is `adopted`: to which worker, the batch, and its descriptors, which this owns. Where it is `shared`,
    `workers` take it themselves, and batches are given only where the kernel takes no more descriptors (`no_room`): to
    take one out of its parcel makes room.
    """
    if shared is None:
        await _deal(adopted, send)
        return
    sending = {asyncio.ensure_future(send(number, Parcels(shared.each), shared.parcels)) for number in workers}
    while sending:
        _, sending = await asyncio.wait(sending, timeout=_ROOM_S)
        if sending and no_room():
            await _deal(adopted, send)


async def _deal(adopted: AsyncIterator[tuple[int, Adopt, list[int]]], send: Send) -> None:
    """One after the other; but where the kernel takes none, for more are in flight than this user may have, the next
    one is taken out of its parcel: that makes room.
    """
    waiting: set[asyncio.Future[None]] = set()
    try:
        async for number, batch, fds in adopted:
            waiting.add(asyncio.ensure_future(_give(number, batch, fds, send)))
            _, waiting = await asyncio.wait(waiting, timeout=_ROOM_S)
        if waiting:
            await asyncio.wait(waiting)
    finally:
        for given in waiting:
            given.cancel()


async def _give(number: int, batch: Adopt, fds: list[int], send: Send) -> None:
    try:
        await send(number, batch, fds)
    finally:
        for fd in fds:
            os.close(fd)
