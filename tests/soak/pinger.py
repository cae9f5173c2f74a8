"""Both ends of many connections through a relay, and how long a message takes from one to the other and back: a process
of its own. Standard library only.

    python pinger.py CONNECTIONS RATE

prints the port where it listens, reads that of the relay, opens CONNECTIONS to it, and says `open`. From then on it
sends RATE messages a second, each on the next connection, whose target sends it back. A line that is read begins a
window of that name; after the last one, at the end of standard input, it prints JSON: by name the sorted seconds of
each message.
"""

import json
import os
import select
import socket
import sys
import time

_MESSAGE = b"x" * 64
#: Connections that are being opened at once.
_OPENING = 200


class Pinger:
    """The loop."""

    def __init__(self, rate: float) -> None:
        self._interval_s = 1 / rate
        self._epoll = select.epoll()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._targets: dict[int, socket.socket] = {}
        self._clients: dict[int, socket.socket] = {}
        self._sent: dict[int, tuple[float, str]] = {}
        self._window = ""
        self.took: dict[str, list[float]] = {}
        self._epoll.register(self._listening, select.EPOLLIN)

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    def open(self, port: int, count: int) -> None:
        """Each has been to its target and back when this returns."""
        while len(self._clients) < count:
            batch = []
            for _ in range(min(_OPENING, count - len(self._clients))):
                sock = socket.create_connection(("127.0.0.1", port))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[sock.fileno()] = sock
                self._epoll.register(sock, select.EPOLLIN)
                batch.append(sock)
            for sock in batch:
                self._send(sock, time.monotonic())
            while self._sent:
                self._turn(1.0)

    def run(self) -> None:
        """Until standard input ends."""
        order = list(self._clients.values())
        self._epoll.register(0, select.EPOLLIN)
        number, due = 0, time.monotonic()
        while True:
            now = time.monotonic()
            while due <= now:
                sock = order[number % len(order)]
                if sock.fileno() not in self._sent:
                    self._send(sock, time.monotonic())
                number, due = number + 1, due + self._interval_s
            if not self._turn(max(0.0, due - time.monotonic())):
                return

    def _send(self, sock: socket.socket, at: float) -> None:
        self._sent[sock.fileno()] = at, self._window
        sock.send(_MESSAGE)

    def _turn(self, timeout_s: float) -> bool:
        for fd, _ in self._epoll.poll(timeout_s):
            if fd == 0:
                line = os.read(0, 100)
                if not line:
                    return False
                self._window = line.decode().strip()
            elif fd == self._listening.fileno():
                sock = self._listening.accept()[0]
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._targets[sock.fileno()] = sock
                self._epoll.register(sock, select.EPOLLIN)
            elif fd in self._targets:
                self._targets[fd].send(self._targets[fd].recv(1024))
            elif self._clients[fd].recv(1024):
                at, window = self._sent.pop(fd)
                self.took.setdefault(window, []).append(time.monotonic() - at)
        return True


def main() -> None:
    """See above."""
    count, rate = int(sys.argv[1]), float(sys.argv[2])
    pinger = Pinger(rate)
    print(pinger.port, flush=True)  # noqa: T201  # it is how this talks
    pinger.open(int(os.read(0, 100)), count)
    print("open", flush=True)  # noqa: T201  # as above
    pinger.run()
    print(json.dumps({name: sorted(took) for name, took in pinger.took.items()}), flush=True)  # noqa: T201  # as above


if __name__ == "__main__":
    main()
