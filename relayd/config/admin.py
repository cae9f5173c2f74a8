"""`[admin]` as `spec.Admin`, and what is wrong with it beyond single values."""

import hashlib
from collections.abc import Iterator

from relayd.address import InetAddress, SocketAddress
from relayd.config.conflicts import Bindings
from relayd.config.document import Document
from relayd.config.model import AdminTable
from relayd.config.problems import Problem, quote
from relayd.config.token import NoCredentials, TokenError, read_token
from relayd.spec import ADMIN_SOCKET, Admin

#: In place of a SHA-256: the token is not known.
NOBODY = "-"


def build(table: AdminTable | None, token_sha256: str = "") -> Admin:
    """Where the admin API is, and who may ask; `table` None where no file has one."""
    if table is None:
        return Admin((ADMIN_SOCKET,))
    listen = (ADMIN_SOCKET,) if table.listen is None else tuple(table.listen)
    return Admin(listen, table.token_file or "", token_sha256, table.read_only, tuple(dict.fromkeys(table.hosts)))


def token(document: Document, table: AdminTable, *, serves: bool) -> tuple[str, Problem | None, Problem | None]:
    """The SHA-256 of the token in the file, what is wrong with that, and what may be. `serves`: a daemon asks, which
    has its credentials; to others they may not be there, and then nobody has the token.
    """
    if table.token_file is None:
        return "", None, None
    path = ("admin", "token_file")
    try:
        return hashlib.sha256(read_token(table.token_file).encode()).hexdigest(), None, None
    except NoCredentials as error:
        if serves:
            return NOBODY, document.problem(path, str(error), error.help), None
        return NOBODY, None, document.problem(path, f"is not looked at: {error}, which is so in the unit alone")
    except TokenError as error:
        return NOBODY, document.problem(path, str(error), error.help), None


def warnings(document: Document, table: AdminTable) -> Iterator[Problem]:
    """What lets in more than may be meant."""
    remote = any(isinstance(address, InetAddress) and not address.loopback for address in table.listen or ())
    if table.allow_remote and remote and table.token_file is None and not table.read_only:
        message = "whoever reaches listen can reload, and see what is open"
        yield document.problem(
            ("admin", "allow_remote"), message, "help: set token_file, or read_only = true, in [admin]"
        )


def problems(document: Document, table: AdminTable, bindings: Bindings, *, any_remote: bool) -> Iterator[Problem]:
    """What stands in the way of each address of the file. `any_remote`: other machines may reach it, or whether they
    may cannot be told. `bindings` are those of every listener.
    """
    found: dict[SocketAddress, int] = {}
    for index, address in enumerate(table.listen or ()):
        first = found.setdefault(address, index)
        if first != index:
            place = document.place_of_value(("admin", "listen", first))
            yield _problem(document, index, f"{quote(str(address))} stands twice: {place}")
        elif isinstance(address, InetAddress) and not address.loopback and not any_remote:
            message = f"other machines reach {quote(str(address))}, and anybody there could reload"
            help_text = "help: take a Unix socket or 127.0.0.1, or set allow_remote = true in [admin]"
            yield _problem(document, index, message, help_text)
        elif taken := bindings.taken(address):
            yield _problem(document, index, f"{quote(str(address))} cannot be bound beside {taken}")


def _problem(document: Document, index: int, message: str, suggestion: str = "") -> Problem:
    is_list = isinstance(document.data["admin"]["listen"], list)
    return document.problem(("admin", "listen", index) if is_list else ("admin", "listen"), message, suggestion)
