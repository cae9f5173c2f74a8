"""relay.toml as pydantic models: every table, every key, its description and its default.

A key that the file does not set is None here; `listeners.build` puts the layers together. Descriptions are what editors
show (the JSON schema) and manuals say (`packaging/dev manual`); "Default: ..." ends one whose default no file could
write.
"""

import functools
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Discriminator, Field, PlainValidator, Tag, model_validator

from relayd.address import InetAddress, SocketAddress
from relayd.config import values
from relayd.config.check_table import CheckValue, Percent
from relayd.config.forms import (
    DURATION,
    LONGEST,
    OFF,
    OR_OFF,
    Duration,
    Form,
    PositiveDuration,
    Table,
    Timeout,
    lasting,
    one_or_more,
    schema_of,
)
from relayd.config.ports import BindEntry, TargetEntry
from relayd.config.units import format_duration
from relayd.spec import WEIGHT_MAX

_HOST, _PORTS = r"\[[^\]]+\]|[^:\s/\[\]]", r":[0-9]{1,5}(-[0-9]{1,5})?"
_SERVICE = r"srv:[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}"
_ADDRESS = {"type": "string", "pattern": rf"^(unix:[/@].+|{_SERVICE}|({_HOST}+)({_PORTS}|:\+[0-9]{{1,5}})?)$"}
_BIND = {"type": "string", "pattern": rf"^(unix:[/@].+|systemd:[ -9;-~]{{1,255}}|({_HOST}*){_PORTS})$"}
_ADMIN = {"type": "string", "pattern": rf"^(unix:[/@].+|({_HOST}*):[0-9]{{1,5}})$"}
_TYPE = {"enum": ["stream", "dgram", "tcp", "udp"]}


_KERNEL_LONGEST = f"{values.KEEPALIVE_MAX_S}s"

Ttl: TypeAlias = Annotated[
    int,
    PlainValidator(values.ttl),
    schema_of(DURATION),
    lasting(format_duration(values.TTL_MIN_MS), LONGEST),
]
UserTimeout: TypeAlias = Annotated[
    int | Literal["off"],
    PlainValidator(values.user_timeout),
    schema_of(DURATION, OFF),
    lasting("1ms", format_duration(values.USER_TIMEOUT_MAX_MS), OR_OFF),
]
KernelSeconds: TypeAlias = Annotated[
    int,
    PlainValidator(values.kernel_seconds),
    schema_of(DURATION),
    lasting("1s", _KERNEL_LONGEST, ", whole seconds"),
]
DeferAccept: TypeAlias = Annotated[
    int | Literal["off"],
    PlainValidator(values.kernel_seconds_or_off),
    schema_of(DURATION, OFF),
    lasting("1s", _KERNEL_LONGEST, f", whole seconds{OR_OFF}"),
]
Progress: TypeAlias = Annotated[
    int | Literal["off"],
    PlainValidator(values.progress),
    schema_of(DURATION, OFF),
    lasting(format_duration(values.PROGRESS_MIN_MS), LONGEST, OR_OFF),
]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
BindText: TypeAlias = Annotated[BindEntry, PlainValidator(values.bind_address), schema_of(_BIND)]
TargetAddress: TypeAlias = Annotated[
    TargetEntry, PlainValidator(values.target_address), schema_of(_ADDRESS), Form("address")
]
AdminAddress: TypeAlias = Annotated[SocketAddress, PlainValidator(values.admin_address), schema_of(_ADMIN)]
TokenFile: TypeAlias = Annotated[
    str,
    PlainValidator(values.token_file),
    schema_of({"type": "string", "pattern": values.FILE_PATTERN}),
    Form("absolute path"),
]
Source: TypeAlias = Annotated[
    InetAddress,
    PlainValidator(values.source_address),
    schema_of({"type": "string"}),
    Form("numeric address without a port"),
]
Mode: TypeAlias = Annotated[
    int,
    PlainValidator(values.file_mode),
    schema_of({"type": "string", "pattern": values.MODE_PATTERN}),
    Form('three octal digits, `"000"` to `"0777"`'),
]
_NAME_OR_NUMBER = Form("name, or a number in quotes")
User: TypeAlias = Annotated[
    int, PlainValidator(values.user), schema_of({"type": "string", "minLength": 1}), _NAME_OR_NUMBER
]
Group: TypeAlias = Annotated[
    int, PlainValidator(values.group), schema_of({"type": "string", "minLength": 1}), _NAME_OR_NUMBER
]
_KERNEL_NAME = schema_of({"type": "string", "pattern": values.KERNEL_NAME_PATTERN})
_KERNEL_NAME_FORM = Form("name, 1 to 15 characters")
InterfaceName: TypeAlias = Annotated[str, PlainValidator(values.interface), _KERNEL_NAME, _KERNEL_NAME_FORM]
Congestion: TypeAlias = Annotated[str, PlainValidator(values.congestion), _KERNEL_NAME, _KERNEL_NAME_FORM]
Workers: TypeAlias = Annotated[
    int | Literal["auto"],
    PlainValidator(values.workers),
    schema_of({"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": values.WORKERS_MAX}),
    Form(f'integer, 1 to {values.WORKERS_MAX}, or `"auto"`'),
]
ListenerType: TypeAlias = Annotated[
    tuple[str, ...],
    PlainValidator(values.listener_type),
    schema_of(_TYPE, {"type": "array", "items": _TYPE, "minItems": 1}),
    Form('`"stream"` or `"tcp"`, `"dgram"` or `"udp"`, or an array of both'),
]


class KeepaliveTable(Table):
    """TCP keepalive in detail."""

    idle: KernelSeconds = Field(60, description="Silence before the first probe (TCP_KEEPIDLE).")
    interval: KernelSeconds = Field(10, description="Time between probes (TCP_KEEPINTVL).")
    probes: Annotated[int, Field(ge=1, le=127)] = Field(
        6, description="Unanswered probes after which the connection is over (TCP_KEEPCNT)."
    )


class ResolveTable(Table):
    """How host names and services among the targets are resolved."""

    family: Literal["any", "inet", "inet6"] = Field(
        "any", description="Which addresses are targets: IPv6 and IPv4 ones (any), or those of one family."
    )
    min_ttl: Ttl = Field(
        1000, description="An answer counts for this long at least, and is asked for again then, whatever its TTL."
    )
    max_ttl: Ttl = Field(300_000, description="An answer counts for no longer than this, whatever its TTL.")

    @model_validator(mode="after")
    def _in_order(self) -> "ResolveTable":
        if self.min_ttl > self.max_ttl:
            shortest, longest = format_duration(self.min_ttl), format_duration(self.max_ttl)
            said = "" if "max_ttl" in self.model_fields_set else ", which it is unless the table says otherwise"
            raise values.fault(f"min_ttl, {shortest}, is longer than max_ttl, {longest}{said}")
        return self


class ListenerLogTable(Table):
    """What is logged of one listener."""

    access: bool | None = Field(
        None,
        description="One line for each of its connections and sessions that has ended. Default: as [log] says.",
    )
    level: LogLevel | None = Field(
        None, description="The least that is logged of what happens to it. Default: as [log] says."
    )
    start: bool = Field(
        False, description="One line when a connection has reached its target, and when a session has begun."
    )
    progress: Progress = Field(
        "off",
        description="One line for each connection and session that has lived for so long, and again each time that it "
        "has lived for so long once more.",
    )


def _keepalive_form(value: object) -> str | None:
    if isinstance(value, bool):
        return "switch"
    return "table" if isinstance(value, dict | KeepaliveTable) else None


KeepaliveValue: TypeAlias = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[KeepaliveTable, Tag("table")],
    Form("`true`, `false`, or a table"),
    Discriminator(
        _keepalive_form,
        custom_error_type=values.FAULT,
        custom_error_message='must be true, false, or a table such as {idle = "60s", interval = "10s", probes = 6}',
    ),
]


def _target_form(value: object) -> object:
    if isinstance(value, str):
        return {"address": value}
    if not isinstance(value, dict):
        raise values.fault(f"must be a string or a table with an address, not {values.kind(value)}")
    return value


class TargetTable(Table):
    """Where clients are sent."""

    address: TargetAddress = Field(
        description="host:port, [v6]:port, unix:/path, unix:@name or srv:NAME. A range, host:first-last, goes with "
        "one in bind; host:+N is the port of the bind and N more; host alone is the port of the bind."
    )
    weight: Annotated[int, Field(ge=1, le=WEIGHT_MAX)] = Field(
        1,
        description="Its part of the clients, beside the weights of the other targets. Not with balance = first, and "
        "not for srv:NAME, whose records have weights.",
    )
    backup: bool = Field(
        False,
        description="Gets a client only once every target that is no backup has failed for it. Not for all targets.",
    )
    max_connections: Annotated[int, Field(ge=1, le=values.SESSIONS_MAX)] | None = Field(
        None,
        description="Connections and sessions that it has at most, over all workers, each of which has its part. "
        "Default: no limit.",
    )


Target: TypeAlias = Annotated[TargetTable, BeforeValidator(_target_form)]


#: What a listener and a pool have as `targets`.
Targets: TypeAlias = Annotated[
    list[Target],
    BeforeValidator(values.one_or_many(1, values.TARGETS_MAX, str, dict)),
    one_or_more('address or `{ address = "..." }`', values.TARGETS_MAX),
]


class PoolKeys(Table):
    """What a pool may set for all listeners that share it; a listener without a pool sets it itself."""

    dial_attempts: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None,
        description="Dials before a client is refused, each to the next target: one that is down is passed over before "
        "the client notices.",
    )
    balance: Literal["round_robin", "least_connections", "random", "source_hash", "first"] | None = Field(
        None,
        description="Which target gets the next client. Each worker decides by itself. round_robin: in turn. "
        "least_connections: the one with the fewest connections and sessions of this worker. random: the less busy of "
        "two drawn by chance. source_hash: the same for the same client address, whichever worker, process or machine "
        "has the same file (Maglev). first: the first that does not fail.",
    )
    resolve: Annotated[ResolveTable, Form('`{ family = "...", min_ttl = "...", max_ttl = "..." }`')] | None = Field(
        None,
        description="How host names and srv:NAME among the targets are resolved: to addresses of which family, and how "
        "often again.",
    )

    health_check: CheckValue | None = Field(
        None,
        description="Ask each target whether it is up, and send clients to those that are. A table says how.",
    )
    fail_open: bool | None = Field(
        None,
        description="Where checks find all targets down, clients are sent to them all the same. false: clients are "
        "refused.",
    )
    max_ejected: Percent | None = Field(
        None,
        description="Of the targets that are not down, so many at most are passed over because clients have found them "
        "failing.",
    )
    slow_start: Timeout | None = Field(
        None,
        description="A target that comes back gets its whole share after so long, and until then a growing part of it. "
        "Not with balance = first.",
    )


class Shared(PoolKeys):
    """The keys that [defaults] may set for every listener."""

    backlog: Annotated[int, Field(ge=1, le=65_535)] | None = Field(
        None,
        description="Connections that may wait to be accepted. The kernel caps it at net.core.somaxconn; check warns "
        "where it does.",
    )
    interface: InterfaceName | None = Field(
        None,
        description="Accept only what arrives on this network interface (SO_BINDTODEVICE). Default: every interface.",
    )
    ipv6_only: bool | None = Field(
        None,
        description="An IPv6 bind does not take IPv4 clients as well, so that another listener may (IPV6_V6ONLY).",
    )
    freebind: bool | None = Field(
        None,
        description="Bind an address that this machine does not have yet, one that moves between machines "
        "(IP_FREEBIND).",
    )
    fast_open: bool | None = Field(
        None,
        description="Clients may send data with their SYN, which saves a round trip (TCP_FASTOPEN). The listening side "
        "only.",
    )
    defer_accept: DeferAccept | None = Field(
        None,
        description="Accept a connection once its client has sent something, or after this long (TCP_DEFER_ACCEPT). "
        "Not for services that speak first: SMTP, SSH, MySQL.",
    )
    mode: Mode | None = Field(None, description="Permissions of the Unix socket file, in octal.")
    user: User | None = Field(
        None,
        description="Owner of the Unix socket file. One that is not relayd's own takes CAP_CHOWN. Default: as created.",
    )
    group: Group | None = Field(None, description="Group of the Unix socket file. Default: as created.")
    source: Source | None = Field(
        None,
        description="Address to dial from. Targets of the other family are dialled without it; it is an "
        "error where all are of the other. Default: the kernel chooses.",
    )
    connect_timeout: PositiveDuration | None = Field(
        None, description="Time that one dial may take. It cannot be turned off."
    )
    idle_timeout: Timeout | None = Field(None, description="A connection ends when no byte has moved for this long.")
    half_close_timeout: Timeout | None = Field(
        None, description="As idle_timeout, once one side has finished and the other goes on."
    )
    max_lifetime: Timeout | None = Field(None, description="A connection ends at this age, whatever it does.")
    keepalive: KeepaliveValue | None = Field(
        None, description="TCP keepalive on both sides: on, off, or a table of idle, interval and probes."
    )
    tcp_user_timeout: UserTimeout | None = Field(
        None,
        description="How long sent data may stay unacknowledged before the connection is over (TCP_USER_TIMEOUT). "
        '"off" leaves it to the kernel.',
    )
    congestion: Congestion | None = Field(
        None,
        description="Congestion control algorithm, such as bbr or cubic; check warns where the kernel has not "
        "loaded it. Default: the kernel's choice.",
    )
    nodelay: bool | None = Field(None, description="Send small writes at once on both sides (TCP_NODELAY).")
    session_timeout: PositiveDuration | None = Field(
        None,
        description="A session of datagrams ends when none has come either way for this long. It cannot be turned off.",
    )
    max_sessions: Annotated[int, Field(ge=1, le=values.SESSIONS_MAX)] | None = Field(
        None,
        description="Sessions of the listener over all workers, each of which has its share. At the limit the one that "
        "was idle longest makes room for a new one. Default: what the limit on open files allows.",
    )
    max_responses: Annotated[int, Field(ge=1, le=values.RESPONSES_MAX)] | None = Field(
        None,
        description="A session ends when this many datagrams have come back, and as many as the client has sent: 1 for "
        "DNS, where each of several questions from one port is still answered. Default: no limit.",
    )
    session: Literal["client", "datagram"] | None = Field(
        None,
        description="client: the datagrams of a client go to one target, which can answer. datagram: each goes on its "
        "own to the next target, and nothing comes back, as syslog and statsd want it.",
    )
    on_target_error: Literal["move", "close"] | None = Field(
        None, description="When a target cannot be reached: move its session to another one, or close it."
    )
    on_change: Literal["keep", "drain", "close"] | None = Field(
        None,
        description="When a reload takes away the listener or the target of live connections and sessions, or changes "
        "anything of their listener but its other targets and its log: keep them, drain them (they have "
        "drain_timeout), or close them at once. Default: those whose listener and target stay are kept, others drain.",
    )

    log: (
        Annotated[ListenerLogTable, Form('`{ access = ..., level = "...", start = ..., progress = "..." }`')] | None
    ) = Field(
        None,
        description="What is logged of the listener: its access lines and its level where they are not those of "
        "[log], and lines of connections and sessions that live.",
    )


#: What is in force where no file says otherwise, as a file would say it. What is absent is off, or the kernel's choice.
BUILT_IN_TOML: dict[str, object] = {
    "backlog": 4096,
    "ipv6_only": False,
    "freebind": False,
    "fast_open": False,
    "defer_accept": "off",
    "mode": "0660",
    "dial_attempts": 3,
    "balance": "round_robin",
    "resolve": {"family": "any", "min_ttl": "1s", "max_ttl": "5m"},
    "health_check": "off",
    "fail_open": True,
    "max_ejected": "50%",
    "slow_start": "off",
    "connect_timeout": "5s",
    "idle_timeout": "1h",
    "half_close_timeout": "60s",
    "max_lifetime": "off",
    "keepalive": True,
    "tcp_user_timeout": "off",
    "nodelay": True,
    "session_timeout": "60s",
    "session": "client",
    "on_target_error": "move",
    "log": {"start": False, "progress": "off"},
}


@functools.cache
def built_in() -> Shared:
    """`BUILT_IN_TOML` as a model."""
    return Shared.model_validate(BUILT_IN_TOML)


class PoolTable(PoolKeys):
    """Targets that listeners share, and how one of them is chosen. A listener has them by pool = "NAME"."""

    targets: Targets | None = Field(None, description="Where clients of every listener of the pool are sent.")


class ListenerTable(Shared):
    """One listener: where it listens, and the targets it forwards to."""

    type: ListenerType | None = Field(
        None,
        description="What is relayed: streams (TCP, Unix stream sockets), datagrams (UDP, Unix datagram sockets), or "
        'both. "tcp" is the same as "stream" and "udp" as "dgram", whatever the family.',
    )
    family: Literal["inet", "inet6", "unix"] | None = Field(
        None,
        description="Address family of the bind: chooses for :port and host names. An address of another family is an "
        "error. Default: what the bind address is.",
    )
    bind: (
        Annotated[
            list[BindText],
            BeforeValidator(values.one_or_many(1, values.BINDS_MAX, str)),
            one_or_more("address", values.BINDS_MAX),
        ]
        | None
    ) = Field(
        None,
        description="Where to listen: host:port, [v6]:port, :port, unix:/path or unix:@name. first-last in place of a "
        "port is a range of them. systemd:NAME is what a .socket unit passes under its FileDescriptorName=.",
    )
    targets: Targets | None = Field(
        None,
        description="Where clients are sent: balance says which of them gets the next one. Default: those of the pool.",
    )
    pool: Annotated[str, Form("name of a pool")] | None = Field(
        None,
        description="The pool whose targets this listener shares, in place of targets of its own. What a pool may set "
        "is then set there, and not here.",
    )


class DaemonTable(Table):
    """The daemon as a whole."""

    workers: Workers = Field(
        "auto",
        description='Processes that relay. "auto" is one for each core that relayd may use (a cpuset, CPUAffinity= and '
        "taskset count). Applied by a restart.",
    )
    drain_timeout: Duration = Field(
        30_000,
        description="How long connections and sessions may go on that are to drain: those of a stopping daemon, and "
        'those whose listener or target a reload has taken away (on_change). "0s" ends them at once.',
    )
    preserve_connections: bool = Field(
        True,
        description="A restart (systemctl restart, SIGUSR2) keeps connections and sessions. false: it ends them as a "
        "stop does.",
    )


class LogTable(Table):
    """What is logged, and how."""

    level: LogLevel = Field("info", description="The least that is logged.")
    format: Literal["auto", "journal", "text", "json"] = Field(
        "auto", description="auto is journal under systemd, text on a terminal, else json. Applied by a restart."
    )
    access: bool = Field(True, description="One line for each connection or session that has ended.")


class AdminTable(Table):
    """The admin API, which relayd status, plan, reload and confirm talk to."""

    listen: (
        Annotated[
            list[AdminAddress],
            BeforeValidator(values.one_or_many(0, values.ADMIN_MAX, str)),
            one_or_more("address", values.ADMIN_MAX),
        ]
        | None
    ) = Field(
        None,
        description="Where it is: unix:/path (its file has mode 0660), unix:@name, or host:port with a numeric host. "
        "[] turns it off. Applied by a restart.",
    )
    allow_remote: bool = Field(
        False,
        description="Let listen have addresses that other machines reach. Without token_file or read_only, whoever "
        "comes can reload and see what is open. Applied by a restart.",
    )
    token_file: TokenFile | None = Field(
        None,
        description="A file with a token, of 16 to 1024 characters, that no other user may read. By TCP, who asks has "
        "to have it; Unix sockets are guarded by their mode. An absolute path, or ${CREDENTIALS_DIRECTORY}/NAME for a "
        "credential of systemd. Read again by a reload.",
    )
    read_only: bool = Field(
        False, description="By TCP, answer only what changes nothing. Unix sockets may all the same."
    )
    hosts: Annotated[
        list[
            Annotated[
                str,
                PlainValidator(values.admin_host),
                schema_of({"type": "string", "pattern": values.HOST_NAME_PATTERN}),
            ]
        ],
        BeforeValidator(values.one_or_many(0, values.HOSTS_MAX, str)),
        one_or_more("host name", values.HOSTS_MAX),
    ] = Field(
        default_factory=list,
        description="Names that clients may call this machine by, where they ask by TCP, beside its addresses and "
        "localhost: others are refused, for a web page may have a name of its own lead here.",
    )


class Configuration(Table):
    """The configuration of relayd."""

    include: Annotated[
        list[Annotated[str, PlainValidator(values.include_pattern), schema_of({"type": "string", "minLength": 1})]],
        BeforeValidator(values.one_or_many(0, values.INCLUDES_MAX, str)),
        one_or_more("path or pattern", values.INCLUDES_MAX),
    ] = Field(
        default_factory=list, description="More files, relative to this one: paths or globs such as conf.d/*.toml."
    )
    daemon: DaemonTable | None = Field(None, description="The daemon as a whole.")
    log: LogTable | None = Field(None, description="What is logged, and how.")
    admin: AdminTable | None = Field(None, description="The admin API: what other commands of relayd talk to.")
    defaults: Shared | None = Field(None, description="Keys of listeners that do not set them themselves.")
    listeners: dict[str, ListenerTable] = Field(
        default_factory=dict, description="Listeners by name: letters, digits, _ . and -, at most 64."
    )
    pools: dict[str, PoolTable] = Field(
        default_factory=dict,
        description="Targets that several listeners share, by name: letters, digits, _ . and -, at most 64.",
    )
