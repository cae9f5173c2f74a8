"""Work that blocks, aside."""

import asyncio
import signal
import threading

import pytest

from relayd.control.threads import aside


def test_what_it_returns_or_raises() -> None:
    async def scenario() -> None:
        assert await aside(lambda: threading.current_thread().name, "work") == "work"
        with pytest.raises(KeyError):
            await aside(lambda: {"": 0}["nothing"], "fail")

    asyncio.run(scenario())


def test_signals_are_not_for_the_thread() -> None:
    """A signal goes to whatever thread does not block it, and is to wait while the loop does."""

    async def scenario() -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        blocked = await aside(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), "work")
        assert blocked >= {signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before

    asyncio.run(scenario())
