"""Connections and sessions of all workers, as the admin API takes and tells them. Pure."""

import ipaddress
import json
from collections.abc import Iterable
from operator import itemgetter

from relayd.address import AddressError, InetAddress, parse
from relayd.channel.live import unpack_rows
from relayd.channel.messages import Seen, Selection

__all__ = ["LIMIT_MAX", "listing", "selection_of"]

#: Of one answer: 5 MB of JSON.
LIMIT_MAX = 10_000


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


def listing(seen: Iterable[Seen], limit: int, *, complete: bool) -> bytes:
    """The answer, as JSON: the first `limit` of what workers have seen. Their lines go into it as they are."""
    total, found = 0, list[tuple[float, bytes]]()
    for each in seen:
        total += each.matched if each.last else 0
        found += unpack_rows(each.rows, each.count)
    found.sort(key=itemgetter(0), reverse=True)
    head = f'{{"total":{total},"complete":{json.dumps(complete)},"connections":['
    return b"%b%b]}" % (head.encode(), b",".join([text for _, text in found[:limit]]))
