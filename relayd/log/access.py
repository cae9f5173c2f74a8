"""What is known of a connection or a session when it has ended (O1): the one value behind every access line."""

from dataclasses import dataclass

from relayd.outcomes import Outcome, Side


@dataclass(slots=True)
class AccessRecord:
    """One ended connection or session. Milliseconds and bytes; None: it never happened, or is not known of this kind of
    socket.

    `type` "tcp", "unix", "udp" or "unix_dgram", as the client came. `client` without its port: an address,
    `unix:/path`, or `unix:` for a Unix client that did not bind; `client_port` 0 for Unix. `local` is where the client
    arrived, `target` the last one dialled, "" when none was, both as `str(address)`. `start_time` seconds since the
    epoch. `errno` 0: no error. Not frozen, because a frozen dataclass takes three times as long to make, and one is
    made per connection.
    """

    conn_id: str
    listener: str
    type: str
    client: str
    client_port: int
    local: str
    target: str
    attempts: int
    start_time: float
    connect_ms: float | None
    first_byte_ms: float | None
    duration_ms: float
    bytes_in: int
    bytes_out: int
    outcome: Outcome
    side: Side
    errno: int
    rtt_ms: float | None
    retrans: int | None
    #: Of a session only, and None tells a connection from one: what came from the client and from the target, and how
    #: many of both were not passed on.
    datagrams_in: int | None = None
    datagrams_out: int = 0
    datagrams_dropped: int = 0
    #: Of what has happened to relayd while it lived.
    reloads_survived: int = 0
    restarts_survived: int = 0
