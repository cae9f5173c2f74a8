"""What stdout can be: pipes, terminals, sockets, files, closed, full. Never a wait, never an exception."""

import fcntl
import json
import os
import pty
import resource
import socket
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayd.log.formats import LINE_BYTES_MAX
from relayd.log.logger import AccessRecord, Event, Logger, open_logger
from relayd.log.sinks import open_stream
from relayd.spec import Log

LINES = [b"%05d %s\n" % (number, b"x" * 200) for number in range(1000)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def _drain(fd: int) -> bytes:
    """Everything that can be read now."""
    os.set_blocking(fd, False)
    data = b""
    while True:
        try:
            data += os.read(fd, 65536)
        except BlockingIOError:
            return data


def test_a_full_pipe_takes_whole_lines_and_goes_on_later(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    sink = open_stream(writer)
    taken = sink.write(LINES)  # a sink that waited would never come back
    assert 0 < taken < len(LINES)
    assert _drain(reader) == b"".join(LINES[:taken])
    sink.close()


def test_the_description_shared_with_others_stays_blocking(pipe: tuple[int, int]) -> None:
    _, writer = pipe
    sink = open_stream(writer)
    assert os.get_blocking(writer)
    sink.close()
    sink.close()
    os.fstat(writer)


def test_each_write_to_a_pipe_keeps_to_what_the_kernel_does_not_divide(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    sink = open_stream(writer)
    os.set_blocking(reader, False)
    assert sink.write(LINES[:100]) == 100
    sink.close()
    data = _drain(reader)
    assert data == b"".join(LINES[:100])


def test_lines_of_several_processes_never_mix(pipe: tuple[int, int]) -> None:
    """Four processes, one pipe that is always nearly full: every line arrives whole."""
    reader, writer = pipe
    program = (
        "import sys\n"
        "from relayd.log.sinks import open_stream\n"
        "sink = open_stream(1)\n"
        "lines = [(sys.argv[1] * (50 + n % 400) + '\\n').encode() for n in range(2000)]\n"
        "while lines or sink.pending: del lines[:sink.write(lines)]\n"
        "sink.close()\n"
    )
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    processes = [subprocess.Popen([sys.executable, "-c", program, name], stdout=writer) for name in "abcd"]
    expected = 4 * sum(51 + n % 400 for n in range(2000))
    data = b""
    while len(data) < expected:
        data += os.read(reader, 65536)
    assert [process.wait() for process in processes] == [0] * 4
    lines = data.decode().splitlines()
    assert len(lines) == 8000
    assert all(len(set(line)) == 1 for line in lines)


def test_a_pipe_that_cannot_be_opened_again_is_polled(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        sink = open_stream(pipe[1])
    taken = sink.write(LINES)
    assert 0 < taken < len(LINES)
    assert os.get_blocking(pipe[1])
    assert _drain(pipe[0]) == b"".join(LINES[:taken])
    assert sink.write(LINES[taken : taken + 1]) == 1
    sink.close()


def test_a_pipe_that_nobody_reads_takes_nothing() -> None:
    reader, writer = os.pipe()
    sink = open_stream(writer)
    os.close(reader)
    assert sink.write(LINES) == 0
    sink.close()
    broken = open_stream(writer)  # opening again is ENXIO by now
    assert broken.write(LINES) == 0
    broken.close()
    os.close(writer)


def test_a_stopped_terminal_takes_what_fits_and_is_left_as_it_was() -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)  # no translation of line feeds
    sink = open_stream(slave)
    taken = sink.write(LINES)  # nobody reads: a sink that waited would never come back
    assert 0 < taken < len(LINES)
    assert os.get_blocking(slave)
    received = b""
    while taken < len(LINES) or sink.pending:
        received += os.read(master, 65536)
        taken += sink.write(LINES[taken:])
    received += _drain(master)
    assert received == b"".join(LINES)
    sink.close()
    os.close(slave)
    os.close(master)


def test_a_socket_is_written_without_waiting_and_without_changing_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = open_stream(ours.fileno())
        taken = sink.write(LINES * 20)
        assert 0 < taken < len(LINES) * 20
        assert os.get_blocking(ours.fileno())
        received = b""
        while sink.pending or not received:
            received += theirs.recv(1 << 20)
            sink.write([])
        received += _drain(theirs.fileno())
        assert received == b"".join((LINES * 20)[:taken])
        theirs.close()
        assert sink.write(LINES) == 0
        sink.close()


def test_a_file_keeps_the_position_it_shares(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        sink = open_stream(file.fileno())
        os.write(file.fileno(), b"before\n")
        assert sink.write(LINES) == len(LINES)
        os.write(file.fileno(), b"after\n")
        sink.close()
    assert (tmp_path / "log").read_bytes() == b"before\n" + b"".join(LINES) + b"after\n"


def test_a_file_that_cannot_grow_takes_nothing_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open(tmp_path / "log", "wb") as file:
        sink = open_stream(file.fileno())
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
            taken = sink.write(LINES[:10])
            assert sink.pending, "the last line that was taken is cut"
            assert sink.write(LINES[10:]) == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert taken + sink.write(LINES[taken:]) == len(LINES)

        sink.close()
    assert (tmp_path / "log").read_bytes() == b"".join(LINES)


def test_a_full_disk_takes_nothing() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        sink = open_stream(full.fileno())
        assert sink.write(LINES) == 0
        sink.close()


def test_a_closed_stdout_is_taken_by_dev_null_and_not_by_the_next_socket() -> None:
    program = (
        "import os, socket, sys\n"
        "from relayd.log.logger import Event, open_logger\n"
        "from relayd.spec import Log\n"
        "logger = open_logger(Log('info', 'auto', True))\n"
        "ours, theirs = socket.socketpair()\n"
        "logger.event(Event.STARTED, 'up')\n"
        "logger.close()\n"
        "assert ours.fileno() > 2 and theirs.fileno() > 2, (ours, theirs)\n"
        "print(os.readlink('/proc/self/fd/1'), file=sys.stderr)\n"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" 1>&-', sys.executable, program], stderr=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"/dev/null\n")


def _log(format_: str) -> Log:
    return Log("info", format_, access=True)


def _first_line(logger: Logger, reader: int) -> bytes:
    logger.event(Event.STARTED, "up")
    logger.close()
    return os.read(reader, LINE_BYTES_MAX)


def test_auto_is_json_on_a_pipe_and_text_on_a_terminal(pipe: tuple[int, int]) -> None:
    assert json.loads(_first_line(open_logger(_log("auto"), fd=pipe[1], environ={}), pipe[0]))["event"] == "started"
    master, slave = pty.openpty()
    assert _first_line(open_logger(_log("auto"), fd=slave, environ={}), master).endswith(b"Z info up\r\n")
    os.close(slave)
    os.close(master)


def test_auto_is_the_journal_where_stdout_leads_there(
    pipe: tuple[int, int], tmp_path: Path, access_record: AccessRecord
) -> None:
    status = os.fstat(pipe[1])
    environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        logger = open_logger(_log("auto"), worker=4, fd=pipe[1], environ=environ, journal_socket=path)
        logger.access(access_record)
        logger.event(Event.WORKER_STARTED, "worker 4 accepts")
        logger.close()
        assert b"\nLISTENER=web\n" in journald.recv(4096)
        assert b"\nWORKER=4\n" in journald.recv(4096)
    assert _drain(pipe[0]) == b""


def test_a_full_journal_loses_nothing_while_lines_can_be_held(tmp_path: Path, access_record: AccessRecord) -> None:
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.bind(path)
        logger = open_logger(_log("journal"), environ={}, journal_socket=path)
        for _ in range(300):
            logger.access(access_record)
        logger.flush()
        received = 0
        os.set_blocking(journald.fileno(), False)
        while received < 300:
            try:
                journald.recv(4096)
                received += 1
            except BlockingIOError:
                logger.flush()
        assert logger.lost == 0
        logger.close()


def test_the_journal_as_an_order_without_journald_is_said_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = open_logger(_log("journal"), environ={}, journal_socket=str(tmp_path / "none"))
    logger.event(Event.STARTED, "up")
    logger.close()
    assert logger.lost == 1
    assert "nothing listens at" in capsys.readouterr().err
