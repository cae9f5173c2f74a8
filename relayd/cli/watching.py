"""`--watch`: what a command prints, again and again until Ctrl-C, and over restarts of the daemon.

In a terminal the screen is redrawn; elsewhere one answer follows the other, JSON as one document a line. Only the first
question has to be answered: a daemon that goes away later is told of once, and waited for.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeAlias

import typer
from typer.core import TyperCommand

from relayd import clock
from relayd.cli.cells import cut_end, printable
from relayd.cli.output import complain, emit
from relayd.errors import RelaydError
from relayd.values import dataclass

__all__ = ["Screen", "Watch", "WatchCommand", "give_way", "screen", "watch"]

#: A tenth of the processor time of those who relay, where there is not enough for all (sched(7)).
_NICE = 10

_INTERVAL_S = 2.0
_INTERVAL_MIN_S = 0.1
_WATCH = "--watch"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

Watch: TypeAlias = Annotated[
    float | None,
    typer.Option(
        _WATCH,
        metavar="[=SECONDS]",
        min=_INTERVAL_MIN_S,
        help=f"Again every so many seconds ({_INTERVAL_S:g}), until Ctrl-C. With --json: one document a line.",
        show_default=False,
    ),
]


class WatchCommand(TyperCommand):
    """A command with `Watch`, whose value may be left out: typer itself knows no such option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As it does."""
        return super().parse_args(ctx, [f"{_WATCH}={_INTERVAL_S:g}" if each == _WATCH else each for each in args])


def give_way() -> None:
    """What is shown can wait, and what is relayed on this machine cannot: from now on, others go before."""
    with contextlib.suppress(OSError):
        os.nice(_NICE)


@dataclass(frozen=True, slots=True)
class Screen:
    """Of a terminal; `moves` where its cursor can be told where to go."""

    columns: int
    lines: int
    moves: bool


def screen() -> Screen | None:
    """Where standard output goes; None: to no terminal, which has neither width nor colour."""
    try:
        if sys.stdout is None or not sys.stdout.isatty():
            return None
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):  # closed, or replaced by what has no descriptor
        return None
    # A terminal that does not know its size says 0.
    return Screen(columns or 80, rows or 24, os.environ.get("TERM", "dumb") != "dumb")


def watch(
    ask: Callable[[], dict[str, Any]],
    show: Callable[[dict[str, Any], Screen | None], Sequence[str]],
    interval_s: float,
    *,
    as_json: bool,
) -> None:
    """Until Ctrl-C, or until nobody reads it. `ask` raises RelaydError; what it raises the first time is raised.

    `show` makes lines of an answer, of which as many are shown as the screen has.
    """
    answered: dict[str, Any] | None = None
    trouble = ""
    try:
        while True:
            try:
                found = ask()
                lines = [json.dumps(found, ensure_ascii=False)] if as_json else show(found, screen())
            except RelaydError as error:
                if answered is None:
                    raise
                where = screen()
                if where is not None and where.moves and not as_json:
                    _redraw(show(answered, where), where, str(error))
                elif str(error) != trouble:
                    complain(str(error))
                trouble = str(error)
            else:
                answered, trouble = found, ""
                if not _print(lines, as_json=as_json):
                    return
            clock.pause(interval_s)
    except KeyboardInterrupt:
        return


def _print(lines: Sequence[str], *, as_json: bool) -> bool:
    """False: nobody reads it any more."""
    where = screen()
    if where is not None and where.moves and not as_json:
        return _redraw(lines, where, "")
    return emit("".join(f"{line}\n" for line in lines) + ("" if as_json else "\n"))


def _redraw(lines: Sequence[str], where: Screen, error: str) -> bool:
    """As many as fit, and the error as the last of them. The last line of the screen is for the cursor."""
    room = where.lines - 1 - bool(error)
    shown = [cut_end(line, where.columns) for line in lines[:room]]
    if error:
        shown.append(cut_end(printable(error.splitlines()[0]), where.columns))
    return emit(_HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in shown) + _CLEAR_BELOW)
