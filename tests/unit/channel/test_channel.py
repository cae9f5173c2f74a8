import array
import errno
import os
import resource
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relayd.address import Family, InetAddress, NameAddress
from relayd.channel import Channel, ChannelClosed, CodecError
from relayd.channel.messages import Drain, Message, Ready, Resolved, Stop
from tests.unit.channel.strategies import messages


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    left, right = pair()
    yield left, right
    left.close()
    right.close()


def pair() -> tuple[Channel, Channel]:
    ours, theirs = Channel.pair()
    return ours, Channel(theirs)


def large(size: int) -> Resolved:
    address = InetAddress(Family.INET, "192.0.2.1", 80)
    return Resolved(NameAddress("x", 1), (address,) * (size // 90))


def received(channel: Channel) -> list[Message]:
    return [message for message, _ in channel.receive()]


def carry(sender: Channel, receiver: Channel) -> list[tuple[Message, list[int]]]:
    """Everything that `sender` has queued, as `receiver` gets it."""
    got = list(receiver.receive())
    while sender.backlog:
        sender.flush()
        got += receiver.receive()
    return got


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class FailingSocket:
    """Stands in for the socket of a channel; `fail` are the errno of the next calls."""

    def __init__(self, sock: socket.socket, fail: Sequence[int]) -> None:
        self._sock = sock
        self._fail = list(fail)

    def __getattr__(self, name: str) -> object:
        if name in ("sendmsg", "recvmsg") and self._fail:
            number = self._fail.pop(0)

            def failing(*arguments: object) -> None:
                raise OSError(number, os.strerror(number))

            return failing
        return getattr(self._sock, name)


def test_messages_arrive_in_order_both_ways(ends: tuple[Channel, Channel]) -> None:
    control, worker = ends
    control.send(Drain(1.5))
    control.send(Stop())
    worker.send(Ready(1))
    assert received(worker) == [Drain(1.5), Stop()]
    assert received(control) == [Ready(1)]
    assert received(control) == []
    assert (control.backlog, control.blocked) == (0, False)


@settings(max_examples=50)
@given(st.lists(messages, max_size=5))
def test_any_messages_arrive(sent: list[Message]) -> None:
    control, worker = pair()
    for message in sent:
        control.send(message)
    assert [message for message, _ in carry(control, worker)] == sent
    control.close()
    worker.close()


def test_a_message_larger_than_the_socket_waits_and_arrives_whole(ends: tuple[Channel, Channel]) -> None:
    control, worker = ends
    message = large(3_000_000)
    control.send(message)
    assert control.blocked
    assert control.backlog > 0
    control.send(Stop())
    assert carry(control, worker) == [(message, []), (Stop(), [])]
    assert (control.backlog, control.blocked) == (0, False)


@pytest.mark.parametrize("count", [1, 253, 254, 600])
def test_descriptors_arrive_in_order_close_on_exec_and_as_duplicates(ends: tuple[Channel, Channel], count: int) -> None:
    control, worker = ends
    files = [os.memfd_create(f"number-{number}") for number in range(count)]
    control.send(Drain(1.0), files)
    [(message, fds)] = carry(control, worker)
    assert message == Drain(1.0)
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [
        f"/memfd:number-{number} (deleted)" for number in range(count)
    ]
    assert not set(fds) & set(files)
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in (*files, *fds):
        os.close(fd)


def test_descriptors_stay_with_their_message(ends: tuple[Channel, Channel]) -> None:
    control, worker = ends
    files = [os.memfd_create("one"), os.memfd_create("two")]
    control.send(large(300_000), files[:1])
    control.send(Stop())
    control.send(Drain(1.0), files[1:])
    got = carry(control, worker)
    assert [len(fds) for _, fds in got] == [1, 0, 1]
    for fd in (*files, *(fd for _, fds in got for fd in fds)):
        os.close(fd)


def test_the_end_of_the_other_process_is_told(ends: tuple[Channel, Channel]) -> None:
    control, worker = ends
    worker.send(Ready(1))
    worker.close()
    arriving = control.receive()
    assert next(arriving) == (Ready(1), [])
    with pytest.raises(ChannelClosed):
        next(arriving)
    with pytest.raises(ChannelClosed):
        control.send(Stop())


def test_close_can_be_called_twice_and_fileno_is_gone(ends: tuple[Channel, Channel]) -> None:
    control, _ = ends
    control.close()
    control.close()
    assert control.fileno() == -1


@pytest.mark.parametrize("data", [b".nonsense", b"?", b"x{}", b'.{"":"Popen"}'])
def test_nonsense_is_refused_and_its_descriptors_are_closed(data: bytes) -> None:
    before = open_fds()
    ours, theirs = Channel.pair()
    with open("/dev/null", "rb") as file:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
        theirs.sendmsg([data], [rights])
    with pytest.raises(CodecError):
        received(ours)
    ours.close()
    theirs.close()
    assert open_fds() == before


def test_descriptors_of_half_a_message_are_closed() -> None:
    before = open_fds()
    ours, theirs = Channel.pair()
    with open("/dev/null", "rb") as file:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))
        theirs.sendmsg([b"+{"], [rights])
    assert received(ours) == []
    theirs.close()
    with pytest.raises(ChannelClosed):
        received(ours)
    ours.close()
    assert open_fds() == before


def test_a_message_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relayd.channel._MESSAGE_BYTES_MAX", 1000)
    ours, theirs = Channel.pair()
    theirs.send(b"+" + b"x" * 1001)
    with pytest.raises(CodecError, match="more than 1000 bytes"):
        received(ours)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS])
def test_without_kernel_memory_a_message_waits_but_not_for_the_selector(number: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sender, receiver = Channel(FailingSocket(ours, [number])), Channel(theirs)  # type: ignore[arg-type]  # a fake
    sender.send(Stop())
    assert (sender.backlog, sender.blocked) == (1, False)
    sender.flush()
    assert received(receiver) == [Stop()]
    sender.close()
    receiver.close()


@pytest.mark.parametrize("number", [errno.EINTR, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM])
def test_a_failing_receive_loses_nothing(number: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sender, receiver = Channel(ours), Channel(FailingSocket(theirs, [number]))  # type: ignore[arg-type]  # a fake
    sender.send(Stop())
    assert received(receiver) == []
    assert received(receiver) == [Stop()]
    sender.close()
    receiver.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: drops to a user whom the limit holds")
def test_descriptors_that_the_user_may_not_have_on_the_way_wait() -> None:
    """The kernel counts descriptors that nobody has received against RLIMIT_NOFILE (unix(7), ETOOMANYREFS). In a child,
    which gives up its privileges for good."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        said = "nothing"
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))
            os.setresuid(65534, 65534, 65534)
            said = _three_times_253(write)
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    with open(read, "rb") as answer:
        said = answer.read().decode()
    os.waitpid(child, 0)
    assert said == "backlog 1, not blocked; then 253 253 253, backlog 0"


def _three_times_253(fd: int) -> str:
    sender, receiver = pair()
    for number in range(3):
        sender.send(Ready(number), [fd] * 253)
    text = f"backlog {sender.backlog}, {'blocked' if sender.blocked else 'not blocked'}; then"
    for _ in range(2):
        for _, fds in receiver.receive():
            text += f" {len(fds)}"
            for received_fd in fds:
                os.close(received_fd)
        sender.flush()
    return f"{text}, backlog {sender.backlog}"
