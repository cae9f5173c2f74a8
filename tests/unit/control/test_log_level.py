"""The level that an operator wants, and how long it holds."""

from typing import Any

from relayd.control.log_level import LogLevel
from relayd.log.formats import JsonFormat
from relayd.log.logger import Logger
from relayd.spec import Log


class Lines:
    """A sink that keeps what it is given."""

    pending = False

    def __init__(self) -> None:
        self.text = ""

    def write(self, lines: list[bytes]) -> int:
        self.text += b"".join(lines).decode()
        return len(lines)

    def close(self) -> None:
        """Nothing to close."""


class Bench:
    """A level over a file that says `file`, what workers were told, and the log."""

    def __init__(self, file: str) -> None:
        self.file = Log(file, "json", access=True)
        self.told: list[str | None] = []
        self.lines = Lines()
        self.logger = Logger(self.file, JsonFormat(None), self.lines)  # type: ignore[arg-type]  # as much of a Sink as is used
        self.level = LogLevel(self.logger, lambda: self.file, self.told.append)

    @property
    def priority(self) -> int:
        """From which on lines are written."""
        return self.logger.priority_max


def said(level: str, file: str) -> dict[str, Any]:
    return {"level": level, "file": file}


def test_it_holds_until_a_reload() -> None:
    bench = Bench("info")
    assert bench.level.status() == said("info", "info")
    assert bench.level.change("debug", "uid 0, pid 7") == bench.level.status() == said("debug", "info")
    assert (bench.priority, bench.told) == (7, ["debug"])
    bench.level.forget()
    assert bench.level.status() == said("info", "info")
    assert (bench.priority, bench.told) == (6, ["debug", None])
    bench.level.forget()
    assert bench.told == ["debug", None]


def test_what_a_reload_says_is_what_it_goes_back_to() -> None:
    bench = Bench("info")
    bench.level.change("debug", "somebody")
    bench.file = Log("error", "json", access=True)
    assert bench.level.status() == said("debug", "error")
    bench.level.forget()
    assert (bench.level.status(), bench.priority) == (said("error", "error"), 3)


def test_back_to_what_the_file_says() -> None:
    bench = Bench("warning")
    bench.level.change("debug", "somebody")
    bench.level.change("warning", "somebody")
    assert (bench.level.status(), bench.priority) == (said("warning", "warning"), 4)
    assert bench.told == ["debug", None]


def test_it_is_said_whatever_the_level_is() -> None:
    bench = Bench("error")
    bench.level.change("warning", "uid 0, pid 7")
    bench.level.change("error", "127.0.0.1:4711")
    first, second = bench.lines.text.splitlines()
    assert '"event":"log_level"' in first.replace(": ", ":")
    assert (
        "the log level is warning, and was error, by order of uid 0, pid 7; the next reload or restart makes it error"
        in first
    )
    assert "the log level is error, and was warning, by order of 127.0.0.1:4711" in second
    assert "the next reload" not in second
