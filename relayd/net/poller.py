"""The edge-triggered selector: one registration per socket for its whole life, reads and writes together.

`selectors.EpollSelector` cannot express what a relay needs (EPOLLET, EPOLLEXCLUSIVE, EPOLLRDHUP; it folds HUP into
reads and rounds timeouts up), so this is a `selectors.BaseSelector` of its own whose `events` are epoll's own bits
(epoll_ctl(2)).

Edge-triggered means that an event says "something changed", once. Whoever gets one reads until a short read or EAGAIN,
writes until a short write or EAGAIN, and whoever stops before that has to come back by himself (`Loop.again`).
"""

import contextlib
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

    A loop that turns a hundred thousand times a second uses the short forms, which make no key: `watch`, `ready` and
    `handlers`.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        #: Handler by descriptor. A new one may be put in the place of an old one.
        self.handlers: dict[int, Handler | None] = {}
        # What `register` was given, where that is not what `watch` stands for.
        self._registered: dict[int, tuple[FileObject, int]] = {}

    def fileno(self) -> int:
        """The epoll descriptor: readable when `ready` has something, so that another loop can wait for all of this."""
        return self._epoll.fileno()

    def watch(self, fd: int, handler: Handler) -> None:
        """`register(fd, STREAM, handler)`, at half its cost. Raises the same."""
        self._epoll.register(fd, STREAM)
        self.handlers[fd] = handler

    def register(self, fileobj: FileObject, events: int, data: Handler | None = None) -> selectors.SelectorKey:
        """Watch `fileobj`. Raises OSError (ENOMEM, ENOSPC: fs.epoll.max_user_watches) and has then changed nothing."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._epoll.register(fd, events)
        self.handlers[fd] = data
        self._registered[fd] = (fileobj, events)
        return self._key(fd)

    def unregister(self, fileobj: FileObject) -> selectors.SelectorKey:
        """Stop watching. Always before the close: epoll goes on reporting a closed descriptor that has a duplicate."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._key(fd)
        del self.handlers[fd]
        self._registered.pop(fd, None)
        self._epoll.unregister(fd)
        return key

    def forget(self, fd: int) -> None:
        """`unregister` without its system call, for a descriptor that is closed next and has no duplicate anywhere.

        Its close takes it out of the epoll set (epoll(7), question 6). An unknown descriptor is no error.
        """
        self.handlers.pop(fd, None)
        if fd in self._registered:
            del self._registered[fd]

    def abandon(self, fd: int) -> None:
        """`forget`, for a descriptor that has a duplicate elsewhere: taken out of the epoll set here and now. An
        unknown one is no error.
        """
        self.forget(fd)
        with contextlib.suppress(OSError):  # ENOENT: it was not watched
            self._epoll.unregister(fd)

    def ready(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Descriptors with their event bits; `timeout` as of `select`.

        Look each up in `handlers` when its turn comes: one that an earlier handler has forgotten is not there any
        more. Do not close a descriptor before the last one has been looked up: a new socket would get its number, and
        its event.
        """
        try:
            return self._epoll.poll(-1 if timeout is None else timeout)
        except OSError as error:
            if error.errno in TRANSIENT:
                return []
            raise

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Events with their keys; `timeout` in seconds, None waits for ever."""
        return [(self._key(fd), mask) for fd, mask in self.ready(timeout) if fd in self.handlers]

    def get_key(self, fileobj: FileObject) -> selectors.SelectorKey:
        """The key of `fileobj`. Raises KeyError when it is not watched."""
        return self._key(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[FileObject, selectors.SelectorKey]:
        """Keys by descriptor, as they are now."""
        return {fd: self._key(fd) for fd in self.handlers}

    def close(self) -> None:
        """Close the epoll descriptor. Idempotent."""
        self._epoll.close()
        self.handlers.clear()
        self._registered.clear()

    def _key(self, fd: int) -> selectors.SelectorKey:
        handler = self.handlers[fd]
        fileobj, events = self._registered.get(fd, (fd, STREAM))
        return selectors.SelectorKey(fileobj, fd, events, handler)
