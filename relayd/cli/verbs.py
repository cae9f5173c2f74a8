"""argv to one verb. Exit codes: 0 fine; 1 the answer is no; 2 usage; 3 no daemon answers; `plan` adds 10,
`run` those of control.main.

A verb imports what it needs when it is called: pydantic and the control process take longer to import than all that
`version` and `--help` do.
"""

import contextlib
import enum
import importlib
import json
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

import relayd
from relayd.cli import main as short_way
from relayd.cli.output import complain, emit
from relayd.errors import RelaydError
from relayd.imports import Dialect

if TYPE_CHECKING:
    from relayd.address import Address
    from relayd.control.verdict import Verdict

__all__ = ["main"]

DEFAULT_FILE = Path(short_way.DEFAULT_FILE)
# What stands above each code as `#:` is what docs/reference.md and relayd(8) say of it.
#: The answer is no: `check` found errors, a reload was refused, nothing waits for `confirm`, output cannot be written.
EXIT_NO = 1
#: Usage: no such command or option.
EXIT_USAGE = 2  # click's, and so typer's, which is what uses it
#: No daemon could be reached.
EXIT_UNREACHABLE = 3
#: `plan`: a reload would change something.
EXIT_CHANGES = 10
#: Import these, and all is imported that relays.
_WHAT_RUNS = ("relayd.control.life", "relayd.relay.worker")
#: setrlimit(2) takes "unlimited" for more descriptors than any process has; the kernel's own ceiling is fs.nr_open.
_NOFILE_UNLIMITED = 1024 * 1024
#: Set by the completions of a shell (packaging/completions), and by them only.
_COMPLETING = "_RELAYD_COMPLETE"

#: \b keeps the lines of a paragraph of help as they are.
_HELP = """A socket relay daemon: listeners, and the targets that each one forwards to.

Three lines of TOML are a forward:

\b
    $ cat relay.toml
    [listeners.web]
    bind = "0.0.0.0:8080"
    targets = ["10.0.0.11:80", "10.0.0.12:80"]

\b
    $ relayd check -c relay.toml
    $ relayd run -c relay.toml

Exit codes: 0 fine; 1 the answer is no (check found errors, a reload was refused); 2 usage; 3 no daemon answers. run
has two more, and plan one.
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: `readable` False leaves an unreadable file to `config.load`, as a missing one: refused with exit code 1, not usage.
ConfigFile: TypeAlias = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration file.", show_default=True, readable=False),
]
#: A file that only says where a running daemon is.
DaemonsFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="Find the daemon by admin.listen of this file.", readable=False
    ),
]
AdminAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--admin",
        metavar="ADDR",
        envvar="RELAYD_ADMIN",
        help="Where the daemon is: unix:/path, unix:@name or host:port. Default: unix:/run/relayd/admin.sock.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def run(config_file: ConfigFile = DEFAULT_FILE) -> None:
    """Relay, in the foreground, until SIGTERM or Ctrl-C.

    The first signal stops accepting and lets connections finish for drain_timeout; a second one ends them now.

    Exit codes: 0 stopped in order; 1 the file was refused; 4 could not start (an address in use, too few file
    descriptors); 70 a bug, of which the log has the traceback.
    """
    from relayd.control import main as control

    control.run(config_file)


@app.command(short_help="Check the configuration, and show every listener.")
def check(
    config_file: ConfigFile = DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print listeners, budget and problems as JSON.")] = False,
) -> None:
    """Check the configuration: every error at once, or each listener in one line.

    Errors go to standard error as FILE:LINE:COLUMN: KEY: MESSAGE, and the exit code is 1. No port is taken, and
    nothing is dialled; host names in a bind are resolved.
    """
    from relayd import config
    from relayd.cli import check as report
    from relayd.config.problems import printable

    for module in _WHAT_RUNS:  # before an upgrade in place this is asked whether the next relayd runs (R5)
        importlib.import_module(module)
    try:
        loaded = config.load(config_file)
    except config.ConfigError as error:
        if as_json:
            emit(_json(report.as_json(None, _nofile(), error.problems, ())))
        else:
            complain(str(error))
        raise typer.Exit(EXIT_NO) from None
    nofile = _nofile()
    errors = report.too_few_descriptors(str(config_file), loaded.spec, nofile)
    if as_json:
        emit(_json(report.as_json(loaded.spec, nofile, errors, loaded.warnings)))
    else:
        emit(report.table(loaded.spec) + report.passed_line(loaded.spec) + report.budget_lines(loaded.spec, nofile))
        for problem in loaded.warnings:
            complain(f"warning: {problem}")
        for problem in errors:
            complain(str(problem))
        if not errors:
            emit(f"{printable(str(config_file))}: ok\n")
    if errors:
        raise typer.Exit(EXIT_NO)


@app.command("reload", short_help="Have the daemon read its file again.")
def reload_(
    confirm: Annotated[
        str | None,
        typer.Option("--confirm", metavar="TIME", help="Go back after this time unless `relayd confirm` comes."),
    ] = None,
    config_file: DaemonsFile = None,
    admin: AdminAddress = None,
) -> None:
    """Have the running daemon read its file again and do what it says: all of it, or nothing when anything is wrong.

    Prints what changes. A file that is refused leaves everything as it is: its errors go to standard error as check
    prints them, and the exit code is 1.
    """
    from relayd.cli import client
    from relayd.control.verdict import NEEDS_RESTART

    confirm_s = None if confirm is None else _seconds(confirm)
    with _asking():
        verdict = client.ask_for_verdict(_daemon(admin, config_file), "/v1/reload", {"confirm_s": confirm_s})
    _show(verdict)
    if confirm is not None and any(change.effect != NEEDS_RESTART for change in verdict.changes):
        emit(f"going back in {confirm} unless `relayd confirm` comes\n")
    if not verdict.ok:
        raise typer.Exit(EXIT_NO)


@app.command()
def confirm(config_file: DaemonsFile = None, admin: AdminAddress = None) -> None:
    """Stay with what `relayd reload --confirm` has done. The exit code is 1 when nothing waits for it."""
    from relayd.cli import client

    with _asking():
        verdict = client.ask_for_verdict(_daemon(admin, config_file), "/v1/confirm", {})
    if verdict.ok:
        emit("confirmed\n")
    else:
        _show(verdict)
        raise typer.Exit(EXIT_NO)


@app.command(short_help="Print what a reload would change.")
def plan(
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The file to reload. Default: the daemon's own.", readable=False
        ),
    ] = None,
    as_json: AsJson = False,
    admin: AdminAddress = None,
) -> None:
    """Print what a reload would change, and what that does to open connections and sessions. Changes nothing.

    Without a running daemon, FILE (/etc/relayd/relay.toml) is compared with nothing. Exit codes: 0 nothing changes; 10
    something does; 1 the reload would be refused.
    """
    from relayd.cli import client

    members = {"file": None if config_file is None else str(config_file.absolute())}
    with _asking():
        try:
            verdict = client.ask_for_verdict(_daemon(admin, config_file), "/v1/plan", members)
        except client.NoDaemon as error:
            if admin is not None:
                raise
            complain(f"{error}; the file is compared with nothing")
            verdict = _plan_from_nothing(config_file or DEFAULT_FILE)
        except (client.Unreachable, client.Refused):
            raise
        except RelaydError:  # the file cannot tell where the daemon is; this finds all that is wrong with it
            verdict = _plan_from_nothing(config_file or DEFAULT_FILE)
    if as_json:
        emit(_json(verdict.as_json()))
    else:
        _show(verdict)
    if not verdict.ok or verdict.changes:
        raise typer.Exit(EXIT_CHANGES if verdict.ok else EXIT_NO)


@app.command()
def status(as_json: AsJson = False, config_file: DaemonsFile = None, admin: AdminAddress = None) -> None:
    """Print what the running daemon does: its file, its last reload, workers, and what is open on each listener."""
    from relayd.cli import client
    from relayd.cli import status as report

    with _asking():
        found = client.ask(_daemon(admin, config_file), "GET", "/v1/status")
        if not as_json:
            try:
                text = report.text(found)
            except (KeyError, TypeError, ValueError) as error:
                raise client.Unreachable(_of_another_version(error)) from None
    emit(_json(found) if as_json else text)


class Action(str, enum.Enum):
    """What `relayd target` does."""

    LIST = "list"
    DRAIN = "drain"
    DISABLE = "disable"
    ENABLE = "enable"
    WEIGHT = "weight"


@app.command(short_help="List targets; drain, disable or enable one; give it another weight.")
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
    with _asking():
        where = _daemon(admin, config_file)
        if action is Action.LIST:
            emit(_targets(client.ask(where, "GET", "/v1/targets"), pool, as_json=as_json))
            return
        verdict = client.ask_for_verdict(where, "/v1/target", {"pool": pool, "target": name, **order})
    if as_json:
        emit(_json(verdict.as_json()))
    elif verdict.ok:
        _show(verdict)
    else:
        complain("".join(f"relayd: {error}\n" for error in verdict.errors).rstrip("\n"))
    if not verdict.ok:
        raise typer.Exit(EXIT_NO)


@app.command(short_help="Say which target a client would get, and why.")
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
) -> None:
    """Say which target of the running daemon a client would get, and why, without any traffic.

    By the code that workers choose by, with what checks and orders say now. Only a worker knows whose turn it is, whom
    it suspects, and which limits it has reached.
    """
    from relayd.cli import client
    from relayd.cli import explain as report

    members = {"listener": listener, "client": client_address, "port": port}
    with _asking():
        found = client.ask(_daemon(admin, config_file), "POST", "/v1/explain", members)
        if "error" in found:
            raise client.Refused(f"relayd: {found['error']}")
        try:
            text = report.text(found, client_address or "a client")
        except (KeyError, TypeError, ValueError) as error:
            raise client.Unreachable(_of_another_version(error)) from None
    emit(_json(found) if as_json else text)


def _targets(found: "dict[str, Any]", pool: str | None, *, as_json: bool) -> str:
    """Those of `pool`, or all. Raises client.Unreachable and RelaydError."""
    from relayd.cli import client
    from relayd.cli import targets as report

    try:
        there = [one for one in found["targets"] if pool in (None, one["pool"])]
        if pool is not None and not there:
            pools = sorted({one["pool"] for one in found["targets"]})
            raise client.Refused(f"relayd: there is no pool {pool!r}: there is {', '.join(pools)}")
        return _json({"targets": there}) if as_json else report.text(there)
    except (KeyError, TypeError, ValueError) as error:
        raise client.Unreachable(_of_another_version(error)) from None


@app.command("show-config", short_help="Print everything in force as TOML.")
def show_config(config_file: ConfigFile = DEFAULT_FILE) -> None:
    """Print everything in force, defaults included, as TOML that loads to the same thing.

    Includes are merged, [defaults] worked in, host names of binds resolved and workers = "auto" counted.
    """
    from relayd import config
    from relayd.config.show import to_toml

    try:
        loaded = config.load(config_file)
    except config.ConfigError as error:
        complain(str(error))
        raise typer.Exit(EXIT_NO) from None
    emit(to_toml(loaded.spec))


@app.command()
def schema() -> None:
    """Print the JSON Schema of relay.toml, for editors.

    An editor with TOML support (Taplo, Even Better TOML) completes and checks a file whose first line names it:

    \b
        #:schema ./relay.schema.json
    """
    from relayd.config.schema import schema as json_schema

    emit(_json(json_schema()))


@app.command("import", short_help="Turn a configuration of rinetd, HAProxy or nginx into a relay.toml.")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The other relay's configuration; - is standard input.")],
    dialect: Annotated[
        Dialect | None,
        typer.Option("--from", help="Whose it is. Default: what it looks like.", show_default=False),
    ] = None,
) -> None:
    """Print a relay.toml that does what FILE does: a rinetd.conf, the mode tcp of HAProxy, or the stream of nginx.

    What could not be carried over goes to standard error, as FILE:LINE: TEXT: REASON. Read it before you use the
    result: rules of access are among it. Nothing is written, bound or dialled; host names to bind are resolved.

    Exit codes: 0 something was imported, whatever was left over; 1 nothing was, or FILE cannot be read.
    """
    from relayd.cli.importing import import_file

    result = import_file(file, dialect)
    emit(result.toml)
    for complaint in result.complaints:
        complain(complaint)
    if not result.toml:
        raise typer.Exit(EXIT_NO)


@app.command(short_help="Print versions.")
def version() -> None:
    """Print the versions of relayd and of what it runs on."""
    import importlib.metadata

    emit(f"relayd {relayd.__version__}\n")
    emit(f"{platform.python_implementation()} {platform.python_version()}\n")
    for name in ("aiohttp", "systemd-python", "pydantic", "tomli", "typer"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "is not installed"
        emit(f"{name} {found}\n")


def main() -> int:
    """Runs the command that `sys.argv` names. Returns 1 for what no command caught, else exits."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            # A file name or a value that the locale cannot write is no reason to fail.
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a TextIOWrapper here
    try:
        if sys.argv[1:] == ["version"]:
            version()  # as by typer, which imports pydantic to learn that no --help was asked for
        else:
            if _COMPLETING in os.environ:
                from typer.completion import completion_init  # type: ignore[attr-defined]  # as typer itself has it

                completion_init()
            app()
    except RelaydError as error:
        complain(str(error))
        return EXIT_NO
    except OSError as error:
        complain(f"relayd: cannot write the output: {error.strerror or error}")
        return EXIT_NO
    return 0


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Say why a daemon could not be asked, or has refused, and exit."""
    from relayd.cli import client

    try:
        yield
    except RelaydError as error:
        complain(str(error))
        raise typer.Exit(EXIT_UNREACHABLE if isinstance(error, client.Unreachable) else EXIT_NO) from None


def _daemon(admin: str | None, file: Path | None) -> "tuple[Address, ...]":
    """Where the daemon may be: as `admin` says, else as the file does, else where it is by default."""
    from relayd.address import AddressError, parse
    from relayd.cli import client
    from relayd.spec import ADMIN_SOCKET

    if admin is not None:
        try:
            return (parse(admin),)
        except AddressError as error:
            hint = f"; did you mean {error.suggestion}?" if error.suggestion else ""
            raise typer.BadParameter(f"{admin!r}: {error}{hint}", param_hint="--admin") from None
    if file is None:
        return (ADMIN_SOCKET,)
    from relayd import config

    listen = config.load_admin(file).listen
    if not listen:
        raise client.Unreachable(f"relayd: {file}: the admin API is off: [admin] listen is []")
    return listen


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
    errors = tuple(map(str, report.too_few_descriptors(str(file), loaded.spec, _nofile())))
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


def _of_another_version(error: Exception) -> str:
    """An answer of the daemon has not what is looked for."""
    if isinstance(error, KeyError):
        return f"relayd: the answer lacks {error.args[0]}: it is of another version of relayd"
    return f"relayd: the answer is not one of this version of relayd: {error}"


def _nofile() -> int:
    """The hard limit on open files: the daemon raises its soft limit to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _NOFILE_UNLIMITED if hard == resource.RLIM_INFINITY else hard


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
