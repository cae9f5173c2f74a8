"""Upgrade in place (R5): this process becomes the relayd that is installed now, by execve(2), and keeps its
descriptors.

They are passed as systemd passes them (sd_listen_fds(3)), so that there is one way to be started.
"""

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import relayd
from relayd.sd.activation import Inherited

__all__ = ["Question", "execute", "other_version"]

#: SD_LISTEN_FDS_START.
_FIRST_FD = 3
#: Loading a file of thousands of listeners takes seconds.
_CHECK_S = 60.0


class Question:
    """Whether the relayd that is installed now would run on a file: its `check` is asked. Owns that process, which ends
    with the `answer`.
    """

    def __init__(self, file: Path) -> None:
        """Ask. Raises OSError where there is nobody to be asked."""
        command = [sys.executable, *_interpreter_arguments(), "check", "-c", str(file)]
        self._process = subprocess.Popen(  # noqa: S603  # our own command line
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def answer(self) -> str:
        """Why not; "" when it would. Blocks."""
        with self._process as process:
            try:
                _, stderr = process.communicate(timeout=_CHECK_S)
            except subprocess.TimeoutExpired as error:
                return str(error)
            finally:
                process.kill()
        if process.returncode == 0:
            return ""
        said = stderr.decode(errors="backslashreplace").strip()
        return said or f"relayd check exited with code {process.returncode}"

    def give_up(self) -> None:
        """Nobody wants to know any more: have the process end, and `answer` return. From any thread."""
        self._process.kill()


def other_version(package: Path = Path(relayd.__file__)) -> str:
    """The version in the file `package` when that is another one than runs, else "". Between the two, files of the new
    one are in place and this process is of the old one; workers that are started then need not understand it.
    """
    try:
        found = re.findall(r'^__version__ = "(.+)"$', package.read_text(), re.MULTILINE)
    except (OSError, ValueError):  # just being replaced
        return ""
    return found[-1] if found and found[-1] != relayd.__version__ else ""


def execute(passed: Sequence[Inherited]) -> tuple[OSError, list[Inherited]]:
    """Become another relayd, with the same arguments, that is `passed` these. Owns them; every other descriptor but 0
    to 2 is to be closed, or close-on-exec.

    Returns only when that fails: why, and the descriptors, which may have other numbers now.
    """
    environment = dict(os.environ) | {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(passed)),
        "LISTEN_FDNAMES": ":".join(one.name for one in passed),
    }
    fds = [one.fd for one in passed]
    try:
        _place(fds)
        os.execve(sys.executable, [sys.executable, *_interpreter_arguments(), *sys.argv[1:]], environment)  # noqa: S606
    except OSError as error:
        for fd in fds:
            os.set_inheritable(fd, False)
        return error, [Inherited(one.name, fd) for one, fd in zip(passed, fds, strict=True)]


def _place(fds: list[int]) -> None:
    """Bring these, inheritable, to the numbers from _FIRST_FD on. One at a time, for there may be hardly any to spare.
    Raises OSError when there is none; `fds` are where they are at any time.
    """
    where = {fd: index for index, fd in enumerate(fds)}
    for index, wanted in enumerate(range(_FIRST_FD, _FIRST_FD + len(fds))):
        fd = fds[index]
        if fd == wanted:
            os.set_inheritable(fd, True)
            continue
        if (other := where.pop(wanted, None)) is not None:  # it makes room
            fds[other] = fcntl.fcntl(wanted, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
            where[fds[other]] = other
        os.dup2(fd, wanted)  # which is inheritable
        os.close(fd)
        where.pop(fd, None)
        fds[index] = wanted


def _interpreter_arguments() -> list[str]:
    """What stood between the interpreter and our own arguments: options, and the script or -m relayd."""
    return sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
