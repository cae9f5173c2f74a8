"""Sockets in the network namespace of another process, or in one of their own."""

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def in_network_of(pid: int, function: Callable[[], T]) -> T:
    """What `function` returns or raises, run in a thread in the network of process `pid`: its sockets belong there."""

    def enter() -> None:
        with open(f"/proc/{pid}/ns/net") as namespace:
            # Of this thread only, which ends with the function. os.setns is Python 3.12's.
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    return _in_thread(enter, function)


def in_new_network(function: Callable[[], T]) -> T:
    """What `function` returns or raises, run in a thread in a network that is new, and gone with its last socket."""

    def enter() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")

    return _in_thread(enter, function)


def _in_thread(enter: Callable[[], None], function: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
