"""docs/tutorial.md does what it says: its files, its commands and their output, in the order of the page.

    ```toml               the file relay.toml, from here on (also ```toml mistaken)
    ```console            commands after "$ ", and what each prints
    ```console stays      one command that stays, and lines that it has printed before the page goes on

Ports, the socket and the process id of the page stand for others here; times, ids and sizes are not compared. Blocks
of commands that need root (after "# ") are for tests/systemd.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import DEADLINE_S
from tests.ports import free_range

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
_BLOCK = re.compile(r"^```(toml|toml mistaken|console|console stays|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Printed after each command of a block, so that its output can be told from that of the next.
_END = "-- the end of a command --"
_SERVED = ("8080", "9001", "9002")
#: What differs from run to run, and from machine to machine.
_VARIES = (
    (r"(?m)(?<=  running) +\d+$", " PID"),
    (r"(?m)^worker  phase +pid$", "WORKERS"),
    (r", up \w+,", ", up A WHILE,"),
    # Of what is being fetched, and of rates: how much it is when it is looked at.
    (r"(?m)^((?:listener +type|web6? +stream) +\w+ +\w+) .*$", r"\1 RATES"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
    (r"\(pid \d+\)|pid \d+", "PID"),
    (r"sha256 [0-9a-f]+", "SHA256"),
    (r"(127\.0\.0\.1|\[::1\]):\d{5}\b", "CLIENT"),
    (r"id=\S+", "ID"),
    (r"\d+\.\dms", "MS"),
    (r"in=\d+ out=\d+", "BYTES"),
    (r" retrans=\d+", ""),
    (r"\S+/relay\.toml \(", "FILE ("),
    (r" +\d+(\.\d)? [KMG]?i?B\b", " SIZE"),
    (r"relayd \d+\.\d+\S*,", "VERSION,"),
    (r"\d+ connections a worker: .*", "BUDGET"),
    (r"needs 36 of \d+", "needs 36 of ALL"),
    (r" +", " "),
)


class Reader:
    """Somebody who does what the page says, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._first_port = free_range(len(_SERVED))
        self._staying: list[tuple[subprocess.Popen[str], Path]] = []
        self.relayd: subprocess.Popen[str] | None = None

    def here(self, text: str) -> str:
        """`text` of the page, as it has to be here."""
        for number, port in enumerate(_SERVED):
            text = re.sub(rf"\b{port}\b", str(self._first_port + number), text)
        if self.relayd is not None:
            text = re.sub(r"kill -USR2 \d+", f"kill -USR2 {self.relayd.pid}", text)
        return text.replace("/tmp/relayd-tutorial.sock", f"{self.folder}/admin.sock")

    def there(self, text: str) -> str:
        """What was printed here, as the page would have it, without what varies."""
        for number, port in enumerate(_SERVED):
            text = re.sub(rf"\b{self._first_port + number}\b", port, text)
        for pattern, name in _VARIES:
            text = re.sub(pattern, name, text)
        return text

    def write(self, text: str) -> None:
        """relay.toml is this. Text is what relayd writes to a terminal, and here is none."""
        (self.folder / "relay.toml").write_text(self.here(text) + '\n[log]\nformat = "text"\n')

    def commands(self, text: str) -> str:
        """Do what stands after each "$ "; returns the block as it turned out."""
        commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
        script = "".join(f"{self.here(command)}\necho '{_END}'\n" for command in commands)
        done = self._bash(script)
        output = [part.lstrip("\n") for part in done.split(f"{_END}\n")]
        return "".join(f"$ {command}\n{said}" for command, said in zip(commands, output, strict=False))

    def stay(self, text: str) -> None:
        """Start the one command, and wait until it has printed the rest."""
        first, *expected = text.splitlines()
        command = self.here(first.removeprefix("$ "))
        log = self.folder / f"{len(self._staying)}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                stdout=out,
                stderr=out,
                env=_environment(),
                text=True,
            )
        self._staying.append((process, log))
        if command.startswith("relayd run"):
            self.relayd = process
        if expected:
            self.wait_for(expected)
        else:
            self._bash(f"until curl -s -o index http://127.0.0.1:{command.split()[3]}/; do sleep 0.05; done")

    def wait_for(self, expected: list[str]) -> None:
        """Until relayd has said these lines, in this order."""
        wanted = [self.there(line) for line in expected]
        deadline = time.monotonic() + DEADLINE_S
        while True:
            said = self.there(self._staying[-1][1].read_text()).splitlines()
            lines = iter(said)
            if all(line in lines for line in wanted):
                return
            assert time.monotonic() < deadline, f"{wanted} is not in {said}"
            time.sleep(0.05)

    def close(self) -> None:
        """End what stays."""
        for process, _ in self._staying:
            process.terminate()
        for process, _ in self._staying:
            process.wait(DEADLINE_S)

    def _bash(self, script: str) -> str:
        return subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * DEADLINE_S,
            check=False,
        ).stdout


def _environment() -> dict[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONUNBUFFERED": "1", "no_proxy": "*"}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    reader = Reader(tmp_path)
    yield reader
    reader.close()


def test_the_page(reader: Reader) -> None:
    done = []
    for kind, text in _BLOCK.findall(PAGE):
        done.append(kind)
        if kind.startswith("toml"):
            reader.write(text)
        elif kind == "console stays":
            reader.stay(text)
        elif kind == "text":
            reader.wait_for(text.splitlines())
        elif text.startswith("$ "):
            assert reader.there(reader.commands(text)) == reader.there(text)
    assert {"toml mistaken", "toml", "console", "console stays", "text"} == set(done)
