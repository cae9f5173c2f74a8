"""Single values of health_check: TOML in, what the model holds out. As `values`, whose errors these are.

What is sent and expected are bytes in the end, as `spec.Check` has them: one character for each. Text in a file stands
for its UTF-8.
"""

import re
import warnings

from relayd.config.problems import quote, quote_short
from relayd.config.units import format_duration
from relayd.config.values import duration, fault, kind
from relayd.values import dataclass

#: A target that is asked oftener has more to do for checks than for clients, and news takes up to 100 ms to workers.
INTERVAL_MIN_MS = 100
#: In a row. More is a target that never comes back, or never goes.
IN_A_ROW_MAX = 1000
#: Bytes of `send`: it leaves in one segment, or one datagram, on any path.
SEND_MAX = 1024
#: Bytes of an answer that are looked for: no more than what is looked at (control.checks.answers).
EXPECT_MAX = 1024
#: Bytes of a pattern, which is searched for in an answer each time that more of it has come.
PATTERN_MAX = 256
#: Elements of a command, and characters of one, of a path and of a host.
COMMAND_MAX = 64
TEXT_MAX = 1024

HEX_PATTERN = r"^([0-9A-Fa-f]{2})+$"
STATUS_PATTERN = r"^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"
METHOD_PATTERN = r"^[A-Z]{1,16}$"
PATH_PATTERN = r"^/[!-~]*$"
HOST_PATTERN = r"^[!-~]+$"
PERCENT_PATTERN = r"^(100|[1-9]?[0-9])%$"

_HEX, _STATUS, _PERCENT = (re.compile(each[:-1] + r"\Z") for each in (HEX_PATTERN, STATUS_PATTERN, PERCENT_PATTERN))
_METHOD, _PATH, _HOST = (re.compile(each[:-1] + r"\Z") for each in (METHOD_PATTERN, PATH_PATTERN, HOST_PATTERN))
#: A group that is one thing repeated, and is itself repeated without end: `(a+)+`, `(?:[ab]*)*`. To refuse what it does
#: not match can take such a pattern for ever. So it is with others: these can be told by looking.
_REPEATED_REPEAT = re.compile(
    r"(?<!\\)\((?:\?:|\?P<\w+>)?(?:\\.|\[\^?\]?[^\]]*\]|[^\\()\[\]|?*+{}])(?:[*+]|\{[0-9]*,\})\??\)(?:[*+]|\{[0-9]*,\})"
)
_KINDS = {"tcp": "tcp", "stream": "tcp", "udp": "udp", "dgram": "udp", "http": "http", "exec": "exec"}
_MEANT_KINDS = {
    **dict.fromkeys(("connect", "port"), "tcp"),
    **dict.fromkeys(("datagram", "packet"), "udp"),
    **dict.fromkeys(("https", "httpchk", "status", "url"), "http"),
    **dict.fromkeys(("command", "script", "external"), "exec"),
}


@dataclass(frozen=True, slots=True)
class Expected:
    """Bytes that are part of the answer, or a pattern that it matches: one of them."""

    literal: str | None = None
    pattern: str | None = None


def check_type(value: object) -> str:
    """ "tcp", "udp", "http" or "exec"."""
    if not isinstance(value, str):
        raise fault(f'must be "tcp", "udp", "http" or "exec", not {kind(value)}')
    if value not in _KINDS:
        meant = _MEANT_KINDS.get(value.lower()) or (value.lower() if value.lower() in _KINDS else "")
        message = (
            f'{quote_short(value)} is not a type of check: "tcp" (or "stream"), "udp" (or "dgram"), "http", "exec"'
        )
        raise fault(message, f"did you mean {quote(meant)}?" if meant else "")
    return _KINDS[value]


def no_check(value: object) -> str:
    """ "off": nobody asks. Only for strings."""
    if value == "off":
        return "off"
    word = str(value).lower()
    meant = _KINDS.get(word) or _MEANT_KINDS.get(word, "")
    more = {"udp": ', send = "..."', "exec": ', command = ["/path/of/a/program"]'}.get(meant, "")
    help_text = f'help: write {{ type = "{meant}"{more} }}' if meant else ""
    raise fault(f'{quote_short(str(value))}: must be "off", or a table such as {{ type = "tcp" }}', help_text)


def interval(value: object) -> int:
    """Milliseconds, INTERVAL_MIN_MS at least."""
    milliseconds = 0 if value == "off" else duration(value)
    if milliseconds < INTERVAL_MIN_MS:
        off = 'help: health_check = "off" asks nobody' if value == "off" else ""
        raise fault(f'must be at least "{format_duration(INTERVAL_MIN_MS)}"', off)
    return milliseconds


def sent(value: object) -> str:
    """What is sent."""
    data = _bytes_of(value, "hex")
    if data is None:
        raise fault(f'must be a string, or {{hex = "0d0a"}} for bytes, not {_what(value)}')
    return _bounded(data, SEND_MAX)


def expected(value: object) -> Expected:
    """What an answer must have."""
    data = _bytes_of(value, "hex")
    if data is not None:
        return Expected(literal=_bounded(data, EXPECT_MAX))
    if not (isinstance(value, dict) and list(value) == ["regex"]):
        raise fault(f'must be a string, {{regex = "..."}}, or {{hex = "0d0a"}} for bytes, not {_what(value)}')
    return Expected(pattern=_pattern(value["regex"]))


def statuses(value: object) -> tuple[object, ...]:
    """One or more, each for `status`."""
    entries = value if isinstance(value, list) else [value]
    if not 1 <= len(entries) <= 100:
        raise fault(
            "is empty: it needs at least one" if not entries else f"has {len(entries)} entries; the limit is 100"
        )
    return tuple(entries)


def command(value: object) -> tuple[object, ...]:
    """A program and its arguments, each for `argument`."""
    if isinstance(value, str):
        raise fault("must be an array: the program, and each of its arguments", f"help: write [{quote_short(value)}]")
    if not isinstance(value, list):
        raise fault('must be an array of strings, such as ["/usr/lib/check", "argument"]')
    if not value or not value[0]:
        raise fault("is empty: it needs the path of a program")
    if len(value) > COMMAND_MAX:
        raise fault(f"is too long: up to {COMMAND_MAX} strings")
    if isinstance(value[0], str) and not value[0].startswith("/"):
        raise fault(f"{quote_short(value[0])} is not an absolute path", "help: a check does not look in PATH")
    return tuple(value)


def argument(value: object) -> str:
    """Of a command."""
    text = _string(value, "as all of a command")
    if len(text) > TEXT_MAX:
        raise fault(f"is too long: up to {TEXT_MAX} characters")
    if "\0" in text:
        raise fault("an argument cannot hold a NUL byte")
    return text


def method(value: object) -> str:
    """Of an HTTP request."""
    text = _string(value, 'a method such as "GET"')
    if not _METHOD.match(text):
        upper = text.upper()
        raise fault(
            f"{quote_short(text)} is not a method: capital letters, up to 16",
            f"did you mean {quote(upper)}?" if _METHOD.match(upper) else "",
        )
    return text


def path(value: object) -> str:
    """Of an HTTP request."""
    text = _string(value, 'a path such as "/health"')
    if not _PATH.match(text) or len(text) > TEXT_MAX:
        help_text = f"did you mean {quote('/' + text)}?" if _PATH.match("/" + text) and "://" not in text else ""
        raise fault(f"{quote_short(text)} is not a path: it begins with /, and has no blank", help_text)
    return text


def host(value: object) -> str:
    """Of an HTTP request."""
    text = _string(value, 'a name such as "app.example.com"')
    if not _HOST.match(text) or len(text) > TEXT_MAX:
        raise fault(f"{quote_short(text)} cannot be a Host: printable ASCII without a blank")
    return text


def percent(value: object) -> int:
    """0 to 100."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100:
        raise fault("a part of the targets is a string with a percent sign", f'help: write "{value}%"')
    text = _string(value, 'a percentage such as "50%"')
    if not _PERCENT.match(text):
        raise fault(f'{quote_short(text)} is not a percentage: "0%" to "100%"')
    return int(text[:-1])


def _bytes_of(value: object, key: str) -> bytes | None:
    """Of a string, or of {hex = "..."}; None where it is neither."""
    if isinstance(value, str):
        return value.encode()
    if not (isinstance(value, dict) and list(value) == [key]):
        return None
    digits = value[key]
    if not isinstance(digits, str) or not _HEX.match(digits):
        raise fault('hex is pairs of hexadecimal digits, such as "0d0a"')
    return bytes.fromhex(digits)


def _what(value: object) -> str:
    return "another table" if isinstance(value, dict) else kind(value)


def _bounded(data: bytes, most: int) -> str:
    if not data:
        raise fault("is empty")
    if len(data) > most:
        raise fault(f"has {len(data)} bytes; the limit is {most}")
    return data.decode("latin-1")


def _pattern(value: object) -> str:
    text = _string(value, "a regular expression")
    pattern = _bounded(text.encode(), PATTERN_MAX)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what may mean another thing in another version of Python
            re.compile(pattern.encode("latin-1"))
    except (re.error, Warning, OverflowError, RecursionError) as error:
        raise fault(f"{quote_short(text)} is not a regular expression: {error}") from None
    return pattern


def repeats_a_repeat(pattern: str) -> str:
    """The part of `pattern` that repeats without end what repeats without end; "" where none is seen."""
    found = _REPEATED_REPEAT.search(pattern)
    return found[0] if found else ""


def status(value: object) -> tuple[int, int]:
    """A range of HTTP statuses, ends included."""
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value, value
    if not isinstance(value, str) or not _STATUS.match(value):
        shown = f"{quote_short(value)} is" if isinstance(value, str) else "that is"
        raise fault(f'{shown} not a status: a number from 100 to 599, or a range such as "200-399"')
    first, _, last = value.partition("-")
    if last and last < first:
        raise fault("the range of statuses is reversed", f"did you mean {quote(f'{last}-{first}')}?")
    return int(first), int(last or first)


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise fault(f"must be a string, {what}, not {kind(value)}")
    return value
