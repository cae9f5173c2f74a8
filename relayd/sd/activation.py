"""What this process was started with: sd_listen_fds_with_names(3), over systemd-python. The control process only.

systemd passes descriptors of two kinds in one list: sockets of .socket units, each under its FileDescriptorName=, and
what the service itself has put into its FD store, under names that begin with `relayd-`.
"""

import os
from collections.abc import Iterable

from relayd.address import OWN_NAMES
from relayd.errors import RelaydError
from relayd.sd.library import listen_fds_with_names
from relayd.values import dataclass

__all__ = ["CannotInherit", "Inherited", "divided", "inherited"]

_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class CannotInherit(RelaydError):
    """LISTEN_FDS and LISTEN_FDNAMES make no sense, or name descriptors that are not open."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """One descriptor, which is close-on-exec by now. Whoever takes it closes it."""

    name: str
    fd: int


def inherited() -> list[Inherited]:
    """Everything that was passed to this process, in the order of the descriptors, which is that of the units. To be
    asked once: afterwards nothing is in the environment, so that no process of ours takes it for its own. Raises
    CannotInherit.
    """
    try:
        found = listen_fds_with_names(unset_environment=True)
    except OSError as error:
        said = ", ".join(f"{name}={os.environ[name]!r}" for name in _VARIABLES if name in os.environ)
        raise CannotInherit(f"cannot take the sockets that systemd has passed ({said}): {error.strerror}") from None
    finally:
        for name in _VARIABLES:  # systemd-python has unset them for C; os.environ is Python's own copy
            os.environ.pop(name, None)
    return [Inherited(found[fd], fd) for fd in sorted(found)]


def divided(everything: Iterable[Inherited]) -> tuple[list[Inherited], list[Inherited]]:
    """The service's own FD store, and the sockets of .socket units. Pure."""
    own: list[Inherited] = []
    activating: list[Inherited] = []
    for one in everything:
        (own if one.name.startswith(OWN_NAMES) else activating).append(one)
    return own, activating
