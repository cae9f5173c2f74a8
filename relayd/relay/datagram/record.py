"""What is told of a session: of one that has ended, to the log; of one that lives, to whoever looks."""

import socket
from typing import Protocol

from relayd import clock
from relayd.channel.live import Rates, course, head, line
from relayd.choosing.group import Choice
from relayd.log.access import AccessRecord
from relayd.outcomes import Outcome
from relayd.relay.datagram.reception import Reception
from relayd.relay.datagram.service import DatagramService
from relayd.relay.datagram.sessions import STEP_S

#: Ends that an errno explains.
_FAILURES = frozenset({Outcome.TARGET_REFUSED, Outcome.TARGET_UNREACHABLE, Outcome.RESOURCE_EXHAUSTED})


class Recorded(Protocol):
    """What a session knows about itself. Times are monotonic seconds; `first_reply_at` 0: it got none."""

    @property
    def receiver(self) -> Reception:
        """Where its client came to."""

    @property
    def service(self) -> DatagramService:
        """Its listener's, as it was when the session began."""

    @property
    def conn_id(self) -> str:
        """What the log calls it."""

    key: bytes
    choice: Choice
    attempts: int
    errno: int
    started_at: float
    first_reply_at: float
    datagrams_in: int
    datagrams_out: int
    bytes_in: int
    bytes_out: int
    dropped: int
    reloads_before: int
    restarts: int


def session_record(session: Recorded, outcome: Outcome, now: float) -> AccessRecord:
    """The record of `session`, which ends with `outcome`."""
    receiver = session.receiver
    service = session.service
    client, port = receiver.client_text(session.key)
    first = session.first_reply_at
    return AccessRecord(
        conn_id=session.conn_id,
        listener=service.spec.name,
        type="unix_dgram" if receiver.layout.af == socket.AF_UNIX else "udp",
        client=client,
        client_port=port,
        local=receiver.local_text(session.key),
        target=session.choice.label,
        pool=service.spec.pool_name,
        attempts=session.attempts,
        start_time=clock.wall() - (now - session.started_at),
        connect_ms=None,
        first_byte_ms=(first - session.started_at) * 1000 if first else None,
        duration_ms=(now - session.started_at) * 1000,
        bytes_in=session.bytes_in,
        bytes_out=session.bytes_out,
        outcome=outcome,
        side=outcome.side,
        errno=session.errno if outcome in _FAILURES else 0,
        rtt_ms=None,
        retrans=None,
        datagrams_in=session.datagrams_in,
        datagrams_out=session.datagrams_out,
        datagrams_dropped=session.dropped,
        reloads_survived=service.loop.reloads - session.reloads_before,
        restarts_survived=session.restarts,
    )


class LiveRecorded(Recorded, Protocol):
    """The same, of one that lives."""

    noted_until: float

    @property
    def held_up(self) -> bool:
        """True while the client takes no answers."""


def session_head(session: LiveRecorded, worker: int) -> str:
    """What its line begins with, in this worker."""
    receiver, spec = session.receiver, session.service.spec
    kind = "unix_dgram" if receiver.layout.af == socket.AF_UNIX else "udp"
    client, port = receiver.client_text(session.key)
    return head(
        session.conn_id, worker, spec.name, spec.pool_name, kind, client, port, receiver.local_text(session.key)
    )


def session_line(session: LiveRecorded, beginning: str, rates: Rates) -> str:
    """What there is to see of a live session. It was last used up to STEP_S later than is noted."""
    now = session.service.loop.now
    return line(
        beginning,
        course(session.choice.label, "held_up" if session.held_up else "relaying", None, None),
        now - session.started_at,
        max(0.0, now - session.noted_until + STEP_S),
        (session.bytes_in, session.bytes_out),
        rates,
        session.attempts,
        (session.datagrams_in, session.datagrams_out),
    )
