"""Who may ask the admin API, and for what: decided from what a request says of itself. Pure.

    a Unix socket    its file's mode has decided who comes; nothing is asked here but that no web page does
    TCP              Host ──▶ Origin ──▶ token ──▶ read_only
                      421      403        401       403

Host and Origin are about web pages, which reach whatever their browser reaches. A page of another site that asks by an
address has an Origin (RFC 6454), and none but our own page has that of our own address. One whose own name was made to
lead here meanwhile (DNS rebinding) is of our origin by that, but its name stands in Host.
"""

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import field

from relayd.spec import Admin
from relayd.values import dataclass

__all__ = ["Access", "Asking", "Refusal"]

#: Basic is for browsers, which ask their user: the password is the token, and the name does not matter. A line for
#: each, and Basic first: browsers know one scheme to a line.
_CHALLENGES = (
    ("WWW-Authenticate", 'Basic realm="relayd", charset="UTF-8"'),
    ("WWW-Authenticate", 'Bearer realm="relayd"'),
)
#: uri-host and port of RFC 9110, section 7.2: a name or an IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,254}))(?::[0-9]{1,5})?\Z")


class Refusal(Exception):
    """What a client is told instead of a result: `status` of HTTP, why, and `headers` that go with that."""

    def __init__(self, status: int, error: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(error)
        self.status = status
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Asking:
    """What a request says of who asks. Of each header all that there are, as they stand."""

    method: str
    by_unix_socket: bool
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    authorizations: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may, as [admin] says."""

    admin: Admin

    def admit(self, asking: Asking, *, open_to_all: bool = False) -> None:
        """Raises Refusal for who may ask for nothing. `open_to_all`: for what tells nobody anything, neither Host nor
        token matter.
        """
        if not asking.by_unix_socket and not open_to_all:
            self._check_host(asking.hosts)
        if asking.origins and not _same_origin(asking):
            # A browser says so, for a page of somebody else that would have us reload. No scraper does.
            raise Refusal(403, "requests of web pages are not answered")
        if self.admin.token_file and not asking.by_unix_socket and not open_to_all:
            self._check_token(asking.authorizations)

    def permit(self, asking: Asking, *, changes: bool, private: bool = False) -> None:
        """Raises Refusal where who may ask may not ask for that. `private`: it is not for everybody on the machine."""
        if private and not self.tells_private(asking):
            error = "by TCP, this is told only where a token is asked for ([admin] token_file): ask by a Unix socket"
            raise Refusal(403, error)
        if changes and self.admin.read_only and not asking.by_unix_socket:
            raise Refusal(403, "by TCP, nothing may be changed ([admin] read_only): ask by a Unix socket")

    def tells_private(self, asking: Asking) -> bool:
        """Whether who was admitted may know what not everybody on the machine may: what stands in the file."""
        return asking.by_unix_socket or bool(self.admin.token_file)

    def _check_host(self, hosts: Sequence[str]) -> None:
        if len(hosts) != 1:
            raise Refusal(400, "a request has one Host")
        name = _host(hosts[0])
        if name is not None and name not in self.admin.hosts:
            error = (
                f"Host is {hosts[0][:80]!r}, and not an address, localhost or one of [admin] hosts: ask by an address, "
                "or add the name there"
            )
            raise Refusal(421, error)

    def _check_token(self, authorizations: Sequence[str]) -> None:
        if not authorizations:
            raise Refusal(401, "a token is needed: Authorization: Bearer TOKEN", _CHALLENGES)
        given = [_token(each) for each in authorizations]
        known = self.admin.token_sha256.encode()
        # All of them in constant time, and by their hashes: not even the length of the token can be measured.
        right = [hmac.compare_digest(hashlib.sha256(each or b"").hexdigest().encode(), known) for each in given]
        if len(right) != 1 or not right[0]:
            raise Refusal(401, "this is not the token", _CHALLENGES)


def _same_origin(asking: Asking) -> bool:
    """A page that is served here, and asks for what changes nothing. By a Unix socket there is none, and no Host was
    checked.
    """
    own = f"http://{asking.hosts[0].lower()}" if len(asking.hosts) == 1 else ""
    return asking.method == "GET" and not asking.by_unix_socket and list(asking.origins) == [own]


def _host(text: str) -> str | None:
    """The name in a Host, in lower case, as it stands where it is none; None for what always leads here: a numeric
    address, localhost.
    """
    found = _HOST.match(text)
    if found is None:
        return text
    literal, name = found[1], (found[2] or "").lower().removesuffix(".")
    if name == "localhost":
        return None
    try:
        # Strictly four decimal numbers: whatever else libraries take for an address would be a name to a browser.
        ipaddress.IPv6Address(literal) if literal else ipaddress.IPv4Address(name)
    except ValueError:
        return literal or name
    return None


def _token(authorization: str) -> bytes | None:
    """The token in an Authorization, None where there is none."""
    scheme, _, value = authorization.strip().partition(" ")
    data = value.strip().encode("utf-8", "surrogateescape")
    if scheme.lower() == "bearer":
        return data
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(data, validate=True).partition(b":")[2]
    except ValueError:
        return None
