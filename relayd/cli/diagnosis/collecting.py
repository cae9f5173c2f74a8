"""All parts of a diagnosis, masked, and what their reader has to know about that.

What may quote a configuration (a check prints its arguments, an error its value) is masked by what that one has of
secrets: by what is in force, which the daemon tells, and by what its files say. Where neither is known, what may quote
it is left out, for nobody could tell what of it is a secret.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from relayd import config
from relayd.cli import client
from relayd.cli.diagnosis import masking, packing, sources
from relayd.cli.diagnosis.packing import Found
from relayd.cli.diagnosis.parts import IN_FORCE, LOG, STATUS, all_parts, config_parts
from relayd.config.document import meaning
from relayd.values import dataclass

__all__ = ["Collected", "collect", "masked"]

#: Files of one configuration that are packed; it can have a thousand. All are looked through for secrets.
_FILES_MAX = 100
#: A part that is cut off where it comes from says so, in less than that.
_NOTE_BYTES_MAX = 1024
_INCLUDE = re.compile(r"(?m)^\s*[\"']?include\b")
_LEFT_OUT = "left out: it may quote a configuration that is not known; README.txt says more"


@dataclass(frozen=True, slots=True)
class Collected:
    """`found` as it may be packed. `notices` are for who looks at it: what is not as one expects."""

    found: list[Found]
    notices: tuple[str, ...] = ()


def collect(
    daemon: client.Place | None, problem: str, given: Path | None, default: Path, *, with_clients: bool
) -> Collected:
    """The daemon is at `daemon`; None: `problem` says why that is not known. The configuration is that of `given`, else
    the one that the daemon runs on, else that of `default`.
    """
    found = packing.gather(all_parts(daemon, problem))
    running, why = _running_on(found)
    files = config.files_of(given or running or default)
    configuration = packing.gather(config_parts(files))
    notices: list[str] = []
    if given is None and running is None:
        notices.append(
            f"NOT KNOWN is which configuration the daemon runs on: {why}. config/ has {default}, which may be another "
            "one. relayd diagnose -c FILE says which it is."
        )
    elif running is not None and not _same(running, given or running):
        notices.append(f"config/ has {given}, as -c says. The daemon runs on {running}.")
    if len(files) > _FILES_MAX:
        notices.append(f"config/ has the first {_FILES_MAX} of {len(files)} files.")
    in_force = any(one.part.name == IN_FORCE and not one.problem for one in found)
    quotable = in_force or (_same(running or given, given or running) and _is_whole(configuration))
    if not quotable:
        names = [one.part.name for one in found if one.part.quotes and not one.problem]
        if names:
            notices.append(
                f"LEFT OUT are {', '.join(names)}: they may quote a configuration that is not known, or not all of it, "
                "and so its secrets could not be masked. relayd diagnose -c FILE, by who may read all of it, has them."
            )
        found = [replace(one, text="", problem=_LEFT_OUT) if one.part.name in names else one for one in found]
    shown = masked([*configuration, *found], with_clients=with_clients)
    return Collected([*shown[: len(configuration)][:_FILES_MAX], *shown[len(configuration) :]], tuple(notices))


def masked(found: Sequence[Found], *, with_clients: bool) -> list[Found]:
    """The same without what is not for others, and none of it too long."""
    secrets: set[str] = set()
    known: set[str] = set()
    without = []
    for one in found:
        text = one.text
        if not one.part.clients:
            known.update(masking.addresses_in(text))
        if one.part.config:
            text, there = masking.of_config(text)
            secrets |= there
        elif one.part.name == LOG:
            secrets |= masking.in_changes(text)
            text = masking.of_log(text)
        without.append(replace(one, text=text))
    addresses = masking.Addresses(known)

    def mask(one: Found, text: str) -> str:
        text = masking.of_text(text, secrets)
        return addresses.of_text(text) if one.part.clients and not with_clients else text

    return [
        replace(one, text=_cut(one.text if one.part.config else mask(one, one.text)), problem=mask(one, one.problem))
        for one in without
    ]


def _running_on(found: Sequence[Found]) -> tuple[Path | None, str]:
    """The file that the daemon runs on, where it has said so; else why not."""
    status = next(one for one in found if one.part.name == STATUS)
    if status.problem:
        return None, status.problem
    return Path(json.loads(status.text)["config"]["file"]), ""


def _same(one: Path | None, other: Path | None) -> bool:
    return one is not None and other is not None and one.absolute() == other.absolute()


def _is_whole(configuration: Sequence[Found]) -> bool:
    """Whether all of its files were read: one that cannot be understood does not say what it includes."""
    if any(one.problem or one.text.endswith(sources.CUT) for one in configuration):
        return False
    main = configuration[0].text
    return len(configuration) > 1 or not _INCLUDE.search(main) or meaning(main) is not None


def _cut(text: str) -> str:
    """What can be packed of it."""
    if len(text) <= sources.PART_BYTES_MAX // 4:  # not to be encoded for its length alone
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= sources.PART_BYTES_MAX + _NOTE_BYTES_MAX:
        return text
    return data[: sources.PART_BYTES_MAX].decode(errors="ignore") + sources.CUT
