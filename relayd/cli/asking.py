"""Where a running daemon is, and what becomes of a command that cannot ask it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayd.cli.exits import EXIT_NO, EXIT_UNREACHABLE
from relayd.cli.output import complain
from relayd.errors import RelaydError

if TYPE_CHECKING:
    from relayd.address import Address


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Say why a daemon could not be asked, or has refused, and exit."""
    from relayd.cli import client

    try:
        yield
    except RelaydError as error:
        complain(str(error))
        raise typer.Exit(EXIT_UNREACHABLE if isinstance(error, client.Unreachable) else EXIT_NO) from None


def find(admin: str | None, file: Path | None) -> "tuple[Address, ...]":
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


def of_another_version(error: Exception) -> str:
    """An answer of the daemon has not what is looked for."""
    if isinstance(error, KeyError):
        return f"relayd: the answer lacks {error.args[0]}: it is of another version of relayd"
    return f"relayd: the answer is not one of this version of relayd: {error}"
