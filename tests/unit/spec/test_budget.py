from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, NameAddress
from relayd.spec import (
    Bind,
    Check,
    CheckKind,
    Datagram,
    Health,
    Listener,
    Log,
    OnTargetError,
    SessionMode,
    SocketOptions,
    Spec,
    Stream,
    StreamTimeouts,
    Target,
)
from relayd.spec.budget import (
    CHECKS_MAX,
    COMMAND_FDS,
    COMMANDS_MAX,
    LOOKUP_FDS,
    LOOKUPS_MAX,
    PIPES_MAX,
    RESERVE_FDS,
    WORKER_FDS,
    budget,
    budget_of,
    control_budget,
    shortages,
)
from tests.specs import BINDING

STREAM = Stream(3, SocketOptions(True, None, None, None), StreamTimeouts(5.0, None, None, None))
DATAGRAM = Datagram(60.0, None, None, SessionMode.CLIENT, OnTargetError.MOVE)


def spec(
    workers: int, ports: int, names: int = 0, *, stream: Stream | None = STREAM, datagram: Datagram | None = None
) -> Spec:
    """So many workers, ports to listen at, and targets with so many host names."""
    listener = Listener(
        name="web",
        binds=tuple(Bind(InetAddress(Family.INET, "127.0.0.1", port + 1)) for port in range(ports)),
        binding=BINDING,
        targets=tuple(Target(NameAddress(f"host{number}.test", 80)) for number in range(names)),
        source=None,
        stream=stream,
        datagram=datagram,
    )
    return Spec(workers, 30.0, Log("info", "auto", access=False), (listener,))


@given(st.integers(0, 2**20), st.integers(0, 5000), st.sampled_from([(True, False), (False, True), (True, True)]))
def test_the_budget_is_never_overspent(nofile: int, listening: int, served: tuple[bool, bool]) -> None:
    # F2
    streams, datagrams = served
    limits = budget(nofile, listening, streams=streams, datagrams=datagrams)
    spent = RESERVE_FDS + listening + 2 * limits.pipes + 2 * limits.connections + limits.sessions
    assert limits.connections >= 0
    assert limits.sessions >= 0
    assert 0 <= limits.pipes <= PIPES_MAX
    if limits.enough:
        assert (limits.connections > 0, limits.sessions > 0) == (streams, datagrams)
        assert spent <= nofile
        assert nofile - spent < 2  # and nothing is left lying about


def test_too_few_descriptors_are_no_connections() -> None:
    assert budget(RESERVE_FDS, 0).connections == 0
    assert not budget(40, 100).enough
    assert not budget(40, 100, streams=False, datagrams=True).enough
    assert not budget(RESERVE_FDS + 2, 0, datagrams=True).enough


def test_of_256_most_are_for_connections() -> None:
    limits = budget(256, 1)
    assert (limits.pipes, limits.connections, limits.sessions) == (27, 84, 0)
    assert str(limits) == (
        "84 connections a worker: 256 file descriptors less 32 in reserve, 1 listening, 54 for 27 pipes, then 2 for "
        "each connection"
    )


@given(st.integers(1, 256), st.integers(1, 3000), st.integers(0, 50))
def test_what_the_control_process_needs(workers: int, listening: int, names: int) -> None:
    # F2
    plan = spec(workers, listening, names)
    needed = control_budget(0, plan).needed
    assert needed == RESERVE_FDS + listening + WORKER_FDS * workers + LOOKUP_FDS * min(names, LOOKUPS_MAX)
    assert control_budget(needed, plan).shortage == ""
    assert shortages(needed, plan) == ()
    (only,) = shortages(needed - 1, plan)[:1]
    assert only.startswith(f"too few file descriptors for the control process: it may open {needed - 1} ")
    assert f" and needs {needed}: " in only


def test_who_does_not_fit_is_told() -> None:
    plan = spec(16, 3000)
    control = (
        "too few file descriptors for the control process: it may open 3050 (RLIMIT_NOFILE), and needs 3080: "
        "32 in reserve, 3000 listening, 48 for 16 workers"
    )
    assert shortages(3050, plan) == (control,)
    assert shortages(3033, plan) == (
        control.replace("3050", "3033"),
        "too few file descriptors for a single connection: a worker may open 3033 (RLIMIT_NOFILE), and 32 are in "
        "reserve, 3000 listening",
    )


def test_control_holds_the_sockets_of_all_workers_and_a_worker_its_own() -> None:
    # Each worker has its own datagram socket of a port, and all have the one for streams.
    plan = spec(4, 10, datagram=DATAGRAM)
    assert control_budget(1024, plan).listening == 50
    assert budget_of(plan, 1024).listening == 20
    assert shortages(93, plan) == (
        "too few file descriptors for the control process: it may open 93 (RLIMIT_NOFILE), and needs 94: "
        "32 in reserve, 50 listening, 12 for 4 workers",
    )
    assert shortages(94, plan) == ()


@pytest.mark.parametrize(
    ("stream", "datagram", "listening", "kinds"),
    [
        (STREAM, None, 1, "connection"),
        (None, DATAGRAM, 1, "session"),
        (STREAM, DATAGRAM, 2, "connection or session"),
    ],
)
def test_a_worker_lacks_descriptors_for_what_it_serves(
    stream: Stream | None, datagram: Datagram | None, listening: int, kinds: str
) -> None:
    plan = spec(1, 1, stream=stream, datagram=datagram)
    nofile = RESERVE_FDS + listening
    assert shortages(nofile, plan)[1:] == (
        f"too few file descriptors for a single {kinds}: a worker may open {nofile} (RLIMIT_NOFILE), and 32 are in "
        f"reserve, {listening} listening",
    )
    words = str(budget_of(plan, nofile)).partition(" a worker")[0]
    assert words == " and ".join(f"0 {kind}s" for kind in kinds.split(" or "))


def test_the_budget_of_control_in_words() -> None:
    assert str(control_budget(1024, spec(1, 4))) == (
        "the control process needs 39 of 1024 file descriptors: 32 in reserve, 4 listening, 3 for 1 worker"
    )
    assert str(control_budget(1024, spec(2, 4, names=40))).endswith("6 for 2 workers, 128 to look up host names")


@pytest.mark.parametrize(
    ("kind", "targets", "names", "needed"),
    [
        (CheckKind.TCP, 3, 0, 3),
        (CheckKind.UDP, 1000, 0, CHECKS_MAX),
        (CheckKind.HTTP, 0, 1, CHECKS_MAX),  # a name may have any number of addresses
        (CheckKind.EXEC, 3, 0, 3 * COMMAND_FDS),
        (CheckKind.EXEC, 1000, 0, COMMANDS_MAX * COMMAND_FDS),
    ],
)
def test_what_health_checks_need(kind: CheckKind, targets: int, names: int, needed: int) -> None:
    plan = spec(1, 1, names)
    (listener,) = plan.listeners
    here = tuple(Target(InetAddress(Family.INET, "10.0.0.1", port + 1)) for port in range(targets))
    health = Health(Check(kind, 2.0, 2.0, 1.0, 2, 3))
    asked = replace(plan, listeners=(replace(listener, targets=(*listener.targets, *here), health=health),))
    assert control_budget(0, asked).needed - control_budget(0, plan).needed == needed
    assert str(control_budget(0, asked)).endswith(f", {needed} for health checks")


def test_a_session_costs_one() -> None:
    limits = budget(256, 1, streams=False, datagrams=True)
    assert (limits.pipes, limits.connections, limits.sessions) == (0, 0, 223)
    assert str(limits) == (
        "223 sessions a worker: 256 file descriptors less 32 in reserve, 1 listening, then 1 for each session"
    )


def test_connections_and_sessions_have_half_each() -> None:
    limits = budget(256, 2, datagrams=True)
    assert (limits.pipes, limits.connections, limits.sessions) == (27, 42, 84)
    assert str(limits) == (
        "42 connections and 84 sessions a worker: 256 file descriptors less 32 in reserve, 2 listening, "
        "54 for 27 pipes, then 2 for each connection and 1 for each session"
    )
