"""What a worker tells of one live connection or session (O3), and how that goes through the channel: many at once, as
one text. A message of 24 fields takes five times as long to encode, and a worker has better to do.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Rates", "Row", "pack", "unpack"]

#: Bytes a second, in and out; None: not known yet.
Rates: TypeAlias = "tuple[float | None, float | None]"


class Row(NamedTuple):
    """One of them, as docs/admin.md says of each member. Seconds, milliseconds, bytes, bytes a second."""

    id: str
    listener: str
    pool: str
    type: str
    client: str
    client_port: int
    local: str
    target: str
    state: str
    #: Of each direction; None where it has none.
    flow_in: str | None
    flow_out: str | None
    age_s: float
    idle_s: float
    bytes_in: int
    bytes_out: int
    #: None: not known yet.
    rate_in: float | None
    rate_out: float | None
    #: None: a connection.
    datagrams_in: int | None
    datagrams_out: int | None
    attempts: int
    #: None: nobody has asked, or it is not TCP.
    rtt_ms: float | None = None
    retrans: int | None = None
    target_rtt_ms: float | None = None
    target_retrans: int | None = None


_INT, _FLOAT, _STR = (int,), (float, int), (str,)
_NONE = type(None)
#: What each field may be. A worker faces the network: what it says is looked at.
_TYPES: tuple[tuple[type, ...], ...] = (
    *(_STR,) * 5,
    _INT,
    *(_STR,) * 3,
    *((str, _NONE),) * 2,
    *(_FLOAT,) * 2,
    *(_INT,) * 2,
    *((*_FLOAT, _NONE),) * 2,
    *((int, _NONE),) * 2,
    _INT,
    *((*_FLOAT, _NONE), (int, _NONE)) * 2,
)


def pack(rows: Iterable[Row]) -> str:
    """The text."""
    return json.dumps(list(rows), separators=(",", ":"))


def unpack(text: str) -> list[Row]:
    """What `pack` was given. Raises ValueError for anything else."""
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError("not a list of rows")
    return [_row(each) for each in found]


def _row(value: Any) -> Row:
    if not isinstance(value, list) or len(value) != len(_TYPES):
        raise ValueError("not a row")
    if any(type(field) not in types for field, types in zip(value, _TYPES, strict=True)):
        raise ValueError("a field of a row is of another type")
    return Row._make(value)
