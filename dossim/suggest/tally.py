"""Tally: packets counted by source and signatures, and the lists that a tally is asked about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network

import numpy as np
import numpy.typing as npt

from dossim.suggest.signature import Signature
from dossim.suggest.traffic import I64, U64, Bool, Traffic
from enforcer.model.nets import IPNetwork

U32 = npt.NDArray[np.uint32]

FAMILIES = (4, 6)
BITS = {4: 32, 6: 64}  # of a key
HALF = 64


@dataclass(frozen=True)
class Tally:
    """Rows that differ in at least one of the first three. ``key``: as in :class:`Traffic`. ``mask``: a bit for each
    signature that the packets match. ``passing``: packets in no row, because no list can deny them.
    """

    is_six: Bool
    key: U64
    mask: U32
    packets: I64
    passing: int = 0

    @cached_property
    def total(self) -> int:
        """All packets."""
        return int(self.packets.sum()) + self.passing

    def where(self, kept: Bool) -> Tally:
        """Some of the rows."""
        return Tally(self.is_six[kept], self.key[kept], self.mask[kept], self.packets[kept])

    def count(self, rows: Bool) -> int:
        return int(self.packets[rows].sum())


def tally(traffic: Traffic, signatures: Sequence[Signature] = (), passing: int = 0) -> Tally:
    mask = np.zeros(len(traffic), np.uint32)
    for bit, item in enumerate(signatures):
        mask |= np.where(item.matches(traffic), np.uint32(1 << bit), np.uint32(0))
    order = np.lexsort((mask, traffic.key, traffic.is_six))
    is_six, key, mask = traffic.is_six[order], traffic.key[order], mask[order]
    differs = (is_six[1:] != is_six[:-1]) | (key[1:] != key[:-1]) | (mask[1:] != mask[:-1])
    first = np.flatnonzero(np.concatenate([[True], differs])) if len(key) else np.zeros(0, np.int64)
    packets = np.diff(np.append(first, len(key)))
    return Tally(is_six[first], key[first], mask[first], packets, passing)


def distinct(*keys: U64) -> U64:
    """Each key once, in order. numpy.unique takes several times as long on a million keys."""
    found = np.concatenate(keys)
    found.sort()
    return found[np.concatenate([[True], found[1:] != found[:-1]])] if len(found) else found


class Ranges:
    """Networks as ranges of keys, to ask for many keys at once. IPv6 networks longer than /64 count as the /64."""

    def __init__(self, nets: Iterable[IPNetwork]) -> None:
        each: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        for net in nets:
            each[net.version == 6].append(range_of(net))
        self._bounds = {is_six: _merged(found) for is_six, found in each.items()}

    def firsts(self, version: int) -> U64:
        """The first key of each."""
        return self._bounds[version == 6][0]

    def contain(self, is_six: Bool, key: U64) -> Bool:
        """bool[N]"""
        found = np.zeros(len(key), np.bool_)
        for six, (first, last) in self._bounds.items():
            mine = is_six == six
            if len(first) and mine.any():
                at = np.searchsorted(first, key[mine], "right") - 1
                found[mine] = (at >= 0) & (key[mine] <= last[np.maximum(at, 0)])
        return found


def range_of(net: IPNetwork) -> tuple[int, int]:
    """The first and the last key of a network."""
    shift = HALF - 32 if net.version == 4 else -HALF
    first, last = int(net.network_address), int(net.broadcast_address)
    if shift < 0:
        return first >> -shift, last >> -shift
    return first << shift, last << shift | (1 << shift) - 1


def prefix_range(key: int, length: int) -> tuple[int, int]:
    """The first and the last key with the prefix of a key."""
    shift = HALF - length
    return key >> shift << shift, key | (1 << shift) - 1


def network_of(version: int, key: int, length: int) -> IPNetwork:
    """The prefix of a key."""
    value = key >> (HALF - length) << (HALF - length) if length else 0
    return IPv4Network((value >> 32, length)) if version == 4 else IPv6Network((value << HALF, length))


def _merged(ranges: list[tuple[int, int]]) -> tuple[U64, U64]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], last)
        else:
            merged.append((first, last))
    pairs = np.array(merged, np.uint64).reshape(-1, 2)
    return pairs[:, 0].copy(), pairs[:, 1].copy()
