"""What comes of another relay's configuration: listeners as relay.toml will have them, and what had no place there."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TypeAlias

from relayd.values import dataclass

#: Tables are `keepalive`, `health_check` and what is in that.
Value: TypeAlias = str | int | bool | Mapping[str, "Value"] | tuple["Value", ...]

#: `[listeners.NAME]`: what config.listeners allows.
NAME_CHARACTERS_MAX = 64
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Leftover:
    """What was not carried over: the line it is in, its text, and the reason, with what to do about it.

    `opens` is True when it kept somebody out, and the import does not.
    """

    line: int
    text: str
    reason: str
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of one key, the line that it comes from, and what is to be said of it beside it."""

    value: Value
    line: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """An address as `bind` or `targets` has it, and the line that it comes from. Targets have a share besides, and a
    limit: 0 where there is none.
    """

    text: str
    line: int
    weight: int = 1
    backup: bool = False
    max_connections: int = 0


@dataclass(frozen=True, slots=True)
class Home:
    """What has the targets of a listener there, for others as well: `name` is how it is called, `title` what it is."""

    name: str
    line: int
    title: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One listener. `title` says what it is there, and stands above it; `types` are those of `type`, in its order.
    `about_targets` is what is to be said beside them, `home` where they stand, None where that is the listener.
    """

    name: str
    line: int
    title: str
    types: tuple[str, ...]
    binds: tuple[Place, ...]
    targets: tuple[Place, ...]
    settings: dict[str, Setting]
    about_targets: str = ""
    home: Home | None = None


@dataclass(frozen=True, slots=True)
class Imported:
    """Everything. `daemon` are keys of `[daemon]`; `covered` are lines that need none, as (line, text): relayd does
    the same by itself. `leftovers` are in the order of their lines.
    """

    drafts: tuple[Draft, ...]
    leftovers: tuple[Leftover, ...]
    daemon: dict[str, Setting]
    covered: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class Notes:
    """What a reader of a dialect has found out so far, beside listeners."""

    leftovers: list[Leftover] = field(default_factory=list)
    daemon: dict[str, Setting] = field(default_factory=dict)
    covered: list[tuple[int, str]] = field(default_factory=list)
    _told: set[tuple[int, str]] = field(default_factory=set)

    def leave(self, line: int, text: str, reason: str, *, opens: bool = False) -> None:
        """`text` in `line` is not carried over, for `reason`."""
        self.leftovers.append(Leftover(line, text, reason, opens))

    def leave_once(self, line: int, text: str, reason: str) -> None:
        """As `leave`, for what several listeners inherit."""
        if (line, text) not in self._told:
            self._told.add((line, text))
            self.leave(line, text, reason)

    def cover(self, line: int, text: str) -> None:
        """`text` in `line` needs no line here: relayd does the same by itself."""
        self.covered.append((line, text))

    def imported(self, drafts: Sequence[Draft]) -> Imported:
        """All of it, each in the order of the lines."""
        return Imported(
            drafts=tuple(sorted(drafts, key=lambda draft: draft.line)),
            leftovers=tuple(sorted(self.leftovers, key=lambda one: one.line)),
            daemon=self.daemon,
            covered=tuple(sorted(set(self.covered))),
        )


class Names:
    """Names of listeners: legal, and each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, *wanted: str) -> str:
        """The first of `wanted`, made legal, that is free; else the first with a number behind it."""
        legal = [legal_name(text) for text in wanted]
        found = next((name for name in legal if name not in self._taken), "")
        number = self._next.get(legal[0], 2)
        while not found:
            tail = f"-{number}"
            name = legal[0][: NAME_CHARACTERS_MAX - len(tail)] + tail
            found = "" if name in self._taken else name
            number += 1
            self._next[legal[0]] = number
        self._taken.add(found)
        return found


def legal_name(text: str) -> str:
    """`text` as a listener or a pool can be called."""
    return _NOT_IN_A_NAME.sub("-", text).strip("-.")[:NAME_CHARACTERS_MAX] or "listener"
