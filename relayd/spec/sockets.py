"""Which listening sockets a spec needs, in which order, and which worker has which. Pure.

A stream socket is shared: every worker accepts from it. A datagram socket has one owner, so that the datagrams of a
client always meet the same worker. One port of inet or inet6 is one socket for each worker, and the kernel chooses
among them by a hash of both addresses (SO_REUSEPORT, socket(7)); the ports of a range, and Unix sockets, are dealt to
the workers in turn. A listener is dealt its first worker by its name, so that nothing else in a file moves its sockets.

Control opens, keeps and sends the sockets by these functions, and a worker knows by them what it was sent.
"""

import binascii
from collections.abc import Iterator
from dataclasses import dataclass

from relayd.address import InetAddress, SocketAddress
from relayd.spec import Bind, Listener, Spec

__all__ = [
    "Endpoint",
    "endpoints",
    "endpoints_of",
    "has_copies",
    "session_share",
    "socket_count",
    "worker_socket_count",
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One listening socket: port number `index` of `bind`, at `address`, for streams or for datagrams.

    `worker` is the number of its owner, 1 to `Spec.workers`; None: all of them accept from it. An address of port 0 is
    given its port by the kernel; copies of one address for several workers have the same one.
    """

    listener: Listener
    bind: Bind
    index: int
    address: SocketAddress
    datagram: bool
    worker: int | None


def endpoints(spec: Spec) -> Iterator[Endpoint]:
    """Every socket: by listener, by bind, by port; for each port the stream socket first, then the datagram sockets."""
    for listener in spec.listeners:
        turn = _first_turn(listener, spec.workers)
        for bind in listener.binds:
            copies = has_copies(bind, spec.workers)
            for index, address in enumerate(bind.addresses()):
                if listener.stream is not None:
                    yield Endpoint(listener, bind, index, address, False, None)
                if listener.datagram is None:
                    continue
                if copies:
                    for worker in range(1, spec.workers + 1):
                        yield Endpoint(listener, bind, index, address, True, worker)
                else:
                    yield Endpoint(listener, bind, index, address, True, turn + 1)
                    turn = (turn + 1) % spec.workers


def endpoints_of(spec: Spec, worker: int) -> Iterator[Endpoint]:
    """Those of `endpoints` that worker number `worker` has, in the same order: that of the descriptors beside its
    Configure.
    """
    return (endpoint for endpoint in endpoints(spec) if endpoint.worker in (None, worker))


def has_copies(bind: Bind, workers: int) -> bool:
    """True when a datagram socket of `bind` has one copy for each worker, and is not dealt to one of them."""
    return workers > 1 and bind.ports == 1 and isinstance(bind.address, InetAddress)


def socket_count(spec: Spec) -> int:
    """How many `endpoints` there are: the sockets that control keeps. Without going through them."""
    return sum(
        _streams(one) + _copied(one, spec.workers) * spec.workers + _dealt(one, spec.workers) for one in spec.listeners
    )


def worker_socket_count(spec: Spec) -> int:
    """How many `endpoints_of` the worker has that has most."""
    workers = spec.workers
    dealt = [0] * workers
    for listener in spec.listeners:
        rounds, rest = divmod(_dealt(listener, workers), workers)
        first = _first_turn(listener, workers)
        if rounds:
            dealt = [count + rounds for count in dealt]
        for turn in range(rest):
            dealt[(first + turn) % workers] += 1
    return sum(_streams(one) + _copied(one, workers) for one in spec.listeners) + max(dealt)


def session_share(listener: Listener, workers: int, worker: int) -> int | None:
    """The part of `max_sessions` that worker number `worker` may have: by its part of the listener's datagram sockets,
    rounded up. None where there is no such limit; 0 for a worker that has none of the sockets.
    """
    if listener.datagram is None or listener.datagram.max_sessions is None:
        return None
    dealt, copied = _dealt(listener, workers), _copied(listener, workers)
    turn = (worker - 1 - _first_turn(listener, workers)) % workers
    owned = copied + (dealt - turn + workers - 1) // workers
    return -(-listener.datagram.max_sessions * owned // (copied * workers + dealt))


def _streams(listener: Listener) -> int:
    return sum(bind.ports for bind in listener.binds) if listener.stream is not None else 0


def _copied(listener: Listener, workers: int) -> int:
    """Ports of which every worker has a datagram socket."""
    return sum(has_copies(bind, workers) for bind in listener.binds) if listener.datagram is not None else 0


def _dealt(listener: Listener, workers: int) -> int:
    """Datagram sockets of which there is one for all workers."""
    if listener.datagram is None:
        return 0
    return sum(bind.ports for bind in listener.binds if not has_copies(bind, workers))


def _first_turn(listener: Listener, workers: int) -> int:
    return binascii.crc32(listener.name.encode()) % workers
