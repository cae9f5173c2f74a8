"""Commands that have a running daemon do something, or ask it what it would do. `verbs` has them all."""

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relayd.cli import options
from relayd.cli.asking import asking, find, of_another_version
from relayd.cli.descriptors import nofile_max
from relayd.cli.exits import EXIT_CHANGES, EXIT_NO, EXIT_USAGE
from relayd.cli.options import AdminAddress, AsJson, DaemonsFile, TokenFile
from relayd.cli.output import complain, emit, json_text
from relayd.errors import RelaydError

if TYPE_CHECKING:
    from relayd.control.verdict import Verdict

verbs = typer.Typer()


@verbs.command("reload", short_help="Have the daemon read its file again.")
def reload_(
    confirm: Annotated[
        str | None,
        typer.Option("--confirm", metavar="TIME", help="Go back after this time unless `relayd confirm` comes."),
    ] = None,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Have the running daemon read its file again and do what it says: all of it, or nothing when anything is wrong.

    Prints what changes. A file that is refused leaves everything as it is: its errors go to standard error as check
    prints them, and the exit code is 1.
    """
    from relayd.cli import client
    from relayd.control.verdict import NEEDS_RESTART

    confirm_s = None if confirm is None else _seconds(confirm)
    with asking():
        verdict = client.ask_for_verdict(find(admin, config_file, token_file), "/v1/reload", {"confirm_s": confirm_s})
    _show(verdict)
    if confirm is not None and any(change.effect != NEEDS_RESTART for change in verdict.changes):
        emit(f"going back in {confirm} unless `relayd confirm` comes\n")
    if not verdict.ok:
        raise typer.Exit(EXIT_NO)


@verbs.command()
def confirm(config_file: DaemonsFile = None, admin: AdminAddress = None, token_file: TokenFile = None) -> None:
    """Stay with what `relayd reload --confirm` has done. The exit code is 1 when nothing waits for it."""
    from relayd.cli import client

    with asking():
        verdict = client.ask_for_verdict(find(admin, config_file, token_file), "/v1/confirm", {})
    if verdict.ok:
        emit("confirmed\n")
    else:
        _show(verdict)
        raise typer.Exit(EXIT_NO)


@verbs.command(short_help="Print what a reload would change.")
def plan(
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The file to reload. Default: the daemon's own.", readable=False
        ),
    ] = None,
    as_json: AsJson = False,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Print what a reload would change, and what that does to open connections and sessions. Changes nothing.

    Without a running daemon, FILE (/etc/relayd/relay.toml) is compared with nothing. Exit codes: 0 nothing changes; 10
    something does; 1 the reload would be refused.
    """
    from relayd.cli import client

    members = {"file": None if config_file is None else str(config_file.absolute())}
    with asking():
        try:
            verdict = client.ask_for_verdict(find(admin, config_file, token_file), "/v1/plan", members)
        except client.NoDaemon as error:
            if admin is not None:
                raise
            complain(f"{error}; the file is compared with nothing")
            verdict = _plan_from_nothing(config_file or options.DEFAULT_FILE)
        except (client.Unreachable, client.Refused):
            raise
        except RelaydError:  # the file cannot tell where the daemon is; this finds all that is wrong with it
            verdict = _plan_from_nothing(config_file or options.DEFAULT_FILE)
    if as_json:
        emit(json_text(verdict.as_json()))
    else:
        _show(verdict)
    if not verdict.ok or verdict.changes:
        raise typer.Exit(EXIT_CHANGES if verdict.ok else EXIT_NO)


class Action(str, enum.Enum):
    """What `relayd target` does."""

    LIST = "list"
    DRAIN = "drain"
    DISABLE = "disable"
    ENABLE = "enable"
    WEIGHT = "weight"


@verbs.command(short_help="List targets; drain, disable or enable one; give it another weight.")
def target(
    action: Annotated[Action, typer.Argument(help="What to do.", show_default=False)],
    pool: Annotated[
        str | None, typer.Argument(metavar="[POOL]", help="A pool, or a listener with targets of its own.")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="[TARGET]", help="As list shows it, or as the file has it.")
    ] = None,
    weight: Annotated[
        str | None, typer.Argument(metavar="[WEIGHT]", help="For weight: 1 to 256, or the word file: that of the file.")
    ] = None,
    as_json: AsJson = False,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """List the targets of the running daemon with their states, or say what becomes of one of them.

    \b
        relayd target list [POOL]
        relayd target drain POOL TARGET          no new clients; those that it has stay
        relayd target disable POOL TARGET        no new clients; those that it has go, by on_change
        relayd target enable POOL TARGET         as if nothing had been said
        relayd target weight POOL TARGET WEIGHT  1 to 256, or file: what the file says

    Holds until it is taken back, over reloads too, and no longer than to the next restart: what is to last belongs in
    the file.
    """
    from relayd.cli import client
    from relayd.cli import targets as words

    given = [each for each in (pool, name, weight) if each is not None]
    try:
        order = words.order(action.value, given)
    except ValueError as error:
        complain(f"relayd target {action.value}: {error}")
        raise typer.Exit(EXIT_USAGE) from None
    with asking():
        where = find(admin, config_file, token_file)
        if action is Action.LIST:
            emit(_targets(client.ask(where, "GET", "/v1/targets"), pool, as_json=as_json))
            return
        verdict = client.ask_for_verdict(where, "/v1/target", {"pool": pool, "target": name, **order})
    if as_json:
        emit(json_text(verdict.as_json()))
    elif verdict.ok:
        _show(verdict)
    else:
        complain("".join(f"relayd: {error}\n" for error in verdict.errors).rstrip("\n"))
    if not verdict.ok:
        raise typer.Exit(EXIT_NO)


@verbs.command(short_help="Say which target a client would get, and why.")
def explain(
    listener: Annotated[str, typer.Argument(metavar="LISTENER", help="Where it would come to.", show_default=False)],
    client_address: Annotated[
        str, typer.Option("--client", metavar="ADDR", help="Its address. Default: a client of a Unix socket.")
    ] = "",
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", help="The port that it comes to. Default: the first one.")
    ] = None,
    as_json: AsJson = False,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Say which target of the running daemon a client would get, and why, without any traffic.

    By the code that workers choose by, with what checks and orders say now. Only a worker knows whose turn it is, whom
    it suspects, and which limits it has reached.
    """
    from relayd.cli import client
    from relayd.cli import explain as report

    members = {"listener": listener, "client": client_address, "port": port}
    with asking():
        found = client.ask(find(admin, config_file, token_file), "POST", "/v1/explain", members)
        if "error" in found:
            raise client.Refused(f"relayd: {found['error']}")
        try:
            text = report.text(found, client_address or "a client")
        except (KeyError, TypeError, ValueError) as error:
            raise client.Unreachable(of_another_version(error)) from None
    emit(json_text(found) if as_json else text)


@verbs.command("log-level", short_help="Show, or change until the next reload, from which level on lines are logged.")
def log_level(
    level: Annotated[
        str | None, typer.Argument(metavar="[LEVEL]", help="debug, info, warning or error. Default: show what it is.")
    ] = None,
    as_json: AsJson = False,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Print from which level on the running daemon logs, or have it log from another one on, in all its processes.

    Holds until the next reload or restart: then it is what [log] level says.
    """
    from relayd.cli import client

    method, members = ("GET", None) if level is None else ("POST", {"level": level})
    with asking():
        found = client.ask(find(admin, config_file, token_file), method, "/v1/log", members)
        try:
            now, file = found["level"], found["file"]
        except KeyError as error:
            raise client.Unreachable(of_another_version(error)) from None
    until = "" if now == file else f" until the next reload or restart; the file says {file}"
    emit(json_text(found) if as_json else f"{now}{until}\n")


def _targets(found: "dict[str, Any]", pool: str | None, *, as_json: bool) -> str:
    """Those of `pool`, or all. Raises client.Unreachable and RelaydError."""
    from relayd.cli import client
    from relayd.cli import targets as report

    try:
        there = [one for one in found["targets"] if pool in (None, one["pool"])]
        if pool is not None and not there:
            pools = sorted({one["pool"] for one in found["targets"]})
            raise client.Refused(f"relayd: there is no pool {pool!r}: there is {', '.join(pools)}")
        return json_text({"targets": there}) if as_json else report.text(there)
    except (KeyError, TypeError, ValueError) as error:
        raise client.Unreachable(of_another_version(error)) from None


def _seconds(duration: str) -> float:
    from relayd.config.units import DurationError, parse_duration_ms

    try:
        milliseconds = parse_duration_ms(duration)
    except DurationError as error:
        hint = f"; did you mean {error.suggestion}?" if error.suggestion else ""
        raise typer.BadParameter(f"{duration!r} {error}{hint}", param_hint="--confirm") from None
    if not milliseconds:
        raise typer.BadParameter("must be longer than nothing", param_hint="--confirm")
    return milliseconds / 1000


def _plan_from_nothing(file: Path) -> "Verdict":
    """What a daemon would say that does nothing yet."""
    from relayd import config
    from relayd.cli import check as report
    from relayd.control.changes import changes_between
    from relayd.control.verdict import Verdict

    try:
        loaded = config.load(file)
    except config.ConfigError as error:
        return Verdict(ok=False, errors=tuple(map(str, error.problems)))
    errors = tuple(map(str, report.too_few_descriptors(str(file), loaded.spec, nofile_max())))
    return Verdict(not errors, changes_between(None, loaded.spec), errors, tuple(map(str, loaded.warnings)))


def _show(verdict: "Verdict") -> None:
    if verdict.changes:
        emit("".join(f"{change}\n" for change in verdict.changes))
    elif verdict.ok:
        emit("nothing to change\n")
    for warning in verdict.warnings:
        complain(f"warning: {warning}")
    for error in verdict.errors:
        complain(error)
