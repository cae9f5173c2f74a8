"""A resolver for whom a test types `dig`: every name has one address. Standard library; it runs as a unit of systemd in
a network of its own, with Type=notify.
"""

import os
import socket
import struct

#: Of what a question ends with where it says more than the name: EDNS(0), RFC 6891.
_OPT = b"\0" + struct.pack("!HHIH", 41, 1232, 0, 0)
_POINTER_TO_THE_NAME, _A, _IN, _TTL_S = 0xC00C, 1, 1, 60
_ADDRESS = bytes((192, 0, 2, 1))


def answer(question: bytes) -> bytes:
    """The answer to one question for an A record (RFC 1035, 4.1); EDNS is answered where it is spoken."""
    number, _, _, _, _, additional = struct.unpack("!6H", question[:12])
    end = question.index(0, 12) + 1 + 4  # the name, its type and class
    found = struct.pack("!HHHIH", _POINTER_TO_THE_NAME, _A, _IN, _TTL_S, len(_ADDRESS)) + _ADDRESS
    head = struct.pack("!6H", number, 0x8180, 1, 1, 0, min(additional, 1))
    return head + question[12:end] + found + (_OPT if additional else b"")


def main() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 53))  # IPv4 too
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
        while True:
            question, client = sock.recvfrom(4096)
            sock.sendto(answer(question), client)


if __name__ == "__main__":
    main()
