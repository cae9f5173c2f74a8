"""As much of JSON Schema draft 7 as the schema of relay.toml uses; a keyword that it does not know fails the test."""

import re
from collections.abc import Iterator
from typing import Any

_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
_NOTES = {"$schema", "title", "description", "default", "definitions", "properties"}


def violations(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> Iterator[str]:
    """Everything in `value` that `schema` does not allow."""
    for keyword, want in schema.items():
        if keyword in _NOTES:
            continue
        yield from _check(keyword, want, value, schema, root, where)
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if name in value:
                yield from violations(value[name], inner, root, f"{where}.{name}")


def _check(
    keyword: str, want: Any, value: Any, schema: dict[str, Any], root: dict[str, Any], where: str
) -> Iterator[str]:
    if keyword == "$ref":
        yield from violations(value, root["definitions"][want.removeprefix("#/definitions/")], root, where)
    elif keyword == "anyOf":
        if all(list(violations(value, one, root, where)) for one in want):
            yield f"{where}: none of the alternatives"
    elif keyword == "oneOf":
        if sum(not list(violations(value, one, root, where)) for one in want) != 1:
            yield f"{where}: not one of the alternatives"
    elif keyword == "items":
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from violations(item, want, root, f"{where}[{index}]")
    elif keyword == "additionalProperties":
        for name in set(value) - set(schema.get("properties", {})) if isinstance(value, dict) else ():
            if want is False:
                yield f"{where}.{name}: unknown"
            else:
                yield from violations(value[name], want, root, f"{where}.{name}")
    elif keyword == "propertyNames":
        for name in value if isinstance(value, dict) else ():
            yield from violations(name, want, root, f"{where}.{name}")
    elif not _holds(keyword, want, value):
        yield f"{where}: {keyword} {want}"


def _holds(keyword: str, want: Any, value: Any) -> bool:
    if keyword == "type":
        return isinstance(value, _TYPES[want]) and (want == "boolean" or not isinstance(value, bool))
    if keyword == "enum":
        return value in want
    if keyword == "const":
        return bool(value == want)
    if keyword == "pattern":
        return not isinstance(value, str) or bool(re.search(want, value))
    if keyword == "required":
        return not isinstance(value, dict) or set(want) <= set(value)
    if keyword in ("minItems", "minLength"):
        return not isinstance(value, list | str) or len(value) >= want
    if keyword == "minimum":
        return not isinstance(value, int) or value >= want
    if keyword == "maximum":
        return not isinstance(value, int) or value <= want
    raise AssertionError(f"unknown keyword {keyword}")
