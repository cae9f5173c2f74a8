from hypothesis import given
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, NameAddress
from relayd.spec import Binding, Listener, Log, SocketOptions, Spec, StreamTimeouts, Target
from relayd.spec.budget import (
    LOOKUP_FDS,
    LOOKUPS_MAX,
    PIPES_MAX,
    RESERVE_FDS,
    WORKER_FDS,
    budget,
    control_budget,
    shortages,
)


def spec(workers: int, listening: int, names: int = 0) -> Spec:
    """So many workers and listening sockets, and targets with so many host names."""
    listener = Listener(
        name="web",
        binds=tuple(InetAddress(Family.INET, "127.0.0.1", port + 1) for port in range(listening)),
        binding=Binding(16, False, None, False, False, None, 0o660, None, None),
        targets=tuple(Target(NameAddress(f"host{number}.test", 80)) for number in range(names)),
        dial_attempts=3,
        source=None,
        options=SocketOptions(True, None, None, None),
        timeouts=StreamTimeouts(5, None, None, None),
    )
    return Spec(workers, 30, Log("info", "auto", access=False), (listener,))


@given(st.integers(0, 2**20), st.integers(0, 5000))
def test_the_budget_is_never_overspent(nofile: int, listening: int) -> None:
    # F2
    limits = budget(nofile, listening)
    spent = RESERVE_FDS + listening + 2 * limits.pipes + 2 * limits.connections
    assert limits.connections >= 0
    assert 0 <= limits.pipes <= PIPES_MAX
    if limits.connections:
        assert spent <= nofile
        assert nofile - spent < 2  # and nothing is left lying about


def test_too_few_descriptors_are_no_connections() -> None:
    assert budget(RESERVE_FDS, 0).connections == 0
    assert budget(40, 100).connections == 0


def test_of_256_most_are_for_connections() -> None:
    limits = budget(256, 1)
    assert (limits.pipes, limits.connections) == (27, 84)
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


def test_the_budget_of_control_in_words() -> None:
    assert str(control_budget(1024, spec(1, 4))) == (
        "the control process needs 39 of 1024 file descriptors: 32 in reserve, 4 listening, 3 for 1 worker"
    )
    assert str(control_budget(1024, spec(2, 4, names=40))).endswith("6 for 2 workers, 128 to look up host names")
