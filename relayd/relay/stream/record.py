"""What the log says about a connection that has ended. This module knows the insides of `Connection`."""

import socket
from typing import TYPE_CHECKING

from relayd import clock
from relayd.address import InetAddress, from_sockaddr
from relayd.log.access import AccessRecord
from relayd.net.tcp import path_info
from relayd.outcomes import Outcome

if TYPE_CHECKING:
    from relayd.relay.stream.connection import Connection


def connection_record(connection: "Connection", outcome: Outcome, number: int) -> AccessRecord:
    """What the log says about this connection. Before its sockets are closed: the kernel is asked about the
    client's.
    """
    service, choice, client = connection._service, connection.choice, connection._client
    bytes_in, bytes_out, first = 0, 0, 0.0
    if connection._pump_in is not None and connection._pump_out is not None:
        bytes_in, bytes_out = connection._pump_in.moved, connection._pump_out.moved
        first = connection._pump_out.first_byte_at
    started_at, now = connection._started_at, connection.loop.now
    af = connection._arrival.af
    path = None
    if af == socket.AF_INET:
        host, port = connection._client_sockaddr  # type: ignore[misc]  # (host, port), by its family
        path = path_info(client)
    else:
        peer = from_sockaddr(af, connection._client_sockaddr)
        host, port = (peer.host, peer.port) if isinstance(peer, InetAddress) else (str(peer), 0)
        path = path_info(client) if af == socket.AF_INET6 else None
    return AccessRecord(
        conn_id=connection.conn_id,
        listener=service.spec.name,
        type="unix" if af == socket.AF_UNIX else "tcp",
        client=host,
        client_port=port,
        local=connection._arrival.local or str(from_sockaddr(af, client.getsockname())),
        target=choice.label if choice is not None else "",
        pool=service.spec.pool_name,
        attempts=connection._attempts,
        start_time=clock.wall() - (now - started_at),
        connect_ms=(connection._connected_at - started_at) * 1000 if connection._connected_at else None,
        first_byte_ms=(first - started_at) * 1000 if first else None,
        duration_ms=(now - started_at) * 1000,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        outcome=outcome,
        side=(connection._first_fin or outcome.side) if outcome is Outcome.NORMAL else outcome.side,
        errno=number,
        rtt_ms=path.rtt_ms if path is not None else None,
        retrans=path.retrans if path is not None else None,
        reloads_survived=connection.loop.reloads - connection._reloads_before,
        restarts_survived=connection._restarts,
    )
