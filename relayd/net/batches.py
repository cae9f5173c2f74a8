"""Which kind of boxes a worker uses, chosen once: batches by one system call, or datagrams one by one.

ctypes may be missing, unusable where memory must not become executable (older libffi), or its calls forbidden by a
filter of system calls; everything works without, and costs more.
"""

import socket
from types import ModuleType

from relayd.net.boxes import Inbox, Outbox, Slots
from relayd.net.datagrams import Layout


class Batches:
    """The inboxes and outboxes of one worker, made as they are asked for. `fast` False never uses `mmsg`."""

    def __init__(self, *, fast: bool = True) -> None:
        self._mmsg = _mmsg() if fast else None
        self._incoming = Slots()
        self._inboxes: dict[Layout, Inbox] = {}
        self._outboxes: dict[Layout, Outbox] = {}
        self._made: list[Outbox] = []

    @property
    def fast(self) -> bool:
        """True where a batch is one system call."""
        return self._mmsg is not None

    def inbox(self, layout: Layout) -> Inbox:
        """The inbox of all receiving sockets of `layout`."""
        if layout not in self._inboxes:
            fast = self._mmsg if layout.af != socket.AF_UNIX else None
            make = fast.MmsgInbox if fast is not None else Inbox
            self._inboxes[layout] = make(layout, self._incoming)
        return self._inboxes[layout]

    def outbox(self, layout: Layout) -> Outbox:
        """The outbox of all receiving sockets of `layout`."""
        if layout not in self._outboxes:
            fast = self._mmsg if layout.af != socket.AF_UNIX else None
            make = fast.MmsgOutbox if fast is not None else Outbox
            self._outboxes[layout] = make(layout, Slots())
            self._made.append(self._outboxes[layout])
        return self._outboxes[layout]

    def flush(self) -> None:
        """Send what waits in any outbox. To be called before a turn of the loop ends."""
        for outbox in self._made:
            if outbox.sizes:
                outbox.flush()

    def trim(self) -> None:
        """Give back the memory that large datagrams have taken."""
        self._incoming.trim()
        for outbox in self._made:
            outbox.trim()


def _mmsg() -> ModuleType | None:
    """The module `mmsg`, where it can be used. Imported with the first datagram listener: ctypes costs every worker
    half a megabyte and 5 ms.
    """
    try:
        from relayd.net import mmsg
    except (ImportError, AttributeError, OSError, MemoryError):  # no ctypes, no such call in the C library, no closures
        return None
    return mmsg if mmsg.usable() else None
