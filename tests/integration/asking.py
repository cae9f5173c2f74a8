"""One health check against a server of the test, without an event loop around it."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from relayd.address import SocketAddress, from_sockaddr
from relayd.control.checks.answers import script_of
from relayd.control.checks.command import Command
from relayd.control.checks.probe import Probe
from relayd.control.checks.subject import Found, Subject
from relayd.net.poller import EdgeSelector
from relayd.spec import Check, CheckKind

DEADLINE_S = 10.0


def subject(
    address: SocketAddress,
    kind: CheckKind,
    timeout_s: float = DEADLINE_S,
    source: SocketAddress | None = None,
    **keys: object,
) -> Subject:
    check = Check(kind, 2.0, 2.0, timeout_s, 2, 3, **keys)  # type: ignore[arg-type]  # any of them
    return Subject("app", str(address), address, check, source)


def ask(subject: Subject) -> Found:
    """What the check finds. It is late after its timeout, which may be 0."""
    found: list[Found] = []
    selector = EdgeSelector()
    asking: Probe | Command
    if subject.check.kind is CheckKind.EXEC:
        asking = Command(selector, subject, found.append)
    else:
        asking = Probe(selector, subject, script_of(subject), found.append)
    try:
        asking.start()
        deadline = time.monotonic() + subject.check.timeout_s
        while not found:
            left = deadline - time.monotonic()
            if left <= 0:
                asking.late()
                break
            for fd, mask in selector.ready(left):
                handler = selector.handlers.get(fd)
                if handler is not None:
                    handler(mask)
        if isinstance(asking, Command):
            asking.finish(DEADLINE_S)
            assert asking.gone
        assert not selector.handlers, "nothing is watched afterwards"
    finally:
        selector.close()
    assert len(found) == 1
    return found[0]


def address_of(sock: socket.socket) -> SocketAddress:
    return from_sockaddr(sock.family, sock.getsockname())


@contextlib.contextmanager
def serving(listening: socket.socket, serve: Callable[[socket.socket], None]) -> Iterator[SocketAddress]:
    """`serve` gets the listening socket in a thread of its own, and is waited for; whatever it opens it closes."""
    listening.settimeout(DEADLINE_S)
    thread = threading.Thread(target=serve, args=(listening,))
    thread.start()
    try:
        yield address_of(listening)
    finally:
        thread.join()
