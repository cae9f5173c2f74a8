"""Which binds can stand in one listener."""

import pytest

from relayd.imports.binds import BindLine, grouped
from relayd.imports.draft import Place, Setting


def bind(text: str, type_: str = "stream", **options: str | bool | int | None) -> BindLine:
    settings = {key: None if value is None else Setting(value, 1) for key, value in options.items()}
    return BindLine(Place(text, 1), type_, settings)


@pytest.mark.parametrize(
    ("binds", "groups"),
    [
        ([bind("a:1"), bind("a:2")], [["a:1", "a:2"]]),
        ([bind("a:1", backlog=5), bind("a:2", backlog=5)], [["a:1", "a:2"]]),
        ([bind("a:1", backlog=5), bind("a:2", backlog=6), bind("a:3", backlog=5)], [["a:1", "a:3"], ["a:2"]]),
        ([bind("a:1", backlog=None), bind("a:2", backlog=6)], [["a:1"], ["a:2"]]),
        ([bind("a:1", interface=None), bind("[::1]:1", interface=None, ipv6_only=True)], [["a:1", "[::1]:1"]]),
        (
            [bind("[::1]:1", ipv6_only=True), bind("[::1]:2", ipv6_only=None), bind("a:1")],
            [["[::1]:1", "a:1"], ["[::1]:2"]],
        ),
        ([bind("unix:/a", mode="0600"), bind("a:1", interface="eth0")], [["unix:/a", "a:1"]]),
        ([], []),
    ],
)
def test_groups(binds: list[BindLine], groups: list[list[str]]) -> None:
    assert [[place.text for place in group.places] for group in grouped(binds)] == groups


@pytest.mark.parametrize(
    ("binds", "types"),
    [
        ([bind("a:1"), bind("a:1", "dgram")], [("stream", "dgram")]),
        ([bind("a:1", "dgram"), bind("a:1")], [("stream", "dgram")]),
        ([bind("a:1"), bind("a:2", "dgram")], [("stream",), ("dgram",)]),
        ([bind("a:1"), bind("a:1", "dgram"), bind("a:2", "dgram")], [("stream",), ("dgram",)]),
        ([bind("unix:/a"), bind("unix:/a", "dgram")], [("stream",), ("dgram",)]),
        ([bind("[::]:1", ipv6_only=None), bind("[::]:1", "dgram", ipv6_only=True)], [("stream",), ("dgram",)]),
    ],
)
def test_types(binds: list[BindLine], types: list[tuple[str, ...]]) -> None:
    assert [group.types for group in grouped(binds)] == types


@pytest.mark.parametrize(
    ("binds", "only"),
    [
        ([bind("0.0.0.0:80"), bind("[::]:80", ipv6_only=None)], True),
        ([bind("[::]:80", ipv6_only=None), bind("0.0.0.0:80")], True),
        ([bind("0.0.0.0:81"), bind("[::]:80", ipv6_only=None)], None),
        ([bind("0.0.0.0:80", "dgram"), bind("[::]:80", ipv6_only=None)], None),
    ],
)
def test_both_wildcards_of_a_port(binds: list[BindLine], only: bool | None) -> None:
    settings = [group.settings.get("ipv6_only") for group in grouped(binds)]
    assert [setting.value for setting in settings if setting] == ([only] if only else [])
