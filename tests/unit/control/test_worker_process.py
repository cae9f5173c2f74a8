import asyncio
import errno
import os
import socket
import sys
from pathlib import Path

import pytest

import relayd
from relayd.channel.messages import Configure, Message, Ready
from relayd.control.spawning import Spawned, environment, spawn
from relayd.control.worker_process import End, WorkerProcess
from relayd.spec import Log, Spec

FAKE = Path(__file__).with_name("fake_worker.py")
DEADLINE_S = 10.0


class CrowdedSocket(socket.socket):
    """The kernel takes nothing of the first two messages: this user has too many descriptors on their way."""

    refusals = 0

    def sendmsg(self, *arguments: object) -> int:  # handed on
        if self.refusals < 2:
            self.refusals += 1
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))
        return super().sendmsg(*arguments)  # type: ignore[arg-type]  # handed through


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (End(0, ""), "exited with code 0"),
        (End(3, "Traceback\n  File\nValueError: no"), "exited with code 3: ValueError: no"),
        (End(-9, ""), "was killed by SIGKILL"),
        (End(-11, "Fatal Python error"), "was killed by SIGSEGV: Fatal Python error"),
        (End(-40, ""), "was killed by signal 40"),
    ],
)
def test_an_end_in_words(end: End, text: str) -> None:
    assert str(end) == text


def test_a_worker_gets_our_environment_less_what_is_not_for_it() -> None:
    ours = {
        "PATH": "/bin",
        "JOURNAL_STREAM": "8:1",
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "1",
        "LISTEN_FDS": "1",
        "PYTHONHOME": "/else",
        "PYTHONPATH": "/else",
        "PYTHONWARNINGS": "error",
    }
    package = Path(relayd.__file__).resolve().parent
    expected = {"PATH": "/bin", "JOURNAL_STREAM": "8:1", "PYTHONPATH": str(package.parent), "PYTHONSAFEPATH": "1"}
    assert environment(ours) == expected
    assert os.path.exists(f"{expected['PYTHONPATH']}/relayd/relay")


def test_what_the_kernel_has_no_room_for_is_sent_again_soon() -> None:
    spawned = spawn((sys.executable, "-S", str(FAKE), "none"))
    crowded = CrowdedSocket(fileno=spawned.channel.detach())

    async def scenario() -> list[Message]:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        ended: asyncio.Future[End] = loop.create_future()
        said: list[Message] = []

        def hear(message: Message) -> None:
            said.append(message)
            if not ready.done():
                ready.set_result(None)

        process = WorkerProcess(Spawned(spawned.process, crowded, spawned.stderr), (), hear, ended.set_result)
        try:
            process.send(Configure(Spec(1, 1.0, Log("info", "auto", access=False), ()), 1))
            await asyncio.wait_for(ready, DEADLINE_S)
        finally:
            process.kill()
            await asyncio.wait_for(ended, DEADLINE_S)
        return said

    assert isinstance(asyncio.run(scenario())[0], Ready)
    assert crowded.refusals == 2
