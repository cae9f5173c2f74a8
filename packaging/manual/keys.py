"""Every key of relay.toml as its reference says it: from the models, their JSON Schema, and `config.listeners`."""

import re
import typing
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from relayd.config import listeners
from relayd.config.check_table import CheckTable
from relayd.config.forms import Form, Table
from relayd.config.model import (
    AdminTable,
    Configuration,
    DaemonTable,
    KeepaliveTable,
    ListenerLogTable,
    ListenerTable,
    LogTable,
    PoolKeys,
    PoolTable,
    ResolveTable,
    Shared,
    TargetTable,
)
from relayd.config.schema import schema

#: How a description ends that says what is in force without the key, where no file could write it.
_DEFAULT = re.compile(r" ?Default: (.*)\.$")


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `form`: how its value is written; `default`: what is in force without it, "" where it is required."""

    name: str
    form: str
    default: str
    applies: str
    meaning: str


@dataclass(frozen=True, slots=True)
class KeyTable:
    """A table of the file. `title` as the file has it, or in words."""

    title: str
    meaning: str
    keys: tuple[Key, ...]

    @property
    def of_listeners(self) -> bool:
        """True where keys are for some listeners and not for others."""
        return any(key.applies for key in self.keys)


def tables() -> tuple[KeyTable, ...]:
    """In the order of the manual; every key of every table once."""
    own = [name for name in ListenerTable.model_fields if name not in Shared.model_fields]
    of_pools = list(PoolKeys.model_fields)
    others = [name for name in Shared.model_fields if name not in PoolKeys.model_fields]
    top = [name for name, field in Configuration.model_fields.items() if not _is_table(field)]
    return (
        KeyTable("Above all tables", "Keys of the file itself.", _keys(Configuration, top)),
        KeyTable("[daemon]", _meaning(DaemonTable), _keys(DaemonTable)),
        KeyTable("[log]", _meaning(LogTable), _keys(LogTable)),
        KeyTable("[admin]", _meaning(AdminTable), _keys(AdminTable)),
        KeyTable("[listeners.NAME]", f"{_meaning(ListenerTable)} {_names()}", _keys(ListenerTable, own)),
        KeyTable(
            "[listeners.NAME] and [defaults]",
            f"{_meaning(Shared)} What a listener says itself replaces the default as a whole.",
            _keys(Shared, others, applies=True),
        ),
        KeyTable("[pools.NAME]", _meaning(PoolTable), _keys(PoolTable, ["targets"])),
        KeyTable(
            "[pools.NAME], [listeners.NAME] and [defaults]",
            _meaning(PoolKeys),
            _keys(PoolTable, of_pools, applies=True),
        ),
        KeyTable("A target as a table", _meaning(TargetTable), _keys(TargetTable)),
        KeyTable("resolve", _meaning(ResolveTable), _keys(ResolveTable)),
        KeyTable("health_check as a table", _meaning(CheckTable), _keys(CheckTable)),
        KeyTable("keepalive as a table", _meaning(KeepaliveTable), _keys(KeepaliveTable)),
        KeyTable("log of a listener", _meaning(ListenerLogTable), _keys(ListenerLogTable)),
    )


def applies_to(name: str) -> str:
    """For what listeners a key of `Shared` can do something; elsewhere it is an error."""
    if name in listeners.SESSION_KEYS:
        what = 'datagrams, `session = "client"`'
    elif name in listeners.DATAGRAM_KEYS:
        what = "datagrams"
    else:
        what = "streams" if name in listeners.STREAM_KEYS else "both"
    if name == "ipv6_only":
        return f"{what}; inet6 binds"
    if name in listeners.INET_BIND_KEYS:
        return f"{what}; inet and inet6 binds"
    if name in listeners.UNIX_BIND_KEYS:
        return f"{what}; Unix paths"
    return f"{what}; TCP on either side" if name in listeners.TCP_KEYS else what


def _keys(model: type[Table], names: "list[str] | None" = None, *, applies: bool = False) -> tuple[Key, ...]:
    whole = schema()
    table = whole if model is Configuration else whole["definitions"][model.__name__]
    required = table.get("required", [])
    found = []
    for name, field in model.model_fields.items():
        if names is not None and name not in names:
            continue
        meaning = field.description or ""
        spoken = _DEFAULT.search(meaning)
        default = _default(table["properties"][name]) or (spoken[1] if spoken else "none")
        found.append(
            Key(
                name,
                _form(field, table["properties"][name]),
                "" if name in required else default,
                applies_to(name) if applies else "",
                _DEFAULT.sub("", meaning),
            )
        )
    return tuple(found)


def _form(field: FieldInfo, node: dict[str, Any]) -> str:
    """How the value is written: what the model says of it, else what its JSON Schema `node` allows."""
    said = _said_form(field.annotation, tuple(field.metadata))
    if said is not None:
        return said.text
    if "enum" in node:
        return ", ".join(f'`"{choice}"`' for choice in node["enum"])
    if node["type"] == "boolean":
        return "`true` or `false`"
    if node["type"] == "integer":
        return f"integer, {node['minimum']} to {node['maximum']}"
    raise TypeError(f"nothing says how this is written: {field}")


def _said_form(annotation: object, metadata: tuple[object, ...] = ()) -> Form | None:
    """The outermost `Form` of an annotation."""
    for each in (*metadata, *getattr(annotation, "__metadata__", ())):
        if isinstance(each, Form):
            return each
    inner = (_said_form(each) for each in typing.get_args(annotation))
    return next((form for form in inner if form is not None), None)


def _default(node: dict[str, Any]) -> str:
    """The default as a file writes it, or ""."""
    if "default" not in node:
        return ""
    return f"`{_toml(node['default'])}`"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):  # a list of one may be written as the one
        return _toml(value[0]) if len(value) == 1 else f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _is_table(field: FieldInfo) -> bool:
    """True for what stands in the file as [NAME]."""
    text = str(field.annotation)
    return "Table" in text or "Shared" in text


def _meaning(model: type[Table]) -> str:
    return (model.__doc__ or "").split("\n\n")[0].replace("\n    ", " ")


def _names() -> str:
    return "NAME is " + (Configuration.model_fields["listeners"].description or "").removeprefix("Listeners by name: ")
