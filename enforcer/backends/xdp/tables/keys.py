"""Addresses as numpy keys that sort as addresses do: uint32 for IPv4; 16 bytes, big-endian (``S16``), for IPv6.

Sorting, searching and comparing work on both, so the sweep and changes in place are written once. There is no key after
the last address: a range up to it has no stop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.model.nets import Nets

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Keys = npt.NDArray[Any]  # uint32 or S16

_FULL4 = np.uint32(0xFFFFFFFF)
_FULL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)


def keys6(high: U64, low: U64) -> Keys:
    """S16 keys of IPv6 addresses given as two halves."""
    halves = np.empty((len(high), 2), ">u8")
    halves[:, 0], halves[:, 1] = high, low
    return halves.view("S16").ravel()


def halves6(keys: Keys) -> tuple[U64, U64]:
    """The high and low half of S16 keys."""
    halves = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)
    return np.ascontiguousarray(halves[:, 0]), np.ascontiguousarray(halves[:, 1])


def masks6(length: npt.NDArray[np.uint8]) -> tuple[U64, U64]:
    """The host bits of prefixes of these lengths, as two halves."""
    bits = length.astype(np.uint64)
    limit = np.uint64(64)
    high = np.where(bits < limit, _FULL >> np.minimum(bits, np.uint64(63)), np.uint64(0))
    rest = np.maximum(bits, limit) - limit
    low = np.where(rest < limit, _FULL >> np.minimum(rest, np.uint64(63)), np.uint64(0))
    return high, low


def ranges4(nets: Nets) -> tuple[Keys, Keys]:
    """The first and last addresses of the outermost IPv4 prefixes: disjoint, sorted, adjacent ones not joined."""
    return nets.intervals4


def ranges6(nets: Nets) -> tuple[Keys, Keys]:
    """Like :func:`ranges4` for IPv6, but adjacent ranges are joined."""
    high, low = nets.net6[:, 0], nets.net6[:, 1]
    if not len(high):
        return np.empty(0, "S16"), np.empty(0, "S16")
    host_high, host_low = masks6(nets.len6)
    first, last = keys6(high, low), keys6(high | host_high, low | host_low)
    if (last[:-1] < first[1:]).all():  # nothing nests
        return first, last
    # At the same address, starts come before ends: a merged range ends where as many ranges have ended as started.
    order = np.argsort(np.concatenate([first, last]), kind="stable")
    opens = order < len(first)
    depth = np.cumsum(np.where(opens, np.int64(1), np.int64(-1)))
    at = order[(depth == 1) & opens], order[(depth == 0)] - len(first)
    return first[at[0]], last[at[1]]


def after(last: Keys) -> Keys:
    """The addresses after these; the last address of all has none and is left out."""
    if last.dtype == np.uint32:
        following: U32 = last[last != _FULL4] + np.uint32(1)
        return following
    high, low = halves6(last)
    inside = (high & low) != _FULL
    high, low = high[inside], low[inside]
    return keys6(high + (low == _FULL), low + _ONE)


def first_of_equals(keys: Keys) -> Bool:
    """Which of the sorted keys are the first of equal ones."""
    first = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return first


def last_of_equals(keys: Keys) -> Bool:
    """Which of the sorted keys are the last of equal ones."""
    last = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=last[:-1])
    return last


def distinct(keys: Keys) -> Keys:
    """The distinct keys, sorted. A merge sort is fastest for a few sorted runs. (np.unique hashes: far slower.)"""
    ordered = np.sort(keys, kind="stable")
    found: Keys = ordered[first_of_equals(ordered)]
    return found


def counts_of(begin: Int, end: int) -> Int:
    """How many rows there are from each of these to the next, or to the end."""
    return np.append(begin[1:], end) - begin


def flat_ranges(begin: Int, count: Int) -> Int:
    """All indices of ``[begin, begin + count)``, one range after the other."""
    ends = np.cumsum(count)
    total = int(ends[-1]) if len(ends) else 0
    indices: Int = np.arange(total, dtype=np.int64) + np.repeat(begin - (ends - count), count)
    return indices


def before(keys: Keys) -> Keys:
    """The addresses before these, none of which is the first of all."""
    if keys.dtype == np.uint32:
        return keys - np.uint32(1)
    high, low = halves6(keys)
    return keys6(high - (low == 0), low - _ONE)


def within(first: Keys, last: Keys, keys: Keys) -> Bool:
    """Which keys lie in the disjoint, sorted ranges."""
    if not len(first):
        return np.zeros(len(keys), np.bool_)
    at = np.searchsorted(first, keys, side="right") - 1
    return np.asarray((at >= 0) & (keys <= last[at]), np.bool_)
