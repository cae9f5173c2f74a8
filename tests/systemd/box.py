"""A real systemd in a box: PID 1 of namespaces of its own, on an overlay of this machine (boot-systemd.sh).

The box has its own network. A socket that `Box.make_socket` makes belongs to it for life, whoever uses it: so a test
plays client and target from outside, without a helper process inside.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from tests import installed
from tests.namespaces import in_network_of

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
UNIT = CHECKOUT / "systemd" / "relayd.service"
#: Far more than anything takes here, for a loaded machine.
DEADLINE_S = 20.0

_SCRIPT = Path(__file__).with_name("boot-systemd.sh")
_CONFIG = "etc/relayd/relay.toml"
_UNITS = "etc/systemd/system"
_DROP_INS = f"{_UNITS}/relayd.service.d"


def missing_capability() -> str:
    """What this machine lacks for a box, or "" when nothing."""
    if os.geteuid() != 0:
        return "root"
    if not os.access("/lib/systemd/systemd", os.X_OK):
        return "systemd"
    for program in ("dbus-daemon", "ip", "unshare", "nsenter"):
        if shutil.which(program) is None:
            return program
    if not any(Path(root, "cgroup.controllers").exists() for root in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")):
        return "cgroup v2"
    probe = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "namespaces"
    return ""


def eventually(condition: Callable[[], T], what: str, timeout_s: float = DEADLINE_S) -> T:
    """The first true value of `condition`, which takes its time by asking a program inside the box."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not seen in {timeout_s:g} s: {what}"
    return value


class Box:
    """One booted systemd, with relayd's unit installed and /usr/bin/relayd in place; or `bare`, without."""

    def __init__(self, state: Path, *, bare: bool = False, lower: Path = Path("/")) -> None:
        """`state` is a folder below /tmp that does not exist yet. `lower` is the system that is booted, and stays as it
        is.
        """
        self._environ = {**os.environ, "SDBOX": str(state), "SDBOX_LOWER": str(lower)}
        # The box has its own /tmp and /run; what this checkout needs of them is passed in.
        hidden = [str(path) for path in _needed() if path.is_relative_to("/tmp") or path.is_relative_to("/run")]
        if not bare:
            self._environ["SDBOX_BIND"] = " ".join(hidden)
        self._script("start")
        self._pid = int((state / "pid").read_text())
        self.root = Path(f"/proc/{self._pid}/root")
        if not bare:
            self._install()

    def stop(self) -> None:
        """Power off; nothing is left of it."""
        self._script("stop")

    def run(self, *command: str, check: bool = True, timeout_s: float = 120.0) -> str:
        """Run a program inside, as root; returns what it wrote on standard output and error."""
        done = subprocess.run(
            [str(_SCRIPT), "exec", *command],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
            text=True,
        )
        assert done.returncode == 0 or not check, f"{command}: exit {done.returncode}: {done.stdout}"
        return done.stdout

    def inside(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises, run in a thread in the network of the box: its sockets belong there."""
        return in_network_of(self._pid, function)

    def make_socket(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A TCP socket, or a UDP one, in the network of the box, with a timeout. The caller closes it."""
        sock = self.inside(lambda: socket.socket(socket.AF_INET, kind))
        sock.settimeout(DEADLINE_S)
        return sock

    def connect(self, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """A connection to 127.0.0.1:port in the box, or a UDP socket that talks to it."""
        sock = self.make_socket(kind)
        try:
            sock.connect(("127.0.0.1", port))
        except BaseException:
            sock.close()
            raise
        return sock

    def install(self, name: str, text: str) -> None:
        """Give systemd a unit."""
        (self.root / _UNITS / name).write_text(text)
        self.run("systemctl", "daemon-reload")

    def uninstall(self, *names: str) -> None:
        """Stop and forget units that `install` gave it."""
        for name in names:
            self.run("systemctl", "stop", name, check=False)
            (self.root / _UNITS / name).unlink(missing_ok=True)
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "reset-failed")

    def _install(self) -> None:
        shutil.copy(UNIT, self.root / _UNITS / "relayd.service")
        program = self.root / "usr/bin/relayd"
        program.write_text(
            f"#!{installed.environment().python}\nimport sys\nfrom relayd.cli.main import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)
        for page in sorted((CHECKOUT / "packaging/man").iterdir()):  # which the unit names
            shutil.copy(page, self.root / f"usr/share/man/man{page.suffix[1:]}")
        (self.root / "etc/relayd").mkdir(exist_ok=True)
        (self.root / _DROP_INS).mkdir(parents=True)
        # The checkout and its Python may lie in a home or in /tmp, which the unit hides.
        paths = " ".join(str(path) for path in _needed())
        (self.root / _DROP_INS / "00-checkout.conf").write_text(
            f"[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths={paths}\n"
        )
        self.run("systemctl", "daemon-reload")
        # What an active target wants is not unloaded when it stops, and keeps its time stamps for `show`.
        self.run("systemctl", "add-wants", "box.target", "relayd.service")

    def _script(self, verb: str) -> None:
        done = subprocess.run(
            [str(_SCRIPT), verb],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
            text=True,
        )
        assert done.returncode == 0, f"boot-systemd.sh {verb}: {done.stdout}"


class Service:
    """relayd.service in a box."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._since = 0.0

    def configure(self, toml: str, unit: Mapping[str, str] | None = None) -> None:
        """Write the configuration, and settings for [Service] beside those of the unit."""
        (self.box.root / _CONFIG).write_text(toml)
        lines = "".join(f"{name}={value}\n" for name, value in (unit or {}).items())
        (self.box.root / _DROP_INS / "50-test.conf").write_text(f"[Service]\n{lines}")
        self.box.run("systemctl", "daemon-reload")
        self._since = time.time()

    def start(self) -> None:
        """Returns when it is ready."""
        done = self.box.run("systemctl", "start", "relayd", check=False)
        assert self.show("ActiveState") == "active", done + self.journal()

    def clean_up(self) -> None:
        """Ended, whatever state it is in, and forgotten by systemd."""
        self.box.run("systemctl", "kill", "--signal=KILL", "relayd", check=False)
        self.box.run("systemctl", "stop", "relayd", check=False)
        self.box.run("systemctl", "reset-failed", "relayd", check=False)

    def show(self, name: str) -> str:
        """One property of the unit, as `systemctl show` gives it."""
        return self.box.run("systemctl", "show", "--value", f"--property={name}", "relayd").strip()

    def main_pid(self) -> int:
        """The control process, by its number inside."""
        return int(self.show("MainPID"))

    def workers(self) -> list[int]:
        """The other processes of the service, by their numbers inside, in order."""
        group = self.show("ControlGroup")
        pids = self.box.run("cat", f"/sys/fs/cgroup{group}/cgroup.procs", check=False).split()
        return sorted({int(pid) for pid in pids if pid.isdigit()} - {self.main_pid()})

    def signal(self, name: str, pid: int) -> None:
        """Send a signal to one process inside."""
        self.box.run("kill", f"-{name}", str(pid))

    def journal(self, *matches: str, output: str = "short-precise") -> str:
        """Entries since `configure` that match, oldest first.

        By time: `--after-cursor` of systemd 252 leaves out the first entry that matches.
        """
        self.box.run("journalctl", "--sync")
        unit = [] if matches else ["--unit=relayd"]
        return self.box.run(
            "journalctl",
            "--quiet",
            "--no-pager",
            f"--since=@{self._since:.6f}",
            f"--output={output}",
            *unit,
            *matches,
        )


@contextlib.contextmanager
def echo_target(box: Box, port: int) -> Iterator[None]:
    """An echo on 127.0.0.1:port of the box, one thread per connection, while the context lasts."""
    listening = box.make_socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen()
    listening.settimeout(None)
    threads: list[threading.Thread] = []
    open_connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # reset, or shut down at the end of the test
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):  # shut down at the end of the test
            while True:
                connection, _ = listening.accept()
                open_connections.append(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join()
        listening.close()
        for connection in open_connections:
            with contextlib.suppress(OSError):  # closed by its thread
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def udp_echo_target(box: Box, port: int) -> Iterator[None]:
    """An echo of datagrams on 127.0.0.1:port of the box, while the context lasts."""
    sock = box.make_socket(socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port))
    sock.settimeout(None)

    def serve() -> None:
        while True:
            data, client = sock.recvfrom(65536)
            if not data:
                return
            sock.sendto(data, client)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with box.connect(port, socket.SOCK_DGRAM) as last:
            last.send(b"")
        thread.join()
        sock.close()


def _needed() -> list[Path]:
    """Folders that the service's Python reads: the checkout, its environment, the interpreter's own."""
    paths = {CHECKOUT, installed.environment().folder, Path(sys.base_prefix).resolve()}
    system = Path("/usr")
    return sorted(path for path in paths if not path.is_relative_to(system))
