"""`Daemon` drives the real `relayd run` and plays systemd for it.

    with Daemon('[listeners.web]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:8081"]\n', tmp_path) as daemon:
        with daemon.connect("web") as client: ...
        daemon.wait_for_log(lambda line: line["event"] == "connection")
        assert daemon.stop() == 0

Nothing here sleeps: every wait is for something that the daemon says (a log line, a notification, its end), bounded by
DEADLINE_S, and a wait that fails shows all that was said.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import tomli

from relayd.address import InetAddress, NameAddress, SocketAddress, UnixAddress, parse
from tests import installed
from tests import passing as activation
from tests.passing import Passing

#: Far more than anything takes here, for a loaded machine; a wait that fails takes this long.
DEADLINE_S = 20.0
#: In the environment of the daemon and of its workers, so that none is missed when the test is over.
_MARK = "RELAYD_TEST_MARK"
#: The test's own systemd and Python settings are not the daemon's.
_NOT_INHERITED = (
    "RELAYD_ADMIN",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "JOURNAL_STREAM",
    "PYTHONPATH",
)


class StoredFile:
    """A descriptor in the FD store. Owns it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class Daemon:
    """One `relayd run`, from its configuration to its end. As a context manager: READY inside, nothing left after."""

    def __init__(
        self,
        config: str,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        watchdog_s: float | None = None,
        prefix: Sequence[str] = (),
        command: Sequence[str] | None = None,
        passing: Sequence[Passing] = (),
    ) -> None:
        """`config` goes to `directory`/relay.toml (`configure`). `prefix` goes before the command: prlimit, ...
        `command` None is `relayd run` as it is installed from the wheel.
        `passing` is what a .socket unit passes, each with its name; it stays the caller's, as it would be systemd's.
        """
        self._mark = uuid.uuid4().hex
        # Sockets are not in `directory`, which may be too long for an address. Files, so that they are seen from a
        # network namespace of the daemon's own.
        self._sockets = Path(tempfile.gettempdir(), f"relayd-test-{self._mark[:16]}")
        #: Where its admin API is, unless the configuration says otherwise.
        self.admin = UnixAddress(f"{self._sockets}/admin.sock")
        self.config_path = directory / "relay.toml"
        self.configure(config)
        self._prefix, self._command_line = prefix, (*(command or installed.relayd("run")), "-c", str(self.config_path))
        self._passing = passing
        #: What it has put into the FD store, which outlives it as long as this does.
        self.stored: list[tuple[str, StoredFile]] = []
        self.said = threading.Condition()
        #: Log lines that are JSON, standard error, and what systemd was told (one item per datagram), in order.
        self.lines: list[dict[str, Any]] = []
        self.other_output: list[str] = []
        self.stderr = ""
        self.notifications: list[dict[str, str]] = []
        #: Seconds from exec to READY=1.
        self.ready_after_s = float("nan")
        self._watchdog_s = watchdog_s
        self._environment = dict(environment or {})
        self._notify: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        self._outputs_open = 0

    def __enter__(self) -> "Daemon":
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def configure(self, config: str) -> None:
        """Write the configuration, with an [admin] of the test's own unless it has one: /run/relayd is not ours."""
        with contextlib.suppress(tomli.TOMLDecodeError):  # what is wrong shall be as the test has it
            if "admin" not in tomli.loads(config):
                config += f'\n[admin]\nlisten = "{self.admin}"\n'
        self.config_path.write_text(config)

    def start(self) -> None:
        """Start it, and do not wait. Whoever calls this calls `close`."""
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        notify_path = f"{self._sockets}/notify.sock"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(notify_path)
        self._follow(self._read_notifications, self._notify)
        self._spawn()

    def _spawn(self) -> None:
        notify_path = f"{self._sockets}/notify.sock"
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        environment |= {"NOTIFY_SOCKET": notify_path, _MARK: self._mark}
        if self._watchdog_s is not None:
            environment["WATCHDOG_USEC"] = str(round(self._watchdog_s * 1e6))
        self._started = time.monotonic()
        passing = [*self._passing, *self.stored]
        self._process = subprocess.Popen(
            [*self._prefix, *activation.prefix(passing), *self._command_line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment | self._environment,
            pass_fds=[file.fileno() for _, file in passing],
            cwd="/",
        )
        self._outputs_open = 2
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._follow(self._read_log, self._process.stdout)
        self._follow(self._read_stderr, self._process.stderr)

    def close(self) -> None:
        """SIGKILL for what is left of the daemon and its workers, and wait for it. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._kill_marked()
        if self._notify is not None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stop:
                stop.sendto(b"", self._notify.getsockname())  # ends the reader; it may have ended before
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        for file in (self._process and self._process.stdout, self._process and self._process.stderr, self._notify):
            if file:
                file.close()
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._process = self._notify = None
        self._drop_store()

    def start_again(self) -> None:
        """When it has ended: what systemd does then, by Restart= or for a restart. READY when this returns."""
        self.wait()
        for thread in self._threads[1:]:  # those that read its output; the first one reads notifications
            thread.join()
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        del self._threads[1:]
        readies = sum("READY" in told for told in self.notifications)
        self._spawn()
        self.wait_for(
            lambda: self._ended or sum("READY" in told for told in self.notifications) > readies, "READY=1, again"
        )
        assert not self._ended, f"it ended before READY=1\n{self.report()}"

    def restart(self) -> None:
        """As `systemctl restart` with the shipped unit (RestartKillSignal=SIGUSR1)."""
        self.signal(signal.SIGUSR1)
        self.start_again()

    @property
    def pid(self) -> int:
        """Of the control process (or of the prefix, where there is one)."""
        return self._running.pid

    @property
    def _ended(self) -> bool:
        """True when nobody can say any more: control and every worker are gone."""
        return self._outputs_open == 0

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "the daemon was not started, or is closed"
        return self._process

    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return sorted(int(pid) for pid in children.split())

    def address(self, listener: str, index: int = 0, kind: str = "stream") -> SocketAddress:
        """What the index-th bind of `listener` is bound to for `kind`, with its real port; the first of a range."""
        lines = [line for line in self.events("listening") if line["listener"] == listener and line["type"] == kind]
        text = lines[index]["address"]
        address = parse(text if text.startswith("unix:") else re.sub(r"-[0-9]+\Z", "", text))
        assert not isinstance(address, NameAddress)
        return address

    def connect(self, listener: str, index: int = 0, timeout_s: float = DEADLINE_S) -> socket.socket:
        """A connection to a listener, by loopback where it is bound to every address."""
        address = self.address(listener, index)
        client = socket.socket(address.family.af, socket.SOCK_STREAM)
        client.settimeout(timeout_s)
        try:
            if isinstance(address, InetAddress) and address.wildcard:
                client.connect(("::1" if ":" in address.host else "127.0.0.1", address.port))
            else:
                client.connect(address.sockaddr)
        except BaseException:
            client.close()
            raise
        return client

    def events(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one kind so far."""
        return [line for line in list(self.lines) if line.get("event") == event]

    def status(self) -> str:
        """The last STATUS, or an empty string."""
        return next((told["STATUS"] for told in reversed(self.notifications) if "STATUS" in told), "")

    def wait_for(self, condition: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
        """Wait until `condition()`, asked whenever the daemon has said something, is true; returns its value."""
        deadline = time.monotonic() + timeout_s
        with self.said:
            while not (value := condition()):
                left = deadline - time.monotonic()
                if left <= 0 or not self.said.wait(left):
                    raise AssertionError(f"not seen in {timeout_s:g} s: {what}\n{self.report()}")
            return value

    def wait_for_log(
        self, predicate: Callable[[dict[str, Any]], Any], count: int = 1, timeout_s: float = DEADLINE_S
    ) -> dict[str, Any]:
        """The count-th log line, seen already or still to come, for which `predicate` is true."""

        def found() -> dict[str, Any] | None:
            matching = [line for line in self.lines if predicate(line)]
            return matching[count - 1] if len(matching) >= count else None

        line: dict[str, Any] = self.wait_for(found, f"log line number {count} of its kind", timeout_s)
        return line

    def wait_for_event(self, event: str, count: int = 1, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """The count-th log line of one kind."""
        return self.wait_for_log(lambda line: line.get("event") == event, count, timeout_s)

    def wait_for_notification(
        self, predicate: Callable[[dict[str, str]], Any], timeout_s: float = DEADLINE_S
    ) -> dict[str, str]:
        """The first notification, seen already or still to come, for which `predicate` is true."""
        told: dict[str, str] = self.wait_for(
            lambda: next((told for told in self.notifications if predicate(told)), None), "notification", timeout_s
        )
        return told

    def wait_for_status(self, predicate: Callable[[str], Any], timeout_s: float = DEADLINE_S) -> str:
        """A STATUS, seen already or still to come, for which `predicate` is true."""
        return self.wait_for_notification(lambda told: predicate(told.get("STATUS", "")), timeout_s)["STATUS"]

    def wait_ready(self) -> None:
        """Wait for READY=1 and for the log to say so too; fails at once when the process ends instead."""
        self.wait_for(
            lambda: self._ended or any("READY" in told for told in self.notifications), "READY=1 from the daemon"
        )
        if not any("READY" in told for told in self.notifications):
            raise AssertionError(f"the daemon ended with {self._running.wait()} before READY=1\n{self.report()}")
        self.wait_for_event("started")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the control process."""
        self._running.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM, as systemd sends it to the main process with KillMode=mixed."""
        self.signal(signal.SIGTERM)

    def kill(self, *, keep_store: bool = False) -> None:
        """SIGKILL for the control process alone; its workers are not told by us. As where there is no systemd, nobody
        keeps anything for the next one, unless `keep_store`.
        """
        self._running.kill()
        self._running.wait()
        if not keep_store:
            self._drop_store()

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its end and for its last line; returns the exit status as subprocess does."""
        try:
            status = self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s:g} s\n{self.report()}") from None
        self.wait_for(lambda: self._ended, "the end of its output")
        return status

    def stop(self) -> int:
        """SIGTERM, and wait."""
        self.terminate()
        return self.wait()

    def command(self, verb: str, *arguments: str) -> Any:
        """What a command that talks to this daemon prints, as JSON."""
        done = subprocess.run(
            installed.relayd(verb, "--admin", str(self.admin), *arguments),
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
            cwd="/",
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def report(self) -> str:
        """All that was said, for a failed test."""
        log = "\n".join(json.dumps(line) for line in self.lines)
        other = "".join(self.other_output)
        return f"--- log\n{log}\n{other}--- stderr\n{self.stderr}\n--- notifications\n{self.notifications}"

    def _follow(self, read: Callable[[Any], None], source: object) -> None:
        thread = threading.Thread(target=read, args=(source,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def _read_notifications(self, notify: socket.socket) -> None:
        while (received := socket.recv_fds(notify, 65536, 253))[0]:
            data, fds, _, _ = received
            told = dict(line.partition("=")[::2] for line in data.decode().split("\n"))
            with self.said:
                self._store(told, [StoredFile(fd) for fd in fds])
                if told.get("READY") and not any("READY" in each for each in self.notifications):
                    self.ready_after_s = time.monotonic() - self._started
                self.notifications.append(told)
                self.said.notify_all()

    def _drop_store(self) -> None:
        with self.said:
            while self.stored:
                self.stored.pop()[1].close()

    def _store(self, told: Mapping[str, str], files: list["StoredFile"]) -> None:
        """The FD store, and BARRIER=1, whose descriptor is closed when all before it is done."""
        name = told.get("FDNAME", "")
        if "FDSTORE" in told:
            self.stored += [(name, file) for file in files]
            return
        for file in files:
            file.close()
        if "FDSTOREREMOVE" in told:
            for stored in [each for each in self.stored if each[0] == name]:
                self.stored.remove(stored)
                stored[1].close()

    def _read_log(self, stdout: IO[bytes]) -> None:
        for data in stdout:
            try:
                line = json.loads(data)
            except ValueError:
                line = None
            with self.said:
                if isinstance(line, dict):
                    self.lines.append(line)
                else:
                    self.other_output.append(data.decode(errors="backslashreplace"))
                self.said.notify_all()
        self._output_ended()

    def _read_stderr(self, stderr: IO[bytes]) -> None:
        for data in stderr:
            with self.said:
                self.stderr += data.decode(errors="backslashreplace")
                self.said.notify_all()
        self._output_ended()

    def _output_ended(self) -> None:
        with self.said:
            self._outputs_open -= 1
            self.said.notify_all()

    def _kill_marked(self) -> None:
        """End every process that has our mark in its environment: workers whose control process is gone."""
        mark = f"{_MARK}={self._mark}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # gone meanwhile, or another user's
                pidfd = os.pidfd_open(int(entry.name))
                try:
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
