"""Where a running daemon is, and what becomes of a command that cannot ask it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayd.cli.exits import EXIT_NO, EXIT_UNREACHABLE
from relayd.cli.options import FILE_VARIABLE
from relayd.cli.output import complain
from relayd.errors import RelaydError

if TYPE_CHECKING:
    from relayd.cli.client import Place


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Say why a daemon could not be asked, or has refused, and exit."""
    from relayd.cli import client

    try:
        yield
    except RelaydError as error:
        complain(str(error))
        raise typer.Exit(EXIT_UNREACHABLE if isinstance(error, client.Unreachable) else EXIT_NO) from None


def find(admin: str | None, file: Path | None, token_file: str | None = None) -> "Place":
    """Where the daemon may be: as `admin` says, else as the file does, else where it is by default. Its token is in
    `token_file`, else where the environment says, else where the file does.
    """
    from relayd.address import AddressError, UnixAddress, parse
    from relayd.cli import client
    from relayd.spec import ADMIN_SOCKET

    token_file = token_file or os.environ.get(FILE_VARIABLE)
    if admin is None:
        place = client.Place((ADMIN_SOCKET,)) if file is None else client.place_of(file)
    else:
        try:
            place = client.Place((parse(admin),))
        except AddressError as error:
            hint = f"; did you mean {error.suggestion}?" if error.suggestion else ""
            raise typer.BadParameter(f"{admin!r}: {error}{hint}", param_hint="--admin") from None
        if file is not None and not token_file and not isinstance(place.addresses[0], UnixAddress):
            with contextlib.suppress(RelaydError):  # if a token is missing, the daemon says so
                place = client.Place(place.addresses, client.place_of(file).token_file)
    return client.Place(place.addresses, token_file) if token_file else place


def of_another_version(error: Exception) -> str:
    """An answer of the daemon has not what is looked for."""
    if isinstance(error, KeyError):
        return f"relayd: the answer lacks {error.args[0]}: it is of another version of relayd"
    return f"relayd: the answer is not one of this version of relayd: {error}"
