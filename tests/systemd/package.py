"""The Debian package, built once for a session, and a later version of it."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.systemd.box import CHECKOUT, Box
from tests.typed import lines_for

#: What docs/how-to/install.md has typed, by its verb.
LINES = {line.words[1]: line.text for line in lines_for("tests/systemd/package.py")}
#: What who types it answers: yes, and only what is needed, for a box has no network.
_ANSWERS = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
#: Of the version that `later` makes.
LATER = "99.0"


def missing_capability() -> str:
    """What this machine lacks to build the package, or "" when nothing."""
    for program in ("dpkg-buildpackage", "dh_python3"):
        if shutil.which(program) is None:
            return program
    return "" if Path("/usr/lib/python3/dist-packages/systemd").exists() else "python3-systemd"


def build(kind: str, folder: Path) -> Path:
    """packaging/build, into `folder`; the package."""
    done = subprocess.run(
        [CHECKOUT / "packaging/build", kind, folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


def later(deb: Path, folder: Path) -> Path:
    """The same package as version LATER, which says so."""
    tree = folder / "later"
    _run("dpkg-deb", "-R", str(deb), str(tree))
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: ", f"Version: {LATER}+", 1))
    package = tree / "usr/lib/relayd/relayd/__init__.py"
    package.write_text(package.read_text() + f'\n__version__ = "{LATER}"\n')
    made = folder / "relayd_later.deb"
    _run("dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(made))
    return made


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def bare_box(lower: Path = Path("/")) -> Iterator[Box]:
    """A system without relayd."""
    folder = Path(tempfile.mkdtemp(prefix="relayd-box-", dir="/tmp"))
    try:
        box = Box(folder / f"box-{folder.name}", bare=True, lower=lower)
        try:
            yield box
        finally:
            box.stop()
    finally:
        shutil.rmtree(folder)


def install(box: Box, deb: Path) -> str:
    """`apt install` in a box, which has no network: what the package needs is there, or in apt's cache. Returns what
    apt, dpkg and the maintainer scripts say.
    """
    folder = box.root / "tmp/dist"
    folder.mkdir(exist_ok=True)
    shutil.copy(deb, folder)
    return _apt(box, re.sub(r"[^/]+\.deb", deb.name, LINES["install"]))


def remove(box: Box) -> None:
    """`apt remove`."""
    _apt(box, LINES["remove"])


def purge(box: Box) -> None:
    """`apt purge`."""
    _apt(box, LINES["purge"])


def _apt(box: Box, line: str) -> str:
    answers = box.root / "tmp/apt.conf"
    answers.write_text(_ANSWERS)
    return box.run("sh", "-c", f"cd /tmp && APT_CONFIG=/tmp/apt.conf {line}")


#: What systemd, dpkg, apt, man-db and the journal keep for themselves.
_BOOKKEEPING = (
    "/run/systemd",
    "/run/private",
    "/run/log",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/lib/PackageKit",
    "/var/log",
    "/var/cache",
)


def files(box: Box) -> set[str]:
    """Everything below /etc, /run, /usr and /var that is not the system's own bookkeeping."""
    pruned = [word for path in _BOOKKEEPING for word in ("-path", path, "-prune", "-o")]
    return set(box.run("find", "/etc", "/run", "/usr", "/var", *pruned, "-print").splitlines())
