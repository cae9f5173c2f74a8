"""Everything about streams in one worker: what the worker itself says to it, and nothing more."""

import select
import socket
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace

from relayd.channel.messages import Resolved
from relayd.choosing.group import Group, Groups, Rules
from relayd.choosing.pool import Pools
from relayd.counters import ListenerCounters, ListenerTotals
from relayd.log.access import LIVING, AccessRecord
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.net.pipes import PipePool
from relayd.outcomes import Outcome
from relayd.relay.departures import Departures
from relayd.relay.limits import Admission
from relayd.relay.loop import Loop
from relayd.relay.progress import Watched
from relayd.relay.stream.connection import Connection, Phase
from relayd.relay.stream.listener import AcceptingSocket, Acceptor
from relayd.relay.stream.record import connection_record
from relayd.relay.stream.service import Live, StreamService
from relayd.spec import Listener, OnChange, Stream, Target
from relayd.spec.sockets import Endpoint, SocketKey


class StreamServices:
    """The stream listeners of one worker. Owns their sockets and connections."""

    def __init__(
        self, loop: Loop, log: Logger, admission: Admission, pipes: PipePool, pools: Pools | None = None
    ) -> None:
        """`pools` are the worker's; None: nobody else has any."""
        self._target_pools = pools if pools is not None else Pools()
        self.services: dict[str, StreamService] = {}
        self._loop = loop
        self._log = log
        self._admission = admission
        self._pipes = pipes
        self._groups: dict[str, Groups] = {}
        self._acceptors: dict[SocketKey, Acceptor] = {}
        self._backlogs = select.poll()
        #: By name, for the life of the worker: a listener that goes and comes again counts on.
        self._counters: dict[str, ListenerCounters] = {}
        #: Services whose listener is gone, and whose connections are not.
        self._removed: list[StreamService] = []
        self._accepting = True

    @property
    def every(self) -> tuple[StreamService, ...]:
        """Those whose listener is gone, and those that serve one."""
        return (*self._removed, *self.services.values())

    @property
    def active(self) -> int:
        """Connections that are open now."""
        return self._admission.active

    # what is served ---------------------------------------------------------------------------------------------

    def serve(self, listener: Listener, id_prefix: str, departures: Departures) -> None:
        """Make what all sockets of `listener` share; or, where there is one of its name, have it do what this says.
        Connections that are affected go to `departures`.
        """
        stream = listener.stream
        if stream is None:
            raise ValueError(f"{listener.name} serves no streams")
        service = self.services.get(listener.name)
        if service is None:
            self._groups[listener.name] = self._groups_of(listener)
            self.services[listener.name] = self._make(listener, stream, id_prefix)
            return
        before = service.spec
        if before != listener:
            self._groups[listener.name].retarget(
                listener.targets, Rules.of(listener, datagrams=False), self._target_pools[listener.pool_name]
            )
            service.change(listener, stream)
            departures.consider(service.connections, before, listener, datagram=False)

    def attend(self, endpoint: Endpoint, fd: int) -> None:
        """Accept on the listening socket `fd`, which this owns then."""
        af = -1 if endpoint.from_systemd else endpoint.address.family.af  # -1: ask the socket itself
        sock = AcceptingSocket(af, socket.SOCK_STREAM, fileno=fd)
        acceptor = Acceptor(
            self.services[endpoint.listener.name],
            sock,
            endpoint.address,
            self._groups[endpoint.listener.name].of(endpoint),
        )
        self._acceptors[endpoint.key] = acceptor
        acceptor.open()
        self._backlogs.register(acceptor.fileno(), select.POLLIN)

    def keep(self, endpoint: Endpoint) -> None:
        """Go on accepting on a socket that is there already, for the listener that has it now."""
        self._acceptors[endpoint.key].serve(
            self.services[endpoint.listener.name], self._groups[endpoint.listener.name].of(endpoint)
        )

    def dismiss(self, endpoint: Endpoint) -> None:
        """Accept no more on a socket than what waits there already."""
        acceptor = self._acceptors.pop(endpoint.key)
        self._backlogs.unregister(acceptor.fileno())
        acceptor.finish()

    def remove(self, name: str, policy: OnChange | None, departures: Departures) -> None:
        """The listener `name` is gone. Its connections go to `departures`, by `policy`, its `on_change`."""
        service = self.services.pop(name)
        del self._groups[name]
        self._removed.append(service)
        departures.consider(service.connections, replace(service.spec, on_change=policy), None, datagram=False)

    def _groups_of(self, listener: Listener) -> Groups:
        rules = Rules.of(listener, datagrams=False)
        return Groups(listener.targets, rules, self._target_pools[listener.pool_name])

    def _make(self, listener: Listener, stream: Stream, id_prefix: str) -> StreamService:
        return StreamService(
            loop=self._loop,
            spec=listener,
            stream=stream,
            log=self._log.of(listener.log),
            admission=self._admission,
            pipes=self._pipes,
            id_prefix=id_prefix,
            counters=self._counters.setdefault(listener.name, ListenerCounters()),
        )

    def resolved(self, answer: Resolved, departures: Departures) -> None:
        """From now on a name means this. Connections stay where they are (T3), but for those whose listener wants
        otherwise and whose address is gone: they go to `departures`.
        """
        for name, groups in self._groups.items():
            service = self.services[name]
            if service.spec.resolve == answer.resolve and groups.resolved(answer.name, answer.addresses, answer.shares):
                departures.gone(service.connections, service.spec, answer.name, groups)

    def of_target(self, pool: str, target: str) -> Iterator[tuple[Listener, list[Live]]]:
        """By listener, the connections to `target`, by its origin, of `pool`."""
        for service in self.every:
            if service.spec.pool_name == pool:
                yield service.spec, [one for one in service.connections if one.choice and one.choice.origin == target]

    # over a restart ---------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Accept no more. What waits stays in the backlog, for another process."""
        self._accepting = False
        for acceptor in self._acceptors.values():
            acceptor.close()

    def live(self) -> Iterator[tuple[Listener, list[Connection]]]:
        """Every connection, by listener, those that are gone included."""
        for service in self.every:
            yield service.spec, [one for one in service.connections if isinstance(one, Connection)]

    def place(self, listener: Listener, bind_port: int, bind_index: int) -> tuple[StreamService, Group]:
        """Where a connection of `listener` belongs that another process has accepted, at this port of it: to the one of
        its name, or, if there is none, to one that is gone.
        """
        service = self.services.get(listener.name)
        if service is not None:
            return service, self._groups[listener.name].at(bind_port, bind_index)
        if listener.stream is None:
            raise ValueError(f"{listener.name} has no streams")
        for service in self._removed:
            if service.spec == listener:
                break
        else:
            service = self._make(listener, listener.stream, "")
            self._removed.append(service)
        return service, self._groups_of(listener).at(bind_port, bind_index)

    def closed(self, name: str) -> defaultdict[Outcome, int]:
        """The counts of how connections of the listener `name` have ended."""
        return self._counters.setdefault(name, ListenerCounters()).closed

    # once a second ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Take connections that wait for another worker, which was woken for them and does not take them."""
        self._removed = [service for service in self._removed if service.connections]
        if self._accepting and (waiting := {fd for fd, _ in self._backlogs.poll(0)}):
            for acceptor in self._acceptors.values():
                if acceptor.fileno() in waiting:
                    self._loop.again(acceptor.look)

    def totals(self) -> Iterator[ListenerTotals]:
        """The counts of every listener, those that are gone included. A connection takes a fifth of a microsecond."""
        live: dict[str, tuple[int, int]] = {}
        for service in self.every:
            if service.connections:
                moved_in, moved_out = live.get(service.spec.name, (0, 0))
                for connection in service.connections:
                    bytes_in, bytes_out = connection.moved
                    moved_in += bytes_in
                    moved_out += bytes_out
                live[service.spec.name] = (moved_in, moved_out)
        nothing = (0, 0)
        return (counters.snapshot(name, *live.get(name, nothing)) for name, counters in self._counters.items())

    def targets(self) -> Counter[tuple[str, str, Target | None, str]]:
        """How many connections there are of each listener, in its pool, to each target, and to which origin of it; "":
        none has been chosen.
        """
        return Counter(
            (
                service.spec.name,
                service.spec.pool_name,
                connection.target,
                connection.choice.origin if connection.choice is not None else "",
            )
            for service in self.every
            for connection in service.connections
        )

    def watched(self) -> Iterator[Watched]:
        """The connections of every listener, for lines about their progress."""
        for service in self.every:
            yield Watched(service.log, Event.CONNECTION_PROGRESS, service.connections, _living_record)

    # the end ----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Accept no more than what waits already (R6)."""
        self._accepting = False
        for acceptor in self._acceptors.values():
            acceptor.finish()

    def end_all(self, outcome: Outcome) -> None:
        """End every connection."""
        for service in self.every:
            service.end_all(outcome)


def _living_record(connection: Connection) -> AccessRecord | None:
    return None if connection.phase is Phase.CLOSED else connection_record(connection, LIVING, 0)
