"""relayd as an operator has it: its wheel, with the locked dependencies, in an environment that has nothing else.

What the tests run is what is released, so a module that the wheel lacks, or a dependency that only the tests have, is
seen. Environments are in .venv-wheel/, one for each state of what goes into them: made once, in seconds, and found
again in milliseconds. One that nobody uses any more is removed when the next one is made.
"""

import atexit
import contextlib
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
#: All that a wheel, and the environment that it is installed in, are made of.
SOURCES = ("pyproject.toml", "uv.lock", "packaging/pypi.md", "relayd", "configs", "systemd")

_HOME = CHECKOUT / ".venv-wheel"
#: Names an environment that is there already, for tests that run where none can be made (tests/soak/test_sandbox.py).
_GIVEN = "RELAYD_TEST_INSTALLED"
#: Compiling systemd-python for an interpreter that has none yet takes seconds.
_TIMEOUT_S = 300.0


class NotMade(Exception):
    """A distribution or an environment could not be made; the text is what the program said that makes it."""


class Environment:
    """A virtual environment that relayd is installed in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def relayd(self) -> Path:
        """The command."""
        return self.folder / "bin" / "relayd"

    @property
    def packages(self) -> Path:
        """Where its packages are."""
        (found,) = self.folder.glob("lib/python3.*/site-packages")
        return found


@functools.cache
def environment() -> Environment:
    """The one for this checkout as it is now, for the life of this process. Made where there is none. Raises NotMade.

    The first call leaves a descriptor open, which keeps the environment from being removed: so the first call is a
    fixture's, of the session.
    """
    if given := os.environ.get(_GIVEN):
        return Environment(Path(given))
    _HOME.mkdir(exist_ok=True)
    with open(_HOME / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        name = _state()
        _hold(name)
        found = Environment(_HOME / name)
        complete = found.folder / "complete"
        if not complete.exists():
            shutil.rmtree(found.folder, ignore_errors=True)
            with tempfile.TemporaryDirectory() as wheels:
                make_environment(found.folder, build(Path(wheels), "wheel"))
            complete.touch()
            _remove_unused(name)
    return found


def relayd(*arguments: str) -> tuple[str, ...]:
    """The command line of the relayd that is installed."""
    return (str(environment().relayd), *arguments)


def build(folder: Path, target: str, source: Path = CHECKOUT) -> Path:
    """Make the "wheel" or the "sdist" of `source` in `folder`, without a network; returns the file. Raises NotMade."""
    make([sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)], cwd=source)
    (made,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return made


def make_environment(folder: Path, wheel: Path, python: str | None = None, source: Path = CHECKOUT) -> Environment:
    """An environment in `folder`, new or empty, with the dependencies that `source` has locked, and the wheel. `python`
    None: that of the tests. Raises NotMade.
    """
    base = python or str(getattr(sys, "_base_executable", sys.executable))
    made = Environment(folder)
    sync = ["sync", "--frozen", "--no-dev", "--no-install-project", "--compile-bytecode", "--python", base]
    make([uv(), *sync], cwd=source, UV_PROJECT_ENVIRONMENT=str(folder))
    install = ["pip", "install", "--no-deps", "--offline", "--compile-bytecode", "--python", str(made.python)]
    make([uv(), *install, str(wheel)], cwd=source)
    return made


def synchronize(source: Path) -> None:
    """Make `source`/.venv, as `packaging/dev` does: what is developed, and what develops it. Raises NotMade."""
    base = str(getattr(sys, "_base_executable", sys.executable))
    make([uv(), "sync", "--frozen", "--python", base], cwd=source)


def uv() -> str:
    """uv: the one that `packaging/dev` has found, or would find."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.environ.get("HOME") or "/tmp", ".cache"))
    for candidate in (os.environ.get("UV", "uv"), "uv", str(cache / "relayd-dev" / "bin" / "uv")):
        if found := shutil.which(candidate):
            return found
    raise NotMade(
        "uv is not to be found, which makes the environment that relayd is installed in: run packaging/dev test"
    )


def make(command: Sequence[str], cwd: Path, **environ: str) -> None:
    """Run what makes something, with `environ` beside what there is. Raises NotMade."""
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    kept |= {"UV_PYTHON_DOWNLOADS": "never", "UV_LINK_MODE": "copy"} | environ
    done = subprocess.run(
        command,
        cwd=cwd,
        env=kept,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT_S,
        check=False,
        text=True,
    )
    if done.returncode != 0:
        raise NotMade(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}")


def _state() -> str:
    """A name for what the environment is made of: the sources, and the interpreter."""
    digest = hashlib.sha256(f"{sys.version}\0{sys.executable}\0".encode())
    for path in _files():
        digest.update(f"{path.relative_to(CHECKOUT)}\0{path.stat().st_mode}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files() -> Iterator[Path]:
    for source in SOURCES:
        path = CHECKOUT / source
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)


def _hold(name: str) -> None:
    held = open(_HOME / f"{name}.used", "w")  # noqa: SIM115  # for the life of this process
    fcntl.flock(held, fcntl.LOCK_SH)
    atexit.register(held.close)


def _remove_unused(name: str) -> None:
    """Remove all environments but `name` that no process holds. To be called with the lock held."""
    for used in _HOME.glob("*.used"):
        if used.stem == name:
            continue
        with open(used) as file, contextlib.suppress(BlockingIOError):  # somebody's tests run on it
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(_HOME / used.stem, ignore_errors=True)
            used.unlink()
