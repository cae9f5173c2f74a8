"""Files, programs and processes: nothing is waited for without end, nothing grows without end."""

import os
import sys
from pathlib import Path

import pytest

from relayd import clock
from relayd.cli.diagnosis.sources import NotThere, command, file, processes

PYTHON = sys.executable


def test_a_file_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert file(path) == b"x" * 10
    assert file(path, 10) == b"x" * 10
    assert file(path, 9) == b"x" * 9 + b"\n(cut off here)\n"
    assert file("/dev/zero", 5) == b"\0" * 5 + b"\n(cut off here)\n"


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "a", "No such file"), (tmp_path, "Is a directory"), ("a\0b", "null")):
        with pytest.raises(NotThere, match=why):
            file(path)


def test_a_pipe_that_nobody_writes_to_is_no_trap(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert file(tmp_path / "fifo") == b""


def test_what_a_program_says_on_both_outputs() -> None:
    said = command(PYTHON, "-c", "import sys; print('a', flush=True); print('b', file=sys.stderr)")
    assert said == b"a\nb\n"


def test_how_a_program_fails_is_said() -> None:
    assert command("sh", "-c", "echo no; exit 3") == b"no\n(sh -c echo no; exit 3: it ended with 3)\n"
    with pytest.raises(NotThere, match="relayd-no-such-program is not installed"):
        command("relayd-no-such-program")


@pytest.mark.parametrize(
    "script", ["echo a; exec sleep 60", "echo a; exec >&- 2>&-; exec sleep 60", "echo a; sleep 60 &"]
)
def test_a_program_that_hangs_is_left_behind(script: str) -> None:
    began = clock.monotonic()
    said = command("sh", "-c", f"{script} # {os.getpid()}", within_s=0.5)
    assert said.startswith(b"a\n")
    assert said.endswith(b"not complete: it took more than 0.5 s)\n")
    assert clock.monotonic() - began < 10


def test_of_a_program_that_talks_without_end_the_end_is_kept() -> None:
    said = command("sh", "-c", "seq 100000", bytes_max=14)
    assert said.startswith(b"\n99999\n100000\n(")
    assert b"what came before is cut off" in said


def test_processes_of_relayd_are_known_by_their_command_lines(tmp_path: Path) -> None:
    lines = {
        "1": b"/sbin/init",
        "20": b"/usr/bin/python3\0/usr/bin/relayd\0run\0-c\0/etc/relayd/relay.toml\0",
        "21": b"python3\0-S\0-m\0relayd.relay.worker\0",
        "22": b"vi\0/etc/relayd\0run\0".replace(b"/etc/relayd", b"relayd.toml"),
        "23": b"relayd\0diagnose\0",
        "24": b"",
    }
    for pid, words in lines.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(words)
    (tmp_path / "25").mkdir()  # has ended since
    (tmp_path / "self").mkdir()
    assert [pid for pid, _ in processes(tmp_path)] == [20, 21]
    assert dict(processes(tmp_path))[21] == "python3 -S -m relayd.relay.worker"
    with pytest.raises(NotThere):
        list(processes(tmp_path / "nowhere"))
