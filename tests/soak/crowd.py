"""Targets and clients as processes of the test: `server.py` and `clients.py`, held by their standard input."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.daemon import DEADLINE_S

_HERE = Path(__file__).parent


class Target:
    """A target at an address of its own, which lives and dies. As a context manager: it listens, and is gone after."""

    def __init__(self, host: str, port: int, prefix: Sequence[str] = ()) -> None:
        """`prefix` goes before the command."""
        self.text = f"{host}:{port}"
        self._command = [*prefix, sys.executable, "-IS", str(_HERE / "server.py"), host, str(port)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Target":
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def start(self) -> None:
        """It listens when this returns."""
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answered("ready")

    def kill(self) -> None:
        """SIGKILL. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def told(self, word: str) -> None:
        """It has done what `word` says (`server.py`) when this returns."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._answered(word)

    def _answered(self, word: str) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == f"{word}\n"


class Clients:
    """New clients all the time, while the context lasts; then `told` is what they say (`clients.py`)."""

    def __init__(
        self, host: str, port: int, rate: int, sources: int = 0, count: int | None = None, prefix: Sequence[str] = ()
    ) -> None:
        """`count` None: until the end of the context."""
        words = [host, str(port), str(rate), str(sources), *([] if count is None else [str(count)])]
        self._command = [*prefix, sys.executable, "-IS", str(_HERE / "clients.py"), *words]
        self._count = count
        self.told: dict[str, Any] = {}

    def __enter__(self) -> "Clients":
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._count is not None and raised == (None, None, None):
            assert self._process.stdout is not None
            self.told = json.loads(self._process.stdout.readline())
        try:
            out, _ = self._process.communicate(timeout=2 * DEADLINE_S)
        finally:
            self._process.kill()
            self._process.wait()
        self.told = json.loads(out) if out else self.told

    @property
    def failed(self) -> int:
        """How many have not had an answer."""
        return len(self.told["failed_at"])

    def figures(self) -> str:
        """For people."""
        told = self.told
        share = 100 * (1 - self.failed / told["count"])
        slow = len(told["slow_at"])
        return f"{told['count']} clients, {told['rate']:.0f}/s, {share:.3f} % success {told['wrong']}, {slow} above 1 s"
