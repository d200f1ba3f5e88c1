"""Operations on the members of kernel sets: sorted arrays of byte strings of one width, without duplicates. Pure.

numpy's own (``np.unique``, ``np.setdiff1d``) hash or compare strings, which takes ten times as long for 100,000 members
as sorting them as numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.bytes_]
_Keys = npt.NDArray[Any]  # of strings, or of words

_WORD = 8


def ordered(members: Members) -> Members:
    """The distinct members, sorted."""
    if members.itemsize > _WORD:
        strings = np.sort(members, kind="stable")
        return strings[_first_of_equals(strings)]
    keys = np.sort(_keys(members))
    keys = keys[_first_of_equals(keys)]
    rows = keys.astype(">u8").view(np.uint8).reshape(-1, _WORD)[:, : members.itemsize]
    return np.ascontiguousarray(rows).view(members.dtype).ravel()


def difference(left: Members, right: Members) -> Members:
    """The members of ``left`` that are not in ``right``."""
    if not len(left) or not len(right):
        return left
    return left[~_in_both(left, right)]


def intersection(left: Members, right: Members) -> Members:
    return left[_in_both(left, right)]


def union(left: Members, right: Members) -> Members:
    return ordered(np.concatenate([left, difference(right, left)]))


def _in_both(left: Members, right: Members) -> npt.NDArray[np.bool_]:
    """Which members of ``left`` are in ``right``."""
    found = np.zeros(len(left), np.bool_)
    if len(left) and len(right):
        one, other = _keys(left), _keys(right)
        if len(one) == len(other) and np.array_equal(one, other):
            return ~found
        at = np.searchsorted(other, one)
        at[at == len(other)] = 0
        found = np.asarray(other[at] == one, np.bool_)
    return found


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
