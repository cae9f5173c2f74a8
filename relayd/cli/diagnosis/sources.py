"""Where the parts of a diagnosis come from: files, and what other programs say, bounded in bytes and time."""

import os
import selectors
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from relayd import clock

__all__ = ["COMMAND_S", "CUT", "PART_BYTES_MAX", "NotThere", "command", "file", "processes", "text"]

#: Of one part. What is beyond that nobody reads; all parts together stay below what a bug tracker takes.
PART_BYTES_MAX = 2 * 1024 * 1024
#: So long another program has to say what it knows.
COMMAND_S = 8.0
#: Of relayd: a control process and its workers, of a few daemons at most.
_PROCESSES_MAX = 64
_CHUNK_BYTES = 64 * 1024
#: Below a beginning of something.
CUT = "\n(cut off here)\n"
#: In the command line of a worker.
_WORKER = "relayd.relay.worker"


class NotThere(Exception):
    """A part that cannot be had, and why."""


def text(data: bytes) -> str:
    """What was read, whatever is in it."""
    return data.decode("utf-8", "backslashreplace")


def file(path: Path | str, bytes_max: int = PART_BYTES_MAX) -> bytes:
    """The beginning of a file. Raises NotThere."""
    try:
        # Not blocking: what is in the place of a file may be a pipe that nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise NotThere(_why(path, error)) from None
    data = b""
    try:
        while len(data) <= bytes_max and (more := os.read(fd, _CHUNK_BYTES)):
            data += more
    except OSError as error:
        raise NotThere(_why(path, error)) from None
    finally:
        os.close(fd)
    return data if len(data) <= bytes_max else data[:bytes_max] + CUT.encode()


def command(*words: str, within_s: float = COMMAND_S, bytes_max: int = PART_BYTES_MAX) -> bytes:
    """The end of what a program says, on both its outputs; how it failed, and that it took too long, is said there,
    too. Raises NotThere where there is no such program.
    """
    program = shutil.which(words[0])
    if program is None:
        raise NotThere(f"{words[0]} is not installed")
    ours, to_us = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603  # programs that `parts` names
            [program, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=to_us,
            stderr=to_us,
            env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat"},
            cwd="/",
        )
    except OSError as error:
        os.close(ours)
        raise NotThere(_why(program, error)) from None
    finally:
        os.close(to_us)
    try:
        said, ended = _read(process, ours, clock.monotonic() + within_s, bytes_max)
    finally:
        process.kill()  # no harm where it has ended
        process.wait()
        os.close(ours)
    notes = []
    if len(said) > bytes_max:
        said, notes = said[-bytes_max:], ["what came before is cut off"]
    if not ended:
        notes.append(f"not complete: it took more than {within_s:g} s")
    elif process.returncode:
        notes.append(f"it ended with {process.returncode}")
    return said + "".join(f"({' '.join(words)}: {note})\n" for note in notes).encode()


def _read(process: "subprocess.Popen[bytes]", output: int, deadline: float, bytes_max: int) -> tuple[bytes, bool]:
    """A little more than the last `bytes_max` of what it says, and whether that is all until it has ended."""
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := deadline - clock.monotonic()) > 0 and selector.select(left):
            more = os.read(output, _CHUNK_BYTES)
            if not more:
                try:
                    process.wait(max(deadline - clock.monotonic(), 0))
                except subprocess.TimeoutExpired:
                    break  # it has closed its output, and goes on
                return bytes(said), True
            said += more
            del said[: -bytes_max - 1]
    return bytes(said), False


def processes(root: Path = Path("/proc")) -> Iterator[tuple[int, str]]:
    """Process ids of what looks like a relayd, and their command lines; the first _PROCESSES_MAX. Raises NotThere."""
    try:
        pids = sorted(int(name) for name in os.listdir(root) if name.isdecimal())
    except OSError as error:
        raise NotThere(_why(root, error)) from None
    found = 0
    for pid in pids:
        try:
            words = text(file(root / str(pid) / "cmdline", _CHUNK_BYTES)).split("\0")
        except NotThere:
            continue  # it has ended since
        if found < _PROCESSES_MAX and _is_relayd(words):
            found += 1
            yield pid, " ".join(words).strip()


def _is_relayd(words: Sequence[str]) -> bool:
    return _WORKER in words or any(
        os.path.basename(word) == "relayd" and "run" in words[index + 1 : index + 2] for index, word in enumerate(words)
    )


def _why(what: object, error: Exception) -> str:
    return f"{what}: {(error.strerror if isinstance(error, OSError) else '') or error}"
