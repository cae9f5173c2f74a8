"""Entries for journald by its native protocol, without ever waiting for it. Standard library only: workers log too.

The protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): one datagram per entry to a well-known socket, `NAME=value`
lines in it; a value with a line feed is written as NAME, line feed, length as 64 bits little-endian, value, line
feed. An entry too large for a datagram travels as a sealed memfd. `systemd.journal.send` is not used because it blocks,
and holds the GIL, while journald does not read.
"""

import array
import errno
import fcntl
import os
import socket
from collections.abc import Mapping

JOURNAL_SOCKET = "/run/systemd/journal/socket"

#: journald takes a memfd only when nobody can change it any more.
_SEALS = fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def under_journal(environ: Mapping[str, str], fd: int) -> bool:
    """True when `fd` is the stream that systemd connected to journald for us (JOURNAL_STREAM, systemd.exec(5)).

    The variable outlives a redirection (`relayd run | tee` in a service), hence the look at the descriptor itself.
    """
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def field(name: str, value: str) -> str | bytes:
    """One field of an entry. `name` is made of A-Z, 0-9 and _, and does not begin with _ (journald drops others)."""
    if "\n" not in value:
        return f"{name}={value}\n"
    data = value.encode(errors="backslashreplace")
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def entry(fields: Mapping[str, str]) -> bytes:
    """The datagram that holds `fields`, in their order."""
    parts = (field(name, value) for name, value in fields.items())
    return b"".join(part if isinstance(part, bytes) else part.encode(errors="backslashreplace") for part in parts)


class JournalSender:
    """Sends entries to journald. Owns one socket.

    It is never connected: each entry is addressed anew, so a journald that was restarted gets the next one.
    """

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, data: bytes) -> bool:
        """True when the kernel took `data`, one entry as `entry` makes it. False: it did not, and waiting may help.

        Never blocks, raises nothing. A full queue, no journald and no descriptor for a memfd are all False.
        """
        try:
            self._sock.sendto(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._path)
        except OSError as error:
            # ENOBUFS as well: a datagram of some hundred KiB may fit SO_SNDBUF and yet find no memory (sd-journal does
            # the same).
            return error.errno in {errno.EMSGSIZE, errno.ENOBUFS} and self._send_large(data)
        return True

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self._sock.close()

    def _send_large(self, data: bytes) -> bool:
        try:
            memfd = os.memfd_create("relayd-journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError:
            return False
        try:
            with open(memfd, "wb", buffering=0, closefd=False) as file:
                file.write(data)
            fcntl.fcntl(memfd, *_SEALS)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memfd]))]
            self._sock.sendmsg([], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, self._path)
        except OSError:
            return False
        finally:
            os.close(memfd)
        return True
