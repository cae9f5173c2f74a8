"""What the admin API answers: every request that there is, as a table. Knows nothing of sockets and of aiohttp.

    route = find("POST", "/v1/reload")          or a Refusal: 404, 405
    values = route.read({"confirm_s": 60})      or a Refusal: 400
    answer = await route.handler(Asked(operator, values))

One more request is one more line in ROUTES and its handler. Dispatch, `Allow`, read-only mode and the test that holds
docs/openapi.yaml against the code all go by that table.
"""

import ipaddress
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from relayd.channel.messages import Selection, Sort
from relayd.choosing.group import client_key
from relayd.control import page
from relayd.control.admin import Operator
from relayd.control.admin_access import Refusal
from relayd.control.living import LIMIT_MAX, selection_of
from relayd.control.telling import public_status, public_verdict
from relayd.control.verdict import Verdict
from relayd.log.events import Level
from relayd.spec import Ordered
from relayd.values import dataclass

__all__ = [
    "CONFIRM_S_MAX",
    "JSON",
    "ROUTES",
    "Answer",
    "Asked",
    "Parameter",
    "Route",
    "count_in_query",
    "find",
    "is_open",
    "members_of",
    "one_of",
    "query_of",
    "switch_in_query",
]

JSON = "application/json; charset=utf-8"
#: "reload --confirm" of more than a day is a mistake.
CONFIRM_S_MAX = 86_400.0
#: Connections in an answer unless the request says how many.
LIMIT_DEFAULT = 1000
#: Listeners whose history a status has: those of thousands would take seconds, in which the control process does
#: nothing else.
_HISTORIES_MAX = 500
#: No request has so many; more are not even parsed.
_QUERY_PARAMETERS_MAX = 32
#: A % that no two hexadecimal digits follow: `parse_qsl` would take it as it stands.
_HALF_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `headers` are beside those that every answer has."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a handler is given: `values` by name of parameter, None for each that the client has not given."""

    operator: Operator
    values: Mapping[str, Any]
    #: The client's Accept, "" for none.
    accept: str = ""
    #: For the log: where the client is.
    who: str = ""
    #: May know what stands in the file; else verdicts and the status are told without (`telling`).
    private_told: bool = False


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a request may say: a member of the object in a POST, a parameter in the query of a GET.

    `read` makes the value of it, from JSON or, in a query, from a string, and raises ValueError or TypeError for what
    is not `what`, which completes "NAME is ...".
    """

    name: str
    what: str
    read: Callable[[Any], Any]
    required: bool = False
    #: Taken by a Unix socket only, and why.
    not_by_tcp: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One request. `changes`: relayd is another afterwards, if only in what it logs. `open_to_all`: it tells nothing,
    so that nobody is asked for a token. `private`: it tells what a file does that not everybody may read.
    """

    method: str
    path: str
    handler: Callable[[Asked], Awaitable[Answer]]
    parameters: tuple[Parameter, ...] = ()
    changes: bool = False
    open_to_all: bool = False
    private: bool = False

    def read(self, given: Mapping[str, Any], *, by_unix_socket: bool = True) -> dict[str, Any]:
        """The value of each parameter. Null is the same as none. Raises Refusal."""
        _refuse_unknown(given, self.parameters, "member" if self.method == "POST" else "parameter")
        values = {}
        for parameter in self.parameters:
            value = given.get(parameter.name)
            if value is not None and parameter.not_by_tcp and not by_unix_socket:
                raise Refusal(403, parameter.not_by_tcp)
            if value is None and parameter.required:
                raise Refusal(400, f"{parameter.name} is missing: it is {parameter.what}")
            try:
                values[parameter.name] = None if value is None else parameter.read(value)
            except (ValueError, TypeError):
                raise Refusal(400, f"{parameter.name} is {parameter.what}") from None
        return values


def find(method: str, path: str) -> Route:
    """Raises Refusal: 404, or 405 with the methods that there are."""
    there = _BY_PATH.get(path)
    if there is None:
        raise Refusal(404, f"there is no {path:.80}")
    route = there.get(method)
    if route is None:
        takes = ", ".join(there)
        raise Refusal(405, f"{path} takes {takes}", (("Allow", takes),))
    return route


def is_open(path: str) -> bool:
    """Whether whatever is asked of `path` is open to all."""
    return path in _OPEN


def query_of(text: str) -> dict[str, str]:
    """The parameters of a query, as it stands in the request: each once, in UTF-8. Raises Refusal."""
    if not text:
        return {}
    if _HALF_ESCAPE.search(text):
        raise Refusal(400, "the query has a % without two hexadecimal digits")
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_QUERY_PARAMETERS_MAX
        )
    except ValueError:
        raise Refusal(400, "the query is not NAME=VALUE, with & between") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise Refusal(400, f"parameter {name[:80]!r} stands twice")
        found[name] = value
    return found


def members_of(body: bytes) -> dict[str, Any]:
    """The object that a body is; nothing is {}. Raises Refusal."""
    try:
        found = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is not a JSON object")
    return found


def _refuse_unknown(given: Mapping[str, Any], known: tuple[Parameter, ...], kind: str) -> None:
    names = [parameter.name for parameter in known]
    unknown = next((other for other in given if other not in names), None)
    if unknown is not None:
        takes = f"only {', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'}" if names else "none is"
        raise Refusal(400, f"unknown {kind} {unknown[:80]!r}: {takes} taken here")


# values -------------------------------------------------------------------------------------------------------------


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _search(value: object) -> str:
    text = _string(value)
    if len(text) > page.SEARCH_MAX:
        raise ValueError
    return text


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value


def _confirm_s(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    if not 0 < value <= CONFIRM_S_MAX:  # NaN is not
        raise ValueError
    return value


def _absolute_path(value: object) -> Path:
    text = _string(value)
    if not text.startswith("/") or "\0" in text:
        raise ValueError
    return Path(text)


def _client(value: object) -> bytes:
    text = _string(value)
    return client_key((str(ipaddress.ip_address(text)), 0)) if text else client_key("")


def one_of(*values: str) -> Callable[[object], str]:
    """Reads one of these strings."""

    def read(value: object) -> str:
        if value not in values:
            raise ValueError
        return _string(value)

    return read


def switch_in_query(value: str) -> bool:
    """`yes` or `no`."""
    return {"yes": True, "no": False}[one_of("yes", "no")(value)]


def count_in_query(least: int, most: int) -> Callable[[str], int]:
    """Reads digits, and nothing else that Python takes for a number."""

    def read(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", value) or not least <= int(value) <= most:
            raise ValueError
        return int(value)

    return read


# answers ------------------------------------------------------------------------------------------------------------


def _json(value: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


def _verdict(asked: Asked, verdict: Verdict) -> Answer:
    told = verdict if asked.private_told else public_verdict(verdict)
    return _json(told.as_json(), 200 if verdict.ok else 409)


async def _reload(asked: Asked) -> Answer:
    return _verdict(asked, await asked.operator.reload(asked.values["confirm_s"]))


async def _confirm(asked: Asked) -> Answer:
    return _verdict(asked, await asked.operator.confirm())


async def _plan(asked: Asked) -> Answer:
    return _verdict(asked, await asked.operator.plan(asked.values["file"]))


async def _order(asked: Asked) -> Answer:
    pool, target, ordered, weight = (asked.values[name] for name in ("pool", "target", "ordered", "weight"))
    if (ordered is None) == (weight is None):
        raise Refusal(400, "either ordered or weight says what becomes of the target")
    return _verdict(asked, await asked.operator.order(pool, target, ordered, weight))


async def _status(asked: Asked) -> Answer:
    return _json(_status_of(asked, history=_HISTORIES_MAX if asked.values["history"] else 0))


def _status_of(asked: Asked, *, history: int) -> dict[str, Any]:
    status = asked.operator.status(history=history)
    return status if asked.private_told else public_status(status)


def _selection(asked: Asked, conn_id: str | None) -> Selection:
    try:
        return selection_of(
            conn_id=conn_id,
            listener=asked.values["listener"],
            client=asked.values["client"],
            target=asked.values["target"],
        )
    except ValueError:
        raise Refusal(400, f"client is {_A_CLIENT}") from None


async def _connections(asked: Asked) -> Answer:
    sort, limit = asked.values["sort"] or Sort.AGE, asked.values["limit"] or LIMIT_DEFAULT
    selection = _selection(asked, asked.values["id"])
    return Answer(
        200, await asked.operator.connections(selection, sort, limit, tcp_info=bool(asked.values["tcp_info"]))
    )


async def _kill(asked: Asked) -> Answer:
    if all(value is None for value in asked.values.values()):
        raise Refusal(400, "it takes one of id, listener, client and target: all that is open is not ended by accident")
    count, complete = await asked.operator.kill(_selection(asked, asked.values["id"]))
    if count or not complete:
        return _json({"killed": count, "complete": complete})
    return _json({"error": "no connection or session is like that"}, 409)


async def _targets(asked: Asked) -> Answer:
    return _json(await asked.operator.targets())


async def _explain(asked: Asked) -> Answer:
    found = await asked.operator.explain(*(asked.values[name] for name in ("listener", "client", "port")))
    return _json({"error": found}, 409) if isinstance(found, str) else _json(found)


async def _config(asked: Asked) -> Answer:
    return _json(await asked.operator.config())


async def _log(asked: Asked) -> Answer:
    return _json(asked.operator.log())


async def _set_log(asked: Asked) -> Answer:
    return _json(asked.operator.set_log_level(asked.values["level"], asked.who))


async def _metrics(asked: Asked) -> Answer:
    content_type, text = await asked.operator.metrics(asked.accept)
    return Answer(200, text, content_type)


async def _page(asked: Asked) -> Answer:
    q, sort = (asked.values["q"] or "").strip(), asked.values["sort"] or Sort.AGE
    status = _status_of(asked, history=page.LISTENERS_SHOWN)
    try:
        selection = selection_of(**page.question(q, status))
    except ValueError:
        found = None  # which the page says
    else:
        found = json.loads(await asked.operator.connections(selection, sort, page.CONNECTIONS_SHOWN, tcp_info=False))
    return Answer(200, page.document(status, found, q, sort.value), page.CONTENT_TYPE, page.HEADERS)


async def _healthy(_: Asked) -> Answer:
    return _json({})


async def _ready(asked: Asked) -> Answer:
    reason = asked.operator.not_ready()
    if reason:
        raise Refusal(503, reason)
    return _json({})


_A_STRING = "a string"
_A_CLIENT = "an IP address, perhaps with a port, a network, or what the log calls a client of a Unix socket"
_A_SORT = f"one of {', '.join(each.value for each in Sort)}"
_A_SWITCH = "yes or no"
_LEVELS = tuple(each.value for each in Level)

#: In the order of docs/admin.md. The file that `plan` may name: what is wrong with it is shown, with a token with its
#: lines, and not everybody who comes by TCP may read every file that the daemon may.
ROUTES = (
    Route(
        "GET",
        "/",
        _page,
        (
            Parameter("q", f"a text of at most {page.SEARCH_MAX} characters", _search),
            Parameter("sort", _A_SORT, Sort),
        ),
    ),
    Route(
        "POST",
        "/v1/reload",
        _reload,
        (Parameter("confirm_s", f"a number of seconds, more than 0 and at most {CONFIRM_S_MAX:g}", _confirm_s),),
        changes=True,
    ),
    Route("POST", "/v1/confirm", _confirm, changes=True),
    Route(
        "POST",
        "/v1/plan",
        _plan,
        (
            Parameter(
                "file",
                "an absolute path",
                _absolute_path,
                not_by_tcp="by TCP, nobody may name a file: ask by a Unix socket, or for the file in force",
            ),
        ),
    ),
    Route("GET", "/v1/status", _status, (Parameter("history", _A_SWITCH, switch_in_query),)),
    Route(
        "GET",
        "/v1/connections",
        _connections,
        (
            Parameter("id", _A_STRING, _string),
            Parameter("listener", _A_STRING, _string),
            Parameter("client", _A_CLIENT, _string),
            Parameter("target", _A_STRING, _string),
            Parameter("sort", _A_SORT, Sort),
            Parameter("limit", f"a number from 1 to {LIMIT_MAX}", count_in_query(1, LIMIT_MAX)),
            Parameter("tcp_info", _A_SWITCH, switch_in_query),
        ),
    ),
    Route(
        "POST",
        "/v1/kill",
        _kill,
        (
            Parameter("id", _A_STRING, _string),
            Parameter("listener", _A_STRING, _string),
            Parameter("client", _A_CLIENT, _string),
            Parameter("target", _A_STRING, _string),
        ),
        changes=True,
    ),
    Route("GET", "/v1/targets", _targets),
    Route(
        "POST",
        "/v1/target",
        _order,
        (
            Parameter("pool", _A_STRING, _string, required=True),
            Parameter("target", _A_STRING, _string, required=True),
            Parameter("ordered", f"one of {', '.join(each.value for each in Ordered)}", Ordered),
            Parameter("weight", "an integer; 0 is that of the file", _integer),
        ),
        changes=True,
    ),
    Route(
        "POST",
        "/v1/explain",
        _explain,
        (
            Parameter("listener", _A_STRING, _string, required=True),
            Parameter("client", "an IP address, or empty for one of a Unix socket", _client, required=True),
            Parameter("port", "an integer", _integer),
        ),
    ),
    Route("GET", "/v1/config", _config, private=True),
    Route("GET", "/v1/log", _log),
    Route(
        "POST",
        "/v1/log",
        _set_log,
        (Parameter("level", f"one of {', '.join(_LEVELS)}", one_of(*_LEVELS), required=True),),
        changes=True,
    ),
    Route("GET", "/metrics", _metrics),
    Route("GET", "/healthz", _healthy, open_to_all=True),
    Route("GET", "/readyz", _ready),
)

_BY_PATH = {
    path: {route.method: route for route in ROUTES if route.path == path} for path in {each.path for each in ROUTES}
}
_OPEN = {route.path for route in ROUTES if route.open_to_all}
