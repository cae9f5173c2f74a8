"""Maglev: which of a set's members a hash points at, as a table (Eisenbud et al., NSDI 2016, section 3.4). Pure."""

from array import array
from collections.abc import Iterable, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

try:
    from _blake2 import blake2b  # what hashlib has by this name: hashlib itself loads OpenSSL, which a start waits for
except ImportError:
    from hashlib import blake2b

__all__ = ["Member", "blake2b", "known", "table_of", "table_size"]


class Member(Protocol):
    """What can be picked."""

    @property
    def label(self) -> str:
        """Its address as text: who it is, within one set and across changes."""

    @property
    def origin(self) -> str:
        """Who it is for SOURCE_HASH, within one set: `label`, or what is alike in sets that shall choose alike."""

    @property
    def weight(self) -> int:
        """1..HEAVIEST. Its share is to those of others as their weights."""


#: How large a table is for at most so many shares: the sum of weights over the lightest, which of equal members is
#: their number. Primes, the largest below 2**12, 2**15, 2**17 and 2**20. The paper asks for 100 entries a member, for
#: shares that are off by 1 %. One of 100 equal members that goes was measured to move, of the others' keys, 3.3 % with
#: 20 entries each, 2.1 % with 82, 1.4 % with 164 and 0.9 % with 327: so 200, while that is affordable. Few sizes, far
#: apart: a change that passes from one to another moves nearly all keys.
_TABLES = ((20, 4093), (163, 32749), (655, 131071))
#: Beyond, shares are coarser, down to 10 entries for each of so many members; for more there is one size more.
_MEMBERS_MANY = 13107
_TABLE_LARGEST = 1048573
#: Every table that a set has, by origins and weights: the ports of a range, which choose alike, have one together. So
#: many ports cost neither the memory nor the time of as many tables.
_tables: "WeakValueDictionary[tuple[tuple[str, int], ...], array[int]]" = WeakValueDictionary()


def known(members: Iterable[Member]) -> tuple[tuple[str, int], ...]:
    """All that a table says of sorted `members`."""
    return tuple((member.origin, member.weight) for member in members)


def table_of(members: Sequence[Member]) -> "array[int]":
    """Of sorted `members`. Never to be changed: others have the same."""
    key = known(members)
    table = _tables.get(key)
    if table is None:
        table = _tables[key] = _maglev(members)
    return table


def table_size(weights: Sequence[int]) -> int:
    """How many entries a table for members of these weights has: a prime, see _TABLES."""
    shares = sum(weights) / min(weights)
    if len(weights) > _MEMBERS_MANY:
        return _TABLE_LARGEST
    return next((size for most, size in _TABLES if shares <= most), _TABLES[-1][1])


def _maglev(members: Sequence[Member]) -> "array[int]":
    """The table: of each entry, the index of its member. `members` are sorted, and fewer than entries."""
    weights = [member.weight for member in members]
    heaviest, size = max(weights), table_size(weights)
    places = [_hash(member.origin, b"offset") % size for member in members]
    skips = [_hash(member.origin, b"skip") % (size - 1) + 1 for member in members]
    # Another turn from r * w / heaviest = turns + 1/2 on; both sides times 2 * heaviest.
    turn_at = [heaviest] * len(members)
    free = bytearray(b"\1") * size
    table = array("H" if len(members) <= 1 << 16 else "I", [0]) * size
    left = size
    rounds = 0
    while True:
        rounds += 1
        for index, weight in enumerate(weights):
            if 2 * rounds * weight < turn_at[index] and rounds > 1:
                continue
            turn_at[index] += 2 * heaviest
            at, skip = places[index], skips[index]
            while not free[at]:
                at += skip
                if at >= size:
                    at -= size
            free[at] = 0
            table[at] = index
            places[index] = at
            left -= 1
            if not left:
                return table


def _hash(origin: str, which: bytes) -> int:
    """64 bits, one of two independent functions."""
    return int.from_bytes(blake2b(origin.encode(errors="surrogatepass"), digest_size=8, person=which).digest(), "big")
