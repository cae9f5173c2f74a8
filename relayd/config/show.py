"""A `Spec` as TOML that loads to an equal `Spec`: everything in force, defaults included. Pure.

Keys that cannot apply to a listener, and options that are at the kernel's own choice, have no line.
"""

from collections.abc import Iterator
from dataclasses import replace

from relayd.address import Family, InetAddress, NameAddress, ServiceAddress, SystemdAddress, UnixAddress
from relayd.config.ports import target_text
from relayd.config.problems import key_text, quote
from relayd.config.units import format_duration
from relayd.spec import (
    Balance,
    Check,
    CheckKind,
    Datagram,
    Listener,
    ListenerLog,
    Resolve,
    SessionMode,
    Share,
    SocketOptions,
    Spec,
    Stream,
)


def to_toml(spec: Spec) -> str:
    """The text, ending with a newline."""
    lines = [
        "[daemon]",
        f"workers = {spec.workers}",
        f"drain_timeout = {_duration(spec.drain_timeout_s)}",
        f"preserve_connections = {_boolean(spec.preserve_connections)}",
        "",
        "[log]",
        f"level = {quote(spec.log.level)}",
        f"format = {quote(spec.log.format)}",
        f"access = {_boolean(spec.log.access)}",
        "",
        "[admin]",
        f"listen = [{', '.join(quote(str(address)) for address in spec.admin.listen)}]",
        f"allow_remote = {_boolean(spec.admin.remote)}",
        *([f"token_file = {quote(spec.admin.token_file)}"] if spec.admin.token_file else []),
        f"read_only = {_boolean(spec.admin.read_only)}",
        f"hosts = [{', '.join(map(quote, spec.admin.hosts))}]",
    ]
    shared: dict[str, list[Listener]] = {}
    for listener in spec.listeners:
        if listener.pool:
            shared.setdefault(listener.pool, []).append(listener)
    for name, listeners in shared.items():
        # What a pool says is the same in all of them; what streams alone have, those of datagrams do not know.
        first = next((one for one in listeners if one.stream is not None), listeners[0])
        lines += ["", f"[{key_text(('pools', name))}]", *_of_pool(first)]
    for listener in spec.listeners:
        lines += ["", f"[{key_text(('listeners', listener.name))}]", *_listener(listener, whole=False)]
    return "\n".join(lines) + "\n"


def listener_keys(listener: Listener) -> dict[str, str]:
    """What is in force for one listener, what its pool says included, by key, as TOML."""
    return dict(_pair(line) for line in _listener(listener, whole=True))


def daemon_keys(spec: Spec) -> dict[str, str]:
    """What is in force for the daemon as a whole, by table and key (`daemon.workers`), as TOML."""
    found: dict[str, str] = {}
    table = ""
    for line in to_toml(replace(spec, listeners=())).splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif line:
            key, value = _pair(line)
            found[f"{table}.{key}"] = value
    return found


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(" = ")
    return key, value


def _of_pool(listener: Listener) -> Iterator[str]:
    """What a pool says, or a listener without one."""
    ports = max(bind.ports for bind in listener.binds)
    yield f"targets = {_array([_target(listener, index, ports) for index in range(len(listener.targets))])}"
    yield f"balance = {quote(listener.balance.value)}"
    if any(isinstance(target.address, NameAddress | ServiceAddress) for target in listener.targets):
        yield f"resolve = {_resolve(listener.resolve)}"
    if listener.stream is not None:
        yield f"dial_attempts = {listener.stream.dial_attempts}"
    health = listener.health
    yield f"health_check = {_check(health.check)}"
    if health.check is not None:
        yield f"fail_open = {_boolean(health.fail_open)}"
    yield f'max_ejected = "{health.max_ejected}%"'
    if listener.balance is not Balance.FIRST:
        yield f"slow_start = {_duration(health.slow_start_s or None)}"


def _listener(listener: Listener, *, whole: bool) -> Iterator[str]:
    """`whole`: with what its pool says, which else is for the pool to say."""
    binding, stream, datagram = listener.binding, listener.stream, listener.datagram
    addresses = [bind.address for bind in listener.binds]
    inet_binds = [address for address in addresses if isinstance(address, InetAddress)]
    from_systemd = any(isinstance(address, SystemdAddress) for address in addresses)
    types = [quote(name) for name, how in (("stream", stream), ("dgram", datagram)) if how is not None]
    yield f"type = {types[0]}" if len(types) == 1 else f"type = [{', '.join(types)}]"
    yield f"bind = {_array([quote(str(bind)) for bind in listener.binds])}"
    if stream is not None:
        yield f"backlog = {binding.backlog}"
    if inet_binds:
        if binding.interface is not None:
            yield f"interface = {quote(binding.interface)}"
        if any(address.family is Family.INET6 for address in inet_binds):
            yield f"ipv6_only = {_boolean(binding.ipv6_only)}"
        yield f"freebind = {_boolean(binding.freebind)}"
    if stream is not None and (inet_binds or from_systemd):
        yield f"fast_open = {_boolean(binding.fast_open)}"
        yield f"defer_accept = {_duration(binding.defer_accept_s)}"
    if any(isinstance(address, UnixAddress) and not address.abstract for address in addresses):
        yield f'mode = "{binding.mode:04o}"'
        if binding.user_id is not None:
            yield f'user = "{binding.user_id}"'
        if binding.group_id is not None:
            yield f'group = "{binding.group_id}"'
    if listener.on_change is not None:
        yield f"on_change = {quote(listener.on_change.value)}"
    if listener.pool:
        yield f"pool = {quote(listener.pool)}"
    if whole or not listener.pool:
        yield from _of_pool(listener)
    if isinstance(listener.source, InetAddress):
        yield f"source = {quote(str(listener.source).removesuffix(':0'))}"
    if stream is not None:
        yield from _stream(stream)
        if (
            inet_binds
            or from_systemd
            or not all(isinstance(target.address, UnixAddress) for target in listener.targets)
        ):
            yield from _tcp(stream.options)
    if datagram is not None:
        yield from _datagram(datagram)
    yield f"log = {_log(listener.log)}"


def _stream(stream: Stream) -> Iterator[str]:
    timeouts = stream.timeouts
    yield f"connect_timeout = {_duration(timeouts.connect_s)}"
    yield f"idle_timeout = {_duration(timeouts.idle_s)}"
    yield f"half_close_timeout = {_duration(timeouts.half_close_s)}"
    yield f"max_lifetime = {_duration(timeouts.max_lifetime_s)}"


def _datagram(datagram: Datagram) -> Iterator[str]:
    if datagram.session is SessionMode.CLIENT:
        yield f"session_timeout = {_duration(datagram.session_timeout_s)}"
        if datagram.max_sessions is not None:
            yield f"max_sessions = {datagram.max_sessions}"
        if datagram.max_responses is not None:
            yield f"max_responses = {datagram.max_responses}"
    yield f"session = {quote(datagram.session.value)}"
    yield f"on_target_error = {quote(datagram.on_target_error.value)}"


def _tcp(options: SocketOptions) -> Iterator[str]:
    keepalive = options.keepalive
    if keepalive:
        idle, interval = _duration(keepalive.idle_s), _duration(keepalive.interval_s)
        yield f"keepalive = {{ idle = {idle}, interval = {interval}, probes = {keepalive.probes} }}"
    else:
        yield "keepalive = false"
    user_timeout_ms = options.user_timeout_ms
    yield f"tcp_user_timeout = {_duration(None if user_timeout_ms is None else user_timeout_ms / 1000)}"
    if options.congestion is not None:
        yield f"congestion = {quote(options.congestion)}"
    yield f"nodelay = {_boolean(options.nodelay)}"


def _check(check: Check | None) -> str:
    """On one line, as a table in TOML before 1.1 has to be."""
    if check is None:
        return '"off"'
    keys = {
        "type": quote(check.kind.value),
        "interval": _duration(check.interval_s),
        "unhealthy_interval": _duration(check.unhealthy_interval_s),
        "timeout": _duration(check.timeout_s),
        "rise": str(check.rise),
        "fall": str(check.fall),
    }
    if check.port is not None:
        keys["port"] = str(check.port)
    if check.kind is CheckKind.HTTP:
        keys |= {"method": quote(check.method), "path": quote(check.path)}
        if check.host is not None:
            keys["host"] = quote(check.host)
        keys["status"] = f"[{', '.join(map(_statuses, check.status))}]"
    elif check.kind is CheckKind.EXEC:
        keys["command"] = f"[{', '.join(map(quote, check.command))}]"
    if check.send:
        keys["send"] = _bytes(check.send)
    if check.expect is not None:
        keys["expect"] = _bytes(check.expect)
    if check.expect_pattern is not None:
        keys["expect"] = f"{{ regex = {quote(check.expect_pattern.encode('latin-1').decode())} }}"
    return f"{{ {', '.join(f'{key} = {value}' for key, value in keys.items())} }}"


def _statuses(ends: tuple[int, int]) -> str:
    first, last = ends
    return str(first) if first == last else f'"{first}-{last}"'


def _bytes(characters: str) -> str:
    """Bytes, one character for each, as the text that they are in UTF-8, or in hexadecimal."""
    data = characters.encode("latin-1")
    try:
        return quote(data.decode())
    except UnicodeDecodeError:
        return f'{{ hex = "{data.hex()}" }}'


def _duration(seconds: float | None) -> str:
    return '"off"' if seconds is None else f'"{format_duration(round(seconds * 1000))}"'


def _boolean(value: bool) -> str:  # noqa: FBT001  # a value to be written, not a switch
    return "true" if value else "false"


def _target(listener: Listener, index: int, ports: int) -> str:
    """`listener.targets[index]`, of a listener with binds of `ports` ports."""
    address, share = quote(target_text(listener.targets[index], ports)), listener.share(index)
    if share == Share():
        return address
    weight = f", weight = {share.weight}" if share.weight != 1 else ""
    backup = ", backup = true" if share.backup else ""
    most = f", max_connections = {share.max_connections}" if share.max_connections is not None else ""
    return f"{{ address = {address}{weight}{backup}{most} }}"


def _resolve(resolve: Resolve) -> str:
    family = quote(resolve.family.value if resolve.family else "any")
    min_ttl, max_ttl = _duration(resolve.min_ttl_s), _duration(resolve.max_ttl_s)
    return f"{{ family = {family}, min_ttl = {min_ttl}, max_ttl = {max_ttl} }}"


def _log(log: ListenerLog) -> str:
    """What it leaves to [log] is not there."""
    keys = {} if log.access is None else {"access": _boolean(log.access)}
    if log.level is not None:
        keys["level"] = quote(log.level)
    keys |= {"start": _boolean(log.start), "progress": _duration(log.progress_s)}
    return f"{{ {', '.join(f'{key} = {value}' for key, value in keys.items())} }}"


def _array(values: list[str]) -> str:
    if len(values) == 1:
        return f"[{values[0]}]"
    return "[\n" + "".join(f"    {value},\n" for value in values) + "]"
