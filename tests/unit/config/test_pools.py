"""Pools: what listeners that share one have, and every error between them, each at its place and once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from relayd.config import ConfigError, Loaded, Problem, load
from relayd.spec import Balance, PortRule, Share

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]
Write = Callable[..., Path]

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\npool = "app"\n'
DNS = '[listeners.dns]\ntype = "dgram"\nbind = "127.0.0.1:53"\npool = "app"\n'
APP = '[pools.app]\ntargets = ["10.0.0.11:80", "10.0.0.12:80"]\n'


def places(found: tuple[Problem, ...]) -> list[tuple[int, int, str]]:
    return [(problem.line, problem.column, problem.key) for problem in found]


def attempts(loaded: Loaded) -> list[int | None]:
    return [one.stream.dial_attempts if one.stream else None for one in loaded.spec.listeners]


# What is in force.


def test_what_is_shared_is_as_if_each_had_it(loaded: Load) -> None:
    own = '["10.0.0.11:80", { address = "10.0.0.12", weight = 2 }]\nbalance = "random"\n'
    shared = loaded(f"{WEB}{DNS}[pools.app]\ntargets = {own}dial_attempts = 7").spec.listeners
    web, dns = (
        loaded(text.replace('pool = "app"', f"targets = {own}") + more).spec.listeners[0]
        for text, more in ((WEB, "dial_attempts = 7"), (DNS, ""))
    )
    assert [one.pool for one in shared] == ["app", "app"]
    assert shared[0].targets is shared[1].targets  # many listeners times many targets are not that many
    for one, with_its_own in zip(shared, (web, dns), strict=True):
        assert (one.targets, one.shares) == (with_its_own.targets, with_its_own.shares)
        assert (one.balance, one.stream, one.datagram) == (Balance.RANDOM, with_its_own.stream, with_its_own.datagram)
        assert with_its_own.pool == ""
    assert shared[0].shares == (Share(), Share(2))
    assert shared[0].targets[1].rule is PortRule.OFFSET


def test_layers(write: Write) -> None:
    main = write(
        'include = ["pools.toml", "more.toml"]\n[defaults]\nbalance = "first"\ndial_attempts = 5\nidle_timeout = "1m"\n'
        + WEB
        + WEB.replace("web", "b").replace("8080", "1").replace('"app"', '"here"')
        + '[pools.here]\ntargets = "10.0.0.11:80"\nbalance = "random"\n'
    )
    write('[defaults]\ndial_attempts = 6\nidle_timeout = "2m"\n' + APP, "pools.toml")
    write(
        '[defaults]\ndial_attempts = 9\nidle_timeout = "3m"\n' + WEB.replace("web", "c").replace("8080", "2"),
        "more.toml",
    )
    found = load(main)
    web, b, c = found.spec.listeners
    # What a pool may set comes from where the pool is, the rest from where the listener is.
    assert attempts(found) == [6, 5, 6]
    assert [one.balance for one in (web, b, c)] == [Balance.FIRST, Balance.RANDOM, Balance.FIRST]
    assert [one.stream.timeouts.idle_s for one in (web, b, c) if one.stream] == [60, 60, 180]
    assert sorted(found.model.pools) == ["app", "here"]


def test_built_in_where_nobody_says(loaded: Load) -> None:
    found = loaded(WEB + APP)
    assert attempts(found) == [3]
    assert found.spec.listeners[0].balance is Balance.ROUND_ROBIN
    assert found.warnings == ()


def test_names_of_targets_are_resolved(loaded: Load) -> None:
    assert [str(name) for name in loaded(WEB + APP.replace("10.0.0.11", "a.example.com")).spec.names] == [
        "a.example.com:80"
    ]


# What a listener says of its pool.


@pytest.mark.parametrize(
    ("pools", "suggestion"),
    [
        (APP, 'did you mean "app"?'),
        (APP.replace("app", "xyz"), ""),
        ("", 'help: add a [pools.ap] with targets = ["10.0.0.11:80"]'),
    ],
)
def test_a_pool_that_is_not_there(problems: Problems, pools: str, suggestion: str) -> None:
    (problem,) = problems(WEB.replace("app", "ap") + pools)
    assert places((problem,)) == [(3, 8, "listeners.web.pool")]
    assert (problem.message, problem.suggestion) == ('there is no pool "ap"', suggestion)


def test_a_name_of_any_length(problems: Problems) -> None:
    (problem,) = problems(WEB.replace("app", "a" * 10_000) + APP)
    assert len(str(problem)) < 1000


@pytest.mark.parametrize("value", ["5", '["app"]', "true"])
def test_a_pool_that_is_no_name(problems: Problems, value: str) -> None:
    (problem,) = problems(WEB.replace('"app"', value) + APP)
    assert places((problem,)) == [(3, 8, "listeners.web.pool")]
    assert "must be a string" in problem.message


def test_targets_and_a_pool(problems: Problems) -> None:
    (problem,) = problems(WEB + 'targets = "10.0.0.1:1"\nbalance = "first"\n' + APP)
    assert places((problem,)) == [(3, 1, "listeners.web.pool")]
    assert problem.message == "`targets` are there as well: a listener has its own, or shares those of a pool"


def test_neither_targets_nor_a_pool(problems: Problems) -> None:
    (problem,) = problems(WEB.replace('pool = "app"\n', "") + APP)
    assert places((problem,)) == [(1, 12, "listeners.web.targets")]
    assert problem.suggestion == (
        'help: add targets = ["10.0.0.11:80"], or pool = "NAME" to share those of [pools.NAME]'
    )


def test_what_belongs_to_the_pool(problems: Problems, tmp_path: Path) -> None:
    found = problems(WEB + 'balance = "first"\ndial_attempts = 2\nidle_timeout = "1s"\n' + APP)
    assert places(found) == [(4, 1, "listeners.web.balance"), (5, 1, "listeners.web.dial_attempts")]
    message = f"belongs to the pool that this listener shares: pools.app at {tmp_path}/relay.toml:7:8"
    assert {problem.message for problem in found} == {message}


# What is wrong with a pool.


def test_a_pool_twice(write: Write) -> None:
    main = write('include = "b.toml"\n' + APP + WEB)
    other = write(APP, "b.toml")
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert [str(problem).splitlines()[0] for problem in caught.value.problems] == [
        f"{other}:1:8: pools.app: there is a pool of this name already: {main}:2:8"
    ]


@pytest.mark.parametrize("name", ["a b", "", "a" * 65, "ü"])
def test_a_name_that_cannot_be_one(problems: Problems, name: str) -> None:
    (problem,) = problems(WEB.replace("app", name) + APP.replace("app", f'"{name}"'))
    assert (problem.line, problem.column) == (4, 8)
    assert "cannot be a name: 1 to 64 letters, digits, _ . and -" in problem.message


def test_a_pool_without_targets(problems: Problems) -> None:
    (problem,) = problems(WEB + DNS + "[pools.app]\n")
    assert places((problem,)) == [(8, 8, "pools.app.targets")]
    assert (problem.message, problem.suggestion) == ("is missing", 'help: add targets = ["10.0.0.11:80"]')


# Each case: what stands in the pool, that two listeners share, then line, column and key, part of the message.
WRONG = [
    ('targets = "10.0.0.1"', 9, 11, "targets", '"10.0.0.1": for listeners.unix: the port is missing'),
    ('targets = ["10.0.0.1:1", "10.0.0.1:+1"]', 9, 26, "targets[1]", '"10.0.0.1:+1": for listeners.unix: the offset'),
    ('targets = "10.0.0.1:1-2"', 9, 11, "targets", '"10.0.0.1:1-2": for listeners.unix, and for 1 more: a range'),
    ('targets = [{address = "x:1", backup = true}]', 9, 12, "targets[0]", "every target is a backup"),
    ('targets = [{address = "x:1", weight = 2}]\nbalance = "first"', 9, 12, "targets[0]", "no weights with balance"),
    ('targets = ["x:1", {address = "x:1", weight = 2}]', 9, 19, "targets[1]", '"x:1" is there already, with another'),
    ('targets = ["x:1", {address = "x:1", wieght = 2}]', 9, 37, "targets[1].wieght", "unknown key"),
    ("targets = 5", 9, 11, "targets", "must be a string or a table, or an array of them"),
    ('targets = "x:1"\nbalance = "last"', 10, 11, "balance", '"last": must be one of'),
    ('targets = "x:1"\ndial_attempts = 0', 10, 17, "dial_attempts", "must be at least 1"),
    ('targets = "x:1"\nidle_timeout = "1s"', 10, 1, "idle_timeout", "unknown key"),
]


@pytest.mark.parametrize(("text", "line", "column", "key", "message"), WRONG)
def test_once_however_many_share_it(
    problems: Problems, text: str, line: int, column: int, key: str, message: str
) -> None:
    unix = '[listeners.unix]\nbind = "unix:@in"\npool = "app"\n'
    found = problems(unix + DNS + f"[pools.app]\n{text}")
    assert places(found) == [(line, column, f"pools.app.{key}")]
    assert message in found[0].message


def test_once_where_nobody_shares_it(problems: Problems) -> None:
    own = WEB.replace('pool = "app"', 'targets = "x:1"')
    found = problems(own + '[pools.app]\ntargets = [{address = "x:1", backup = true}]')
    assert places(found) == [(5, 12, "pools.app.targets[0]")]


def test_a_suggestion_for_the_only_listener(problems: Problems) -> None:
    web, app = WEB.replace("8080", "8080-8081"), APP.replace('["10.0.0.11:80", "10.0.0.12:80"]', '"10.0.0.1:1-3"')
    (problem,) = problems(web + app)
    assert places((problem,)) == [(5, 11, "pools.app.targets")]
    assert problem.suggestion == 'did you mean "10.0.0.1:1-2"?'
    assert problems(web + DNS + app)[0].suggestion == ""


def test_a_key_that_no_listener_of_the_pool_can_use(problems: Problems, loaded: Load) -> None:
    app = APP + "dial_attempts = 2\n"
    (problem,) = problems(DNS + DNS.replace("dns", "other").replace(":53", ":54") + app)
    assert places((problem,)) == [(11, 1, "pools.app.dial_attempts")]
    assert problem.message == (
        "of no use to any listener that shares this pool; listeners.dns: "
        "belongs to stream listeners; this one relays datagrams"
    )
    assert attempts(loaded(DNS + WEB + app)) == [None, 2]
    assert attempts(loaded(DNS + APP + "[defaults]\ndial_attempts = 2")) == [None]


def test_a_way_round_through_a_pool(problems: Problems) -> None:
    own = '[listeners.in]\nbind = "127.0.0.1:80"\npool = "app"\n[pools.app]\ntargets = ["10.0.0.1:1", "127.0.0.1:80"]'
    (problem,) = problems(own)
    assert places((problem,)) == [(5, 26, "pools.app.targets[1]")]
    assert problem.message == '"127.0.0.1:80" is listeners.in, which shares it: it would forward to itself'
    chain = own + '\n[listeners.out]\nbind = "127.0.0.1:1"\ntargets = "127.0.0.1:80"'
    (problem,) = problems(chain.replace('127.0.0.1:80"]', '127.0.0.1:1"]'))
    assert "leads back here: out → in → out" in problem.message


@pytest.mark.parametrize("text", ["[pools]\napp = 5\n", '[pools]\napp = "10.0.0.1:1"\n', "[[pools.app]]\n"])
def test_a_pool_that_is_no_table_is_one_error(problems: Problems, text: str) -> None:
    (problem,) = problems(WEB + text)
    assert problem.key == "pools.app"
    assert "must be a table" in problem.message


@pytest.mark.parametrize("text", ["pools = 5\n", "[[pools]]\nname = 'app'\n"])
def test_pools_that_are_no_table_are_one_error(problems: Problems, text: str) -> None:
    (problem,) = problems(text + WEB if text.startswith("pools") else WEB + text)
    assert problem.key == "pools"
    assert problem.suggestion == "help: a pool is a table of its own: [pools.NAME]"


def test_a_file_that_cannot_be_read_may_have_any_pool(write: Write) -> None:
    main = write('include = "b.toml"\n' + WEB)
    write("[pools.app\n", "b.toml")
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert [Path(problem.file).name for problem in caught.value.problems] == ["b.toml"]


# Words of other tools.


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("[backends.app]\nservers = []", "did you mean `[pools.NAME]`?"),
        ("[upstreams.app]\nservers = []", "did you mean `[pools.NAME]`?"),
        ("[pool.app]\nservers = []", "did you mean `[pools.NAME]`?"),
        ("[pools.app]\nservers = ['x:1']", "did you mean `targets`?"),
        ("[pools.app]\nalgorithm = 'rr'", "did you mean `balance`?"),
        ("[pools.app]\ntimeout = '1s'", "help: `idle_timeout` belongs in [listeners.NAME]"),
        ("[pools.app]\nbind = ':1'", "help: `bind` belongs in [listeners.NAME]"),
        ("[pools.app]\nblance = 'first'", "did you mean `balance`?"),
        ("[listeners.a]\nuse_backend = 'x'\nbind = ':1'", "did you mean `pool`?"),
        ("[listeners.a]\nbackend = 'x'\nbind = ':1'", "did you mean `targets`?"),
        ("[listeners.a]\npools = 'x'\nbind = ':1'", "did you mean `pool`?"),
    ],
)
def test_words_of_other_tools(problems: Problems, text: str, suggestion: str) -> None:
    found = problems(text)
    assert (found[-1].message, found[-1].suggestion) == ("unknown key", suggestion)
    assert "targets" not in " ".join(problem.key for problem in found) or "pools" in text


def test_a_pool_is_nothing_for_defaults(problems: Problems) -> None:
    found = problems('[defaults]\npool = "app"\n' + WEB + APP)
    assert [problem.message for problem in found] == ["stands in each listener, not in [defaults]"]


# Warnings.


def test_a_pool_that_no_listener_shares(loaded: Load) -> None:
    found = loaded(WEB + APP + APP.replace("app", "spare")).warnings
    assert places(found) == [(6, 8, "pools.spare")]
    assert (found[0].message, found[0].suggestion) == (
        "no listener shares this pool",
        'help: share it with pool = "spare"',
    )


def test_a_backup_that_no_connection_comes_to_is_one_warning(loaded: Load) -> None:
    text = (
        WEB + DNS + WEB.replace("web", "b").replace("8080", "1")
        + '[pools.app]\ndial_attempts = 1\ntargets = ["10.0.0.1:1", { address = "10.0.0.2:1", backup = true }]'
    )  # fmt: skip
    assert places(loaded(text).warnings) == [(13, 26, "pools.app.targets[1]")]
    assert loaded(text.replace("dial_attempts = 1", "dial_attempts = 2")).warnings == ()
