"""Operations on the members of kernel sets: sorted arrays of byte strings of one width, without duplicates. Pure.

numpy's own (``np.unique``, ``np.setdiff1d``) hash or compare strings, which takes ten times as long for 100,000 members
as sorting them as numbers.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.bytes_]
_Keys = npt.NDArray[Any]  # of strings, or of words

_WORD = 8


def ordered(members: Members, *, kind: Literal["stable"] | None = None) -> Members:
    """The distinct members, sorted. ``kind``: stable (a merge sort) is faster for what consists of sorted runs."""
    if members.itemsize > _WORD:
        strings = np.sort(members, kind="stable")
        return strings[_first_of_equals(strings)]
    keys = np.sort(_keys(members), kind=kind)
    keys = keys[_first_of_equals(keys)]
    rows = keys.astype(">u8").view(np.uint8).reshape(-1, _WORD)[:, : members.itemsize]
    return np.ascontiguousarray(rows).view(members.dtype).ravel()


def differences(one: Members, other: Members) -> tuple[Members, Members]:
    """The members that are only in the one, and only in the other."""
    if np.array_equal(one, other):
        return one[:0], other[:0]
    keys = np.concatenate([_keys(one), _keys(other)])
    order = np.argsort(keys, kind="stable")  # merges two sorted runs; of equal keys, that of the one comes first
    pair = np.flatnonzero(~_first_of_equals(keys[order]))
    alone = np.ones(len(keys), np.bool_)
    alone[order[pair]] = alone[order[pair - 1]] = False
    return one[alone[: len(one)]], other[alone[len(one) :]]


def difference(left: Members, right: Members) -> Members:
    """The members of ``left`` that are not in ``right``."""
    return differences(left, right)[0]


def intersection(left: Members, right: Members) -> Members:
    return difference(left, difference(left, right))


def union(left: Members, right: Members) -> Members:
    return ordered(np.concatenate([left, right]), kind="stable")


def _keys(members: Members) -> _Keys:
    """Keys that sort as the members do: numbers, if a member is no wider than a word."""
    if members.itemsize > _WORD:
        return members
    rows = np.zeros((len(members), _WORD), np.uint8)
    rows[:, : members.itemsize] = np.ascontiguousarray(members).view(np.uint8).reshape(-1, members.itemsize)
    return rows.view(">u8").ravel().astype(np.uint64)


def _first_of_equals(keys: _Keys) -> npt.NDArray[np.bool_]:
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    return first
