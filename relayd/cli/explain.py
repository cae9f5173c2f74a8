"""What `relayd explain` says to people, from what the admin API says to programs. Pure."""

from typing import Any

from relayd.cli.targets import lasting

#: How a target is chosen where that is not for this client alone.
_HOW = {
    "round_robin": "in turn, each worker by itself",
    "least_connections": "the one with the fewest connections, for its weight, in the worker of the client",
    "random": "the less busy of two drawn by chance",
    "source_hash": "by the hash of its address: the same in every worker",
    "first": "the first of them that does not fail",
}

_LIMITS = (
    "    what only a worker knows is left out: whose turn it is, whom it suspects, and which limits it has reached"
)


def text(found: dict[str, Any], client: str) -> str:
    """The lines, each with its newline. Raises KeyError, TypeError or ValueError for what is no explanation."""
    name, pool, candidates = found["listener"], found["pool"], found["candidates"]
    where = f"listener {name}" + (f", pool {pool}" if pool != name else "")
    if not candidates:
        lines = [f"{where}: {client} goes nowhere, it is refused (no_target)"]
    elif found["certain"]:
        lines = [
            f"{where}: {client} goes to {candidates[0]['target']}{_notes(candidates[0])}",
            f"    {_HOW[found['balance']]}",
        ]
        lines += [f"    if that fails: {one['target']}{_notes(one)}" for one in candidates[1:]]
    else:
        first = [one for one in candidates if one["part"] is not None]
        lines = [f"{where}: {client} goes to one of {len(first)}: {_HOW[found['balance']]}"]
        lines += [f"    {one['target']}: {one['part']:.1%} of clients{_notes(one)}" for one in first]
        lines += [f"    if all fail: {one['target']}{_notes(one)}" for one in candidates if one["part"] is None]
    if found["failing_open"]:
        lines.append("    all are down by their checks, and are tried all the same (fail_open)")
    lines += [f"    not {one['target']}: {one['why']}" for one in found["out"]]
    if candidates:
        lines.append(_LIMITS)
    return "\n".join(lines) + "\n"


def _notes(one: dict[str, Any]) -> str:
    """What is to be known of a candidate, from a comma on."""
    notes = ["a backup"] if one["backup"] else []
    if one["failed_ago_s"] is not None:
        notes.append("has failed clients just now")
    if one["slow_start_s"] is not None:
        notes.append(f"gets less than that for {lasting(one['slow_start_s'])} (slow_start)")
    if one["active"] is not None and one["max_connections"] is not None:
        notes.append(f"has {one['active']:d} of at most {one['max_connections']:d} connections")
    return "".join(f", {note}" for note in notes)
