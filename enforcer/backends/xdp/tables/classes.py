"""Classes of addresses: which atoms (sets of CIDRs) each address of both families belongs to.

A sweep over the ends of all ranges. Each atom is a bit, 64 to a word, which its ranges set and clear; each combination
of words is a class. Class 0 is always the empty set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from enforcer.backends.xdp.tables.keys import (
    U16,
    U32,
    U64,
    Int,
    Keys,
    after,
    distinct,
    first_of_equals,
    halves6,
    last_of_equals,
    ranges4,
    ranges6,
)
from enforcer.model.nets import Nets

MOST_CLASSES = 1 << 16
Members = frozenset[str]
_BLOCK = 64  # atoms to a word


class TooManyClasses(ValueError):
    """The sets overlap in more ways than there are class numbers."""


@dataclass(frozen=True)
class Segments4:
    """All IPv4 addresses: class ``cls[i]`` from ``start[i]`` on. The first start is 0; adjacent classes differ."""

    start: U32
    cls: U16

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class Segments6:
    """All IPv6 addresses: class ``cls[i]`` from ``high[i] << 64 | low[i]`` on. The first start is 0; adjacent classes
    differ.
    """

    high: U64
    low: U64
    cls: U16

    def __len__(self) -> int:
        return len(self.high)


@dataclass(frozen=True)
class Classified:
    """The classes that occur (``members``: class number -> atoms, always with 0), and their segments."""

    members: Mapping[int, Members]
    segments4: Segments4
    segments6: Segments6


@dataclass(frozen=True)
class _Steps:
    """A function of the address: row ``index[i]`` of ``masks`` (uint64[rows, blocks]) from ``start[i]`` on."""

    start: Keys
    index: Int
    masks: U64


def classify(atoms: Mapping[str, Nets], numbers: Mapping[Members, int] | None = None) -> Classified:
    """The classes of all addresses.

    Classes in ``numbers`` keep their number. Other classes get a number that is not in ``numbers`` or, if there is
    none, the number of a class that no longer occurs. Raises TooManyClasses.
    """
    names = list(atoms)
    four = _sweep([atoms[name] for name in names], ranges4, np.zeros(1, np.uint32))
    six = _sweep([atoms[name] for name in names], ranges6, np.zeros(1, "S16"))
    sets4, sets6 = _member_sets(four.masks, names), _member_sets(six.masks, names)
    number = _numbered(dict.fromkeys([*sets4, *sets6]), numbers or {})
    high, low = halves6(six.start)
    return Classified(
        {value: members for members, value in sorted(number.items(), key=lambda item: item[1])},
        Segments4(four.start, np.array([number[item] for item in sets4], np.uint16)[four.index]),
        Segments6(high, low, np.array([number[item] for item in sets6], np.uint16)[six.index]),
    )


class Classifier:
    """:func:`classify` with a memory: it sweeps again only if the atoms or their numbers are others than last time.

    Atoms are compared by identity: the compiler keeps those whose members have not changed.
    """

    def __init__(self) -> None:
        self._last: tuple[list[tuple[str, Nets]], Mapping[Members, int], Classified] | None = None

    def classify(self, atoms: Mapping[str, Nets], numbers: Mapping[Members, int] | None = None) -> Classified:
        given, items = dict(numbers or {}), list(atoms.items())
        if self._last is not None:
            known, known_numbers, classified = self._last
            is_same = len(known) == len(items) and all(
                name == other and nets is kept for (name, nets), (other, kept) in zip(items, known, strict=True)
            )
            if is_same and known_numbers == given:
                return classified
        found = classify(atoms, numbers)
        self._last = items, given, found
        return found


def _numbered(wanted: Mapping[Members, None], numbers: Mapping[Members, int]) -> dict[Members, int]:
    result = {members: numbers[members] for members in wanted if members in numbers}
    result[frozenset()] = 0
    new = [members for members in wanted if members not in result]
    if len(result) + len(new) > MOST_CLASSES:
        raise _too_many(len(result) + len(new))
    kept, known = set(result.values()), set(numbers.values())
    free = (number for number in range(MOST_CLASSES) if number not in known and number not in kept)
    stale = (number for number in range(MOST_CLASSES) if number in known and number not in kept)
    for members in new:
        number = next(free, None)
        result[members] = next(stale) if number is None else number
    return result


def _too_many(least: int) -> TooManyClasses:
    return TooManyClasses(
        f"sets of addresses: they overlap in at least {least:,} ways, and XDP supports {MOST_CLASSES:,}; "
        "use fewer or larger sets, or mode raw"
    )


def _sweep(atoms: Sequence[Nets], ranges: Callable[[Nets], tuple[Keys, Keys]], origin: Keys) -> _Steps:
    """``origin``: the first address, as an array of one key."""
    blocks = [
        _block([ranges(nets) for nets in atoms[at : at + _BLOCK]], origin)
        for at in range(0, max(1, len(atoms)), _BLOCK)
    ]
    while len(blocks) > 1:  # in pairs, so that a large one is not combined again and again
        pairs = [_combined(*blocks[at : at + 2]) for at in range(0, len(blocks) - 1, 2)]
        blocks = [*pairs, *blocks[2 * len(pairs) :]]
    return blocks[0]


def _block(ranges: Sequence[tuple[Keys, Keys]], origin: Keys) -> _Steps:
    """The sweep over at most 64 atoms' disjoint ranges (firsts, lasts)."""
    keys, toggles = [origin], [np.zeros(1, np.uint64)]
    for number, (first, last) in enumerate(ranges):
        stop = after(last)
        bit = np.uint64(1) << np.uint64(number)
        keys += [first, stop]
        # The ranges of an atom are disjoint, so adding and subtracting its bit equals xor, and numpy sums faster.
        toggles += [np.full(len(first), bit), np.full(len(stop), ~bit + np.uint64(1))]
    start = np.concatenate(keys)
    order = np.argsort(start, kind="stable")  # a merge sort is fast for sorted runs
    start = start[order]
    mask = np.cumsum(np.concatenate(toggles)[order], dtype=np.uint64)
    last_at = last_of_equals(start)
    start, mask = start[last_at], mask[last_at]
    changes = first_of_equals(mask)
    start, mask = start[changes], mask[changes]
    rows = distinct(mask)
    if len(rows) > MOST_CLASSES:
        raise _too_many(len(rows))
    return _Steps(start, np.searchsorted(rows, mask), rows[:, None])


def _combined(one: _Steps, two: _Steps) -> _Steps:
    start = distinct(np.concatenate([one.start, two.start]))
    first = one.index[np.searchsorted(one.start, start, side="right") - 1]
    second = two.index[np.searchsorted(two.start, start, side="right") - 1]
    pair = first * len(two.masks) + second
    changes = first_of_equals(pair)
    start, pair = start[changes], pair[changes]
    rows = distinct(pair)
    if len(rows) > MOST_CLASSES:
        raise _too_many(len(rows))
    masks = np.hstack([one.masks[rows // len(two.masks)], two.masks[rows % len(two.masks)]])
    return _Steps(start, np.searchsorted(rows, pair), masks)


def _member_sets(masks: U64, names: Sequence[str]) -> list[Members]:
    """The atoms of each row: bit b of word w is atom 64 w + b."""
    buf = masks.astype("<u8").view(np.uint8).reshape(len(masks), -1)
    return [
        frozenset(names[bit] for bit in np.flatnonzero(np.unpackbits(row, bitorder="little")).tolist()) for row in buf
    ]
