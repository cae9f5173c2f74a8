"""The supervisor with real processes: a stand-in for the worker that has one fault at a time."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relayd.address import Family, InetAddress, NameAddress
from relayd.channel import Channel, parcel
from relayd.channel.messages import Adopt, Message, Resolved, TargetFailures, TargetStates
from relayd.channel.parcel import Label
from relayd.control.adopting import Adopted, Shared
from relayd.control.heartbeat import REPORT_TICKS, START_TICKS
from relayd.control.supervisor import Supervisor, WorkersFailed
from relayd.log.events import Event
from relayd.spec import Bind, Listener, Log, Spec, TargetState
from tests.specs import BINDING, DATAGRAM

FAKE = Path(__file__).with_name("fake_worker.py")
DEADLINE_S = 10.0


class Bench:
    """A supervisor, what it said, and a way to wait for what it says."""

    def __init__(self, fault: str, workers: int, sockets: list[int]) -> None:
        self.said: list[tuple[Event, dict[str, Any]]] = []
        self._more = asyncio.Event()
        spec = Spec(workers, 30.0, Log("info", "auto", access=False), ())
        self.failures: list[TargetFailures] = []
        command = (sys.executable, "-S", str(FAKE), fault)
        self.supervisor = Supervisor(spec, lambda _: sockets, self._say, command, on_failures=self.failures.append)

    def _say(self, event: Event, message: str, **fields: Any) -> None:
        self.said.append((event, {"message": message, **fields}))
        self._more.set()

    def pids(self) -> list[int]:
        return [fields["pid"] for event, fields in self.said if event is Event.WORKER_STARTED]

    def all(self, event: Event) -> list[dict[str, Any]]:
        return [fields for each, fields in self.said if each is event]

    async def wait_for(self, event: Event, count: int = 1) -> dict[str, Any]:
        """The fields of the count-th line about `event`."""

        async def wait() -> None:
            while len(self.all(event)) < count:
                self._more.clear()
                await self._more.wait()

        await asyncio.wait_for(wait(), DEADLINE_S)
        return self.all(event)[count - 1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that reports change, not lines."""

        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.01)

        await asyncio.wait_for(wait(), DEADLINE_S)


def supervised(fault: str, scenario: Callable[[Bench], Awaitable[None]], workers: int = 1) -> Bench:
    """Run `scenario` with a supervisor of `workers` faulty workers; afterwards all of them are gone."""

    async def run() -> Bench:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            bench = Bench(fault, workers, [listening.fileno()])
            try:
                await scenario(bench)
            finally:
                bench.supervisor.kill()
                await asyncio.wait_for(bench.supervisor.ended(), DEADLINE_S)
        return bench

    bench = asyncio.run(run())
    for pid in bench.pids():
        assert not os.path.exists(f"/proc/{pid}"), "a worker was left, or not reaped"
    return bench


def test_boot_waits_for_every_worker_and_drain_ends_them() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        assert bench.supervisor.restarting == 0
        await bench.until(lambda: bench.supervisor.totals.active == 4)  # both reported
        bench.supervisor.drain(5.0)
        await asyncio.wait_for(bench.supervisor.ended(), DEADLINE_S)

    bench = supervised("none", scenario, workers=2)
    assert len(set(bench.pids())) == 2
    assert bench.all(Event.WORKER_EXITED) == []
    assert bench.supervisor.totals.active == 0


async def dealt(kept: socket.socket) -> AsyncIterator[tuple[int, Adopt, list[int]]]:
    """All to the first worker."""
    for label, fds in parcel.read(kept):
        assert label is not None
        yield 1, Adopt(label), fds


def test_workers_take_what_they_share_and_say_how_much() -> None:
    # R4
    async def scenario(bench: Bench) -> None:
        with a_parcel((3, 30), garbage=1) as one, a_parcel((4, 40), garbage=1) as other:
            await bench.supervisor.boot(dealt(one), Shared([one.fileno(), other.fileno()], 40))
        assert bench.supervisor.adopted == Adopted(77, lost=2)

    supervised("none", scenario, workers=2)


def test_where_the_kernel_passes_no_parcel_on_what_is_in_it_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # R4: too many descriptors of this user are in flight (ETOOMANYREFS).
    room: list[bool] = []
    send = Channel.send

    def held_back(self: Channel, message: Message, fds: Sequence[int] = ()) -> None:
        if isinstance(message, Adopt):
            room.append(True)
        send(self, message, fds)

    def no_room(sock: socket.socket, *arguments: Any) -> int:
        if len(arguments) > 1 and arguments[1] and not room and b"Parcels" in b"".join(arguments[0]):
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return sendmsg(sock, *arguments)

    sendmsg = socket.socket.sendmsg
    monkeypatch.setattr(Channel, "send", held_back)
    monkeypatch.setattr(socket.socket, "sendmsg", no_room)

    async def scenario(bench: Bench) -> None:
        with a_parcel((3, 30)) as kept:
            await bench.supervisor.boot(dealt(kept), Shared([kept.fileno()], 17))
        assert room
        assert bench.supervisor.adopted.connections <= 30

    # One worker dies, after all was dealt: the next one is told of the parcels, which are there still.
    bench = supervised(f"dies_once:{tmp_path}/died", scenario, workers=2)
    assert len(bench.all(Event.WORKER_EXITED)) == 1


def test_a_worker_that_is_slow_to_listen_is_no_reason_to_deal() -> None:
    # What it is to be told waits in its channel meanwhile.
    async def scenario(bench: Bench) -> None:
        binds = (Bind(InetAddress(Family.INET, "127.0.0.1", 0)),)
        many = [Listener(f"number-{number}", binds, BINDING, (), None, None, DATAGRAM) for number in range(500)]
        bench.supervisor._spec = replace(bench.supervisor._spec, listeners=tuple(many))
        with a_parcel((3, 30), garbage=1) as kept:
            await bench.supervisor.boot(dealt(kept), Shared([kept.fileno()], 17))
        assert bench.supervisor.adopted == Adopted(33, lost=1)

    supervised("slow_start", scenario, workers=2)


@contextlib.contextmanager
def a_parcel(counts: Sequence[int], garbage: int = 0) -> Iterator[socket.socket]:
    """The end that is kept of one with a batch of each count, and packets that are none."""
    kept, sending = parcel.pair()
    memfd = os.memfd_create("records")
    with kept:
        with sending:
            for count in counts:
                parcel.put(sending, Label(False, "web", count, 0), [memfd])
            for _ in range(garbage):
                socket.send_fds(sending, [b"garbage"], [memfd])
        os.close(memfd)
        yield kept


def test_a_worker_that_ends_at_boot_fails_the_boot_with_its_last_words() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(WorkersFailed, match=r"worker 1 exited with code 3: ModuleNotFoundError: no module"):
            await bench.supervisor.boot()

    bench = supervised("crashes", scenario)
    assert bench.pids() == []


def test_a_worker_that_cannot_be_started_fails_the_boot() -> None:
    async def scenario(bench: Bench) -> None:
        bench.supervisor._command = ("/nowhere/python",)
        with pytest.raises(WorkersFailed, match=r"could not be started.*No such file"):
            await bench.supervisor.boot()

    supervised("none", scenario)


def test_a_worker_that_never_becomes_ready_fails_the_boot() -> None:
    async def scenario(bench: Bench) -> None:
        boot = asyncio.ensure_future(bench.supervisor.boot())
        await asyncio.sleep(0)  # the boot begins
        for _ in range(START_TICKS):
            bench.supervisor.tick()
        with pytest.raises(WorkersFailed, match="was not ready after 10 s"):
            await boot

    supervised("never_ready", scenario)


def test_a_worker_that_talks_nonsense_is_killed() -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(WorkersFailed, match=r"killed by SIGKILL: its message was not understood"):
            await bench.supervisor.boot()

    supervised("garbage", scenario)


def test_a_killed_worker_is_replaced_and_its_counts_stay() -> None:
    async def scenario(bench: Bench) -> None:
        supervisor = bench.supervisor
        await supervisor.boot()
        supervisor.resolved(Resolved(NameAddress("web.test", 80), (InetAddress(Family.INET, "192.0.2.1", 80),)))
        await bench.until(lambda: [each.accepted for each in supervisor.totals.listeners()] == [2])
        os.kill(bench.pids()[0], signal.SIGKILL)
        exited = await bench.wait_for(Event.WORKER_EXITED)
        assert exited["status"] == -signal.SIGKILL
        assert supervisor.restarting == 1
        await bench.wait_for(Event.WORKER_STARTED, 3)
        assert supervisor.restarting == 0
        # One of the dead worker, one of the other, and the new one was told as well.
        await bench.until(lambda: [each.accepted for each in supervisor.totals.listeners()] == [3])
        assert supervisor.totals.control.worker_restarts == 1

    bench = supervised("none", scenario, workers=2)
    assert len(set(bench.pids())) == 3


def test_every_worker_knows_the_states_of_targets_now_and_later() -> None:
    async def scenario(bench: Bench) -> None:
        supervisor = bench.supervisor
        await supervisor.boot()
        states = TargetStates((TargetState("web", "192.0.2.1:80", up=False),))
        supervisor.states(states)
        await bench.until(lambda: len(bench.failures) == 2)
        supervisor.states(states)  # no news
        os.kill(bench.pids()[0], signal.SIGKILL)
        await bench.wait_for(Event.WORKER_STARTED, 3)
        await bench.until(lambda: len(bench.failures) == 3)
        supervisor.states(TargetStates(()))
        await bench.until(lambda: len(bench.failures) == 5)

    bench = supervised("none", scenario, workers=2)
    assert [len(each.failures) for each in bench.failures] == [1, 1, 1, 0, 0]


def test_a_crash_loop_slows_down_and_says_so() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        bench.supervisor._command = (*bench.supervisor._command[:-1], "crashes")
        os.kill(bench.pids()[0], signal.SIGKILL)
        await bench.wait_for(Event.WORKER_BACKOFF, 3)
        assert bench.supervisor.restarting == 1
        bench.supervisor._command = (*bench.supervisor._command[:-1], "none")
        await bench.wait_for(Event.WORKER_STARTED, 2)

    bench = supervised("none", scenario)
    assert [fields["delay_s"] for fields in bench.all(Event.WORKER_BACKOFF)] == [0.1, 0.2, 0.4]


def test_a_crash_loop_after_an_upgrade_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relayd.control.upgrade.other_version", lambda: "99.0")

    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        bench.supervisor._command = (*bench.supervisor._command[:-1], "crashes")
        os.kill(bench.pids()[0], signal.SIGKILL)
        await bench.wait_for(Event.WORKER_BACKOFF, 1)

    bench = supervised("none", scenario)
    assert "of version 99.0, which is installed now: restart relayd" in bench.all(Event.WORKER_BACKOFF)[0]["message"]


def test_a_silent_worker_is_killed_and_replaced() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        for _ in range(REPORT_TICKS):
            bench.supervisor.tick()
        hung = await bench.wait_for(Event.WORKER_HUNG)
        assert hung["pid"] == bench.pids()[0]
        await bench.wait_for(Event.WORKER_STARTED, 2)

    bench = supervised("silent", scenario)
    assert [fields["status"] for fields in bench.all(Event.WORKER_EXITED)[:1]] == [-signal.SIGKILL]


def test_a_draining_worker_ends_on_stop() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        bench.supervisor.drain(60.0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(bench.supervisor.ended(), 0.1)
        bench.supervisor.stop()
        await asyncio.wait_for(bench.supervisor.ended(), DEADLINE_S)

    bench = supervised("slow", scenario)
    assert bench.all(Event.WORKER_EXITED) == []


def test_a_worker_that_obeys_nothing_is_killed() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        bench.supervisor.drain(60.0)
        bench.supervisor.stop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(bench.supervisor.ended(), 0.1)

    bench = supervised("deaf", scenario)
    assert [fields["status"] for fields in bench.all(Event.WORKER_EXITED)] == [-signal.SIGKILL]


def test_drain_while_a_worker_is_being_restarted() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        bench.supervisor._command = (*bench.supervisor._command[:-1], "crashes")
        os.kill(bench.pids()[0], signal.SIGKILL)
        await bench.wait_for(Event.WORKER_BACKOFF, 2)
        bench.supervisor.drain(60.0)
        await asyncio.wait_for(bench.supervisor.ended(), DEADLINE_S)

    bench = supervised("none", scenario)
    assert len(bench.pids()) == 1


def test_what_targets_have_is_the_sum_of_all_workers() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        sums = {("app", "a:1"): 4, ("", ""): 2}
        ask = bench.supervisor.active
        assert await asyncio.gather(*(ask(DEADLINE_S) for _ in range(3))) == [sums] * 3
        assert sum(count.count for count in await bench.supervisor.counts(DEADLINE_S)) == 6
        assert bench.supervisor.descriptors() == {1: 5, 2: 5}

    supervised("none", scenario, workers=2)


def test_what_not_all_have_counted_is_not_known() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.supervisor.boot()
        assert await bench.supervisor.active(0.05) is None
        assert await bench.supervisor.counts(0.05) == ()

    supervised("deaf", scenario)
