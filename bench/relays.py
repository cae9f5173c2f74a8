"""The relays that are compared: how each is started for one listener and one target, with and without a log line.

All relay 127.0.0.1:PORT to 127.0.0.1:TARGET with one process that moves bytes, accept as many connections as the
benchmark opens, keep their distribution's defaults otherwise, and log, where they log, to a regular file. For
datagrams, each holds in its receive buffer what the benchmark has on its way.
"""

import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

CONNECTIONS = 4096
"""What each is configured to hold: twice the idle ones of the memory case. HAProxy wants 2.5 descriptors for each.
"""

RECEIVE_BUFFER_BYTES = 4 << 20
"""Of the socket that takes datagrams: the default of 208 KiB drops what 100 clients send at once. relayd asks for it
by itself.
"""


@dataclass(frozen=True, slots=True)
class Setup:
    """One start of a relay: where it listens, where it dials, whether it logs, and a directory of its own.

    Both ports are of TCP, or of UDP where it is to relay `datagrams`.
    """

    port: int
    target_port: int
    logs: bool
    directory: Path
    datagrams: bool = False

    def write(self, name: str, text: str) -> str:
        """Put a file into the directory; its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True, slots=True)
class Relay:
    """One kind of relay. `command` writes the files it needs and returns argv; `log` names its log file, if it has one.

    `program` is found in PATH or the system's directories; `package` is the apt package that brings it;
    `version` are the arguments that make it print its version.
    `processes` is how many it has when idle; `most_idle` bounds the idle connections of the memory case; `only` names
    the cases of streams it is there for, when not for all. `datagrams` says whether it relays those, and `leaves_out`
    names the cases of datagrams that are too much for it.
    """

    name: str
    program: str
    package: str
    version: tuple[str, ...]
    command: Callable[[str, Setup], list[str]]
    log: str | None = None
    processes: int = 1
    most_idle: int = CONNECTIONS
    ready_by_notify: bool = False
    only: tuple[str, ...] = ()
    datagrams: bool = False
    leaves_out: tuple[str, ...] = ()
    #: Waits until all is loaded that is loaded once, given the relay's directory: no unit of work pays for that.
    settle: Callable[[Path], None] | None = None

    def runs(self, case: str, *, datagrams: bool) -> bool:
        """Whether it takes part in a case of streams, or of `datagrams`."""
        if datagrams:
            return self.datagrams and case not in self.leaves_out
        return not self.only or case in self.only

    def path(self) -> str | None:
        """Where the program is; None when it is not installed."""
        if self.program == "relayd":  # this checkout's, whatever is in PATH
            return sys.executable
        places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/lib/systemd", "/lib/systemd"])
        return shutil.which(self.program, path=places)


#: For the admin API to be loaded, on a machine that is busy.
_ADMIN_WITHIN_S = 10.0


def _relayd(path: str, setup: Setup) -> list[str]:
    text = f"""
[daemon]
workers = 1
[log]
level = "{"info" if setup.logs else "warning"}"
format = "json"
access = {"true" if setup.logs else "false"}
[listeners.bench]
bind = "127.0.0.1:{setup.port}"
targets = ["127.0.0.1:{setup.target_port}"]
{'type = "dgram"' if setup.datagrams else ""}
"""
    return [path, "-m", "relayd", "run", "-c", setup.write("relay.toml", text)]


def _relayd_seen(path: str, setup: Setup) -> list[str]:
    return _relayd_observed(path, setup, "", f'listen = "unix:{setup.directory}/admin.sock"')


def _admin_answers(directory: Path) -> None:
    """The admin API has been asked, and so all of it is loaded."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_ADMIN_WITHIN_S)
        client.connect(f"{directory}/admin.sock")
        client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: relayd\r\n\r\n")
        while client.recv(1 << 16):
            pass


def _relayd_unseen(path: str, setup: Setup) -> list[str]:
    return _relayd_observed(path, setup, "access = false", "listen = []")


def _relayd_observed(path: str, setup: Setup, log: str, admin: str) -> list[str]:
    text = f"""
[daemon]
workers = 1
[log]
{log}
[admin]
{admin}
[listeners.bench]
bind = "127.0.0.1:{setup.port}"
targets = ["127.0.0.1:{setup.target_port}"]
"""
    return [path, "-m", "relayd", "run", "-c", setup.write("relay.toml", text)]


def _haproxy_splicing(path: str, setup: Setup, splicing: str) -> list[str]:
    text = f"""
global
    maxconn {CONNECTIONS}
    nbthread 1
    {"log stdout format raw local0" if setup.logs else ""}
defaults
    mode tcp
    {splicing}
    {"log global" if setup.logs else ""}
    {"option tcplog" if setup.logs else ""}
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{setup.port}
    server target 127.0.0.1:{setup.target_port}
"""
    return [path, "-db", "-f", setup.write("haproxy.cfg", text)]


def _haproxy(path: str, setup: Setup) -> list[str]:
    return _haproxy_splicing(path, setup, "option splice-auto")


def _haproxy_splice(path: str, setup: Setup) -> list[str]:
    return _haproxy_splicing(path, setup, "option splice-request\n    option splice-response")


def _nginx(path: str, setup: Setup) -> list[str]:
    listen = f"udp rcvbuf={RECEIVE_BUFFER_BYTES}" if setup.datagrams else "backlog=4096"
    log = "'$remote_addr [$time_local] $protocol $status $bytes_sent $bytes_received $session_time $upstream_addr'"
    text = f"""
load_module modules/ngx_stream_module.so;
worker_processes 1;
daemon off;
pid {setup.directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections {2 * CONNECTIONS}; }}
stream {{
    log_format bench {log};
    access_log {f"{setup.directory}/access.log bench" if setup.logs else "off"};
    server {{
        listen 127.0.0.1:{setup.port} {listen};
        proxy_pass 127.0.0.1:{setup.target_port};
        proxy_timeout 1h;
    }}
}}
"""
    prefix = "/usr/share/nginx"  # modules/ is below it
    return [path, "-p", prefix, "-e", "stderr", "-c", setup.write("nginx.conf", text)]


def _rinetd(path: str, setup: Setup) -> list[str]:
    text = f"127.0.0.1 {setup.port} 127.0.0.1 {setup.target_port}\n"
    if setup.logs:
        text += f"logfile {setup.directory}/access.log\n"
    return [path, "-f", "-c", setup.write("rinetd.conf", text)]


def _socat(path: str, setup: Setup) -> list[str]:
    if setup.datagrams:  # a process for each session; it ends when that was idle for 3 s
        listen = f"UDP4-LISTEN:{setup.port},bind=127.0.0.1,reuseaddr,fork,rcvbuf={RECEIVE_BUFFER_BYTES}"
        return [path, "-T", "3", listen, f"UDP4:127.0.0.1:{setup.target_port}"]
    listen = f"TCP4-LISTEN:{setup.port},bind=127.0.0.1,reuseaddr,fork,backlog=4096"
    return [path, listen, f"TCP4:127.0.0.1:{setup.target_port}"]


def _socket_proxyd(path: str, setup: Setup) -> list[str]:
    activate = shutil.which("systemd-socket-activate") or "/usr/bin/systemd-socket-activate"
    proxy = [path, f"--connections-max={CONNECTIONS}", f"127.0.0.1:{setup.target_port}"]
    return [activate, "-l", f"127.0.0.1:{setup.port}", *proxy]


RELAYS: tuple[Relay, ...] = (
    Relay(
        "relayd",
        "relayd",
        "",
        ("-m", "relayd", "version"),
        _relayd,
        log="stdout",
        processes=2,
        ready_by_notify=True,
        datagrams=True,
    ),
    Relay("haproxy", "haproxy", "haproxy", ("-v",), _haproxy, log="stdout"),
    # With splice-auto HAProxy copies as much as it splices, by its own guess; this is its best at bulk.
    Relay("haproxy-splice", "haproxy", "haproxy", ("-v",), _haproxy_splice, log="stdout", only=("bulk1", "bulk4")),
    Relay("nginx", "nginx", "libnginx-mod-stream", ("-v",), _nginx, log="access.log", processes=2, datagrams=True),
    Relay("rinetd", "rinetd", "rinetd", ("-v",), _rinetd, log="access.log"),
    # A process for each connection: 200 idle ones are enough to tell.
    Relay(
        "socat",
        "socat",
        "socat",
        ("-V",),
        _socat,
        most_idle=200,
        datagrams=True,
        leaves_out=("udp500-64", "udp500-1200"),
    ),
    Relay("socket-proxyd", "systemd-socket-proxyd", "systemd", ("--version",), _socket_proxyd),
)
_RELAYD_SEEN = Relay(
    "relayd-seen",
    "relayd",
    "",
    ("-m", "relayd", "version"),
    _relayd_seen,
    log="stdout",
    processes=2,
    ready_by_notify=True,
    only=("request", "connect"),
    settle=_admin_answers,
)
#: relayd with log and admin API as they are by default, and without access lines and admin API: what both together
#: cost. To be asked for by name, in the mode `logs`.
OBSERVED: tuple[Relay, ...] = (
    _RELAYD_SEEN,
    replace(_RELAYD_SEEN, name="relayd-unseen", command=_relayd_unseen, settle=None),
)
