"""Commands that look at a running daemon, and end what should not go on. `verbs` has them all."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from relayd.cli.asking import asking, find, of_another_version
from relayd.cli.connections import LIMIT_MAX, Sort
from relayd.cli.exits import EXIT_NO, EXIT_USAGE
from relayd.cli.options import AdminAddress, AsJson, DaemonsFile, TokenFile
from relayd.cli.output import complain, emit, json_text
from relayd.cli.watching import Watch, WatchCommand

if TYPE_CHECKING:
    from relayd.cli.client import Place
    from relayd.cli.watching import Screen

verbs = typer.Typer()

T = TypeVar("T")
Json: TypeAlias = dict[str, Any]

#: As many as the daemon sends by itself.
_LIMIT = 1000
#: Of a screen that is redrawn: the head of the table, what is said below it, an error, and the line of the cursor.
_LINES_NOT_ROWS = 5

OfListener: TypeAlias = Annotated[
    str | None, typer.Option("--listener", metavar="L", help="Those of this listener.", show_default=False)
]
OfClient: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--client",
        metavar="ADDR|NET",
        help="Those of this client: an IP address, a network, an address with its port, or a Unix client's name.",
        show_default=False,
    ),
]
OfTarget: TypeAlias = Annotated[
    str | None,
    typer.Option("--target", metavar="T", help="Those to this target, as the log has it.", show_default=False),
]


@verbs.command(cls=WatchCommand)
def status(
    again: Watch = None,
    as_json: AsJson = False,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Print what the running daemon does: its file, its last reload, what to look at, workers, listeners and pools."""
    from relayd import clock
    from relayd.cli import status as report

    with asking():
        where = find(admin, config_file, token_file)
        _print(
            functools.partial(_ask, where, "/v1/status"),
            lambda found, screen: report.text(found, clock.wall(), None if screen is None else screen.columns),
            again,
            as_json=as_json,
        )


@verbs.command(cls=WatchCommand, short_help="List connections and sessions as they are now.")
def connections(
    listener: OfListener = None,
    client: OfClient = None,
    target: OfTarget = None,
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first.")] = Sort.AGE,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=1, max=LIMIT_MAX, help="Show at most so many.")
    ] = _LIMIT,
    tcp_info: Annotated[
        bool, typer.Option("--tcp-info", help="Show what the kernel knows of TCP: round-trip times, retransmits.")
    ] = False,
    again: Watch = None,
    as_json: AsJson = False,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """List the connections and sessions of the running daemon, one in a line: who, where to, how long, how much.

    --sort age has the oldest first, new the youngest, idle those where nothing has moved for longest, bytes and rate
    those with the most. In a terminal, columns that it has no room for are left out.
    """
    from relayd.cli import connections as report
    from relayd.cli.watching import screen

    members = _members(listener, client, target)
    _refuse("connections", _empty(members))
    asked = {**members, "sort": sort.value, "tcp_info": tcp_info}

    def ask() -> Json:
        seen = screen() if again is not None and not as_json else None
        rows = limit if seen is None or not seen.moves else max(1, min(limit, seen.lines - _LINES_NOT_ROWS))
        return _ask(where, report.path({**asked, "limit": rows}))

    with asking():
        where = find(admin, config_file, token_file)
        _print(
            ask,
            lambda found, seen: report.text(found, None if seen is None else seen.columns, tcp_info=tcp_info),
            again,
            as_json=as_json,
        )


@verbs.command(short_help="End a connection or session, or all of a client, a target or a listener.")
def kill(
    name: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of one, as connections shows it.", show_default=False)
    ] = None,
    listener: OfListener = None,
    client: OfClient = None,
    target: OfTarget = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether that is meant.")] = False,
    as_json: AsJson = False,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """End the connection or session ID, or all that the options name: with several options, what all of them name.

    Both sides are reset, and the outcome is killed. By options, it says how many that would be, and asks if they are
    more than one; where there is no terminal to ask on, --yes is needed. Prints how many were ended. The exit code is 1
    where none was.
    """
    from relayd.cli import client as api

    members = _members(listener, client, target)
    _refuse("kill", _no_kill(name, members, yes=yes))
    with asking():
        where = find(admin, config_file, token_file)
        if name is None and not yes and not _is_meant(_ask(where, _path_of({**members, "limit": 1}))):
            raise typer.Exit(EXIT_NO)
        found = api.ask(where, "POST", "/v1/kill", {"id": name} if name is not None else members)
        if "error" in found:
            raise api.Refused(f"relayd: {found['error']}")
        killed, complete = _read(lambda: (int(found["killed"]), bool(found["complete"])))
    emit(json_text(found) if as_json else f"{_counted(killed)} ended\n")
    if not complete:
        complain("a worker has not answered in time: what it has may go on")
    if not killed:
        raise typer.Exit(EXIT_NO)


@verbs.command(short_help="Watch connections and rates live, full screen.")
def top(
    interval: Annotated[
        float, typer.Option("--interval", "-d", metavar="SECONDS", min=0.2, max=60.0, help="Ask so often.")
    ] = 1.0,
    sort: Annotated[Sort, typer.Option("--sort", help="What comes first.")] = Sort.RATE,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Watch the running daemon: rates of listeners, and connections below, the busiest first.

    Keys sort, filter, and end a connection; ? lists them. q goes back. A restart of the daemon is waited for.
    """
    from relayd.cli.watching import give_way, screen

    seen = screen()
    if seen is None or not seen.moves or sys.stdin is None or not sys.stdin.isatty():
        complain("relayd top: needs a terminal; `relayd connections --watch` prints the same without one")
        raise typer.Exit(EXIT_USAGE)
    from relayd.cli.top.shell import run

    give_way()
    with asking():
        run(find(admin, config_file, token_file), interval, sort)


def _print(
    ask: Callable[[], Json],
    show: Callable[[Json, "Screen | None"], Sequence[str]],
    again: float | None,
    *,
    as_json: bool,
) -> None:
    """Once, or every `again` seconds. Raises RelaydError."""
    from relayd.cli import watching

    watching.give_way()

    def lines(found: Json, screen: "Screen | None") -> Sequence[str]:
        return _read(lambda: show(found, screen))

    if again is not None:
        watching.watch(ask, lines, again, as_json=as_json)
        return
    found = ask()
    emit(json_text(found) if as_json else "".join(f"{line}\n" for line in lines(found, watching.screen())))


def _ask(where: "Place", path: str) -> Json:
    """Raises RelaydError, also where the answer is no."""
    from relayd.cli import client

    found = client.ask(where, "GET", path)
    if "error" in found:
        raise client.Refused(f"relayd: {found['error']}")
    return found


def _path_of(asked: Mapping[str, object]) -> str:
    from relayd.cli import connections as report

    return report.path(asked)


def _read(what: Callable[[], T]) -> T:
    """`what` reads an answer. Raises client.Unreachable where that is not one of this version."""
    from relayd.cli import client

    try:
        return what()
    except (KeyError, TypeError, ValueError) as error:
        raise client.Unreachable(of_another_version(error)) from None


def _members(listener: str | None, client: str | None, target: str | None) -> dict[str, str]:
    """What is given, if only as an empty text: a script whose variable is empty does not mean all that there are."""
    given = (("listener", listener), ("client", client), ("target", target))
    return {key: value for key, value in given if value is not None}


def _refuse(verb: str, wrong: str) -> None:
    """Exit where something is wrong with the command."""
    if wrong:
        complain(f"relayd {verb}: {wrong}")
        raise typer.Exit(EXIT_USAGE)


def _empty(members: Mapping[str, str]) -> str:
    """Which option says nothing; "": none."""
    key = next((key for key, value in members.items() if not value), "")
    return f"--{key} is empty: say which {key}, or leave it out" if key else ""


def _no_kill(name: str | None, members: Mapping[str, str], *, yes: bool) -> str:
    """Why this is no command; "" where it is."""
    if _empty(members):
        return _empty(members)
    if name is not None and not name:
        return "ID is empty: say which connection"
    if name is not None and members:
        return f"{name!r} is one connection: --{next(iter(members))} is too much"
    if name is not None:
        return ""
    if not members:
        return "says what to end: ID, --client, --target or --listener"
    if not yes and not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
        return "there is no terminal to ask on whether that is meant: add --yes"
    return ""


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _is_meant(found: Json) -> bool:
    """Asks whoever sits there, if there is anything to ask about. Raises RelaydError."""
    from relayd.cli import client

    total, complete = _read(lambda: (int(found["total"]), bool(found["complete"])))
    if complete and not total:
        raise client.Refused("relayd: there is no such connection or session")
    if complete and total == 1:
        return True
    # A worker that has not answered in time may have more, and may well answer when it is to end them.
    many = _counted(total) if complete else f"at least {_counted(total)} (a worker has not answered in time)"
    if sys.stderr is not None:  # not typer.confirm, which puts a blank into what --json prints
        print(f"end {many}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _counted(number: int) -> str:
    return f"{number:,d} connection{'' if number == 1 else 's'}"
