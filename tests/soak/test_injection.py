"""Every error that a loaded machine can give, in every system call that the loop of a worker makes (F1, F3, F4).

uv run pytest -m soak tests/soak/test_injection.py
"""

from pathlib import Path

import pytest

from tests.integration.injecting import CALLS, ERRORS, Victim, needs_strace


@needs_strace
@pytest.mark.soak
@pytest.mark.parametrize("call", CALLS)
def test_no_error_ends_a_worker(call: str, tmp_path: Path) -> None:
    with Victim(tmp_path) as victim:
        failed = [victim.injected(call, error, calls) for error in ERRORS for calls in (1, 3)]
        assert any(failed), "not called at all: this call does not belong into the table"
