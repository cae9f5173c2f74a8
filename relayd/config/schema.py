"""The JSON schema of relay.toml, for editors: from the models, with what pydantic cannot know about TOML put right.

Draft 7, which Taplo and the TOML extensions of editors read. TOML has no null, a list of one may be written as the one,
and the defaults are those of `model.BUILT_IN_TOML`, as a file would write them.
"""

from typing import Any

from relayd.config.blocks import NAME_PATTERN
from relayd.config.model import BUILT_IN_TOML, Configuration
from relayd.spec import ADMIN_SOCKET

_KEEPALIVE_DEFAULTS: dict[str, object] = {"idle": "60s", "interval": "10s", "probes": 6}
_RESOLVE_DEFAULTS: dict[str, object] = {"family": "any", "min_ttl": "1s", "max_ttl": "5m"}
_LOG_DEFAULTS: dict[str, object] = {"start": False, "progress": "off"}
_CHECK_DEFAULTS: dict[str, object] = {"interval": "2s", "rise": 2, "fall": 3, "method": "GET", "path": "/"}
_DAEMON_DEFAULTS: dict[str, object] = {"workers": "auto", "drain_timeout": "30s", "preserve_connections": True}


def schema() -> dict[str, Any]:
    """A new dictionary, ready for `json.dumps`."""
    raw = _plain(Configuration.model_json_schema(ref_template="#/definitions/{model}"))
    definitions: dict[str, Any] = raw.pop("$defs")
    listener, pool = definitions["ListenerTable"], definitions["PoolTable"]
    for table in (listener, pool, definitions["Shared"]):
        _set_defaults(table, BUILT_IN_TOML)
    listener["properties"]["type"]["default"] = "stream"
    listener["properties"]["pool"]["pattern"] = NAME_PATTERN
    listener["required"], pool["required"] = ["bind"], ["targets"]
    listener["oneOf"] = [{"required": ["targets"]}, {"required": ["pool"]}]
    _set_defaults(definitions["KeepaliveTable"], _KEEPALIVE_DEFAULTS)
    _set_defaults(definitions["ResolveTable"], _RESOLVE_DEFAULTS)
    _set_defaults(definitions["ListenerLogTable"], _LOG_DEFAULTS)
    _set_defaults(definitions["CheckTable"], {**_CHECK_DEFAULTS, "status": "200-399"})
    _set_defaults(definitions["DaemonTable"], _DAEMON_DEFAULTS)
    for targets in (listener["properties"]["targets"], pool["properties"]["targets"]):
        targets["items"] = {"anyOf": [definitions["TargetTable"]["properties"]["address"], targets["items"]]}
        _or_one(targets, at_least=1)
    _or_one(listener["properties"]["bind"], at_least=1)
    admin_listen = definitions["AdminTable"]["properties"]["listen"]
    for single in (raw["properties"]["include"], admin_listen, definitions["AdminTable"]["properties"]["hosts"]):
        _or_one(single, at_least=0)
    admin_listen["default"] = [str(ADMIN_SOCKET)]
    definitions["AdminTable"]["properties"]["hosts"]["default"] = []
    for named in ("listeners", "pools"):
        raw["properties"][named]["propertyNames"] = {"pattern": NAME_PATTERN}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "relay.toml",
        **raw,
        "definitions": definitions,
    }


def _plain(node: Any) -> Any:
    """`node` without titles, nulls and the discriminators of unions, which are pydantic's own."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {
        key: {name: _plain(item) for name, item in value.items()} if key in ("properties", "$defs") else _plain(value)
        for key, value in node.items()
        if key != "title" and not (key == "default" and value is None)
    }
    for union in ("anyOf", "oneOf"):
        if union in plain:
            alternatives = [item for item in plain.pop(union) if item != {"type": "null"}]
            plain = {**plain, **(alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives})}
    return plain


def _set_defaults(table: dict[str, Any], defaults: dict[str, object]) -> None:
    for key in defaults.keys() & table["properties"].keys():
        table["properties"][key]["default"] = defaults[key]


def _or_one(node: dict[str, Any], at_least: int) -> None:
    """A key that takes an array takes one element of it as well."""
    array = {key: node.pop(key) for key in ("type", "items")}
    node.pop("default", None)
    node["anyOf"] = [array["items"], {**array, "minItems": at_least}]
