"""Metrics of a real daemon, read by the parsers of prometheus_client: under traffic, over a reload, a worker's death, a
restart (O2)."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import relayd
from relayd.address import SocketAddress
from relayd.control.metrics import METRICS, PROCESS
from tests.e2e.daemon import DEADLINE_S, Daemon
from tests.e2e.lives import BY_RESTART, Again, answered

EchoStart = Callable[[str], SocketAddress]
#: By name and labels.
Values: TypeAlias = dict[tuple[str, frozenset[tuple[str, str]]], float]

KNOWN = {each.name: each for each in (*METRICS, *PROCESS)}
#: Reports of workers come once a second, and nothing says so.
_LOOK_S = 0.05
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
#: What a process has that begins anew with each.
OF_THE_PROCESS = {"process_cpu_seconds_total"}


def get(daemon: Daemon, path: str, accept: str = "text/plain") -> tuple[int, str, bytes]:
    """Status, content type and body."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(daemon.admin.sockaddr)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: relayd\r\nAccept: {accept}\r\n\r\n".encode())
        answer = b""
        while part := client.recv(1 << 16):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), fields["Content-Type"], body


def scrape(daemon: Daemon, accept: str = "text/plain") -> Values:
    """Every value. What is exposed is documented, for docs/metrics.md has every one of KNOWN and no other."""
    status, content_type, body = get(daemon, "/metrics", accept)
    assert (status, content_type.partition(";")[0]) == (200, accept.partition(";")[0])
    read: Any = openmetrics.text_string_to_metric_families if accept == OPEN_METRICS else text_string_to_metric_families
    values: Values = {}
    for family in read(body.decode()):
        metric = KNOWN[f"{family.name}_total" if family.type == "counter" else family.name]
        assert family.type == metric.kind.value
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in values
            assert set(sample.labels) - {"le"} == set(metric.labels)
            values[key] = sample.value
    return values


def value(values: Values, name: str, **labels: str) -> float:
    return values.get((name, frozenset(labels.items())), 0.0)


def grows(name: str) -> bool:
    return name.endswith(("_total", "_bucket", "_count", "_sum")) and name not in OF_THE_PROCESS


def stays(name: str) -> bool:
    """A target that is none any more has no line; when it comes back, it goes on."""
    return name != "relayd_target_failures_total"


class Watching:
    """Scrapes, and holds each scrape against those before: nothing that counts has become less, or is gone."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._before: Values = {}

    def look(self) -> Values:
        now = scrape(self._daemon)
        expected = {key: was for key, was in self._before.items() if grows(key[0]) and (key in now or stays(key[0]))}
        assert {key: (was, now.get(key)) for key, was in expected.items() if now.get(key, -1) < was} == {}
        self._before |= now
        return now

    def until(self, name: str, wanted: float, **labels: str) -> Values:
        """Look until there is so much of it. Fails where there is more."""
        asked, waiting = 0, threading.Event()
        while value(found := self.look(), name, **labels) < wanted:
            asked += 1
            assert asked < DEADLINE_S / _LOOK_S, (name, labels, value(found, name, **labels))
            waiting.wait(_LOOK_S)
        assert value(found, name, **labels) == wanted
        return found


def config(target: SocketAddress, dns: str, *listeners: str) -> str:
    text = '[daemon]\nworkers = 2\ndrain_timeout = "200ms"\n[log]\nformat = "json"\n'
    for name in listeners:
        text += f'[listeners.{name}]\nbind = "127.0.0.1:0"\ntargets = ["{target}"]\n'
        text += 'health_check = { type = "tcp", interval = "100ms", rise = 1, fall = 1 }\n'
    text += f'[listeners.dns]\ntype = "dgram"\nbind = "127.0.0.1:0"\ntargets = ["{dns}"]\n'
    return text + '[listeners.broken]\nbind = "127.0.0.1:0"\ntargets = ["127.0.0.1:1"]\n'


def ask(daemon: Daemon, listener: str, count: int, index: int = 0) -> None:
    """So many connections, one after the other, with 5 bytes each way."""
    for _ in range(count):
        with daemon.connect(listener, index) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""


def refused(daemon: Daemon, count: int) -> None:
    for _ in range(count):
        # The reset may come before connect(2) has looked, for it waits with a timeout.
        with contextlib.suppress(ConnectionResetError), daemon.connect("broken") as client:
            assert client.recv(100) == b""


def reload(daemon: Daemon, text: str) -> None:
    count = len(daemon.events("reloaded"))
    daemon.configure(text)
    daemon.signal(signal.SIGHUP)
    daemon.wait_for_event("reloaded", count + 1)


@BY_RESTART
def test_nothing_that_counts_goes_backwards(
    tmp_path: Path, echo: EchoStart, udp_echo: socket.socket, again: Again
) -> None:
    target, dns = echo("inet"), "{}:{}".format(*udp_echo.getsockname())
    both, one = config(target, dns, "web", "api"), config(target, dns, "web")
    with Daemon(both, tmp_path) as daemon, contextlib.ExitStack() as stack:
        watching = Watching(daemon)
        ask(daemon, "web", 5)
        ask(daemon, "api", 3)
        refused(daemon, 2)
        client = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(DEADLINE_S)
        client.connect(daemon.address("dns", kind="dgram").sockaddr)
        answered(client, udp_echo, b"question")
        api, web = {"listener": "api", "type": "stream"}, {"listener": "web", "type": "stream"}
        watching.until("relayd_connections_closed_total", 3, **api, outcome="normal")
        watching.until("relayd_connections_closed_total", 5, **web, outcome="normal")
        watching.until("relayd_connect_duration_seconds_count", 5, listener="web")
        watching.until("relayd_dial_failures_total", 2, listener="broken")
        watching.until("relayd_target_failures_total", 2, pool="broken", target="127.0.0.1:1")
        found = watching.until("relayd_datagrams_total", 1, listener="dns", direction="out")
        assert value(found, "relayd_connections_active", listener="dns", type="dgram") == 1
        assert value(found, "relayd_bytes_total", **web, direction="in") == 25
        assert value(found, "relayd_bytes_total", listener="dns", type="dgram", direction="out") == 8
        assert value(found, "relayd_target_up", pool="web", target=str(target)) == 1
        # a listener goes, and comes back
        reload(daemon, one)
        watching.look()
        reload(daemon, both)
        ask(daemon, "api", 1, index=1)  # where it is now
        watching.until("relayd_connections_total", 4, **api)
        # a worker dies
        for pid in daemon.workers():
            os.kill(pid, signal.SIGKILL)
        daemon.wait_for_event("worker_started", 4)
        ask(daemon, "web", 2)
        refused(daemon, 1)
        watching.until("relayd_connections_total", 7, **web)
        found = watching.until("relayd_worker_restarts_total", 2)
        assert value(found, "relayd_config_reloads_total", result="ok") == 2
        # a life ends, and the next one begins
        for lives in (1, 2):
            again(daemon)
            ask(daemon, "web", 1)
            watching.until("relayd_connections_total", 7 + lives, **web)
        watching.until("relayd_target_failures_total", 3, pool="broken", target="127.0.0.1:1")
        found = watching.until("relayd_connect_duration_seconds_count", 9, listener="web")
        assert value(found, "relayd_config_reloads_total", result="ok") == 2
        assert value(found, "relayd_event_loop_lag_seconds_count") > 0
        assert value(found, "relayd_worker_cpu_seconds_total", worker="2") > 0
        assert value(found, "relayd_worker_resident_memory_bytes", worker="1") > 1 << 20
        version = [dict(labels) for name, labels in found if name == "relayd_build_info"]
        assert [each["version"] for each in version] == [relayd.__version__]
        assert daemon.stop() == 0


def test_a_reload_that_is_refused(tmp_path: Path, echo: EchoStart, udp_echo: socket.socket) -> None:
    text = config(echo("inet"), "{}:{}".format(*udp_echo.getsockname()), "web")
    with Daemon(text, tmp_path) as daemon:
        before = scrape(daemon, OPEN_METRICS)
        assert value(before, "relayd_config_last_reload_successful") == 1
        daemon.configure("nonsense")
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reload_failed")
        now = scrape(daemon, OPEN_METRICS)
        assert value(now, "relayd_config_last_reload_successful") == 0
        assert value(now, "relayd_config_reloads_total", result="refused") == 1
        name = "relayd_config_last_reload_success_timestamp_seconds"
        assert value(now, name) == value(before, name) > 1e9
        daemon.configure(text)
        daemon.signal(signal.SIGHUP)
        daemon.wait_for_event("reloaded")
        now = scrape(daemon, OPEN_METRICS)
        assert value(now, "relayd_config_last_reload_successful") == 1
        assert value(now, name) > value(before, name)


def test_ready_is_who_has_all_workers(tmp_path: Path, echo: EchoStart, udp_echo: socket.socket) -> None:
    text = config(echo("inet"), "{}:{}".format(*udp_echo.getsockname()), "web")
    with Daemon(text, tmp_path) as daemon:
        assert get(daemon, "/readyz")[0] == 200
        assert get(daemon, "/healthz")[0] == 200
        # Those that come instead are started later and later, so that there is time to ask.
        status, body, deaths = 200, b"", 0
        while status == 200:
            deaths += 1
            assert deaths < 1000
            for pid in daemon.workers():
                with contextlib.suppress(ProcessLookupError):  # it has not been replaced yet
                    os.kill(pid, signal.SIGKILL)
            status, _, body = get(daemon, "/readyz")
        assert json.loads(body)["error"] in ("1 of 2 workers do not accept", "2 of 2 workers do not accept")
        assert get(daemon, "/healthz")[0] == 200
        started = len(daemon.events("worker_started"))
        while get(daemon, "/readyz")[0] != 200:
            daemon.wait_for_event("worker_started", started + 1)
            started = len(daemon.events("worker_started"))
