"""What keys about failing targets mean together."""

from collections.abc import Callable

import pytest

from relayd.config import Loaded, Problem
from relayd.spec import UNCHECKED, Check, CheckKind, Health, Share

Load = Callable[[str], Loaded]
Problems = Callable[[str], tuple[Problem, ...]]

WEB = '[listeners.web]\nbind = "127.0.0.1:8080"\ntargets = ["10.0.0.11:80", "10.0.0.12:80"]\n'


def health(loaded: Load, lines: str) -> Health:
    return loaded(WEB + lines).spec.listeners[0].health


def test_nobody_asks_unless_told(loaded: Load) -> None:
    assert health(loaded, "") == UNCHECKED
    assert health(loaded, 'health_check = "off"') == UNCHECKED


def test_what_is_built_in(loaded: Load) -> None:
    assert health(loaded, 'health_check = { type = "tcp" }') == Health(
        Check(CheckKind.TCP, 2.0, 2.0, 1.0, rise=2, fall=3), fail_open=True, max_ejected=50, slow_start_s=0.0
    )


def test_all_of_it(loaded: Load) -> None:
    found = health(
        loaded,
        'health_check = { type = "dgram", interval = "10s", unhealthy_interval = "1s", timeout = "500ms", rise = 1, '
        'fall = 5, port = 53, send = { hex = "00ff" }, expect = { regex = "^a" } }\n'
        'fail_open = false\nmax_ejected = "10%"\nslow_start = "30s"',
    )
    assert found == Health(
        Check(CheckKind.UDP, 10.0, 1.0, 0.5, 1, 5, 53, send="\x00\xff", expect_pattern="^a"), False, 10, 30.0
    )
    found = health(
        loaded,
        'health_check = { type = "http", method = "HEAD", path = "/up", host = "a.test", status = [200, "301-302"] }',
    )
    assert found.check == Check(
        CheckKind.HTTP, 2.0, 2.0, 1.0, 2, 3, method="HEAD", path="/up", host="a.test", status=((200, 200), (301, 302))
    )
    found = health(loaded, 'health_check = { type = "exec", command = ["/bin/check", "x"] }')
    assert found.check == Check(CheckKind.EXEC, 2.0, 2.0, 1.0, 2, 3, command=("/bin/check", "x"))


@pytest.mark.parametrize(
    ("keys", "timeout_s"),
    [('interval = "500ms"', 0.5), ('interval = "5s"', 1.0), ('unhealthy_interval = "200ms"', 0.2)],
)
def test_the_timeout_is_no_longer_than_an_interval(loaded: Load, keys: str, timeout_s: float) -> None:
    check = health(loaded, f'health_check = {{ type = "tcp", {keys} }}').check
    assert check is not None
    assert check.timeout_s == timeout_s


def test_a_table_in_the_long_form(loaded: Load) -> None:
    check = health(loaded, '[listeners.web.health_check]\ntype = "http"\npath = "/up"').check
    assert check is not None
    assert check.path == "/up"


# Each case: the value of health_check, the key that is wrong, the message, the advice.
CHECKS = [
    ('type = "tcp", path = "/"', "path", 'belongs to checks of type "http"; this one is "tcp"', ""),
    ('type = "stream", status = 200', "status", 'belongs to checks of type "http"; this one is "tcp"', ""),
    ('type = "http", send = "x"', "send", 'belongs to checks of type "tcp" or "udp"; this one is "http"', ""),
    ('type = "exec", command = ["/x"], expect = "x"', "expect", 'belongs to checks of type "tcp" or "udp"', ""),
    ('type = "tcp", command = ["/x"]', "command", 'belongs to checks of type "exec"; this one is "tcp"', ""),
    ('type = "udp"', "send", "is missing", 'help: a target answers what it is sent: add send = "..."'),
    ('type = "exec"', "command", "is missing", 'help: add command = ["/path/of/a/program"]'),
    ('type = "tcp", timeout = "3s"', "timeout", 'is longer than interval, which is "2s"', ""),
    (
        'type = "tcp", interval = "9s", unhealthy_interval = "1s", timeout = "2s"',
        "timeout",
        'is longer than unhealthy_interval, which is "1s"',
        "",
    ),
    ('type = "tcp", intervall = "1s"', "intervall", "unknown key", "did you mean `interval`?"),
    ('type = "tcp", inter = "1s"', "inter", "unknown key", "did you mean `interval`?"),
    ('type = "tcp", expect = { regex = "(" }', "expect", '"(" is not a regular expression', ""),
    ('interval = "1s"', "type", "is missing", ""),
    ('type = "tcp", fall = 0', "fall", "must be at least 1", ""),
]


@pytest.mark.parametrize(("keys", "key", "message", "advice"), CHECKS)
@pytest.mark.parametrize("where", ["listeners.web", "pools.app", "defaults"])
def test_what_is_wrong_inside_a_check(
    problems: Problems, where: str, keys: str, key: str, message: str, advice: str
) -> None:
    check = f"health_check = {{ {keys} }}\n"
    text = {
        "listeners.web": WEB + check,
        "pools.app": WEB.replace('targets = ["10.0.0.11:80", "10.0.0.12:80"]', 'pool = "app"')
        + f'[pools.app]\ntargets = "10.0.0.11:80"\n{check}',
        "defaults": f"{WEB}[defaults]\n{check}",
    }[where]
    (problem,) = problems(text)
    assert problem.key == f"{where}.health_check.{key}"
    assert problem.source_line == check.strip()
    assert message in problem.message
    assert problem.suggestion == advice


@pytest.mark.parametrize("where", ["listeners.web", "pools.app", "defaults"])
def test_each_wrong_element_is_told_where_it_stands(problems: Problems, where: str) -> None:
    def keys(lines: str) -> list[tuple[str, str]]:
        text = WEB if where != "pools.app" else WEB.replace("targets = [", "#[") + 'pool = "app"\n'
        table = "" if where == "listeners.web" else f"[{where}]\n"
        text += table + ('targets = "10.0.0.1:1"\n' if where == "pools.app" else "") + lines
        return [
            (one.key.removeprefix(f"{where}.health_check."), one.source_line[one.column - 1 :])
            for one in problems(text)
        ]

    assert keys('health_check = { type = "http", status = [99, 200, 1000] }') == [
        ("status[0]", "99, 200, 1000] }"),
        ("status[2]", "1000] }"),
    ]
    assert keys('health_check = { type = "http", status = 99 }') == [("status", "99 }")]
    assert keys('health_check = { type = "exec", command = ["/bin/true", 5] }') == [("command[1]", "5] }")]


def test_a_word_for_a_check(problems: Problems) -> None:
    (problem,) = problems(WEB + 'health_check = "tcp"')
    assert (problem.key, problem.suggestion) == ("listeners.web.health_check", 'help: write { type = "tcp" }')


@pytest.mark.parametrize("line", ['fail_open = "no"', "resolve = 5", "slow_start = 5"])
def test_what_is_wrong_and_useless_is_told_once(problems: Problems, line: str) -> None:
    first = 'balance = "first"\n' if "slow" in line else ""
    assert len(problems(WEB + first + line)) == 1
    pool = WEB.replace('targets = ["10.0.0.11:80", "10.0.0.12:80"]', 'pool = "app"')
    assert len(problems(pool + f'[pools.app]\ntargets = "10.0.0.11:80"\n{first}{line}')) == 1


@pytest.mark.parametrize("where", ["listeners.web", "defaults"])
@pytest.mark.parametrize(
    ("key", "meant"), [("max_connections", "max_connections"), ("maxconn", "max_connections"), ("weight", "weight")]
)
def test_what_belongs_to_a_target(problems: Problems, where: str, key: str, meant: str) -> None:
    (problem,) = problems(WEB + f"[{where}]\n{key} = 5" if where == "defaults" else WEB + f"{key} = 5")
    assert problem.key == f"{where}.{key}"
    assert problem.suggestion.startswith(
        f'help: `{meant}` belongs in a target: {{ address = "10.0.0.11:80", {meant} = '
    )


@pytest.mark.parametrize("value", ['"on"', "true", "5", '["tcp"]'])
def test_what_is_no_check(problems: Problems, value: str) -> None:
    (problem,) = problems(WEB + f"health_check = {value}")
    assert problem.key == "listeners.web.health_check"
    assert problem.message.startswith("must be ") or '"on": must be' in problem.message


@pytest.mark.parametrize(
    ("lines", "key", "message"),
    [
        ("fail_open = false", "fail_open", "can do nothing without a health_check"),
        ('balance = "first"\nslow_start = "1s"', "slow_start", 'can do nothing with balance = "first"'),
    ],
)
def test_keys_that_can_do_nothing(problems: Problems, loaded: Load, lines: str, key: str, message: str) -> None:
    (problem,) = problems(WEB + lines)
    assert problem.key == f"listeners.web.{key}"
    assert message in problem.message
    pool = WEB.replace('targets = ["10.0.0.11:80", "10.0.0.12:80"]', 'pool = "app"')
    (problem,) = problems(pool + f'[pools.app]\ntargets = "10.0.0.11:80"\n{lines}')
    assert problem.key == f"pools.app.{key}"
    assert message in problem.message
    assert loaded(f"{WEB}[defaults]\n{lines}").spec.listeners[0].health == UNCHECKED


@pytest.mark.parametrize("target", ["10.0.0.1", "10.0.0.1:+5", "10.0.0.1:70-71", "a.example.com"])
def test_a_port_that_follows_that_of_the_bind(problems: Problems, loaded: Load, target: str) -> None:
    ports = "80-81" if "-" in target else "80"
    web = f'[listeners.web]\nbind = "127.0.0.1:{ports}"\ntargets = ["10.0.0.2:1", "{target}"]\n'
    (problem,) = problems(web + 'health_check = { type = "tcp" }')
    assert (problem.key, problem.line) == ("listeners.web.health_check", 4)
    assert problem.message == f'the port of "{target}" follows that of the bind: a check needs its own port'
    assert loaded(web + 'health_check = { type = "tcp", port = 7 }').spec.listeners[0].health.check is not None
    command = 'health_check = { type = "exec", command = ["/bin/true"] }'
    assert loaded(web + command).spec.listeners[0].health.check is not None
    assert loaded(web + '[defaults]\nhealth_check = { type = "tcp" }').spec.listeners[0].health == UNCHECKED


def test_a_port_of_targets_that_have_none(problems: Problems, loaded: Load) -> None:
    web = '[listeners.web]\nbind = "127.0.0.1:80"\ntargets = ["unix:@a", "unix:@b"]\n'
    (problem,) = problems(web + 'health_check = { type = "tcp", port = 7 }')
    assert (problem.line, problem.column, problem.key) == (4, 32, "listeners.web.health_check.port")
    assert problem.message == "the targets are Unix sockets, which have no port"
    assert loaded(web.replace('"unix:@b"', '"10.0.0.1:1"') + 'health_check = { type = "tcp", port = 7 }')
    assert loaded(web + '[defaults]\nhealth_check = { type = "tcp", port = 7 }')


@pytest.mark.parametrize("type_", ["tcp", "udp"])
@pytest.mark.parametrize("check", ["tcp", "udp"])
def test_either_type_may_be_asked_as_the_other(loaded: Load, type_: str, check: str) -> None:
    send = ', send = "?"' if check == "udp" else ""
    web = f'[listeners.web]\ntype = "{type_}"\nbind = "127.0.0.1:53"\ntargets = "10.0.0.1:53"\n'
    assert loaded(web + f'health_check = {{ type = "{check}"{send} }}').spec.listeners[0].health.check is not None


def test_listeners_of_a_pool_have_its_check(loaded: Load) -> None:
    text = (
        '[listeners.a]\nbind = "127.0.0.1:1"\npool = "app"\n'
        '[listeners.b]\ntype = "dgram"\nbind = "127.0.0.1:1"\npool = "app"\n'
        '[pools.app]\ntargets = "10.0.0.1:1"\nhealth_check = { type = "tcp" }\nfail_open = false\n'
    )
    first, second = loaded(text).spec.listeners
    assert first.health == second.health != UNCHECKED


def test_most_connections_of_a_target(loaded: Load, problems: Problems) -> None:
    web = WEB.replace('"10.0.0.12:80"', '{ address = "10.0.0.12:80", max_connections = 3 }')
    found = loaded("[daemon]\nworkers = 3\n" + web)
    assert found.spec.listeners[0].shares == (Share(), Share(max_connections=3))
    assert found.warnings == ()
    (warning,) = loaded("[daemon]\nworkers = 4\n" + web).warnings
    assert (warning.line, warning.key) == (5, "listeners.web.targets[1]")
    assert warning.message == "max_connections is 3, of which some of the 4 workers have none to give"
    assert warning.suggestion == "help: each worker has its part: set it to 4 or more, or fewer daemon.workers"
    (problem,) = problems(web.replace("= 3", "= 0"))
    assert problem.key == "listeners.web.targets[1].max_connections"


def test_most_connections_of_a_target_of_a_pool_are_warned_of_once(loaded: Load) -> None:
    text = "[daemon]\nworkers = 4\n" + "".join(
        f'[listeners.{name}]\nbind = "127.0.0.1:{port}"\npool = "app"\n' for port, name in enumerate("ab", 1)
    )
    found = loaded(text + '[pools.app]\ntargets = { address = "10.0.0.12:80", max_connections = 3 }')
    assert [warning.key for warning in found.warnings] == ["pools.app.targets"]


def test_one_target_has_one_limit(problems: Problems) -> None:
    web = WEB.replace('"10.0.0.12:80"', '{ address = "10.0.0.11:80", max_connections = 3 }')
    (problem,) = problems(web)
    assert "is there already, with another weight, backup or max_connections" in problem.message


@pytest.mark.parametrize(
    ("word", "meant"),
    [("check", "health_check"), ("healthcheck", "health_check"), ("slowstart", "slow_start"), ("panic", "fail_open")],
)
def test_words_of_others(problems: Problems, word: str, meant: str) -> None:
    (problem,) = problems(WEB + f"{word} = 1")
    assert problem.suggestion == f"did you mean `{meant}`?"


LIMITED = 'targets = ["10.0.0.12:80", { address = "10.0.0.11:80", max_connections = 5 }]\n'


def test_a_limit_of_connections_where_there_are_none(problems: Problems, loaded: Load) -> None:
    one_way = '[listeners.log]\nbind = "127.0.0.1:8080"\ntype = "dgram"\nsession = "datagram"\n'
    (problem,) = problems(one_way + LIMITED)
    assert (problem.key, problem.line) == ("listeners.log.targets[1]", 5)
    assert 'can do nothing with session = "datagram"' in problem.message
    (problem,) = problems(f'{one_way}pool = "app"\n[pools.app]\n{LIMITED}')
    assert problem.key == "pools.app.targets[1]"
    shared = f'{one_way}pool = "app"\n[listeners.web]\nbind = "127.0.0.1:81"\npool = "app"\n[pools.app]\n{LIMITED}'
    assert len(loaded(shared).spec.listeners) == 2, "for some of its listeners is enough"
    assert loaded(one_way.replace('"dgram"', '["stream", "dgram"]') + LIMITED).spec.listeners
    (problem,) = problems(one_way.replace('"datagram"', '"x"') + LIMITED)
    assert problem.key == "listeners.log.session"
