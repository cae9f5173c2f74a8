"""The command that collects what a bug report needs. `verbs` has them all."""

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import relayd
from relayd import clock
from relayd.cli.asking import find
from relayd.cli.exits import EXIT_NO, EXIT_USAGE
from relayd.cli.options import DEFAULT_FILE, AdminAddress, TokenFile
from relayd.cli.output import complain, emit
from relayd.errors import RelaydError

if TYPE_CHECKING:
    from relayd.cli.diagnosis.collecting import Collected

verbs = typer.Typer()

_STDOUT = "-"


@verbs.command(short_help="Write an archive for a bug report.")
def diagnose(
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The archive; - is standard output. Default: relayd-diagnose-HOST-TIME.tar.gz, here.",
        ),
    ] = None,
    with_clients: Annotated[bool, typer.Option("--with-clients", help="Leave clients' addresses as they are.")] = False,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", metavar="FILE", help="The configuration file. Default: the daemon's own.", readable=False
        ),
    ] = None,
    admin: AdminAddress = None,
    token_file: TokenFile = None,
) -> None:
    """Write an archive with what a bug report needs, and print what is in it.

    The configuration and the unit, masked; what the daemon says of itself; the end of its log; versions, limits, and
    settings and counters of the kernel. Only root sees all of that: what cannot be had has the reason in its place,
    and so has all that a daemon would say that does not answer. Nothing is sent anywhere.

    Secrets are masked as far as relayd can tell. Look through the archive before you give it to anybody.
    """
    from relayd.cli.diagnosis import packing

    if output == _STDOUT and sys.stdout is not None and sys.stdout.isatty():
        complain("relayd diagnose: an archive is nothing for a terminal: use --output FILE")
        raise typer.Exit(EXIT_USAGE)
    second = int(clock.wall())
    when, host = clock.utc(second), platform.node() or "localhost"
    folder = f"relayd-diagnose-{_file_name(host)}-{when.replace(':', '').replace('-', '')}Z"
    collected = _collect(admin, config_file, token_file, with_clients=with_clients)
    found, notices = collected.found, collected.notices
    about = packing.readme(
        found, notices, host=host, when=f"{when}Z", version=relayd.__version__, with_clients=with_clients
    )
    archive = packing.pack(folder, about, found, second)
    lines = f"README.txt: what is in it, and what is masked\n{packing.listing(found)}"
    if output == _STDOUT:
        complain(lines.rstrip("\n"))
        sys.stdout.buffer.write(archive)
        sys.stdout.buffer.flush()
    else:
        name = output or _free(folder)
        _write(name, archive)
        emit(f"{lines}{name}: look through it before you give it to anybody\n")
    for notice in notices:
        complain(f"relayd diagnose: {notice}")


def _collect(admin: str | None, file: Path | None, token_file: str | None, *, with_clients: bool) -> "Collected":
    """All parts, masked."""
    from relayd.cli import client
    from relayd.cli.diagnosis.collecting import collect

    place: client.Place | None = None
    problem = ""
    try:
        place = find(admin, file, token_file)
    except RelaydError as error:  # the file cannot tell where the daemon is, or has none
        problem = str(error).partition("\n")[0]  # without the line of the file that may follow
    return collect(place, problem, file, DEFAULT_FILE, with_clients=with_clients)


def _file_name(host: str) -> str:
    return "".join(each if each.isascii() and each.isalnum() else "-" for each in host)[:64]


def _free(folder: str) -> str:
    """What the archive is called where nobody has said it. Who calls twice within a second has two of them."""
    name, number = f"{folder}.tar.gz", 1
    while os.path.lexists(name):
        number += 1
        name = f"{folder}-{number}.tar.gz"
    return name


def _write(name: str, archive: bytes) -> None:
    """For its owner alone, and nothing that is there already."""
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as opened:
            opened.write(archive)
    except OSError as error:
        complain(f"relayd diagnose: {name}: {error.strerror or error}; --output FILE writes to another place")
        raise typer.Exit(EXIT_NO) from None
