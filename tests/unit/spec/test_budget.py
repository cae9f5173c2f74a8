from hypothesis import given
from hypothesis import strategies as st

from relayd.spec.budget import PIPES_MAX, RESERVE_FDS, budget


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
