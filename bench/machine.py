"""What a run was taken on: machine, kernel and versions, for the JSON and the head of the report."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.relays import Relay

_VERSION_WITHIN_S = 10.0


def _first(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def describe() -> dict[str, str]:
    """The machine: what makes figures differ from those of another one."""
    sysctl = Path("/proc/sys/net/ipv4")
    return {
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cores": str(os.cpu_count()),
        "usable cores": str(len(os.sched_getaffinity(0))),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": platform.python_version(),
        "congestion control": (sysctl / "tcp_congestion_control").read_text().strip(),
        "tcp_rmem": " ".join((sysctl / "tcp_rmem").read_text().split()),
        "tcp_wmem": " ".join((sysctl / "tcp_wmem").read_text().split()),
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def versions(relays: Sequence[tuple[Relay, str]]) -> dict[str, str]:
    """The line with the version that each program prints when asked for it."""
    found: dict[str, str] = {}
    for relay, path in relays:
        asked = subprocess.run(
            [path, *relay.version], capture_output=True, text=True, timeout=_VERSION_WITHIN_S, check=False
        )
        said = (asked.stdout + asked.stderr).strip().splitlines()
        lines = [line for line in said if "version" in line.lower()] or said
        found[relay.name] = lines[0].strip() if lines and asked.returncode == 0 else "unknown"
    return found
