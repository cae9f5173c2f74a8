"""Messages as JSON. Only the classes listed in `_CLASSES` come out of `decode`, whatever bytes go in.

Not pickle: a worker faces the network, and what it says must not be able to run code in the control process.
A dataclass is an object whose "" names its class, an enum member the same with its value, a tuple a list. `decode`
checks every field against its annotation, so that whoever receives a message can rely on its types.
"""

import dataclasses
import enum
import json
import types
import typing
from typing import Any

from relayd import address, counters, outcomes, spec
from relayd.channel import messages

_CLASSES: dict[str, type] = {
    cls.__name__: cls
    for cls in (
        address.Family,
        address.InetAddress,
        address.NameAddress,
        address.UnixAddress,
        counters.ListenerTotals,
        messages.Configure,
        messages.Drain,
        messages.Ready,
        messages.Report,
        messages.Resolved,
        messages.Stop,
        outcomes.Outcome,
        spec.Binding,
        spec.Keepalive,
        spec.Listener,
        spec.Log,
        spec.SocketOptions,
        spec.Spec,
        spec.StreamTimeouts,
        spec.Target,
    )
}
_FIELDS = {
    cls: tuple(field.name for field in dataclasses.fields(cls))
    for cls in _CLASSES.values()
    if dataclasses.is_dataclass(cls)
}
#: Per class, the annotation of each field. `typing` resolves the names; it is in memory already, for the annotations.
_TYPES: dict[type, dict[str, Any]] = {cls: typing.get_type_hints(cls) for cls in _FIELDS}


class CodecError(ValueError):
    """The bytes are no message of this version."""


def encode(message: messages.Message) -> bytes:
    """`message` as UTF-8 JSON; `decode(encode(message)) == message`."""
    return json.dumps(_plain(message), separators=(",", ":")).encode()


def decode(data: bytes | bytearray) -> messages.Message:
    """The message in `data`. Raises CodecError when it holds anything else."""
    try:
        message = _value(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CodecError(f"not a message: {error!r}") from error
    if type(message).__module__ != messages.__name__:
        raise CodecError(f"not a message: {type(message).__name__}")
    return message  # type: ignore[no-any-return]  # its class is one of Message's


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return {"": type(value).__name__, "value": value.value}
    names = _FIELDS.get(type(value))
    if names is None:
        return value
    return {"": type(value).__name__, **{name: _plain(getattr(value, name)) for name in names}}


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    cls = _CLASSES[plain.pop("")]
    values = {name: _value(item) for name, item in plain.items()}
    kinds = _TYPES.get(cls)
    if kinds is None:
        if set(values) != {"value"}:  # an enum class called with more than a value makes a new class
            raise TypeError(f"{cls.__name__} is made of its value alone")
        return cls(**values)
    for name, kind in kinds.items():
        if not _is(values[name], kind):
            raise TypeError(f"{cls.__name__}.{name} is no {kind}")
    return cls(**values)


def _is(value: Any, kind: Any) -> bool:
    """True when `value` is of the type that the annotation `kind` says: a class, a union, or a tuple of these."""
    if isinstance(kind, type) and typing.get_origin(kind) is None:
        if kind is int or kind is float:
            return isinstance(value, (int, kind)) and not isinstance(value, bool)
        return isinstance(value, kind)
    parts = typing.get_args(kind)
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return any(_is(value, part) for part in parts)
    if not isinstance(value, tuple):
        return False
    if parts[-1] is Ellipsis:
        return all(_is(item, parts[0]) for item in value)
    return len(value) == len(parts) and all(map(_is, value, parts))
