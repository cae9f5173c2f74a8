import errno
import os
import select
import selectors
import socket
from collections.abc import Iterator

import pytest

from relayd.net.poller import ENDING, ERR, HUP, IN, LISTENING, OUT, PRI, RDHUP, STREAM, EdgeSelector


@pytest.fixture
def selector() -> Iterator[EdgeSelector]:
    with EdgeSelector() as selector:
        yield selector


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        yield one, other


def handler(mask: int) -> None:
    """Somebody's handler."""


def test_it_is_a_base_selector(selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    assert isinstance(selector, selectors.BaseSelector)
    key = selector.register(pair[0], STREAM, handler)
    assert key == (pair[0], pair[0].fileno(), STREAM, handler)
    assert selector.get_key(pair[0]) == key
    assert selector.get_key(pair[0].fileno()) == key
    assert list(selector.get_map().values()) == [key]
    assert selector.unregister(pair[0]) == key
    assert not selector.get_map()
    with pytest.raises(KeyError):
        selector.get_key(pair[0])
    with pytest.raises(KeyError):
        selector.unregister(pair[0])


def test_modify_changes_what_is_told(selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    selector.register(pair[0], IN)
    assert selector.select(0) == []
    selector.modify(pair[0], IN | OUT)
    assert [mask for _, mask in selector.select(0)] == [OUT]


def test_an_edge_is_told_once(selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    selector.register(pair[0], STREAM)
    assert [mask for _, mask in selector.select(0)] == [OUT]
    assert selector.select(0) == []
    pair[1].send(b"x")
    assert [mask for _, mask in selector.select(1)] == [IN | OUT]
    assert selector.select(0) == []
    pair[1].send(b"y")
    assert len(selector.select(1)) == 1


def test_ends_are_told_apart(selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    selector.register(pair[0], STREAM)
    pair[1].shutdown(socket.SHUT_WR)
    assert [mask for _, mask in selector.select(1)] == [IN | OUT | RDHUP]
    pair[0].send(b"never read")
    pair[1].close()
    ((_, mask),) = selector.select(1)
    assert mask & (HUP | ERR) == HUP | ERR
    assert ENDING == RDHUP | HUP | ERR | PRI


def test_mask_0_still_tells_errors(selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]) -> None:
    """`selectors.EpollSelector` refuses an empty mask; epoll(7) tells ERR and HUP in any case."""
    selector.register(pair[0], 0)
    pair[1].send(b"x")
    assert selector.select(0) == []
    pair[1].close()
    assert [mask for _, mask in selector.select(1)] == [HUP]


def test_registering_twice_is_refused_and_changes_nothing(
    selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    key = selector.register(pair[0], IN, handler)
    with pytest.raises(FileExistsError):
        selector.register(pair[0], OUT)
    assert selector.get_key(pair[0]) == key


def test_a_file_that_cannot_be_watched_is_refused(selector: EdgeSelector) -> None:
    with open("/proc/self/status") as file:
        fd = os.open("/", os.O_RDONLY)
        try:
            with pytest.raises(PermissionError):
                selector.register(fd, IN)
        finally:
            os.close(fd)
        assert not selector.get_map()
        assert file.readable()


def test_forgetting_needs_no_system_call_and_no_key(
    selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    selector.watch(fd, handler)
    selector.forget(fd)
    selector.forget(fd)
    pair[0].close()
    assert selector.select(0) == []
    with socket.socket() as other:
        assert other.fileno() == fd
        selector.register(other, IN)  # the number is free in epoll too
        selector.unregister(other)


def test_an_event_of_a_forgotten_descriptor_with_a_duplicate_is_dropped(
    selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    """epoll(7), question 6: the duplicate keeps it in the set."""
    duplicate = os.dup(pair[0].fileno())
    selector.watch(pair[0].fileno(), handler)
    selector.forget(pair[0].fileno())
    pair[0].close()
    pair[1].send(b"x")
    assert selector.select(0) == []
    os.close(duplicate)


def test_watching_is_registering_without_a_key(
    selector: EdgeSelector, pair: tuple[socket.socket, socket.socket]
) -> None:
    fd = pair[0].fileno()
    selector.watch(fd, handler)
    assert selector.ready(0) == [(fd, OUT)]
    assert selector.handlers[fd] is handler
    assert selector.get_key(fd) == (fd, fd, STREAM, handler)
    pair[1].send(b"x")
    assert [(key.fd, key.data, mask) for key, mask in selector.select(1)] == [(fd, handler, IN | OUT)]
    selector.unregister(fd)
    assert selector.ready(0) == []
    with pytest.raises(FileNotFoundError):
        selector._epoll.unregister(fd)


def test_a_listening_socket_is_told_until_it_is_empty(selector: EdgeSelector) -> None:
    with socket.socket() as listening, socket.socket() as client:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        selector.register(listening, LISTENING)
        client.connect(listening.getsockname())
        assert [mask for _, mask in selector.select(1)] == [IN]
        assert [mask for _, mask in selector.select(1)] == [IN]
        listening.accept()[0].close()
        assert selector.select(0) == []
        with pytest.raises(OSError, match="Invalid argument"):
            selector._epoll.modify(listening, LISTENING)  # why a pause unregisters
        selector.unregister(listening)


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN])
def test_an_interrupted_wait_is_an_empty_one(number: int, selector: EdgeSelector) -> None:
    class Interrupted:
        def poll(self, timeout: float) -> list[tuple[int, int]]:
            raise OSError(number, os.strerror(number))

    real, selector._epoll = selector._epoll, Interrupted()  # type: ignore[assignment]  # a fake
    assert selector.select(0) == []
    selector._epoll = real


def test_another_error_of_the_wait_is_raised(selector: EdgeSelector) -> None:
    selector._epoll.close()
    with pytest.raises(ValueError, match="closed epoll"):
        selector.select(0)


def test_another_loop_can_wait_for_all_of_it() -> None:
    ours, theirs = socket.socketpair()
    selector = EdgeSelector()
    with ours, theirs, select.epoll() as outer:
        selector.watch(ours.fileno(), lambda _: None)
        selector.ready(0)
        outer.register(selector.fileno(), select.EPOLLIN)
        assert outer.poll(0) == []
        theirs.send(b"x")
        assert outer.poll(10) == [(selector.fileno(), select.EPOLLIN)]
        selector.close()
