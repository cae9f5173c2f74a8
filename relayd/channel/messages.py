"""What control and a worker say to each other. Values only; file descriptors travel beside a message, not in it.

control → worker    Configure and Change (with listening sockets), Resolved, TargetStates, LogLevel, Count, Look, Kill,
                    Drain, Stop, Adopt (with connections or sessions), Parcels (with those), AllAdopted, HandOver (with
                    parcels)
worker → control    Ready, Changed, Released, Counted, Seen, Killed, Report, TargetFailures, HandedOver
"""

import enum
from typing import TypeAlias

from relayd.address import InetAddress, Name, SocketAddress
from relayd.channel.parcel import Label
from relayd.counters import DatagramTotals, ListenerTotals, WorkerTotals
from relayd.spec import Resolve, Share, Spec, Target, TargetState, Wanted
from relayd.values import dataclass

_UNSAID = Resolve()
_NOTHING_COUNTED = WorkerTotals()


@dataclass(frozen=True, slots=True)
class Configure:
    """Relay this. Sent once, first. Beside it: the listening sockets of `spec.sockets.endpoints_of(spec, worker)`, in
    that order. The worker owns the descriptors that it received. `adopting`: Adopt follows, any number of times, and
    AllAdopted, and not before that does the worker begin. So may Parcels, before them.
    """

    spec: Spec
    worker: int
    adopting: bool = False


@dataclass(frozen=True, slots=True)
class Adopt:
    """Go on with what another process has had: a batch of a parcel, whose descriptors are beside this and the worker's
    from now on.
    """

    label: Label


@dataclass(frozen=True, slots=True)
class Parcels:
    """Go on with what another process has had, connections only: batches of the parcels beside this, which are the
    worker's from now on, until it has `share` connections or nothing is left. Other workers do the same meanwhile.
    """

    share: int


@dataclass(frozen=True, slots=True)
class AllAdopted:
    """That was the last Adopt: begin."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Put all connections and sessions into the parcels beside this, into each what it takes, say HandedOver, and
    exit.
    """


@dataclass(frozen=True, slots=True)
class Change:
    """From now on relay this; `number` is that of the reload. Beside it: those of `endpoints_of(spec, worker)` that are
    not in the spec before (by their `key`), in that order. The worker owns the descriptors that it received.
    """

    spec: Spec
    number: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """New connections to `name` dial these, in this order, where their listener resolves names as `resolve` says. Never
    empty: the last good answer stays in force. `shares` are those of `addresses` where SRV records say them, in the
    same order; empty: each has that of its target.
    """

    name: Name
    addresses: tuple[InetAddress, ...]
    shares: tuple[Share, ...] = ()
    resolve: Resolve = _UNSAID

    @property
    def wanted(self) -> Wanted:
        """What this is the answer to."""
        return Wanted(self.name, self.resolve)


@dataclass(frozen=True, slots=True)
class TargetStates:
    """What is to be known of targets: of these; all others are up, and as the file has them."""

    states: tuple[TargetState, ...]


@dataclass(frozen=True, slots=True)
class LogLevel:
    """Log from this level on, until the next Change: that has a spec, which says it again."""

    level: str


@dataclass(frozen=True, slots=True)
class Count:
    """Say how many connections and sessions there are of each listener to each target: Counted. `number` comes back."""

    number: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Connections and sessions of which all this is true; None says nothing. `client` is an address or a network as
    `ipaddress` has them, without a scope, or the text of a Unix client; `target` is the label of it, as in the log.
    """

    conn_id: str | None = None
    listener: str | None = None
    client: str | None = None
    client_port: int | None = None
    target: str | None = None


class Sort(enum.Enum):
    """Which come first."""

    #: The oldest, and the youngest.
    AGE = "age"
    NEW = "new"
    #: Of which nothing has moved for longest.
    IDLE = "idle"
    #: Those that have moved most, both ways together; and that move most now.
    BYTES = "bytes"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Look:
    """Say what connections and sessions of `selection` do: Seen, as often as it takes, with `limit` of them at most,
    the first by `sort`. `tcp_info`: ask the kernel about each. `number` comes back.
    """

    number: int
    selection: Selection
    sort: Sort
    limit: int
    tcp_info: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """End the connections and sessions of `selection` (`killed`), and say Killed. `number` comes back."""

    number: int
    selection: Selection


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept no more; exit when the last connection has ended, or close what is left (`shutdown`) after `timeout_s`."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Close everything now (`shutdown`) and exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker accepts on every listening socket of its Configure. Of what it was to adopt it goes on with so many
    connections and sessions, others have ended, with a line of its log (`told`), and so many batches out of Parcels are
    `lost`: it did not understand them.
    """

    pid: int
    connections: int = 0
    sessions: int = 0
    told_connections: int = 0
    told_sessions: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Changed:
    """The worker does what the Change of this number says."""

    number: int


@dataclass(frozen=True, slots=True)
class Released:
    """The worker has closed the datagram socket of `address`, which a Change had removed: its last session is over."""

    address: SocketAddress


@dataclass(frozen=True, slots=True)
class HandedOver:
    """So many are in the parcels; `left` are not, for the kernel has not taken them, and end."""

    connections: int
    sessions: int
    left: int


@dataclass(frozen=True, slots=True)
class LiveCount:
    """How many connections, or sessions where `datagram`, of `listener` go to `target` now; None: they still dial.
    `origin` (`spec.Target.origin`) is which address of it in `pool`; "": none has been chosen.
    """

    listener: str
    datagram: bool
    target: Target | None
    count: int
    origin: str = ""
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """The answer to the Count of this number."""

    number: int
    counts: tuple[LiveCount, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """Some of the answer to the Look of this number: `count` lines, in no order, and their places, packed as
    `channel.live` does. `last`: there is no more, and `matched` of them there are in all.
    """

    number: int
    matched: int
    count: int
    last: bool
    rows: bytes = b""


@dataclass(frozen=True, slots=True)
class Killed:
    """The answer to the Kill of this number: so many have ended."""

    number: int
    count: int


@dataclass(frozen=True, slots=True)
class TargetFailure:
    """`count` clients, of streams or `datagrams`, have met `target` (`spec.Target.origin`) of `pool` failing, for
    `reason`. Not `news`: it has been found well since they set out.
    """

    pool: str
    target: str
    reason: str
    count: int
    datagrams: bool = False
    news: bool = True


@dataclass(frozen=True, slots=True)
class TargetFailures:
    """What clients have met since the last one: no more than one of these in a turn of the worker's loop."""

    failures: tuple[TargetFailure, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Counters since the worker began, and the proof that its loop turns: one each REPORT_INTERVAL_S, from the loop."""

    listeners: tuple[ListenerTotals | DatagramTotals, ...]
    worker: WorkerTotals = _NOTHING_COUNTED


#: Seconds between reports: short enough for a STATUS that looks live, long enough to cost nothing.
REPORT_INTERVAL_S = 1.0

Message: TypeAlias = (
    Configure
    | Adopt
    | Parcels
    | AllAdopted
    | Change
    | Resolved
    | TargetStates
    | LogLevel
    | Count
    | Look
    | Kill
    | Drain
    | Stop
    | HandOver
    | Ready
    | Changed
    | Released
    | Counted
    | Seen
    | Killed
    | Report
    | TargetFailures
    | HandedOver
)
