"""The worker process: `python -m relayd.relay.worker FD`, started by the control process.

FD is its end of the channel. It waits for Configure and the listening sockets, answers Ready, relays, and sends a
Report every second. Drain and Stop end it; so does the loss of the control process: then it accepts no more, lets its
connections finish within drain_timeout, and exits, so that the next daemon can have the addresses.

Imports the standard library and relayd, nothing else.
"""

import gc
import os
import resource
import select
import signal
import socket
import sys
import traceback

from relayd.channel import Channel, ChannelClosed
from relayd.channel.messages import REPORT_INTERVAL_S, Configure, Drain, Message, Ready, Report, Resolved, Stop
from relayd.counters import ListenerTotals
from relayd.log.events import Event
from relayd.log.logger import Logger, open_logger
from relayd.net.pipes import PipePool
from relayd.net.poller import IN, OUT
from relayd.outcomes import Outcome
from relayd.relay.group import Group
from relayd.relay.limits import Admission
from relayd.relay.loop import Actor, Loop
from relayd.relay.stream.listener import AcceptingSocket, Acceptor
from relayd.relay.stream.service import StreamService
from relayd.spec.budget import budget

#: How often a draining worker looks whether its last connection has ended.
_DRAIN_LOOK_S = 0.02
#: Exit status after a bug (EX_SOFTWARE of sysexits.h).
EXIT_BUG = 70
#: Thresholds of the garbage collector: of what a worker makes, nearly everything is freed by reference counting, and
#: what it was configured with stays. With Python's own 700, collections are a third of the boot with 8,000 listeners.
_GC_THRESHOLDS = (50_000, 20, 100)


class Worker:
    """One worker: channel, loop, services. Owns everything that it was sent."""

    def __init__(self, channel: Channel, configure: Configure, sockets: list[AcceptingSocket]) -> None:
        spec = configure.spec
        self._channel = channel
        self._spec = spec
        self._log: Logger = open_logger(spec.log, worker=configure.worker)
        self._loop = Loop(self._log.flush)
        limits = budget(resource.getrlimit(resource.RLIMIT_NOFILE)[0], spec.socket_count)
        self._admission = Admission(limits.connections)
        self._pipes = PipePool(limits.pipes)
        self._services: list[StreamService] = []
        self._acceptors: list[Acceptor] = []
        self._drain_until: float | None = None
        self._report_at = self._loop.now + REPORT_INTERVAL_S
        self._reported: dict[str, ListenerTotals] = {}
        self._timer: set[Actor] = set()
        self._backlogs = select.poll()
        #: Connection ids stay unique when a worker is replaced: three random bytes for the life of this one.
        prefix = f"{os.urandom(3).hex()}-"
        waiting = iter(sockets)
        for number, listener in enumerate(spec.listeners):
            service = StreamService(
                loop=self._loop,
                spec=listener,
                group=Group(listener.targets),
                log=self._log,
                admission=self._admission,
                pipes=self._pipes,
                id_prefix=f"{prefix}{number}-" if len(spec.listeners) > 1 else prefix,
            )
            self._services.append(service)
            self._acceptors += [Acceptor(service, next(waiting), bind) for bind in listener.binds]

    def run(self, messages: list[Message]) -> None:
        """Relay until told to stop, or until the last connection of a drain has ended. Obeys `messages` first."""
        loop = self._loop
        loop.selector.register(self._channel, IN, self.on_channel)
        for acceptor in self._acceptors:
            acceptor.open()
            self._backlogs.register(acceptor.fileno(), select.POLLIN)
        self._send(Ready(os.getpid()))
        self._timer = loop.call_at(self, self._report_at)
        for message in messages:
            self.obey(message)
        # What lives from here to the end is not worth looking at again; connections are freed by reference counting.
        gc.collect()
        gc.freeze()
        loop.run()
        for service in self._services:
            service.end_all(Outcome.SHUTDOWN)
        self._report()
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
            for service in self._services:
                service.group.resolved(message.name, message.addresses)
        elif isinstance(message, Drain):
            self._drain(message.timeout_s)
        elif isinstance(message, Stop):
            self._loop.running = False

    def expire(self) -> None:
        """Report every second. While draining, look more often whether it is over."""
        loop = self._loop
        if loop.now >= self._report_at:
            self._report_at = loop.now + REPORT_INTERVAL_S
            self._report()
            self._look_at_backlogs()
        at = self._report_at
        if self._drain_until is not None:
            if self._admission.active == 0 or loop.now >= self._drain_until:
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
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self._log.event(Event.INTERNAL_ERROR, f"a bug in relayd ends this worker: {error!r}", traceback=trace)
        self._log.flush()
        os._exit(EXIT_BUG)

    def _drain(self, timeout_s: float) -> None:
        for acceptor in self._acceptors:
            acceptor.close()
        self._report()  # the operator who stops us wants to know now how many are left
        self._drain_until = self._loop.now + timeout_s
        self._timer.discard(self)
        self._timer = self._loop.call_at(self, self._loop.now)

    def _control_lost(self) -> None:
        if self._channel.fileno() == -1:
            return
        self._loop.selector.unregister(self._channel)
        self._channel.close()
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
        changed = []
        for service in self._services:
            totals = service.counters.snapshot(service.spec.name)
            if self._reported.get(totals.listener) != totals:
                self._reported[totals.listener] = totals
                changed.append(totals)
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


def receive_configuration(channel: Channel) -> tuple[Configure, list[AcceptingSocket], list[Message]]:
    """Wait for the Configure message: it, its listening sockets, and whatever came right behind it. Raises
    ChannelClosed.
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
        return configure, [AcceptingSocket(fileno=fd) for fd in fds], rest


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
