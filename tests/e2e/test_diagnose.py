"""`relayd diagnose`: one archive, of a daemon that runs and of one that does not."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.address import SocketAddress
from relayd.cli.verbs_diagnosing import _free
from tests import installed
from tests.e2e.daemon import DEADLINE_S, Daemon

CONFIG = """# a note with hunter2hunter2
[daemon]
workers = 1
[listeners.web]
bind = "127.0.0.1:0"
targets = ["{target}"]
health_check = {{ type = "tcp", send = "AUTH hunter2hunter2\\n", expect = "hunter2hunter2" }}
"""


def diagnose(
    folder: Path, *arguments: str, path: str | None = None, prefix: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[bytes]":
    environment = {**os.environ, "PATH": path} if path is not None else None
    return subprocess.run(
        [*prefix, *installed.relayd("diagnose", *arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )


def parts(archive: bytes) -> dict[str, str]:
    """What is in it, without the folder that all of it is in."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
        found = {}
        for member in opened.getmembers():
            file = opened.extractfile(member)
            assert file is not None
            found[member.name.partition("/")[2]] = file.read().decode()
        return found


def test_of_a_daemon_that_runs(tmp_path: Path, echo: Callable[[str], SocketAddress]) -> None:
    with Daemon(CONFIG.format(target=echo("inet")), tmp_path) as daemon, daemon.connect("web") as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        done = diagnose(tmp_path, "--admin", str(daemon.admin))
        workers = daemon.workers()
    assert (done.returncode, done.stderr) == (0, b"")
    (archive,) = tmp_path.glob("relayd-diagnose-*.tar.gz")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert archive.stat().st_size < 1_000_000
    assert f"{archive.name}: look through it" in done.stdout.decode()
    found = parts(archive.read_bytes())
    config = found["config/00-relay.toml"]
    assert 'send = "***"' in config
    assert "AUTH" not in config
    assert not [name for name, text in found.items() if "AUTH hunter2hunter2" in text]
    status = json.loads(found["daemon/status.json"])
    assert status["config"]["file"] == str(daemon.config_path)
    assert len(json.loads(found["daemon/connections.json"])["connections"]) == 1
    assert len(json.loads(found["daemon/targets.json"])["targets"]) == 1
    assert "relayd_workers" in found["daemon/metrics.txt"]
    assert all(f"== {pid}: " in found["processes.txt"] for pid in workers)
    assert "Max open files" in found["processes.txt"]
    assert "net.core.somaxconn = " in found["kernel/sysctl.txt"]
    assert "fastopen_key" not in found["kernel/sysctl.txt"]
    assert "Tcp: " in found["kernel/counters.txt"]
    assert found["versions.txt"].startswith("relayd ")
    assert set(found) - {"README.txt"} == {line.split()[0] for line in done.stdout.decode().splitlines()[1:-1]}


def test_two_in_a_second_and_nothing_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [f"relayd-diagnose-relay1-20261128T170000Z{more}.tar.gz" for more in ("", "-2", "-3")]
    for name in names:
        assert _free("relayd-diagnose-relay1-20261128T170000Z") == name
        os.symlink("/nowhere", name)  # what is there need not be a file
    done = diagnose(tmp_path, "--admin", "unix:/nowhere", "-o", names[1])
    assert done.returncode == 1
    assert b"File exists; --output FILE writes to another place" in done.stderr


def test_clients_have_other_names_unless_they_are_wanted(tmp_path: Path, echo: Callable[[str], SocketAddress]) -> None:
    # A client whose address is of this machine, not of loopback: none is to be had without privileges but this one.
    with Daemon(CONFIG.format(target=echo("inet")).replace("127.0.0.1:0", "0.0.0.0:0"), tmp_path) as daemon:
        own = own_address()
        with socket.create_connection((own, int(str(daemon.address("web")).rpartition(":")[2])), DEADLINE_S) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            masked = diagnose(tmp_path, "--admin", str(daemon.admin), "--output", "-")
            whole = diagnose(tmp_path, "--admin", str(daemon.admin), "--output", "-", "--with-clients")
    (one,) = json.loads(parts(masked.stdout)["daemon/connections.json"])["connections"]
    assert one["client"] == "address-1"
    (one,) = json.loads(parts(whole.stdout)["daemon/connections.json"])["connections"]
    assert one["client"] == own
    assert b"README.txt" in masked.stderr
    assert not list(tmp_path.glob("*.tar.gz"))


def own_address() -> str:
    """An address of this machine by which others reach it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("missing a route to other machines")
        address: str = sock.getsockname()[0]
        return address


def test_of_a_daemon_that_does_not_answer(tmp_path: Path) -> None:
    name = f"relayd-test-{os.getpid()}-silent"
    address = f"unix:@{name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as hangs:
        hangs.bind(f"\0{name}")
        hangs.listen(64)
        file = tmp_path / "relay.toml"
        file.write_text("[listeners.web\nsend = 'hunter2hunter2'\n")
        done = diagnose(tmp_path, "-c", str(file), "--admin", address, "-o", "out.tar.gz")
    assert (done.returncode, done.stderr) == (0, b"")
    found = parts((tmp_path / "out.tar.gz").read_bytes())
    for name in ("status.json", "targets.json", "connections.json", "metrics.txt"):
        assert found[f"daemon/{name}"].startswith(f"missing: {address}: timed out")
    assert found["config/00-relay.toml"] == '[listeners.web\nsend = "***"\n'
    assert "missing: " in found["README.txt"]


def test_where_it_is_not_known_what_runs_that_is_said_and_the_log_is_left_out(tmp_path: Path) -> None:
    path = programs(tmp_path, ["up"])
    done = diagnose(tmp_path, "--admin", "unix:/nowhere", "-o", "out.tar.gz", path=path)
    assert done.returncode == 0
    assert done.stderr.startswith(b"relayd diagnose: NOT KNOWN is which configuration the daemon runs on: no daemon")
    found = parts((tmp_path / "out.tar.gz").read_bytes())
    assert found["README.txt"].splitlines()[2].startswith("!!! NOT KNOWN is which configuration")
    assert found["log.txt"].startswith("missing: left out: ")
    (tmp_path / "relay.toml").write_text("[listeners.web]\n")
    named = ("-c", "relay.toml", "--admin", "unix:/nowhere", "-o", "-")
    done = diagnose(tmp_path, *named, path=path)
    assert parts(done.stdout)["log.txt"] == "2026-11-28T17:42:00+0000 relay1 relayd[7]: up\n"


CHECKED = """[listeners.web]
bind = "127.0.0.1:0"
targets = ["127.0.0.1:9"]
{check}
"""
FAILING = """health_check = { type = "exec", interval = "1s", fall = 1, command = ["/bin/sh", "-c", "echo no $0; exit 1", "hunter2hunter2"] }"""  # noqa: E501  # a table of TOML
WRONG = """health_check = { type = "exec", command = "/bin/x --password s3cret2s3cret2" }  # for nobody else"""


def test_a_secret_is_nowhere_whoever_quotes_it_and_when(tmp_path: Path) -> None:
    def seen() -> dict[str, str]:
        path = programs(tmp_path, [json.dumps(line) for line in daemon.lines])
        found = parts(diagnose(tmp_path, "--admin", str(daemon.admin), "-o", "-", path=path).stdout)
        for secret in ("hunter2hunter2", "s3cret2s3cret2", "for nobody else"):
            assert not [name for name, text in found.items() if secret in text], secret
        return found

    with Daemon(CHECKED.format(check=FAILING), tmp_path) as daemon:
        daemon.wait_for_event("target_down")
        daemon.configure(CHECKED.format(check=WRONG))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reload_failed")
        # Of what is in force a check quotes a secret that is not in the file any more.
        found = seen()
        assert "exited with 1: no ***" in found["daemon/targets.json"]
        assert "must be an array" in found["log.txt"]
        daemon.configure(CHECKED.format(check=""))
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reload_change")
        daemon.wait_for_event("reloaded")
        # Neither is it in force any more.
        found = seen()
    assert "~ listener web: health_check ***" in found["log.txt"]
    assert "exited with 1: no ***" in found["log.txt"]


def programs(folder: Path, log: list[str]) -> str:
    """A PATH with a journal of these lines, and nothing else."""
    (folder / "log").write_text("".join(f"2026-11-28T17:42:00+0000 relay1 relayd[7]: {line}\n" for line in log))
    (folder / "bin").mkdir(exist_ok=True)
    journalctl = folder / "bin" / "journalctl"
    journalctl.write_text(f"#!/bin/sh\nexec /bin/cat '{folder}/log'\n")
    journalctl.chmod(0o755)
    return str(folder / "bin")


def test_where_there_is_nothing_and_little_may_be_seen(tmp_path: Path) -> None:
    setpriv = shutil.which("setpriv")
    if os.geteuid() == 0 and setpriv is None:
        pytest.skip("missing setpriv")
    prefix = (str(setpriv), "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
    private = tmp_path / "private"
    private.write_text("bind = 5")
    private.chmod(0)
    arguments = ("-c", str(private), "--admin", "unix:/nowhere", "-o", "-")
    done = diagnose(tmp_path, *arguments, path="/nowhere", prefix=prefix)
    assert done.returncode == 0, done.stderr
    found = parts(done.stdout)
    assert found["config/00-private"] == f"missing: {private}: Permission denied\n"
    assert found["kernel/sockets.txt"] == "missing: ss is not installed\n"
    assert found["log.txt"] == "missing: journalctl is not installed\n"
    assert found["daemon/status.json"].startswith("missing: no daemon listens at unix:/nowhere")
    assert "net.core.somaxconn = " in found["kernel/sysctl.txt"]


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    done = diagnose(tmp_path, "--admin", "unix:/nowhere", "-o", "mine")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"relayd diagnose: mine: File exists; --output FILE writes to another place\n"
    assert (tmp_path / "mine").read_text() == "mine"
