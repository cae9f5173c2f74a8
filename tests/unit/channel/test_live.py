import json
from typing import Any

import pytest

from relayd.channel.live import Paths, course, head, line, pack_rows, unpack_rows

HEAD: tuple[Any, ...] = ("a-1", 2, "web", "app", "tcp", "::1", 4711, "[::1]:80")
COURSE: tuple[Any, ...] = ("10.0.0.1:80", "relaying", "open", None)
FIGURES: dict[str, Any] = {"age_s": 1.5, "idle_s": 0.25, "moved": (3, 4), "rates": (0.5, None), "attempts": 1}
#: As docs/admin.md has them, in order.
NAMES = (
    "id", "worker", "listener", "pool", "type", "client", "client_port", "local", "target", "state", "in", "out",
    "age_s", "idle_s", "bytes_in", "bytes_out", "rate_in", "rate_out", "datagrams_in", "datagrams_out", "attempts",
    "rtt_ms", "retrans", "target_rtt_ms", "target_retrans",
)  # fmt: skip


@pytest.mark.parametrize("datagrams", [None, (1, 2)])
@pytest.mark.parametrize("paths", [Paths(), Paths(0.125, 0), Paths(None, None, 0.25, 3), Paths(0.125, 0, 0.25, 3)])
def test_it_is_the_json_of_it(datagrams: tuple[int, int] | None, paths: Paths) -> None:
    text = line(head(*HEAD), course(*COURSE), **FIGURES, datagrams=datagrams, paths=paths)
    values = (*HEAD, *COURSE, 1.5, 0.25, 3, 4, 0.5, None, *(datagrams or (None, None)), 1, *paths)
    assert list(json.loads(text).items()) == list(zip(NAMES, values, strict=True))


def test_whatever_is_in_names_and_paths() -> None:
    mad = ('a"b\\', "é", "unix", "unix:/a\nb\udc80", 0, "unix:@\x00")
    text = line(head("a-1", 2, *mad), course("%s %", "dialing", None, None), **FIGURES)
    found = json.loads(text)
    assert tuple(found[name] for name in NAMES[2:8]) == mad
    assert found["target"] == "%s %"
    assert "\n" not in text
    assert text.isascii()


def test_times_and_rates_have_few_digits() -> None:
    figures = FIGURES | {"age_s": 1 / 3, "rates": (1 / 3, 0.0)}
    text = line(head(*HEAD), course(*COURSE), **figures, paths=Paths(1 / 3, 0))
    assert '"age_s":0.333,' in text
    assert '"rate_in":0.3,"rate_out":0.0,' in text
    assert '"rtt_ms":0.333,' in text


def test_rows_come_out_as_they_went_in() -> None:
    places = [1.5, -0.0, float("inf"), 10.0]  # a 10 is a line feed
    lines = ["a", "{}", "", "b"]
    assert list(unpack_rows(pack_rows(places, lines), 4)) == list(
        zip(places, (text.encode() for text in lines), strict=True)
    )
    assert list(unpack_rows(pack_rows([], []), 0)) == []


@pytest.mark.parametrize(
    ("rows", "count"), [(b"", 1), (bytes(7), 1), (bytes(8) + b"a\nb", 1), (bytes(16) + b"a", 2), (b"a", 0)]
)
def test_rows_that_are_not_so_many(rows: bytes, count: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # array and zip say it
        list(unpack_rows(rows, count))
