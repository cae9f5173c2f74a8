"""The table that health_check can be, as a model. How its values are written, `probing` says; what is wrong with them
together, `health`.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag

from relayd.config import probing, values
from relayd.config.forms import DURATION, LONGEST, OFF, Form, PositiveDuration, Table, lasting, schema_of
from relayd.config.units import format_duration

CheckType: TypeAlias = Annotated[
    str,
    PlainValidator(probing.check_type),
    schema_of({"enum": ["tcp", "stream", "udp", "dgram", "http", "exec"]}),
    Form('`"tcp"` or `"stream"`, `"udp"` or `"dgram"`, `"http"`, or `"exec"`'),
]
Interval: TypeAlias = Annotated[
    int,
    PlainValidator(probing.interval),
    schema_of(DURATION),
    lasting(format_duration(probing.INTERVAL_MIN_MS), LONGEST),
]
_HEX_TABLE = {
    "type": "object",
    "properties": {"hex": {"type": "string", "pattern": probing.HEX_PATTERN, "description": "Bytes."}},
    "required": ["hex"],
    "additionalProperties": False,
}
_REGEX_TABLE = {
    "type": "object",
    "properties": {"regex": {"type": "string", "minLength": 1, "description": "Python's regular expression."}},
    "required": ["regex"],
    "additionalProperties": False,
}
_SOME_TEXT = {"type": "string", "minLength": 1}
Sent: TypeAlias = Annotated[
    str,
    PlainValidator(probing.sent),
    schema_of(_SOME_TEXT, _HEX_TABLE),
    Form('string, or `{ hex = "0d0a" }`'),
]
Expect: TypeAlias = Annotated[
    probing.Expected,
    PlainValidator(probing.expected),
    schema_of(_SOME_TEXT, _HEX_TABLE, _REGEX_TABLE),
    Form('string, `{ regex = "..." }`, or `{ hex = "0d0a" }`'),
]
_ONE_STATUS = (
    {"type": "integer", "minimum": 100, "maximum": 599},
    {"type": "string", "pattern": probing.STATUS_PATTERN},
)
Statuses: TypeAlias = Annotated[
    tuple[Annotated[tuple[int, int], PlainValidator(probing.status)], ...],
    BeforeValidator(probing.statuses),
    schema_of(*_ONE_STATUS, {"type": "array", "items": {"anyOf": list(_ONE_STATUS)}, "minItems": 1}),
    Form('integer, `"first-last"`, or an array of them'),
]
Command: TypeAlias = Annotated[
    tuple[Annotated[str, PlainValidator(probing.argument)], ...],
    BeforeValidator(probing.command),
    schema_of({"type": "array", "items": {"type": "string"}, "minItems": 1}),
    Form("array of strings, the first an absolute path"),
]
Method: TypeAlias = Annotated[
    str,
    PlainValidator(probing.method),
    schema_of({"type": "string", "pattern": probing.METHOD_PATTERN}),
    Form("capital letters"),
]
UrlPath: TypeAlias = Annotated[
    str,
    PlainValidator(probing.path),
    schema_of({"type": "string", "pattern": probing.PATH_PATTERN}),
    Form("path that begins with `/`"),
]
Host: TypeAlias = Annotated[
    str, PlainValidator(probing.host), schema_of({"type": "string", "pattern": probing.HOST_PATTERN}), Form("name")
]
Percent: TypeAlias = Annotated[
    int,
    PlainValidator(probing.percent),
    schema_of({"type": "string", "pattern": probing.PERCENT_PATTERN}),
    Form('percentage, `"0%"` to `"100%"`'),
]
InARow: TypeAlias = Annotated[int, Field(ge=1, le=probing.IN_A_ROW_MAX)]


class CheckTable(Table):
    """A health check: how targets are asked whether they are up."""

    type: CheckType = Field(
        description="How. tcp: by a connection, or by what comes back on it. udp: by a datagram that is answered. "
        "http: by the status of an answer. exec: by a command that exits with 0. Unix sockets are asked as tcp and udp "
        "as well."
    )
    interval: Interval = Field(
        2000, description="From the start of one check of a target to the next, and up to a tenth more or less."
    )
    unhealthy_interval: Interval | None = Field(
        None, description="The same while the target is down. Default: as interval."
    )
    timeout: PositiveDuration | None = Field(
        None,
        description="A target that has not answered by then has failed; a command is killed. Not longer than the "
        "intervals. Default: 1s, or a shorter interval.",
    )
    rise: InARow = Field(2, description="Successes in a row that bring a target back.")
    fall: InARow = Field(
        3,
        description="Failures in a row that take a target out of service, failures that clients meet included. Of a "
        "target that was never asked before, the first check decides.",
    )
    port: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None, description="Port that is asked. Default: that of the target."
    )
    send: Sent | None = Field(None, description="What is sent, with tcp and udp. udp needs it. Default: nothing.")
    expect: Expect | None = Field(
        None,
        description="What must be somewhere in the first 4096 bytes of the answer, with tcp and udp; with udp, of the "
        "first datagram. Default: nothing with tcp, any answer with udp.",
    )
    method: Method = Field("GET", description="Method of the request, with http.")
    path: UrlPath = Field("/", description="Path of the request and its query, with http.")
    host: Host | None = Field(None, description="Host of the request, with http. Default: the address of the target.")
    status: Statuses = Field(((200, 399),), description="Statuses of a target that is up, with http.")
    command: Command | None = Field(
        None,
        description="A program and its arguments, with exec. RELAYD_POOL, RELAYD_TARGET, RELAYD_HOST and RELAYD_PORT, "
        "or RELAYD_PATH, say which target it is about.",
    )


def _check_form(value: object) -> str | None:
    if isinstance(value, str):
        return "off"
    return "table" if isinstance(value, dict | CheckTable) else None


CheckValue: TypeAlias = Annotated[
    Annotated[Literal["off"], PlainValidator(probing.no_check), schema_of(OFF), Tag("off")]
    | Annotated[CheckTable, Tag("table")],
    Form('`"off"`, or a table'),
    Discriminator(
        _check_form,
        custom_error_type=values.FAULT,
        custom_error_message='must be "off", or a table such as {type = "tcp", interval = "2s"}',
    ),
]
