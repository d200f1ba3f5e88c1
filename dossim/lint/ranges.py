"""Ranges: exact sets of addresses of one family, for millions of them. Pure.

``(first, last)`` pairs, sorted, disjoint and not adjacent, so that a range lies in the set exactly when it lies in one
of the pairs. IPv4 is uint64 (room for the address after the last one), IPv6 an object array of Python integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.model.nets import IPNetwork, Nets

BITS = {4: 32, 6: 128}
_DTYPE: dict[int, Any] = {4: np.uint64, 6: object}

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Ranges:
    """Build with :meth:`of`, :meth:`full` or :meth:`empty`; all operands must be of one family."""

    version: int
    first: Numbers
    last: Numbers

    @classmethod
    def empty(cls, version: int) -> Ranges:
        return cls._of_pairs(version, [], [])

    @classmethod
    def full(cls, version: int) -> Ranges:
        return cls._of_pairs(version, [0], [(1 << BITS[version]) - 1])

    @classmethod
    def single(cls, version: int, address: int) -> Ranges:
        return cls._of_pairs(version, [address], [address])

    @classmethod
    def of(cls, nets: Nets | Iterable[IPNetwork], version: int) -> Ranges:
        """The addresses of the CIDRs of this family."""
        return _merged(version, *bounds(nets if isinstance(nets, Nets) else Nets.of(nets), version))

    @classmethod
    def _of_pairs(cls, version: int, first: list[int], last: list[int]) -> Ranges:
        return cls(version, np.array(first, _DTYPE[version]), np.array(last, _DTYPE[version]))

    def __bool__(self) -> bool:
        return len(self.first) > 0

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The lowest and the highest address; for an empty set a pair that overlaps no other."""
        return (int(self.first[0]), int(self.last[-1])) if self else (1 << 129, -1)

    @cached_property
    def is_full(self) -> bool:
        return len(self.first) == 1 and self.ends == (0, (1 << BITS[self.version]) - 1)

    def may_meet(self, other: Ranges) -> bool:
        """False only if the two have no address in common; quick."""
        return self.ends[0] <= other.ends[1] and other.ends[0] <= self.ends[1]

    def __le__(self, other: Ranges) -> bool:
        """Whether every address is also in the other set."""
        if self is other or not self or other.is_full:
            return True
        at = np.searchsorted(other.first, self.first, side="right") - 1
        if not other or at[0] < 0:
            return False
        return bool(np.all(self.last <= other.last[at]))

    def __and__(self, other: Ranges) -> Ranges:
        if self is other or other.is_full:
            return self
        if self.is_full:
            return other
        low = np.searchsorted(other.last, self.first, side="left")
        high = np.searchsorted(other.first, self.last, side="right")
        count = np.maximum(high - low, 0)
        mine = np.repeat(np.arange(len(count)), count)
        offset = np.arange(len(mine)) - np.repeat(np.cumsum(count) - count, count)
        theirs = low[mine] + offset
        return Ranges(
            self.version,
            np.maximum(self.first[mine], other.first[theirs]),
            np.minimum(self.last[mine], other.last[theirs]),
        )

    def __sub__(self, other: Ranges) -> Ranges:
        if not other or not self:
            return self
        return Ranges.empty(self.version) if self is other else self & other.complement()

    def meets(self, other: Ranges) -> bool:
        """Whether the two have an address in common."""
        if not self.may_meet(other):
            return False
        if self is other or self.is_full or other.is_full:
            return True
        low = np.searchsorted(other.last, self.first, side="left")
        high = np.searchsorted(other.first, self.last, side="right")
        return bool(np.any(high > low))

    def complement(self) -> Ranges:
        """Every address of the family that is not in the set."""
        if not self:
            return Ranges.full(self.version)
        end = (1 << BITS[self.version]) - 1
        first = np.concatenate([np.array([0], _DTYPE[self.version]), self.last + _one(self.version)])
        last = np.concatenate([self.first, np.array([end + 1], _DTYPE[self.version])])
        kept = first < last
        return Ranges(self.version, first[kept], last[kept] - _one(self.version))

    def holds(self, addresses: Numbers) -> npt.NDArray[np.bool_]:
        """Which of these addresses are in the set."""
        if not self:
            return np.zeros(len(addresses), np.bool_)
        at = np.searchsorted(self.first, addresses, side="right") - 1
        return np.asarray((at >= 0) & (addresses <= self.last[at]), np.bool_)


def bounds(nets: Nets, version: int) -> tuple[Numbers, Numbers]:
    """First and last address of each CIDR of a family, in their order: sorted by network, the shorter prefix first."""
    if version == 4:
        first = nets.net4.astype(np.uint64)
        return first, first + (np.uint64(1) << (np.uint64(32) - nets.len4.astype(np.uint64))) - np.uint64(1)
    halves = nets.net6.astype(object)
    first = halves[:, 0] * (1 << 64) + halves[:, 1]
    sizes = np.array([1 << (128 - length) for length in range(129)], object)
    return first, first + sizes[nets.len6] - 1


def numbers(version: int, values: Iterable[int]) -> Numbers:
    """Addresses as :meth:`Ranges.holds` takes them."""
    return np.array(list(values), _DTYPE[version])


def _merged(version: int, first: Numbers, last: Numbers) -> Ranges:
    """Merges pairs that are sorted by their first address."""
    if not len(first):
        return Ranges.empty(version)
    ends = np.maximum.accumulate(last)
    starts = np.flatnonzero(np.concatenate([[True], first[1:] > ends[:-1] + _one(version)]))
    stops = np.concatenate([starts[1:], [len(first)]]) - 1
    return Ranges(version, first[starts], ends[stops])


def _one(version: int) -> Any:
    return np.uint64(1) if version == 4 else 1
