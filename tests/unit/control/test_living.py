import json
from dataclasses import astuple

import pytest

from relayd.channel.live import pack_rows
from relayd.channel.messages import Seen, Selection
from relayd.control.living import listing, selection_of


@pytest.mark.parametrize(
    ("client", "host", "port"),
    [
        ("192.0.2.7", "192.0.2.7", None),
        ("192.0.2.7:80", "192.0.2.7", 80),
        ("2001:DB8::1", "2001:db8::1", None),
        ("fe80::1%eth0", "fe80::1", None),
        ("[2001:db8::1]:80", "2001:db8::1", 80),
        ("10.1.2.3/8", "10.0.0.0/8", None),
        ("unix:/run/a", "unix:/run/a", None),
        ("unix:", "unix:", None),
    ],
)
def test_a_client_as_people_write_it(client: str, host: str, port: int | None) -> None:
    assert selection_of(client=client) == Selection(client=host, client_port=port)


@pytest.mark.parametrize("client", ["", "example.com", "10.0.0.1:http", "10.0.0.0/33", "10.0.0", "srv:x", "/run/a"])
def test_what_is_no_client(client: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # ipaddress says it in many ways
        selection_of(client=client)


def test_nothing_said_means_all() -> None:
    assert set(astuple(selection_of())) == {None}


def test_the_first_ones_of_all_workers() -> None:
    seen = [
        Seen(1, 7, 2, False, pack_rows([5.0, -1.0], ['{"id":"b"}', '{"id":"d"}'])),
        Seen(1, 7, 0, last=True),
        Seen(1, 1, 2, True, pack_rows([9.0, 2.0], ['{"id":"a"}', '{"id":"c"}'])),
    ]
    found = json.loads(listing(seen, 9, complete=True))
    assert found == {"total": 8, "complete": True, "connections": [{"id": name} for name in "abcd"]}
    short = json.loads(listing(seen, 2, complete=False))
    assert short == {"total": 8, "complete": False, "connections": [{"id": name} for name in "ab"]}


def test_nothing_is_an_answer_too() -> None:
    assert json.loads(listing([], 9, complete=True)) == {"total": 0, "complete": True, "connections": []}
