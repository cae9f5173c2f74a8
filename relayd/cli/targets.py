"""What `relayd target list` and `relayd status` say of targets to people. Pure."""

from typing import Any

#: States that need no look.
FINE = ("up", "unchecked")


def text(targets: list[dict[str, Any]]) -> str:
    """One line for each, and a headline. Raises KeyError, TypeError or ValueError for what are no targets."""
    rows = [("pool", "target", "state", "weight", "active", "why")]
    rows += [(one["pool"], one["target"], one["state"], _weight(one), _active(one), _why(one)) for one in targets]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def summary(targets: list[dict[str, Any]]) -> list[str]:
    """For `relayd status`: how many there are in each state, and a line for each that is not as it should be. Nothing
    where nobody asks them and nothing is to be said.
    """
    counts: dict[str, int] = {}
    for one in targets:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    if not counts.keys() - {"unchecked"}:
        return []
    lines = ["targets: " + ", ".join(f"{count} {state}" for state, count in counts.items())]
    lines += [f"    {one['pool']}: {one['target']} is {_state(one)}" for one in targets if one["state"] not in FINE]
    return lines


def _state(one: dict[str, Any]) -> str:
    """`down for 3m: connect timeout x3`."""
    lasting = f" for {_lasting(one['for_s'])}" if one["since"] else ""
    reason = f": {one['reason']}" if one["reason"] else ""
    return f"{one['state']}{lasting}{reason}"


def _weight(one: dict[str, Any]) -> str:
    return f"{one['weight']:d}{' backup' if one['backup'] else ''}"


def _active(one: dict[str, Any]) -> str:
    """`12`, `12/100` where it may have so many; `?` where a worker has not told."""
    count = "?" if one["active"] is None else f"{one['active']:d}"
    return count if one["max_connections"] is None else f"{count}/{one['max_connections']:d}"


def _why(one: dict[str, Any]) -> str:
    parts = []
    if one["since"]:
        parts.append(f"for {_lasting(one['for_s'])}" + (f": {one['reason']}" if one["reason"] else ""))
    if one["failures"] is not None:
        failures = one["failures"]
        parts.append(
            f"{failures['count']:d} failures met by clients, the last {_lasting(failures['ago_s'])} ago: "
            f"{failures['reason']}"
        )
    return "; ".join(parts)


def _lasting(seconds: int) -> str:
    """`3m`, `2h`, `5d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds:d}s"
