"""One receiving socket, as its sessions know it: where they find each other, where replies leave, how its clients are
shown."""

import errno
import socket
from dataclasses import field
from typing import Any

from relayd.address import InetAddress, from_sockaddr
from relayd.choosing.group import Group
from relayd.net.boxes import Outbox
from relayd.net.datagrams import Layout
from relayd.relay.datagram.service import DatagramService
from relayd.values import dataclass

_ANY: dict[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


@dataclass(slots=True, eq=False)
class Reception:
    """`local` is the address of the socket, None on a wildcard; `port` its port, 0 for Unix. `home` finds the session
    of a key. `sock` belongs to the receiver.
    """

    service: DatagramService
    sock: socket.socket
    layout: Layout
    outbox: Outbox
    group: Group
    local: str | None
    port: int
    home: dict[bytes, Any] = field(default_factory=dict)

    def replied(self, datagrams: int, size: int) -> None:
        """Count what has come from targets."""
        counters = self.service.counters
        counters.datagrams_out += datagrams
        counters.bytes_out += size

    def discard(self, sock: socket.SocketType, room: memoryview, most: int) -> tuple[int, int, int]:
        """As `Outbox.fill`, of what comes from `sock` for a Unix client without a name, who cannot be sent anything."""
        total = 0
        for taken in range(most):
            try:
                size = sock.recv_into(room)
            except OSError as error:
                return taken, total, error.errno or errno.EIO
            total += size
            self.replied(1, size)
        return most, total, 0

    def client_text(self, key: bytes) -> tuple[str, int]:
        """Address and port of a client, for the log; a Unix client has port 0, and "unix:" when it has no name."""
        client = from_sockaddr(self.layout.af, self.layout.client(key))
        return (client.host, client.port) if isinstance(client, InetAddress) else (str(client), 0)

    def local_text(self, key: bytes) -> str:
        """The address that a client sent to, for the log; that of the bind where it is not known."""
        if self.local is not None:
            return self.local
        af = self.layout.af
        return str(from_sockaddr(af, (self.layout.local(key) or _ANY[af], self.port)))
