"""The page for people: that it says what there is, and nothing but what it means to. A browser looks at it in
tests/soak/test_page.py.
"""

import base64
import copy
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayd.control import page
from relayd.control.page import marks
from tests.unit.control.operating import TARGETS

STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 42,
    "started_at": "2026-11-23T00:12:00Z",
    "config": {
        "file": "/etc/relayd/relay.toml",
        "sha256": "9f86",
        "number": 0,
        "loaded_at": "2026-11-23T00:12:00Z",
        "last_reload": None,
        "confirm_until": None,
    },
    "workers": [{"number": 1, "pid": 43, "phase": "running"}],
    "names": [],
    "listeners": [
        {
            "name": "web",
            "type": "stream",
            "active": 1200,
            "accepted": 34000,
            "bytes_in": 2048,
            "bytes_out": 1024 * 1024,
            "rate": {"accepted": 12.0, "bytes_in": 1536.0, "bytes_out": 99.0},
            "history": [[1.0, 10.0, 20.0], [2.0, 0.0, 0.0]],
        },
        {"name": "dns", "type": "dgram", "active": 0, "accepted": 0, "bytes_in": 0, "bytes_out": 0},
    ],
    "targets": TARGETS,
}
ONE: dict[str, Any] = {
    "id": "8f76d9-0-1",
    "worker": 1,
    "listener": "web",
    "pool": "web",
    "type": "tcp",
    "client": "2001:db8::1",
    "client_port": 39552,
    "local": "[::1]:8080",
    "target": "10.0.0.12:80",
    "state": "held_up",
    "in": "open",
    "out": "full",
    "age_s": 200.3,
    "idle_s": 0.4,
    "bytes_in": 79,
    "bytes_out": 201,
    "rate_in": 0.0,
    "rate_out": None,
}
FOUND = {"total": 1, "complete": True, "connections": [ONE]}


class Reader(HTMLParser):
    """The texts of each element that has an id, and all tags with their attributes."""

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: dict[str, list[str]] = {}
        self.texts: dict[str, str] = {}
        self._id = ""
        self.feed(document.decode())
        self.rows = {name: [" ".join(row.split()) for row in rows] for name, rows in self.rows.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        self._id = "" if tag == "footer" else given.get("id") or self._id
        if tag == "small" and self._id in self.rows:
            self.rows[self._id][-1] += " "
        if tag == "tr":
            self.rows.setdefault(self._id, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if self._id in self.rows and tag in ("td", "th", "small", "span"):
            self.rows[self._id][-1] += " "

    def handle_data(self, data: str) -> None:
        self.texts[self._id] = self.texts.get(self._id, "") + data
        if self._id in self.rows:
            self.rows[self._id][-1] += data


def changed(**members: Any) -> dict[str, Any]:
    return copy.deepcopy(STATUS) | members


def read(status: dict[str, Any] = STATUS, found: dict[str, Any] | None = FOUND, *more: str) -> Reader:
    return Reader(page.document(status, found, *more))


def test_it_says_what_there_is() -> None:
    found = read()
    assert found.texts["life"].strip() == "0.1.0, pid 42, since 2026-11-23 00:12:00 UTC"
    assert found.rows["listeners-rows"] == [
        "web stream 1,200 12/s 34,000 1.5 KiB/s 2.0 KiB 99 B/s 1.0 MiB",
        "dns dgram 0 – 0 – 0 B – 0 B",
    ]
    assert found.rows["targets-rows"] == [
        "10.0.0.11:80 web down for 3m 2 connect timeout x3 5 failures met by clients, the last 2m ago: connect timeout",
        "10.0.0.12:80 web up 1 backup",
    ]
    assert found.rows["connections-rows"] == [
        "[2001:db8::1]:39552 web 10.0.0.12:80 held up, out full 3m idle <1s 79 B 0 B/s 201 B –"
    ]
    assert found.texts["connections-note"].strip() == "1 in all"
    sums = " ".join(found.texts["sums"].split())
    assert sums.startswith("Open1,200 New12/s In1.5 KiB/s Out99 B/s Targets in use1 of 2 Workers1 of 1")


def test_targets_that_need_a_look_come_first() -> None:
    found = read(changed(targets=[TARGETS[1], TARGETS[0]]))
    assert [row.split()[2] for row in found.rows["targets-rows"]] == ["down", "up"]


def test_nothing_is_said_as_nothing() -> None:
    found = read(changed(listeners=[], targets=[]), {"total": 0, "complete": True, "connections": []})
    assert [found.rows[f"{name}-rows"] for name in ("listeners", "targets", "connections")] == [
        ["no listener"],
        ["no target"],
        ["none"],
    ]


def test_what_somebody_has_to_know_is_said_without_lines_of_the_file() -> None:
    config = STATUS["config"] | {
        "confirm_until": "2026-11-23T00:20:00Z",
        "last_reload": {"at": "2026-11-23T00:15:02Z", "ok": False, "errors": ["f:7:1: bad\n  token = 'x'"] * 7},
    }
    workers = [{"number": 1, "pid": None, "phase": "starting"}]
    names = [{"name": "a:80", "error": "SERVFAIL"}, {"name": "b:80", "error": None}]
    found = read(changed(config=config, workers=workers, names=names))
    news = found.texts["news"]
    assert "Goes back to the configuration before at 2026-11-23 00:20:00 UTC" in news
    assert "2026-11-23 00:15:02 UTC was refused" in news
    assert news.count("f:7:1: bad") == 5
    assert "And 2 more" in news
    assert "token" not in news
    assert "Worker 1 is starting." in news
    assert "a:80 does not resolve: SERVFAIL" in news
    assert "b:80" not in news
    assert "Workers0 of 1" in " ".join(found.texts["sums"].split())


def test_there_are_never_more_rows_than_a_phone_can_take() -> None:
    listeners = [{**STATUS["listeners"][1], "name": f"l{number}"} for number in range(3000)]
    targets = [{**TARGETS[0], "target": f"10.0.0.1:{number}"} for number in range(3000)]
    document = page.document(
        changed(listeners=listeners, targets=targets), {"total": 9000, "complete": False, "connections": [ONE] * 500}
    )
    found = Reader(document)
    assert len(found.rows["listeners-rows"]) == len(found.rows["targets-rows"]) == 100
    assert len(found.rows["connections-rows"]) == page.CONNECTIONS_SHOWN
    assert "The first 100 of 3,000" in found.texts["listeners-note"]
    assert found.texts["connections-note"].strip() == "The first 500 of 9,000; a worker has not answered in time"
    assert len(document) < 250_000


@pytest.mark.parametrize(
    ("q", "asks"),
    [
        ("", {}),
        ("web", {"listener": "web"}),
        ("10.0.0.11:80", {"target": "10.0.0.11:80"}),
        ("8f76d9-0-1", {"conn_id": "8f76d9-0-1"}),
        ("10.0.0.0/8", {"client": "10.0.0.0/8"}),
        ("nonsense", {"client": "nonsense"}),
    ],
)
def test_what_is_typed_is_one_question(q: str, asks: dict[str, str]) -> None:
    assert page.question(q, STATUS) == asks


def test_a_search_stays_in_the_form_and_in_the_links() -> None:
    found = read(STATUS, None, 'x" <y>&é', "rate")
    fields = {each["name"]: each["value"] for tag, each in found.tags if tag == "input"}
    assert fields == {"q": 'x" <y>&é', "sort": "rate"}
    links = [each for tag, each in found.tags if tag == "a"]
    assert [each["href"] for each in links] == [f"/?q=x%22+%3Cy%3E%26%C3%A9&sort={sort}" for sort in page.SORTS]
    assert [each["href"] for each in links if "aria-current" in each] == ["/?q=x%22+%3Cy%3E%26%C3%A9&sort=rate"]
    assert found.texts["connections-note"].strip() == """'x" <y>&é' is no listener, client, target or id"""


TEXTS = st.text(min_size=1, max_size=20) | st.sampled_from(
    [
        "</script><script>x()</script>",
        "</style><b>",
        '"><img src=x onerror=x()>',
        "' onload='x",
        "\udcff",
        "$css",
        "&lt;",
    ]
)


@given(TEXTS)
def test_what_others_say_is_text_wherever_it_stands(said: str) -> None:
    usual = Reader(page.document(STATUS, FOUND)).tags
    listeners = [STATUS["listeners"][0] | {"name": said, "type": said}, STATUS["listeners"][1]]
    targets = [
        TARGETS[0]
        | {"target": said, "pool": said, "reason": said, "failures": TARGETS[0]["failures"] | {"reason": said}},
        TARGETS[1],
    ]
    one = ONE | {"client": said, "listener": said, "target": said, "state": said, "in": said}
    status = changed(listeners=listeners, targets=targets, version=said)
    found = Reader(page.document(status, FOUND | {"connections": [one]}, said)).tags
    # A line may break after a colon, and nothing else depends on what was said.
    assert [(tag, sorted(given)) for tag, given in found if tag != "wbr"] == [
        (tag, sorted(given)) for tag, given in usual if tag != "wbr"
    ]


def test_no_script_runs_and_nothing_is_loaded_but_what_the_policy_names() -> None:
    document = page.document(STATUS, FOUND).decode()
    policy = dict(page.HEADERS)["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        sources = re.findall(f"<{tag}>(.*?)</{tag}>", document, re.DOTALL)
        assert len(sources) == 1
        digest = base64.b64encode(hashlib.sha256(sources[0].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy
    assert "unsafe" not in policy
    given = [(name, value) for _, each in Reader(document.encode()).tags for name, value in each.items()]
    assert not [name for name, _ in given if name.startswith("on") or name in ("style", "src", "srcdoc")]
    links = [value or "" for name, value in given if name in ("href", "action")]
    assert links
    assert all(value == "/" or value.startswith(("/?", "data:image/svg+xml,")) for value in links)


def test_tables_can_be_heard() -> None:
    tags = read().tags
    assert {each.get("scope") for tag, each in tags if tag == "th"} == {"col", "row"}
    assert [each["for"] for tag, each in tags if tag == "label"] == ["q"]
    assert [each["role"] for _, each in tags if each.get("role") in ("status", "alert")] == ["status"]
    ids = [each["id"] for _, each in tags if "id" in each]
    assert len(set(ids)) == len(ids)
    assert all("id" in each for _, each in tags if "data-live" in each)


def test_only_shows() -> None:
    document = page.document(STATUS, FOUND).decode()
    assert re.findall(r'method="(\w+)"', document) == ["get"]
    assert "/v1/" not in document


@pytest.mark.parametrize(
    ("values", "points"),
    [
        ([0, 0], "98.3,29.0 100.0,29.0"),
        ([0, 5, 10], "96.6,29.0 98.3,15.0 100.0,1.0"),
        ([1e300, -1], "98.3,1.0 100.0,29.0"),
    ],
)
def test_a_line(values: list[float], points: str) -> None:
    assert f'<polyline class="edge" points="{points}"/>' in marks.line(values)


def test_a_line_of_one_point_is_none() -> None:
    assert "svg" not in marks.line([1.0])


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "<1s"), (1, "1s"), (59.9, "60s"), (60, "1m"), (7200, "2h"), (86_400 * 3, "3d")]
)
def test_how_long(seconds: float, words: str) -> None:
    assert marks.lasting(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, "–"), (0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1024 * 100, "100 KiB"), (1.5 * 2**40, "1.5 TiB")],
)
def test_how_much(count: float | None, words: str) -> None:
    assert marks.size(count) == words
