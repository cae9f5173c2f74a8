"""Clean systems, of debootstrap: what somebody has who has installed a distribution. Needs root, and a network."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

SUITES = ("bookworm", "trixie")
#: What a system that runs services has.
_INCLUDED = "systemd,dbus,iproute2,python3,man-db,ca-certificates"
#: How this machine reaches the network.
_NETWORK = ("PIP_", "UV_", "SSL_", "HTTP", "HTTPS", "http", "https", "no_proxy", "NO_PROXY")
#: What who types a line answers: yes, and only what is needed.
_ANSWERS = 'APT::Get::Assume-Yes "true";\nAPT::Install-Recommends "false";\n'
_MOUNTS = {"proc": ("-t", "proc", "proc"), "dev": ("--bind", "/dev"), "dev/pts": ("--bind", "/dev/pts")}
#: Of somebody who has only just come: nothing is in it.
HOME = "/home/reader"
_USERS = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": HOME, "DEBIAN_FRONTEND": "noninteractive"}


def make(suite: str, root: Path) -> None:
    """A clean system in `root`."""
    run("debootstrap", "--variant=minbase", f"--include={_INCLUDED}", suite, str(root))
    (root / "etc/apt/apt.conf.d/answers").write_text(_ANSWERS)
    (root / HOME.lstrip("/")).mkdir()
    with entered(root):
        inside(root, "apt-get update")
        # A box has no network; so apt finds it in its cache.
        inside(root, "apt-get install --download-only python3-systemd")


@contextlib.contextmanager
def copy_of(system: Path, folder: Path) -> Iterator[Path]:
    """An overlay in `folder`: the root of a system that may be changed, while the context lasts."""
    upper, work, merged = (folder / name for name in ("upper", "work", "merged"))
    for each in (upper, work, merged):
        each.mkdir()
    options = f"lowerdir={system},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "overlay", "-o", options, str(merged))
    try:
        yield merged
    finally:
        run("umount", str(merged))


@contextlib.contextmanager
def entered(root: Path) -> Iterator[None]:
    """What programs in `root` need of this machine, while the context lasts."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
    with contextlib.ExitStack() as mounted:
        for place, options in _MOUNTS.items():
            run("mount", *options, str(root / place))
            mounted.callback(run, "umount", str(root / place))
        yield


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a program in a system gets beside `more`: nothing of who runs the tests but the way to the network."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_NETWORK)}
    return kept | _USERS | dict(more or {})


def inside(
    root: Path, line: str, folder: str = "/", more: Mapping[str, str] | None = None, *, check: bool = True
) -> str:
    """Type a line in a system, in `folder`; returns what it prints."""
    typed = f"cd {folder} && {line}"
    return run("chroot", str(root), "sh", "-c", typed, environment=environment(more), check=check)


def run(*command: str, environment: dict[str, str] | None = None, check: bool = True) -> str:
    """Run a program; returns what it prints."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0 or not check, f"{command}: {done.stdout[-3000:]}"
    return done.stdout
