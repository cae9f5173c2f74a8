"""Asks a running daemon by its admin API (docs/admin.md): where it is, one request, and what came back.

http.client and not aiohttp: a command that asks one question is done before that would be imported.
"""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from relayd.address import Address, NameAddress, UnixAddress
from relayd.control.verdict import Verdict
from relayd.errors import RelaydError
from relayd.values import dataclass

__all__ = ["NoDaemon", "Place", "Refused", "Unreachable", "ask", "ask_for_verdict", "fetch", "place_of"]

#: To reach the daemon.
_CONNECT_S = 5.0
#: For its answer: a reload may have to resolve host names of binds, each of which can take half a minute.
_ANSWER_S = 120.0
#: More than the plan of 65,535 listeners that all change.
_ANSWER_BYTES_MAX = 64 * 1024 * 1024

_WHERE_TOKENS_ARE = (
    "--token-file, RELAYD_ADMIN_TOKEN_FILE, or -c with a file whose [admin] has token_file, says where it is"
)

Json: TypeAlias = dict[str, Any]


class Unreachable(RelaydError):
    """No daemon has answered."""


class NoDaemon(Unreachable):
    """Nobody listens at any of the addresses."""


class Refused(RelaydError):
    """The daemon has not done what it was asked for."""


class _Connection(http.client.HTTPConnection):
    """HTTP over any kind of socket."""

    def __init__(self, address: Address, answer_s: float) -> None:
        super().__init__("localhost", timeout=answer_s)
        self._address = address
        self._answer_s = answer_s

    def connect(self) -> None:
        """OSError when that fails."""
        address = self._address
        if isinstance(address, NameAddress):
            self.sock = socket.create_connection((address.host, address.port), _CONNECT_S)
        else:
            self.sock = socket.socket(address.family.af, socket.SOCK_STREAM)
            self.sock.settimeout(_CONNECT_S)
            self.sock.connect(address.sockaddr)
        self.sock.settimeout(self._answer_s)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a daemon may be, and the file of the token that it may want by TCP, as relay.toml has it; "": none."""

    addresses: tuple[Address, ...]
    token_file: str = ""


def place_of(file: Path) -> Place:
    """Where a daemon is that runs on `file`. Raises ConfigError, and Unreachable when it cannot be asked."""
    from relayd import config

    admin = config.load_admin(file)
    if not admin.listen:
        raise Unreachable(f"relayd: {file}: the admin API is off: [admin] listen is []")
    return Place(admin.listen, admin.token_file)


def ask(place: Place, method: str, path: str, members: Mapping[str, object] | None = None) -> Json:
    """What the daemon at the first address of `place` where somebody listens answers.

    Raises NoDaemon when nobody does, Unreachable when there is no answer or we may not ask, Refused when it is an
    error.
    """
    connection, address = _connect(place, _ANSWER_S)
    try:
        return _exchange(connection, address, _token(place, address), method, path, members)
    finally:
        connection.close()


def fetch(place: Place, path: str, answer_s: float, bytes_max: int) -> tuple[int, bytes]:
    """Status and body of a GET as they come, whatever they are; of the body at most `bytes_max`. No wait is longer
    than `answer_s`. Raises as `ask`, but Refused.
    """
    connection, address = _connect(place, answer_s)
    try:
        token = _token(place, address)
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        response = connection.getresponse()
        return response.status, response.read(bytes_max)
    except OSError as error:
        raise Unreachable(f"relayd: {address}: {error.strerror or error}") from None
    except http.client.HTTPException:
        raise Unreachable(f"relayd: {address}: what answers there is not the admin API of relayd") from None
    finally:
        connection.close()


def _connect(place: Place, answer_s: float) -> tuple[_Connection, Address]:
    """A connection to the first address of `place` where somebody listens, and which one that is; the caller closes it.
    Raises Unreachable.
    """
    nobody: list[str] = []
    for address in place.addresses:
        connection = _Connection(address, answer_s)
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            nobody.append(f"{address}: {error.strerror}")
        except OSError as error:
            connection.close()
            raise Unreachable(f"relayd: {address}: {error.strerror or error}") from None
        else:
            return connection, address
    raise NoDaemon(f"relayd: no daemon listens at {'; '.join(nobody)}")


def ask_for_verdict(place: Place, path: str, members: Mapping[str, object]) -> Verdict:
    """As `ask`, of what answers with a verdict."""
    found = ask(place, "POST", path, members)
    try:
        return Verdict.from_json(found)
    except ValueError as error:
        raise Unreachable(f"relayd: the answer is not one of this version: {error}") from None


def _token(place: Place, address: Address) -> str:
    """What is to be sent to `address`; "": nothing. Raises Unreachable."""
    if not place.token_file or isinstance(address, UnixAddress):
        return ""
    from relayd.config.token import TokenError, read_token

    try:
        return read_token(place.token_file)
    except TokenError as error:
        raise Unreachable("\n".join(filter(None, (f"relayd: the token: {error}", error.help)))) from None


def _exchange(
    connection: _Connection,
    address: Address,
    token: str,
    method: str,
    path: str,
    members: Mapping[str, object] | None,
) -> Json:
    body = None if members is None else json.dumps(members)
    headers = {} if body is None else {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        data = response.read(_ANSWER_BYTES_MAX)
        found = json.loads(data)
    except OSError as error:
        raise Unreachable(f"relayd: {address}: {error.strerror or error}") from None
    except (http.client.HTTPException, ValueError, RecursionError):
        raise Unreachable(f"relayd: {address}: what answers there is not the admin API of relayd") from None
    if not isinstance(found, dict):
        raise Unreachable(f"relayd: {address}: what answers there is not the admin API of relayd")
    if response.status == http.client.UNAUTHORIZED:
        what = "the token is not that of the daemon" if token else "a token is needed"
        raise Unreachable(f"relayd: {address}: {what}: {_WHERE_TOKENS_ARE}")
    if response.status == http.client.SERVICE_UNAVAILABLE:
        raise Unreachable(f"relayd: {address}: {_error(found)}")
    if response.status not in (http.client.OK, http.client.CONFLICT):
        raise Refused(f"relayd: {_error(found)}")
    return found


def _error(found: Json) -> str:
    """What it says, on one line, with nothing in it that does something to a terminal."""
    text = str(found.get("error"))
    return text if text.isprintable() else repr(text)
