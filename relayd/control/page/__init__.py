"""The page for people: what a relay does, as one HTML document that needs nothing else. Pure.

    question("10.0.0.0/8", status)            what to ask of connections, for what somebody has typed
    document(status, connections, q, sort)    the page
    HEADERS                                   what goes with it

There is one way to say how things look, and it is here: a browser that runs scripts asks for this same page every two
seconds and takes over what has changed (page.js); one that does not has the same page. Nothing on it changes anything.

What is shown was said by others: clients, targets, files. It is escaped (`marks`), and were that ever to fail, no
script would run by it: the policy names the hash of the one that may, and lets nothing be loaded or framed.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlencode

from relayd.control.page.marks import UNKNOWN, Markup, cell, join, lasting, line, number, rate, row, size, state, text

__all__ = [
    "CONNECTIONS_SHOWN",
    "CONTENT_TYPE",
    "HEADERS",
    "LISTENERS_SHOWN",
    "SEARCH_MAX",
    "SORTS",
    "document",
    "question",
]

CONTENT_TYPE = "text/html; charset=utf-8"
#: Orders of connections, as the admin API calls them, and in words; the first one unless somebody says otherwise.
SORTS = {"age": "oldest", "new": "newest", "idle": "idle longest", "bytes": "most bytes", "rate": "fastest"}
#: A search: an address of a Unix socket is as long as that.
SEARCH_MAX = 120
#: Rows. More are not read, and a phone shall show them every two seconds; `relayd status` and the API have all.
CONNECTIONS_SHOWN = 100
LISTENERS_SHOWN = 100
_TARGETS_SHOWN = 100
#: Reasons of a refused reload.
_ERRORS_SHOWN = 5
#: States of targets that need no look.
_FINE = ("up", "unchecked")
#: The class of a sum, by whether it is not as it should be.
_BAD = {True: "bad", False: "good"}
_ID = re.compile(r"[0-9a-f]+-[0-9]+-[0-9]+")


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


# Read when this is imported, as code is: a daemon shows what it was started with, whatever an upgrade has installed.
_CSS, _JS, _PAGE = _part("page.css"), _part("page.js"), Template(_part("page.html"))


def _hash_of(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


#: Beside those of every answer of the API, by which no cache keeps it and nobody takes it for something else.
HEADERS = (
    (
        "Content-Security-Policy",
        # The page's own style and script, itself as what scripts may ask, its icon, and the search.
        f"default-src 'none'; script-src {_hash_of(_JS)}; style-src {_hash_of(_CSS)}; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
)


def question(q: str, status: Mapping[str, Any]) -> dict[str, str]:
    """What of the connections to show for what somebody has typed, for `living.selection_of`: a listener, a target or
    an id where it is one, else a client; nothing for all of them.
    """
    if not q:
        return {}
    if any(each["name"] == q for each in status["listeners"]):
        return {"listener": q}
    if any(each["target"] == q for each in status["targets"]):
        return {"target": q}
    return {"conn_id" if _ID.fullmatch(q) else "client": q}


def document(status: Mapping[str, Any], connections: Mapping[str, Any] | None, q: str = "", sort: str = "age") -> bytes:
    """The page, from the status with the history of LISTENERS_SHOWN and the answer about connections, both as
    docs/admin.md has them. `connections` None: `q` is nothing that can be searched for.
    """
    listeners, targets = status["listeners"], _worst_first(status["targets"])
    found = [] if connections is None else connections["connections"]
    page = _PAGE.substitute(
        css=_CSS,
        js=_JS,
        q=text(q),
        q_max=text(SEARCH_MAX),
        sort=text(sort),
        life=text(f"{status['version']}, pid {status['pid']}, since {_moment(status['started_at'])}"),
        news=join(Markup(f"<p>{text(each)}</p>") for each in _news(status)),
        sums=_sums(status),
        listeners_note=text(_more(len(listeners), LISTENERS_SHOWN)),
        listeners=_rows(map(_listener, listeners[:LISTENERS_SHOWN]), 6, "no listener"),
        targets_note=text(_more(len(targets), _TARGETS_SHOWN)),
        targets=_rows(map(_target, targets[:_TARGETS_SHOWN]), 4, "no target"),
        connections_note=text(_found(connections, q)),
        orders=_orders(q, sort),
        connections=_rows(map(_connection, found[:CONNECTIONS_SHOWN]), 5, "none"),
    )
    return page.encode("utf-8", "backslashreplace")  # a path can have bytes that are no UTF-8


# the daemon as a whole ----------------------------------------------------------------------------------------------


def _news(status: Mapping[str, Any]) -> Iterable[str]:
    """What somebody has to know, or to do."""
    config, last = status["config"], status["config"]["last_reload"]
    if config["confirm_until"] is not None:
        yield f"Goes back to the configuration before at {_moment(config['confirm_until'])}, unless confirmed."
    if last is not None and not last["ok"]:
        yield f"The reload of {_moment(last['at'])} was refused; what was in force still is."
        # Not the lines of the file below each: they are for who may read it.
        yield from (error.partition("\n")[0] for error in last["errors"][:_ERRORS_SHOWN])
        more = len(last["errors"]) - _ERRORS_SHOWN
        if more > 0:
            yield f"And {more} more: relayd status"
    for worker in status["workers"]:
        if worker["phase"] != "running":
            yield f"Worker {worker['number']} is {worker['phase']}."
    for name in status["names"]:
        if name["error"]:
            yield f"{name['name']} does not resolve: {name['error']}"


def _sums(status: Mapping[str, Any]) -> Markup:
    listeners, targets, workers = status["listeners"], status["targets"], status["workers"]
    running = sum(each["phase"] == "running" for each in workers)
    fine = sum(each["state"] in _FINE for each in targets)
    pairs = (
        ("Open", f"{sum(each['active'] for each in listeners):,}", False),
        ("New", _per_s(_sum_of_rates(listeners, "accepted")), False),
        ("In", rate(_sum_of_rates(listeners, "bytes_in")), False),
        ("Out", rate(_sum_of_rates(listeners, "bytes_out")), False),
        ("Targets in use", _of(fine, len(targets)), fine < len(targets)),
        ("Workers", _of(running, len(workers)), running < len(workers)),
    )
    return join(
        Markup(f'<div><dt>{text(name)}</dt><dd class="{_BAD[bad]}">{text(value)}</dd></div>\n')
        for name, value, bad in pairs
    )


def _sum_of_rates(listeners: Sequence[Mapping[str, Any]], name: str) -> float | None:
    known = [each["rate"][name] for each in listeners if each.get("rate")]
    return sum(known) if known else None


def _of(count: int, total: int) -> str:
    return f"{count} of {total}"


def _per_s(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.0f}/s" if number >= 10 or number == 0 else f"{number:.1f}/s"


def _moment(moment: str) -> str:
    """`2026-11-23T00:12:00Z` with a blank in it."""
    return moment.replace("T", " ").replace("Z", " UTC")


def _more(count: int, shown: int) -> str:
    return f"The first {shown:,} of {count:,}; relayd status shows all" if count > shown else ""


# rows ---------------------------------------------------------------------------------------------------------------


def _rows(rows: Iterable[Markup], columns: int, nothing: str) -> Markup:
    return join(rows) or Markup(f'<tr><td class="empty" colspan="{columns}">{text(nothing)}</td></tr>')


def _listener(one: Mapping[str, Any]) -> Markup:
    per_s = one.get("rate") or dict.fromkeys(("accepted", "bytes_in", "bytes_out"))
    return row(
        cell(one["name"], one["type"], head=True),
        number(f"{one['active']:,}"),
        number(_per_s(per_s["accepted"]), f"{one['accepted']:,}", wide=True),
        number(rate(per_s["bytes_in"]), size(one["bytes_in"])),
        number(rate(per_s["bytes_out"]), size(one["bytes_out"])),
        line([bytes_in + bytes_out for _, bytes_in, bytes_out in one.get("history") or ()]),
    )


def _worst_first(targets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(targets, key=lambda one: one["state"] in _FINE)


def _target(one: Mapping[str, Any]) -> Markup:
    return row(
        cell(one["target"], one["pool"], head=True),
        state(one["state"], f"for {lasting(one['for_s'])}" if one["for_s"] is not None else ""),
        number(one["weight"], "backup" if one["backup"] else "", wide=True),
        cell(one["reason"], _met(one["failures"])),
    )


def _met(failures: Mapping[str, Any] | None) -> str:
    if failures is None:
        return ""
    count, ago = failures["count"], lasting(failures["ago_s"])
    return (
        f"{count:,} {'failure' if count == 1 else 'failures'} met by clients, the last {ago} ago: {failures['reason']}"
    )


def _found(connections: Mapping[str, Any] | None, q: str) -> str:
    if connections is None:
        return f"{q!r} is no listener, client, target or id"
    shown, total = len(connections["connections"]), connections["total"]
    told = "" if connections["complete"] else "; a worker has not answered in time"
    return (f"The first {shown:,} of {total:,}" if shown < total else f"{total:,} in all") + told


def _orders(q: str, sort: str) -> Markup:
    """Links to this page in another order, and which one it is in."""
    links = []
    for order, words in SORTS.items():
        query = urlencode({"q": q, "sort": order}, errors="backslashreplace")
        current = Markup(' aria-current="true"') if order == sort else ""
        links.append(Markup(f'<a href="/?{text(query)}"{current}>{text(words)}</a>\n'))
    return join(links)


def _connection(one: Mapping[str, Any]) -> Markup:
    client = _with_port(one["client"], one["client_port"])
    return row(
        cell(client, one["listener"], head=True),
        cell(one["target"] or UNKNOWN, _doing(one)),
        number(lasting(one["age_s"]), f"idle {lasting(one['idle_s'])}"),
        number(size(one["bytes_in"]), rate(one["rate_in"])),
        number(size(one["bytes_out"]), rate(one["rate_out"])),
    )


def _with_port(host: str, port: int | None) -> str:
    if not port:
        return host or "a Unix socket"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _doing(one: Mapping[str, Any]) -> str:
    """In what state it is, and which direction of it does not flow."""
    ways = [f"{name} {one[name]}" for name in ("in", "out") if one[name] not in (None, "open")]
    return ", ".join([one["state"].replace("_", " "), *ways])
