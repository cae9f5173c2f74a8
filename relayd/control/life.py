"""The composition root of the control process: one life after another, each with what the one before has left."""

import asyncio
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import relayd
from relayd import clock, config
from relayd.control import upgrade
from relayd.control.daemon import Daemon
from relayd.control.handover import Found, find
from relayd.control.listeners import BindFailed
from relayd.control.main import EXIT_INTERNAL, EXIT_NOT_STARTED, EXIT_OK, EXIT_REFUSED
from relayd.control.passed import PassedSockets
from relayd.control.reload import InForce, in_force
from relayd.control.spawning import Nursery, raise_file_limit
from relayd.errors import RelaydError
from relayd.log.events import Event
from relayd.log.logger import Logger, open_logger
from relayd.sd import activation
from relayd.sd.activation import Inherited
from relayd.sd.notify import Notifier
from relayd.spec import Spec
from relayd.spec.budget import shortages

__all__ = ["lives"]


class TooFewDescriptors(RelaydError):
    """The limit on open files is too low for the control process, or leaves a worker none for those it serves."""


#: Where another spec was in force before, this is no reason not to start, but one to go on with that: a reload would
#: refuse it as well (R1).
_IS_REFUSED = (BindFailed, TooFewDescriptors)


def lives(file: str | Path, nursery: Nursery) -> int:
    """Relay what `file` says; returns the exit code. See `control.main.run`."""
    path = Path(file)
    try:
        inherited = activation.inherited()
    except activation.CannotInherit as error:
        _tell(str(error))
        return EXIT_NOT_STARTED
    while True:
        own, activating = activation.divided(inherited)
        passed, found = PassedSockets(activating), find(own)
        passed_on: list[Inherited] = []
        try:
            code, passed_on = _live(path, passed, found, nursery)
        finally:
            found.close()
            if not passed_on:
                passed.close()
        if not passed_on:
            return code
        nursery.close()
        failure, inherited = upgrade.execute([*passed_on, *activating])
        # What would run next has been asked whether it can, so this is hardly ever seen; and nothing is lost: this very
        # code goes on.
        _tell(f"cannot become another relayd: {failure}; going on as this one")


def _live(path: Path, passed: PassedSockets, found: Found, nursery: Nursery) -> tuple[int, list[Inherited]]:
    """One life: its exit code, and what execve(2) is to pass on to the next one; nothing, where there is none."""
    warnings: tuple[str, ...] = ()
    start = _known(path, passed, found)
    before = None
    if found.spec is not None and not passed.lacks(found.spec):
        before = InForce(found.spec, path.absolute(), found.sha256, clock.monotonic())
    try:
        if start is None:
            loaded = config.load(path, passed.inventory)
            warnings = tuple(map(str, loaded.warnings))
            start = in_force(loaded, path.absolute())
    except config.ConfigError as error:
        if before is None:
            _tell(str(error))
            return EXIT_REFUSED, []
        return _go_on(before, (), tuple(map(str, error.problems)), passed, found, nursery)
    if before is None or before.spec == start.spec:
        return _go_on(start, warnings, (), passed, found, nursery)
    try:
        return _go_on(start, warnings, (), passed, found, nursery, or_raise=_IS_REFUSED)
    except _IS_REFUSED as error:
        problems = error.problems if isinstance(error, BindFailed) else [str(error)]
        return _go_on(before, (), tuple(problems), passed, found, nursery)


def _go_on(
    start: InForce,
    warnings: tuple[str, ...],
    refused: tuple[str, ...],
    passed: PassedSockets,
    found: Found,
    nursery: Nursery,
    *,
    or_raise: tuple[type[RelaydError], ...] = (),
) -> tuple[int, list[Inherited]]:
    """A life from `start` on. `or_raise`: these are not told, and nothing has been done then."""
    start = replace(start, spec=replace(start.spec, copies=found.copies_for(start.spec.workers)))
    logger = open_logger(start.spec.log)
    passed_on: list[Inherited] = []
    try:
        if unused := passed.unused(start.spec):
            warnings = (*warnings, f"no listener uses what systemd has passed: {unused}")
        for warning in warnings:
            logger.event(Event.CONFIGURATION_WARNING, warning)
        nofile = raise_file_limit()
        _check_budget(start.spec, nofile)
        notifier = Notifier.from_environment(warn=lambda line: logger.event(Event.SYSTEMD_UNREACHABLE, line))
        passed_on = asyncio.run(_daemon(start, refused, nofile, logger, notifier, passed, found, nursery))
    except or_raise:
        raise
    except RelaydError as error:
        return _not_started(logger, error), []
    except Exception as error:
        logger.bug("ended the control process", error)
        return EXIT_INTERNAL, []
    finally:
        logger.close()
    return EXIT_OK, passed_on


def _known(path: Path, passed: PassedSockets, found: Found) -> InForce | None:
    """What is in force, where that is what it was in the life before: to read a file that has not changed would take a
    third of a restart. None where it may have changed. The daemon reads it all the same, when nobody waits any more.
    """
    here = (relayd.__version__, len(os.sched_getaffinity(0)))
    if found.spec is None or not found.alone or passed.inventory or (found.version, found.cores) != here:
        return None
    if passed.lacks(found.spec):  # the file is refused for it
        return None
    try:
        same = hashlib.sha256(path.read_bytes()).hexdigest() == found.sha256
    except OSError:
        return None
    if not same:
        return None
    return InForce(found.spec, path.absolute(), found.sha256, clock.monotonic(), alone=True, unread=True)


async def _daemon(
    start: InForce,
    refused: tuple[str, ...],
    nofile: int,
    logger: Logger,
    notifier: Notifier,
    passed: PassedSockets,
    found: Found,
    nursery: Nursery,
) -> list[Inherited]:
    # Made here: its events belong to the running loop.
    return await Daemon(
        start, nofile, logger, notifier, refused=refused, passed=passed, found=found, nursery=nursery
    ).run()


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
