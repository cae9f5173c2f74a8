"""Becoming another relayd (R5): asked first whether it can, then by execve(2), which only other processes can show."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from relayd.control import upgrade

GOOD = """
[listeners.web]
type = "stream"
bind = "127.0.0.1:0"
targets = ["127.0.0.1:8081"]
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is taken; and this process is one that runs on it."""
    file = tmp_path / "relay.toml"
    file.write_text(GOOD)
    started_as(monkeypatch, "-P", "-m", "relayd", arguments=("run", "-c", str(file)))
    return file


def started_as(monkeypatch: pytest.MonkeyPatch, *before: str, arguments: Sequence[str]) -> None:
    """What Python keeps of its command line: options and `-m relayd`, or a script, then what is ours."""
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, *before, *arguments])
    monkeypatch.setattr(sys, "argv", ["/some/where/__main__.py", *arguments])


def test_a_relayd_that_runs_and_takes_the_file_is_no_problem(file: Path) -> None:
    assert upgrade.Question(file).answer() == ""


def test_a_file_that_is_refused_is_the_problem(file: Path) -> None:
    file.write_text(GOOD.replace("stream", "steam"))
    problem = upgrade.Question(file).answer()
    assert problem.startswith(f"{file}:3:8: ")
    assert "steam" in problem


def test_another_version_in_its_place_is_noticed(tmp_path: Path) -> None:
    assert upgrade.other_version() == ""
    package = tmp_path / "__init__.py"
    assert upgrade.other_version(package) == ""
    package.write_text('"""relayd."""\n\n__version__ = "99.0"\n')
    assert upgrade.other_version(package) == "99.0"


def test_a_script_is_started_as_it_was(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "relayd"
    script.write_text("import sys; print(sys.argv, file=sys.stderr); sys.exit(3)")
    started_as(monkeypatch, str(script), arguments=("run", "-c", "other"))
    assert upgrade.Question(file).answer() == repr([str(script), "check", "-c", str(file)])


def test_one_that_ends_without_a_word_is_a_problem_all_the_same(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "relayd"
    script.write_text("raise SystemExit(5)")
    started_as(monkeypatch, str(script), arguments=("run",))
    assert upgrade.Question(file).answer() == "relayd check exited with code 5"


def test_an_interpreter_that_is_gone_cannot_be_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError, match="/nowhere/python"):
        upgrade.Question(file)


def test_one_that_does_not_answer_is_a_problem(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "relayd"
    script.write_text("import signal; signal.pause()")
    started_as(monkeypatch, str(script), arguments=("run",))
    monkeypatch.setattr(upgrade, "_CHECK_S", 0.01)
    assert "timed out" in upgrade.Question(file).answer()


def test_nobody_waits_for_one_that_is_given_up(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "relayd"
    script.write_text("import signal; signal.pause()")
    started_as(monkeypatch, str(script), arguments=("run",))
    question = upgrade.Question(file)
    question.give_up()
    assert question.answer() == "relayd check exited with code -9"


# execve(2) ----------------------------------------------------------------------------------------------------------

#: What is run next: says what it was started with, and what it has.
_NEXT = """
import json, os, sys
from relayd.sd.activation import inherited
pid = os.environ["LISTEN_PID"]
found = [(one.name, one.fd, os.fstat(one.fd).st_ino) for one in inherited()]
open_fds = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(fd)
    except OSError:
        continue
    open_fds.append(fd)
print(json.dumps([pid == sys.argv[2], found, sorted(open_fds), sys.argv[1:], os.environ.get("KEPT")]))
"""

NAMES = ["a", "b c", "relayd-x", "a"]

#: What becomes it, with descriptors that are where the others are to be (`where` is "crossed"), and none to spare
#: ("crowded"); or elsewhere, all or some ("mixed").
_BECOME = """
import fcntl, os, resource, socket, sys
from relayd.control import upgrade
from relayd.sd.activation import Inherited

if {fails}:
    sys.executable = "/nowhere/python"
sys.orig_argv = [sys.executable, {script!r}, "run", str(os.getpid())]
sys.argv = [{script!r}, "run", str(os.getpid())]
os.environ["KEPT"] = "yes"
fds = [socket.socket().detach() for _ in range(4)]
assert fds == [3, 4, 5, 6]
away = dict(elsewhere=fds, mixed=[5, 6]).get({where!r}, [])
fds = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) if fd in away else fd for fd in fds]
for fd in away:
    os.close(fd)
passed = [Inherited(name, fds[at]) for name, at in zip({names}, dict(mixed=[1, 2, 3, 0]).get({where!r}, [2, 0, 1, 3]))]
print([os.fstat(one.fd).st_ino for one in passed], flush=True)
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
if {where!r} == "crowded":
    resource.setrlimit(resource.RLIMIT_NOFILE, (7, limit[1]))
error, placed = upgrade.execute(passed)
resource.setrlimit(resource.RLIMIT_NOFILE, limit)
print(type(error).__name__, error.errno)
print([(one.name, os.get_inheritable(one.fd), os.fstat(one.fd).st_ino) for one in placed])
fds = []
for fd in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(fd)
    except OSError:
        continue
    fds.append(fd)
print(sorted(fds), sorted(one.fd for one in placed))
"""


def become(tmp_path: Path, where: str, *, fails: bool) -> list[str]:
    """What the process has said that becomes another."""
    script = tmp_path / "next.py"
    script.write_text(_NEXT)
    done = subprocess.run(
        [sys.executable, "-c", _BECOME.format(fails=fails, script=str(script), where=where, names=NAMES)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("where", ["crossed", "mixed", "elsewhere"])
def test_it_becomes_another_that_has_everything_and_nothing_more(where: str, tmp_path: Path) -> None:
    # R5: the same process id, the same arguments, and descriptors as systemd passes them.
    inodes, said = become(tmp_path, where, fails=False)
    same_pid, found, fds, arguments, kept = json.loads(said)
    assert same_pid
    assert found == [[name, fd, inode] for name, fd, inode in zip(NAMES, range(3, 7), json.loads(inodes), strict=True)]
    assert fds == [0, 1, 2, 3, 4, 5, 6]
    assert (arguments[0], kept) == ("run", "yes")


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("crossed", "FileNotFoundError 2"),
        ("mixed", "FileNotFoundError 2"),
        ("elsewhere", "FileNotFoundError 2"),
        ("crowded", "OSError 24"),  # EMFILE
    ],
)
def test_where_it_cannot_it_has_everything_still(where: str, why: str, tmp_path: Path) -> None:
    # R5
    inodes, error, placed, fds = become(tmp_path, where, fails=True)
    assert error == why
    assert placed == repr([(name, False, inode) for name, inode in zip(NAMES, json.loads(inodes), strict=True)])
    assert fds == "[0, 1, 2, 3, 4, 5, 6] [3, 4, 5, 6]"
