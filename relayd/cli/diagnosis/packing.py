"""Gets the parts of a diagnosis, all at once, and makes one archive of them with a text that says what is in it."""

import io
import tarfile
import textwrap
import threading
from collections.abc import Sequence

from relayd import clock
from relayd.cli.diagnosis.parts import Part
from relayd.cli.diagnosis.sources import NotThere
from relayd.values import dataclass

__all__ = ["GATHER_S", "Found", "gather", "listing", "pack", "readme"]

#: For everything: each part is bounded by itself, but for what nobody thinks can hang, such as reading a file.
GATHER_S = 15.0

_README = """relayd diagnose on {host}, {when}, by relayd {version}

{notices}Look through this before you give it to anybody: you know what is nobody's business, relayd does not.

Masked, as ***: in the configuration the values of `send`, the arguments of `command`, the query of a `path`, comments,
and values of keys that this relayd does not know; the same values in all other files, where they have six characters or
more; in the log, lines of a configuration that was refused, and checks that a reload has changed; in the unit, values
of Environment= and SetCredential=.
{clients}
Left as it is: the name of this machine, names and addresses of listeners and targets, names of files and users, and
what log lines say besides.

"""
_CLIENTS_MASKED = """\
Addresses that the configuration has not, clients' among them, are address-1, address-2 and so on in the log and in the
list of connections: the same address is the same name in both. With --with-clients they stay.
"""
_CLIENTS_LEFT = "Clients' addresses are in it (--with-clients).\n"


@dataclass(frozen=True, slots=True)
class Found:
    """A part, and either what it says or why it is not there."""

    part: Part
    text: str = ""
    problem: str = ""


def gather(parts: Sequence[Part], within_s: float = GATHER_S) -> list[Found]:
    """All of them, in their order, in about `within_s` at most. What takes longer goes on in a thread of its own, which
    does not keep the process from its end.
    """
    found: dict[str, Found] = {}

    def get(part: Part) -> None:
        try:
            found[part.name] = Found(part, part.get())
        except NotThere as reason:
            found[part.name] = Found(part, problem=str(reason))
        except Exception as error:  # a bug is no reason to leave out all the others, and belongs in the report
            found[part.name] = Found(part, problem=f"a bug in relayd diagnose: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=get, args=(part,), name=part.name, daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    deadline = clock.monotonic() + within_s
    for thread in threads:
        thread.join(max(deadline - clock.monotonic(), 0))
    late = f"it took more than {within_s:g} s"
    return [found.get(part.name) or Found(part, problem=late) for part in parts]


def listing(found: Sequence[Found]) -> str:
    """A line for each part: its size and what it is, or why it is not there."""
    width = max((len(one.part.name) for one in found), default=0)
    return "".join(f"{one.part.name:{width}}  {_about(one)}\n" for one in found)


def _about(one: Found) -> str:
    if one.problem:
        return f"missing: {' '.join(one.problem.split())}"
    return f"{len(one.text.encode('utf-8', 'backslashreplace')):7d} B  {one.part.what}"


def readme(
    found: Sequence[Found], notices: Sequence[str], *, host: str, when: str, version: str, with_clients: bool
) -> str:
    """What is in the archive, and what is not; `notices` first."""
    clients = _CLIENTS_LEFT if with_clients else _CLIENTS_MASKED
    loud = "".join(f"{textwrap.fill(f'!!! {notice}', 119)}\n\n" for notice in notices)
    return _README.format(host=host, when=when, version=version, notices=loud, clients=clients) + listing(found)


def pack(folder: str, text: str, found: Sequence[Found], mtime: int) -> bytes:
    """The archive: `text` as README.txt, and each part in its file, below `folder`. What is missing has its reason in
    its place.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in [
            ("README.txt", text),
            *((one.part.name, f"missing: {one.problem}\n" if one.problem else one.text) for one in found),
        ]:
            data = content.encode("utf-8", "backslashreplace")
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.mtime, member.mode = len(data), mtime, 0o600
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
