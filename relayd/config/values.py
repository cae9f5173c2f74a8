"""Single values: TOML in, what the model holds out. Each function here is one validator of one kind of key.

A wrong value raises what `fault` makes; `str.format` is never applied to anything that came from a file.
"""

import dataclasses
import datetime
import difflib
import re
from collections.abc import Callable
from typing import TypeVar

from pydantic_core import PydanticCustomError

from relayd import address
from relayd.address import (
    SERVICE,
    AddressError,
    Family,
    InetAddress,
    NameAddress,
    SocketAddress,
)
from relayd.config import machine
from relayd.config.ports import BindEntry, TargetEntry, parse_bind, parse_target
from relayd.config.problems import quote, quote_short
from relayd.config.token import CREDENTIALS
from relayd.config.units import DurationError, format_duration, parse_duration_ms
from relayd.spec import PortRule

#: `type` of a pydantic error that this module made.
FAULT = "relayd"

#: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of the kernel (include/net/tcp.h), in seconds.
KEEPALIVE_MAX_S = 32_767
#: TCP_USER_TIMEOUT is a signed int of milliseconds (tcp(7)): 24 days and 20 hours, rounded down to days.
USER_TIMEOUT_MAX_MS = 24 * 86_400_000
#: So often a name server is asked for a name at most, by each process that wants it resolved: TTLs are whole seconds,
#: and 0 is one of them.
TTL_MIN_MS = 1000
#: So often a worker looks who has lived long enough for a line.
PROGRESS_MIN_MS = 1000
#: One block: more is a mistake, and each is a socket or an entry that every worker holds.
BINDS_MAX = 1024
TARGETS_MAX = 1024
#: Entries of `include`; the files that they name may be as many in all (`loading`).
INCLUDES_MAX = 1024
#: Addresses of the admin API: one for each family, and one more. They are in the reserve of `spec.budget`.
ADMIN_MAX = 4
#: Names by which clients call the admin API.
HOSTS_MAX = 64
#: Sessions of one listener: as many as a process has descriptors at the very most (fs.nr_open of the kernel).
SESSIONS_MAX = 1024 * 1024
#: Answers of one session. More is no limit.
RESPONSES_MAX = 1_000_000
#: More processes than any machine has use for; each takes some 12 MB.
WORKERS_MAX = 256
#: NAME_MAX of interfaces (IFNAMSIZ 16) and of congestion algorithms (TCP_CA_NAME_MAX 16), less the NUL.
KERNEL_NAME_PATTERN = r"^[^\s/:]{1,15}$"

MODE_PATTERN = r"^0?[0-7]{3}$"

#: An absolute path, or a credential of systemd.
FILE_PATTERN = r"^(/|\$\{CREDENTIALS_DIRECTORY\}/[^/])"

#: As in a URL (RFC 1123); 253 characters are the longest that DNS has.
HOST_NAME_PATTERN = (
    r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?$"
)

_HOST_NAME = re.compile(HOST_NAME_PATTERN[:-1] + r"\Z")
_FILE = re.compile(FILE_PATTERN)
_KERNEL_NAME = re.compile(KERNEL_NAME_PATTERN[:-1] + r"\Z")
_MODE = re.compile(MODE_PATTERN[:-1] + r"\Z")

_TYPES = {"stream": "stream", "tcp": "stream", "dgram": "dgram", "udp": "dgram"}
_MEANT_TYPES = {"datagram": "dgram", "datagrams": "dgram", "packet": "dgram", "streams": "stream"}

Entry = TypeVar("Entry", BindEntry, TargetEntry)


def fault(message: str, suggestion: str = "") -> PydanticCustomError:
    """An error that reads `message`; `suggestion` is a whole line of advice."""
    return PydanticCustomError(FAULT, "{message}", {"message": message, "suggestion": suggestion})


def kind(value: object) -> str:
    """What TOML calls `value`, with its article."""
    for cls, text in (
        (bool, "a boolean"),
        (str, "a string"),
        (int, "an integer"),
        (float, "a float"),
        (list, "an array"),
        (dict, "a table"),
        (datetime.date, "a date"),
        (datetime.time, "a time"),
    ):
        if isinstance(value, cls):
            return text
    return "something else"


def one_or_many(minimum: int, maximum: int, *kinds: type) -> Callable[[object], object]:
    """A validator that makes a list of one out of a single value of one of `kinds`, and bounds a list."""
    names = " or ".join("a table" if cls is dict else "a string" for cls in kinds)

    def validate(value: object) -> object:
        if isinstance(value, kinds):
            return [value]
        if not isinstance(value, list):
            raise fault(f"must be {names}, or an array of them, not {kind(value)}")
        if len(value) < minimum:
            raise fault("is empty: it needs at least one")
        if len(value) > maximum:
            raise fault(f"has {len(value)} entries; the limit is {maximum}")
        return value

    return validate


def duration(value: object) -> int:
    """Milliseconds, 0 allowed."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = str(value) if isinstance(value, int) and 0 < value < 1_000_000_000 else "30"
        raise fault("a duration is a string with a unit, not a bare number", f'help: write "{number}s"')
    if not isinstance(value, str):
        raise fault(f'must be a duration such as "30s", not {kind(value)}')
    try:
        return parse_duration_ms(value)
    except DurationError as error:
        raise fault(f"{quote_short(value)} {error}", _did_you_mean(error.suggestion)) from None


def positive_duration(value: object) -> int:
    """Milliseconds, at least one."""
    milliseconds = 0 if value == "off" else duration(value)
    if not milliseconds:
        raise fault("must be longer than nothing; it cannot be turned off")
    return milliseconds


def ttl(value: object) -> int:
    """Milliseconds, at least as many as a second has: the DNS counts in seconds."""
    milliseconds = duration(value)
    if milliseconds < TTL_MIN_MS:
        raise fault(f'must be at least "{format_duration(TTL_MIN_MS)}"')
    return milliseconds


def progress(value: object) -> int | str:
    """Milliseconds, at least as many as a second has, or "off": that is how often workers look."""
    milliseconds = timeout(value)
    if isinstance(milliseconds, int) and milliseconds < PROGRESS_MIN_MS:
        raise fault(f'must be at least "{format_duration(PROGRESS_MIN_MS)}", or "off"')
    return milliseconds


def timeout(value: object) -> int | str:
    """Milliseconds, at least one, or "off"."""
    if value == "off":
        return "off"
    if value is False:
        raise fault("is turned off by a word", 'did you mean "off"?')
    milliseconds = duration(value)
    if not milliseconds:
        raise fault("must be longer than nothing", 'help: no limit is "off"')
    return milliseconds


def user_timeout(value: object) -> int | str:
    """As `timeout`, within what TCP_USER_TIMEOUT can hold."""
    milliseconds = timeout(value)
    if isinstance(milliseconds, int) and milliseconds > USER_TIMEOUT_MAX_MS:
        raise fault(f"the kernel takes at most {format_duration(USER_TIMEOUT_MAX_MS)}")
    return milliseconds


def kernel_seconds(value: object) -> int:
    """Whole seconds, 1 to KEEPALIVE_MAX_S."""
    milliseconds = duration(value)
    if milliseconds % 1000:
        raise fault("must be whole seconds: the kernel counts in seconds here")
    if not 1000 <= milliseconds <= KEEPALIVE_MAX_S * 1000:
        raise fault(f'must be from "1s" to "{KEEPALIVE_MAX_S}s"')
    return milliseconds // 1000


def kernel_seconds_or_off(value: object) -> int | str:
    """As `kernel_seconds`, or "off"."""
    return "off" if value == "off" else kernel_seconds(value)


def listener_type(value: object) -> tuple[str, ...]:
    """What is relayed, each once: "stream", "dgram"."""
    names = value if isinstance(value, list) else [value]
    if not names:
        raise fault('is empty: it needs "stream", "dgram" or both')
    found: dict[str, None] = {}
    for name in names:
        if not isinstance(name, str):
            raise fault(f'must be "stream" or "dgram", or an array of them, not {kind(name)}')
        if name not in _TYPES:
            close = difflib.get_close_matches(name.lower()[:16], [*_TYPES, *_MEANT_TYPES], n=1)
            meant = _MEANT_TYPES.get(close[0], close[0]) if close else ""
            message = f'{quote_short(name)} is not a type: "stream" (or "tcp", the same) or "dgram" (or "udp")'
            raise fault(message, _did_you_mean(meant))
        found[_TYPES[name]] = None
    return tuple(found)


def bind_address(value: object) -> BindEntry:
    """An address to listen at, with a port or a range of them."""
    text = _text(value, 'an address such as "0.0.0.0:80"')
    if text.startswith(SERVICE):
        raise fault("a bind cannot be a service name", 'help: write "host:port", ":port" or "unix:/path"')
    return _parsed(text, parse_bind)


def target_address(value: object) -> TargetEntry:
    """An address to dial: a host is named, and a port, a range, or none to follow that of the bind."""
    text = _text(value, 'an address such as "10.0.0.11:80"')
    if text.startswith(":") and text[1:].isdecimal():
        raise fault("a target needs a host before its port", _did_you_mean(f"127.0.0.1{text}"))
    entry = _parsed(text, parse_target)
    parsed = entry.address
    if isinstance(parsed, InetAddress | NameAddress) and parsed.port == 0 and entry.rule is PortRule.FIXED:
        raise fault(f"{quote_short(text)}: nothing can be dialled at port 0; it is from 1 to 65535")
    if isinstance(parsed, InetAddress) and parsed.wildcard:
        here = InetAddress(parsed.family, "127.0.0.1" if parsed.family is Family.INET else "::1", parsed.port)
        raise fault(
            f"{quote_short(text)} is every address, which can be listened at and not dialled",
            _did_you_mean(str(dataclasses.replace(entry, address=here))),
        )
    return entry


def admin_address(value: object) -> SocketAddress:
    """An address that the admin API can be at. Whether other machines reach it is not asked here."""
    text = _text(value, 'an address such as "unix:/run/relayd/admin.sock"')
    if text.startswith(("systemd:", SERVICE)):
        raise fault(f"{quote_short(text)}: the admin API is at unix:/path, unix:@name or host:port")
    try:
        parsed = address.parse(text)
    except AddressError as error:
        raise fault(f"{quote_short(text)}: {error}", _did_you_mean(error.suggestion)) from None
    if isinstance(parsed, NameAddress):
        local = f"127.0.0.1:{parsed.port}" if parsed.host.lower() == "localhost" else ""
        raise fault(f"{quote_short(text)}: the host is a numeric address here", _did_you_mean(local))
    if isinstance(parsed, InetAddress) and not parsed.port:
        raise fault(f"{quote_short(text)}: nobody would know the port that the kernel chooses; it is from 1 to 65535")
    return parsed


def token_file(value: object) -> str:
    """A path; whether a token is there is not asked here."""
    text = _text(value, 'a path such as "/etc/relayd/admin.token"')
    if not _FILE.match(text) or "\0" in text:
        raise fault(f"{quote_short(text)} is neither an absolute path nor {CREDENTIALS}NAME")
    return text


def admin_host(value: object) -> str:
    """A name that clients may call this machine by, in lower case."""
    text = _text(value, 'a name such as "relay.example.com"')
    name = text.lower().removesuffix(".")
    host, _, port = name.partition(":")
    if port.isdecimal() and _HOST_NAME.match(host):
        raise fault(f"{quote_short(text)}: a host stands here without its port", _did_you_mean(host))
    if not _HOST_NAME.match(name):
        raise fault(f"{quote_short(text)} is no host name; addresses and localhost need not stand here")
    if name == "localhost" or name.rpartition(".")[2].isdecimal():
        raise fault(f"{quote_short(text)} need not stand here: addresses and localhost are always taken")
    return name


def source_address(value: object) -> InetAddress:
    """A numeric address without a port, as an address of port 0."""
    text = _text(value, 'an address without a port, such as "10.0.0.5"')
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        with_port = address.parse(text)
    except AddressError:
        pass
    else:
        hint = _did_you_mean(with_port.host) if isinstance(with_port, InetAddress) else ""
        raise fault(f"{quote_short(text)}: a source is a numeric address without a port", hint)
    try:
        parsed = address.parse(f"[{bare}]:0" if ":" in bare else f"{bare}:0")
    except AddressError as error:
        raise fault(f"{quote_short(text)}: {error}") from None
    if not isinstance(parsed, InetAddress):
        raise fault(f"{quote_short(text)} is not a numeric IPv4 or IPv6 address")
    if parsed.wildcard:
        raise fault(f"{quote_short(text)} is every address", "help: leave source out, and the kernel chooses")
    return parsed


def file_mode(value: object) -> int:
    """Permission bits."""
    if isinstance(value, int) and not isinstance(value, bool):
        octal = f"0{value:03o}" if 0 <= value <= 0o777 else "0660"
        raise fault("a mode is a string of octal digits, not a number", f'help: write "{octal}"')
    text = _text(value, 'a mode such as "0660"')
    if not _MODE.match(text):
        raise fault(f'{quote_short(text)} is not a mode: three octal digits, such as "0660"')
    return int(text, 8)


def user(value: object) -> int:
    """The number of a user that exists; a number in quotes is taken as it is."""
    return _owner(value, "user", machine.user_id)


def group(value: object) -> int:
    """The number of a group that exists; a number in quotes is taken as it is."""
    return _owner(value, "group", machine.group_id)


def interface(value: object) -> str:
    """A name that an interface can have; whether there is one is not asked here."""
    return _kernel_name(value, "an interface", "eth0")


def congestion(value: object) -> str:
    """A name that a congestion control algorithm can have."""
    return _kernel_name(value, "a congestion control algorithm", "bbr")


def include_pattern(value: object) -> str:
    """A path or a glob."""
    text = _text(value, "a path")
    if not text or "\0" in text:
        raise fault("is not a path")
    return text


def workers(value: object) -> int | str:
    """A number of processes, or "auto"."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= WORKERS_MAX:
        raise fault(f'must be "auto" or a whole number from 1 to {WORKERS_MAX}')
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise fault(f"must be a string, {what}, not {kind(value)}")
    return value


def _parsed(text: str, parse: Callable[[str], Entry]) -> Entry:
    try:
        return parse(text)
    except AddressError as error:
        raise fault(f"{quote_short(text)}: {error}", _did_you_mean(error.suggestion)) from None


def _owner(value: object, what: str, find: Callable[[str], int | None]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        raise fault(f"a {what} is a string", f'help: write "{value}"' if 0 <= value < 2**32 else "")
    name = _text(value, f"the name of a {what}")
    if name.isascii() and name.isdigit() and len(name) <= 10:
        number = int(name)
        if number >= 2**32 - 1:  # (uid_t) -1 means "leave as it is" to chown(2)
            raise fault(f"{quote(name)} is not the number of a {what}")
        return number
    found = find(name)
    if found is None:
        raise fault(f"{quote_short(name)}: this machine has no such {what}")
    return found


def _kernel_name(value: object, what: str, example: str) -> str:
    name = _text(value, f'the name of {what}, such as "{example}"')
    if not _KERNEL_NAME.match(name) or len(name.encode()) > 15 or not name.isprintable() or name in (".", ".."):
        raise fault(f"{quote_short(name)} cannot be the name of {what}: 1 to 15 characters, no blank, / or :")
    return name


def _did_you_mean(text: str) -> str:
    return f"did you mean {quote(text)}?" if text else ""
