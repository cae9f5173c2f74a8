import os
from pathlib import Path

import pytest

import relayd
from relayd.control.worker_process import End, _environment


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (End(0, ""), "exited with code 0"),
        (End(3, "Traceback\n  File\nValueError: no"), "exited with code 3: ValueError: no"),
        (End(-9, ""), "was killed by SIGKILL"),
        (End(-11, "Fatal Python error"), "was killed by SIGSEGV: Fatal Python error"),
        (End(-40, ""), "was killed by signal 40"),
    ],
)
def test_an_end_in_words(end: End, text: str) -> None:
    assert str(end) == text


def test_a_worker_gets_our_environment_less_what_is_not_for_it() -> None:
    ours = {
        "PATH": "/bin",
        "JOURNAL_STREAM": "8:1",
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "1",
        "LISTEN_FDS": "1",
        "PYTHONHOME": "/else",
        "PYTHONPATH": "/else",
        "PYTHONWARNINGS": "error",
    }
    package = Path(relayd.__file__).resolve().parent
    expected = {"PATH": "/bin", "JOURNAL_STREAM": "8:1", "PYTHONPATH": str(package.parent), "PYTHONSAFEPATH": "1"}
    assert _environment(ours) == expected
    assert os.path.exists(f"{expected['PYTHONPATH']}/relayd/relay")
