"""Options that several commands have."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from relayd.cli import main as short_way

DEFAULT_FILE = Path(short_way.DEFAULT_FILE)
#: In the environment: the default of --token-file.
FILE_VARIABLE = "RELAYD_ADMIN_TOKEN_FILE"

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
TokenFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--token-file", metavar="FILE", envvar=FILE_VARIABLE, help="Where the token is that the daemon wants by TCP."
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
