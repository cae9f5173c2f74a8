"""`relayd run`: the composition root of the control process."""

import asyncio
import gc
import os
import resource
import sys
from pathlib import Path

from relayd import config
from relayd.control.daemon import Daemon
from relayd.control.listeners import BindFailed
from relayd.control.passed import PassedSockets
from relayd.control.reload import InForce, in_force
from relayd.errors import RelaydError
from relayd.log.events import Event
from relayd.log.logger import Logger, open_logger
from relayd.sd import activation
from relayd.sd.notify import Notifier
from relayd.spec import Spec
from relayd.spec.budget import shortages

__all__ = ["EXIT_INTERNAL", "EXIT_NOT_STARTED", "EXIT_OK", "EXIT_REFUSED", "run"]

EXIT_OK = 0
#: The file was refused. systemd does not start again on it (RestartPreventExitStatus): it would not get better.
EXIT_REFUSED = 1
#: The file is fine, and the machine did not let us: an address in use or forbidden, no worker, too few descriptors.
EXIT_NOT_STARTED = 4
#: EX_SOFTWARE of sysexits.h. Workers have noticed, and drain; systemd starts the daemon again.
EXIT_INTERNAL = 70
#: Thresholds of the garbage collector. A specification is a great many values that all stay: with Python's own 700,
#: collections take a third of the time that it takes to load 8,000 listeners.
_GC_THRESHOLDS = (50_000, 20, 100)
#: RLIM_INFINITY as a number: the kernel's default for fs.nr_open, above which no limit on open files goes.
_NOFILE_UNLIMITED = 1024 * 1024


class TooFewDescriptors(RelaydError):
    """The limit on open files is too low for the control process, or leaves a worker none for those it serves."""


def run(path: Path) -> int:
    """Relay what the file at `path` says until SIGTERM or SIGINT; returns the exit code.

    0 stopped in order; 1 the file was refused (the problems are on stderr); 4 could not start: an address in use or
    forbidden, a worker that does not come up, too few file descriptors (the reason is in the log and on stderr);
    70 a bug of relayd (the log has the traceback).
    """
    gc.set_threshold(*_GC_THRESHOLDS)
    _open_closed_stdio()
    try:
        passed = _passed_sockets()
    except activation.CannotInherit as error:
        _tell(str(error))
        return EXIT_NOT_STARTED
    try:
        return _run(path, passed)
    finally:
        passed.close()


def _passed_sockets() -> PassedSockets:
    own, activating = activation.divided(activation.inherited())
    for one in own:  # this version keeps nothing with systemd
        os.close(one.fd)
    return PassedSockets(activating)


def _run(path: Path, passed: PassedSockets) -> int:
    try:
        loaded = config.load(path, passed.inventory)
    except config.ConfigError as error:
        _tell(str(error))
        return EXIT_REFUSED
    logger = open_logger(loaded.spec.log)
    try:
        for warning in loaded.warnings:
            logger.event(Event.CONFIGURATION_WARNING, str(warning))
        if unused := passed.unused(loaded.spec):
            logger.event(Event.CONFIGURATION_WARNING, f"no listener uses what systemd has passed: {unused}")
        nofile = _raise_file_limit()
        _check_budget(loaded.spec, nofile)
        notifier = Notifier.from_environment(warn=lambda line: logger.event(Event.SYSTEMD_UNREACHABLE, line))
        asyncio.run(_live(in_force(loaded, path.absolute()), nofile, logger, notifier, passed))
    except RelaydError as error:
        return _not_started(logger, error)
    except Exception as error:
        logger.bug("ended the control process", error)
        return EXIT_INTERNAL
    finally:
        logger.close()
    # What is left is the process's to give back: the interpreter would spend 90 ms on visiting every class of pydantic.
    gc.freeze()
    return EXIT_OK


async def _live(start: InForce, nofile: int, logger: Logger, notifier: Notifier, passed: PassedSockets) -> None:
    # Made here: its events belong to the running loop.
    await Daemon(start, nofile, logger, notifier, passed=passed).run()


def _raise_file_limit() -> int:
    """Raise the soft limit on open files to the hard one, for the workers (F2); returns what is in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return _NOFILE_UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _check_budget(spec: Spec, nofile: int) -> None:
    too_few = shortages(nofile, spec)
    if too_few:
        advice = "raise the hard limit (LimitNOFILE= of the service, ulimit -Hn in a shell), or bind fewer addresses"
        raise TooFewDescriptors("; ".join((*too_few, advice)))


def _not_started(logger: Logger, error: RelaydError) -> int:
    """Say why, in the log, and on stderr where that is another place."""
    event = Event.BIND_FAILED if isinstance(error, BindFailed) else Event.START_FAILED
    problems = error.problems if isinstance(error, BindFailed) else [str(error)]
    for problem in problems:
        logger.event(event, problem)
    if not os.path.sameopenfile(1, 2):
        _tell(str(error))
    return EXIT_NOT_STARTED


def _tell(text: str) -> None:
    if sys.stderr is not None:  # None: closed when Python started, and there is nobody to tell
        sys.stderr.write(f"{text}\n")


def _open_closed_stdio() -> None:
    """Have descriptors 0 to 2 open: else a listening socket would get such a number, and a worker would write to it."""
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
