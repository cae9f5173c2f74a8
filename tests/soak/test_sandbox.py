"""The end-to-end tests, run inside the sandbox of the shipped unit: its user, its view of the files, its system calls.

A system call that the filter forbids answers EPERM, a file that the unit hides is not there: what relayd does of either
kind, anywhere, fails one of those tests. They run as the unit's own user, and so without those that need root.
"""

import re
import sys

import pytest

from tests import installed
from tests.systemd.box import CHECKOUT, UNIT, Box
from tests.systemd.conftest import box

pytestmark = pytest.mark.soak
__all__ = ["box"]

#: All of them take some four minutes, and half as long again here.
_TIMEOUT = "20min"
#: What stands in the way of a program that ends by itself, and says nothing to systemd. Nothing of the sandbox.
_DROP_IN = """\
[Service]
Type=oneshot
TimeoutStartSec={timeout}
WatchdogSec=0
Restart=no
ExecReload=
ExecStart=
ExecStart={command}
WorkingDirectory={checkout}
Environment=RELAYD_TEST_INSTALLED={installed} PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
# The checkout and its Python may lie where the unit hides things.
ProtectHome=tmpfs
BindReadOnlyPaths={paths}
"""


def test_end_to_end_in_the_sandbox(box: Box) -> None:
    environment = installed.environment()
    paths = " ".join(str(path) for path in (CHECKOUT, environment.folder, sys.base_prefix))
    # -p no:cacheprovider: the checkout is not ours to write to.
    command = f"{sys.executable} -m pytest -q -p no:cacheprovider --basetemp=/tmp/e2e tests/e2e"
    (box.root / "etc/systemd/system/relayd-e2e.service").write_text(UNIT.read_text())
    folder = box.root / "etc/systemd/system/relayd-e2e.service.d"
    folder.mkdir()
    (folder / "e2e.conf").write_text(
        _DROP_IN.format(timeout=_TIMEOUT, command=command, checkout=CHECKOUT, installed=environment.folder, paths=paths)
    )
    box.run("systemctl", "daemon-reload")
    box.run("systemctl", "start", "--no-block", "relayd-e2e")
    box.run("sh", "-c", "while systemctl is-active relayd-e2e | grep -q activating; do sleep 1; done", timeout_s=1500)
    said = box.run("journalctl", "--no-pager", "--output=cat", "--unit=relayd-e2e")
    summary = re.search(r"^(?:(\d+) failed, )?(\d+) passed, (\d+) skipped", said, re.MULTILINE)
    assert summary is not None, said[-5000:]
    assert summary[1] is None, said[-20000:]
    assert int(summary[2]) > 150
    # Those that need root, and no more: what is skipped proves nothing.
    assert int(summary[3]) < 30
