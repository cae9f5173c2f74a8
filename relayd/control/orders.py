"""What an operator has ordered of targets (T4). Pure.

An order is about one address, or about a target of the file that is a name, and then about all addresses that it has
and will have. What was said of one address goes before what was said of its name, until something is said of the name.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from relayd.spec import WEIGHT_MAX, Ordered, Target
from relayd.values import dataclass

__all__ = ["Key", "Left", "Order", "Orders", "unpack"]

#: A pool and a target of it, as of `spec.TargetState`.
Key: TypeAlias = tuple[str, str]
#: A pool and a target of it, as the file has it.
Named: TypeAlias = tuple[str, Target]
#: Orders about addresses that a name does not have now: each was given by hand.
ABSENT_MAX = 1024
#: That are told from a life before.
_LEFT_MAX = 1 << 17


class Order(NamedTuple):
    """What holds for one address. `weight` None is that of the file; `since` is that of `ordered`, monotonic. `name` is
    that of the target of the file that has been ordered to be so; "": the address itself.
    """

    ordered: Ordered = Ordered.ENABLED
    weight: int | None = None
    since: float | None = None
    name: str = ""


class Left(NamedTuple):
    """An order that holds no more."""

    pool: str
    target: str
    ordered: Ordered
    weight: int | None

    def __str__(self) -> str:
        """`drained, weight 7`."""
        parts = [] if self.ordered is Ordered.ENABLED else [self.ordered.value]
        return ", ".join([*parts, *([f"weight {self.weight}"] if self.weight is not None else [])])


@dataclass(frozen=True, slots=True)
class _Said:
    """None: nothing has been said. `weight` 0 is that of the file."""

    text: str
    ordered: Ordered | None = None
    weight: int | None = None
    since: float | None = None

    def with_what(self, ordered: Ordered | None, weight: int | None, now: float) -> "_Said":
        if ordered is None:
            return replace(self, weight=weight)
        return self if ordered is self.ordered else replace(self, ordered=ordered, since=now)

    def is_it(self, ordered: Ordered | None, weight: int | None) -> bool:
        """The order changes nothing."""
        if ordered is None:
            return weight == (self.weight or 0)
        return ordered is (self.ordered or Ordered.ENABLED)

    def without(self, ordered: Ordered | None) -> "_Said":
        """With nothing said of what an order is about that has `ordered`."""
        return replace(self, weight=None) if ordered is None else replace(self, ordered=None, since=None)

    @property
    def empty(self) -> bool:
        return self.ordered is None and self.weight is None

    def left(self, pool: str) -> Left | None:
        """None: nothing is lost with it."""
        if self.ordered in (None, Ordered.ENABLED) and not self.weight:
            return None
        return Left(pool, self.text, self.ordered or Ordered.ENABLED, self.weight or None)


class Orders:
    """All that hold."""

    def __init__(self) -> None:
        self._of_names: dict[Named, _Said] = {}
        #: With the target of the file whose address it is.
        self._of_addresses: dict[Key, tuple[Target, _Said]] = {}

    def of(self, key: Key, target: Target) -> Order | None:
        """What holds for the address `key` of the `target` of the file; None: nothing has been ordered."""
        if not self._of_names and not self._of_addresses:
            return None
        name = self._of_names.get((key[0], target))
        _, own = self._of_addresses.get(key, (None, None))
        order = Order()
        for said, text in ((name, name.text if name is not None else ""), (own, "")):
            if said is not None and said.ordered is not None:
                order = order._replace(ordered=said.ordered, since=said.since, name=text)
            if said is not None and said.weight is not None:
                order = order._replace(weight=said.weight or None)
        return None if order.ordered is Ordered.ENABLED and order.weight is None else order

    def say_of_address(
        self, key: Key, target: Target, text: str, ordered: Ordered | None, weight: int | None, now: float
    ) -> None:
        """Have the address `key` of `target` be `ordered`; or, where that is None, have `weight`, 0: that of the file.
        People call it `text`.
        """
        _, own = self._of_addresses.pop(key, (None, None))
        inherited = self._of_names.get((key[0], target)) or _Said("")
        said = (own or _Said(text)).with_what(ordered, weight, now)
        if inherited.is_it(ordered, weight):
            said = said.without(ordered)
        if not said.empty:
            self._of_addresses[key] = target, said

    def say_of_name(self, named: Named, text: str, ordered: Ordered | None, weight: int | None, now: float) -> bool:
        """As `say_of_address`, for every address that `named` has and will have, whatever was said of one of them
        before. False: that is how it is already.
        """
        changed = False
        for key, (target, own) in list(self._of_addresses.items()):
            if (key[0], target) == named and (said := own.without(ordered)) != own:
                changed = True
                self._put_address(key, target, said)
        before = self._of_names.get(named) or _Said(text)
        if before.is_it(ordered, weight):
            return changed
        said = before.with_what(ordered, weight, now)
        if ordered is Ordered.ENABLED or (ordered is None and not weight):
            said = said.without(ordered)
        if said.empty:
            del self._of_names[named]
        else:
            self._of_names[named] = said
        return True

    def _put_address(self, key: Key, target: Target, said: _Said) -> None:
        if said.empty:
            del self._of_addresses[key]
        else:
            self._of_addresses[key] = target, said

    def absent(self, pool: str, text: str, here: Container[Key]) -> Iterator[tuple[Key, Target]]:
        """Of those that have an order and are not `here`, the one that is called `text`."""
        for key, (target, said) in self._of_addresses.items():
            if key[0] == pool and text in (key[1], said.text) and key not in here:
                yield key, target

    def keep(self, here: Mapping[Key, Target], listed: Container[Named]) -> list[Left]:
        """Go on with orders about what is `here`, or may come back, for its target is `listed` in the file. Returns
        the others.
        """
        gone = [named for named in self._of_names if named not in listed]
        lost = [self._of_names.pop(named).left(named[0]) for named in gone]
        absent = []
        for key, (target, said) in list(self._of_addresses.items()):
            if key in here:
                self._of_addresses[key] = here[key], said
            elif (key[0], target) in listed:
                absent.append(key)
            else:
                lost.append(self._of_addresses.pop(key)[1].left(key[0]))
        lost += [self._of_addresses.pop(key)[1].left(key[0]) for key in absent[:-ABSENT_MAX]]
        return [left for left in lost if left is not None]

    def pack(self) -> list[dict[str, Any]]:
        """What the next life has to know of them, for JSON."""
        said = [(pool, each) for (pool, _), each in self._of_names.items()]
        said += [(key[0], each) for key, (_, each) in self._of_addresses.items()]
        left = [each.left(pool) for pool, each in said]
        return [each._asdict() | {"ordered": each.ordered.value} for each in left if each is not None]


def unpack(value: object) -> Iterable[Left]:
    """What `pack` has returned, as far as `value` is that; never raises."""
    for each in value[:_LEFT_MAX] if isinstance(value, list) else ():
        try:
            pool, target, weight, ordered = each["pool"], each["target"], each["weight"], Ordered(each["ordered"])
        except (KeyError, TypeError, ValueError):
            continue
        known = weight is None or (type(weight) is int and 0 < weight <= WEIGHT_MAX)
        if known and isinstance(pool, str) and isinstance(target, str):
            yield Left(pool, target, ordered, weight)
