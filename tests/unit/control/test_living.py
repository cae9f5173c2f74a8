from dataclasses import astuple

import pytest

from relayd.channel.live import Row, pack
from relayd.channel.messages import Seen, Selection, Sort
from relayd.control.living import listing, selection_of


def row(conn_id: str, age_s: float = 1.0, idle_s: float = 0.0, moved: int = 0, rate: float | None = None) -> Row:
    return Row(
        conn_id, "web", "app", "tcp", "192.0.2.1", 4711, "192.0.2.9:80", "10.0.0.1:80", "relaying", "open", "full",
        age_s, idle_s, moved, 0, rate, None, None, None, 1,
    )  # fmt: skip


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


@pytest.mark.parametrize(
    ("sort", "expected"),
    [(Sort.AGE, "cab"), (Sort.NEW, "bac"), (Sort.IDLE, "bca"), (Sort.BYTES, "acb"), (Sort.RATE, "bac")],
)
def test_the_first_ones_of_all_workers(sort: Sort, expected: str) -> None:
    rows = [row("a", 2, 1, 9, 1.0), row("b", 1, 3, 1, 2.0), row("c", 3, 2, 5)]
    seen = [(1, Seen(1, 7, pack(rows[:1]), last=False)), (1, Seen(1, 7, pack(rows[1:2]), last=True))]
    seen.append((2, Seen(1, 1, pack(rows[2:]), last=True)))
    found = listing(seen, sort, 3, complete=True)
    assert "".join(one["id"] for one in found["connections"]) == expected
    assert (found["total"], found["complete"]) == (8, True)
    short = listing(seen, sort, 2, complete=False)
    assert "".join(one["id"] for one in short["connections"]) == expected[:2]
    assert (short["total"], short["complete"]) == (8, False)


def test_names_are_those_of_the_docs() -> None:
    [one] = listing([(3, Seen(1, 1, pack([row("a", 1.23456)]), last=True))], Sort.AGE, 1, complete=True)["connections"]
    assert (one["id"], one["worker"], one["in"], one["out"], one["age_s"]) == ("a", 3, "open", "full", 1.235)
    assert not [name for name in one if name.startswith("flow")]
