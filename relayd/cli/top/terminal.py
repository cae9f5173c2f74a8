"""The terminal of `relayd top`: an alternate screen, which is left as it was found, whatever happens in between."""

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Sequence

from relayd.cli.top.screen import Line, Style

__all__ = ["Terminal"]

#: Alternate screen, no cursor, nothing wraps (xterm's control sequences); and back.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
_PLAIN = "\x1b[0m"
#: SGR of ECMA-48, 8.3.117.
_STYLES = {
    Style.PLAIN: "",
    Style.BOLD: "\x1b[1m",
    Style.FAINT: "\x1b[2m",
    Style.HEAD: "\x1b[1;4m",
    Style.CURSOR: "\x1b[7m",
    Style.WARNING: "\x1b[33m",
    Style.ERROR: "\x1b[1;31m",
}
#: Where NO_COLOR is set (no-color.org): what is no colour says it.
_COLOURLESS = {**_STYLES, Style.WARNING: "\x1b[1m", Style.ERROR: "\x1b[1m"}


class Terminal:
    """Standard input and output, which are a terminal. As a context manager: taken inside, and given back."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._encoding = sys.stdout.encoding
        self._styles = _COLOURLESS if os.environ.get("NO_COLOR") else _STYLES
        self._before = termios.tcgetattr(self._in)
        self._drawn: list[Line] = []

    def __enter__(self) -> "Terminal":
        try:
            self.enter()
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.leave()

    def enter(self) -> None:
        """Take it: keys come as they are typed, and nothing is drawn yet. Ctrl-C and Ctrl-Z stay signals."""
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._drawn = []
        self._write(_ENTER)

    def leave(self) -> None:
        """Give it back as it was; what was typed and not read is dropped. Idempotent."""
        with contextlib.suppress(OSError, termios.error):  # it has gone: nothing is left to give back
            self._write(_LEAVE)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._in, termios.TCSAFLUSH, self._before)

    def size(self) -> tuple[int, int]:
        """Columns and lines; those of old where it does not know."""
        found = os.get_terminal_size(self._out)
        return found.columns or 80, found.lines or 24

    def resized(self) -> None:
        """Draw everything again."""
        self._drawn = []
        self._write("\x1b[2J")

    def read(self) -> bytes:
        """What was typed; b"": nobody will type any more."""
        return os.read(self._in, 4096)

    def fileno(self) -> int:
        """Readable when something was typed."""
        return self._in

    def draw(self, lines: Sequence[Line]) -> None:
        """These lines, from the top: only those that are others than before are written."""
        written = []
        for number, line in enumerate(lines):
            if number >= len(self._drawn) or self._drawn[number] != line:
                text, style = line
                code = self._styles[style]
                written.append(f"\x1b[{number + 1};1H{code}{text}{_PLAIN if code else ''}\x1b[K")
        if len(lines) < len(self._drawn):
            written.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
        self._drawn = list(lines)
        if written:
            self._write("".join(written))

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:  # whoever shares it has made it so
                select.select([], [self._out], [])
