"""Makes a process that already runs spin: it takes 100 % of a core and never comes back, as in an endless loop.

    make_spin(Path(f"/proc/{pid}"))

An instruction that jumps to itself is written over the one that the process comes to next. What is written belongs to
that process alone: its page of the program, or of a library, is copied first (proc_pid_mem(5)). There is no way back
but the end of the process.
"""

import os
import platform
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

#: `jmp $` and `b .`, as they lie in memory.
_JUMP_TO_ITSELF = {"x86_64": b"\xeb\xfe", "aarch64": (0x14000000).to_bytes(4, "little")}
#: Far more than anything takes here, for a loaded machine.
_DEADLINE_S = 20.0
#: Time between two looks at /proc, which has no events.
_LOOK_S = 0.005
#: CPU time, in clock ticks, that a process has to use to count as spinning. An idle one of ours takes minutes for it.
_SPINNING_TICKS = 10


needs_spinning = pytest.mark.skipif(
    platform.machine() not in _JUMP_TO_ITSELF or os.geteuid() != 0,
    reason="needs x86_64 or aarch64, and the right to write to the memory of another process",
)


def make_spin(process: Path) -> None:
    """Have the main thread of a process spin, and return when it does. `process` is its folder in some /proc.

    If it waits in a system call, it spins when that is over: the stop ends epoll_wait(2) with EINTR, and other calls
    by what they wait for.
    """
    # A handle to the process (pidfd_send_signal(2)) that never becomes another's; good for one of another PID
    # namespace too, whose number means nothing here.
    handle = os.open(process, os.O_RDONLY | os.O_DIRECTORY)
    try:
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        _wait_for(lambda: _stat(handle)[0] == "T", "stopped")
        _wait_for(lambda: _read(handle, "syscall").strip() != "running", "at rest")
        _write(handle, int(_read(handle, "syscall").split()[-1], 16), _JUMP_TO_ITSELF[platform.machine()])
        used = _user_ticks(handle)
        signal.pidfd_send_signal(handle, signal.SIGCONT)
        _wait_for(lambda: _user_ticks(handle) >= used + _SPINNING_TICKS, "spinning")
    finally:
        os.close(handle)


def _read(handle: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY, dir_fd=handle)
    with open(fd) as file:
        return file.read()


def _stat(handle: int) -> list[str]:
    """Fields of proc_pid_stat(5) from the third, the state, on."""
    return _read(handle, "stat").rpartition(")")[2].split()


def _user_ticks(handle: int) -> int:
    """CPU time in user mode so far, of all threads: field 14."""
    return int(_stat(handle)[11])


def _write(handle: int, address: int, data: bytes) -> None:
    fd = os.open("mem", os.O_RDWR, dir_fd=handle)
    try:
        written = os.pwrite(fd, data, address)
    except OSError as error:
        pytest.skip(f"needs to write to read-only pages of another process (proc_mem.force_override): {error}")
    finally:
        os.close(fd)
    assert written == len(data)


def _wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"the process is not {what} after {_DEADLINE_S:g} s"
        time.sleep(_LOOK_S)
