"""A stand-in for relayd.relay.worker with one fault. Run as `fake_worker.py FAULT CHANNEL_FD`."""

import contextlib
import os
import select
import socket
import sys
import time

from relayd.channel import Channel, ChannelClosed, parcel
from relayd.channel.messages import (
    AllAdopted,
    Configure,
    Count,
    Counted,
    Drain,
    LiveCount,
    Parcels,
    Ready,
    Report,
    Resolved,
    Stop,
    TargetFailure,
    TargetFailures,
    TargetStates,
)
from relayd.counters import ListenerCounters


def main(fault: str, fd: int) -> int:
    if fault == "crashes":
        sys.stderr.write("Traceback ...\nModuleNotFoundError: no module named 'relay'\n")
        return 3
    if fault == "slow_start":
        time.sleep(0.5)  # longer than anybody waits before asking what is wrong
    channel = Channel(socket.socket(fileno=fd))
    resolved = 0
    ready = False
    taken = lost = 0
    while True:
        readable, _, _ = select.select([channel], [], [], 0.05)
        if ready and not readable and fault != "silent":
            # `accepted` says how many Resolved have come, so that a test can see them.
            channel.send(Report((ListenerCounters(accepted=resolved, active=2).snapshot("web"),)))
        try:
            for message, fds in channel.receive():
                if isinstance(message, Configure):
                    for listening in fds:
                        with socket.socket(fileno=listening) as sock:
                            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    if fault == "never_ready":
                        continue
                    if fault == "garbage":
                        os.write(fd, b".not json")
                        continue
                    ready = not message.adopting
                    if ready:
                        channel.send(Ready(os.getpid()))
                elif isinstance(message, Parcels):
                    for kept in fds:
                        with socket.socket(fileno=kept) as sock:
                            for label, batch in parcel.read(sock) if taken < message.share else ():
                                taken += label.count if label is not None else 0
                                lost += label is None
                                for each in batch:
                                    os.close(each)
                elif isinstance(message, AllAdopted):
                    if fault.startswith("dies_once:"):
                        with contextlib.suppress(FileExistsError), open(fault.partition(":")[2], "x"):
                            return 9
                    channel.send(Ready(os.getpid(), taken, lost=lost))
                    ready = True
                elif isinstance(message, Resolved):
                    resolved += 1
                elif isinstance(message, Count) and fault != "deaf":
                    counts = (LiveCount("web", False, None, 2, "a:1", "app"), LiveCount("web", True, None, 1))
                    channel.send(Counted(message.number, counts))
                elif isinstance(message, TargetStates):
                    # What it was told comes back, so that a test can see it.
                    told = [TargetFailure(state.pool, state.target, str(state.up), 1) for state in message.states]
                    channel.send(TargetFailures(tuple(told)))
                elif isinstance(message, (Drain, Stop)):
                    if fault == "deaf" or (fault == "slow" and isinstance(message, Drain)):
                        continue
                    return 0
        except ChannelClosed:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
