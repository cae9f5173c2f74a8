"""Which listening sockets a spec needs, in which order, and which worker has which. Pure.

A stream socket is shared: every worker accepts from it. A datagram socket has one owner, so that the datagrams of a
client always meet the same worker. One port of inet or inet6 is `Spec.copies` sockets, one for each worker, and the
kernel chooses among them by a hash of both addresses (SO_REUSEPORT, socket(7)); the ports of a range, Unix sockets,
and what systemd passes, are dealt to the workers in turn, by their address alone, so that nothing else in a file ever
moves a socket to another worker.

The number of copies is the daemon's for as long as its sockets live, over restarts too: with another number, the kernel
would give clients to other sockets than those that have their sessions. A restart with other `workers` deals the copies
to them in turn.

Control opens, keeps and sends the sockets by these functions, and a worker knows by them what it was sent.
"""

import binascii
from collections.abc import Iterable, Iterator

from relayd.address import BindAddress, Family, InetAddress, SocketAddress, SystemdAddress, UnixAddress
from relayd.spec import Bind, Listener, Spec
from relayd.values import dataclass

__all__ = [
    "Covered",
    "Endpoint",
    "SocketKey",
    "copies_of",
    "endpoints",
    "endpoints_of",
    "session_share",
    "socket_count",
    "worker_socket_count",
]


@dataclass(frozen=True, slots=True)
class SocketKey:
    """What tells one listening socket from all others: `Endpoint.key` and `Endpoint.legacy`."""

    address: BindAddress
    datagram: bool
    worker: int | None = None
    number: int = 0
    interface: str | None = None
    v6_only: bool = False
    listener: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One listening socket: port number `index` of `bind`, at `address`, for streams or for datagrams.

    `worker` is the number of its owner, 1 to `Spec.workers`; None: all of them accept from it. `copy` tells the sockets
    of one address apart, from 0 on, and `lap` those of them that one worker has. An address of port 0 is given its port
    by the kernel; copies of one address have the same one.

    Of a bind whose sockets systemd passes, it is number `index` of those of its type, and `address` is what systemd has
    bound it to.
    """

    listener: Listener
    bind: Bind
    index: int
    address: SocketAddress
    datagram: bool
    worker: int | None
    copy: int = 0
    lap: int = 0

    @property
    def key(self) -> SocketKey:
        """The same for two endpoints, of two specs with as many workers and copies, that are one socket: what is kept
        over a reload (R2), whatever else changes about its listener, even its name.

        Where the kernel picks the port, the listener's name stands for it. What a bound socket cannot change belongs to
        it: another `interface` or `ipv6_only` is another socket. A socket that systemd passes is told by its name.
        """
        return self._key(self.worker, self.lap)

    @property
    def legacy(self) -> SocketKey:
        """The same for two endpoints, of two processes, that may be one socket: what is kept over a restart (R4). As
        `key`, but any worker may have it.
        """
        return self._key(None, self.copy)

    def _key(self, worker: int | None, number: int) -> SocketKey:
        address, binding = self.address, self.listener.binding
        if self.from_systemd:
            return SocketKey(self.bind.address, self.datagram, worker, self.index)
        if isinstance(address, UnixAddress):
            return SocketKey(address, self.datagram, worker)
        name = "" if address.port else self.listener.name
        v6_only = address.family is Family.INET6 and binding.ipv6_only
        return SocketKey(address, self.datagram, worker, number, binding.interface, v6_only, name)

    @property
    def from_systemd(self) -> bool:
        """True when systemd has bound the socket, and passes it."""
        return isinstance(self.bind.address, SystemdAddress)

    @property
    def ipv6_only(self) -> bool:
        """Whether an IPv6 socket leaves IPv4 to others."""
        if self.from_systemd:
            return self.bind.passed_for(datagrams=self.datagram)[self.index].ipv6_only
        return self.listener.binding.ipv6_only


class Covered:
    """The addresses that some endpoints take the datagrams of: their own, and with a wildcard every one of its port."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._addresses: set[SocketAddress] = set()
        self._wildcards: set[tuple[Family, int]] = set()
        for endpoint in endpoints:
            address = endpoint.address
            self._addresses.add(address)
            if isinstance(address, InetAddress) and address.port and address.wildcard:
                self._wildcards.add((address.family, address.port))
                if address.family is Family.INET6 and not endpoint.ipv6_only:
                    self._wildcards.add((Family.INET, address.port))

    def __contains__(self, address: SocketAddress) -> bool:
        if address in self._addresses:
            return True
        return isinstance(address, InetAddress) and (address.family, address.port) in self._wildcards


def endpoints(spec: Spec) -> Iterator[Endpoint]:
    """Every socket: by listener, by bind, by port; for each port the stream socket first, then the datagram sockets.
    None of a bind of which it is not known what systemd passes.
    """
    workers = spec.workers
    for listener in spec.listeners:
        for bind in listener.binds:
            yield from _passed(listener, bind, workers)
            copies = copies_of(bind, spec)
            for index, address in enumerate(bind.addresses()):
                if listener.stream is not None:
                    yield Endpoint(listener, bind, index, address, False, None)
                if listener.datagram is None:
                    continue
                if copies == 1:
                    yield Endpoint(listener, bind, index, address, True, _dealt_to(address, workers) + 1)
                else:
                    for copy in range(copies):
                        yield Endpoint(listener, bind, index, address, True, copy % workers + 1, copy, copy // workers)


def _passed(listener: Listener, bind: Bind, workers: int) -> Iterator[Endpoint]:
    """What systemd passes for `bind`: the stream sockets first."""
    if listener.stream is not None:
        for index, one in enumerate(bind.passed_for(datagrams=False)):
            yield Endpoint(listener, bind, index, one.address, False, None)
    if listener.datagram is not None:
        for index, one in enumerate(bind.passed_for(datagrams=True)):
            yield Endpoint(listener, bind, index, one.address, True, _dealt_to(one.address, workers) + 1)


def endpoints_of(spec: Spec, worker: int) -> Iterator[Endpoint]:
    """Those of `endpoints` that worker number `worker` has, in the same order: that of the descriptors beside its
    Configure.
    """
    return (endpoint for endpoint in endpoints(spec) if endpoint.worker in (None, worker))


def copies_of(bind: Bind, spec: Spec) -> int:
    """How many datagram sockets an address of `bind` has. 1: it is dealt to one of the workers."""
    return (spec.copies or spec.workers) if bind.ports == 1 and isinstance(bind.address, InetAddress) else 1


def socket_count(spec: Spec) -> int:
    """How many `endpoints` there are: the sockets that control keeps. Without going through them. Where it is not known
    what systemd passes, one socket of each type stands for it.
    """
    return sum(_streams(one) + _datagrams(one, spec) for one in spec.listeners)


def worker_socket_count(spec: Spec) -> int:
    """How many `endpoints_of` the worker has that has most."""
    datagrams = [0] * spec.workers
    for listener in spec.listeners:
        for worker in range(spec.workers):
            datagrams[worker] += _datagrams_of(listener, spec, worker)
    return sum(map(_streams, spec.listeners)) + max(datagrams)


def session_share(listener: Listener, spec: Spec, worker: int) -> int | None:
    """The part of `max_sessions` that worker number `worker` of `spec` may have: by its part of the listener's datagram
    sockets, rounded up. None where there is no such limit; 0 for a worker that has none of the sockets.
    """
    if listener.datagram is None or listener.datagram.max_sessions is None:
        return None
    owned = _datagrams_of(listener, spec, worker - 1)
    return -(-listener.datagram.max_sessions * owned // _datagrams(listener, spec))


def _streams(listener: Listener) -> int:
    return sum(bind.socket_count(datagrams=False) for bind in listener.binds) if listener.stream is not None else 0


def _datagrams(listener: Listener, spec: Spec) -> int:
    """Datagram sockets of a listener."""
    if listener.datagram is None:
        return 0
    return sum(bind.socket_count(datagrams=True) * copies_of(bind, spec) for bind in listener.binds)


def _datagrams_of(listener: Listener, spec: Spec, worker: int) -> int:
    """How many of them worker number `worker` + 1 has."""
    if listener.datagram is None:
        return 0
    count = 0
    for bind in listener.binds:
        if isinstance(bind.address, SystemdAddress):
            count += _passed_to(bind, spec.workers, worker)
            continue
        copies = copies_of(bind, spec)
        # The sockets of a bind have consecutive workers; the first one that this worker has is `turn`.
        first, sockets = (_dealt_to(bind.address, spec.workers), bind.ports) if copies == 1 else (0, copies)
        turn = (worker - first) % spec.workers
        count += (sockets - turn + spec.workers - 1) // spec.workers
    return count


def _passed_to(bind: Bind, workers: int, worker: int) -> int:
    """How many of the datagram sockets that systemd passes for `bind` worker number `worker` + 1 has."""
    if not bind.passed:
        return int(worker == 0)
    return sum(_dealt_to(one.address, workers) == worker for one in bind.passed_for(datagrams=True))


def _dealt_to(address: SocketAddress, workers: int) -> int:
    """The worker, counted from 0, that has the socket of `address`: consecutive ports have consecutive workers."""
    if isinstance(address, UnixAddress):
        return binascii.crc32(address.path.encode()) % workers
    return (binascii.crc32(address.host.encode()) + address.port) % workers
