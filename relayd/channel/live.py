"""What a worker tells of one live connection or session (O3), and as what it goes to whoever asks: a line of JSON, made
by the worker and read by nobody on the way.

Thousands of lines are made in a row, while others wait for the processor. So a line has three parts: a head that never
changes and is kept from look to look; a course that thousands have in common, and is made once; and figures.
"""

import functools
import json
from array import array
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring_ascii as _encoded
from typing import NamedTuple, TypeAlias

__all__ = ["NO_PATHS", "Paths", "Rates", "course", "head", "line", "pack_rows", "unpack_rows"]

#: Bytes a second, in and out; None: not known yet.
Rates: TypeAlias = "tuple[float | None, float | None]"


class Paths(NamedTuple):
    """What the kernel knows of the way to the client and to the target. None: nobody has asked, or it is not TCP."""

    rtt_ms: float | None = None
    retrans: int | None = None
    target_rtt_ms: float | None = None
    target_retrans: int | None = None


NO_PATHS = Paths()
_NO_PATHS = '"rtt_ms":null,"retrans":null,"target_rtt_ms":null,"target_retrans":null}'
_FIGURES = '%s%s%.3f,"idle_s":%.3f,"bytes_in":%d,"bytes_out":%d,"rate_in":%s,"rate_out":%s,%s,"attempts":%d,%s'
_NO_DATAGRAMS = '"datagrams_in":null,"datagrams_out":null'


def head(conn_id: str, worker: int, listener: str, pool: str, kind: str, client: str, port: int, local: str) -> str:
    """What the line of one begins with, for as long as it lives or until a reload. As docs/admin.md says of the
    members; `kind` is the type.
    """
    return (
        f'{{"id":"{conn_id}","worker":{worker},"listener":{_quoted(listener)},"pool":{_quoted(pool)},"type":"{kind}",'
        f'"client":{_encoded(client)},"client_port":{port},"local":{_quoted(local)},'
    )


@functools.lru_cache(4096)
def course(target: str, state: str, flow_in: str | None, flow_out: str | None) -> str:
    """How it goes on: where to, and in what state that is. The flows are None where there are no directions yet."""
    return (
        f'"target":{json.dumps(target)},"state":"{state}","in":{json.dumps(flow_in)},"out":{json.dumps(flow_out)},'
        '"age_s":'
    )


def line(
    head: str,
    course: str,
    age_s: float,
    idle_s: float,
    moved: tuple[int, int],
    rates: Rates,
    attempts: int,
    datagrams: tuple[int, int] | None = None,
    paths: Paths = NO_PATHS,
) -> str:
    """The JSON object, on one line. `moved`, `rates` and `datagrams` (None: a connection) are in and out. By hand:
    json.dumps takes five times as long for an object of 25 members.
    """
    return _FIGURES % (
        head,
        course,
        age_s,
        idle_s,
        moved[0],
        moved[1],
        _rate(rates[0]),
        _rate(rates[1]),
        _NO_DATAGRAMS if datagrams is None else f'"datagrams_in":{datagrams[0]},"datagrams_out":{datagrams[1]}',
        attempts,
        _NO_PATHS if paths is NO_PATHS else _paths(paths),
    )


def pack_rows(places: Sequence[float], lines: Sequence[str]) -> bytes:
    """Lines, and the place of each, by which the largest comes first: the places as doubles of C, both ends being of
    one machine, and the lines with a line feed between.
    """
    return array("d", places).tobytes() + "\n".join(lines).encode()


def unpack_rows(rows: bytes, count: int) -> Iterator[tuple[float, bytes]]:
    """Place and line of each of the `count` that are in `rows`. Raises ValueError where there are others."""
    if not rows and not count:
        return iter(())
    places = array("d")
    end = count * places.itemsize
    places.frombytes(rows[:end])
    return zip(places, rows[end:].split(b"\n"), strict=True)


@functools.lru_cache(4096)
def _quoted(text: str) -> str:
    """Of what thousands have in common. Anything may be in a name or a path."""
    return json.dumps(text)


def _rate(rate: float | None) -> str:
    if rate:
        return f"{rate:.1f}"
    return "null" if rate is None else "0.0"  # nearly all of them


def _paths(paths: Paths) -> str:
    rtt_ms, retrans, target_rtt_ms, target_retrans = paths
    ours = '"rtt_ms":null,"retrans":null' if rtt_ms is None else f'"rtt_ms":{rtt_ms:.3f},"retrans":{retrans}'
    if target_rtt_ms is None:
        return f'{ours},"target_rtt_ms":null,"target_retrans":null}}'
    return f'{ours},"target_rtt_ms":{target_rtt_ms:.3f},"target_retrans":{target_retrans}}}'
