"""A target that does as it is told: a process of its own, so that it can be killed. Standard library only.

    python server.py HOST PORT

answers each request, PING by PONG and all else by itself. It says `ready` when it listens, and obeys words on standard
input, each answered by itself when it is done, until that ends:

shut: listens no more, so that a connect is refused · open: listens again · hole: completes no handshake any more, so
that a connect is not answered · heal: does again · sick: answers PING by SICK · well: by PONG again
"""

import contextlib
import os
import selectors
import socket
import sys
from collections.abc import Callable

_BACKLOG = 1024
#: Of a full backlog connects are not answered: after so many of our own it is.
_FILLING = 8


class Server:
    """One listening socket, and whoever has come."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._selector = selectors.DefaultSelector()
        self._answer = b"PONG"
        self._fillers: list[socket.socket] = []
        self._words = ""
        self._known: dict[str, Callable[[], None]] = {
            "shut": self.shut,
            "open": self.open,
            "hole": self.hole,
            "heal": self.heal,
            "sick": self.sick,
            "well": self.well,
        }
        os.set_blocking(0, False)
        self._selector.register(0, selectors.EVENT_READ, self._obey)
        self.open()

    def run(self) -> None:
        """Until standard input ends."""
        print("ready", flush=True)  # noqa: T201  # the test reads it
        while self._selector.get_map().get(0):
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():
                    key.data(key.fileobj)

    def open(self) -> None:
        """Listen."""
        self._sock = socket.create_server(self._address, backlog=_BACKLOG)
        self._sock.setblocking(False)
        self._selector.register(self._sock, selectors.EVENT_READ, self._accept)

    def shut(self) -> None:
        """Listen no more. Those who have come are served."""
        self._accept(self._sock)
        self._selector.unregister(self._sock)
        self._sock.close()

    def hole(self) -> None:
        """Fill the backlog, and accept nobody."""
        self._accept(self._sock)
        self._selector.unregister(self._sock)
        self._sock.listen(0)
        for _ in range(_FILLING):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._address)
            self._fillers.append(filler)

    def heal(self) -> None:
        """Accept again."""
        while self._fillers:
            self._fillers.pop().close()
        self._sock.listen(_BACKLOG)
        self._selector.register(self._sock, selectors.EVENT_READ, self._accept)

    def sick(self) -> None:
        """Serve clients, and fail checks."""
        self._answer = b"SICK"

    def well(self) -> None:
        """Serve both."""
        self._answer = b"PONG"

    def _obey(self, _: object) -> None:
        data = os.read(0, 4096).decode()
        if not data:
            self._selector.unregister(0)
        self._words += data
        while "\n" in self._words:
            word, _, self._words = self._words.partition("\n")
            self._known[word]()
            print(word, flush=True)  # noqa: T201  # the test reads it

    def _accept(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                client, _ = sock.accept()
                client.setblocking(False)
                self._selector.register(client, selectors.EVENT_READ, self._serve)

    def _serve(self, client: socket.socket) -> None:
        try:
            data = client.recv(4096)
            if data:
                client.sendall(self._answer if data == b"PING" else data)
                return
        except BlockingIOError:
            return
        except ConnectionError:
            pass  # a check resets
        self._selector.unregister(client)
        client.close()


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2])).run()
