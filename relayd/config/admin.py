"""`[admin]` as `spec.Admin`, and what is wrong with it beyond single values."""

from collections.abc import Iterator

from relayd.address import InetAddress, SocketAddress
from relayd.config.conflicts import Bindings
from relayd.config.document import Document
from relayd.config.model import AdminTable
from relayd.config.problems import Problem, quote
from relayd.spec import ADMIN_SOCKET, Admin


def build(table: AdminTable | None) -> Admin:
    """Where the admin API is; `table` None where no file has one."""
    listen = table.listen if table is not None else None
    return Admin((ADMIN_SOCKET,) if listen is None else tuple(listen))


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
