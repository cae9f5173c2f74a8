"""Connections and sessions of all workers, as the admin API takes and tells them. Pure."""

import heapq
import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from relayd.address import AddressError, InetAddress, parse
from relayd.channel.live import Row, unpack
from relayd.channel.messages import Seen, Selection, Sort

__all__ = ["LIMIT_MAX", "listing", "selection_of"]

#: Of one answer: 5 MB of JSON.
LIMIT_MAX = 10_000

#: What comes first is the smallest of these.
_PLACES: dict[Sort, Callable[[Row], float]] = {
    Sort.AGE: lambda row: -row.age_s,
    Sort.NEW: lambda row: row.age_s,
    Sort.IDLE: lambda row: -row.idle_s,
    Sort.BYTES: lambda row: -(row.bytes_in + row.bytes_out),
    Sort.RATE: lambda row: -((row.rate_in or 0.0) + (row.rate_out or 0.0)),
}
_DIGITS = 3


def selection_of(
    *, conn_id: str | None = None, listener: str | None = None, client: str | None = None, target: str | None = None
) -> Selection:
    """What a request means. `client` is an IP address, perhaps with a port, a network, or the text of a Unix client.
    Raises ValueError for what is none of these.
    """
    host, port = (None, None) if client is None else _client(client)
    return Selection(conn_id, listener, host, port, target)


def _client(text: str) -> tuple[str, int | None]:
    if text.startswith("unix:"):
        return text, None
    if "/" in text:
        return str(ipaddress.ip_network(text, strict=False)), None
    try:
        return str(ipaddress.ip_address(text.partition("%")[0])), None
    except ValueError as error:
        try:
            address = parse(text)
        except AddressError:
            raise error from None
        if not isinstance(address, InetAddress):
            raise
        return address.host, address.port


def listing(seen: Iterable[tuple[int, Seen]], sort: Sort, limit: int, *, complete: bool) -> dict[str, Any]:
    """The answer: the first `limit` of what workers, by their number, have seen. Raises ValueError for what no worker
    says.
    """
    total, rows = 0, list[tuple[int, Row]]()
    for worker, each in seen:
        total += each.matched if each.last else 0
        rows += [(worker, row) for row in unpack(each.rows)]
    place = _PLACES[sort]
    first = heapq.nsmallest(limit, rows, key=lambda one: place(one[1]))
    return {"total": total, "complete": complete, "connections": [_shown(worker, row) for worker, row in first]}


def _shown(worker: int, row: Row) -> dict[str, Any]:
    shown = {"id": row.id, "worker": worker, **row._asdict()}
    shown["in"], shown["out"] = shown.pop("flow_in"), shown.pop("flow_out")
    return {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in shown.items()}
