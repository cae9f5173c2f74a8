"""What `journalctl -x` adds."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from manual import catalog

from relayd.log.events import Event, Level


def test_every_kind_has_an_entry_by_its_message_id() -> None:
    entries = re.findall(r"^-- (\w{32})\nSubject: relayd: (.+)$", catalog.page(), re.MULTILINE)
    assert entries == [(each.message_id, each.value.replace("_", " ")) for each in Event]


def test_there_is_advice_on_everything_that_went_wrong_and_on_nothing_else() -> None:
    assert set(catalog.ADVICE) == {each for each in Event if each.level in (Level.WARNING, Level.ERROR)}


def test_journalctl_takes_it(tmp_path: Path) -> None:
    if shutil.which("journalctl") is None:
        pytest.skip("missing journalctl")
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    (place / "relayd.catalog").write_text(catalog.page())
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    done = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--update-catalog"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    listed = subprocess.run(
        ["journalctl", f"--root={tmp_path}", "--list-catalog"], capture_output=True, text=True, check=True
    ).stdout
    assert len([line for line in listed.splitlines() if "relayd" in line]) == len(Event)
