"""What `relayd target list` and `relayd status` say of targets to people. Pure."""

from typing import Any

from relayd.spec import WEIGHT_MAX

#: States that need no look.
FINE = ("up", "unchecked")
#: What clients have met so long ago is no news.
_FAILURES_S = 300
#: Lines of `relayd status` about targets: it is to be seen at a glance.
_LINES_MAX = 20
#: In place of a weight: that of the file.
_OF_FILE = "file"


#: What commands take.
_FORMS = {
    "list": ("POOL",),
    "drain": ("POOL", "TARGET"),
    "disable": ("POOL", "TARGET"),
    "enable": ("POOL", "TARGET"),
    "weight": ("POOL", "TARGET", "WEIGHT"),
}
#: In words of the admin API.
_ORDERS = {"drain": "drained", "disable": "disabled", "enable": "enabled"}


def order(action: str, given: list[str]) -> dict[str, Any]:
    """What becomes of the target, for the admin API, by `relayd target ACTION` with these arguments; nothing for a
    list. Raises ValueError: what is missing, too much or wrong.
    """
    form = _FORMS[action]
    if len(given) > len(form):
        raise ValueError(f"{given[len(form)]!r} is too much: it takes {' '.join(form)}")
    if action == "list":
        return {}
    if len(given) < len(form):
        missing = " and ".join(form[len(given) :])
        raise ValueError(
            f"{missing} {'is' if len(form) - len(given) == 1 else 'are'} missing: it takes {' '.join(form)}"
        )
    return {"weight": _weight_of(given[2])} if action == "weight" else {"ordered": _ORDERS[action]}


def _weight_of(text: str) -> int:
    """For the admin API, where 0 is that of the file. Raises ValueError: what is wrong with it."""
    if text == _OF_FILE:
        return 0
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 5 else -1
    if number == 0:
        raise ValueError("0 is no weight: did you mean `relayd target drain`? The weight of the file is `file`")
    if not 0 < number <= WEIGHT_MAX:
        raise ValueError(f"a weight is 1 to {WEIGHT_MAX}, or `{_OF_FILE}` for that of the file, not {text!r}")
    return number


def text(targets: list[dict[str, Any]]) -> str:
    """One line for each, and a headline. Raises KeyError, TypeError or ValueError for what are no targets."""
    rows = [("pool", "target", "state", "weight", "active", "why")]
    rows += [(one["pool"], one["target"], one["state"], _weight(one), _active(one), _why(one)) for one in targets]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def pools(targets: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each pool, and how many of its targets are in each state: `("web", "2 up, 1 down")`. Nothing where nobody asks
    any of them and nothing is to be said.
    """
    counts: dict[str, dict[str, int]] = {}
    for one in targets:
        states = counts.setdefault(one["pool"], {})
        states[one["state"]] = states.get(one["state"], 0) + 1
    if all(states.keys() <= {"unchecked"} for states in counts.values()):
        return []
    return [
        (pool, ", ".join(f"{number} {state}" for state, number in states.items())) for pool, states in counts.items()
    ]


def troubles(targets: list[dict[str, Any]]) -> list[str]:
    """A line for each that is not as it should be; of many, the first."""
    others = [one for one in targets if one["state"] not in FINE]
    shown = others if len(others) <= _LINES_MAX else others[: _LINES_MAX - 1]
    lines = [f"{one['pool']}: {one['target']} is {_state(one)}" for one in shown]
    more = len(others) - len(shown)
    return [*lines, f"and {more} more that are not up: relayd target list"] if more else lines


def _state(one: dict[str, Any]) -> str:
    """`down for 3m: connect timeout x3`."""
    since = f" for {lasting(one['for_s'])}" if one["since"] else ""
    reason = f": {one['reason']}" if one["reason"] else ""
    return f"{one['state']}{since}{reason}"


def _weight(one: dict[str, Any]) -> str:
    return f"{one['weight']:d}{' backup' if one['backup'] else ''}"


def _active(one: dict[str, Any]) -> str:
    """`12`, `12/100` where it may have so many; `?` where a worker has not told."""
    count = "?" if one["active"] is None else f"{one['active']:d}"
    return count if one["max_connections"] is None else f"{count}/{one['max_connections']:d}"


def _why(one: dict[str, Any]) -> str:
    parts = []
    if one["since"]:
        parts.append(f"for {lasting(one['for_s'])}" + (f": {one['reason']}" if one["reason"] else ""))
    failures = one["failures"]
    if failures is not None and failures["ago_s"] <= _FAILURES_S:
        count, ago, reason = failures["count"], lasting(failures["ago_s"]), failures["reason"]
        met = f"{count:d} failures met by clients, the last" if count != 1 else "1 failure met by a client,"
        parts.append(f"{met} {ago} ago: {reason}")
    return "; ".join(parts)


def lasting(seconds: int) -> str:
    """`3m`, `2h`, `5d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds:d}s"
