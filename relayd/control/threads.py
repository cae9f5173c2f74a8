"""Work that blocks, aside. In a daemon thread, and in no pool: that is joined at exit, and a stop would wait for it."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def aside(work: Callable[[], Result], name: str) -> Result:
    """What `work` returns or raises, in a thread called `name`. Cancelled, it is left to itself.

    All signals are blocked there, and in what it starts, unless that unblocks them: they are the loop's. A signal goes
    to any thread that does not block it, and one that came to this thread while the loop does (`Daemon._hand_over`)
    would be lost to execve(2).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def tell(result: Result | None, error: Exception | None) -> None:
        if done.done():  # cancelled
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # a Result, there being no error

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has stopped meanwhile
            loop.call_soon_threadsafe(tell, result, failure)

    thread = threading.Thread(target=run, name=name, daemon=True)
    ours = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()  # with the mask of whoever starts it
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)
    return await done
