"""argv to one verb. Those that need no daemon are here, the others in `verbs_operating` and `verbs_looking`. Exit codes
are in `exits`, those of `run` in control.main.

A verb imports what it needs when it is called: pydantic and the control process take longer to import than all that
`version` and `--help` do.
"""

import importlib
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

import relayd
from relayd.cli import verbs_diagnosing, verbs_looking, verbs_operating
from relayd.cli.asking import asking, find, of_another_version
from relayd.cli.descriptors import nofile_max
from relayd.cli.exits import EXIT_NO
from relayd.cli.options import DEFAULT_FILE, AdminAddress, ConfigFile, TokenFile
from relayd.cli.output import complain, emit, json_text
from relayd.errors import RelaydError
from relayd.imports import Dialect

__all__ = ["main"]

#: Import these, and all is imported that relays.
_WHAT_RUNS = ("relayd.control.life", "relayd.relay.worker")
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
            emit(json_text(report.as_json(None, nofile_max(), error.problems, ())))
        else:
            complain(str(error))
        raise typer.Exit(EXIT_NO) from None
    nofile = nofile_max()
    errors = report.too_few_descriptors(str(config_file), loaded.spec, nofile)
    if as_json:
        emit(json_text(report.as_json(loaded.spec, nofile, errors, loaded.warnings)))
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


# As add_typer does it without a name, from typer 0.15 on.
app.registered_commands += [*verbs_operating.verbs.registered_commands, *verbs_looking.verbs.registered_commands]
app.registered_commands += verbs_diagnosing.verbs.registered_commands


@app.command("show-config", short_help="Print everything in force as TOML.")
def show_config(
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="The configuration file; with --running, find the daemon by its admin.listen. Default: "
            f"{DEFAULT_FILE}.",
            readable=False,
        ),
    ] = None,
    running: Annotated[bool, typer.Option("--running", help="Of the running daemon, and not of the file.")] = False,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Print everything in force, defaults included, as TOML that loads to the same thing.

    Includes are merged, [defaults] worked in, host names of binds resolved and workers = "auto" counted.
    """
    from relayd import config
    from relayd.cli import client
    from relayd.config.show import to_toml

    if running:
        with asking():
            found = client.ask(find(admin, config_file, token_file), "GET", "/v1/config")
            if not isinstance(found.get("toml"), str):
                raise client.Unreachable(of_another_version(KeyError("toml")))
        emit(found["toml"])
        return
    try:
        loaded = config.load(config_file or DEFAULT_FILE)
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

    emit(json_text(json_schema()))


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
