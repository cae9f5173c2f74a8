"""Clients that wait for a session, pure: so that a flood of them is read out of the socket and does not push aside, in
the kernel's queue, the datagrams of clients that have one (research: 100,000 forged senders).
"""

from collections import OrderedDict

#: Datagrams, and their bytes, that wait in one worker's receiving socket: the work of 50 ms, and a bound.
WAITING_MAX = 1024
WAITING_BYTES_MAX = 1 << 20


class Newcomers:
    """First come, first served; a client's datagrams stay together and in order."""

    def __init__(self) -> None:
        self._datagrams: OrderedDict[bytes, list[bytes]] = OrderedDict()
        self._count = 0
        self._bytes = 0

    def __bool__(self) -> bool:
        """True while somebody waits."""
        return bool(self._datagrams)

    def __len__(self) -> int:
        """Datagrams that wait."""
        return self._count

    def put(self, key: bytes, data: bytes | memoryview) -> bool:
        """Let a copy of `data`, from the client `key`, wait. False: there are too many, and it does not."""
        if self._count >= WAITING_MAX or self._bytes + len(data) > WAITING_BYTES_MAX:
            return False
        self._datagrams.setdefault(key, []).append(bytes(data))
        self._count += 1
        self._bytes += len(data)
        return True

    def take(self) -> tuple[bytes, list[bytes]]:
        """The client that has waited for longest, and all that it has sent. Raises KeyError when there is none."""
        key, datagrams = self._datagrams.popitem(last=False)
        self._count -= len(datagrams)
        self._bytes -= sum(map(len, datagrams))
        return key, datagrams
