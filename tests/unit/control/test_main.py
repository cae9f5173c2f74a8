"""How the control process ends."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def ended(code: str) -> tuple[int, bytes]:
    """What becomes of a process that calls `run` where a life is `code`, which has a `file` and a `nursery`."""
    script = f"""
import sys, types
life = types.ModuleType("relayd.control.life")
def lives(file, nursery):
{textwrap.indent(textwrap.dedent(code), "    ")}
life.lives = lives
sys.modules["relayd.control.life"] = life
import relayd.control
relayd.control.life = life
from relayd.control import main, spawning
spawning.WORKER_COMMAND = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
main.run("relay.toml")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout + done.stderr


def test_run_ends_with_what_a_life_returns() -> None:
    assert ended("print(file)\nreturn 4") == (4, b"relay.toml\n")


def test_an_end_waits_for_no_thread_and_takes_nothing_away_from_one() -> None:
    # The interpreter's own end would wait for this thread, and take the modules away from one that is not waited for:
    # of those that were importing C extensions, one in ten ended the process by SIGSEGV.
    code = """
    import atexit, threading, time
    atexit.register(print, "taken away")
    threading.Thread(target=time.sleep, args=(60,)).start()
    return 0
    """
    assert ended(code) == (0, b"")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_nobody_reads_any_more(stream: str) -> None:
    code = f"""
    import os
    read, write = os.pipe()
    os.close(read)
    sys.{stream} = open(write, "w")
    sys.{stream}.write("the last line")
    return 0
    """
    assert ended(code) == (0, b"")


def test_ctrl_c_before_there_is_a_daemon_ends_it_without_a_traceback() -> None:
    code = """
    import os, signal, time
    nursery.close()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    """
    assert ended(code) == (-signal.SIGINT, b"")
