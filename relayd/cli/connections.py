"""What `relayd connections` and `relayd top` say of connections and sessions, from what the admin API says. Pure."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from relayd.cli.amounts import UNKNOWN, count, lasting, rate, size
from relayd.cli.tables import Column, lines

__all__ = ["LIMIT_MAX", "Sort", "client_of", "columns", "path", "row", "text"]

#: More the daemon does not send at once.
LIMIT_MAX = 10_000
#: Cells that an address may take before less important columns have to go: any of IPv4, and most of IPv6, with a port.
_ADDRESS = 26


class Sort(str, enum.Enum):
    """What comes first."""

    AGE = "age"
    NEW = "new"
    IDLE = "idle"
    BYTES = "bytes"
    RATE = "rate"


_COLUMNS = (
    Column("id"),
    Column("listener", wanted=16),
    Column("type", 9),
    Column("client", wanted=_ADDRESS),
    Column("target", wanted=_ADDRESS),
    Column("age", 2, numeric=True),
    Column("idle", 5, numeric=True),
    Column("in", 7, numeric=True),
    Column("out", 6, numeric=True),
    Column("in/s", 3, numeric=True),
    Column("out/s", 1, numeric=True),
    Column("state", 4),
)
_TCP_COLUMNS = (
    Column("rtt", 5, numeric=True),
    Column("retrans", 6, numeric=True),
    Column("target rtt", 7, numeric=True),
    Column("target retrans", 8, numeric=True),
)
#: Cells of texts that are others each second, where they are drawn each second.
_STEADY = {"age": 6, "idle": 6, "in": 10, "out": 10, "in/s": 11, "out/s": 11, "state": 10, "rtt": 8}


def path(asked: Mapping[str, object]) -> str:
    """What to get from the admin API; None and False in `asked` are left out, True is `yes`."""
    given = {
        key: "yes" if value is True else value
        for key, value in asked.items()
        if value is not None and value is not False
    }
    # A path of a Unix socket need not be UTF-8.
    return f"/v1/connections?{urlencode(given, errors='surrogateescape')}" if given else "/v1/connections"


def columns(*, tcp_info: bool, steady: bool = False) -> tuple[Column, ...]:
    """Those that `row` has the texts of. `steady`: as wide as nearly all of these texts are."""
    found = (*_COLUMNS, *_TCP_COLUMNS) if tcp_info else _COLUMNS
    return tuple(replace(one, least=_STEADY.get(one.title, 0)) for one in found) if steady else found


def row(one: Mapping[str, Any], *, tcp_info: bool) -> tuple[str, ...]:
    """One connection or session, a text for each column. Raises KeyError, TypeError or ValueError for what is none."""
    texts = (
        str(one["id"]),
        str(one["listener"]),
        str(one["type"]),
        client_of(one),
        str(one["target"]) or UNKNOWN,
        lasting(one["age_s"]),
        lasting(one["idle_s"]),
        size(one["bytes_in"]),
        size(one["bytes_out"]),
        rate(one["rate_in"]),
        rate(one["rate_out"]),
        _state(one),
    )
    if not tcp_info:
        return texts
    return (*texts, *_of_tcp(one["rtt_ms"], one["retrans"]), *_of_tcp(one["target_rtt_ms"], one["target_retrans"]))


def text(found: Mapping[str, Any], cells: int | None, *, tcp_info: bool = False) -> list[str]:
    """The table, and what is to be said below it. Raises as `row` does."""
    shown: Sequence[Mapping[str, Any]] = found["connections"]
    made = lines(columns(tcp_info=tcp_info), [row(one, tcp_info=tcp_info) for one in shown], cells)
    more = int(found["total"]) - len(shown)
    if more > 0:
        made.append(f"{count(more)} more: --limit")
    if not found["complete"]:
        made.append("a worker has not answered in time: what it has is missing")
    return made


def client_of(one: Mapping[str, Any]) -> str:
    """`10.0.0.7:4711`, `[2001:db8::1]:4711`, `unix:@name`; `-` for a client of a Unix socket, which has no name."""
    client, port = str(one["client"]), one["client_port"]
    if not port:
        return UNKNOWN if client in ("", "unix:") else client
    return f"[{client}]:{port:d}" if ":" in client else f"{client}:{port:d}"


def _state(one: Mapping[str, Any]) -> str:
    """`dialing`, `resetting`, `held up`; of what is relayed, both directions: `open/full`."""
    state, into, out = str(one["state"]), one["in"], one["out"]
    if state != "relaying" or into is None or out is None:
        return state.replace("_", " ")
    return f"{into}/{out}"


def _of_tcp(rtt_ms: float | None, retransmits: int | None) -> tuple[str, str]:
    return (
        UNKNOWN if rtt_ms is None else f"{rtt_ms:.1f} ms",
        UNKNOWN if retransmits is None else count(retransmits),
    )
