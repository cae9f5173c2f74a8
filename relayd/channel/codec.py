"""Messages as JSON. Only the classes listed in `_CLASSES` come out of `decode`, whatever bytes go in.

Not pickle: a worker faces the network, and what it says must not be able to run code in the control process.
A dataclass is an object whose "" names its class, an enum member the same with its value, a tuple a list. `decode`
checks every field against its annotation, so that whoever receives a message can rely on its types.
"""

import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable
from typing import Any

from relayd import address, counters, outcomes, spec
from relayd.channel import messages, parcel
from relayd.spec import sockets

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        address.Family,
        address.InetAddress,
        address.NameAddress,
        address.ServiceAddress,
        address.SystemdAddress,
        address.UnixAddress,
        counters.ControlTotals,
        counters.DatagramTotals,
        counters.Histogram,
        counters.ListenerTotals,
        counters.WorkerTotals,
        messages.Adopt,
        messages.AllAdopted,
        messages.Change,
        messages.Changed,
        messages.Configure,
        messages.Count,
        messages.Counted,
        messages.Drain,
        messages.HandOver,
        messages.HandedOver,
        messages.Kill,
        messages.Killed,
        messages.LiveCount,
        messages.Look,
        messages.LogLevel,
        messages.Parcels,
        messages.Ready,
        messages.Released,
        messages.Report,
        messages.Resolved,
        messages.Seen,
        messages.Selection,
        messages.Sort,
        messages.Stop,
        messages.TargetFailure,
        messages.TargetFailures,
        messages.TargetStates,
        outcomes.Drop,
        outcomes.Outcome,
        parcel.Label,
        spec.Admin,
        spec.Balance,
        spec.Bind,
        spec.Binding,
        spec.Check,
        spec.CheckKind,
        spec.Datagram,
        spec.Health,
        spec.Keepalive,
        spec.Listener,
        spec.ListenerLog,
        spec.Log,
        spec.OnChange,
        spec.OnTargetError,
        spec.Ordered,
        spec.Passed,
        spec.PortRule,
        spec.Resolve,
        spec.SessionMode,
        spec.Share,
        spec.SocketOptions,
        spec.Spec,
        spec.Stream,
        spec.StreamTimeouts,
        spec.Target,
        spec.TargetState,
        sockets.SocketKey,
    )
}
#: Of a message that has bytes, which field they are. They travel behind its JSON, as they are, for whoever passes them
#: on unread: to quote and to unquote them takes as long as to make them.
_BYTES: dict[type, str] = {messages.Seen: "rows"}
_FIELDS = {
    cls: tuple(field.name for field in dataclasses.fields(cls) if field.name != _BYTES.get(cls))
    for cls in _CLASSES.values()
    if dataclasses.is_dataclass(cls)
}
#: Fields that need not be there.
_WITH_DEFAULT = {
    cls: frozenset(
        field.name
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    )
    for cls in _FIELDS
}


class CodecError(ValueError):
    """The bytes are no message of this version."""


def encode(message: messages.Message) -> bytes:
    """`message` as UTF-8 JSON, and behind a line feed, which JSON has not, its bytes; `decode(encode(message)) ==
    message`.
    """
    text = json.dumps(plain(message), separators=(",", ":")).encode()
    name = _BYTES.get(type(message))
    return text if name is None else b"%b\n%b" % (text, getattr(message, name))


def decode(data: bytes | bytearray) -> messages.Message:
    """The message in `data`. Raises CodecError when it holds anything else."""
    text, behind, tail = data.partition(b"\n")
    try:
        message = value_of(json.loads(text))
        if behind:
            message = dataclasses.replace(message, **{_BYTES[type(message)]: bytes(tail)})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CodecError(f"not a message: {error!r}") from error
    if type(message).__module__ != messages.__name__:
        raise CodecError(f"not a message: {type(message).__name__}")
    return message  # type: ignore[no-any-return]  # its class is one of Message's


def plain(value: Any) -> Any:
    """What JSON can have of a value of one of our classes."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return {"": type(value).__name__, "value": value.value}
    names = _FIELDS.get(type(value))
    if names is None:
        return value
    return {"": type(value).__name__, **{name: plain(getattr(value, name)) for name in names}}


def value_of(plain: Any) -> Any:
    """What `plain` has made of a value, as that value; takes `plain` apart. A field that it lacks has its default: a
    later version may have one more. Raises ValueError, TypeError or KeyError.
    """
    if isinstance(plain, list):
        return tuple(map(value_of, plain))
    if not isinstance(plain, dict):
        return plain
    cls = _CLASSES[plain.pop("")]
    values = {name: value_of(item) for name, item in plain.items()}
    if cls not in _FIELDS:
        if set(values) != {"value"}:  # an enum class called with more than a value makes a new class
            raise TypeError(f"{cls.__name__} is made of its value alone")
        return cls(**values)
    for name, check in _checks(cls):
        if name not in values and name in _WITH_DEFAULT[cls]:
            continue
        if not check(values[name]):
            raise TypeError(f"{cls.__name__}.{name} is no {type(values[name]).__name__}")
    return cls(**values)


def _check(kind: Any) -> Callable[[Any], bool]:
    """A function that says whether a value is of the annotation `kind`: a class, a union, or a tuple of these."""
    parts = tuple(_check(part) for part in typing.get_args(kind) if part is not Ellipsis)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return lambda value: any(check(value) for check in parts)
    if typing.get_origin(kind) is tuple:
        if Ellipsis in typing.get_args(kind):
            return lambda value: type(value) is tuple and all(map(parts[0], value))
        return lambda value: (
            type(value) is tuple
            and len(value) == len(parts)
            and all(check(item) for check, item in zip(parts, value, strict=True))
        )
    if kind is float:
        return lambda value: type(value) in (float, int)  # bool is a subclass of int, and neither
    return lambda value: type(value) is kind


@functools.cache
def _checks(cls: type) -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """What each field of `cls` has to be. `typing` resolves the names in the annotations; a process that starts, which
    clients may wait for, needs that for a third of the classes.
    """
    return tuple((name, _check(kind)) for name, kind in typing.get_type_hints(cls).items())
