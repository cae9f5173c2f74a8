"""Standard output and standard error of a command."""

import contextlib
import json
import os
import sys


def emit(text: str) -> bool:
    """Writes `text` to standard output, now. False where nobody is there to read it, or any more.

    A reader that has gone (`relayd show-config | head -1`) has seen enough: that is no error, and the command goes on
    to its own exit code. OSError for anything else, such as a full disk.
    """
    if sys.stdout is None:  # started with its standard output closed
        return False
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail again at exit, with a message and code 120: give it somewhere to go.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        if not isinstance(error, BrokenPipeError):
            raise
        return False
    return True


def complain(text: str) -> None:
    """Writes `text` and a newline to standard error, if anybody is there."""
    with contextlib.suppress(OSError):  # nowhere is left to say it; the exit code does
        print(text, file=sys.stderr, flush=True)


def json_text(value: object) -> str:
    """`value` for programs, and for people who look."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
