"""What `relayd status` says to people, from what the admin API says to programs. Pure."""

from typing import Any

from relayd.cli import targets

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
#: Of a SHA-256, in hexadecimal digits: enough to tell files apart at sight.
_HASH_DIGITS = 12


def text(status: dict[str, Any]) -> str:
    """The lines, each with its newline. Raises KeyError, TypeError or ValueError for what is no status."""
    config = status["config"]
    lines = [
        f"relayd {status['version']}, pid {status['pid']:d}, since {status['started_at']}",
        f"{config['file']} (sha256 {config['sha256'][:_HASH_DIGITS]}), number {config['number']:d}, "
        f"in force since {config['loaded_at']}",
        *_reload(config["last_reload"]),
    ]
    if config["confirm_until"] is not None:
        lines.append(f"goes back to the configuration before at {config['confirm_until']}, unless confirmed")
    lines.append("workers: " + ", ".join(map(_worker, status["workers"])))
    lines += [_name(name) for name in status.get("names", ()) if name["error"]]  # a daemon before has none
    return "\n".join([*lines, *_table(status["listeners"]), *targets.summary(status["targets"])]) + "\n"


def _name(name: dict[str, Any]) -> str:
    """One that does not resolve, or not all of it."""
    count = len(name["addresses"])
    if not count:
        return f"name {name['name']} has no address: {name['error']}"
    many = f"{count} address" if count == 1 else f"{count} addresses"
    return f"name {name['name']} has {many}, {name['age_s']:.0f} s old: {name['error']}"


def _worker(worker: dict[str, Any]) -> str:
    """Between its processes a worker has none."""
    pid = f" (pid {worker['pid']:d})" if worker["pid"] else ""
    return f"{worker['number']:d} {worker['phase']}{pid}"


def _reload(last: dict[str, Any] | None) -> list[str]:
    if last is None:
        return []
    if last["ok"]:
        return [f"last reload: {last['at']}"]
    return [
        f"last reload: {last['at']}, refused:",
        *(f"    {line}" for error in last["errors"] for line in error.split("\n")),
    ]


def _table(listeners: list[dict[str, Any]]) -> list[str]:
    rows = [("listener", "type", "active", "accepted", "in", "out")]
    rows += [
        (
            one["name"],
            one["type"],
            f"{one['active']:d}",
            f"{one['accepted']:d}",
            size(one["bytes_in"]),
            size(one["bytes_out"]),
        )
        for one in listeners
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def size(count: int) -> str:
    """`1.5 MiB`: three digits or so."""
    value, unit = float(count), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{count} B"
