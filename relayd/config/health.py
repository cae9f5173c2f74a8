"""What a pool, or a listener without one, does about targets that fail: as `spec.Health`, and what is wrong with it.

Values are `probing`'s. Here is what they mean together: a check of one type has no keys of another, and an answer is
waited for no longer than until the next question.
"""

from collections.abc import Iterable, Iterator

from relayd.address import UnixAddress
from relayd.config.blocks import Block, Pool
from relayd.config.check_table import CheckTable
from relayd.config.document import Document
from relayd.config.model import PoolKeys
from relayd.config.positions import Path
from relayd.config.problems import Problem, quote
from relayd.config.units import format_duration
from relayd.spec import Balance, Check, CheckKind, Health

#: Keys that only checks of some types have.
_OF_TYPES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("tcp", "udp"), ("send", "expect")),
    (("http",), ("method", "path", "host", "status")),
    (("exec",), ("command",)),
)
#: Unless the file says so, or asks oftener.
_TIMEOUT_MS = 1000


def build(keys: PoolKeys) -> Health:
    """What `keys`, all of which are in force, come to."""
    check = keys.health_check
    return Health(
        check=_check(check) if isinstance(check, CheckTable) else None,
        fail_open=keys.fail_open is not False,
        max_ejected=keys.max_ejected or 0,
        slow_start_s=keys.slow_start / 1000 if isinstance(keys.slow_start, int) else 0.0,
    )


def of_tables(tables: Iterable[tuple[Document, Path, PoolKeys]]) -> Iterator[Problem]:
    """What is wrong inside each health_check, wherever it stands: tables with their places."""
    for document, path, keys in tables:
        if isinstance(keys.health_check, CheckTable):
            yield from _of_check(document, (*path, "health_check"), keys.health_check)


def useless(block: Block) -> dict[str, str]:
    """Keys that can do nothing for a listener, with the reason."""
    home, found = block.home, dict[str, str]()
    check = home.layered("health_check")
    follow = isinstance(check, CheckTable) and check.type != "exec" and check.port is None and home.following
    if follow:
        entry = (home.table.targets or ())[follow[0]].address
        found["health_check"] = f"the port of {quote(str(entry))} follows that of the bind: a check needs its own port"
    if (follow or not isinstance(check, CheckTable)) and "health_check" not in home.wrong:
        found["fail_open"] = "can do nothing without a health_check"
    if home.layered("balance") == Balance.FIRST.value:
        found["slow_start"] = 'can do nothing with balance = "first", which has no shares'
    return found


def of_home(home: Block | Pool) -> Iterator[Problem]:
    """What is wrong with the check of the targets that stand in `home`."""
    check, goals = home.table.health_check, home.goals[0]
    unix = bool(goals) and all(isinstance(target.address, UnixAddress) for target in goals)
    if isinstance(check, CheckTable) and check.port is not None and unix:
        path = (*home.path, "health_check", "port")
        yield home.document.problem(path, "the targets are Unix sockets, which have no port", at_key=True)


def _check(table: CheckTable) -> Check:
    expect = table.expect
    return Check(
        kind=CheckKind(table.type),
        interval_s=table.interval / 1000,
        unhealthy_interval_s=_unhealthy(table) / 1000,
        timeout_s=_timeout(table) / 1000,
        rise=table.rise,
        fall=table.fall,
        port=table.port,
        send=table.send or "",
        expect=expect.literal if expect else None,
        expect_pattern=expect.pattern if expect else None,
        method=table.method,
        path=table.path,
        host=table.host,
        status=table.status,
        command=table.command or (),
    )


def _unhealthy(table: CheckTable) -> int:
    return table.interval if table.unhealthy_interval is None else table.unhealthy_interval


def _timeout(table: CheckTable) -> int:
    return min(_TIMEOUT_MS, table.interval, _unhealthy(table)) if table.timeout is None else table.timeout


def _of_check(document: Document, path: Path, table: CheckTable) -> Iterator[Problem]:
    for types, keys in _OF_TYPES:
        for key in keys:
            if key in table.model_fields_set and table.type not in types:
                message = f"belongs to checks of type {' or '.join(map(quote, types))}; this one is {quote(table.type)}"
                yield document.problem((*path, key), message, at_key=True)
    if table.type == "udp" and table.send is None:
        help_text = 'help: a target answers what it is sent: add send = "..."'
        yield document.problem((*path, "send"), "is missing", help_text, at_key=True)
    if table.type == "exec" and table.command is None:
        help_text = 'help: add command = ["/path/of/a/program"]'
        yield document.problem((*path, "command"), "is missing", help_text, at_key=True)
    key, least = min((("interval", table.interval), ("unhealthy_interval", _unhealthy(table))), key=lambda one: one[1])
    if _timeout(table) > least:
        message = f"is longer than {key}, which is {quote(format_duration(least))}"
        yield document.problem((*path, "timeout"), message)
