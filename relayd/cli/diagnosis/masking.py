"""Takes out of texts what is not for others. Pure.

    toml, secrets = of_config(text)                     values of keys that may hold a secret, and every comment
    of_text(status, secrets)                            the same values, wherever else they stand
    of_log(log), of_error(error), of_state(state)       lines that quote a configuration which is in no file any more
    of_unit(unit)                                       a unit of systemd without its environment
    Addresses(known).of_text(log)                       address-1, address-2 for those that the configuration has not

A configuration is masked by what is known to be harmless, not by what is known to be secret: a key that is misspelt,
or that a later version has, is masked. And by its tokens, not by what it means: most reports are about a file that
cannot be read.
"""

import contextlib
import ipaddress
import json
import re
from collections.abc import Collection, Iterator

from relayd.config.document import meaning
from relayd.config.problems import VALUE_CHARACTERS, quote

__all__ = [
    "MASK",
    "MASKED_KEYS",
    "SHOWN_KEYS",
    "Addresses",
    "addresses_in",
    "in_changes",
    "of_config",
    "of_error",
    "of_log",
    "of_state",
    "of_text",
    "of_unit",
]

MASK = "***"
#: Values of these stay as they are.
# fmt: off
SHOWN_KEYS = frozenset((
    "access", "address", "allow_remote", "backlog", "backup", "balance", "bind", "congestion", "connect_timeout",
    "defer_accept", "dial_attempts", "drain_timeout", "expect", "fail_open", "fall", "family", "fast_open",
    "format", "freebind", "group", "half_close_timeout", "host", "hosts", "idle", "idle_timeout",
    "include", "interface", "interval", "ipv6_only", "keepalive", "level", "listen", "log", "max_connections",
    "max_ejected", "max_lifetime", "max_responses", "max_sessions", "max_ttl", "method", "min_ttl", "mode",
    "nodelay", "on_change", "on_target_error", "pool", "port", "preserve_connections", "probes", "progress",
    "read_only", "resolve", "rise", "session", "session_timeout", "slow_start", "source", "start", "status", "targets",
    "tcp_user_timeout", "timeout", "token_file", "type", "unhealthy_interval", "user", "weight", "workers",
))
# fmt: on
#: Of these a part stays: of a command its program, of a path what is before a question mark. A check is a table, of
#: which each key is asked by itself, or one word; a command that stands in its place is none.
_COMMAND, _PATH, _CHECK = "command", "path", "health_check"
#: What may hold a secret, in whole or in part. What is in neither list is masked, too.
MASKED_KEYS = frozenset({"send", _COMMAND, _PATH, _CHECK})
_HEX = "hex"
#: What stays: a program without its arguments, and a path without its query. Not what is written as an escape.
_PROGRAM = re.compile(r"[\w./+@:~-]*")
_BEFORE_QUERY = re.compile(r"[^?\\\n]*")
_QUOTES = "\"'"
_LONG_QUOTES = ('"""', "'''")
#: Written in the same way by everybody.
_PLAIN = re.compile(r"[\w .,:;/=+*&%$#!?()@<>{}\[\]|~^-]*\Z", re.ASCII)
_CHECK_WORDS = frozenset({"off", "tcp", "udp", "http", "exec"})
#: A shorter value is not looked for elsewhere: it would be found in every other word.
_SECRET_LENGTH_MIN = 6
_NONE: dict[int, set[str]] = {}
#: In a unit: a variable's name says what its value is for. A line that ends with a backslash goes on after whatever
#: comments follow (systemd.syntax(7)); blanks after the backslash do not matter (since systemd 254). What somebody has
#: made a comment of is masked as well.
_ENVIRONMENT = re.compile(
    r"(?m)^([ \t]*[#;]?[ \t]*(?:Environment|SetCredential(?:Encrypted)?)[ \t]*=)"
    r"(?:\\[ \t\r]*\n(?:[ \t]*[#;][^\n]*(?:\n|\Z))*|\\[\s\S]|[^\\\n])*"
)
_HARMLESS_VARIABLE = re.compile(r'\s*"?RELAYD_ADMIN=\S+\s*\Z')

_TOKEN = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<blank>[^\S\n]+)
    | (?P<string>\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\Z) | '''.*?(?:'''|\Z)
                 | "(?:\\[^\n]|[^"\\\n])*(?:"|\\)? | '[^'\n]*'?)
    | (?P<mark>[\[\]{}=,])
    | (?P<bare>[^\s\[\]{}=,"'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
#: What `relayd` has systemd show of a reload that was refused: an error, which may quote a value.
_REFUSED = "the last reload was refused: "
_REFUSED_STATE = re.compile(rf"({_REFUSED}).*")
#: A line of the journal: when, which machine, who, and what. What has more lines goes on below, indented.
_LOG_LINE = re.compile(r"(?:\S+ \S+ (?P<who>[^\s:]+): )?(?P<indent>[ \t]*)")
#: How an error or a warning about a file begins (`config.problems`), and a reload that was refused. Below it is a line
#: of the file; in a log of JSON, behind it.
_FILE_PROBLEM = re.compile(r"\S:[0-9]+:[0-9]+: |refused, nothing has changed: ")
_JSON_REST = re.compile(r'\\n {4}.*?(?="\}$|$)')
#: What a reload has changed of a check: how it was, and how it is.
_CHANGED = re.compile(r"(~ listener .{1,400}?: health_check )(.*)")
_TABLES = re.compile(r"\{.*\}")
#: An error about a key that may hold a secret quotes the value.
_QUOTING = re.compile(r"(:[0-9]+:[0-9]+: .*?\b(?:send|command|path|health_check)(?:\[[0-9]+\])*: )(.*)")
_QUOTED = re.compile(r'(?P<mark>\\*").*(?P=mark)')
_IPV4 = r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.]*\w)"
_IPV6 = r"(?<![\w:.])(?=[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:)[0-9A-Fa-f:.]+(?!\w)"
_ADDRESS = re.compile(f"{_IPV6}|{_IPV4}")


def of_config(text: str) -> tuple[str, frozenset[str]]:
    """The same lines without what may be secret; and what was, as it stood there."""
    masking = _Config()
    lines = "".join(masking.of(token) for token in _TOKEN.finditer(text)) + masking.end()
    return lines, frozenset(masking.secrets)


def of_text(text: str, secrets: Collection[str]) -> str:
    """`text` without `secrets`, in a time that hardly depends on how many they are."""
    # By their beginning, and then by their length, the longest first: what stands at a place is looked up, not tried.
    beginnings: dict[str, dict[int, set[str]]] = {}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_LENGTH_MIN:
            beginnings.setdefault(secret[:_SECRET_LENGTH_MIN], {}).setdefault(len(secret), set()).add(secret)
    seen: list[str] = []
    end = 0  # of what is done, or of the secret that goes furthest
    for at in range(len(text) - _SECRET_LENGTH_MIN + 1):
        for length, those in beginnings.get(text[at : at + _SECRET_LENGTH_MIN], _NONE).items():
            if text[at : at + length] in those:
                if at >= end:
                    seen += text[end:at], MASK
                end = max(end, at + length)
                break
    return "".join((*seen, text[end:]))


def of_log(text: str) -> str:
    """The journal without lines of the configuration: those below an error about it, and checks that a reload changed.

    Tracebacks, which are indented as well, stay.
    """
    shown: list[str] = []
    # Whose last line that is not indented is about no file. Of others that is not known: the beginning may be cut off.
    harmless: set[str] = set()
    who = ""
    for line in text.split("\n"):
        found = _LOG_LINE.match(line)
        head, who = (line[: found.end()], found["who"] or who) if found else ("", who)
        if head.endswith((" " * 4, "\t")) and line.strip():
            shown.append(line if who in harmless else head + MASK)
        elif _FILE_PROBLEM.search(line):
            harmless.discard(who)
            shown.append(of_error(_JSON_REST.sub(rf"\\n    {MASK}", line)))
        else:
            harmless.add(who)
            shown.append(_CHANGED.sub(rf"\g<1>{MASK}", line))
    return "\n".join(shown)


def in_changes(log: str) -> frozenset[str]:
    """Secrets of checks that a reload has changed: those of before are in no file any more."""
    secrets: set[str] = set()
    for line in log.split("\n"):
        changed = _CHANGED.search(line)
        if changed:
            tables = _TABLES.search(_CHANGED.sub(r"\2", _message(line)))
            secrets |= of_config(f"{_CHECK} = {tables[0]}")[1] if tables else set()
    return frozenset(secrets)


def _message(line: str) -> str:
    """Of a line of the log; all of it, unless it is JSON."""
    try:
        return str(json.loads(line[line.index("{") :])["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return line


def of_error(line: str) -> str:
    """The first line of an error about the configuration, without a value that may be secret."""
    return _QUOTING.sub(lambda found: found[1] + _QUOTED.sub(rf"\g<mark>{MASK}\g<mark>", found[2]), line)


def of_state(text: str) -> str:
    """What `systemctl show` says, without the error of a reload; the status and the log have it."""
    return _REFUSED_STATE.sub(rf"\g<1>{MASK}", text)


def of_unit(text: str) -> str:
    """A unit of systemd without what it says of the environment."""

    def masked(found: "re.Match[str]") -> str:
        value = found[0].removeprefix(found[1])
        return found[0] if _HARMLESS_VARIABLE.match(value) else found[1] + MASK

    return _ENVIRONMENT.sub(masked, text)


def addresses_in(text: str) -> Iterator[str]:
    """Every IP address of a text, as it stands there."""
    for found in _ADDRESS.finditer(text):
        if _parsed(found[0]) is not None:
            yield found[0]


class Addresses:
    """Gives every address that is not known a name: the same one wherever it stands, so that a report can be read."""

    def __init__(self, known: Collection[str]) -> None:
        """`known` stay: what the configuration has, and what its names are."""
        self._known = {_parsed(each) for each in known}
        self._names: dict[object, str] = {}

    def of_text(self, text: str) -> str:
        """`text` with names in place of addresses."""
        return _ADDRESS.sub(self._masked, text)

    def _masked(self, found: "re.Match[str]") -> str:
        address = _parsed(found[0])
        if address is None or address in self._known or address.is_loopback or address.is_unspecified:
            return found[0]
        after = found[0][len(_without_stop(found[0])) :]
        return self._names.setdefault(address, f"address-{len(self._names) + 1}") + after


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(_without_stop(text))
    except ValueError:
        return None


def _without_stop(text: str) -> str:
    """An address without the full stop or the colon of the sentence that it stands in."""
    text = text.rstrip(".")
    if text.endswith(":::") or (text.endswith(":") and not text.endswith("::")):
        return text[:-1]
    return text


class _Config:
    """Goes through the tokens of a TOML file, and knows which key each value is of.

    A key is held back until the `=` after it has come: what has none is no key, but some text that is out of place.
    """

    def __init__(self, *, in_comment: bool = False) -> None:
        #: This is the text of a comment; what is a comment there is not looked into any more.
        self._in_comment = in_comment
        self.secrets: set[str] = set()
        #: Tokens of a key, or of a header, so far; None in a value.
        self._held: list[re.Match[str]] | None = []
        self._key = ""
        #: Open brackets of values, each with the key that it is of.
        self._open: list[tuple[str, str]] = []
        #: Strings of the value so far.
        self._strings = 0
        self._last_bare = ""

    def of(self, token: "re.Match[str]") -> str:
        """What there is to be seen of the next token, and of those that were held back."""
        kind, text = token.lastgroup, token[0]
        if kind == "newline":
            return self._newline()
        if self._held is not None:
            return self._in_key(token)
        if kind == "comment":
            return self._comment(text)
        if kind == "mark":
            return self._mark(text)
        if kind == "blank":
            return text
        self._last_bare = text if kind == "bare" else ""
        return self._value(text, string=kind == "string")

    def end(self) -> str:
        """What was held back as the text ends."""
        return self._release() if self._held is not None else ""

    def _newline(self) -> str:
        if self._held is None and self._open:
            return "\n"  # goes on
        released = self._release() if self._held is not None else ""
        if not self._open or self._open[-1][0] == "[":
            self._open.clear()
        self._held = []
        return f"{released}\n"

    def _in_key(self, token: "re.Match[str]") -> str:
        text, held = token[0], self._held or []
        if text == "=" and token.lastgroup == "mark":
            shown = "".join(each[0] for each in held)
            self._begin(shown)
            return f"{shown}="
        if text == "}" and self._open and all(each.lastgroup == "blank" for each in held):
            return "".join(each[0] for each in held) + self._mark(text)
        held.append(token)
        self._held = held
        return ""

    def _begin(self, key: str) -> None:
        """A value of this key begins."""
        self._key = key.replace('"', "").replace("'", "").strip().rpartition(".")[2].strip()
        self._held, self._strings, self._last_bare = None, 0, ""

    def _mark(self, mark: str) -> str:
        if mark in "[{":
            self._open.append((mark, self._key))
        elif mark in "]}" and self._open:
            _, self._key = self._open.pop()
            self._held = None
        elif mark == "=":  # the value before it was never ended
            self._open.clear()
            self._begin(self._last_bare)
        if mark in "{," and self._open and self._open[-1][0] == "{":
            self._held = []
        return mark

    def _release(self) -> str:
        """What was held back turns out to be no key."""
        held, self._held = self._held or [], []
        first = next((each[0] for each in held if each.lastgroup != "blank"), "")
        shown = ("blank", "mark", "bare", "string") if first == "[" else ("blank", "mark")  # a header, or nothing known
        return "".join(
            self._comment(each[0]) if each.lastgroup == "comment" else each[0] if each.lastgroup in shown else MASK
            for each in held
        )

    def _comment(self, text: str) -> str:
        """Learned as a whole, with its mark: its words mean nothing elsewhere. But it may be what was a line before."""
        self.secrets |= _written(text.strip())
        if not self._in_comment:
            of_before = _Config(in_comment=True)
            for token in _TOKEN.finditer(text.lstrip("# \t")):
                of_before.of(token)
            self.secrets |= of_before.secrets
        return "#"

    def _value(self, text: str, *, string: bool) -> str:
        self._strings += string
        if self._key in SHOWN_KEYS or (self._key == _CHECK and text.strip(_QUOTES) in _CHECK_WORDS):
            return text
        if string and self._key in (_COMMAND, _PATH) and self._strings == 1:
            return self._beginning(text, _PROGRAM if self._key == _COMMAND else _BEFORE_QUERY)
        self._learn(text)
        lines = text.count("\n")  # what follows stays in its line
        return MASK if not string else f'"""{MASK}{chr(10) * lines}"""' if lines else f'"{MASK}"'

    def _beginning(self, text: str, shown: "re.Pattern[str]") -> str:
        """A string of which what matches `shown` stays."""
        mark = text[:3] if text[:3] in _LONG_QUOTES else text[0]
        body = text[len(mark) :].removesuffix(mark)
        found = shown.match(body)
        before = found[0] if found else ""
        rest = body[len(before) :]
        if not rest:
            return text
        for each in (rest, rest[1:], *rest.split()):
            self._learn(f"{mark}{each}{mark}")
        if len(body) > VALUE_CHARACTERS:  # a message quotes the beginning of all of it
            self._learn(text)
        between = rest[0] if rest[0] in " ?" else ""
        return f"{mark}{before}{between}{MASK}{chr(10) * rest.count(chr(10))}{mark}"

    def _learn(self, text: str) -> None:
        """A value, as the file has it."""
        self.secrets |= _written(text.strip(_QUOTES))
        meant = _meant(text)
        if meant is None:
            return
        self.secrets |= _written(meant)
        if len(meant) > VALUE_CHARACTERS:
            self.secrets |= _written(meant[:VALUE_CHARACTERS])  # as a message quotes it
        if self._key == _COMMAND:
            self.secrets |= _written(meant.partition("=")[2])  # of --password=...
        if self._key == _HEX:
            with contextlib.suppress(ValueError):  # what is no hexadecimal is no value either
                data = bytes.fromhex(meant)
                self.secrets |= {data.hex(), repr(data)[2:-1]} | _written(data.decode(errors="backslashreplace"))


def _meant(text: str) -> str | None:
    """What a string of TOML stands for; None where it is none."""
    value = (meaning(f"x={text}") or {}).get("x")
    return value if isinstance(value, str) else None


def _written(value: str) -> set[str]:
    """`value` and its lines, as files, the log, JSON and what a check has heard write them."""
    found: set[str] = set()
    for each in {value, value.strip(), *map(str.strip, value.splitlines())}:
        ways = {each}
        if not _PLAIN.match(each):
            # As a message quotes it, as an answer is shown, and as what a command says.
            ways |= {quote(each)[1:-1], repr(each.encode(errors="backslashreplace"))[2:-1]}
            ways.add("".join(one if one.isprintable() else "?" for one in each))
            ways |= {json.dumps(way, ensure_ascii=ascii_only)[1:-1] for way in ways for ascii_only in (True, False)}
        found |= ways
    return found
