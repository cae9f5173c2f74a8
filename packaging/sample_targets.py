"""Sample targets for `packaging/dev run`: something to relay to, and nothing to deploy.

HTTP on 127.0.0.1:8081 and :8082, each of which says who it is, and an echo on unix:/tmp/relayd-sample/echo.sock. Writes
"ready" on standard output, or why not; runs until standard input ends.
"""

import contextlib
import errno
import http.server
import os
import socket
import socketserver
import sys
import threading

HOST = "127.0.0.1"
PORTS = (8081, 8082)
FOLDER = "/tmp/relayd-sample"  # noqa: S108  # named in configs/relay.toml; samples only
ECHO_PATH = f"{FOLDER}/echo.sock"


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers every GET with one line."""

    protocol_version = "HTTP/1.1"
    server: http.server.ThreadingHTTPServer

    def do_GET(self) -> None:
        """One line of text: which target this is, and what was asked for."""
        body = f"hello from sample target {self.server.server_port}, you asked for {self.path}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: relayd's access log is what there is to see."""


class Echo(socketserver.BaseRequestHandler):
    """Sends back what comes."""

    def handle(self) -> None:
        """Until the client has finished or gone."""
        with contextlib.suppress(ConnectionError):
            while data := self.request.recv(65536):
                self.request.sendall(data)


class EchoServer(socketserver.ThreadingUnixStreamServer):
    """The echo, in threads that end with the program."""

    daemon_threads = True


def main() -> int:
    """Serve until standard input ends."""
    servers: list[socketserver.BaseServer] = []
    for port in PORTS:
        try:
            servers.append(http.server.ThreadingHTTPServer((HOST, port), Hello))
        except OSError as error:
            return refuse(f"{HOST}:{port}", error)
    os.makedirs(FOLDER, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(ECHO_PATH) == 0:
            return refuse(ECHO_PATH, OSError(errno.EADDRINUSE, "somebody listens there"))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(ECHO_PATH)
    try:
        servers.append(EchoServer(ECHO_PATH, Echo))
    except OSError as error:
        return refuse(ECHO_PATH, error)
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    say("ready")
    sys.stdin.buffer.read()
    os.unlink(ECHO_PATH)
    return 0


def refuse(address: str, error: OSError) -> int:
    """Say why a target cannot be served, in one line."""
    in_use = error.errno == errno.EADDRINUSE
    say(f"{address} is in use by another program (is another sample running?)" if in_use else f"{address}: {error}")
    return 1


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
