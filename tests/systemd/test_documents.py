"""What the documents tell an operator to type works, on a system where the package is installed.

The lines of each page are typed in their order, as root, on a relayd that runs what the page shows first. What stays
out needs more than that: other programs, which tests/unit/test_document_commands.py names, or a file of the reader's.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import PAGES, blocks, command_lines, name_of
from tests.systemd import package
from tests.systemd.box import CHECKOUT, Box, Service
from tests.unit.test_document_commands import NOT_RUN, RUN

PROGRAMS = ("cp", "curl", "journalctl", "kill", "relayd", "systemctl")
#: Pages that are about other ways to install, and have tests of their own.
ELSEWHERE = {
    "docs/how-to/containers.md": "tests/e2e/test_container.py",
    "docs/how-to/migrate.md": "tests/unit/test_documents.py",
    "docs/how-to/pip.md": "tests/soak/test_wheel.py",
    RUN: "tests/e2e/test_tutorial.py",
}
#: A file of the reader's, by line: it is made before.
FILES = {
    "relayd check -c bad.toml": ("bad.toml", "[listeners.web]\nbind = 5\n"),
    "relayd import /etc/haproxy/haproxy.cfg > relay.toml": (
        "/etc/haproxy/haproxy.cfg",
        "listen web\n mode tcp\n bind :8081\n server one 127.0.0.1:9000\n",
    ),
    "relayd check -c configs/relay.toml": ("configs/relay.toml", (CHECKOUT / "configs/relay.toml").read_text()),
}
#: What a program says by its exit code that is no failure.
ALSO_FINE = {"relayd check -c bad.toml": 1, "relayd plan": 10}
#: Always there: what pages talk about.
BASE = """
include = ["conf.d/*.toml"]
[listeners.web]
bind = "127.0.0.1:80"
targets = ["127.0.0.1:9000"]
[listeners.socket]
bind = "unix:/run/relayd/web.sock"
targets = ["127.0.0.1:9000"]
"""
CHANGE = '[listeners.change]\nbind = "127.0.0.1:7000"\ntargets = ["127.0.0.1:9000"]\n'


def typed(page: Path) -> list[str]:
    lines = [line for _, line in command_lines(page)]
    return [line for line in lines if line.split()[0] in PROGRAMS]


TYPED = [page for page in PAGES if name_of(page) not in ELSEWHERE and typed(page)]


@pytest.fixture(scope="module")
def installed(deb: Path) -> Iterator[Box]:
    for program in ("curl", "jq"):  # which lines use beside relayd and systemd
        if shutil.which(program) is None:
            pytest.skip(f"missing {program}")
    with package.bare_box() as box:
        package.install(box, deb)
        box.run("systemd-run", "--unit=http", "python3", "-m", "http.server", "9000", "--bind", "127.0.0.1")
        yield box


def test_there_is_something_to_type() -> None:
    assert len(TYPED) >= 8
    assert sum(len(typed(page)) for page in TYPED) >= 30
    assert all(program in NOT_RUN or program == "relayd" for program in PROGRAMS)


@pytest.mark.parametrize("page", TYPED, ids=name_of)
def test_every_line_can_be_typed(installed: Box, page: Path) -> None:
    here = installed.root / "usr/share/doc/relayd/examples"  # where systemd/relayd.service is, as the page has it
    installed.run("systemctl", "stop", "relayd.socket", "relayd.service")
    (installed.root / "etc/relayd/relay.toml").write_text(BASE)
    for file in (installed.root / "etc/relayd/conf.d").iterdir():
        file.unlink()
    installed.run("systemctl", "start", "relayd.service")
    first = next((block.text for block in blocks(page) if block.kind == "toml" and not block.more), "")
    if "[listeners.ssh]" in first:  # the forward that the page adds
        (installed.root / "etc/relayd/conf.d/page.toml").write_text(first)
    for line in typed(page):
        if line in FILES:
            name, text = FILES[line]
            path = installed.root / name.lstrip("/") if name.startswith("/") else here / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if line.startswith("relayd reload --confirm"):  # of what has been changed before
            (installed.root / "etc/relayd/conf.d/change.toml").write_text(CHANGE)
        real = re.sub(r"^kill -USR2 \d+", f"kill -USR2 {Service(installed).main_pid()}", line)
        said = installed.run("sh", "-c", f"cd /usr/share/doc/relayd/examples && {real}\necho exit $?")
        code = int(said.rsplit("exit ", 1)[1])
        assert code in (0, ALSO_FINE.get(line.partition("  #")[0].strip(), 0)), f"{line}\n{said}"
