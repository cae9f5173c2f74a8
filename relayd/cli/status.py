"""What `relayd status` says to people, from what the admin API says to programs. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from relayd.cli import targets
from relayd.cli.amounts import lasting, per_second, rate, size
from relayd.cli.cells import printable
from relayd.cli.tables import Column, lines

__all__ = ["head", "listeners", "text", "troubles"]

#: Of a SHA-256, in hexadecimal digits: enough to tell files apart at sight.
_HASH_DIGITS = 12
_UTC = "+00:00"  # what datetime.fromisoformat takes for the Z of the API, before Python 3.11
_WORKERS = (Column("worker", numeric=True), Column("phase"), Column("pid", numeric=True))
_LISTENERS = (
    Column("listener", wanted=24),
    Column("type", 6),
    Column("active", numeric=True),
    Column("accepted", 4, numeric=True),
    Column("new/s", 1, numeric=True),
    Column("in", 5, numeric=True),
    Column("out", 5, numeric=True),
    Column("in/s", 2, numeric=True),
    Column("out/s", 2, numeric=True),
)
_POOLS = (Column("pool", wanted=24), Column("targets"))


def text(status: Mapping[str, Any], now: float, cells: int | None = None) -> list[str]:
    """The lines: in a terminal, tables are at most `cells` wide. `now` is seconds since the epoch. Raises KeyError,
    TypeError or ValueError for what is no status.
    """
    config = status["config"]
    made = [
        head(status, now),
        f"{config['file']} (sha256 {config['sha256'][:_HASH_DIGITS]}), number {config['number']:d}, "
        f"in force since {config['loaded_at']}",
        *_reload(config["last_reload"]),
    ]
    found = troubles(status)
    if found:
        made += ["look at:", *(f"    {line}" for line in found)]
    rows = [(f"{one['number']:d}", one["phase"], f"{one['pid']:d}" if one["pid"] else "") for one in status["workers"]]
    made += ["", *lines(_WORKERS, rows, cells), "", *listeners(status["listeners"], cells)]
    pools = targets.pools(status["targets"])
    if pools:
        made += ["", *lines(_POOLS, pools, cells)]
    return [printable(line) for line in made]


def head(status: Mapping[str, Any], now: float) -> str:
    """What runs, and since when. Raises as `text` does."""
    started_at = str(status["started_at"])
    up_s = now - datetime.fromisoformat(started_at.replace("Z", _UTC)).timestamp()
    return f"relayd {status['version']}, pid {status['pid']:d}, up {lasting(up_s)}, since {started_at}"


def troubles(status: Mapping[str, Any]) -> list[str]:
    """What an operator should look at, a line for each. Raises as `text` does."""
    config = status["config"]
    found = []
    if config["last_reload"] is not None and not config["last_reload"]["ok"]:
        found.append("the last reload was refused: the file is not what is in force")
    if config["confirm_until"] is not None:
        found.append(f"goes back to the configuration before at {config['confirm_until']}, unless confirmed")
    found += [
        f"worker {one['number']:d} is {one['phase']}, and does not accept"
        for one in status["workers"]
        if one["phase"] != "running"
    ]
    found += [_name(name) for name in status.get("names", ()) if name["error"]]  # a daemon before has none
    return found + targets.troubles(status["targets"])


def listeners(found: list[dict[str, Any]], cells: int | None) -> list[str]:
    """The table of all. Raises as `text` does."""
    return lines(_LISTENERS, [_listener(one) for one in found], cells)


def _listener(one: Mapping[str, Any]) -> tuple[str, ...]:
    rates = dict(one).get("rate", {})  # a daemon before has none
    return (
        one["name"],
        one["type"],
        f"{one['active']:d}",
        f"{one['accepted']:d}",
        per_second(rates.get("accepted")),
        size(one["bytes_in"]),
        size(one["bytes_out"]),
        rate(rates.get("bytes_in")),
        rate(rates.get("bytes_out")),
    )


def _name(name: Mapping[str, Any]) -> str:
    """One that does not resolve, or not all of it."""
    count = len(name["addresses"])
    if not count:
        return f"name {name['name']} has no address: {name['error']}"
    many = f"{count} address" if count == 1 else f"{count} addresses"
    return f"name {name['name']} has {many}, {name['age_s']:.0f} s old: {name['error']}"


def _reload(last: Mapping[str, Any] | None) -> list[str]:
    if last is None:
        return []
    if last["ok"]:
        return [f"last reload: {last['at']}"]
    return [
        f"last reload: {last['at']}, refused:",
        *(f"    {line}" for error in last["errors"] for line in error.split("\n")),
    ]
