"""docs/openapi.yaml, and how tests hold answers against it."""

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

FILE = Path(__file__).resolve().parent.parent / "docs" / "openapi.yaml"


@functools.cache
def document() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """`part`, or what it refers to."""
    if "$ref" not in part:
        return part
    found: Any = document()
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return resolved(found)


def operation(method: str, path: str) -> dict[str, Any]:
    """What the file says of a request."""
    found: dict[str, Any] = document()["paths"][path][method.lower()]
    return found


def body_schema(method: str, path: str) -> dict[str, Any]:
    """Of the object that a request takes."""
    found: dict[str, Any] = operation(method, path)["requestBody"]["content"]["application/json"]["schema"]
    return found


def _closed(schema: Any) -> Any:
    """`schema`, and no member beside those that it names: the file says that there may be more in another version."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    if "properties" in found and isinstance(found["properties"], dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    return found


@functools.cache
def _whole() -> dict[str, Any]:
    """All schemas, closed."""
    found: dict[str, Any] = _closed(copy.deepcopy(document()["components"]["schemas"]))
    return found


def violations(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Everything in `value` that `schema` of the file does not allow, unknown members included."""
    root = {**_closed(dict(schema)), "components": {"schemas": _whole()}}
    Draft202012Validator.check_schema(root)
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(root).iter_errors(value)]


def check_answer(method: str, path: str, status: int, content_type: str, value: Any) -> None:
    """Assert that the file has this answer. Of 404 and 405, which no request of the file gets, any error is right."""
    if status in (404, 405):
        assert violations(value, {"$ref": "#/components/schemas/Error"}) == []
        return
    responses = operation(method, path)["responses"]
    assert str(status) in responses, f"{method} {path}: {status} is not in {FILE.name}: {value}"
    content = resolved(responses[str(status)])["content"]
    kind = content_type.partition(";")[0]
    assert kind in content, f"{method} {path}: {status}: {kind}"
    assert violations(value, content[kind]["schema"]) == [], (method, path, status, value)
