"""docs/images/top.svg: `relayd top` on a real daemon with some traffic.

    .venv/bin/python -m tests.screenshot

Made again when what is on the screen changes; no test holds it to that.
"""

import contextlib
import io
import itertools
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.text import Text

from relayd.address import parse
from tests.documents import ROOT
from tests.e2e.conftest import Echo
from tests.e2e.daemon import Daemon
from tests.terminal import Screen, on_terminal

FILE = ROOT / "docs/images/top.svg"
COLUMNS, LINES = 112, 26
#: Until the history has something to show.
SECONDS = 45
#: Parameters of SGR that relayd uses, as rich has them.
STYLES = {
    "1": Style(bold=True),
    "2": Style(dim=True),
    "7": Style(reverse=True),
    "33": Style(color="yellow"),
    "1;4": Style(bold=True, underline=True),
    "1;31": Style(bold=True, color="red"),
}
#: Clients of each listener, the bytes that each sends in a turn, and how many turns there are between.
TRAFFIC = {"web": (5, 60_000, 1), "api": (4, 300, 2), "mail": (3, 20_000, 7)}


def main() -> None:
    """Writes it."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        echo = [Echo(parse(f"127.0.0.{number}:0")) for number in (11, 12)]  # type: ignore[arg-type]  # no names
        for each in echo:
            stack.callback(each.close)
        targets = ", ".join(f'"{each.address}"' for each in echo)
        daemon = stack.enter_context(
            Daemon(config(targets), Path(folder), command=[sys.executable, "-m", "relayd", "run"])
        )
        clients = {name: [daemon.connect(name) for _ in range(TRAFFIC[name][0])] for name in TRAFFIC}
        stuck = daemon.connect("web")  # takes nothing of what it has asked for
        stuck.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while stuck.send(bytes(65536)):
                pass
        stack.enter_context(traffic(clients))
        command = [sys.executable, "-m", "relayd", "top", "--admin", str(daemon.admin)]
        with on_terminal(command, COLUMNS, LINES) as terminal:
            terminal.wait_for_text("q quit")
            for _ in range(SECONDS):  # an answer a second
                age = next(line for line in terminal.screen.text() if line.startswith("relayd"))
                terminal.wait_for(lambda lines, age=age: lines[0] != age)  # type: ignore[misc]  # it has a default
            terminal.type("\x1b[B\x1b[B")
            terminal.wait_for(lambda lines: any("full" in line for line in lines))
            FILE.parent.mkdir(exist_ok=True)
            FILE.write_text(svg(terminal.screen))
            terminal.type("q")
            terminal.wait()
        for sock in (stuck, *(sock for socks in clients.values() for sock in socks)):
            sock.close()


def config(targets: str) -> str:
    """Three listeners."""
    binds = {"web": "127.0.0.1:0", "api": "[::1]:0", "mail": "127.0.0.2:0"}
    return "[daemon]\nworkers = 2\n" + "".join(
        f'[listeners.{name}]\nbind = "{bind}"\ntargets = [{targets}]\n' for name, bind in binds.items()
    )


@contextlib.contextmanager
def traffic(clients: dict[str, list[socket.socket]]) -> Iterator[None]:
    """In a thread."""
    over = threading.Event()

    def run() -> None:
        turn = 0
        while not over.wait(0.05):
            turn += 1
            for name, socks in clients.items():
                _, count, between = TRAFFIC[name]
                for number, sock in enumerate(socks):
                    if (turn + number) % between == 0 and turn % 400 < 300 - number:
                        data = bytes(count // (1 + number))
                        sock.sendall(data)
                        got = 0
                        while got < len(data):
                            got += len(sock.recv(65536))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def svg(screen: Screen) -> str:
    """A picture of the screen."""
    console = Console(width=screen.columns, height=screen.lines, record=True, file=io.StringIO(), force_terminal=True)
    for row in screen.cells:
        text = Text(no_wrap=True)
        for style, cells in itertools.groupby(row, key=lambda cell: cell.style):
            text.append("".join(cell.character for cell in cells), STYLES[style] if style else None)
        console.print(text, overflow="crop", crop=True)
    made = console.export_svg(title="relayd top", unique_id="top")
    return re.sub(
        r"\s*@font-face \{.*?\}", "", made, flags=re.DOTALL
    )  # fonts from elsewhere, which a page does not load


if __name__ == "__main__":
    main()
