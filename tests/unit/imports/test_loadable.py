"""What the loader refuses is taken out, and told with its line."""

from dataclasses import replace
from pathlib import Path

import pytest

from relayd.config.problems import Problem
from relayd.imports.draft import Draft, Home, Imported, Place, Setting, Value
from relayd.imports.loadable import loadable
from tests.unit.imports.reading import problems_in, target, told, toml


def draft(name: str, bind: tuple[str, ...], targets: tuple[str, ...] = ("10.0.0.1:80",), **settings: Setting) -> Draft:
    places = tuple(Place(text, 10 + number) for number, text in enumerate(bind))
    goals = tuple(Place(text, 20 + number) for number, text in enumerate(targets))
    return Draft(name, 3, f"listen {name}", ("stream",), places, goals, settings)


def what_is_left(directory: Path, *drafts: Draft, daemon: dict[str, Setting] | None = None) -> Imported:
    found = loadable(Imported(drafts, (), daemon or {}, ()), "file", problems_in(directory))
    assert not found.drafts or problems_in(directory)(toml(found)) == ()
    return found


def test_what_loads_stays(tmp_path: Path) -> None:
    one = draft("a", ("127.0.0.1:1",))
    assert what_is_left(tmp_path, one).drafts == (one,)
    assert what_is_left(tmp_path).drafts == ()


@pytest.mark.parametrize(
    ("bad", "left", "binds", "targets"),
    [
        (draft("a", ("127.0.0.1:1", "nonsense")), [(11, "bind nonsense")], 1, 1),
        (draft("a", ("127.0.0.1:1",), ("x:1", "0.0.0.0:1", "y:1")), [(21, "target 0.0.0.0:1")], 1, 2),
        (draft("a", ("127.0.0.1:1",), nodelay=Setting("x", 7)), [(7, "nodelay = x")], 1, 1),
        (draft("a", ("127.0.0.1:1",), mode=Setting("0600", 7)), [(7, "mode = 0600")], 1, 1),
        (
            draft("a", ("127.0.0.1:1",), keepalive=Setting({"idle": "1ms"}, 7)),
            [(7, "keepalive = {'idle': '1ms'}")],
            1,
            1,
        ),
        (draft("a.b", ("127.0.0.1:1", "127.0.0.1:99999")), [(11, "bind 127.0.0.1:99999")], 1, 1),
    ],
)
def test_the_smallest_part_is_taken_out(
    tmp_path: Path, bad: Draft, left: list[tuple[int, str]], binds: int, targets: int
) -> None:
    found = what_is_left(tmp_path, bad)
    assert told(found) == left
    assert [(len(one.binds), len(one.targets)) for one in found.drafts] == [(binds, targets)]


def test_a_listener_without_anything_is_none(tmp_path: Path) -> None:
    found = what_is_left(tmp_path, draft("a", ("nonsense",)), draft("b", ("127.0.0.1:2",), ("0.0.0.0:1",)))
    assert found.drafts == ()
    assert told(found) == [(10, "bind nonsense"), (20, "target 0.0.0.0:1")]


def test_of_two_that_conflict_the_first_stays(tmp_path: Path) -> None:
    found = what_is_left(tmp_path, draft("a", ("0.0.0.0:1",)), draft("b", ("127.0.0.1:1", "127.0.0.1:2")))
    assert [[place.text for place in one.binds] for one in found.drafts] == [["0.0.0.0:1"], ["127.0.0.1:2"]]
    assert told(found) == [(10, "bind 127.0.0.1:1")]


def test_what_all_share(tmp_path: Path) -> None:
    both = Setting("999d", 7)
    found = what_is_left(
        tmp_path, draft("a", ("127.0.0.1:1",), idle_timeout=both), draft("b", ("127.0.0.1:2",), idle_timeout=both)
    )
    assert told(found) == [(7, "idle_timeout = 999d")]
    assert [one.settings for one in found.drafts] == [{}, {}]


@pytest.mark.parametrize("bad", ["0.0.0.0:1", "\udcfc:1"])
def test_where_backups_are_left_alone_they_are_none(tmp_path: Path, bad: str) -> None:
    one = draft("a", ("127.0.0.1:1",))
    places = (Place(bad, 20), Place("10.0.0.1:80", 21, backup=True), Place("10.0.0.2:80", 22, 5, backup=True))
    found = what_is_left(tmp_path, replace(one, targets=places))
    assert [target(place) for place in found.drafts[0].targets] == ["10.0.0.1:80", "10.0.0.2:80 weight 5"]
    assert [(line, text) for line, text in told(found) if line > 20] == [
        (21, "backup 10.0.0.1:80"),
        (22, "backup 10.0.0.2:80"),
    ]
    assert len(found.leftovers) == 3


def test_a_target_with_a_share_that_is_refused(tmp_path: Path) -> None:
    one = draft("a", ("127.0.0.1:1",))
    places = (Place("10.0.0.1:80", 20), Place("0.0.0.0:1", 21, 2), Place("10.0.0.2:80", 22, 257))
    found = what_is_left(tmp_path, replace(one, targets=places))
    assert [target(place) for place in found.drafts[0].targets] == ["10.0.0.1:80"]
    assert told(found) == [(21, "target 0.0.0.0:1"), (22, "target 10.0.0.2:80")]


def test_a_balance_that_is_refused(tmp_path: Path) -> None:
    found = what_is_left(tmp_path, draft("a", ("127.0.0.1:1",), balance=Setting("nosuch", 7)))
    assert told(found) == [(7, "balance = nosuch")]
    assert [one.settings for one in found.drafts] == [{}]


def test_without_a_check_nobody_is_refused(tmp_path: Path) -> None:
    bad = Setting({"type": "tcp", "rise": 0}, 7)
    found = what_is_left(tmp_path, draft("a", ("127.0.0.1:1",), health_check=bad, fail_open=Setting(False, 8)))
    assert told(found) == [(7, "health_check = {'type': 'tcp', 'rise': 0}")]
    assert [one.settings for one in found.drafts] == [{}]


@pytest.mark.parametrize("odd", [{"path": "\udcfc"}, {"send": {"hex": "\udcfc"}}, {"status": (200, "\udcfc")}])
def test_a_check_that_is_no_text(tmp_path: Path, odd: dict[str, Value]) -> None:
    bad = Setting({"type": "http", **odd}, 7)
    found = what_is_left(tmp_path, draft("a", ("127.0.0.1:1",), health_check=bad, fail_open=Setting(False, 8)))
    assert [line for line, _ in told(found)] == [7]
    assert [one.settings for one in found.drafts] == [{}]


def in_a_pool(name: str, bind: str, targets: tuple[str, ...], **settings: Setting) -> Draft:
    return replace(draft(name, (bind,), targets, **settings), home=Home("db.x", 5, "backend db"))


def test_what_is_wrong_with_a_pool_is_told_once(tmp_path: Path) -> None:
    targets, wrong = ("10.0.0.1:80", "0.0.0.0:80"), Setting("nosuch", 7)
    found = what_is_left(
        tmp_path,
        in_a_pool("a", "127.0.0.1:1", targets, balance=wrong),
        in_a_pool("b", "127.0.0.1:2", targets, balance=wrong),
    )
    assert told(found) == [(7, "balance = nosuch"), (21, "target 0.0.0.0:80")]
    assert [([place.text for place in one.targets], one.settings) for one in found.drafts] == [
        (["10.0.0.1:80"], {})
    ] * 2
    assert toml(found).count('pool = "db.x"') == 2


def test_a_pool_without_targets_takes_its_listeners_along(tmp_path: Path) -> None:
    targets = ("0.0.0.0:80",)
    found = what_is_left(
        tmp_path,
        in_a_pool("a", "127.0.0.1:1", targets),
        in_a_pool("b", "127.0.0.1:2", targets),
        draft("c", ("127.0.0.1:3",)),
    )
    assert [one.name for one in found.drafts] == ["c"]
    assert told(found) == [(20, "target 0.0.0.0:80")]


def test_the_daemon(tmp_path: Path) -> None:
    found = what_is_left(tmp_path, draft("a", ("127.0.0.1:1",)), daemon={"workers": Setting(0, 7)})
    assert told(found) == [(7, "workers = 0")]
    assert found.daemon == {}


def test_what_is_about_no_key_ends_it() -> None:
    problem = Problem("x", 0, 0, "", "too much")
    found = loadable(Imported((draft("a", ("a:1",)),), (), {}, ()), "file", lambda _: [problem])
    assert found.drafts == ()
    assert [(one.text, one.reason) for one in found.leftovers] == [("the import as a whole", "too much")]


def test_there_is_an_end() -> None:
    """A loader that always finds something else."""
    rounds = 0

    def problems_of(toml: str) -> list[Problem]:
        nonlocal rounds
        rounds += 1
        return [Problem("x", 1, 1, "listeners.a.bind[0]", "no")] if "[listeners.a]" in toml else []

    many = draft("a", tuple(f"127.0.0.1:{number}" for number in range(1, 50)))
    found = loadable(Imported((many, draft("b", ("127.0.0.1:99",))), (), {}, ()), "file", problems_of)
    assert [one.name for one in found.drafts] == ["b"]
    assert rounds < 10


def test_a_hint_goes_along(tmp_path: Path) -> None:
    found = what_is_left(tmp_path, draft("a", ("127.0.0.1:1", "127.0.0.1")))
    assert found.leftovers[0].reason.endswith('; did you mean "127.0.0.1:80"?')


def test_what_is_no_text_does_not_take_the_rest_along(tmp_path: Path) -> None:
    one = draft("a", ("unix:/run/\udcfc", "127.0.0.1:1"), interface=Setting("\udcfc", 7))
    found = what_is_left(tmp_path, one, draft("b", ("unix:/run/\udcfc",)))
    assert [[place.text for place in left.binds] for left in found.drafts] == [["127.0.0.1:1"]]
    assert told(found) == [(7, "interface = \udcfc"), (10, "unix:/run/\udcfc"), (10, "unix:/run/\udcfc")]
