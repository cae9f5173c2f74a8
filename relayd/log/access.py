"""What is known of a connection or a session when it has ended (O1): the one value behind every access line, and behind
the lines about those that live."""

from relayd.outcomes import Outcome, Side
from relayd.values import dataclass

#: What a record of one that lives is made with.
LIVING = Outcome.NORMAL


@dataclass(slots=True)
class AccessRecord:
    """One ended connection or session. Milliseconds and bytes; None: it never happened, or is not known of this kind of
    socket. What stands above each field as `#:` is what docs/reference.md says of it.

    Of one that lives it says what is so by now, and `outcome` (LIVING), `side` and `errno` mean nothing.

    Not frozen, because a frozen dataclass takes three times as long to make, and one is made per connection.
    """

    #: Unique while the daemon runs, and the same before and after a restart that keeps the connection.
    conn_id: str
    #: Its name in relay.toml.
    listener: str
    #: `tcp`, `unix`, `udp` or `unix_dgram`, as the client came.
    type: str
    #: The client's address without its port; `unix:/path`, or `unix:` for a client without a name.
    client: str
    #: The client's port; 0 for Unix.
    client_port: int
    #: Where the client arrived.
    local: str
    #: The last target that was dialled; empty when none was.
    target: str
    #: The pool that the target is of: its name in relay.toml, or that of the listener whose own targets they are.
    pool: str
    #: Dials; of a session, targets that it has been connected to.
    attempts: int
    #: When the connection was accepted or the session began, seconds since the epoch.
    start_time: float
    #: Until the target had answered the dial; null: never, or a session.
    connect_ms: float | None
    #: Until the target's first byte or datagram; null: never.
    first_byte_ms: float | None
    #: From the beginning to the end.
    duration_ms: float
    #: From client to target. Of a session: what came from the client, passed on or not.
    bytes_in: int
    #: From target to client. Of a session: what came from the target, passed on or not.
    bytes_out: int
    #: How it ended.
    outcome: Outcome
    #: Who caused the end: `client`, `target` or `relay`.
    side: Side
    #: Of the error that ended it; 0: none.
    errno: int
    #: Round-trip time of the client's TCP connection, as far as the kernel knew it at the end; null: it is not TCP.
    rtt_ms: float | None
    #: Segments that were sent to the client again; null: it is not TCP.
    retrans: int | None
    #: Reloads there were while it lived.
    reloads_survived: int
    #: Restarts there were while it lived.
    restarts_survived: int
    # A session has these, and None tells a connection from one.
    #: Sessions only: datagrams that came from the client, passed on or not.
    datagrams_in: int | None = None
    #: Sessions only: datagrams that came from the target, passed on or not.
    datagrams_out: int = 0
    #: Sessions only: how many of both were not passed on, and what the kernel had to drop before that.
    datagrams_dropped: int = 0
