"""What README and documents have developers type, in a fresh clone, on a clean system, with an empty home.

The clone is of what has been committed.
"""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import PAGES, ROOT, blocks
from tests.soak import systems
from tests.systemd.box import eventually
from tests.typed import lines_for

pytestmark = pytest.mark.soak

_LINES = lines_for("tests/soak/test_clone.py")
#: Without comments; one that several pages have, once.
LINES = sorted({" ".join(line.words) for line in _LINES})
TESTS = [line for line in LINES if line.startswith("packaging/dev test")]
BUILDS = [line for line in LINES if line.startswith(("packaging/build ", "uv build"))]
BENCHES = [line for line in LINES if line.startswith("bench/run")]
#: Added to a line that would take more than minutes.
SHORTER = {"packaging/dev test": "tests/unit/test_address.py"}
BRIEFLY = "--relays relayd --rounds 1 --seconds 0.1"
#: What the reader has beside a clean system.
_READERS = "git curl"
_SRC = "/src"
#: Loopback and nothing else, so that the ports of the page are free; then in the system, and in the clone.
_ALONE = 'ip link set lo up && cd / && exec chroot "$0" sh -c "cd /src && exec $1"'
_BESIDE = 'exec chroot "$0" sh -c "cd /src && $1"'


@pytest.fixture(scope="module")
def clone(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root of a system with a clone in /src, and the packages that `packaging/dev` installs at first."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no clone: missing git, or a repository")
    with systems.copy_of(system, tmp_path_factory.mktemp("clone")) as root:
        systems.run("git", "clone", "--quiet", str(ROOT), f"{root}{_SRC}")
        with systems.entered(root):
            systems.inside(root, f"apt-get install {_READERS}")
            systems.inside(root, "packaging/dev manual", _SRC)
            yield root


def test_every_line_is_typed_below() -> None:
    assert set(LINES) == {"packaging/dev manual", "packaging/dev run", *TESTS, *BUILDS, *BENCHES}
    assert set(SHORTER) <= set(TESTS)


def test_the_manual_is_what_has_been_committed(clone: Path) -> None:
    assert systems.inside(clone, "git status --porcelain", _SRC) == ""


def numberless(line: str) -> str:
    """`line` without what varies from run to run."""
    return re.sub(r"[0-9a-f]{6}-\d+-\d+|\d+", "N", line)


def test_run_shows_what_readme_shows(clone: Path) -> None:
    """In a network that has nothing but loopback: all that is needed is there."""
    shown = next(block.text for block in blocks(ROOT / "README.md") if block.text.startswith("Sample targets"))
    tries = re.findall(r"^    (.+)$", shown, re.MULTILINE)
    lines = [line for line in shown.splitlines() if re.match(r"\d{4}-", line)]
    log, config = clone / "run.log", clone / "src/configs/relay.toml"
    before = config.read_text()
    with log.open("w") as out:
        # As in a terminal: a shell has its jobs in the background ignore SIGINT, and so whom they start.
        command = [
            "env",
            "--default-signal=INT",
            "unshare",
            "--net",
            "sh",
            "-c",
            _ALONE,
            str(clone),
            "packaging/dev run",
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=systems.environment())
    try:
        eventually(lambda: "info started: 4 listeners" in log.read_text(), "relayd is ready", 60.0)
        said = {line: beside(process.pid, clone, line) for line in tries if not line.startswith(".venv")}
        assert len(said) == 4
        assert all(code == 0 and ("808" in text or "echo" in text) for code, text in said.values()), said
        config.write_text(before.replace('idle_timeout = "10m"', 'idle_timeout = "20m"'))
        plan, reload, top = (beside(process.pid, clone, line) for line in tries if line.startswith(".venv"))
        assert (plan[0], reload[0]) == (10, 0)
        assert (top[0], "terminal" in top[1]) == (2, True)  # here is none
        assert '~ listener echo: idle_timeout "10m" -> "20m"' in plan[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60.0) == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60.0)
        config.write_text(before)
    told = log.read_text()
    assert told.startswith(shown[: shown.index(lines[0])])
    assert {numberless(line) for line in lines} <= {numberless(line) for line in told.splitlines()}


def beside(pid: int, root: Path, line: str) -> tuple[int, str]:
    """Type a line in another terminal; its exit code, and what it prints."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", _BESIDE, str(root), line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=systems.environment(),
        cwd="/",
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("line", TESTS)
def test_tests(clone: Path, line: str) -> None:
    said = systems.inside(clone, f"{line} {SHORTER.get(line, '')}", _SRC)
    assert "All checks passed!" in said  # ruff's
    assert "Success: no issues found" in said  # mypy's
    assert re.search(r"^=+ \d+ passed", said, re.MULTILINE)


@pytest.mark.parametrize("line", BUILDS)
def test_builds(clone: Path, line: str) -> None:
    path = f"{systems.HOME}/.cache/relayd-dev/bin:{systems.environment()['PATH']}"  # of somebody who has uv
    said = systems.inside(clone, line, _SRC, {"PATH": path})
    made = {str(file.relative_to(clone / "src")) for file in (clone / "src/dist").iterdir()}
    after = (block.after(line) for page in PAGES for block in blocks(page))
    shown = [text.splitlines()[0] for text in after if text]
    assert set(shown) <= made
    assert all(file in said for file in shown)
    assert shown or len(made) >= 2


@pytest.mark.parametrize("line", BENCHES)
def test_measures(clone: Path, line: str) -> None:
    said = systems.inside(clone, f"{line} {BRIEFLY}", _SRC)
    assert "| relayd |" in said
