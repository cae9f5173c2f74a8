"""The way in: `run` by the short one, everything else by the verbs."""

import signal
import sys
from pathlib import Path
from typing import NoReturn

import pytest
import tomli

from relayd.cli import main


@pytest.mark.parametrize(
    ("arguments", "file"),
    [
        (["run"], "/etc/relayd/relay.toml"),
        (["run", "-c", "relay.toml"], "relay.toml"),
        (["run", "--config", "/a b"], "/a b"),
    ],
)
def test_run_returns_what_control_says(monkeypatch: pytest.MonkeyPatch, arguments: list[str], file: str) -> None:
    asked = []

    def control_run(path: str) -> NoReturn:
        asked.append(path)
        sys.exit(4)

    monkeypatch.setattr("relayd.control.main.run", control_run)
    monkeypatch.setattr(sys, "argv", ["relayd", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert (caught.value.code, asked) == (4, [file])


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--help"],
        ["run", "-c"],
        ["run", "-c", ""],
        ["run", "-crelay.toml"],
        ["run", "--config=relay.toml"],
        ["run", "-c", "a", "b"],
        ["check", "-c", "relay.toml"],
        [],
    ],
)
def test_the_verbs_get_all_else(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    asked = []

    def verbs() -> int:
        asked.append(sys.argv[1:])
        return 2

    monkeypatch.setattr("relayd.cli.verbs.main", verbs)
    monkeypatch.setattr(sys, "argv", ["relayd", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert (caught.value.code, asked) == (2, [arguments])


def test_entry_point() -> None:
    project = tomli.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"relayd": "relayd.cli.main:main"}


def test_ctrl_c_ends_a_verb_whoever_has_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: list[set[int]] = []

    def verbs() -> int:
        blocked.append({*signal.pthread_sigmask(signal.SIG_BLOCK, ())})
        return 0

    monkeypatch.setattr("relayd.cli.verbs.main", verbs)
    monkeypatch.setattr(sys, "argv", ["relayd", "check"])
    ours = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        with pytest.raises(SystemExit):
            main.main()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, ours)
    assert blocked == [set()]
