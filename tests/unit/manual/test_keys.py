"""What is said of a key is what the validators do."""

import re

import pytest
import tomli
from manual import facts
from manual.keys import Key, applies_to, tables
from pydantic import ValidationError

from relayd.address import AddressError
from relayd.config.model import Configuration
from relayd.config.ports import parse_bind, parse_target
from relayd.config.units import DURATION_MAX_MS, format_duration, parse_duration_ms

_DURATION = re.compile(r'duration, `"(\w+)"` to `"(\w+)"`')
_INTEGER = re.compile(r"integer, ([0-9]+) to ([0-9]+)")
KEYS = [(table.title, key) for table in tables() for key in table.keys]


def accepted(table: str, key: str, value: str) -> bool:
    """Whether a file may say so."""
    where = {
        "Above all tables": f"{key} = {value}",
        "A target as a table": "[listeners.x]\ntargets = { "
        + ", ".join({"address": 'address = "x:1"', key: f"{key} = {value}"}.values())
        + " }",
        "resolve": "[defaults]\nresolve = { "
        + ", ".join({"max_ttl": f'max_ttl = "{format_duration(DURATION_MAX_MS)}"', key: f"{key} = {value}"}.values())
        + " }",
        "health_check as a table": "[defaults]\nhealth_check = { "
        + ", ".join({"type": 'type = "tcp"', key: f"{key} = {value}"}.values())
        + " }",
        "keepalive as a table": f"[defaults]\nkeepalive = {{ {key} = {value} }}",
        "log of a listener": f"[defaults]\nlog = {{ {key} = {value} }}",
        "[listeners.NAME]": f"[listeners.x]\n{key} = {value}",
        "[listeners.NAME] and [defaults]": f"[defaults]\n{key} = {value}",
        "[pools.NAME], [listeners.NAME] and [defaults]": f"[pools.x]\n{key} = {value}",
    }
    text = where.get(table, f"{table}\n{key} = {value}")
    try:
        Configuration.model_validate(tomli.loads(text))
    except ValidationError:
        return False
    return True


def ids(value: object) -> str:
    return value.name if isinstance(value, Key) else ""


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_what_is_allowed_is_so(table: str, key: Key) -> None:
    if found := _DURATION.match(key.form):
        step = 1000 if "whole seconds" in key.form else 1
        first, last = map(parse_duration_ms, found.groups())
        assert accepted(table, key.name, f'"{format_duration(first)}"')
        assert accepted(table, key.name, f'"{format_duration(last)}"')
        assert not accepted(table, key.name, f'"{format_duration(last + step)}"')
        if first:
            assert not accepted(table, key.name, f'"{format_duration(first - step)}"')
        assert accepted(table, key.name, '"off"') == ('`"off"`' in key.form)
    if found := _INTEGER.match(key.form):
        least, most = map(int, found.groups())
        assert accepted(table, key.name, str(least))
        assert accepted(table, key.name, str(most))
        assert not accepted(table, key.name, str(least - 1))
        assert not accepted(table, key.name, str(most + 1))
    for literal in re.findall(r'`((?:"[a-z]+")|true|false)`', key.form):
        assert accepted(table, key.name, literal)


@pytest.mark.parametrize(("table", "key"), [each for each in KEYS if each[1].default.startswith("`")], ids=ids)
def test_a_default_can_be_written(table: str, key: Key) -> None:
    assert accepted(table, key.name, key.default.strip("`"))


@pytest.mark.parametrize(("table", "key"), KEYS, ids=ids)
def test_everything_is_said(table: str, key: Key) -> None:
    assert key.form
    assert key.meaning[0].isupper() or key.meaning.startswith(("host:", "auto ", "client:"))
    assert key.meaning.endswith(".")
    assert "Default:" not in key.meaning
    required = {
        ("[listeners.NAME]", "bind"),
        ("[pools.NAME]", "targets"),
        ("A target as a table", "address"),
        ("health_check as a table", "type"),
    }
    assert (key.default == "") == ((table, key.name) in required)


def test_for_what_it_is() -> None:
    assert applies_to("backlog") == "streams"
    assert applies_to("fast_open") == "streams; inet and inet6 binds"
    assert applies_to("max_sessions") == 'datagrams, `session = "client"`'
    assert applies_to("mode") == "both; Unix paths"
    assert applies_to("source") == "both"


@pytest.mark.parametrize(("text", "bind", "target", "meaning"), facts.ADDRESSES)
def test_addresses_are_where_they_may_be(text: str, bind: str, target: str, meaning: str) -> None:
    def may(parse: object) -> bool:
        try:
            parse(text.replace("NAME", "web"))  # type: ignore[operator]  # a parser, which `object` hides
        except AddressError:
            return False
        return True

    assert may(parse_bind) == bool(bind)
    if target:
        assert may(parse_target)
