"""What a worker tells of one live connection or session (O3), and as what it goes to whoever asks: a line of JSON, made
by the worker and read by nobody on the way. A thousand of them a second cost a worker ten milliseconds, and control
nearly nothing.
"""

import functools
import json
from json.encoder import encode_basestring_ascii as _encoded
from typing import NamedTuple, TypeAlias

__all__ = ["Rates", "Row", "line"]

#: Bytes a second, in and out; None: not known yet.
Rates: TypeAlias = "tuple[float | None, float | None]"


class Row(NamedTuple):
    """One of them, as docs/admin.md says of each member. Seconds, milliseconds, bytes, bytes a second."""

    id: str
    worker: int
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


def line(row: Row) -> str:
    """The JSON object, on one line. By hand: json.dumps takes three times as long for an object of 25 members."""
    (
        conn_id, worker, listener, pool, kind, client, port, local, target, state, flow_in, flow_out, age_s, idle_s,
        bytes_in, bytes_out, rate_in, rate_out, datagrams_in, datagrams_out, attempts, rtt_ms, retrans,
        target_rtt_ms, target_retrans,
    ) = row  # fmt: skip
    text = (
        f'{{"id":"{conn_id}","worker":{worker},"listener":{_quoted(listener)},"pool":{_quoted(pool)},"type":"{kind}",'
        f'"client":{_encoded(client)},"client_port":{port},"local":{_quoted(local)},"target":{_quoted(target)},'
        f'"state":"{state}","in":{_quoted(flow_in)},"out":{_quoted(flow_out)},"age_s":{age_s:.3f},"idle_s":{idle_s:.3f},'
        f'"bytes_in":{bytes_in},"bytes_out":{bytes_out},"rate_in":{_rate(rate_in)},"rate_out":{_rate(rate_out)},'
    )
    if datagrams_in is None:
        text += f'"datagrams_in":null,"datagrams_out":null,"attempts":{attempts},'
    else:
        text += f'"datagrams_in":{datagrams_in},"datagrams_out":{datagrams_out},"attempts":{attempts},'
    if rtt_ms is None and target_rtt_ms is None:
        return text + '"rtt_ms":null,"retrans":null,"target_rtt_ms":null,"target_retrans":null}'
    ours = f'"rtt_ms":{rtt_ms:.3f},"retrans":{retrans},' if rtt_ms is not None else '"rtt_ms":null,"retrans":null,'
    if target_rtt_ms is None:
        return f'{text}{ours}"target_rtt_ms":null,"target_retrans":null}}'
    return f'{text}{ours}"target_rtt_ms":{target_rtt_ms:.3f},"target_retrans":{target_retrans}}}'


@functools.lru_cache(4096)
def _quoted(text: str | None) -> str:
    """Of what thousands have in common. Anything may be in a name or a path."""
    return json.dumps(text)


def _rate(rate: float | None) -> str:
    return "null" if rate is None else f"{rate:.1f}"
