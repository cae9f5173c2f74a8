"""An upgrade replaces the files of a relayd that goes on, until it hands over: it needs none of them any more (R5)."""

import shutil
import sys
from pathlib import Path

import relayd
from tests.e2e.daemon import Daemon
from tests.e2e.test_metrics import get
from tests.e2e.test_reload import config, dgram, reload, stream
from tests.integration.relaying import Target

#: What control has loaded, soon after its start, without having needed it.
LOADED = ("checks.checker", "explaining", "admin_http", "exposition", "metrics")


def test_a_daemon_goes_on_without_its_files(tmp_path: Path) -> None:
    files = tmp_path / "installed"
    shutil.copytree(Path(relayd.__file__).parent, files / "relayd", ignore=shutil.ignore_patterns("__pycache__"))
    command = (sys.executable, "-X", "importtime", "-m", "relayd", "run")
    environment = {"PYTHONPATH": str(files), "PYTHONSAFEPATH": "1"}
    with Target("inet", tmp_path) as target:
        web = stream("web", target.address)
        with Daemon(config(web), tmp_path, command=command, environment=environment) as daemon:
            with daemon.connect("web") as client, target.accept() as far:
                wanted = [f" relayd.control.{module}\n" for module in LOADED]
                daemon.wait_for(lambda: all(line in daemon.stderr for line in wanted), "all that is loaded later")
                for file in files.rglob("*.py"):
                    file.write_text("raise ImportError('of another version')\n")
                checked = stream("web", target.address, more='balance = "source_hash"\nhealth_check = { type = "tcp" }')
                text = config(checked, dgram("dns", "127.0.0.1:1"))
                assert (said := reload(daemon, text))["event"] == "reloaded", said
                client.sendall(b"hello")
                assert far.recv(5) == b"hello"
                report = daemon.command("explain", "web", "--client", "192.0.2.1", "--json")
                assert str(target.address) in str(report)
                assert get(daemon, "/metrics")[0] == 200
            assert "of another version" not in daemon.stderr
