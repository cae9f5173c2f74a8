"""Ports that nobody has, for ranges: of a single one the kernel is asked (port 0).

Tests run in more than one process, and none of them may come between another's look and its bind. So what is handed out
is locked, byte for byte of a file, until the test is over (`give_back`) or its process has ended.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

#: An address that no other process of tests uses, for those that need so many ports that two would not find enough: all
#: of 127.0.0.0/8 is this machine's.
OWN_HOST = f"127.{64 + (os.getpid() >> 16)}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
#: One byte for each port. Open from the start: a test has to leave descriptors as it finds them.
_LOCKS = os.open(Path(tempfile.gettempdir(), f"relayd-test-ports-{os.getuid()}"), os.O_RDWR | os.O_CREAT, 0o600)


def free_range(ports: int, host: str = "127.0.0.1") -> int:
    """First of `ports` ports that nobody has on `host`, below those that the kernel gives to others. No other test is
    given any of them before this one is over.
    """
    for first in random.sample(range(11_000, 32_000 - ports), 200):
        if not _locked(first, ports, host):
            continue
        if _nobody_has(first, ports, host):
            return first
        fcntl.lockf(_LOCKS, fcntl.LOCK_UN, ports, first)
    raise AssertionError(f"no {ports} free ports")


def give_back() -> None:
    """All that this process was given."""
    fcntl.lockf(_LOCKS, fcntl.LOCK_UN)


def _locked(first: int, ports: int, host: str) -> bool:
    if host == OWN_HOST:
        return True
    try:
        fcntl.lockf(_LOCKS, fcntl.LOCK_EX | fcntl.LOCK_NB, ports, first)
    except BlockingIOError:  # fcntl(2): some of it is another process's
        return False
    return True


def _nobody_has(first: int, ports: int, host: str) -> bool:
    try:
        for port in range(first, first + ports):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((host, port))
    except OSError:
        return False
    return True
