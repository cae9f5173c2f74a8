"""What `relayd explain` says to people, from what the admin API says to programs. Pure."""

from typing import Any

#: How a target is chosen where that is not for this client alone.
_HOW = {
    "round_robin": "in turn, each worker by itself",
    "least_connections": "the one with the fewest connections, for its weight, in the worker of the client",
    "random": "the less busy of two drawn by chance",
    "source_hash": "by the hash of its address: the same in every worker",
    "first": "the first of them that does not fail",
}


def text(found: dict[str, Any], client: str) -> str:
    """The lines, each with its newline. Raises KeyError, TypeError or ValueError for what is no explanation."""
    name, pool, candidates = found["listener"], found["pool"], found["candidates"]
    where = f"listener {name}" + (f", pool {pool}" if pool != name else "")
    if not candidates:
        lines = [f"{where}: {client} goes nowhere, it is refused (no_target)"]
    elif found["certain"]:
        lines = [f"{where}: {client} goes to {candidates[0]['target']}", f"    {_HOW[found['balance']]}"]
        lines += [f"    if that fails: {one['target']}{_backup(one)}" for one in candidates[1:]]
    else:
        first = [one for one in candidates if one["part"] is not None]
        lines = [f"{where}: {client} goes to one of {len(first)}: {_HOW[found['balance']]}"]
        lines += [f"    {one['target']}: {one['part']:.1%} of clients{_backup(one)}" for one in first]
        lines += [f"    if all fail: {one['target']}{_backup(one)}" for one in candidates if one["part"] is None]
    if found["fail_open"]:
        lines.append("    all are down by their checks, and are tried all the same (fail_open)")
    lines += [f"    not {one['target']}: {one['why']}" for one in found["out"]]
    return "\n".join(lines) + "\n"


def _backup(one: dict[str, Any]) -> str:
    return ", a backup" if one["backup"] else ""
