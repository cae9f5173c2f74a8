"""Reaping what others have left: in a process of its own, that orphans come to as they come to the first one of a
container (PR_SET_CHILD_SUBREAPER, prctl(2)).
"""

import subprocess
import sys

_HEADER = """
import ctypes, os, subprocess, sys
from relayd.control.orphans import Orphans

assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER

def orphan():
    "One that has ended, after its parent."
    reader, writer = os.pipe()
    script = "exec 3<&0; cat <&3 >/dev/null & echo $!"
    parent = subprocess.run(["sh", "-c", script], stdin=reader, stdout=subprocess.PIPE, check=True)
    pid = int(parent.stdout)
    os.close(writer)
    os.close(reader)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid

def is_there(pid):
    return os.path.exists(f"/proc/{pid}")

orphans = Orphans()
"""


def run(script: str) -> None:
    subprocess.run([sys.executable, "-c", _HEADER + script], check=True, timeout=60)


def test_an_orphan_is_reaped_at_the_second_look() -> None:
    run("""
first, second = orphan(), orphan()
orphans.look()
assert is_there(first) and is_there(second)
for _ in range(3):
    orphans.look()
assert not is_there(first) and not is_there(second)
orphans.look()
""")


def test_the_end_of_a_child_is_left_to_who_waits_for_it() -> None:
    run("""
for code in (3, 4, 5):
    child = subprocess.Popen([sys.executable, "-S", "-c", f"raise SystemExit({code})"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    orphans.look()
    assert child.wait() == code
    orphans.look()
""")


def test_who_runs_is_left_alone() -> None:
    run("""
child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
for _ in range(3):
    orphans.look()
assert child.poll() is None
child.stdin.close()
assert child.wait() == 0
""")
