"""`relayd run`: from the first instruction to the last exit code.

After a restart clients wait for workers, and workers wait for nothing that the control process takes long to do: so
they are started first, and import what they need while control imports what it needs and reads the file. What is
imported before that is as little as can be: neither typing nor dataclasses nor pathlib, each of which takes as long as
a restart of a few hundred connections.
"""

import contextlib
import gc
import os
import signal
import sys

from relayd.control import spawning

TYPE_CHECKING = False  # as type checkers know it without `typing`
if TYPE_CHECKING:
    from pathlib import Path
    from typing import NoReturn

__all__ = [
    "EXIT_INTERNAL",
    "EXIT_NOT_STARTED",
    "EXIT_OK",
    "EXIT_REFUSED",
    "FIRST_PROCESS",
    "WAITING_SIGNALS",
    "run",
]

# What stands above each code as `#:` is what docs/reference.md and relayd(8) say of it.
#: Fine. `run` has stopped in order, or handed over to the next process.
EXIT_OK = 0
#: `run`: the file was refused. systemd does not start again on it (RestartPreventExitStatus): it would not get better.
EXIT_REFUSED = 1
#: `run`: the file is fine, and could not be done here: an address in use or forbidden, no worker, too few descriptors.
EXIT_NOT_STARTED = 4
#: `run`: a bug of relayd; the log has the traceback. Workers let connections finish, and systemd starts relayd again.
EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
#: What systemd and operators send to a daemon that has to live on.
WAITING_SIGNALS = frozenset({signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2})
#: What ends any other process at once the kernel drops for the first one of a PID namespace (a container's) while that
#: has no handler (pid_namespaces(7)): a stop that comes during the start would be lost. Blocked, it waits as well.
_STOPPING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
#: The process id of the first process of a PID namespace, which has duties and privileges of its own.
FIRST_PROCESS = 1
#: Thresholds of the garbage collector. A specification is a great many values that all stay: with Python's own 700,
#: collections take a third of the time that it takes to load 8,000 listeners.
_GC_THRESHOLDS = (50_000, 20, 100)


def run(file: "str | Path") -> "NoReturn":
    """Relay what `file` says until SIGTERM or SIGINT; ends the process, with this exit code:

    0 stopped in order, or handed over; 1 the file was refused (the problems are on stderr); 4 could not start: an
    address in use or forbidden, a worker that does not come up, too few file descriptors, no systemd-python (the reason
    is in the log, where there is one already, and on stderr); 70 a bug of relayd (the log has the traceback).
    """
    # Until the daemon can do what they ask for, they wait (`Daemon` lets them come): none is lost, and none is fatal.
    waiting = WAITING_SIGNALS | _STOPPING_SIGNALS if os.getpid() == FIRST_PROCESS else WAITING_SIGNALS
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else whoever has started this has set it aside
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until then Ctrl-C ends this as any process, without a traceback
    gc.set_threshold(*_GC_THRESHOLDS)
    _open_closed_stdio()
    code = _run(file)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed when Python started
            with contextlib.suppress(OSError, ValueError):  # nobody is there to read the last line
                stream.flush()
    # Not by way of the interpreter's own end. Threads may be at work still (`control.threads`), one that imports the
    # admin API's libraries, say, and to have their modules taken away under them ends in SIGSEGV one time in ten. What
    # is left is the kernel's to take back, 90 ms faster.
    os._exit(code)


def _run(file: "str | Path") -> int:
    """All lives. Returns the exit code."""
    with contextlib.suppress(OSError, ValueError):  # `life` does it once more, and tells
        spawning.raise_file_limit()  # workers have what this process has when they are started
    early = spawning.Nursery()
    try:
        early.start()
        from relayd.errors import RelaydError

        try:
            from relayd.control import life
        except RelaydError as error:  # systemd-python is missing
            if sys.stderr is not None:
                sys.stderr.write(f"{error}\n")
            return EXIT_NOT_STARTED
        return life.lives(file, early)
    finally:
        early.close()


def _open_closed_stdio() -> None:
    """Have descriptors 0 to 2 open: else a listening socket would get such a number, and a worker would write to it."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
