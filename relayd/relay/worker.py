"""The worker process: `python -m relayd.relay.worker FD`, started by the control process.

FD is its end of the channel. It waits for Configure and the listening sockets, answers Ready, relays, and sends a
Report every second. Drain and Stop end it; so does the loss of the control process: then it accepts no more, lets its
connections finish within drain_timeout, and exits, so that the next daemon can have the addresses. Those of datagrams
it lets go of at once: a client is known by its address, and the next daemon takes it up with the next datagram.

Imports the standard library and relayd, nothing else.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys

from relayd.address import InetAddress
from relayd.channel import Channel, ChannelClosed
from relayd.channel.messages import REPORT_INTERVAL_S, Configure, Drain, Message, Ready, Report, Resolved, Stop
from relayd.counters import DatagramTotals, ListenerTotals
from relayd.log.events import Event
from relayd.log.logger import Logger, open_logger
from relayd.net.pipes import PipePool
from relayd.net.poller import IN, OUT
from relayd.outcomes import Outcome
from relayd.relay.datagram.services import DatagramServices
from relayd.relay.group import Groups
from relayd.relay.limits import Admission
from relayd.relay.loop import Actor, Loop
from relayd.relay.stream.listener import AcceptingSocket, Acceptor
from relayd.relay.stream.service import StreamService
from relayd.spec import Listener
from relayd.spec.budget import budget_of
from relayd.spec.sockets import Endpoint, endpoints_of, session_share

#: How often a draining worker looks whether its last connection has ended.
_DRAIN_LOOK_S = 0.02
#: Exit status after a bug (EX_SOFTWARE of sysexits.h).
EXIT_BUG = 70
#: Thresholds of the garbage collector: of what a worker makes, nearly everything is freed by reference counting, and
#: what it was configured with stays. With Python's own 700, collections are a third of the boot with 8,000 listeners.
_GC_THRESHOLDS = (50_000, 20, 100)


class Worker:
    """One worker: channel, loop, services. Owns everything that it was sent."""

    def __init__(self, channel: Channel, configure: Configure, sockets: list[int]) -> None:
        spec = configure.spec
        self._channel = channel
        self._spec = spec
        self._log: Logger = open_logger(spec.log, worker=configure.worker)
        datagrams = any(listener.datagram is not None for listener in spec.listeners)
        self._loop = Loop(self._flush if datagrams else self._log.flush)
        limits = budget_of(spec, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._admission = Admission(limits.connections)
        self._pipes = PipePool(limits.pipes)
        self._services: dict[str, StreamService] = {}
        self._stream_groups: dict[str, Groups] = {}
        self._acceptors: list[Acceptor] = []
        self._datagrams = DatagramServices(self._loop, self._log, limits.sessions) if datagrams else None
        self._drain_until: float | None = None
        self._report_at = self._loop.now + REPORT_INTERVAL_S
        self._reported: dict[tuple[str, type], ListenerTotals | DatagramTotals] = {}
        self._timer: set[Actor] = set()
        self._backlogs = select.poll()
        #: Connection ids stay unique when a worker is replaced: three random bytes for the life of this one.
        prefix = f"{os.urandom(3).hex()}-"
        for number, listener in enumerate(spec.listeners):
            id_prefix = f"{prefix}{number}-" if len(spec.listeners) > 1 else prefix
            self._serve(listener, session_share(listener, spec.workers, configure.worker), id_prefix)
        for endpoint, fd in zip(endpoints_of(spec, configure.worker), sockets, strict=True):
            self._attend(endpoint, fd)

    def _serve(self, listener: Listener, session_limit: int | None, id_prefix: str) -> None:
        """Make what all sockets of `listener` share."""
        if listener.stream is not None:
            self._stream_groups[listener.name] = Groups(listener.targets)
            self._services[listener.name] = StreamService(
                loop=self._loop,
                spec=listener,
                stream=listener.stream,
                log=self._log,
                admission=self._admission,
                pipes=self._pipes,
                id_prefix=id_prefix,
            )
        if listener.datagram is not None and self._datagrams is not None:
            # Connections and sessions of one listener are counted apart, and their ids shall not meet.
            self._datagrams.serve(
                listener, session_limit, f"{id_prefix}d" if listener.stream is not None else id_prefix
            )

    def _attend(self, endpoint: Endpoint, fd: int) -> None:
        """Make what serves the listening socket `fd`, which it owns then."""
        if endpoint.datagram and self._datagrams is not None:
            self._datagrams.attend(endpoint, socket.socket(endpoint.address.family.af, socket.SOCK_DGRAM, fileno=fd))
            return
        name = endpoint.listener.name
        port = endpoint.address.port if isinstance(endpoint.address, InetAddress) else 0
        sock = AcceptingSocket(endpoint.address.family.af, socket.SOCK_STREAM, fileno=fd)
        group = self._stream_groups[name].at(port, endpoint.index)
        self._acceptors.append(Acceptor(self._services[name], sock, endpoint.address, group))

    def run(self, messages: list[Message]) -> None:
        """Relay until told to stop, or until the last connection of a drain has ended. Obeys `messages` first."""
        loop = self._loop
        loop.selector.register(self._channel, IN, self.on_channel)
        for acceptor in self._acceptors:
            acceptor.open()
            self._backlogs.register(acceptor.fileno(), select.POLLIN)
        if self._datagrams is not None:
            self._datagrams.open()
        self._send(Ready(os.getpid()))
        self._timer = loop.call_at(self, self._report_at)
        for message in messages:
            self.obey(message)
        # What lives from here to the end is not worth looking at again; connections are freed by reference counting.
        gc.collect()
        gc.freeze()
        loop.run()
        for service in self._services.values():
            service.end_all(Outcome.SHUTDOWN)
        if self._datagrams is not None:
            self._datagrams.end_all(Outcome.SHUTDOWN)
        loop.close_ended()
        self._report()
        self._log.flush()

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
                for fd in fds:
                    os.close(fd)
                self.obey(message)
        except ChannelClosed:
            self._control_lost()

    def obey(self, message: Message) -> None:
        """Do what the control process says."""
        if isinstance(message, Resolved):
            for groups in self._stream_groups.values():
                groups.resolved(message.name, message.addresses)
            if self._datagrams is not None:
                self._datagrams.resolved(message.name, message.addresses)
        elif isinstance(message, Drain):
            self._drain(message.timeout_s)
        elif isinstance(message, Stop):
            self._loop.running = False

    def expire(self) -> None:
        """Report every second. While draining, look more often whether it is over."""
        loop = self._loop
        if loop.now >= self._report_at:
            self._report_at = loop.now + REPORT_INTERVAL_S
            if self._datagrams is not None:
                self._datagrams.look()
            self._report()
            self._look_at_backlogs()
        at = self._report_at
        if self._drain_until is not None:
            if self._active == 0 or loop.now >= self._drain_until:
                loop.running = False
                return  # `run` closes what is left
            at = min(at, loop.now + _DRAIN_LOOK_S, self._drain_until)
        self._timer = loop.call_at(self, at)

    def _look_at_backlogs(self) -> None:
        """Take connections that wait for another worker, which was woken for them and does not take them."""
        if self._drain_until is None and (waiting := {fd for fd, _ in self._backlogs.poll(0)}):
            for acceptor in self._acceptors:
                if acceptor.fileno() in waiting:
                    self._loop.again(acceptor.look)

    def crashed(self, error: Exception) -> None:
        """A bug in the worker itself: there is no connection to end, so this process ends, and is replaced."""
        self._log.bug("ends this worker", error)
        self._log.flush()
        os._exit(EXIT_BUG)

    @property
    def _active(self) -> int:
        """Connections and sessions that are open."""
        return self._admission.active + (self._datagrams.active if self._datagrams is not None else 0)

    def _drain(self, timeout_s: float) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
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
        totals += (service.counters.snapshot(name) for name, service in self._services.items())
        if self._datagrams is not None:
            totals += self._datagrams.totals()
        changed = [each for each in totals if self._reported.get((each.listener, type(each))) != each]
        self._reported.update(((each.listener, type(each)), each) for each in changed)
        self._send(Report(tuple(changed)))

    def _flush_channel(self) -> None:
        try:
            self._channel.flush()
        except ChannelClosed:
            self._control_lost()
        else:
            self._watch_channel()

    def _send(self, message: Ready | Report) -> None:
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


def receive_configuration(channel: Channel) -> tuple[Configure, list[int], list[Message]]:
    """Wait for the Configure message: it, its listening sockets (the caller owns them), and whatever came right behind
    it. Raises ChannelClosed.
    """
    poll = select.poll()  # not select(): a daemon with a thousand listeners hands down a descriptor above 1023
    poll.register(channel, select.POLLIN)
    while True:
        poll.poll()
        received = list(channel.receive())
        if not received:
            continue
        (configure, fds), rest = received[0], [message for message, _ in received[1:]]
        if not isinstance(configure, Configure):
            raise ChannelClosed(f"expected Configure, got {type(configure).__name__}")
        return configure, fds, rest


def main() -> None:
    """Entry point; see the module's docstring. Ends the process: 0 after Drain, Stop or the loss of control."""
    # Ctrl-C, a closing terminal and a stop are the control process's business; it says what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A signal to the whole service (systemctl kill) must not cut what the control process is about to drain.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.set_threshold(*_GC_THRESHOLDS)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    try:
        configure, sockets, rest = receive_configuration(channel)
    except ChannelClosed as error:
        print(f"no configuration from the control process: {error}", file=sys.stderr)  # noqa: T201  # it reads this
        sys.exit(1)
    worker = Worker(channel, configure, sockets)
    worker.run(rest)
    sys.stdout.flush()
    os._exit(
        0
    )  # connections are closed and the log is written: skip the interpreter's own clearing up, which takes 20 ms


if __name__ == "__main__":
    main()
