"""Which member of a set gets the next client: five ways to balance, for streams and datagrams alike. Pure.

A set belongs to one worker; workers do not know of each other's picks, and need not: each of them being fair, all are
together. Only SOURCE_HASH promises that all workers agree, and it has no state to disagree about. All arithmetic that
decides is in integers, so that a share is exact, and a tie is one.

The order of turns is what `order` gives and `change` takes. It is a queue, whose places have a time: whoever is put
into the place of a member that goes has its turn, and nobody waits longer by that.

Members that `sit_out` are there and get nobody, for a while: they cost a pick nothing, and those that are excluded for
one client cost that client's pick a look at each.
"""

import abc
import heapq
import math
import random
from array import array
from bisect import bisect
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import ClassVar, Generic, TypeVar

from relayd.choosing.maglev import Member, blake2b, known, table_of
from relayd.spec import WEIGHT_MAX, Balance

#: A weight of a file, in so many parts: a target that comes back has some of them (`group`).
PARTS = 16
HEAVIEST = WEIGHT_MAX * PARTS
#: Bits of a count of picks: at a million a second they last for half a million years.
_TURN_BITS = 64
#: Superseded entries of a heap that are not worth removing, beside one for each member.
_FEW = 16


M = TypeVar("M", bound=Member)


class Balancer(abc.ABC, Generic[M]):
    """The members of one set, and whose turn it is. Not thread-safe. Empty until the first `change`."""

    __slots__ = ("_active", "_out", "size")

    #: Whoever sits out keeps a place, by which the others are found: `_change` is given all.
    _placed: ClassVar[bool] = False

    def __init__(self) -> None:
        #: How many members there are.
        self.size = 0
        #: By label, those that sit out.
        self._out: dict[str, M] = {}
        #: Connections and sessions of each label that has any, whether it is a member or has been one.
        self._active: dict[str, int] = {}

    def change(self, members: Sequence[M]) -> None:
        """From now on these, in the order of their turns; `change(order())` changes nothing.

        Of those that stay, by label, all state is kept. ValueError, and nothing has changed, where a label comes twice
        or a weight is out of range.
        """
        if len({member.label for member in members}) < len(members):
            raise ValueError("a label comes twice")
        if not all(1 <= member.weight <= HEAVIEST for member in members):
            raise ValueError(f"a weight is not in 1..{HEAVIEST}")
        self.size = len(members)
        self._seat(members, self._out)

    def sit_out(self, labels: Collection[str]) -> None:
        """From now on nobody is sent to the members with these labels, and to all others. Where there are turns, those
        that come back have the last ones. Labels of nobody are forgotten.
        """
        if self._out.keys() != labels:
            self._seat(self.order(), labels)

    def _seat(self, members: Sequence[M], labels: Collection[str]) -> None:
        self._out = {member.label: member for member in members if member.label in labels}
        out = () if self._placed else self._out
        self._change([member for member in members if member.label not in out])

    def order(self) -> list[M]:
        """The members in the order of their turns, last those that sit out. Where there are no turns, as `change` was
        given them.
        """
        return self._order() if self._placed else [*self._order(), *self._out.values()]

    @abc.abstractmethod
    def _change(self, members: list[M]) -> None:
        """`change`, of a list to keep."""

    @abc.abstractmethod
    def _order(self) -> list[M]:
        """`order`, of those that `_change` was given."""

    @abc.abstractmethod
    def pick(self, key: bytes, excluded: Collection[str] = ()) -> M | None:
        """The next one whose label is not among `excluded`, and who does not sit out; None when there is none.

        `key` is the client's address without its port; only SOURCE_HASH looks at it. Labels of nobody exclude nobody.
        """

    def begun(self, label: str) -> None:
        """A connection or session with `label` has begun. Counted even where it is no member, or none any more."""
        self._active[label] = self._active.get(label, 0) + 1

    def ended(self, label: str) -> None:
        """A connection or session with `label` has ended. RuntimeError where none has begun."""
        count = self._active.get(label)
        if count is None:
            raise RuntimeError(f"{label}: more have ended than begun")
        if count == 1:
            del self._active[label]
        else:
            self._active[label] = count - 1

    def counts(self) -> dict[str, int]:
        """How many of each label have begun and not ended; none of those that have none."""
        return dict(self._active)

    def active(self, label: str) -> int:
        """How many have begun with `label` and not ended."""
        return self._active.get(label, 0)


def balancer(kind: Balance, rng: random.Random) -> Balancer[M]:
    """An empty balancer of that kind. Only RANDOM draws from `rng`, which should not be the same in all workers."""
    if kind is Balance.ROUND_ROBIN:
        return RoundRobin()
    if kind is Balance.LEAST_CONNECTIONS:
        return LeastConnections()
    if kind is Balance.RANDOM:
        return Random(rng)
    if kind is Balance.SOURCE_HASH:
        return SourceHash()
    return First()


class RoundRobin(Balancer[M]):
    """Each its share, exactly: in every window of sum(weights) / gcd(weights) picks, unless somebody is owed a turn.

    Equal weights: plainly in turn, in the order given. Other weights: earliest deadline first. A member of weight w is
    due every 1/w, and whoever is due first is picked, from a heap, O(log n). That is stride scheduling (Waldspurger and
    Weihl, MIT/LCS/TM-528, 1995), and the EDF scheduler of Envoy, in integers. What all are due at is a merge of
    arithmetic progressions with a common period, which is why the shares are exact wherever they start. nginx's smooth
    weighted round robin gives as exact shares and looks at every member for each pick, O(n).

    Where the progressions start decides how well turns are spread. Those of one weight start evenly over 1/w, half a
    gap from the beginning (the ideal positions of Inman and Bulfin, Management Science 37(7), 1991), so that together
    they take turns as one member of their weights' sum would: (5, 1, 1) is a b a a a c a, where nginx has a a b a c a a
    and bare deadlines have a a a a a b c. Ties are in the order given.

    An excluded member keeps its turn: it is passed over for this client only, and due before those that were picked
    instead. It is owed one turn at most, however often it was passed over, so that it comes back without a burst; what
    it did not take falls to the others by their weights.

    A change that keeps the weights of all places keeps their times. After another one, those of one weight are spread
    evenly again, in the order given, from such a time on that nobody is due later than before; but not from before now.
    A member of another weight keeps what is left of its wait, as a part of the whole.
    """

    __slots__ = ("_at", "_heap", "_mask", "_members", "_strides", "_unit")

    def __init__(self) -> None:
        super().__init__()
        #: With equal weights the queue, whose first is at `_at`. With others, the members by their slots.
        self._members: list[M] = []
        self._at = 0
        #: One number for each member, unless all weights are equal: when it is due, in 1/`_unit`; low bits: its slot.
        self._heap: list[int] = []
        self._strides: list[int] = []
        self._mask = 0
        self._unit = 1

    def _order(self) -> list[M]:
        if self._heap:
            return [self._members[due & self._mask] for due in sorted(self._heap)]
        return self._members[self._at :] + self._members[: self._at]

    def pick(self, key: bytes, excluded: Collection[str] = ()) -> M | None:  # noqa: ARG002  # for SourceHash
        if self._heap:
            due = self._heap[0]
            slot = due & self._mask
            member = self._members[slot]
            if not excluded or member.label not in excluded:
                heapq.heapreplace(self._heap, due + self._strides[slot])
                return member
            return self._earliest_but(excluded)
        if not self._members:
            return None
        member = self._members[self._at]
        if excluded and member.label in excluded:
            return self._first_but(excluded)
        self._at = self._at + 1 if self._at + 1 < len(self._members) else 0
        return member

    def _first_but(self, excluded: Collection[str]) -> M | None:
        """Of equal weights: the first in the queue that is not excluded goes to its end, the others stay in place."""
        queue = self._order()
        for at, member in enumerate(queue):
            if member.label not in excluded:
                queue.append(queue.pop(at))
                self._members, self._at = queue, 0
                return member
        return None

    def _earliest_but(self, excluded: Collection[str]) -> M | None:
        """Of other weights. Those passed over stay due, but not by more than one turn before who is picked."""
        heap = self._heap
        passed: list[int] = []
        while heap:
            due = heap[0]
            slot = due & self._mask
            if self._members[slot].label not in excluded:
                heapq.heapreplace(heap, due + self._strides[slot])
                for late in passed:
                    other = late & self._mask
                    owed = (due - self._strides[other]) & ~self._mask | other
                    heapq.heappush(heap, max(late, owed))
                return self._members[slot]
            passed.append(heapq.heappop(heap))
        heap += passed  # in ascending order, which is a heap
        return None

    def _change(self, members: list[M]) -> None:
        weights = [member.weight for member in members]
        if len(set(weights)) < 2:
            self._members, self._at, self._heap = members, 0, []
        elif weights != [member.weight for member in self._order()] or not self._heap:
            self._spread(members)
        else:
            for due, member in zip(sorted(self._heap), members, strict=True):
                self._members[due & self._mask] = member

    def _spread(self, members: list[M]) -> None:
        """Give every member a slot and a time: those of one weight evenly, none later than it must be."""
        lanes: dict[int, list[int]] = {}
        for slot, member in enumerate(members):
            lanes.setdefault(member.weight, []).append(slot)
        bits = len(members).bit_length()
        # Every gap is a whole number, and half of it as well, above the bits of the slot.
        unit = math.lcm(*(weight * len(slots) for weight, slots in lanes.items())) << (bits + 1)
        waits, firsts = self._waits(unit)
        heap: list[int] = []
        for weight, slots in lanes.items():
            gap = unit // (weight * len(slots))
            starts = [
                waits[members[slot].label] // weight - place * gap
                for place, slot in enumerate(slots)
                if members[slot].label in waits
            ]
            start = min(starts) if starts else firsts.get(weight, gap // 2)
            start = max(0, min(start, gap)) >> bits << bits
            heap += [start + place * gap | slot for place, slot in enumerate(slots)]
        heapq.heapify(heap)
        self._members, self._at, self._heap = members, 0, heap
        self._strides = [unit // member.weight for member in members]
        self._mask, self._unit = (1 << bits) - 1, unit

    def _waits(self, unit: int) -> tuple[dict[str, int], dict[int, int]]:
        """In 1/`unit`, how long until each label is due, times its weight, and until the first of each weight is."""
        waits: dict[str, int] = {}
        firsts: dict[int, int] = {}
        now = self._heap[0] & ~self._mask if self._heap else 0
        for due in sorted(self._heap):
            member = self._members[due & self._mask]
            wait = ((due & ~self._mask) - now) * unit // self._unit
            waits[member.label] = wait * member.weight
            firsts.setdefault(member.weight, wait)
        return waits, firsts


class LeastConnections(Balancer[M]):
    """The lowest (active + 1) / weight: what its load would be with this client. Ties in turn, so that an idle set is
    filled evenly: who was picked last is last. That counts from `pick` on, whether or not something begins with it.

    A heap of one valid entry for each member, which is at most its rank: one whose rank has gone up is put right when
    it comes to the top, and one whose rank has gone down gets a new entry, which supersedes the old. So `begun` costs a
    few additions, and `ended` and `pick` O(log n), amortised. No more than n + 16 superseded entries are kept.

    Being excluded changes nothing: no member has a claim but its load and its turn. Members that are new have no
    connections, so that they are filled first, as fast as clients come.
    """

    __slots__ = ("_bits", "_entries", "_heap", "_members", "_next", "_ranks", "_slots", "_turns", "_units")

    def __init__(self) -> None:
        super().__init__()
        #: All lists are by slot.
        self._members: list[M] = []
        self._slots: dict[str, int] = {}
        #: Load, turn and slot in one number, so that comparing and finding are one. Load is in units of one connection.
        self._ranks: list[int] = []
        self._units: list[int] = []
        self._turns: list[int] = []
        self._next = 0
        self._bits = 0
        #: The entry of the heap that is valid; never more than the rank.
        self._entries: list[int] = []
        self._heap: list[int] = []

    def _change(self, members: list[M]) -> None:
        bits = len(members).bit_length()
        common = math.lcm(*(member.weight for member in members)) << (_TURN_BITS + bits)
        self._members, self._bits, self._next = members, bits, len(members)
        self._slots = {member.label: slot for slot, member in enumerate(members)}
        self._turns = list(range(len(members)))
        self._units = [common // member.weight for member in members]
        self._ranks = [
            (self.active(member.label) + 1) * unit + (slot << bits | slot)
            for slot, (member, unit) in enumerate(zip(members, self._units, strict=True))
        ]
        self._sweep()

    def _sweep(self) -> None:
        """One entry for each member."""
        self._entries = list(self._ranks)
        self._heap = sorted(self._ranks)  # what is sorted is a heap

    def _order(self) -> list[M]:
        return [member for _, member in sorted(zip(self._turns, self._members, strict=True), key=lambda each: each[0])]

    def pick(self, key: bytes, excluded: Collection[str] = ()) -> M | None:  # noqa: ARG002  # for SourceHash
        heap, mask = self._heap, (1 << self._bits) - 1
        passed: list[int] = []
        found = None
        while heap:
            entry = heap[0]
            slot = entry & mask
            rank = self._ranks[slot]
            if entry != self._entries[slot]:
                heapq.heappop(heap)
            elif entry != rank:
                heapq.heapreplace(heap, rank)
                self._entries[slot] = rank
            elif excluded and self._members[slot].label in excluded:
                passed.append(heapq.heappop(heap))
            else:
                self._ranks[slot] = rank + (self._next - self._turns[slot] << self._bits)
                self._turns[slot] = self._next
                self._next += 1
                found = self._members[slot]
                break
        for entry in passed:
            heapq.heappush(heap, entry)
        return found

    def begun(self, label: str) -> None:
        super().begun(label)
        slot = self._slots.get(label)
        if slot is not None:
            self._ranks[slot] += self._units[slot]

    def ended(self, label: str) -> None:
        super().ended(label)
        slot = self._slots.get(label)
        if slot is None:
            return
        self._ranks[slot] = rank = self._ranks[slot] - self._units[slot]
        if rank < self._entries[slot]:
            self._entries[slot] = rank
            heapq.heappush(self._heap, rank)
            if len(self._heap) > 2 * len(self._members) + _FEW:
                self._sweep()


class Random(Balancer[M]):
    """Two different ones drawn by weight, and of these the lower active / weight; at a tie, the first drawn.

    The power of two choices (Mitzenmacher, IEEE Transactions on Parallel and Distributed Systems 12(10), 2001): nearly
    as even as the least loaded of all, and workers that do not know of each other's connections do not all run to one
    member. An idle set is drawn from by weight.

    A draw bisects the running sums of weights. What may not be drawn is cut out of them, so that the second draw and
    excluded members cost no repetition: O(log n) and one step for each that is cut out.
    """

    __slots__ = ("_draw", "_ends", "_members", "_slots")

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        #: A float of 53 bits: of 2**18, a thousand of the heaviest, it is off from even by 2**-35.
        self._draw = rng.random
        self._members: list[M] = []
        #: Where the weights of each end, laid end to end.
        self._ends: list[int] = []
        self._slots: dict[str, int] = {}

    def _change(self, members: list[M]) -> None:
        self._members = members
        self._ends = list(accumulate(member.weight for member in members))
        self._slots = {member.label: slot for slot, member in enumerate(members)}

    def _order(self) -> list[M]:
        return list(self._members)

    def pick(self, key: bytes, excluded: Collection[str] = ()) -> M | None:  # noqa: ARG002  # for SourceHash
        cut = sorted({self._slots[label] for label in excluded if label in self._slots}) if excluded else []
        left = len(self._members) - len(cut)
        if not left:
            return None
        first = self._drawn(cut)
        if left == 1:
            return self._members[first]
        second = self._drawn(sorted([*cut, first]) if cut else (first,))
        one, other = self._members[first], self._members[second]
        active = self._active.get
        return one if active(one.label, 0) * other.weight <= active(other.label, 0) * one.weight else other

    def _drawn(self, cut: Iterable[int]) -> int:
        """A slot by weight, none of `cut`, which is in ascending order and leaves one."""
        ends, members = self._ends, self._members
        total = ends[-1]
        for slot in cut:
            total -= members[slot].weight
        at = int(self._draw() * total)
        for slot in cut:
            weight = members[slot].weight
            if at < ends[slot] - weight:
                break
            at += weight
        return bisect(ends, at)


class SourceHash(Balancer[M]):
    """The same client to the same member, while it is there: by a table, Maglev's (Eisenbud et al., NSDI 2016, section
    3.4). Stateless: for the same origins and weights the same choice in every set, worker, machine and version of
    Python, in whatever order they were given.

    Each member has a permutation of all entries by its origin, and in turn they claim the first of it that is free.
    Turns are by weight: in r rounds one of weight w has r * w / heaviest, rounded, and one at least, so that nobody is
    without an entry. A client goes where the hash of its address points, O(1). If that is excluded, it goes on by equal
    steps, which are from its hash as well, to the first entry that is not: so all agree on the second choice, too, and
    the clients of one that is excluded are spread by weight. Where all but a share s are excluded that takes some 1/s
    steps, and no more than there are entries.

    A table is made for the first client after a change: measured on CPython 3.11, in 1.4, 1.9, 24 and 99 ms for 2, 10,
    100 and 1,000 equal members, and in 1.5, 19, 118 and 107 ms with weights from 1 to 256. An entry takes two bytes. A
    change that keeps origins and weights keeps the table, and sets of the same have one together.
    """

    __slots__ = ("_indexes", "_members", "_out_indexes", "_sorted", "_table")

    _placed = True

    def __init__(self) -> None:
        super().__init__()
        self._members: list[M] = []
        #: By origin, and where each label is there.
        self._sorted: list[M] = []
        self._indexes: dict[str, int] = {}
        self._out_indexes: frozenset[int] = frozenset()
        #: Indexes into `_sorted`. Empty: still to be made.
        self._table: array[int] = array("H")

    def _change(self, members: list[M]) -> None:
        before = known(self._sorted)
        self._members = members
        self._sorted = sorted(members, key=lambda member: (member.origin, member.label))
        self._indexes = {member.label: index for index, member in enumerate(self._sorted)}
        self._out_indexes = frozenset(self._indexes[label] for label in self._out)
        if before != known(self._sorted):
            self._table = array("H")

    def _order(self) -> list[M]:
        return list(self._members)

    def pick(self, key: bytes, excluded: Collection[str] = ()) -> M | None:
        table = self._table
        if not table:
            if not self._sorted:
                return None
            table = self._table = table_of(self._sorted)
        hashed = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
        at = hashed % len(table)
        index, out = table[at], self._out_indexes
        if index not in out and (not excluded or self._sorted[index].label not in excluded):
            return self._sorted[index]
        if excluded:
            out = out.union(self._indexes[label] for label in excluded if label in self._indexes)
        if len(out) == len(self._sorted):
            return None
        # A step of its own for each client: neighbours in the table are not independent. It meets all entries, of which
        # there is a prime number.
        step = hashed // len(table) % (len(table) - 1) + 1
        while table[at] in out:
            at = (at + step) % len(table)
        return self._sorted[table[at]]


class First(Balancer[M]):
    """The first in the order given that is not excluded: the others are there for when it fails."""

    __slots__ = ("_members", "_seated")

    _placed = True

    def __init__(self) -> None:
        super().__init__()
        self._members: list[M] = []
        #: Those who do not sit out: where the first hundred do, a pick does not look at them.
        self._seated: list[M] = []

    def _change(self, members: list[M]) -> None:
        self._members = members
        self._seated = [member for member in members if member.label not in self._out]

    def _order(self) -> list[M]:
        return list(self._members)

    def pick(self, key: bytes, excluded: Collection[str] = ()) -> M | None:  # noqa: ARG002  # for SourceHash
        for member in self._seated:
            if not excluded or member.label not in excluded:
                return member
        return None
