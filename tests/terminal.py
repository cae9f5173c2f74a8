"""A terminal for tests: a program on a pty, and what is on its screen.

It knows what relayd writes (xterm's control sequences), and fails at anything else: what is not known here may not be
known to a terminal either.
"""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

DEADLINE_S = 20.0
_CSI = re.compile(rb"\x1b\[(\??)([0-9;]*)([A-Za-z])")
#: Of private modes: alternate screen, cursor, autowrap.
_ALTERNATE, _CURSOR, _WRAP = 1049, 25, 7


@dataclass(frozen=True, slots=True)
class Cell:
    """A character, and the parameters of its SGR."""

    character: str = " "
    style: str = ""


class Screen:
    """What is on it, after all that was fed."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.modes: dict[int, bool] = {_ALTERNATE: False, _CURSOR: True, _WRAP: True}
        self.written = 0
        self._rest = b""
        self._style = ""
        self._main: list[list[Cell]] = []
        self._home: tuple[int, int] = (0, 0)
        self.cells: list[list[Cell]] = []
        self._row = self._column = 0
        self._clear()

    def resize(self, columns: int, lines: int) -> None:
        """As a terminal does: what is there stays, as far as there is room."""
        kept = self.cells
        self.columns, self.lines = columns, lines
        self._clear()
        for number, row in enumerate(kept[:lines]):
            self.cells[number][: len(row[:columns])] = row[:columns]

    def text(self) -> list[str]:
        """The lines, without what is blank at their ends."""
        return ["".join(cell.character for cell in row).rstrip() for row in self.cells]

    def feed(self, data: bytes) -> None:
        """What a program has written."""
        self.written += len(data)
        data, self._rest = self._rest + data, b""
        at = 0
        while at < len(data):
            byte = data[at : at + 1]
            if byte == b"\x1b":
                found = _CSI.match(data, at)
                if found is None:
                    assert len(data) - at < 20, f"no sequence that is known: {data[at : at + 20]!r}"
                    self._rest = data[at:]
                    return
                self._control(found[1] == b"?", found[2].decode(), found[3].decode())
                at = found.end()
            elif byte == b"\r":
                self._column, at = 0, at + 1
            elif byte == b"\n":
                self._new_line()
                at += 1
            elif byte in (b"\a", b"\b"):
                at += 1
            else:
                length = 1 if byte < b"\x80" else 2 if byte < b"\xe0" else 3 if byte < b"\xf0" else 4
                if at + length > len(data):
                    self._rest = data[at:]
                    return
                self._put(data[at : at + length].decode())
                at += length

    def _put(self, character: str) -> None:
        assert character.isprintable(), f"{character!r} acts on a terminal"
        if self._column >= self.columns:
            if not self.modes[_WRAP]:
                raise AssertionError(f"{character!r} does not fit in line {self._row}: {self.text()[self._row]}")
            self._column = 0
            self._new_line()
        self.cells[self._row][self._column] = Cell(character, self._style)
        self._column += 1

    def _new_line(self) -> None:
        if self._row == self.lines - 1:
            self.cells = [*self.cells[1:], self._blank()]
        else:
            self._row += 1

    def _control(self, private: bool, parameters: str, final: str) -> None:
        numbers = [int(each or 0) for each in parameters.split(";")]
        if private:
            assert final in "hl", final
            for number in numbers:
                self._mode(number, final == "h")
            return
        match final:
            case "H":
                row, column = (*numbers, 1)[:2] if parameters else (1, 1)
                self._row, self._column = min(row, self.lines) - 1, min(column, self.columns) - 1
            case "J":
                assert numbers in ([0], [2]), parameters
                for row in range(0 if numbers == [2] else self._row, self.lines):
                    self.cells[row] = self._blank()
            case "K":
                assert numbers == [0], parameters
                self.cells[self._row][self._column :] = self._blank()[self._column :]
            case "m":
                self._style = "" if parameters in ("", "0") else parameters
            case _:
                raise AssertionError(f"CSI {parameters} {final} is not known")

    def _mode(self, number: int, on: bool) -> None:
        assert number in self.modes, f"mode {number} is not known"
        if number == _ALTERNATE and on != self.modes[number]:
            if on:
                self._main, self._home = self.cells, (self._row, self._column)
                self._clear()
            else:
                self.cells, (self._row, self._column) = self._main, self._home
        self.modes[number] = on

    def _clear(self) -> None:
        self.cells = [self._blank() for _ in range(self.lines)]
        self._row = self._column = 0

    def _blank(self) -> list[Cell]:
        return [Cell()] * self.columns


class Terminal:
    """A program, its pty, and its screen."""

    def __init__(self, process: "subprocess.Popen[bytes]", master: int, slave: int, screen: Screen) -> None:
        self.process = process
        self.screen = screen
        self._master = master
        self._slave = slave

    def type(self, text: str) -> None:
        """Keys, as a terminal sends them."""
        os.write(self._master, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """The window is another one; the kernel tells the program."""
        self.screen.resize(columns, lines)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def settings(self) -> list[object]:
        """Of the terminal, as termios has them."""
        return list(termios.tcgetattr(self._slave))

    def wait_for(self, found: Callable[[list[str]], object], what: str = "") -> list[str]:
        """The screen, once `found` is true of it."""
        deadline = time.monotonic() + DEADLINE_S
        while not found(self.screen.text()):
            left = deadline - time.monotonic()
            shown = "\n".join(self.screen.text())
            assert left > 0, f"waited for {what or found}:\n{shown}"
            self._read(min(left, 0.1))
        return self.screen.text()

    def wait_for_text(self, text: str) -> list[str]:
        """The screen, once this is somewhere on it."""
        return self.wait_for(lambda lines: any(text in line for line in lines), repr(text))

    def wait_for_no(self, text: str) -> list[str]:
        """The screen, once this is nowhere on it."""
        return self.wait_for(lambda lines: not any(text in line for line in lines), f"no {text!r}")

    def wait(self) -> int:
        """Its end, and the last of what it wrote. Returns the exit status as subprocess does."""
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            shown = "\n".join(self.screen.text())
            assert time.monotonic() < deadline, f"it has not ended:\n{shown}"
            self._read(0.05)
        while self._read(0.0):
            pass
        return self.process.returncode

    def wait_stopped(self) -> None:
        """Until it is stopped, as by Ctrl-Z."""
        self._wait_state("T", "stopped")

    def _wait_state(self, state: str, what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
                if stat.read().rpartition(")")[2].split()[0] == state:
                    break
            assert time.monotonic() < deadline, f"it is not {what}"
            self._read(0.05)
        while self._read(0.0):
            pass

    def _read(self, timeout_s: float) -> bool:
        poll = select.poll()  # not select(2): tests with thousands of connections have high numbers
        poll.register(self._master, select.POLLIN)
        if not poll.poll(timeout_s * 1000):
            return False
        self.screen.feed(os.read(self._master, 65536))
        return True


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], columns: int = 100, lines: int = 30, environment: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """`command` on a terminal of its own, which it controls. It has ended afterwards."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    own = {"TERM": "xterm-256color", **(environment or {})}
    inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        list(command),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**inherited, **own},
        preexec_fn=_take_terminal,
    )
    try:
        yield Terminal(process, master, slave, Screen(columns, lines))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(master)
        os.close(slave)


def _take_terminal() -> None:
    """A session of its own, whose terminal is standard input."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
