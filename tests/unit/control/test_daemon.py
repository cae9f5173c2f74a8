"""The daemon in this process, with a stand-in for the worker. What needs a whole daemon is in tests/e2e."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from relayd.control.daemon import Daemon
from relayd.control.reload import InForce
from relayd.log.formats import JsonFormat
from relayd.log.logger import Logger
from relayd.sd.notify import Notifier
from relayd.spec import Log, Spec

FAKE = Path(__file__).with_name("fake_worker.py")
DEADLINE_S = 10.0


class Lines:
    """A sink that keeps what it gets."""

    pending = False

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def write(self, lines: Sequence[bytes]) -> int:
        self.taken += lines
        return len(lines)

    def close(self) -> None:
        """Nothing to close."""


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def test_a_stop_while_workers_boot_is_no_bug_and_blames_no_worker() -> None:
    lines = Lines()
    log = Log("debug", "json", access=False)
    others = set(children())

    async def scenario() -> None:
        command = (sys.executable, "-S", str(FAKE), "never_ready")
        notifier = Notifier.from_environment(warn=print)
        daemon = Daemon(
            InForce(Spec(2, 30.0, log, ()), Path("/nowhere.toml"), "", 0.0),
            1024,
            Logger(log, JsonFormat(None), lines),
            notifier,
            command,
        )
        life = asyncio.ensure_future(daemon.run())
        while len(set(children()) - others) < 2:
            assert not life.done()
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        await life
        gc.collect()  # asyncio complains about an exception that nobody has seen when its future is freed
        await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))
    text = b"".join(lines.taken).decode()
    assert [word for word in ("stopping", "stopped", "internal_error", "worker_exited") if f'"{word}"' in text] == [
        "stopping",
        "stopped",
    ]
    assert set(children()) == others
