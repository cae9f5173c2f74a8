"""Blocks of the file, `[listeners.NAME]` and `[pools.NAME]`: what each says, where it says it, and what is in force.

Four layers make the value of a key: built in, `[defaults]` (the main file's, then those of the file that the block is
in), the pool, the listener. A key that a pool may set is set there and not in a listener that shares it: for such a
listener, `[defaults]` are then those for the pool. There is no pool's layer of other keys, nor without a pool.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from relayd.config import words
from relayd.config.document import Document
from relayd.config.model import ListenerTable, PoolKeys, PoolTable, Shared, built_in
from relayd.config.positions import Path
from relayd.config.problems import Problem, key_text, quote
from relayd.spec import PortRule, Share, Target

T = TypeVar("T", ListenerTable, PoolTable)

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
_NAME = re.compile(NAME_PATTERN[:-1] + r"\Z")


@dataclass(frozen=True)
class _Named(Generic[T]):
    """A table with a name of its own. `layers` are the `[defaults]` for it, the nearest last; `wrong` the keys of it
    that were left out as wrong.
    """

    SECTION: ClassVar[str]

    document: Document
    name: str
    table: T
    layers: tuple[Shared, ...]
    wrong: frozenset[str]

    @property
    def path(self) -> Path:
        """Where the block stands in its document."""
        return (self.SECTION, self.name)

    def __str__(self) -> str:
        """`pools.app at file:line:column`, to be named in a message about something else."""
        return f"{key_text(self.path)} at {self.document.place_of_key(self.path)}"

    def problem(
        self, key: str, message: str, suggestion: str = "", index: int | None = None, *, at_key: bool = False
    ) -> Problem:
        """A problem of one key, or of one element of it."""
        path = (*self.path, key) if index is None or not self._is_list(key) else (*self.path, key, index)
        return self.document.problem(path, message, suggestion, at_key=at_key)

    def place(self, key: str, index: int) -> str:
        """`file:line:column` of an element of a key."""
        return self.document.place_of_value((*self.path, key, index) if self._is_list(key) else (*self.path, key))

    def given(self, key: str) -> bool:
        """True when the block itself says so, rightly or wrongly."""
        return key in self.wrong or getattr(self.table, key) is not None

    def meant(self) -> set[str | None]:
        """Keys that are there by another name, which is the error to report."""
        return {words.LISTENER_WORDS.get(name.lower()) for name in self.document.data[self.SECTION][self.name]}

    def wrong_name(self) -> Iterator[Problem]:
        """The problem of its name, if it has one."""
        if not _NAME.match(self.name):
            message = f"{quote(self.name[:80])} cannot be a name: 1 to 64 letters, digits, _ . and -"
            yield self.document.problem(self.path, message, at_key=True)

    def layered(self, key: str) -> object:
        """The value of `key` from the nearest layer that has one, the last of which is what is built in."""
        for layer in (self.table, *reversed(self.layers)):
            value = getattr(layer, key)
            if value is not None:
                return value
        return getattr(built_in(), key)

    @functools.cached_property
    def goals(self) -> tuple[tuple[Target, ...], tuple[Share, ...]]:
        """The targets that stand here, and what each gets of the clients: made once for all that share a pool."""
        entries = self.table.targets or ()
        return (
            tuple(Target(each.address.address, each.address.rule, each.address.offset) for each in entries),
            tuple(Share(each.weight, each.backup, each.max_connections) for each in entries),
        )

    @functools.cached_property
    def following(self) -> tuple[int, ...]:
        """Which of them have a port that follows that of the bind."""
        return tuple(at for at, target in enumerate(self.goals[0]) if target.rule is not PortRule.FIXED)

    def _is_list(self, key: str) -> bool:
        return isinstance(self.document.data[self.SECTION][self.name].get(key), list)


@dataclass(frozen=True)
class Pool(_Named[PoolTable]):
    """A pool as it stands in a file."""

    SECTION = "pools"


@dataclass(frozen=True)
class Block(_Named[ListenerTable]):
    """A listener as it stands in a file. `pool` is the one whose targets it shares: None where it has its own, and
    where the one that it names is not there.
    """

    SECTION = "listeners"

    pool: Pool | None = None

    @property
    def home(self) -> "Block | Pool":
        """Where its targets stand, and the keys that a pool may set."""
        return self.pool or self

    def layered(self, key: str) -> object:
        """As of any block; a key that a pool may set is the pool's."""
        return self.pool.layered(key) if self.pool and key in PoolKeys.model_fields else super().layered(key)

    def serves(self, kind: str) -> bool:
        """True when it relays `kind`, "stream" or "dgram". Where what it says is wrong, it may be either."""
        return "type" in self.wrong or kind in (self.table.type or ("stream",))
