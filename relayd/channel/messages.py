"""What control and a worker say to each other. Values only; file descriptors travel beside a message, not in it.

control → worker    Configure (with the listening sockets), Resolved, Drain, Stop
worker → control    Ready, Report
"""

from dataclasses import dataclass
from typing import TypeAlias

from relayd.address import InetAddress, NameAddress
from relayd.counters import DatagramTotals, ListenerTotals
from relayd.spec import Spec


@dataclass(frozen=True, slots=True)
class Configure:
    """Relay this. Sent once, first. Beside it: the listening sockets of `spec.sockets.endpoints_of(spec, worker)`, in
    that order. The worker owns the descriptors that it received."""

    spec: Spec
    worker: int


@dataclass(frozen=True, slots=True)
class Resolved:
    """New connections to `name` dial these, in this order. Never empty: the last good answer stays in force."""

    name: NameAddress
    addresses: tuple[InetAddress, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept no more; exit when the last connection has ended, or close what is left (`shutdown`) after `timeout_s`."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Close everything now (`shutdown`) and exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker accepts on every listening socket of its Configure."""

    pid: int


@dataclass(frozen=True, slots=True)
class Report:
    """Counters since the worker began, and the proof that its loop turns: one each REPORT_INTERVAL_S, from the loop."""

    listeners: tuple[ListenerTotals | DatagramTotals, ...]


#: Seconds between reports: short enough for a STATUS that looks live, long enough to cost nothing.
REPORT_INTERVAL_S = 1.0

Message: TypeAlias = Configure | Resolved | Drain | Stop | Ready | Report
