"""Everything about datagrams in one worker: what the worker itself says to it, and nothing more."""

import math
import os
import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from relayd.address import SocketAddress
from relayd.channel.messages import Resolved
from relayd.choosing.group import Group, Groups, Rules
from relayd.choosing.pool import Pools
from relayd.counters import DatagramCounters, DatagramTotals
from relayd.log.access import LIVING, AccessRecord
from relayd.log.events import Event
from relayd.log.logger import Logger
from relayd.net.batches import Batches
from relayd.outcomes import Outcome
from relayd.relay.datagram.listener import Receiver, SessionReceiver
from relayd.relay.datagram.moving import Moving
from relayd.relay.datagram.reception import Reception
from relayd.relay.datagram.record import session_record
from relayd.relay.datagram.service import DRAIN_SILENCE_S, DatagramService, LiveSession, SessionRoom
from relayd.relay.datagram.session import Phase, Session
from relayd.relay.datagram.spreading import Spreader, SpreadingReceiver
from relayd.relay.departures import Departures
from relayd.relay.loop import Loop
from relayd.relay.progress import Watched
from relayd.spec import Listener, OnChange, SessionMode, Target
from relayd.spec.sockets import Covered, Endpoint, SocketKey
from relayd.values import dataclass


@dataclass(frozen=True, slots=True)
class _Retired:
    """A receiver that is there for the sessions that it has, `until` then at most (monotonic; None: as they last)."""

    receiver: SessionReceiver
    until: float | None

    def over(self, now: float) -> bool:
        """True when there are no more sessions. Where there is an end, sessions that have been silent for a while are
        over before, as in a stop (R6).
        """
        if self.until is not None:
            silent_since = now - DRAIN_SILENCE_S if now < self.until else math.inf
            for session in [one for one in self.receiver.sessions if one.noted_until < silent_since]:
                session.end(Outcome.REMOVED)
        return not self.receiver.sessions


class DatagramServices:
    """The datagram listeners of one worker. Owns their sockets and sessions."""

    def __init__(
        self,
        loop: Loop,
        log: Logger,
        limit: int,
        *,
        fast: bool = True,
        on_release: Callable[[SocketAddress], None] | None = None,
        pools: Pools | None = None,
    ) -> None:
        """`limit` sessions at most, over all listeners. `fast` False uses no batched system calls. `on_release` is told
        of each socket that `dismiss` was about, once it is closed. `pools` are the worker's; None: nobody else has any.
        """
        self._target_pools = pools if pools is not None else Pools()
        self.batches = Batches(fast=fast)
        #: Sends what waits for clients. To be called at the end of every turn of the loop.
        self.flush: Callable[[], None] = self.batches.flush
        self.services: dict[str, DatagramService] = {}
        self._loop = loop
        self._log = log
        self._room = SessionRoom(limit)
        self._on_release = on_release
        self._idle = True
        self._groups: dict[str, Groups] = {}
        self._spreaders: dict[Group, Spreader] = {}
        self._receivers: dict[SocketKey, Receiver] = {}
        #: By name, for the life of the worker: a listener that goes and comes again counts on.
        self._counters: dict[str, DatagramCounters] = {}
        #: Services whose listener is gone, and whose sessions are not; and sockets that are there for sessions alone.
        self._removed: list[DatagramService] = []
        self._retired: dict[SocketKey, _Retired] = {}
        self._by_inode: dict[int, Reception] = {}
        self._moving = Moving(loop, log)

    @property
    def every(self) -> tuple[DatagramService, ...]:
        """Those whose listener is gone, and those that serve one."""
        return (*self._removed, *self.services.values())

    @property
    def active(self) -> int:
        """Sessions that are there now."""
        return self._room.active

    # what is served ---------------------------------------------------------------------------------------------

    def serve(
        self, listener: Listener, limit: int | None, id_prefix: str, departures: Departures | None = None
    ) -> None:
        """Make what all sockets of `listener` share; or, where there is one of its name, have it do what this says.
        `limit`: this worker's part of its `max_sessions`. Sessions that are affected go to `departures`.
        """
        name, datagram = listener.name, listener.datagram
        if datagram is None:
            raise ValueError(f"{name} serves no datagrams")
        service = self.services.get(name)
        if service is not None and service.datagram.session is not datagram.session:
            self._end_service(service)
            service = None
        if service is None:
            rules = Rules.of(listener, datagrams=True)
            self._groups[name] = Groups(listener.targets, rules, self._target_pools[listener.pool_name])
            self.services[name] = DatagramService(
                loop=self._loop,
                spec=listener,
                datagram=datagram,
                log=self._log.of(listener.log),
                batches=self.batches,
                room=self._room,
                limit=limit,
                id_prefix=id_prefix,
                counters=self._counters.setdefault(name, DatagramCounters()),
            )
            return
        before = service.spec
        service.change(listener, datagram, limit)
        if before != listener:
            rules = Rules.of(listener, datagrams=True)
            self._groups[name].retarget(listener.targets, rules, self._target_pools[listener.pool_name])
            if departures is not None:
                departures.consider(service.table, before, listener, datagram=True)

    def attend(self, endpoint: Endpoint, sock: socket.socket) -> None:
        """Make what serves one socket of a listener, which it owns then. `open` begins to receive."""
        retired = self._retired.pop(endpoint.key, None)
        if retired is None:
            self._receivers[endpoint.key] = self._receiver(endpoint, sock)
            return
        # The very socket is wanted again before its last session was over: `sock` is another descriptor of it.
        sock.close()
        retired.receiver.retired = False
        self._receivers[endpoint.key] = retired.receiver
        self.keep(endpoint)

    def keep(self, endpoint: Endpoint) -> None:
        """Go on receiving from a socket that is there already, for the listener that has it now."""
        receiver = self._receivers[endpoint.key]
        service = self.services[endpoint.listener.name]
        if isinstance(receiver, SessionReceiver) is not (service.datagram.session is SessionMode.CLIENT):
            if isinstance(receiver, SessionReceiver):
                _end(receiver)
            receiver = self._receivers[endpoint.key] = self._receiver(endpoint, receiver.detach())
            receiver.open()
            return
        group = self._groups[endpoint.listener.name].of(endpoint)
        receiver.serve(service, group)
        if isinstance(receiver, SpreadingReceiver):
            receiver.spreader = self._spreader(service, group)

    def dismiss(self, endpoint: Endpoint, *, until: float | None) -> None:
        """Receive no more from a socket than its sessions are sent. They end once they fall silent, and `until` then
        at the latest (monotonic seconds); None: by their own timeout.
        """
        receiver = self._receivers.pop(endpoint.key)
        if isinstance(receiver, SpreadingReceiver):
            receiver.finish()
            self._released(receiver)
        elif isinstance(receiver, SessionReceiver):
            receiver.retired = True
            retired = self._retired[endpoint.key] = _Retired(receiver, until)
            self._look_at_retired(endpoint.key, retired)

    def give_way(self, covered: Covered, staying: Collection[SocketKey]) -> None:
        """Close at once what is only there for its sessions and has the address of somebody who is `covered` now: new
        clients would come to it. Not those that are `staying`, by their key.
        """
        for key, retired in list(self._retired.items()):
            if retired.receiver.address in covered and key not in staying:
                self._look_at_retired(key, replace(retired, until=self._loop.now))

    def remove(self, name: str, policy: OnChange | None, departures: Departures) -> None:
        """The listener `name` is gone. Its sessions go to `departures`, by `policy`, its `on_change`."""
        service = self.services.pop(name)
        del self._groups[name]
        self._removed.append(service)
        departures.consider(service.table, replace(service.spec, on_change=policy), None, datagram=True)

    def settle(self) -> None:
        """All has been said that changes: let go of ways that nobody uses any more."""
        used = {receiver.reception.group for receiver in self._receivers.values()}
        for group in [group for group in self._spreaders if group not in used]:
            self._spreaders.pop(group).close()
        for spreader in self._spreaders.values():
            spreader.prune()

    def limit(self, sessions: int) -> None:
        """From now on at most so many, over all listeners."""
        self._room.limit = sessions

    def _receiver(self, endpoint: Endpoint, sock: socket.socket) -> Receiver:
        service = self.services[endpoint.listener.name]
        group = self._groups[endpoint.listener.name].of(endpoint)
        if service.datagram.session is SessionMode.CLIENT:
            return SessionReceiver(service, sock, group)
        return SpreadingReceiver(service, sock, group, self._spreader(service, group))

    def _spreader(self, service: DatagramService, group: Group) -> Spreader:
        if group not in self._spreaders:
            self._spreaders[group] = Spreader(service, group)
        return self._spreaders[group]

    def _end_service(self, service: DatagramService) -> None:
        service.end_all(Outcome.REMOVED)
        service.retire()

    def open(self) -> None:
        """Begin to receive."""
        for receiver in self._receivers.values():
            receiver.open()

    def resolved(self, answer: Resolved, departures: Departures) -> None:
        """From now on a name means this. Sessions stay where they are (T3), but for those whose listener wants
        otherwise and whose address is gone: they go to `departures`.
        """
        for name, groups in self._groups.items():
            service = self.services[name]
            if service.spec.resolve == answer.resolve and groups.resolved(answer.name, answer.addresses, answer.shares):
                departures.gone(service.table, service.spec, answer.name, groups)
        self.states_changed()

    def of_target(self, pool: str, target: str) -> Iterator[tuple[Listener, list[LiveSession]]]:
        """By listener, the sessions to `target`, by its origin, of `pool`."""
        for service in self.every:
            if service.spec.pool_name == pool:
                yield service.spec, [one for one in service.table if one.choice.origin == target]

    def leave_target(self, pool: str, target: str) -> None:
        """It is down by its checks: its sessions go to other targets, where those are up and it may be."""
        for _, sessions in self.of_target(pool, target):
            self._moving.add(session for session in sessions if isinstance(session, Session))

    def states_changed(self) -> None:
        """Other targets are chosen now: let go of ways that nobody uses any more."""
        for spreader in self._spreaders.values():
            spreader.prune()

    # over a restart ---------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """Receive no more: what comes from now on waits in the sockets, for another process. What has come already is
        passed on.
        """
        for receiver in self._every_receiver():
            receiver.suspend()
        self.flush()

    def live(self) -> Iterator[tuple[Listener, socket.socket, list[Session]]]:
        """Every session, by listener and receiving socket."""
        for receiver in self._every_receiver():
            if isinstance(receiver, SessionReceiver):
                by_service: dict[DatagramService, list[Session]] = {}
                for session in receiver.sessions:
                    by_service.setdefault(session.service, []).append(session)
                for service, sessions in by_service.items():
                    yield service.spec, receiver.reception.sock, sessions

    def receiver(self, inode: int) -> Reception | None:
        """Where the sessions belong of the receiving socket with this inode; None: nobody has it any more."""
        if not self._by_inode:
            self._by_inode = {
                os.fstat(receiver.reception.sock.fileno()).st_ino: receiver.reception
                for receiver in self._receivers.values()
                if isinstance(receiver, SessionReceiver)
            }
        return self._by_inode.get(inode)

    def settle_sessions(self) -> None:
        """All sessions are there that come from other processes."""
        self._by_inode.clear()
        for service in self.services.values():
            service.settle()

    def closed(self, name: str) -> defaultdict[Outcome, int]:
        """The counts of how sessions of the listener `name` have ended."""
        return self._counters.setdefault(name, DatagramCounters()).closed

    def _every_receiver(self) -> Iterator[Receiver]:
        yield from self._receivers.values()
        yield from (retired.receiver for retired in self._retired.values())

    # once a second ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Between two handlers: say what was lost, if anything was, give back memory that nobody uses, and close what
        was there for sessions that are over now.
        """
        if self._room.active:
            self._idle = False
        elif not self._idle:
            self._idle = True
            self.batches.trim()
        for receiver in self._receivers.values():
            receiver.count_lost()
        for service in self.every:
            service.tell_drops()
        for key, retired in list(self._retired.items()):
            self._look_at_retired(key, retired)
        for service in [service for service in self._removed if not service.table]:
            self._removed.remove(service)
            service.retire()

    def _look_at_retired(self, key: SocketKey, retired: _Retired) -> None:
        if retired.over(self._loop.now):
            del self._retired[key]
            retired.receiver.close()
            self._released(retired.receiver)

    def _released(self, receiver: Receiver) -> None:
        if self._on_release is not None:
            self._on_release(receiver.address)

    def totals(self) -> Iterator[DatagramTotals]:
        """The counts of every listener, those that are gone included."""
        return (counters.snapshot(name) for name, counters in self._counters.items())

    def targets(self) -> Counter[tuple[str, str, Target | None, str]]:
        """How many sessions there are of each listener, in its pool, to each target, and to which origin of it."""
        return Counter(
            (service.spec.name, service.spec.pool_name, session.target, session.choice.origin)
            for service in self.every
            for session in service.table
        )

    def watched(self) -> Iterator[Watched]:
        """The sessions of every listener, for lines about their progress."""
        for service in self.every:
            yield Watched(service.log, Event.SESSION_PROGRESS, service.table, _living_record)

    # the end ----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Begin no more sessions (R6). Those that are there go on until they are silent; what has no sessions passes on
        what has arrived, and ends."""
        for service in self.every:
            service.drain()
        for receiver in self._receivers.values():
            if isinstance(receiver, SpreadingReceiver):
                receiver.finish()

    def end_all(self, outcome: Outcome) -> None:
        """End every session, and close every socket."""
        for service in self.every:
            service.end_all(outcome)
        for receiver in self._every_receiver():
            receiver.close()
        for spreader in self._spreaders.values():
            spreader.close()


def _end(receiver: SessionReceiver) -> None:
    for session in list(receiver.sessions):
        session.end(Outcome.REMOVED)


def _living_record(session: Session) -> AccessRecord | None:
    return None if session.phase is Phase.CLOSED else session_record(session, LIVING, session.service.loop.now)
