"""`relayd`: argv to one verb. Exit codes: 0 fine; 1 the answer is no; 2 usage; `run` adds those of control.main.

A verb imports what it needs when it is called: pydantic and the control process take longer to import than all that
`version` and `--help` do.
"""

import json
import platform
import resource
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

import relayd
from relayd.cli.output import complain, emit
from relayd.errors import RelaydError

__all__ = ["main"]

DEFAULT_FILE = Path("/etc/relayd/relay.toml")
EXIT_NO = 1
#: setrlimit(2) takes "unlimited" for more descriptors than any process has; the kernel's own ceiling is fs.nr_open.
_NOFILE_UNLIMITED = 1024 * 1024

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

Exit codes: 0 fine; 1 the answer is no (check found errors, run refused the file); 2 usage. run has two more.
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


@app.command()
def run(config_file: ConfigFile = DEFAULT_FILE) -> None:
    """Relay, in the foreground, until SIGTERM or Ctrl-C.

    The first signal stops accepting and lets connections finish for drain_timeout; a second one ends them now.

    Exit codes: 0 stopped in order; 1 the file was refused; 4 could not start (an address in use, too few file
    descriptors); 70 a bug, of which the log has the traceback.
    """
    from relayd.control import main as control

    raise typer.Exit(control.run(config_file))


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
        emit(report.table(loaded.spec) + report.budget_lines(loaded.spec, nofile))
        for problem in loaded.warnings:
            complain(f"warning: {problem}")
        for problem in errors:
            complain(str(problem))
        if not errors:
            emit(f"{printable(str(config_file))}: ok\n")
    if errors:
        raise typer.Exit(EXIT_NO)


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


@app.command(short_help="Print versions.")
def version() -> None:
    """Print the versions of relayd and of what it runs on."""
    import importlib.metadata

    emit(f"relayd {relayd.__version__}\n")
    emit(f"{platform.python_implementation()} {platform.python_version()}\n")
    for name in ("systemd-python", "pydantic", "tomli", "typer"):
        emit(f"{name} {importlib.metadata.version(name)}\n")


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
            app()
    except RelaydError as error:
        complain(str(error))
        return EXIT_NO
    except OSError as error:
        complain(f"relayd: cannot write the output: {error.strerror or error}")
        return EXIT_NO
    return 0


def _nofile() -> int:
    """The hard limit on open files: the daemon raises its soft limit to it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _NOFILE_UNLIMITED if hard == resource.RLIM_INFINITY else hard


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
