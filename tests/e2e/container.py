"""What packaging/container/Containerfile describes, without an engine: its commands are run, where they can be, and
what they make is run as it says, in namespaces.

Left out are the commands of apt-get and pip in it: the machine's own system takes the place of the base image.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from tests import installed
from tests.containerfile import Stage, read
from tests.e2e.daemon import DEADLINE_S
from tests.installed import CHECKOUT
from tests.namespaces import in_network_of

T = TypeVar("T")

CONTAINERFILE = CHECKOUT / "packaging" / "container" / "Containerfile"

_SCRIPT = Path(__file__).with_name("container.sh")
_NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
#: Has a folder, its second argument, be /opt/relayd for a command, in a mount namespace of its own.
_AT_OPT_RELAYD = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o lowerdir=/opt,upperdir="$1/upper",workdir="$1/work" /opt
mkdir -p /opt/relayd
mount --bind "$2" /opt/relayd
shift 2
exec "$@"
"""


def missing_capability() -> str:
    """What this machine lacks for a container, or "" when nothing."""
    if os.geteuid() != 0:
        return "root"
    for program in ("unshare", "nsenter", "setpriv", "chroot", "ip"):
        if shutil.which(program) is None:
            return program
    if not os.path.isdir("/opt"):
        return "/opt"
    if subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True, check=False).returncode != 0:
        return "namespaces"
    return ""


@dataclass(frozen=True, slots=True)
class Image:
    """What the last stage is: how it runs, and its /opt/relayd."""

    stage: Stage
    environment: Path


def build(folder: Path) -> Image:
    """Do what the first stage does to what it copies, as /opt/relayd. Raises installed.NotMade."""
    first, last = read(CONTAINERFILE)
    source, environment, state = folder / "src", folder / "environment", folder / "state"
    for each in (source, environment, state):
        each.mkdir()
    environ = first.environment() | {"UV_PYTHON": _base_python()}
    for instruction in first.instructions:
        if instruction.name == "COPY":
            *copied, target = instruction.text.split()
            for name in copied:
                _copy(CHECKOUT / name, source / target if len(copied) == 1 else source / target / name)
        if instruction.name == "RUN" and instruction.text.startswith("uv "):
            command = [installed.uv(), *shlex.split(instruction.text)[1:]]
            places = [str(state), str(environment)]
            prefix = ["unshare", "--mount", "sh", "-euc", _AT_OPT_RELAYD, "sh", *places]
            installed.make([*prefix, *command], source, **environ)
    return Image(last, environment)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def _base_python() -> str:
    return str(getattr(sys, "_base_executable", sys.executable))


class ConfigMap:
    """A folder as kubelet mounts a ConfigMap: names are links into ..data, a link to a folder, which is exchanged for
    the next one at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        folder.mkdir(mode=0o755)

    def write(self, text: str) -> None:
        """Have relay.toml be `text`, as an update of the ConfigMap does."""
        self._count += 1
        new, data = self.folder / f"..2026_11_28_{self._count}", self.folder / "..data"
        before = self.folder / os.readlink(data) if data.is_symlink() else None
        new.mkdir(mode=0o755)
        (new / "relay.toml").write_text(text)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(data)
        name = self.folder / "relay.toml"
        if not name.is_symlink():
            name.symlink_to("..data/relay.toml")
        if before is not None:
            shutil.rmtree(before)


class Container:
    """One `docker run` of the image, with a ConfigMap at /etc/relayd. Its process is the first in its namespace."""

    def __init__(self, image: Image, folder: Path, config: str) -> None:
        self.stage = image.stage
        state = folder / "container"
        for each in (state, state / "layers"):
            each.mkdir()
        (state / "environment").symlink_to(image.environment)
        self.config = ConfigMap(state / "config")
        self.config.write(config)
        self._said = threading.Condition()
        self.lines: list[dict[str, Any]] = []
        self.other_output: list[str] = []
        environ = {**self.stage.environment(), "CONTAINER_NEEDS": " ".join(_needed())}
        self._process = subprocess.Popen(
            ["unshare", *_NAMESPACES, str(_SCRIPT), str(state), self.stage.last("USER").text, *self._command()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd="/",
        )
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._thread.start()
        self._pid: int | None = None

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *raised: object) -> None:
        """SIGKILL for what is left, and wait for it: with the first process every other one of the namespace ends."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, AssertionError):
                os.kill(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _command(self) -> list[str]:
        return [*self.stage.last("ENTRYPOINT").exec_form(), *self.stage.last("CMD").exec_form()]

    @property
    def pid(self) -> int:
        """The first process, by its number outside."""
        if self._pid is None:
            own = self._process.pid
            self._pid = int(self._eventually(lambda: Path(f"/proc/{own}/task/{own}/children").read_text(), "a process"))
        return self._pid

    def processes(self) -> dict[int, str]:
        """Every process in the namespace by its number inside, and its state (Z: ended, and not reaped)."""
        namespace = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # not a process, or gone meanwhile
                # Of a zombie it can be read only through its parent, which is ours.
                status = status_of(int(entry.name)) if entry.name.isdigit() else {}
                if "NSpid" in status and (
                    os.readlink(f"/proc/{status['PPid']}/ns/pid") == namespace or int(entry.name) == self.pid
                ):
                    found[int(status["NSpid"].split()[-1])] = status["State"][0]
        return found

    def eventually_alone(self, workers: int = 1) -> None:
        """Wait until relayd and its workers are all that there is: everything else has ended, and is reaped."""

        def alone() -> bool:
            found = self.processes()
            return len(found) == 1 + workers and "Z" not in found.values()

        self._eventually(alone, "relayd alone")

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """`docker exec`, `kubectl exec`, a probe: as the user of the image, without a shell."""
        user, _, group = self.stage.last("USER").text.partition(":")
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd"]
        drop = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--no-new-privs"]
        return subprocess.run(
            [*enter, *drop, "--bounding-set=-all", "--inh-caps=-all", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.stage.environment(),
            timeout=DEADLINE_S,
            check=False,
            text=True,
        )

    def inside(self, function: Callable[[], T]) -> T:
        """What `function` returns, run in the network of the container."""
        return in_network_of(self.pid, function)

    def send(self, number: signal.Signals) -> None:
        """As an engine does, from outside of the namespace."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end; returns the exit status."""
        status = self._process.wait(DEADLINE_S)
        self._thread.join()
        return status

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The count-th line of its log of one kind."""
        deadline = time.monotonic() + DEADLINE_S
        with self._said:
            while len(found := [line for line in self.lines if line.get("event") == event]) < count:
                left = deadline - time.monotonic()
                over = left <= 0 or not self._thread.is_alive()
                assert not over, f"not seen: {event}\n{self.lines}\n{''.join(self.other_output)}"
                self._said.wait(min(left, 1.0))
        return found[count - 1]

    def eventually_blocks(self, number: signal.Signals) -> None:
        """Wait until relayd blocks a signal (what starts it does so for a moment, too)."""

        def blocks() -> bool:
            status = status_of(self.pid)
            return status["Name"] == "relayd" and bool(int(status["SigBlk"], 16) >> (number - 1) & 1)

        self._eventually(blocks, f"{number!r} is blocked")

    def _eventually(self, condition: Callable[[], T], what: str) -> T:
        deadline = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not seen in {DEADLINE_S:g} s: {what}\n{''.join(self.other_output)}"
            assert self._process.poll() is None, "".join(self.other_output)
        return value

    def _read(self, output: IO[bytes]) -> None:
        for data in output:
            try:
                line = json.loads(data)
            except ValueError:
                line = None
            with self._said:
                if isinstance(line, dict):
                    self.lines.append(line)
                else:
                    self.other_output.append(data.decode(errors="backslashreplace"))
                self._said.notify_all()


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status. Raises OSError when there is no such process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _needed() -> list[str]:
    """Where the interpreter is, unless it is the system's."""
    base = Path(sys.base_prefix).resolve()
    return [] if base.is_relative_to("/usr") else [str(base)]
