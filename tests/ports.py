"""Ports that nobody has, for ranges: of a single one the kernel is asked (port 0)."""

import random
import socket


def free_range(ports: int) -> int:
    """First of `ports` ports that nobody has on 127.0.0.1, below those that the kernel gives to others."""
    for first in random.sample(range(11_000, 32_000 - ports), 200):
        try:
            for port in range(first, first + ports):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError(f"no {ports} free ports")
