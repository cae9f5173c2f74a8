"""pydantic's errors as problems: located in the file, in the words of the documentation."""

import difflib
import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from relayd.config import words
from relayd.config.document import Document
from relayd.config.model import Configuration
from relayd.config.positions import Path
from relayd.config.problems import Problem, quote, quote_short
from relayd.config.values import FAULT, kind

_WANTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "string_type": "a string",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}


def validate(document: Document) -> tuple[Configuration, frozenset[Path], list[Problem]]:
    """The model of one file as far as it is right, the paths of the keys that were left out as wrong, and why.

    A wrong key costs itself only, so that the checks between keys and between listeners still see all the rest.
    """
    problems: list[Problem] = []
    wrong: set[Path] = set()
    data = document.data
    while True:
        try:
            return Configuration.model_validate(data), frozenset(wrong), problems
        except ValidationError as error:
            details = error.errors(include_url=False)
        found = {_key_of(detail["loc"]) for detail in details}
        problems += [_problem(document, data, detail) for detail in details]
        if found <= wrong:  # not one key less than last time: keep what was reported, and end
            return Configuration(), frozenset(wrong), problems
        wrong |= found
        data = _without(data, found)


def _problem(document: Document, data: dict[str, Any], detail: ErrorDetails) -> Problem:
    kind_of_error, value = detail["type"], detail["input"]
    path = _path_in(data, detail["loc"])
    if kind_of_error == "extra_forbidden":
        message, suggestion = words.advice(path)
        return document.problem(path, message, suggestion, at_key=True)
    message, suggestion = _reason(kind_of_error, value, detail)
    if path in (("listeners",), ("pools",)):
        suggestion = f"help: a {str(path[0])[:-1]} is a table of its own: [{path[0]}.NAME]"
    return document.problem(path, message, suggestion, at_key=kind_of_error == "missing")


def _reason(kind_of_error: str, value: object, detail: ErrorDetails) -> tuple[str, str]:
    context = detail.get("ctx", {})
    if kind_of_error == FAULT:
        return str(context.get("message", detail["msg"])), str(context.get("suggestion", ""))
    if kind_of_error in _WANTED:
        return f"must be {_WANTED[kind_of_error]}, not {kind(value)}", _corrected(kind_of_error, value)
    if kind_of_error == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        message = f"must be one of {', '.join(map(quote, choices))}"
        if not isinstance(value, str):
            return f"{message}, not {kind(value)}", ""
        close = difflib.get_close_matches(value.lower()[:64], choices, n=1)
        return f"{quote_short(value)}: {message}", f"did you mean {quote(close[0])}?" if close else ""
    if kind_of_error == "greater_than_equal":
        return f"must be at least {context['ge']}", ""
    if kind_of_error == "less_than_equal":
        return f"must be at most {context['le']}", ""
    if kind_of_error == "missing":
        return "is missing", ""
    return detail["msg"], ""


def _corrected(kind_of_error: str, value: object) -> str:
    """What someone who has put a value in quotes, or written a boolean as a word, has meant."""
    if not isinstance(value, str):
        return ""
    if kind_of_error == "int_type" and re.fullmatch(r"[0-9]{1,9}", value):
        return f"help: write {value}, without quotes"
    if kind_of_error == "bool_type" and value.lower() in ("true", "yes", "on", "1", "false", "no", "off", "0"):
        return f"help: write {'true' if value.lower() in ('true', 'yes', 'on', '1') else 'false'}, without quotes"
    return ""


def _path_in(data: object, location: tuple[int | str, ...]) -> Path:
    """`location` without what pydantic adds, such as the branch of a union: steps that the file has, and the last."""
    path: list[str | int] = []
    for number, step in enumerate(location):
        inner = _step(data, step)
        alone = isinstance(data, str) or (isinstance(step, int) and not isinstance(data, list))
        if inner is _NOTHING and (number < len(location) - 1 or alone):
            continue
        data = inner
        path.append(step)
    return tuple(path)


_NOTHING = object()


def _step(data: object, step: str | int) -> object:
    """What `step` leads to, or _NOTHING."""
    if isinstance(data, dict):
        return data.get(step, _NOTHING)
    return data[step] if isinstance(data, list) and isinstance(step, int) and step < len(data) else _NOTHING


def _key_of(location: tuple[int | str, ...]) -> Path:
    """The key that is left out for an error at `location`: a whole section, or one key of a section or a block."""
    return location[: {"include": 1, "listeners": 3, "pools": 3}.get(str(location[0]), 2)]


def _without(data: dict[str, Any], paths: set[Path]) -> dict[str, Any]:
    """`data` less what `paths` name. Copies only the tables that hold keys: a value may be nested deeply."""
    kept = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for section in ("listeners", "pools"):
        blocks = kept.get(section)
        if isinstance(blocks, dict):
            kept[section] = {name: dict(table) if isinstance(table, dict) else table for name, table in blocks.items()}
    for path in paths:
        table: Any = kept
        for step in path[:-1]:
            table = table.get(step) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(path[-1], None)
    return kept
