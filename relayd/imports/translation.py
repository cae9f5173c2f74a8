"""Which dialect a text is of, and its translation. Pure."""

import re
from collections.abc import Callable

from relayd.imports import Dialect, rinetd
from relayd.imports.draft import Imported
from relayd.imports.haproxy import reading as haproxy
from relayd.imports.haproxy.syntax import SECTIONS
from relayd.imports.nginx import reading as nginx
from relayd.imports.text import lines

#: Lines that are looked at: more say nothing new about what a file is.
_LINES_LOOKED_AT = 20_000
_HAPROXY = re.compile(rf"({'|'.join(sorted(SECTIONS))})(\s+[A-Za-z0-9_.:-]+)?(\s+from\s+\S+|\s+\S*:\d\S*)?\s*(#.*)?\Z")
_NGINX = re.compile(r"(stream|server|http|events|upstream\s+\S+|map\s.*)\s*(\{.*)?\Z|(listen|proxy_pass|include)\s.*;")
#: What tells that a line is of a dialect.
_MARKS: dict[Dialect, Callable[[str], bool]] = {
    Dialect.RINETD: rinetd.looks_like_a_rule,
    Dialect.HAPROXY: lambda line: _HAPROXY.match(line) is not None,
    Dialect.NGINX: lambda line: _NGINX.match(line) is not None,
}


def detect(text: str) -> Dialect | None:
    """Whose configuration `text` is, by the lines that only one of them can have; None when none has the most."""
    found = dict.fromkeys(_MARKS, 0)
    for line in lines(text)[:_LINES_LOOKED_AT]:
        stripped = line[:400].strip()
        for dialect, looks_right in _MARKS.items():
            found[dialect] += looks_right(stripped)
    most = max(found.values())
    best = [dialect for dialect, count in found.items() if count == most]
    return best[0] if most and len(best) == 1 else None


def translate(text: str, dialect: Dialect, service: rinetd.Services) -> Imported:
    """`text`, of `dialect`, as drafts and leftovers. `service` finds the port of a service by its name."""
    plain = text.replace("\r\n", "\n")
    readers: dict[Dialect, Callable[[str], Imported]] = {
        Dialect.RINETD: lambda whole: rinetd.parse(whole, service),
        Dialect.HAPROXY: haproxy.parse,
        Dialect.NGINX: nginx.parse,
    }
    return readers[dialect](plain)
