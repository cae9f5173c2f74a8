"""The worker process: `python -m relayd.relay.worker FD`, started by the control process.

FD is its end of the channel. It waits for Configure and the listening sockets, and for what it is to go on with that
another process has had, answers Ready, relays, and sends a Report every second. Drain and Stop end it, and HandOver,
after which others go on with what it had (R4); so does the loss of the control process: then it accepts no more, lets
its connections finish within drain_timeout, and exits, so that the next daemon can have the addresses. Those of
datagrams it lets go of at once: a client is known by its address, and the next daemon takes it up with the next
datagram.

Imports the standard library and relayd, nothing else.
"""

import contextlib
import gc
import itertools
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from relayd.address import SocketAddress
from relayd.channel import Channel, ChannelClosed, parcel
from relayd.channel.messages import (
    REPORT_INTERVAL_S,
    Adopt,
    AllAdopted,
    Change,
    Changed,
    Configure,
    Count,
    Counted,
    Drain,
    HandedOver,
    HandOver,
    Kill,
    LiveCount,
    LogLevel,
    Look,
    Message,
    Parcels,
    Ready,
    Released,
    Report,
    Resolved,
    Stop,
    TargetStates,
)
from relayd.channel.parcel import Label
from relayd.choosing.pool import Pools
from relayd.counters import DatagramTotals, ListenerTotals, WorkerTotals
from relayd.log.events import Event
from relayd.log.logger import Logger, open_logger
from relayd.net.pipes import PipePool
from relayd.net.poller import IN, OUT
from relayd.outcomes import Outcome
from relayd.relay.datagram.services import DatagramServices
from relayd.relay.datagram.view import SessionView
from relayd.relay.departures import Departures, Disabled
from relayd.relay.failures import Failures
from relayd.relay.handover import Arrivals, Packer
from relayd.relay.limits import Admission
from relayd.relay.live import Lives
from relayd.relay.loop import Actor, Loop, WakeUp
from relayd.relay.progress import Progress, Watched
from relayd.relay.stream.services import StreamServices
from relayd.relay.stream.view import ConnectionView
from relayd.spec import Listener, OnChange, Spec
from relayd.spec.budget import budget_of
from relayd.spec.sockets import Covered, Endpoint, SocketKey, endpoints, endpoints_of, session_share

#: How often a draining worker looks whether its last connection has ended.
_DRAIN_LOOK_S = 0.02
#: How long an ending worker waits for the control process to take what it has to say.
_LAST_WORDS_MS = 1000
#: Exit status after a bug (EX_SOFTWARE of sysexits.h).
EXIT_BUG = 70
#: Thresholds of the garbage collector: of what a worker makes, nearly everything is freed by reference counting, and
#: what it was configured with stays. With Python's own 700, collections are a third of the boot with 8,000 listeners.
_GC_THRESHOLDS = (50_000, 20, 100)


class Worker:
    """One worker: channel, loop, services. Owns everything that it was sent.

    A start is a change from nothing: `_change` does both.
    """

    def __init__(
        self,
        channel: Channel,
        configure: Configure,
        sockets: list[int],
        adopted: Iterable[tuple[Label, list[int]]] | None = None,
    ) -> None:
        """`sockets` are beside `configure`, `adopted` is what other processes have had: batches of parcels. What that
        raises comes out here.
        """
        spec = configure.spec
        self._channel = channel
        self._number = configure.worker
        self._log: Logger = open_logger(spec.log, worker=configure.worker)
        self._loop = Loop(self._log.flush)
        self._log.on_rest = WakeUp(self._loop).after
        limits = budget_of(spec, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._admission = Admission(limits.connections)
        self._pipes = PipePool(limits.pipes)
        heard = Failures(self._loop, self._log, self._send)
        self._target_pools = Pools(configure.worker, spec.workers, heard)
        self._streams = StreamServices(self._loop, self._log, self._admission, self._pipes, self._target_pools)
        self._datagrams: DatagramServices | None = None
        self._lives = Lives(self._loop, self._log, self._send)
        self._lives.views.append(ConnectionView(self._streams, self._number))
        self._progress = Progress(self._loop, self._log)
        #: Of what others have had, as `Arrivals` counts it.
        self._went_on = self._told = {False: 0, True: 0}
        self._drain_until: float | None = None
        #: The number of the last change.
        self._changed = 0
        #: How what is left ends when this worker does.
        self._last_outcome = Outcome.SHUTDOWN
        self._report_at = self._loop.now + REPORT_INTERVAL_S
        self._reported: dict[tuple[str, type], ListenerTotals | DatagramTotals] = {}
        self._timer: set[Actor] = set()
        #: Connection ids stay unique when a worker is replaced: three random bytes for the life of this one.
        self._id_prefix = f"{os.urandom(3).hex()}-"
        self._id_prefixes: dict[str, str] = {}
        self._spec = replace(spec, listeners=())
        self._listeners: dict[str, Listener] = {}
        self._change(spec, sockets, adopted)

    def _change(self, spec: Spec, sockets: list[int], adopted: Iterable[tuple[Label, list[int]]] | None = None) -> None:
        """From now on relay what `spec` says. `sockets` are those of its endpoints that were not there before, in their
        order.
        """
        old, self._spec = self._spec, spec
        self._listeners = {listener.name: listener for listener in spec.listeners}
        self._log.change(spec.log)
        limits = budget_of(spec, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        if self._datagrams is None and any(listener.datagram is not None for listener in spec.listeners):
            self._datagrams = DatagramServices(
                self._loop, self._log, limits.sessions, on_release=self._released, pools=self._target_pools
            )
            self._lives.views.append(SessionView(self._datagrams, self._number))
            self._loop.flush = self._flush
        departures = Departures(self._loop, self._log, self._listener, spec.drain_timeout_s)
        before = {endpoint.key: endpoint for endpoint in endpoints_of(old, self._number)}
        after = list(endpoints_of(spec, self._number))
        # First, for what waits in a backlog belongs to the listener that goes.
        self._dismiss(before, after, {listener.name: listener.on_change for listener in spec.listeners})
        self._admission.limit, self._pipes.limit = limits.connections, limits.pipes
        if self._datagrams is not None:
            self._datagrams.limit(limits.sessions)
        self._change_listeners(old, spec, departures)
        self._attend(before.keys(), after, sockets)
        self._adopt(adopted, departures)
        if self._datagrams is not None:
            self._datagrams.open()
            self._datagrams.settle()
        departures.begin()

    def _adopt(self, adopted: Iterable[tuple[Label, list[int]]] | None, departures: Departures) -> None:
        """Go on with what other processes have had. Before sockets for datagrams are read: their clients are known."""
        if adopted is not None:
            arrivals = Arrivals(self._streams, self._datagrams, self._log, departures)
            for label, fds in adopted:
                arrivals.take(label, fds)
            arrivals.settle()
            self._went_on, self._told = arrivals.went_on, arrivals.told

    def _listener(self, name: str) -> Listener | None:
        """The one of this name that is in force, if there is one."""
        return self._listeners.get(name)

    def _change_listeners(self, old: Spec, spec: Spec, departures: Departures) -> None:
        """Make, change and remove what the sockets of a listener share, for each of its types."""
        streams = {listener.name for listener in spec.listeners if listener.stream is not None}
        datagrams = {listener.name for listener in spec.listeners if listener.datagram is not None}
        for listener in old.listeners:
            now = self._listener(listener.name)  # without this type, perhaps
            policy = listener.on_change if now is None else now.on_change
            if listener.stream is not None and listener.name not in streams:
                self._streams.remove(listener.name, policy, departures)
            if self._datagrams is not None and listener.datagram is not None and listener.name not in datagrams:
                self._datagrams.remove(listener.name, policy, departures)
        for listener in spec.listeners:
            prefix = self._prefix(listener.name, alone=len(spec.listeners) == 1)
            if listener.stream is not None:
                self._streams.serve(listener, prefix, departures)
            if listener.datagram is not None and self._datagrams is not None:
                share = session_share(listener, spec, self._number)
                # Connections and sessions of one listener are counted apart, and their ids shall not meet.
                self._datagrams.serve(listener, share, f"{prefix}d", departures)

    def _dismiss(
        self, before: Mapping[SocketKey, Endpoint], after: Sequence[Endpoint], policies: Mapping[str, OnChange | None]
    ) -> None:
        """Let go of the sockets that are not there any more. `policies` are those of the listeners to come, by name."""
        staying = {endpoint.key for endpoint in after}
        covered = Covered(endpoint for endpoint in endpoints(self._spec) if endpoint.datagram)
        if self._datagrams is not None:
            self._datagrams.give_way(covered, staying)
        for key in before.keys() - staying:
            endpoint = before[key]
            if not endpoint.datagram:
                self._streams.dismiss(endpoint)
            elif self._datagrams is not None:
                policy = policies.get(endpoint.listener.name, endpoint.listener.on_change)
                until = None if policy is OnChange.KEEP else self._loop.now + self._spec.drain_timeout_s
                self._datagrams.dismiss(endpoint, until=self._loop.now if endpoint.address in covered else until)

    def _attend(self, before: Collection[SocketKey], after: Iterable[Endpoint], sockets: Iterable[int]) -> None:
        """Serve on every socket: those that stay, and `sockets`, the new ones, in order."""
        fds = iter(sockets)
        for endpoint in after:
            kept = endpoint.key in before
            if not endpoint.datagram:
                self._streams.keep(endpoint) if kept else self._streams.attend(endpoint, next(fds))
            elif self._datagrams is not None:
                if kept:
                    self._datagrams.keep(endpoint)
                else:
                    af = -1 if endpoint.from_systemd else endpoint.address.family.af  # -1: ask the socket itself
                    self._datagrams.attend(endpoint, socket.socket(af, socket.SOCK_DGRAM, fileno=next(fds)))

    def _prefix(self, name: str, *, alone: bool) -> str:
        """What the ids of a listener's connections begin with: the same for as long as this worker lives."""
        if name not in self._id_prefixes:
            number = len(self._id_prefixes)
            self._id_prefixes[name] = self._id_prefix if alone and not number else f"{self._id_prefix}{number}-"
        return self._id_prefixes[name]

    def run(self, lost: int, messages: list[tuple[Message, list[int]]]) -> None:
        """Say that it is ready, having `lost` so many batches, and relay until told to stop, or until the last
        connection of a drain has ended. Obeys `messages` first.
        """
        loop = self._loop
        loop.selector.register(self._channel, IN, self.on_channel)
        if self._active:  # others have had them
            self._report()
        went_on, told = self._went_on, self._told
        self._send(Ready(os.getpid(), went_on[False], went_on[True], told[False], told[True], lost))
        self._timer = loop.call_at(self, self._report_at)
        for message, fds in messages:
            self.obey(message, fds)
        # What lives from here to the end is not worth looking at again; connections are freed by reference counting.
        gc.collect()
        gc.freeze()
        loop.run()
        self._streams.end_all(self._last_outcome)
        if self._datagrams is not None:
            self._datagrams.end_all(self._last_outcome)
        self._report()
        self._send_rest()
        self._log.drain()

    def _send_rest(self) -> None:
        """Have control hear the last words, if it listens."""
        poll = select.poll()
        while self._channel.fileno() != -1 and self._channel.backlog:
            poll.register(self._channel, select.POLLOUT)
            if not poll.poll(_LAST_WORDS_MS):
                return
            self._flush_channel()

    def _flush(self) -> None:
        """The end of a turn, where datagrams are served."""
        if self._datagrams is not None:
            self._datagrams.flush()
        self._log.flush()

    def on_channel(self, mask: int) -> None:
        """Handler of the channel: obey."""
        try:
            if mask & OUT:
                self._channel.flush()
                self._watch_channel()
            for message, fds in self._channel.receive():
                self.obey(message, fds)
        except ChannelClosed:
            self._control_lost()

    def obey(self, message: Message, fds: list[int]) -> None:
        """Do what the control process says. Owns `fds`."""
        if isinstance(message, Change):
            self._change(message.spec, fds)
            self._loop.reloads += 1
            gc.collect()  # what has gone leaves circles behind, which by our thresholds would stay for ever
            self._changed = message.number
            self._loop.again(self._after_this_turn)
        elif isinstance(message, Resolved):
            departures = Departures(self._loop, self._log, self._listener, self._spec.drain_timeout_s)
            self._streams.resolved(message, departures)
            if self._datagrams is not None:
                self._datagrams.resolved(message, departures)
            departures.begin()
        elif isinstance(message, TargetStates):
            self._say(message)
        elif isinstance(message, LogLevel):
            self._log.change(replace(self._spec.log, level=message.level))
        elif isinstance(message, Count):
            self._send(Counted(message.number, tuple(self._counts())))
        elif isinstance(message, Look):
            self._lives.look(message)
        elif isinstance(message, Kill):
            self._lives.kill(message)
        elif isinstance(message, Drain):
            self._drain(message.timeout_s)
        elif isinstance(message, HandOver):
            self._hand_over([socket.socket(fileno=fd) for fd in fds])
        elif isinstance(message, Stop):
            self._loop.running = False

    def _say(self, message: TargetStates) -> None:
        """Targets have other states now."""
        disabled, down = self._target_pools.say(message.states, self._loop.now)
        if self._datagrams is not None:
            self._datagrams.states_changed()
        leaving = Disabled(self._loop, self._log, self._target_pools.disabled, self._spec.drain_timeout_s)
        for pool, target in disabled:
            for services in (self._streams, self._datagrams):
                if services is not None:
                    for listener, live in services.of_target(pool, target):
                        leaving.consider(live, listener, target)
        leaving.begin()
        if self._datagrams is not None:
            for pool, target in down:
                self._datagrams.leave_target(pool, target)

    def _after_this_turn(self) -> None:
        """What the change has closed is closed as its turn ends. From then on nobody comes there: control is told."""
        self._loop.again(self._tell_changed)

    def _tell_changed(self) -> None:
        self._send(Changed(self._changed))

    def _hand_over(self, parcels: list[socket.socket]) -> None:
        """Into the parcels with everything, and that is the end (R4). Owns `parcels`."""
        self._streams.suspend()
        packer = Packer(parcels)
        for listener, connections in self._streams.live():
            packer.pack_streams(listener, connections)
        if self._datagrams is not None:
            self._datagrams.suspend()
            for listener, sock, sessions in self._datagrams.live():
                packer.pack_sessions(listener, sock, sessions)
        packer.close()
        if self._active:
            self._last_outcome = Outcome.NOT_TAKEN_OVER
        self._send(HandedOver(packer.connections, packer.sessions, self._active))
        self._loop.running = False

    def expire(self) -> None:
        """Report every second. While draining, look more often whether it is over."""
        loop = self._loop
        if loop.now >= self._report_at:
            self._report_at = loop.now + REPORT_INTERVAL_S
            if self._datagrams is not None:
                self._datagrams.look()
            self._report()
            self._streams.look()
            self._lives.forget()
            self._progress.look(self._watched())
        at = self._report_at
        if self._drain_until is not None:
            if self._active == 0 or loop.now >= self._drain_until:
                loop.running = False
                return  # `run` closes what is left
            at = min(at, loop.now + _DRAIN_LOOK_S, self._drain_until)
        self._timer = loop.call_at(self, at)

    def crashed(self, error: Exception) -> None:
        """A bug in the worker itself: there is no connection to end, so this process ends, and is replaced."""
        self._log.bug("ends this worker", error)
        self._log.drain()
        os._exit(EXIT_BUG)

    @property
    def _active(self) -> int:
        """Connections and sessions that are open."""
        return self._streams.active + (self._datagrams.active if self._datagrams is not None else 0)

    def _counts(self) -> Iterator[LiveCount]:
        """Connections and sessions by listener and target, and by address of it."""
        for datagram, services in ((False, self._streams), (True, self._datagrams)):
            if services is not None:
                for (listener, pool, target, origin), count in services.targets().items():
                    yield LiveCount(listener, datagram, target, count, origin, pool)

    def _watched(self) -> Iterator[Watched]:
        yield from self._streams.watched()
        if self._datagrams is not None:
            yield from self._datagrams.watched()

    def _released(self, address: SocketAddress) -> None:
        self._send(Released(address))

    def _drain(self, timeout_s: float) -> None:
        self._streams.drain()
        if self._datagrams is not None:
            self._datagrams.drain()
        self._report()  # the operator who stops us wants to know now how many are left
        self._drain_until = self._loop.now + timeout_s
        self._timer.discard(self)
        self._timer = self._loop.call_at(self, self._loop.now)

    def _control_lost(self) -> None:
        if self._channel.fileno() == -1:
            return
        self._loop.selector.unregister(self._channel)
        self._channel.close()
        if self._datagrams is not None:
            self._datagrams.end_all(Outcome.SHUTDOWN)
        self._log.event(
            Event.CONTROL_LOST,
            f"the control process is gone: accepting no more; {self._admission.active} connections have "
            f"{self._spec.drain_timeout_s:g}s to finish",
            active=self._admission.active,
        )
        if self._drain_until is None:
            self._drain(self._spec.drain_timeout_s)

    def _report(self) -> None:
        if self._channel.fileno() == -1:
            return
        if self._channel.backlog:  # control does not read: the next report says it all
            self._flush_channel()
            return
        totals: list[ListenerTotals | DatagramTotals] = []
        totals += self._streams.totals()
        if self._datagrams is not None:
            totals += self._datagrams.totals()
        changed = [each for each in totals if self._reported.get((each.listener, type(each))) != each]
        self._reported.update(((each.listener, type(each)), each) for each in changed)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        of_itself = WorkerTotals(self._loop.lag.snapshot(), self._log.lost, usage.ru_utime + usage.ru_stime)
        self._send(Report(tuple(changed), of_itself))

    def _flush_channel(self) -> None:
        try:
            self._channel.flush()
        except ChannelClosed:
            self._control_lost()
        else:
            self._watch_channel()

    def _send(self, message: Message) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            self._control_lost()
        else:
            self._watch_channel()

    def _watch_channel(self) -> None:
        # Level-triggered, so writability is asked for only while something waits.
        wanted = IN | OUT if self._channel.blocked else IN
        if self._loop.selector.get_key(self._channel).events != wanted:
            self._loop.selector.modify(self._channel, wanted, self.on_channel)


class Briefing:
    """What the control process says before this worker begins: Configure, with `sockets`, and then, where that says so,
    what other processes have had, up to AllAdopted. Whoever asks owns the descriptors.
    """

    def __init__(self, channel: Channel) -> None:
        """Wait for Configure. Raises ChannelClosed, also for anything else."""
        self._channel = channel
        self._poll = select.poll()  # not select(): with a thousand listeners a descriptor may be above 1023
        self._poll.register(channel, select.POLLIN)
        #: Out of Parcels: connections, and batches that nobody understands.
        self._taken = 0
        self.lost = 0
        #: What has come and was not asked for yet: in the end, what is to be obeyed after the start.
        self.rest: list[tuple[Message, list[int]]] = []
        while not self.rest:
            self._receive()
        message, self.sockets = self.rest.pop(0)
        if not isinstance(message, Configure):
            raise ChannelClosed(f"expected Configure, got {type(message).__name__}")
        self.configure = message

    def _receive(self) -> None:
        self._poll.poll()
        self.rest += self._channel.receive()

    def adopted(self) -> Iterator[tuple[Label, list[int]]]:
        """Batches of parcels, each as soon as it is here. To be asked once, where Configure says `adopting`. Raises
        ChannelClosed.
        """
        waiting = True
        while waiting:
            came, self.rest = self.rest, []
            for message, fds in came:
                if isinstance(message, Adopt):
                    yield message.label, fds
                elif isinstance(message, Parcels):
                    yield from self._shared(message.share, fds)
                elif isinstance(message, AllAdopted):
                    waiting = False
                else:
                    self.rest.append((message, fds))
            if waiting:
                self._receive()

    def _shared(self, share: int, parcels: list[int]) -> Iterator[tuple[Label, list[int]]]:
        """Batches that nobody else has taken, up to `share` connections."""
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket(fileno=kept)) for kept in parcels]
            for label, fds in itertools.chain.from_iterable(map(parcel.read, socks)):
                if label is not None:
                    self._taken += label.count
                    yield label, fds
                else:
                    self.lost += 1
                    for fd in fds:
                        os.close(fd)
                if self._taken >= share:
                    return


def main() -> None:
    """Entry point; see the module's docstring. Ends the process: 0 after Drain, Stop or the loss of control."""
    # Ctrl-C, a closing terminal, a stop and a restart are the control process's business; it says what to do. A signal
    # to the whole service (systemctl kill) must not cut what it is about to drain, or to hand over.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    gc.set_threshold(*_GC_THRESHOLDS)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        briefing = Briefing(channel)
        adopted = briefing.adopted() if briefing.configure.adopting else None
        worker = Worker(channel, briefing.configure, briefing.sockets, adopted)
    except ChannelClosed as error:
        print(f"no configuration from the control process: {error}", file=sys.stderr)  # noqa: T201  # it reads this
        sys.exit(1)
    worker.run(briefing.lost, briefing.rest)
    sys.stdout.flush()
    # The log is written, and every connection has had its line, or is somebody else's now. To close them is the
    # kernel's: it takes half the time. And the interpreter's own end takes 20 ms.
    os._exit(0)


if __name__ == "__main__":
    main()
