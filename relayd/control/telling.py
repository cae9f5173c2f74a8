"""What is told to those who may not know what stands in the file: verdicts and the status, without it. Pure.

Who comes by TCP where no token is asked for is anybody on the machine. Such a client may learn that a reload was
refused and where the file is wrong, and what a plan would do. It may not learn lines of the file, nor what is sent to
targets, expected of them and run by health checks, where passwords stand.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from relayd.control.verdict import Change, Verdict

__all__ = ["public_error", "public_status", "public_verdict"]

#: `relay.toml:7:1: `, and all that `config.problems` puts there.
_PLACE = re.compile(r".*?:[0-9]+:[0-9]+: ")
#: A health check, or a key of it. What comes behind may quote its value.
_OF_CHECK = re.compile(r".*?\bhealth_check(?:\.[A-Za-z0-9_-]+|\[[0-9]+\])*")
#: `config.document` shows the line that a statement ends on: of a text of several lines, that is a piece of it.
_TWICE = " stands twice"
_NOT_SAID = "is not as it should be; how is told by a Unix socket, or where a token is asked for"


def public_error(text: str) -> str:
    """The first line of an error or a warning, which says where and what: of a health check, where."""
    line = text.partition("\n")[0]
    place = _PLACE.match(line)
    head = place[0] if place else ""
    rest = line[len(head) :]
    if rest.endswith(_TWICE):
        return f"{head}a key or a table{_TWICE}"
    found = _OF_CHECK.match(rest)
    if found is None or found.end() == len(rest):
        return line
    return f"{head}{found[0]}: {_NOT_SAID}"


def public_verdict(verdict: Verdict) -> Verdict:
    """As `verdict`, without what stands in the file."""
    return replace(
        verdict,
        changes=tuple(map(_public_change, verdict.changes)),
        errors=tuple(map(public_error, verdict.errors)),
        warnings=tuple(map(public_error, verdict.warnings)),
    )


def public_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """As `status`, without what stands in the file."""
    config = status["config"]
    last = config["last_reload"]
    if last is None:
        return dict(status)
    told = {**last, "errors": [public_error(each) for each in last["errors"]]}
    return {**status, "config": {**config, "last_reload": told}}


def _public_change(change: Change) -> Change:
    secret = change.listener is not None and change.text.startswith("health_check ")
    return replace(change, text="health_check changed") if secret else change
