"""Takes out of texts what is not for others. Pure.

    toml, secrets = of_config(text)                     values of keys that may hold a secret, and every comment
    of_text(log, secrets)                               the same values, wherever else they stand
    Addresses(known).of_text(log)                       address-1, address-2 for those that the configuration has not

A configuration is masked by what is known to be harmless, not by what is known to be secret: a key that is misspelt,
or that a later version has, is masked. And by its tokens, not by what it means: most reports are about a file that
cannot be read.
"""

import ipaddress
import re
from collections.abc import Collection, Iterator

__all__ = ["MASK", "MASKED_KEYS", "SHOWN_KEYS", "Addresses", "addresses_in", "of_config", "of_text", "of_unit"]

MASK = "***"
#: Values of these stay as they are.
# fmt: off
SHOWN_KEYS = frozenset((
    "access", "address", "allow_remote", "backlog", "backup", "balance", "bind", "congestion", "connect_timeout",
    "defer_accept", "dial_attempts", "drain_timeout", "expect", "fail_open", "fall", "family", "fast_open",
    "format", "freebind", "group", "half_close_timeout", "health_check", "host", "hosts", "idle", "idle_timeout",
    "include", "interface", "interval", "ipv6_only", "keepalive", "level", "listen", "log", "max_connections",
    "max_ejected", "max_lifetime", "max_responses", "max_sessions", "max_ttl", "method", "min_ttl", "mode",
    "nodelay", "on_change", "on_target_error", "pool", "port", "preserve_connections", "probes", "progress",
    "read_only", "resolve", "rise", "session", "session_timeout", "slow_start", "source", "start", "status", "targets",
    "tcp_user_timeout", "timeout", "token_file", "type", "unhealthy_interval", "user", "weight", "workers",
))
# fmt: on
#: Of these a part stays: of a command its program, of a path what is before a question mark.
_COMMAND, _PATH = "command", "path"
#: What may hold a secret, in whole or in part. What is in neither list is masked, too.
MASKED_KEYS = frozenset({"send", _COMMAND, _PATH})
#: A shorter value is not looked for elsewhere: it would be found in every other word.
_SECRET_LENGTH_MIN = 6
#: In a unit: a variable's name says what its value is for.
_ENVIRONMENT = re.compile(r"(?m)^(\s*(?:Environment|SetCredential(?:Encrypted)?)\s*=)(?:\\[\s\S]|[^\\\n])*")
_HARMLESS_VARIABLE = re.compile(r'\s*"?RELAYD_ADMIN=\S+\s*\Z')

_TOKEN = re.compile(
    r"""
      (?P<comment>\#[^\n]*)
    | (?P<newline>\n)
    | (?P<blank>[^\S\n]+)
    | (?P<string>\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\Z) | '''.*?(?:'''|\Z)
                 | "(?:\\.|[^"\\\n])*"? | '[^'\n]*'?)
    | (?P<mark>[\[\]{}=,])
    | (?P<bare>[^\s\[\]{}=,"'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_IPV4 = r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.]*\w)"
_IPV6 = r"(?<![\w:.])(?=[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:)[0-9A-Fa-f:.]+(?![\w:])"
_ADDRESS = re.compile(f"{_IPV6}|{_IPV4}")


def of_config(text: str) -> tuple[str, frozenset[str]]:
    """The same lines without what may be secret; and what was, as it stood there."""
    masking = _Config()
    lines = "".join(masking.of(token) for token in _TOKEN.finditer(text)) + masking.end()
    return lines, frozenset(masking.secrets)


def of_text(text: str, secrets: Collection[str]) -> str:
    """`text` without `secrets`."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_LENGTH_MIN:
            text = text.replace(secret, MASK)
    return text


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
        return self._names.setdefault(address, f"address-{len(self._names) + 1}")


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.rstrip("."))
    except ValueError:
        return None


class _Config:
    """Goes through the tokens of a TOML file, and knows which key each value is of.

    A key is held back until the `=` after it has come: what has none is no key, but some text that is out of place.
    """

    def __init__(self) -> None:
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
            return "#"
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
            "#" if each.lastgroup == "comment" else each[0] if each.lastgroup in shown else MASK for each in held
        )

    def _value(self, text: str, *, string: bool) -> str:
        self._strings += string
        if self._key in SHOWN_KEYS or (self._key == _COMMAND and string and self._strings == 1):
            return text
        if self._key == _PATH and string:
            before, question, query = text.partition("?")
            if not question:
                return text
            self._learn(query)
            return f"{before}?{MASK}{text[-1]}"
        self._learn(text)
        lines = text.count("\n")  # what follows stays in its line
        return MASK if not string else f'"""{MASK}{chr(10) * lines}"""' if lines else f'"{MASK}"'

    def _learn(self, text: str) -> None:
        secret = text.strip("\"'")
        self.secrets.add(secret)
        self.secrets.update(line.strip() for line in secret.splitlines())
