"""What there is in a diagnosis: a name, what it is for, and how to get it."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import relayd
from relayd.cli import client
from relayd.cli.diagnosis import masking, sources
from relayd.cli.diagnosis.sources import NotThere
from relayd.config.document import FILE_BYTES_MAX
from relayd.values import dataclass

__all__ = ["IN_FORCE", "LOG", "STATUS", "Part", "all_parts", "config_parts"]

#: Parts that others are masked by: which configuration the daemon runs on, what it has of it, and what that was before.
STATUS, IN_FORCE, LOG = "daemon/status.json", "daemon/config.toml", "log.txt"

#: For the daemon to answer; it waits three seconds for its workers.
_DAEMON_S = 8.0
_READY = "/readyz"
_CONNECTIONS = 200
_LOG_LINES = 500
#: More than the status of 65,535 listeners. What is packed of it is less, and so it is asked for whole: it says which
#: configuration the daemon runs on.
_STATUS_BYTES_MAX = 64 * 1024 * 1024
#: Of each list in the status: some 300 bytes each, and of so many listeners the last two minutes, a KiB each.
_ENTRIES_MAX = 1000
_HISTORIES_MAX = 100
#: Beyond what is packed, so that a secret is found that stands across the end of that.
_BEYOND_BYTES = 64 * 1024
_UNIT = "relayd"
_PACKAGES = ("aiohttp", "dnspython", "prometheus-client", "pydantic", "systemd-python", "tomli", "typer")
#: Of a process, besides its limits: what it is, and what it takes.
_STATUS_LINES = ("Name", "State", "PPid", "Uid", "FDSize", "VmPeak", "VmRSS", "Threads", "CapEff", "Seccomp")
#: Settings of the kernel that say what a relay can do, below /proc/sys.
_SYSCTLS = (
    "fs/file-max",
    "fs/file-nr",
    "fs/nr_open",
    "fs/pipe-max-size",
    "fs/pipe-user-pages-*",
    "kernel/pid_max",
    "net/core/*mem_*",
    "net/core/default_qdisc",
    "net/core/netdev_*",
    "net/core/somaxconn",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/ipv4/ip_nonlocal_bind",
    "net/ipv4/ip_unprivileged_port_start",
    "net/ipv4/tcp_*",
    "net/ipv4/udp_*",
    "net/ipv6/bindv6only",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/ip_nonlocal_bind",
    "net/netfilter/nf_conntrack_*",
    "net/unix/max_dgram_qlen",
    "vm/overcommit_memory",
)
#: Keys of TCP Fast Open are among net/ipv4/tcp_*.
_KEYS_END = "key"
_COUNTERS = ("net/sockstat", "net/sockstat6", "net/snmp", "net/netstat", "loadavg", "meminfo")
_PROPERTIES = (
    "ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainStartTimestamp,MainPID,MemoryCurrent,TasksCurrent,"
    "LimitNOFILE,LimitNOFILESoft,FileDescriptorStoreMax,NFileDescriptorStore,StatusText"
)


@dataclass(frozen=True, slots=True)
class Part:
    """`name` is its file in the archive, `what` one line about it. `get` raises NotThere.

    `clients`: it may have clients' addresses. `config`: it is a configuration. `quotes`: it may quote one, and is for
    others only where that one is known.
    """

    name: str
    what: str
    get: Callable[[], str]
    clients: bool = False
    config: bool = False
    quotes: bool = False


def config_parts(files: Sequence[Path]) -> list[Part]:
    """The configuration, as it stands in its files: all of it, for what is masked in it is masked elsewhere."""

    def part(number: int, file: Path) -> Part:
        name, what = f"config/{number:02d}-{file.name}", f"{file}, masked"
        return Part(name, what, lambda: sources.text(sources.file(file, FILE_BYTES_MAX)), config=True)

    return [part(number, file) for number, file in enumerate(files)]


def all_parts(daemon: client.Place | None, problem: str) -> list[Part]:
    """Everything but the configuration. `daemon` is where it may be; None: `problem` says why that is not known."""

    def ask(path: str, bytes_max: int = sources.PART_BYTES_MAX + _BEYOND_BYTES) -> str:
        if daemon is None:
            raise NotThere(problem)
        return _asked(daemon, path, bytes_max)

    return [
        Part(STATUS, "relayd status", lambda: _status(ask), quotes=True),
        Part(IN_FORCE, "what is in force, masked", lambda: _in_force(ask), config=True),
        Part("daemon/targets.json", "relayd target list", lambda: ask("/v1/targets"), quotes=True),
        Part(
            "daemon/connections.json",
            f"the {_CONNECTIONS} oldest connections and sessions",
            lambda: ask(f"/v1/connections?limit={_CONNECTIONS}"),
            clients=True,
        ),
        Part("daemon/metrics.txt", "metrics, as Prometheus gets them", lambda: ask("/metrics")),
        Part("daemon/ready.txt", "whether every worker accepts", lambda: ask(_READY)),
        Part("versions.txt", "relayd, what it runs on, kernel and distribution", _versions),
        Part("processes.txt", "processes of relayd: limits, memory, open files", _processes),
        Part("kernel/sysctl.txt", "settings of the kernel", _sysctls),
        Part("kernel/counters.txt", "counters of the kernel: sockets, TCP, UDP, memory", _counters),
        Part("kernel/sockets.txt", "ss -s", lambda: _said("ss", "-s")),
        Part(
            "systemd/unit.txt", "unit and drop-ins, masked", lambda: masking.of_unit(_said("systemctl", "cat", _UNIT))
        ),
        Part("systemd/state.txt", "what systemd says of it", lambda: masking.of_state(_state())),
        Part(LOG, f"the last {_LOG_LINES} lines of the journal", _log, clients=True, quotes=True),
    ]


def _said(*words: str) -> str:
    return sources.text(sources.command(*words))


def _state() -> str:
    return _said("systemctl", "show", _UNIT, f"--property={_PROPERTIES}")


def _log() -> str:
    return _said(
        "journalctl", f"--unit={_UNIT}", f"--lines={_LOG_LINES}", "--output=short-iso", "--no-pager", "--quiet"
    )


def _asked(daemon: client.Place, path: str, bytes_max: int) -> str:
    try:
        status, body = client.fetch(daemon, path, _DAEMON_S, bytes_max)
    except client.Unreachable as error:
        raise NotThere(str(error).partition("\n")[0].removeprefix("relayd: ")) from None
    found = sources.text(body)
    if status != 200 and (status, path) != (503, _READY):  # 503: what it is not ready for is what was asked
        raise NotThere(f"the daemon answers {status}: {found[:500]}")
    return found


def _status(ask: Callable[[str, int], str]) -> str:
    """The status without the lines of the file that errors of a reload show. Where it is long, the beginning of each
    list, and how many there are.
    """
    try:
        status: Any = json.loads(ask("/v1/status", _STATUS_BYTES_MAX))
        if len(status["listeners"]) <= _HISTORIES_MAX:
            status = json.loads(ask("/v1/status?history=yes", _STATUS_BYTES_MAX))
        last = status["config"]["last_reload"]
        if last is not None:
            last["errors"] = [masking.of_error(error.partition("\n")[0]) for error in last["errors"]]
        cut = {key: len(each) for key, each in status.items() if isinstance(each, list) and len(each) > _ENTRIES_MAX}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NotThere("the daemon's answer is not one of this version of relayd") from None
    for key, count in cut.items():
        status[key] = [*status[key][:_ENTRIES_MAX], f"cut off here: {_ENTRIES_MAX} of {count}"]
    return json.dumps(status, indent=1, ensure_ascii=False) + "\n"


def _in_force(ask: Callable[[str, int], str]) -> str:
    """The configuration that the daemon has, whatever the file says by now. Where it is long, what may be secret."""
    try:
        toml = str(json.loads(ask("/v1/config", _STATUS_BYTES_MAX))["toml"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotThere("the daemon's answer is not one of this version of relayd") from None
    if len(toml) <= sources.PART_BYTES_MAX:
        return toml
    checks = dict.fromkeys(line for line in toml.splitlines() if line.startswith("health_check = {"))
    return "\n".join(("# cut off: of what is in force, the checks that there are", *checks)) + "\n"


def _versions() -> str:
    lines = [
        f"relayd {relayd.__version__} ({Path(relayd.__file__).parent})",
        f"{platform.python_implementation()} {platform.python_version()}",
    ]
    for name in _PACKAGES:
        try:
            lines.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{name}: of this Python it is not known")
    lines += [f"kernel {platform.release()} {platform.version()} {platform.machine()}", f"{os.cpu_count()} processors"]
    return "\n".join(lines) + "\n\n" + "".join(_each(_release, (("/etc/os-release",), ("systemctl", "--version"))))


def _release(words: Sequence[str]) -> str:
    return sources.text(sources.file(words[0], 4096)) if len(words) == 1 else _said(*words)


def _each(get: Callable[[Any], str], things: Sequence[Any]) -> Iterator[str]:
    """What there is of each, and in place of what is not, why."""
    for thing in things:
        try:
            yield f"{get(thing)}\n"
        except NotThere as reason:
            yield f"({reason})\n\n"


def _processes() -> str:
    there = list(sources.processes())
    if not there:
        raise NotThere("no process of relayd can be seen")
    return "".join(_each(_process, there))


def _process(one: tuple[int, str]) -> str:
    pid, words = one
    of = Path("/proc", str(pid))
    status = sources.text(sources.file(of / "status")).splitlines()
    try:
        count = f"{len(os.listdir(of / 'fd'))} descriptors"
    except OSError as error:
        count = f"descriptors: {error.strerror}"
    shown = [line for line in status if line.partition(":")[0] in _STATUS_LINES]
    return "\n".join([f"== {pid}: {words}", count, *shown, sources.text(sources.file(of / "limits"))])


def _sysctls() -> str:
    root = Path("/proc/sys")
    lines = []
    for pattern in _SYSCTLS:
        for path in sorted(root.glob(pattern)):
            name = str(path.relative_to(root)).replace("/", ".")
            if not path.is_file() or name.endswith(_KEYS_END):
                continue
            try:
                value = " ".join(sources.text(sources.file(path, 4096)).split())
            except NotThere as reason:
                value = f"({reason})"
            lines.append(f"{name} = {value}\n")
    if not lines:
        raise NotThere("/proc/sys: nothing of it can be read")
    return "".join(lines)


def _counters() -> str:
    return "".join(_each(lambda name: f"== {name}\n{sources.text(sources.file(Path('/proc', name)))}", _COUNTERS))
