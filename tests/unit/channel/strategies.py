"""Hypothesis strategies for every message of the channel, and for all that is in them."""

from hypothesis import strategies as st

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress, SystemdAddress, UnixAddress
from relayd.channel.messages import (
    Adopt,
    AllAdopted,
    Change,
    Changed,
    Configure,
    Count,
    Counted,
    Drain,
    HandedOver,
    HandOver,
    Kill,
    Killed,
    LiveCount,
    LogLevel,
    Look,
    Message,
    Parcels,
    Ready,
    Released,
    Report,
    Resolved,
    Seen,
    Selection,
    Sort,
    Stop,
    TargetFailure,
    TargetFailures,
    TargetStates,
)
from relayd.channel.parcel import Label
from relayd.counters import DatagramTotals, Histogram, ListenerTotals, WorkerTotals
from relayd.outcomes import Drop, Outcome
from relayd.spec import (
    Admin,
    Balance,
    Bind,
    Binding,
    Check,
    CheckKind,
    Datagram,
    Health,
    Keepalive,
    Listener,
    Log,
    OnChange,
    OnTargetError,
    Ordered,
    Passed,
    PortRule,
    Resolve,
    SessionMode,
    Share,
    SocketOptions,
    Spec,
    Stream,
    StreamTimeouts,
    Target,
    TargetState,
)
from relayd.spec.sockets import SocketKey

numbers = st.integers(min_value=-(2**70), max_value=2**70)
seconds = st.floats(allow_nan=False)
texts = st.text()
booleans = st.booleans()


def optional(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.none() | strategy


def tuples_of(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(strategy, max_size=3).map(tuple)


inet_addresses = st.builds(InetAddress, st.sampled_from(Family), texts, numbers, texts)
names = st.builds(NameAddress, texts, numbers) | st.builds(ServiceAddress, texts)
socket_addresses = inet_addresses | st.builds(UnixAddress, texts)
addresses = socket_addresses | names
passed = st.builds(Passed, booleans, socket_addresses, booleans, optional(texts))
options = st.builds(
    SocketOptions,
    booleans,
    optional(st.builds(Keepalive, numbers, numbers, numbers)),
    optional(numbers),
    optional(texts),
)
bindings = st.builds(
    Binding,
    numbers,
    booleans,
    optional(texts),
    booleans,
    booleans,
    optional(numbers),
    numbers,
    optional(numbers),
    optional(numbers),
)
timeouts = st.builds(StreamTimeouts, seconds, optional(seconds), optional(seconds), optional(seconds))
datagrams = st.builds(
    Datagram,
    seconds,
    optional(numbers),
    optional(numbers),
    st.sampled_from(SessionMode),
    st.sampled_from(OnTargetError),
)
targets = st.builds(Target, addresses, st.sampled_from(PortRule), numbers)
checks = st.builds(
    Check,
    st.sampled_from(CheckKind),
    seconds,
    seconds,
    seconds,
    numbers,
    numbers,
    optional(numbers),
    texts,
    optional(texts),
    optional(texts),
    texts,
    texts,
    optional(texts),
    tuples_of(st.tuples(numbers, numbers)),
    tuples_of(texts),
)
shares = st.builds(Share, numbers, booleans, optional(numbers))
resolves = st.builds(Resolve, optional(st.sampled_from(Family)), seconds, seconds)
listeners = st.builds(
    Listener,
    texts,
    tuples_of(
        st.builds(Bind, socket_addresses, numbers)
        | st.builds(Bind, st.builds(SystemdAddress, texts), st.just(1), tuples_of(passed))
    ),
    bindings,
    tuples_of(targets),
    optional(socket_addresses),
    optional(st.builds(Stream, numbers, options, timeouts)),
    optional(datagrams),
    optional(st.sampled_from(OnChange)),
    st.sampled_from(Balance),
    tuples_of(shares),
    st.builds(Health, optional(checks), booleans, numbers, seconds),
    texts,
    resolves,
)
specs = st.builds(
    Spec,
    numbers,
    seconds,
    st.builds(Log, texts, texts, booleans),
    tuples_of(listeners),
    st.builds(Admin, tuples_of(socket_addresses)),
    booleans,
    optional(numbers),
)
histograms = st.builds(Histogram, tuples_of(numbers), seconds)
totals = st.builds(
    ListenerTotals,
    texts,
    numbers,
    numbers,
    numbers,
    numbers,
    numbers,
    numbers,
    tuples_of(st.tuples(st.sampled_from(Outcome), numbers)),
    histograms,
)
datagram_totals = st.builds(
    DatagramTotals,
    texts,
    *[numbers] * 7,
    tuples_of(st.tuples(st.sampled_from(Outcome), numbers)),
    tuples_of(st.tuples(st.sampled_from(Drop), numbers)),
)
labels = st.builds(Label, booleans, texts, numbers, numbers, numbers, numbers)
socket_keys = st.builds(
    SocketKey,
    socket_addresses | st.builds(SystemdAddress, texts),
    booleans,
    optional(numbers),
    numbers,
    optional(texts),
    booleans,
    texts,
)
#: For every class of `Message`.
selections = st.builds(Selection, optional(texts), optional(texts), optional(texts), optional(numbers), optional(texts))
of_class: dict[type, st.SearchStrategy[Message]] = {
    Adopt: st.builds(Adopt, labels),
    Parcels: st.builds(Parcels, numbers),
    AllAdopted: st.just(AllAdopted()),
    Change: st.builds(Change, specs, numbers),
    Changed: st.builds(Changed, numbers),
    Configure: st.builds(Configure, specs, numbers, booleans),
    Count: st.builds(Count, numbers),
    LogLevel: st.builds(LogLevel, texts),
    Counted: st.builds(
        Counted, numbers, tuples_of(st.builds(LiveCount, texts, booleans, optional(targets), numbers, texts, texts))
    ),
    Drain: st.builds(Drain, seconds),
    HandOver: st.just(HandOver()),
    HandedOver: st.builds(HandedOver, numbers, numbers, numbers),
    Kill: st.builds(Kill, numbers, selections),
    Killed: st.builds(Killed, numbers, numbers),
    Look: st.builds(Look, numbers, selections, st.sampled_from(Sort), numbers, booleans),
    Ready: st.builds(Ready, numbers, numbers, numbers),
    Released: st.builds(Released, socket_addresses),
    Report: st.builds(
        Report, tuples_of(totals | datagram_totals), st.builds(WorkerTotals, histograms, numbers, seconds)
    ),
    Resolved: st.builds(Resolved, names, tuples_of(inet_addresses), tuples_of(shares), resolves),
    Seen: st.builds(Seen, numbers, numbers, numbers, booleans, st.binary()),
    Stop: st.just(Stop()),
    TargetFailures: st.builds(
        TargetFailures, tuples_of(st.builds(TargetFailure, texts, texts, texts, numbers, booleans, booleans))
    ),
    TargetStates: st.builds(
        TargetStates,
        tuples_of(st.builds(TargetState, texts, texts, booleans, st.sampled_from(Ordered), optional(numbers))),
    ),
}
messages = st.one_of(*of_class.values())
