"""The edge-triggered selector: one registration per socket for its whole life, reads and writes together.

`selectors.EpollSelector` cannot express what a relay needs (EPOLLET, EPOLLEXCLUSIVE, EPOLLRDHUP; it folds HUP into
reads and rounds timeouts up), so this is a `selectors.BaseSelector` of its own whose `events` are epoll's own bits
(epoll_ctl(2)).

Edge-triggered means that an event says "something changed", once. Whoever gets one reads until a short read or EAGAIN,
writes until a short write or EAGAIN, and whoever stops before that has to come back by himself (`Loop.again`).
"""

import select
import selectors
from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from relayd.errors import TRANSIENT

IN = select.EPOLLIN
OUT = select.EPOLLOUT
PRI = select.EPOLLPRI
HUP = select.EPOLLHUP
ERR = select.EPOLLERR
RDHUP = select.EPOLLRDHUP

#: For both sockets of a connection, and for the channel.
STREAM = IN | OUT | PRI | RDHUP | select.EPOLLET
#: For a listening socket that several workers share: level-triggered, so that a backlog left over is told again, and
#: exclusive (Linux 4.5), so that one new connection wakes one worker and not all.
LISTENING = IN | select.EPOLLEXCLUSIVE
#: Bits that mean "read, and do not stop at a short read": an end or an error waits behind the data, or an urgent mark
#: between them.
ENDING = RDHUP | HUP | ERR | PRI


class HasFileno(Protocol):
    """Something with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


FileObject: TypeAlias = "int | HasFileno"
Handler: TypeAlias = Callable[[int], None]


class EdgeSelector(selectors.BaseSelector):
    """epoll(7) behind the interface of `selectors`. Owns the epoll descriptor and no other.

    `data` of a key is the handler that the loop calls with the event bits. File objects are descriptors or have
    `fileno()`.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[FileObject, selectors.SelectorKey] = {}

    def register(self, fileobj: FileObject, events: int, data: Handler | None = None) -> selectors.SelectorKey:
        """Watch `fileobj`. Raises OSError (ENOMEM, ENOSPC: fs.epoll.max_user_watches) and has then changed nothing."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._epoll.register(fd, events)
        # SelectorKey(...), without the Python function that a named tuple puts before this.
        key = self._keys[fd] = tuple.__new__(selectors.SelectorKey, (fileobj, fd, events, data))
        return key

    def unregister(self, fileobj: FileObject) -> selectors.SelectorKey:
        """Stop watching. Always before the close: epoll goes on reporting a closed descriptor that has a duplicate."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys.pop(fd)
        self._epoll.unregister(fd)
        return key

    def forget(self, fd: int) -> None:
        """`unregister` without its system call, for a descriptor that is closed next and has no duplicate in any
        process.

        Its close takes it out of the epoll set (epoll(7), question 6). An unknown descriptor is no error.
        """
        self._keys.pop(fd, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Events with their keys; `timeout` in seconds, None waits for ever.

        The keys are looked up before the first handler runs: an event for a descriptor that an earlier handler of the
        same batch closed goes to its old owner, who ignores it, and not to a new connection that got the same number.
        """
        try:
            events = self._epoll.poll(-1 if timeout is None else timeout)
        except OSError as error:
            if error.errno in TRANSIENT:
                return []
            raise
        keys = self._keys
        try:
            return [(keys[fd], mask) for fd, mask in events]
        except KeyError:  # a closed descriptor that has a duplicate somewhere
            return [(keys[fd], mask) for fd, mask in events if fd in keys]

    def get_key(self, fileobj: FileObject) -> selectors.SelectorKey:
        """The key of `fileobj`. Raises KeyError when it is not watched."""
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def get_map(self) -> Mapping[FileObject, selectors.SelectorKey]:
        """Keys by descriptor."""
        return self._keys

    def close(self) -> None:
        """Close the epoll descriptor. Idempotent."""
        self._epoll.close()
        self._keys.clear()
