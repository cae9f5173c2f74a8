import errno
import fcntl
import os
import resource
from collections.abc import Iterator

import pytest

from relayd.net import pipes as pipes_module
from relayd.net.pipes import PIPE_BYTES, Pipe, PipePool

F_GETPIPE_SZ = 1032


@pytest.fixture
def pool() -> Iterator[PipePool]:
    pool = PipePool(3)
    yield pool
    assert pool.lent == 0
    pool.close()
    pool.close()


def test_a_pipe_does_not_block_and_is_not_inherited() -> None:
    pipe = Pipe()
    for fd in (pipe.read_fd, pipe.write_fd):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    assert fcntl.fcntl(pipe.write_fd, F_GETPIPE_SZ) == PIPE_BYTES
    pipe.close()


def test_a_refused_size_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(fd: int, command: int, value: int) -> int:
        raise PermissionError(errno.EPERM, "over the share of this user")

    monkeypatch.setattr(fcntl, "fcntl", refused)
    Pipe().close()


def test_no_more_than_the_limit_are_lent(pool: PipePool) -> None:
    lent = [pool.take() for _ in range(4)]
    assert lent[3] is None
    assert pool.lent == 3
    for pipe in lent[:3]:
        assert pipe is not None
        pool.give_back(pipe)


def test_an_empty_pipe_is_lent_again(pool: PipePool) -> None:
    first = pool.take()
    assert first is not None
    pool.give_back(first)
    assert pool.take() is first
    pool.give_back(first)


def test_a_pipe_that_holds_bytes_is_closed(pool: PipePool) -> None:
    """They belong to one connection, and must not come out in another."""
    pipe = pool.take()
    assert pipe is not None
    os.write(pipe.write_fd, b"private")
    pipe.held = 7
    pool.give_back(pipe)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe.read_fd)
    other = pool.take()
    assert other is not None
    assert other is not pipe
    with pytest.raises(BlockingIOError):
        os.read(other.read_fd, 1)
    pool.give_back(other)


def test_few_are_kept_for_the_next_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes_module, "_SPARE_PIPES_MAX", 1)
    pool = PipePool(10)
    pipes = [pipe for _ in range(3) if (pipe := pool.take())]
    for pipe in pipes:
        pool.give_back(pipe)
    open_ends = [os.path.exists(f"/proc/self/fd/{pipe.read_fd}") for pipe in pipes]
    assert sum(open_ends) == 1
    pool.close()


def test_out_of_descriptors_is_none_and_nothing_is_lent(pool: PipePool) -> None:
    # F1: pipes failing means copying, not failing
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, hard))  # room for one end only
        assert pool.take() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pool.lent == 0
    assert not os.path.exists(f"/proc/self/fd/{spare}")
    pipe = pool.take()
    assert pipe is not None
    pool.give_back(pipe)
