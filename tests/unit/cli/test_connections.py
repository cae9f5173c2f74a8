"""Connections and sessions for people."""

from typing import Any

import pytest

from relayd.cli import connections as report
from relayd.cli.connections import client_of, path, text
from tests.fake_admin import connection

INSIDE = {"rtt_ms": 0.234, "retrans": 1234, "target_rtt_ms": None, "target_retrans": 0}


def answer(*ones: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"total": len(ones), "complete": True, "connections": list(ones), **changed}


def test_all_of_one() -> None:
    one = connection(1, age_s=7500.0, idle_s=0.4, rate_in=None, bytes_in=5 * 1024**2, rate_out=0.0)
    assert text(answer(one), None) == [
        "id          listener  type  client          target           age  idle       in      out  in/s  out/s  state",
        "8f76d9-0-1  web       tcp   10.0.0.2:30001  10.1.0.2:8080  2h05m    0s  5.0 MiB  2.0 KiB     -  0 B/s  "
        "open/open",
    ]
    assert text(answer({**one, **INSIDE}), None, tcp_info=True)[1].endswith(
        "open/open  0.2 ms    1,234           -               0"
    )


def test_in_a_terminal_it_fits() -> None:
    ones = [connection(number, client=client) for number, client in enumerate(("10.0.0.7", "2001:db8::a:b:c:1"))]
    assert text(answer(*ones), 100) == [
        "id          listener  client                     target         age    in/s      out/s  state",
        "8f76d9-0-0  web       10.0.0.7:30000             10.1.0.1:8080   0s   0 B/s      0 B/s  open/open",
        "8f76d9-0-1  web       [2001:db8::a:b:c:1]:30001  10.1.0.2:8080   1s  12 B/s  1.0 KiB/s  open/open",
    ]
    assert text(answer(*ones), 60)[2] == "8f76d9-0-1  web       [2001:db8::…:c:1]:30001  10.1.0.2:8080"
    for cells in range(1, 200):
        assert all(len(line) <= cells for line in text(answer(*ones), cells))


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({}, "10.0.0.2:30001"),
        ({"client": "2001:db8::1", "client_port": 5}, "[2001:db8::1]:5"),
        ({"client": "fe80::1%eth0", "client_port": 5}, "[fe80::1%eth0]:5"),
        ({"client": "unix:@name", "client_port": 0}, "unix:@name"),
        ({"client": "unix:/run/a.sock", "client_port": None}, "unix:/run/a.sock"),
        ({"client": "unix:", "client_port": 0}, "-"),
        ({"client": "", "client_port": 0}, "-"),
    ],
)
def test_clients(changed: dict[str, Any], shown: str) -> None:
    assert client_of(connection(1, **changed)) == shown


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"state": "dialing", "in": None, "out": None, "target": ""}, "-  dialing"),
        ({"in": "full", "out": "ended"}, "10.1.0.2:8080  full/ended"),
        ({"state": "held_up"}, "10.1.0.2:8080  held up"),
        ({"state": "relaying", "in": None, "out": None, "type": "udp"}, "10.1.0.2:8080  relaying"),
    ],
)
def test_states(changed: dict[str, Any], shown: str) -> None:
    row = text(answer(connection(1, **changed)), None)[1].split("  ")
    assert "  ".join((row[4 + (row[3] == "")], row[-1])).endswith(shown) or shown.split()[0] in row


def test_what_is_not_shown_is_said() -> None:
    assert text(answer(connection(1), total=4001), None)[2:] == ["4,000 more: --limit"]
    assert text(answer(connection(1), total=1, complete=False), None)[2:] == [
        "a worker has not answered in time: what it has is missing"
    ]
    assert len(text(answer(), 80)) == 1


def test_what_is_asked() -> None:
    assert path({}) == path({"listener": None, "tcp_info": False}) == "/v1/connections"
    assert path({"client": "10.0.0.0/8", "tcp_info": True, "limit": 5, "target": "unix:@a&b"}) == (
        "/v1/connections?client=10.0.0.0%2F8&tcp_info=yes&limit=5&target=unix%3A%40a%26b"
    )
    assert path({"target": "unix:/\udcff"}) == "/v1/connections?target=unix%3A%2F%FF"


@pytest.mark.parametrize("tcp_info", [False, True])
def test_a_text_for_each_column(tcp_info: bool) -> None:
    assert len(report.columns(tcp_info=tcp_info)) == len(report.row(connection(1), tcp_info=tcp_info))


@pytest.mark.parametrize("key", ["id", "client", "age_s", "rate_in", "in"])
def test_of_another_version(key: str) -> None:
    one = connection(1)
    del one[key]
    with pytest.raises(KeyError, match=key):
        text(answer(one), 80)
