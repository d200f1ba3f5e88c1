"""Edits: changes to the function from addresses to classes within some ranges.

A change of an atom is computed from its CIDRs within the ranges, found by binary search, and from the classes in use
there, which contain the other atoms.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container
from dataclasses import dataclass, field

import numpy as np

from enforcer.backends.xdp.tables.classes import MOST_CLASSES, Members
from enforcer.backends.xdp.tables.keys import (
    U32,
    Bool,
    Keys,
    after,
    distinct,
    first_of_equals,
    ranges4,
    ranges6,
    within,
)
from enforcer.backends.xdp.tables.room import Full
from enforcer.model.nets import Nets

# From this number of ranges on, all CIDRs of the atom are swept once; below it, each range is searched for.
_MANY_RANGES = 64


@dataclass(frozen=True)
class Edit:
    """New classes within disjoint sorted ranges ``[first, last]``.

    ``edges``: the addresses where a class may begin or end, including those of the ranges. ``values(points, old)``: the
    new classes of points within the ranges.
    """

    first: Keys
    last: Keys
    edges: Keys
    values: Callable[[Keys, U32], U32]

    def applied(self, start: Keys, value: U32, unit_first: Keys, unit_last: Keys) -> tuple[Keys, U32]:
        """The segments (start, value) of some units after the edit. Units are ranges that begin with a segment."""
        edges = self.edges[within(unit_first, unit_last, self.edges)]
        points = distinct(np.concatenate([start, edges]))
        old = value[np.searchsorted(start, points, side="right") - 1]
        inside = np.flatnonzero(within(self.first, self.last, points))
        old[inside] = self.values(points[inside], old[inside])
        keep = first_of_equals(old)
        keep[np.searchsorted(points, unit_first)] = True
        return points[keep], old[keep]


@dataclass
class Registry:
    """The classes in use, and the new ones of a change in progress. Raises Full beyond ``most`` numbers."""

    members: dict[int, Members]
    most: int = MOST_CLASSES
    new: dict[int, Members] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.numbers = {members: number for number, members in self.members.items()}
        self._next = 0

    def number(self, members: Members) -> int:
        """The number of a class. A new class gets the lowest free number."""
        found = self.numbers.get(members)
        if found is not None:
            return found
        while self._next in self.members or self._next in self.new:
            self._next += 1
        if self._next >= self.most:
            raise Full(f"classes: there is room for {self.most}")
        self.new[self._next] = members
        self.numbers[members] = self._next
        return self._next

    def moved(self, number: int, atom: str, *, holds: bool) -> int:
        """The class that addresses of a class get if the atom now contains them, or no longer does."""
        members = self.new[number] if number in self.new else self.members[number]
        return self.number(members | {atom} if holds else members - {atom})

    def keep(self, numbers: Container[int]) -> None:
        """Drop the new classes except these."""
        for number in [number for number in self.new if number not in numbers]:
            del self.numbers[self.new.pop(number)]
            self._next = min(self._next, number)

    def commit(self) -> None:
        self.members.update(self.new)
        self.new = {}

    def forget(self) -> None:
        """Drop all new classes: the change is not made."""
        self.keep(())


def atom_edit(registry: Registry, atom: str, nets: Nets, changed: Nets, *, version: int) -> Edit | None:
    """The edit for an atom that now has ``nets``, after the CIDRs in ``changed`` were added or removed.

    None if nothing of this IP version has changed.
    """
    ranges = ranges4 if version == 4 else ranges6
    first, last = ranges(changed)
    if not len(first):
        return None
    covered = ranges(nets if len(first) > _MANY_RANGES else _near(nets, changed, version))
    edges = np.concatenate([first, after(last), *_edges_within(first, last, *covered)])

    def values(points: Keys, old: U32) -> U32:
        return _moved(registry, atom, old, within(*covered, points))

    return Edit(first, last, edges, values)


def _edges_within(first: Keys, last: Keys, covered_first: Keys, covered_last: Keys) -> tuple[Keys, Keys]:
    edges = after(covered_last)
    return covered_first[within(first, last, covered_first)], edges[within(first, last, edges)]


def _moved(registry: Registry, atom: str, old: U32, holds: Bool) -> U32:
    pair = old.astype(np.int64) << 1 | holds
    pairs = distinct(pair)
    moved = [registry.moved(item >> 1, atom, holds=bool(item & 1)) for item in pairs.tolist()]
    return np.array(moved, np.uint32)[np.searchsorted(pairs, pair)]


def step_edit(first: Keys, last: Keys, start: Keys, value: U32) -> Edit:
    """The edit that sets ``value[i]`` from ``start[i]`` on, within the ranges."""
    edges = np.concatenate([first, after(last), start[within(first, last, start)]])
    return Edit(first, last, edges, lambda points, _: value[np.searchsorted(start, points, side="right") - 1])


# --- the CIDRs that matter to a few ranges ---


def _near(nets: Nets, changed: Nets, version: int) -> Nets:
    """A few CIDRs of ``nets`` that are enough to tell whether ``nets`` contains each address in ``changed``."""
    column = _Column4(nets) if version == 4 else _Column6(nets)
    wanted = _Column4(changed) if version == 4 else _Column6(changed)
    parts, end = [], -1
    for at in range(len(wanted)):
        network, length = wanted.row(at)
        if network <= end:
            continue  # within the previous one
        end = network | column.hosts(length)
        if column.covers(network, length):
            parts.append(wanted.slice(at, at + 1))
        else:
            begin = bisect_right(column.rows, (network, length), key=column.row)
            parts.append(column.slice(begin, bisect_right(column.rows, (end, column.bits), key=column.row)))
    return Nets(
        np.concatenate([part.net4 for part in parts]),
        np.concatenate([part.len4 for part in parts]),
        np.concatenate([part.net6 for part in parts]),
        np.concatenate([part.len6 for part in parts]),
    )


class _Column:
    """The prefixes of one family, by number; sorted by (network, length)."""

    bits: int
    rows: range

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, at: int) -> tuple[int, int]:
        raise NotImplementedError

    def slice(self, begin: int, end: int) -> Nets:
        raise NotImplementedError

    def hosts(self, length: int) -> int:
        return (1 << self.bits - length) - 1

    def covers(self, network: int, length: int) -> bool:
        """Whether a prefix is one of these, or within one."""
        while True:
            at = bisect_right(self.rows, (network, length), key=self.row) - 1
            if at < 0:
                return False
            net, found = self.row(at)
            if found <= length and not (net ^ network) & ~self.hosts(found):
                return True
            # A prefix that contains it begins no later than the one found, so it contains their common prefix.
            length = self.bits - (net ^ network).bit_length()
            network &= ~self.hosts(length)


class _Column4(_Column):
    bits = 32

    def __init__(self, nets: Nets) -> None:
        self.nets, self.rows = nets, range(len(nets.net4))

    def row(self, at: int) -> tuple[int, int]:
        return int(self.nets.net4[at]), int(self.nets.len4[at])

    def slice(self, begin: int, end: int) -> Nets:
        return Nets(self.nets.net4[begin:end], self.nets.len4[begin:end])


class _Column6(_Column):
    bits = 128

    def __init__(self, nets: Nets) -> None:
        self.nets, self.rows = nets, range(len(nets.net6))

    def row(self, at: int) -> tuple[int, int]:
        return int(self.nets.net6[at, 0]) << 64 | int(self.nets.net6[at, 1]), int(self.nets.len6[at])

    def slice(self, begin: int, end: int) -> Nets:
        return Nets(net6=self.nets.net6[begin:end], len6=self.nets.len6[begin:end])
