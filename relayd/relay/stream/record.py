"""What is told of a connection: of one that has ended, to the log; of one that lives, to whoever looks. This module
knows the insides of `Connection`.
"""

import socket
from typing import TYPE_CHECKING

from relayd import clock
from relayd.address import InetAddress, from_sockaddr
from relayd.channel.live import NO_PATHS, Paths, Rates, course, head, line
from relayd.log.access import AccessRecord
from relayd.net.tcp import path_info
from relayd.outcomes import Outcome
from relayd.relay.stream.pump import Flow

if TYPE_CHECKING:
    from relayd.relay.stream.connection import Connection

#: What people are told of a pump. QUEUED goes on by itself in the next turn.
_FLOWS = {Flow.FLOWING: "open", Flow.QUEUED: "open", Flow.BLOCKED: "full", Flow.FINISHED: "ended"}


def connection_record(connection: "Connection", outcome: Outcome, number: int) -> AccessRecord:
    """What the log says about this connection. Before its sockets are closed: the kernel is asked about the
    client's.
    """
    service, choice, client = connection._service, connection.choice, connection._client
    bytes_in, bytes_out = connection.moved
    first = connection._pump_out.first_byte_at if connection._pump_out is not None else 0.0
    started_at, now = connection._started_at, connection.loop.now
    af = connection._arrival.af
    host, port = client_of(connection)
    path = path_info(client) if af != socket.AF_UNIX else None
    # By position, in the order of the class: by name it takes a microsecond longer, of each connection.
    return AccessRecord(
        connection.conn_id,
        service.spec.name,
        "unix" if af == socket.AF_UNIX else "tcp",
        host,
        port,
        connection._arrival.local or str(from_sockaddr(af, client.getsockname())),
        choice.label if choice is not None else "",
        service.spec.pool_name,
        connection._attempts,
        clock.wall() - (now - started_at),
        (connection._connected_at - started_at) * 1000 if connection._connected_at else None,
        (first - started_at) * 1000 if first else None,
        (now - started_at) * 1000,
        bytes_in,
        bytes_out,
        outcome,
        (connection._first_fin or outcome.side) if outcome is Outcome.NORMAL else outcome.side,
        number,
        path.rtt_ms if path is not None else None,
        path.retrans if path is not None else None,
        connection.loop.reloads - connection._reloads_before,
        connection._restarts,
    )


def client_of(connection: "Connection") -> tuple[str, int]:
    """Address and port of the client, for people; a Unix client has port 0."""
    af = connection._arrival.af
    if af == socket.AF_INET:
        return connection._client_sockaddr  # type: ignore[return-value]  # (host, port), by its family
    peer = from_sockaddr(af, connection._client_sockaddr)
    return (peer.host, peer.port) if isinstance(peer, InetAddress) else (str(peer), 0)


def connection_head(connection: "Connection", worker: int) -> str:
    """What its line begins with, in this worker."""
    service, arrival = connection._service, connection._arrival
    host, port = client_of(connection)
    return head(
        connection.conn_id,
        worker,
        service.spec.name,
        service.spec.pool_name,
        "unix" if arrival.af == socket.AF_UNIX else "tcp",
        host,
        port,
        arrival.local or str(from_sockaddr(arrival.af, connection._client.getsockname())),
    )


def connection_line(connection: "Connection", beginning: str, rates: Rates, *, tcp_info: bool) -> str:
    """What there is to see of a live connection. `tcp_info` is a system call for each TCP socket."""
    choice, now = connection.choice, connection.loop.now
    pump_in, pump_out = connection._pump_in, connection._pump_out
    return line(
        beginning,
        course(
            choice.label if choice is not None else "",
            connection.phase._value_,  # `.value` is a function written in Python
            None if pump_in is None else _FLOWS.get(pump_in.flow),
            None if pump_out is None else _FLOWS.get(pump_out.flow),
        ),
        now - connection._started_at,
        now - connection.active_at,
        (pump_in.moved, pump_out.moved) if pump_in is not None and pump_out is not None else (0, 0),
        rates,
        connection._attempts,
        None,
        _paths(connection) if tcp_info else NO_PATHS,
    )


def _paths(connection: "Connection") -> Paths:
    target, choice = connection._target, connection.choice
    ours = path_info(connection._client) if connection._arrival.af != socket.AF_UNIX else None
    theirs = None
    if target is not None and choice is not None and choice.af != socket.AF_UNIX:
        theirs = path_info(target)
    return Paths(*(ours or (None, None)), *(theirs or (None, None)))
