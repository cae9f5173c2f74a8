"""docs/openapi.yaml has every request of the table, every parameter of it, and nothing else; answers of a stand-in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from relayd.channel.live import course, head, line
from relayd.channel.messages import Sort
from relayd.control.admin_routes import CONFIRM_S_MAX, ROUTES, Route
from relayd.log.events import Level
from relayd.spec import Ordered
from tests.openapi import FILE, body_schema, document, operation, resolved, violations
from tests.unit.control.operating import EXPLANATION, LISTING, NO, TARGETS, YES

IDS = [f"{route.method} {route.path}" for route in ROUTES]


def path_of(route: Route) -> str:
    return route.path


def test_it_has_the_requests_of_the_table() -> None:
    there = {(method.upper(), path) for path, methods in document()["paths"].items() for method in methods}
    assert there == {(route.method, route.path) for route in ROUTES}


def parameters(route: Route) -> dict[str, bool]:
    """Those of the file, and which are required."""
    said = operation(route.method, route.path)
    if route.method == "GET":
        assert "requestBody" not in said
        assert all(one["in"] == "query" and one["schema"] for one in said.get("parameters", ()))
        return {one["name"]: one.get("required", False) for one in said.get("parameters", ())}
    assert "parameters" not in said
    schema = body_schema(route.method, route.path)
    assert schema["additionalProperties"] is False
    assert said["requestBody"].get("required", False) == bool(violations({}, schema))
    return {name: name in schema.get("required", ()) for name in schema["properties"]}


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_it_has_their_parameters(route: Route) -> None:
    assert parameters(route) == {one.name: one.required for one in route.parameters}


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "POST"], ids=path_of)
def test_what_need_not_be_said_may_be_null(route: Route) -> None:
    schema = body_schema(route.method, route.path)
    for name, one in schema["properties"].items():
        assert bool(violations(None, one)) == (name in schema.get("required", ())), name


def test_values_that_the_code_has_too() -> None:
    assert resolved({"$ref": "#/components/schemas/Level"})["enum"] == [each.value for each in Level]
    assert body_schema("POST", "/v1/reload")["properties"]["confirm_s"]["maximum"] == CONFIRM_S_MAX
    assert set(body_schema("POST", "/v1/target")["properties"]["ordered"]["enum"]) == {
        *(each.value for each in Ordered),
        None,
    }


@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_every_request_says_how_it_fails(route: Route) -> None:
    said = operation(route.method, route.path)
    assert said["summary"]
    assert said["operationId"]
    assert set(said["tags"]) <= {tag["name"] for tag in document()["tags"]}
    always = {"200", "400", "403", "500", "503"}
    guarded = set() if route.open_to_all else {"401", "421"}
    assert (said.get("security") == []) == route.open_to_all
    assert {"401", "421"} & set(said["responses"]) == guarded
    assert always | ({"408", "413"} if route.method == "POST" else set()) <= set(said["responses"])


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def test_any_reader_of_yaml_can_read_it() -> None:
    assert "<<:" not in FILE.read_text()  # of YAML 1.1 only


def test_everything_in_it_is_a_schema_and_used() -> None:
    used = set(references(document()))
    for one in used:
        assert resolved({"$ref": one})
    there = {f"#/components/{kind}/{name}" for kind, named in document()["components"].items() for name in named}
    assert {one for one in there if "/securitySchemes/" not in one} == used
    for schema in document()["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert document()["openapi"].startswith("3.1.")


def test_a_wrong_answer_is_found() -> None:
    verdict = {"$ref": "#/components/schemas/Verdict"}
    assert violations(YES.as_json(), verdict) == violations(NO.as_json(), verdict) == []
    assert violations({**YES.as_json(), "more": 1}, verdict)
    assert violations({**YES.as_json(), "ok": "yes"}, verdict)
    assert violations({"ok": True}, verdict)


def test_the_answers_of_the_stand_in() -> None:
    assert violations(EXPLANATION, {"$ref": "#/components/schemas/Explanation"}) == []
    for target in TARGETS:
        assert violations(target, {"$ref": "#/components/schemas/Target"}) == []


def test_people_are_told_of_it() -> None:
    assert f"({FILE.name})" in (FILE.parent / "admin.md").read_text()


def test_a_connection_is_what_workers_tell() -> None:
    connection = resolved({"$ref": "#/components/schemas/Connection"})
    told = json.loads(line("{", course("", "", None, None), 0.0, 0.0, (0, 0), (None, None), 0))
    told |= json.loads(head("", 0, "", "", "", "", 0, "")[:-1] + "}")
    assert set(connection["required"]) == set(connection["properties"]) == told.keys()
    assert violations(LISTING, {"$ref": "#/components/schemas/Connections"}) == []
    sorts = next(one for one in operation("GET", "/v1/connections")["parameters"] if one["name"] == "sort")
    assert sorts["schema"]["enum"] == [sort.value for sort in Sort]
